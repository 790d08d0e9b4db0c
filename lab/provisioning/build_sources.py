"""Package sources for a build: this machine's own, for the suite that a recipe names.

The lab names no mirror of its own: what apt on this machine may use, a build may use, with the same proxy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lab import process
from lab.errors import ImageError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Suites of Debian, so that "stable" of somebody's own repository is not taken for one.
_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
_ENVIRONMENT = "LAB_APT_SOURCES"
# How apt on this machine reaches its mirrors; nothing else of its configuration concerns a build.
_APT_KEYS = re.compile(
    r"Acquire::(?:(?:http|https|ftp|socks)::|Retries|Check-Valid-Until|Check-Date|Max-ValidTime|ForceIPv[46]|Queue-Mode)",
)
_NO_APT_KEYS = re.compile(r"::(?:User-Agent|Dl-Limit)\b")


@dataclass(frozen=True)
class Source:
    """One suite of one repository."""

    uri: str
    suite: str
    components: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"deb [signed-by={KEYRING}] {self.uri} {self.suite} {' '.join(self.components)}"


def for_suite(suite: str, *, etc_apt: Path = Path("/etc/apt")) -> tuple[str, ...]:
    """Lines of sources.list for `suite`, its updates and its security updates, where this machine has them.

    Raises `ImageError` when this machine knows no Debian repository.
    """
    named = os.environ.get(_ENVIRONMENT, "")
    files = [Path(named)] if named else _files(etc_apt)
    found: dict[str, None] = {}
    for source in _read(files):
        base, dash, rest = source.suite.partition("-")
        if base not in _SUITES or rest not in ("", "updates", "security"):
            continue
        found[replace(source, suite=f"{suite}{dash}{rest}", components=("main",)).line] = None
    lines = tuple(found)
    if not any(f" {suite} " in line for line in lines):
        places = ", ".join(map(str, files)) or f"{etc_apt}/sources.list"
        raise ImageError(
            f"no Debian repository to build {suite} from in {places}",
            hint=f"set {_ENVIRONMENT} to a sources.list file that names a Debian mirror with its main component",
        )
    return lines


def apt_options() -> str:
    """apt.conf text with the proxy and the like of this machine's apt."""
    apt_config = process.find("apt-config", package="apt")
    dump = process.check([apt_config, "dump"], timeout_s=30)
    kept = [line for line in dump.splitlines() if _APT_KEYS.match(line) and not _NO_APT_KEYS.search(line)]
    return "\n".join(line for line in kept if '""' not in line) + "\n"


def _files(etc_apt: Path) -> list[Path]:
    folder = etc_apt / "sources.list.d"
    candidates = [etc_apt / "sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    return [path for path in candidates if path.is_file()]


def _read(files: Iterable[Path]) -> Iterator[Source]:
    for path in files:
        try:
            text = path.read_text(errors="replace")
        except OSError as reason:
            raise ImageError(f"{path}: {reason.strerror}") from reason
        yield from _deb822(text) if path.suffix == ".sources" or "\nSuites:" in text else _one_line(text)


def _one_line(text: str) -> Iterator[Source]:
    """sources.list(5), one-line style: deb [options] uri suite component..."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield Source(words[1], words[2], tuple(words[3:]))


def _deb822(text: str) -> Iterator[Source]:
    """sources.list(5), deb822 style: paragraphs of fields, which may go on in indented lines."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", plain):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()))
