"""Reads the guests of an inventory, one file each; the file's name is the guest's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.contracts import NAME_PATTERN
from lab.inventory.models import FileSource, GuestEntry, GuestFile, ImageSource, PackageSource
from lab.inventory.positions import Document, read
from lab.inventory.problems import Problems
from lab.inventory.profiles import NOT_A_NAME, refuse_tags
from lab.inventory.validation import check

SUFFIX = ".yaml"


@dataclass(frozen=True)
class GuestDocument:
    """A guest and the file that it comes from; no entry where the file has problems."""

    document: Document | None
    entry: GuestEntry | None


def read_guests(folders: Sequence[Path], problems: Problems) -> Mapping[str, GuestDocument]:
    """The guests of these folders by name."""
    found: dict[str, tuple[Path, GuestDocument]] = {}
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        problems.add(folders[-1], 0, "", "no such folder; it holds one file for each guest")
    for path in sorted(path for folder in present for path in folder.iterdir() if path.suffix in (SUFFIX, ".yml")):
        if path.suffix != SUFFIX:
            problems.add(path, 0, "", f"the file of a guest is named <guest>{SUFFIX}")
        elif not NAME_PATTERN.fullmatch(path.stem):
            problems.add(path, 0, path.stem, NOT_A_NAME)
        elif path.stem in found:
            problems.add(path, 0, path.stem, f"a guest of this name is in {found[path.stem][0]} too")
        else:
            found[path.stem] = (path, _read_guest(path, problems))
    return {name: guest for name, (_, guest) in found.items()}


def _read_guest(path: Path, problems: Problems) -> GuestDocument:
    document = read(path, problems)
    if document is None:
        return GuestDocument(None, None)
    refuse_tags(document, problems)
    guest = check(GuestFile, document.value, document.spot, problems)
    if guest is None:
        return GuestDocument(document, None)
    fields = {**dict(guest), "image": _absolute(guest.image, path.parent)}
    return GuestDocument(document, GuestEntry(name=path.stem, **fields))


def _absolute(source: ImageSource, folder: Path) -> ImageSource:
    """A source whose paths, written relative to the guest's file, are absolute."""
    if not isinstance(source, FileSource):
        return source
    paths = {key: getattr(source, key) for key in ("file", "kernel", "initrd")}
    absolute = {key: (folder / path).absolute() for key, path in paths.items() if path is not None}
    return source.model_copy(update=absolute)


def demand_image(guest: GuestDocument, problems: Problems) -> None:
    """A guest that the matrix uses must have its image, unless it is optional."""
    entry, document = guest.entry, guest.document
    if entry is None or document is None or entry.optional:
        return
    missing = entry.missing()
    if missing is not None:
        spot = document.spot(("image",))
        remedy = "pip install 'interop-lab[alpine]'" if isinstance(entry.image, PackageSource) else "put it there"
        problems.add(spot.path, spot.line, spot.label, f'{missing} ({remedy}, or say "optional: true")')
