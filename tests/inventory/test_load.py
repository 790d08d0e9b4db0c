"""The text of every problem that an inventory can have is an interface, so all of it is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.contracts import Cell, Firmware, Profile, Realness
from lab.errors import ExitCode, InventoryProblems


def test_a_good_inventory_holds_what_its_files_say(lab):
    inventory = lab.load()

    assert list(inventory.hosts) == ["one", "two"]
    assert inventory.hosts["two"].settings.address == "two.example.org"
    assert inventory.guests["big"].memory_mib == 512
    assert inventory.profiles["q35"] == Profile("q35", Firmware.BIOS, "q35", "nvme", "virtio", 1, 256)
    assert len(list(inventory.matrix.cells())) == 8
    assert inventory.suites == lab.top / "suites"


def test_a_host_is_as_real_as_its_driver_unless_the_inventory_says_otherwise(lab):
    assert lab.load().hosts["two"].realness is Realness.EMULATED

    lab.append("dc/hosts.yaml", "      lab_realness: simulated")

    assert lab.load().hosts["two"].realness is Realness.SIMULATED


def test_host_variables_of_the_lab_reach_host_and_settings(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          hosts:
            one:
              ansible_host: 192.0.2.1
              lab_driver: qemu
              lab_cells_at_once: 3
              lab_memory_mib: 4096
              lab_insecure: [the certificate is not checked]
              lab_binary: /opt/qemu
              lab_ports: [1, 2]
            two: {lab_driver: esxi, lab_address: x}
        """,
    )

    host = lab.load().hosts["one"]

    assert (host.cells_at_once, host.memory_mib) == (3, 4096)
    assert host.insecure == ("the certificate is not checked",)
    assert (host.settings.binary, host.settings.ports) == (Path("/opt/qemu"), (1, 2))


def test_a_machine_gets_the_memory_that_its_guest_needs(lab):
    inventory = lab.load()

    assert inventory.profile_of(Cell("one", "big", "pc")).memory_mib == 512
    assert inventory.profile_of(Cell("one", "small", "pc")).memory_mib == 256


def test_all_problems_of_all_files_are_told_at_once(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          hosts:
            one: {lab_driver: qemo}
            two:
              lab_driver: esxi
              lab_adress: x
        """,
    )
    lab.append("profiles.yaml", "  memory: 2")
    lab.append("guests/big.yaml", "titel: x")
    lab.append("dc/matrix.yaml", "exlude: []")

    with pytest.raises(InventoryProblems) as caught:
        lab.load()

    assert str(caught.value).replace(f"{lab.top}/", "") == (
        'dc/hosts.yaml:3: one.lab_driver: no driver "qemo" (did you mean "qemu"? known: esxi, qemu)\n'
        'dc/hosts.yaml:4: two: the key "lab_address" is missing\n'
        'dc/hosts.yaml:6: two.lab_adress: unknown key (did you mean "lab_address"?)\n'
        'dc/matrix.yaml:6: exlude: unknown key (did you mean "exclude"?)\n'
        'guests/big.yaml:6: titel: unknown key (did you mean "title"?)\n'
        'profiles.yaml:12: q35.memory: unknown key (did you mean "memory_mib"?)\n'
        "6 problems; nothing was started."
    )
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("name", ["dc/hosts.yaml", "dc/matrix.yaml", "profiles.yaml"])
def test_a_missing_file_is_a_problem(lab, name):
    (lab.top / name).unlink()

    assert f"{name}: no such file" in lab.problems()


def test_an_inventory_without_guests_is_a_problem(lab):
    for path in (lab.top / "guests").iterdir():
        path.unlink()
    (lab.top / "guests").rmdir()

    assert "guests: no such folder; it holds one file for each guest" in lab.problems()


def test_a_missing_inventory_is_a_problem_that_names_the_nearest(lab):
    lab.folder = lab.top / "dcc"

    assert lab.problems() == ['dcc: no such folder (did you mean "dc"?)']


def test_a_file_is_not_an_inventory(lab):
    lab.folder = lab.top / "dc" / "hosts.yaml"

    assert lab.problems() == [
        "dc/hosts.yaml: an inventory is a folder; give dc instead".replace("give dc", f"give {lab.top}/dc").replace(
            f"{lab.top}/", ""
        )
    ]


def test_a_file_that_points_at_itself_is_a_problem(lab):
    (lab.top / "profiles.yaml").unlink()
    (lab.top / "profiles.yaml").symlink_to("profiles.yaml")

    assert "profiles.yaml: cannot be read: Too many levels of symbolic links" in lab.problems()
