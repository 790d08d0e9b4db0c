"""Recipes: what an image that the lab builds is made of; folders below `recipes/`, named by digest."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ImageError

# Part of every key: raise it when the builder itself makes something else of the same recipe.
BUILDER_VERSION = 1
FOLDER = Path(__file__).parent / "recipes"
_SHARED = "shared"
_KEYS = {
    "title": str,
    "suite": str,
    "variant": str,
    "packages": list,
    "disk_mib": int,
    "arch": str,
    "kernel_arguments": str,
    "finish": str,
    "shared": list,
    "files": str,
    "prepare": str,
}
_OPTIONAL = {"prepare"}


@dataclass(frozen=True)
class Recipe:
    """One recipe: the Debian suite and packages, and the files that turn them into an image."""

    name: str
    folder: Path
    title: str
    suite: str
    variant: str  # mmdebstrap's: "extract" (unpack only), "apt" (install)
    packages: tuple[str, ...]
    disk_mib: int
    arch: str
    kernel_arguments: str
    finish: str  # the script that makes the disk; of this recipe's folder or of a shared one
    shared: tuple[str, ...]  # what it takes from `recipes/shared/`
    prepare: str  # script that is run before the packages are installed; may be empty
    files: str  # folder that is copied over the tree; of this recipe or `recipes/<other>/files`

    def kit(self) -> Iterator[tuple[str, Path]]:
        """Every file that the build needs, as (name in the kit, path), in a stable order."""
        roots = [(name, self.folder.parent / _SHARED / name) for name in self.shared]
        roots.append(("finish.sh", (self.folder / self.finish).resolve()))
        if self.prepare:
            roots.append(("prepare.sh", (self.folder / self.prepare).resolve()))
        roots.append(("files", (self.folder / self.files).resolve()))
        for name, root in roots:
            if root.is_file():
                yield name, root
                continue
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    yield f"{name}/{path.relative_to(root).as_posix()}", path

    def key(self) -> str:
        """Sixteen hex digits over the recipe, its files and the builder: equal key, equal way to build."""
        digest = hashlib.sha256(f"{BUILDER_VERSION}\0".encode())
        files = [("recipe.toml", self.folder / "recipe.toml"), *self.kit()]
        for name, path in files:
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:16]


def names() -> tuple[str, ...]:
    """The recipes that there are."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/recipe.toml")))


def load(name: str) -> Recipe:
    """The recipe called `name`. Raises `ImageError` when there is none or it is not well-formed."""
    known = names()
    if name not in known:
        raise ImageError(f"no recipe {name!r}", hint=f"known: {', '.join(known)}")
    path = FOLDER / name / "recipe.toml"
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as reason:
        raise ImageError(f"{path}: {reason}") from reason
    _check(path, data)
    return Recipe(
        name=name,
        folder=FOLDER / name,
        title=data["title"],
        suite=data["suite"],
        variant=data["variant"],
        packages=tuple(data["packages"]),
        disk_mib=data["disk_mib"],
        arch=data["arch"],
        kernel_arguments=data["kernel_arguments"],
        finish=data["finish"],
        shared=tuple(data["shared"]),
        files=data["files"],
        prepare=data.get("prepare", ""),
    )


def _check(path: Path, data: dict[str, Any]) -> None:
    problems = [f"{key}: unknown key" for key in data if key not in _KEYS]
    for key, kind in _KEYS.items():
        if key not in data and key in _OPTIONAL:
            continue
        if key not in data:
            problems.append(f"{key}: missing")
        elif type(data[key]) is not kind:
            problems.append(f"{key}: must be {kind.__name__}, is {type(data[key]).__name__}")
    if problems:
        raise ImageError("\n".join(f"{path}: {problem}" for problem in problems))
