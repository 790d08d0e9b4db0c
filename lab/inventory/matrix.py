"""Reads `matrix.yaml` and holds it against the hosts, guests and profiles that there are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lab.contracts import Cell
from lab.errors import ConfigurationError
from lab.inventory.models import Matrix, MatrixFile, matches
from lab.inventory.positions import Document, Place, read
from lab.inventory.problems import Problems, unknown
from lab.inventory.profiles import refuse_tags
from lab.inventory.validation import check


@dataclass(frozen=True)
class Known:
    """The names that a matrix may use; `None` where they could not be found out, so that nothing is judged."""

    hosts: Collection[str] | None
    guests: Collection[str] | None
    profiles: Collection[str] | None

    def of(self, kind: str) -> Collection[str] | None:
        return {"host": self.hosts, "guest": self.guests, "profile": self.profiles}[kind]


@dataclass
class _Judge:
    document: Document
    known: Known
    problems: Problems

    def complain(self, place: Place, text: str) -> None:
        spot = self.document.spot(place)
        self.problems.add(spot.path, spot.line, spot.label, text)


def read_matrix(path: Path, known: Known, today: date, problems: Problems) -> tuple[Matrix, Path] | None:
    """The matrix of a file and the folder of its catalogue, or `None` and at least one problem."""
    document = read(path, problems)
    if document is None:
        return None
    refuse_tags(document, problems)
    file = check(MatrixFile, document.value, document.spot, problems)
    if file is None:
        return None
    judge = _Judge(document, known, problems)
    before = len(problems)
    matrix = Matrix(
        hosts=_names(judge, "host", file.hosts),
        guests=_names(judge, "guest", file.guests),
        profiles=_names(judge, "profile", file.profiles),
        suites=tuple(dict.fromkeys(file.suites)),
        include=file.include,
        exclude=file.exclude,
        known_issues=file.known_issues,
    )
    suites = (path.parent / file.suites_from).resolve()
    if not suites.is_dir():
        judge.complain(("suites_from",), f"no such folder: {suites}")
    _judge_includes(judge, matrix)
    if len(problems) == before:
        _judge_globs(judge, matrix)
    _judge_expiry(judge, file, today)
    return matrix, suites


def _names(judge: _Judge, kind: str, written: Sequence[str]) -> tuple[str, ...]:
    """The names that a list of the product means; an entry may be a glob."""
    names: dict[str, int] = {}
    known = judge.known.of(kind)
    for index, entry in enumerate(written):
        place: Place = (f"{kind}s", index)
        if entry in names:
            judge.complain(place, f'"{entry}" is in the list already')
        if known is None or entry in known:
            names[entry] = index
            continue
        fitting = [name for name in known if matches(entry, name)] if _is_glob(entry) else []
        if not fitting:
            judge.complain(place, unknown(kind, entry, known))
        for name in fitting:
            names.setdefault(name, index)
    return tuple(names)


def _is_glob(entry: str) -> bool:
    return any(sign in entry for sign in "*?[")


def _judge_includes(judge: _Judge, matrix: Matrix) -> None:
    seen: set[str] = set()
    for index, inclusion in enumerate(matrix.include):
        place: Place = ("include", index, "cell")
        try:
            cell = Cell.parse(inclusion.cell)
        except ConfigurationError as reason:
            judge.complain(place, f"{reason.what}; {reason.hint}")
            continue
        for kind, name in (("host", cell.host), ("guest", cell.guest), ("profile", cell.profile)):
            known = judge.known.of(kind)
            if known is not None and name not in known:
                judge.complain(place, unknown(kind, name, known))
        in_product = cell.host in matrix.hosts and cell.guest in matrix.guests and cell.profile in matrix.profiles
        if in_product or cell.name in seen:
            judge.complain(place, f"{cell} is in the matrix already")
        seen.add(cell.name)


def _judge_globs(judge: _Judge, matrix: Matrix) -> None:
    """A glob that fits nothing is a slip of the pen, and what it should have kept out would be run."""
    globs = [(("exclude", index, "cells"), item.cells) for index, item in enumerate(matrix.exclude)]
    globs += [(("known_issues", index, "cells"), item.cells) for index, item in enumerate(matrix.known_issues)]
    names = list(_cell_names(matrix))
    if not names:
        judge.complain((), "the matrix has no cells")
    if None in (judge.known.hosts, judge.known.guests, judge.known.profiles):
        return
    for place, glob in globs:
        if names and not any(matches(glob, name) for name in names):
            judge.complain(place, f'"{glob}" fits no cell of the matrix')


def _cell_names(matrix: Matrix) -> Iterator[str]:
    for cell, _ in matrix.cells():
        yield cell.name


def _judge_expiry(judge: _Judge, file: MatrixFile, today: date) -> None:
    for index, issue in enumerate(file.known_issues):
        if issue.expires < today:
            judge.complain(
                ("known_issues", index, "expires"),
                f"expired on {issue.expires}: remove it, or agree on a new date with {issue.owner}",
            )
