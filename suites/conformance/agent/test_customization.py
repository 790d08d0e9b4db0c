"""agent.customization: name and identity that the host gave at the first boot are in force."""

from __future__ import annotations

import re

from lab.suite import Guest, Machine, check, linux


@check("agent.customization", level="smoke", defect=True)
def test_host_name_is_the_one_given(guest: Guest, machine: Machine) -> None:
    """Catches a first boot or a copy that ignored what the host handed in: it would bear another machine's name."""
    running = guest.check("cat", "/proc/sys/kernel/hostname")
    written = guest.check("cat", "/etc/hostname")
    given = _given(guest, machine, "hostname")
    if given:
        assert running == given, f"the guest calls itself {running!r}; it was given the name {given!r}"
    expected = guest.cell.guest.replace(".", "-") + "-"
    assert running.startswith(expected), f"the guest calls itself {running!r}; it was given a name like {expected}..."
    assert written == running, f"/etc/hostname says {written!r}, the kernel {running!r}"


@check("agent.customization", level="smoke", defect=True)
def test_machine_id_is_its_own(guest: Guest, machine: Machine) -> None:
    """Catches clones that share a machine-id or have none (machine-id(5): 32 hexadecimal digits)."""
    machine_id = guest.check("cat", "/etc/machine-id")
    assert re.fullmatch(r"[0-9a-f]{32}", machine_id), f"/etc/machine-id is {machine_id!r}"
    given = _given(guest, machine, "machine-id")
    assert machine_id == (given or machine_id), f"/etc/machine-id is {machine_id}; the guest was given {given}"
    assert len(set(machine_id)) > 4, f"/etc/machine-id is {machine_id}, which nobody draws by chance"


@check("agent.customization", defect=True)
def test_identity_is_given_only_once(guest: Guest) -> None:
    """Catches keys of other machines or of the image left beside the one that the lab gave."""
    keys = guest.run("sh", "-c", "ls /etc/ssh/ssh_host_*_key /etc/dropbear/dropbear_*_key 2>/dev/null").out.split()
    assert len(keys) == 1, f"the guest has {len(keys)} SSH host keys, it was given one: {', '.join(keys) or 'none'}"


def _given(guest: Guest, machine: Machine, name: str) -> str:
    """What the host handed in on its seed disk; empty where it handed none."""
    if machine.spec.seed is None:
        return ""
    seeds = [disk for disk in linux.disks(guest) if disk.is_seed]
    assert seeds, "the disk with the identity that the host handed in is not there"
    # A tar archive, of which only the beginning is filled.
    return linux.sh(guest, f"dd if={seeds[0].path} bs=65536 count=1 2>/dev/null | tar -x -O -f - lab-seed/{name}")
