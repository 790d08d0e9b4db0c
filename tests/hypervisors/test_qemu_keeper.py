"""The keeper's logs and notes, and the pictures of the display."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import process, waiting
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_keeper
from lab.hypervisors._qemu_keeper import BoundedLog, Notes
from lab.hypervisors._qemu_screen import png

KEEPER = Path(_qemu_keeper.__file__)


def test_a_short_log_is_kept_whole(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", head=10, tail=10)
    for part in (b"one ", b"two ", b"three ", b"four"):
        log.write(part)

    assert log.read() == b"one two three four"


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=40))
def test_a_long_log_keeps_its_beginning_and_its_end(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    log = BoundedLog(tmp_path_factory.mktemp("log") / "log", head=16, tail=16)
    for part in parts:
        log.write(part)
    whole, kept = b"".join(parts), log.read()

    assert kept.startswith(whole[:16])
    assert kept.endswith(whole[-16:])
    if kept != whole:
        lost = int(kept.split(b"[interop-lab: ")[1].split(b" bytes")[0])
        gap = f"\n[interop-lab: {lost} bytes left out here]\n"
        assert len(kept) - len(gap) + lost == len(whole)
        assert len(kept) <= 16 * 3 + len(gap)


def test_a_log_goes_on_over_starts(tmp_path: Path) -> None:
    BoundedLog(tmp_path / "log").write(b"first boot\n")
    BoundedLog(tmp_path / "log").write(b"second boot\n")

    assert BoundedLog(tmp_path / "log").read() == b"first boot\nsecond boot\n"


def test_a_log_that_cannot_be_written_does_not_end_the_keeper(tmp_path: Path) -> None:
    BoundedLog(tmp_path / "removed" / "log").write(b"lost")


def noted(tmp_path: Path, *events: dict[str, object]) -> dict[str, object]:
    notes = Notes(tmp_path / "events.json")
    for event in events:
        notes.event(event)
    return json.loads((tmp_path / "events.json").read_text())  # type: ignore[no-any-return]


def reset(*, guest: bool) -> dict[str, object]:
    return {"event": "RESET", "data": {"guest": guest, "reason": "x"}}


def test_only_resets_by_the_guest_count(tmp_path: Path) -> None:
    assert noted(tmp_path, reset(guest=True), reset(guest=False), reset(guest=True))["resets"] == 2


def test_a_reset_ends_a_panic(tmp_path: Path) -> None:
    panic: dict[str, object] = {"event": "GUEST_PANICKED", "data": {"action": "run"}}

    assert noted(tmp_path, panic)["panicked"] is True
    assert noted(tmp_path, panic, reset(guest=True))["panicked"] is False


def test_the_first_shutdown_is_the_reason(tmp_path: Path) -> None:
    found = noted(
        tmp_path,
        {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}},
        {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}},
    )

    assert found["shutdown"] == {"guest": True, "reason": "guest-shutdown"}


def test_a_guest_that_resets_for_ever_does_not_fill_the_notes(tmp_path: Path) -> None:
    found = noted(tmp_path, *[reset(guest=True)] * 500)

    assert found["resets"] == 500
    assert (tmp_path / "events.json").stat().st_size < 20_000


def test_a_full_disk_is_noted_until_the_machine_goes_on(tmp_path: Path) -> None:
    full: dict[str, object] = {"event": "BLOCK_IO_ERROR", "data": {"nospace": True}}

    assert noted(tmp_path, full)["no_space"] is True
    assert noted(tmp_path, full, {"event": "RESUME"})["no_space"] is False


def test_a_machine_that_nobody_could_find_is_ended(tmp_path: Path) -> None:
    """Its maker was killed and the machine reaped before the keeper could write down which process it is."""
    (tmp_path / ".process.json.draft").mkdir()  # so that nothing can be written there
    argv = ["/bin/sh", "-c", "exec sleep 600"]  # what the keeper adds is ignored
    job = {"directory": str(tmp_path), "console": str(tmp_path), "argv": argv, "incoming": None}

    answer = process.run([sys.executable, "-I", "-S", KEEPER], timeout_s=60, stdin=json.dumps(job).encode())

    pid = json.loads(answer.stdout)["pid"]
    waiting.until(lambda: process.start_time(pid) is None, what="the machine to be ended", timeout_s=60)
    notes = tmp_path / "events.json"
    waiting.until(lambda: json.loads(notes.read_text())["exit"] == -9, what="its end to be noted", timeout_s=60)


def test_a_picture_keeps_its_pixels() -> None:
    pixels = bytes(range(18))

    picture = png(b"P6\n3 2\n255\n" + pixels)

    assert struct.unpack(">II", picture[16:24]) == (3, 2)
    start = picture.index(b"IDAT") + 4
    rows = zlib.decompress(picture[start:])
    assert rows == b"\0" + pixels[:9] + b"\0" + pixels[9:]


@pytest.mark.parametrize("dump", [b"", b"P5\n1 1\n255\nx", b"P6\n9 9\n255\nshort", b"P6\n1 1\n65535\nxxxxxx"])
def test_what_is_no_picture_is_refused(dump: bytes) -> None:
    with pytest.raises(HypervisorRefused, match="screen dump"):
        png(dump)
