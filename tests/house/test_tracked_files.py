"""What must never be in the repository: secrets, and names of machines that are not ours to name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LARGEST_BYTES = 1024 * 1024
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".cfg", ".sh", ".jinja", ".html", ".css", ".json", ""}
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/=\r\n]{40}")
TOKEN = re.compile(rb"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[0-9A-Za-z-]{20,})\b")
URL_HOST = re.compile(r"\bhttps?://([A-Za-z0-9.-]+)")


@pytest.fixture
def texts(root: Path, files: tuple[Path, ...]) -> dict[Path, bytes]:
    return {path: (root / path).read_bytes() for path in files if path.suffix in TEXT or path.name == "Jenkinsfile"}


def test_no_file_holds_a_private_key_or_a_token(texts: dict[Path, bytes]) -> None:
    assert [str(path) for path, data in texts.items() if PRIVATE_KEY.search(data) or TOKEN.search(data)] == []


def test_no_file_is_large(root: Path, files: tuple[Path, ...]) -> None:
    assert [str(path) for path in files if (root / path).stat().st_size > LARGEST_BYTES] == []


def test_only_known_hosts_are_named(texts: dict[Path, bytes]) -> None:
    """A package is found through the machine's own configuration, so no file names where packages come from."""
    named = {
        (host.lower(), str(path))
        for path, data in texts.items()
        for host in URL_HOST.findall(data.decode(errors="replace"))
        if not _is_documentation_or_local(host.lower())
    }

    assert sorted(named) == []


def _is_documentation_or_local(host: str) -> bool:
    # RFC 2606 and RFC 6761 set these names aside; the others hold specifications and name spaces that we cite.
    reserved = re.compile(r"(?:.*\.)?(?:example(?:\.com|\.org|\.net)?|test|invalid|localhost)|127\.0\.0\.1")
    cited = {"www.w3.org", "www.rfc-editor.org", "yaml.org", "docs.ansible.com", "bugs.debian.org", "github.com"}
    return bool(reserved.fullmatch(host)) or host in cited or "." not in host


def test_scripts_can_be_executed(root: Path, files: tuple[Path, ...]) -> None:
    plain = [
        str(path)
        for path in files
        if path.parts[0] in ("build", ".ci")
        and (root / path).read_bytes().startswith(b"#!")
        and not (root / path).stat().st_mode & 0o111
    ]

    assert plain == []
