"""Table rows as markup, built by hand: a large site has hundreds of thousands of them, too many for templates.

Every value goes through `text`, which escapes it; nothing else may put a value into a row.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from lab.results.plain import one_line, visible
from lab.results.statements import Statement
from lab.results.verdicts import Verdict
from lab.site import words
from lab.site.names import feature_path, slug
from lab.site.rows import CheckRow, FeatureRow
from lab.site.words import EXPECTED, Mark


def text(value: str) -> str:
    """A value as it may stand between tags and in quoted attributes: escaped, and nothing in it deceives."""
    return html.escape(visible(value))


@lru_cache(maxsize=256)
def mark(state: Mark) -> str:
    """A state as symbol and word; the symbol is not read aloud, because the word says it."""
    return f'<span class="mark {state.tone}"><b aria-hidden="true">{text(state.symbol)}</b> {text(state.word)}</span>'


def areas(grouped: Iterable[tuple[str, Sequence[FeatureRow]]], root: str, now: datetime) -> str:
    """The bodies of the table of a cell: areas, their features, their checks."""
    parts = []
    for area, features in grouped:
        parts.append(
            f'<tbody role="rowgroup"><tr class="group" role="row"><th role="rowheader" scope="rowgroup" colspan="5"'
            f' id="{slug(area)}">{text(area)}</th></tr></tbody>\n'
        )
        parts += [_feature(row, root, now) for row in features]
    return "".join(parts)


def _feature(row: FeatureRow, root: str, now: datetime) -> str:
    verdict = row.verdict
    seen_at = f"<small>{_seen_at(verdict, now)}</small>" if verdict.observed_at else ""
    checks = "".join(_check(check, root) for check in row.checks)
    return (
        f'<tbody class="feature" role="rowgroup" id="{slug(row.feature)}">\n'
        f'<tr role="row"><th role="rowheader" scope="row">{feature_link(row.feature, root)}</th>'
        f'<td role="cell" data-column="Seen">{mark(row.observed)}{_tags(verdict)}</td>'
        f'<td role="cell" data-column="Verdict" colspan="2">{mark(row.word)} <small>{row.expected.word}</small>'
        f"{_known_issue(verdict)}{statements(verdict.statements)}</td>"
        f'<td role="cell" data-column="As of">{seen_at}</td></tr>\n{checks}</tbody>\n'
    )


def _check(row: CheckRow, root: str) -> str:
    blame = f"<br><small>blame: {row.blame}</small>" if row.blame else ""
    measured = "".join(f'<p class="mono">{text(each)}</p>' for each in row.measured)
    log = ""
    if row.href and row.when:
        warm = ", warm" if row.warm else ""
        log = f'<a href="{root}{row.href}">log</a> <small>{words.moment(row.when)}{warm}</small>'
    return (
        f'<tr class="check" role="row"><th role="rowheader" scope="row" title="{text(row.check)}">'
        f'{text(row.sentence)}</th><td role="cell" data-column="Outcome">{mark(row.mark)}{blame}</td>'
        f'<td role="cell" class="reason">{text(row.reason)}{measured}{_tried(row, root)}</td>'
        f'<td role="cell" class="nowrap" data-column="Time">{row.seconds}</td>'
        f'<td role="cell" data-column="Evidence">{log}</td></tr>\n'
    )


def _seen_at(verdict: Verdict, now: datetime) -> str:
    when = verdict.observed_at
    return f"{words.moment(when)}, {words.age(when, now)}" if when else ""


def _tried(row: CheckRow, root: str) -> str:
    if not row.tried:
        return ""
    links = ", ".join(
        f'<a href="{root}{each.href}">{each.number} {each.mark.symbol} {each.mark.word}</a>' for each in row.tried
    )
    return f"<p><small>Attempts: {links}</small></p>"


def _tags(verdict: Verdict) -> str:
    flaky = ' <span class="tag">⚡ flaky</span>' if verdict.flaky else ""
    stale = ' <span class="tag">⌛ stale</span>' if verdict.stale else ""
    return flaky + stale


def _known_issue(verdict: Verdict) -> str:
    issue = verdict.known_issue
    if issue is None:
        return ""
    until = f", until {issue.expires}" if issue.expires else ""
    owner = text(one_line(issue.owner or "no owner"))
    return f'<p><span class="tag">known issue</span> {text(one_line(issue.reason))} <small>({owner}{until})</small></p>'


def statements(stated: Iterable[Statement]) -> str:
    """What vendors state, each with its source and date; they may contradict each other, all are shown."""
    return "".join(
        f"<p>{mark(EXPECTED[each.says])} says {text(each.vendor)}: {text(one_line(each.words or each.says.value))}"
        f" <small>({each.basis.value}; {text(each.source.title)}, {text(each.source.as_of)})</small></p>"
        for each in stated
    )


def feature_link(feature: str, root: str) -> str:
    """A link to the page of a feature."""
    return f'<a href="{root}{feature_path(feature)}">{text(feature)}</a>'


def records(shown: Iterable[tuple[str, CheckRow]], files: Mapping[str, Sequence[tuple[str, str]]], root: str) -> str:
    """The rows of the table of an attempt: a record each, with links to the files that its check kept."""
    parts = []
    for feature, row in shown:
        blame = f"<br><small>blame: {row.blame}</small>" if row.blame else ""
        measured = "".join(f'<p class="mono">{text(each)}</p>' for each in row.measured)
        kept = " ".join(f'<a href="{text(href)}">{text(name)}</a>' for name, href in files.get(row.check, ()))
        parts.append(
            f'<tr role="row"><th role="rowheader" scope="row">{text(row.sentence)}<br><small>'
            f"{feature_link(feature, root)} · <code>{text(row.check)}</code></small></th>"
            f'<td role="cell" data-column="Outcome">{mark(row.mark)}{blame}</td>'
            f'<td role="cell" class="reason">{text(row.reason)}{measured}</td>'
            f'<td role="cell" class="nowrap" data-column="Time">{row.seconds}</td>'
            f'<td role="cell">{kept}</td></tr>\n'
        )
    return "".join(parts)


def cell_of_feature(verdict: Verdict, links: tuple[str, str], marks: tuple[Mark, Mark, Mark], now: datetime) -> str:
    """A row of the page of a feature: one cell. `links`: its page and its log; `marks`: seen, verdict, stated."""
    page, log = links
    seen, word, stated = marks
    issue = ' <span class="tag">known issue</span>' if verdict.known_issue else ""
    link = f'<a href="../{log}">log</a>' if log else ""
    return (
        f'<tr role="row"><th role="rowheader" scope="row"><a href="../{page}#{slug(verdict.feature)}">'
        f'{text(verdict.cell)}</a></th><td role="cell" data-column="Seen">{mark(seen)}{_tags(verdict)}</td>'
        f'<td role="cell" data-column="Verdict">{mark(word)}{issue}</td>'
        f'<td role="cell" data-column="Stated">{mark(stated)}{statements(verdict.statements)}</td>'
        f'<td role="cell" class="reason">{text(one_line(verdict.reason))}</td>'
        f'<td role="cell" data-column="As of"><small>{_seen_at(verdict, now)}</small></td>'
        f'<td role="cell" data-column="Evidence">{link}</td></tr>\n'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    inner = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">{inner}</dl>' if inner else ""


def square(shown: Mark, href: str, small: str) -> str:
    """A square of a matrix; without a link it holds no data."""
    inner = f'<b aria-hidden="true">{shown.symbol}</b>&nbsp;{shown.word}'
    if not href:
        return f'<td class="{shown.tone}"><span>{inner}</span></td>'
    detail = f"<small>{text(small)}</small>" if small else ""
    return f'<td class="{shown.tone}"><a href="{href}">{inner}{detail}</a></td>'
