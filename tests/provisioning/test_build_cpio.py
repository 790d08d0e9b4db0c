"""The initial RAM disk: an archive as the kernel reads it."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from lab.provisioning import build_cpio


def _entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of "newc" of its own: name -> (mode, content)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + field[11] - 1].decode()
        at = -(-(at + 110 + field[11]) // 4) * 4
        content = archive[at : at + field[6]]
        at = -(-(at + field[6]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        assert field[2:4] == [0, 0]
        found[name] = (field[1], content)


def _write(tree: Path) -> bytes:
    target = io.BytesIO()
    build_cpio.write(tree, target)
    return target.getvalue()


def test_files_folders_and_links_come_out_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "busybox").write_bytes(b"odd")
    (tmp_path / "bin" / "sh").symlink_to("busybox")
    (tmp_path / "init").write_text("#!/bin/sh\n")
    (tmp_path / "init").chmod(0o755)
    entries = _entries(_write(tmp_path))
    assert list(entries) == ["bin", "bin/busybox", "bin/sh", "init"]
    assert entries["bin/busybox"][1] == b"odd"
    assert stat.S_ISLNK(entries["bin/sh"][0])
    assert entries["bin/sh"][1] == b"busybox"
    assert entries["init"][0] == stat.S_IFREG | 0o755


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name)
    first = _write(tmp_path)
    (tmp_path / "a").touch()
    assert _write(tmp_path) == first
