"""Package sources: this machine's own, for the suite that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ImageError
from lab.provisioning import build_sources

DEB822 = """\
# where packages are
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://other.test/tool
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
"""


def _lines(tmp_path: Path, suite: str) -> list[str]:
    return [line.partition("] ")[2] for line in build_sources.for_suite(suite, etc_apt=tmp_path)]


def test_deb822_sources_give_the_suite_its_updates_and_its_security_updates(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    assert _lines(tmp_path, "bookworm") == [
        "http://mirror.test/debian bookworm main",
        "http://mirror.test/debian bookworm-updates main",
        "http://mirror.test/debian-security bookworm-security main",
    ]


def test_another_release_comes_from_the_same_mirrors(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    assert _lines(tmp_path, "trixie")[-1] == "http://mirror.test/debian-security trixie-security main"


def test_one_line_sources_are_read_with_their_options_left_out(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# deb http://no.test/debian bookworm main\n"
        "deb [arch=amd64 trusted=yes] http://mirror.test/debian bookworm main non-free # ours\n"
        "deb-src http://mirror.test/debian bookworm main\n"
    )
    assert _lines(tmp_path, "bookworm") == ["http://mirror.test/debian bookworm main"]


def test_every_source_is_verified_with_debians_key(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb [trusted=yes] http://mirror.test/debian bookworm main\n")
    (line,) = build_sources.for_suite("bookworm", etc_apt=tmp_path)
    assert line.startswith(f"deb [signed-by={build_sources.KEYRING}] ")


def test_a_machine_without_a_debian_repository_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://other.test/ubuntu noble main\n")
    with pytest.raises(ImageError) as caught:
        build_sources.for_suite("bookworm", etc_apt=tmp_path)
    assert f"no Debian repository to build bookworm from in {tmp_path}/sources.list" in str(caught.value)
    assert "set LAB_APT_SOURCES to a sources.list file" in str(caught.value)


def test_a_named_file_is_used_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "mine.list"
    named.write_text("deb http://mine.test/debian stable main\n")
    monkeypatch.setenv("LAB_APT_SOURCES", str(named))
    assert _lines(tmp_path, "trixie") == ["http://mine.test/debian trixie main"]


def test_a_named_file_that_is_missing_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_APT_SOURCES", str(tmp_path / "absent"))
    with pytest.raises(ImageError, match="absent: No such file"):
        build_sources.for_suite("bookworm", etc_apt=tmp_path)


def test_the_proxy_of_this_machine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "apt.conf"
    configuration.write_text('Acquire::http::Proxy "http://proxy.test:3128";\nAPT::Get::Assume-Yes "true";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    options = build_sources.apt_options()
    assert 'Acquire::http::Proxy "http://proxy.test:3128";' in options
    assert "Assume-Yes" not in options
