"""What is written down of a cell that is worked in by hand, and when nobody answers for its machine any more."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab import process
from lab.contracts import Cell, Owner
from lab.errors import LabBusy
from lab.runner import kept, reap
from lab.runner.kept import Document, Place

CELL = Cell("h", "g", "p")
SINCE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = kept.place_of(tmp_path / "inventory", CELL)
    made.make()
    return made


def document(since: datetime = SINCE) -> Document:
    return Document(
        cell="h/g/p",
        inventory=Path("/inventory"),
        machine="lab-1",
        user="root",
        port=22,
        host_key="ssh-ed25519 AAAA",
        warm=True,
        since=since,
    )


def owner(place: Place, pid: int, started: int) -> Owner:
    return Owner(place.run, "h/g/p", pid, started)


def myself(place: Place) -> Owner:
    return owner(place, os.getpid(), process.start_time(os.getpid()) or 0)


def dead(place: Place) -> Owner:
    return owner(place, 2**22 + 1, 1)


def test_another_shell_reads_what_was_written(place: Place) -> None:
    place.write(document())

    assert Place(place.folder).read() == document()
    assert [found for _, found in kept.every()] == [document()]


def test_nobody_else_may_read_any_of_it(place: Place) -> None:
    place.write(document())

    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.folder.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700


def test_the_host_key_is_known_by_the_name_of_the_machine(place: Place) -> None:
    place.write(document())

    assert place.known_hosts.read_text() == "lab-1 ssh-ed25519 AAAA\n"


def test_inventories_and_cells_do_not_share_a_place(tmp_path: Path) -> None:
    places = {
        kept.place_of(tmp_path / inventory, Cell("h", guest, "p")).folder
        for inventory in ("one", "two")
        for guest in ("g", "k")
    }

    assert len(places) == 4


def test_an_inventory_has_one_place_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory").mkdir()
    monkeypatch.chdir(tmp_path)

    assert kept.place_of(Path("inventory"), CELL) == kept.place_of(tmp_path / "inventory", CELL)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": 1}', b"\xff\xfe"])
def test_a_damaged_document_is_no_cell_that_is_up(place: Place, damage: bytes) -> None:
    place.write(document())
    (place.folder / "up.json").write_bytes(damage)

    assert place.read() is None
    assert list(kept.every()) == []


def test_the_mark_of_a_run_is_no_place() -> None:
    assert kept.place_of_owner(Owner("20260101-000000-beef", "h/g/p", 1, 1)) is None


@pytest.mark.parametrize("run", ["by-hand-../../x", "by-hand-", "by-hand-0123456789ab", "by-hand-0123456789\n"])
def test_a_forged_mark_leads_nowhere(run: str) -> None:
    assert kept.place_of_owner(Owner(run, "h/g/p", 1, 1)) is None


def test_the_mark_leads_back_to_its_place(place: Place) -> None:
    assert kept.place_of_owner(myself(place)) == place


def test_a_machine_that_is_up_outlives_the_command_that_made_it(place: Place) -> None:
    place.write(document())

    assert not kept.is_left(dead(place), now=SINCE + timedelta(hours=23))


def test_a_machine_that_is_up_for_too_long_is_left(place: Place) -> None:
    place.write(document())

    assert kept.is_left(dead(place), now=SINCE + timedelta(hours=25))
    assert kept.is_left(dead(place), older_than=timedelta(hours=1), now=SINCE + timedelta(hours=2))


def test_a_machine_that_comes_up_now_belongs_to_the_command_that_makes_it(place: Place) -> None:
    assert not kept.is_left(myself(place))


def test_a_machine_whose_command_was_killed_is_left(place: Place) -> None:
    assert kept.is_left(dead(place))


def test_reaping_asks_the_place_about_a_machine_made_by_hand(place: Place) -> None:
    place.write(document(datetime.now(UTC)))

    assert not reap.is_orphan(dead(place))
    assert reap.is_orphan(dead(place), by_hand_for=timedelta(0))


def test_two_commands_cannot_bring_one_cell_up_at_once(place: Place) -> None:
    with place.locked(), pytest.raises(LabBusy, match="brings this cell up or puts it away just now"), place.locked():
        pass


def test_clearing_twice_is_safe(place: Place) -> None:
    place.write(document())

    place.clear()
    place.clear()

    assert not place.folder.exists()
