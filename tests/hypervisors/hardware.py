"""Tries every capability of the QEMU driver on each kind of hardware with a guest that really runs; writes a table.

    python -m tests.hypervisors.hardware [--write] [PROFILE...]

Each boots the smallest guest once and tries everything in it; the table says what worked, and what did not, in the
words of whoever refused it. It takes a minute or two for each kind of hardware.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import process, waiting
from lab.contracts import Firmware, Machine, MachineSpec, MachineState, Owner, Profile, SshLogin
from lab.errors import GuestError, LabError, NotSupported
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import qemu
from lab.inventory.models import BuildSource
from lab.provisioning import images, keys, seed
from lab.testing import hypervisor_growth as growth
from lab.testing.hypervisor import Booted

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "qemu-hardware.md"
RESULTS = Path(__file__).with_name("hardware.json")
WITHIN_S = 60.0
_B, _U = Firmware.BIOS, Firmware.UEFI
HARDWARE = (
    Profile("pc, BIOS, virtio", _B, "pc", "virtio", "virtio", 1, 256, 2, 512),
    Profile("q35, BIOS, virtio", _B, "q35", "virtio", "virtio", 1, 256, 2, 512),
    Profile("q35, UEFI, virtio", _U, "q35", "virtio", "virtio", 1, 256, 2, 512),
    Profile("q35, BIOS, pvscsi, vmxnet3", _B, "q35", "pvscsi", "vmxnet3", 1, 256, 2, 512),
    Profile("q35, BIOS, NVMe", _B, "q35", "nvme", "virtio", 1, 256, 2, 512),
)


@dataclass
class Tried:
    """A guest that runs, and the host that it runs on."""

    booted: Booted
    host: Any

    @property
    def machine(self) -> Any:
        return self.booted.machine

    def sh(self, script: str) -> str:
        return self.booted.sh(script)

    def sees(self, script: str, wanted: Callable[[str], bool], what: str) -> None:
        waiting.until(lambda: wanted(self.sh(script)), what=what, timeout_s=WITHIN_S)


def pause(tried: Tried) -> None:
    tried.machine.pause()
    assert tried.machine.state() is MachineState.PAUSED
    tried.machine.resume()
    assert tried.sh("echo on") == "on"


def nmi(tried: Tried) -> None:
    script = "sed -n 's/^ *NMI: *\\([0-9]*\\).*/\\1/p' /proc/interrupts"
    before = int(tried.sh(script))
    tried.machine.inject_nmi()
    tried.sees(script, lambda said: int(said) > before, "the NMI")


def screenshot(tried: Tried) -> None:
    assert tried.machine.screenshot().startswith(b"\x89PNG")


def random_numbers(tried: Tried) -> None:
    tried.sh("modprobe virtio-rng")
    assert "virtio" in tried.sh("cat /sys/class/misc/hw_random/rng_current")
    assert len(tried.sh("dd if=/dev/hwrng bs=16 count=1 2>/dev/null | od -An -tx1").split()) == 16


def balloon(tried: Tried) -> None:
    given = tried.machine.spec.profile.memory_mib
    tried.sh("modprobe virtio_balloon")
    tried.machine.set_balloon(given - 32)
    waiting.until(lambda: tried.machine.balloon_mib() == given - 32, what="the balloon", timeout_s=WITHIN_S)
    tried.machine.set_balloon(given)
    waiting.until(lambda: tried.machine.balloon_mib() == given, what="the balloon to shrink", timeout_s=WITHIN_S)


def discard(tried: Tried) -> None:
    disk = "/dev/$(basename $(dirname $(grep -lx 131072 /sys/block/*/size)))"
    tried.sh(f"dd if=/dev/urandom of={disk} bs=1M count=24 2>/dev/null; sync")
    full = tried.machine.data_disk_used_bytes()
    assert full >= 24 << 20
    tried.sh(f"blkdiscard {disk}")
    waiting.until(
        lambda: tried.machine.data_disk_used_bytes() < full - (20 << 20), what="space to come back", timeout_s=10
    )


def disk(tried: Tried) -> None:
    sizes, wanted = "cat /sys/block/*/size", str(37 << 11)
    tried.machine.attach_disk("tried", 37)
    tried.sees(sizes, lambda said: wanted in said.split(), "the disk")
    tried.machine.detach_disk("tried")
    tried.sees(sizes, lambda said: wanted not in said.split(), "the disk to go")


def card(tried: Tried) -> None:
    addresses, mac = "cat /sys/class/net/*/address", "52:54:00:c0:ff:ee"
    tried.machine.attach_nic("tried", mac)
    tried.sees(addresses, lambda said: mac in said, "the card")
    tried.machine.detach_nic("tried")
    tried.sees(addresses, lambda said: mac not in said, "the card to go")


def shared_card(tried: Tried) -> None:
    addresses, mac = "cat /sys/class/net/*/address", "52:54:00:c0:ff:ef"
    tried.machine.attach_shared_nic("tried", mac, "tried")
    tried.sees(addresses, lambda said: mac in said, "the card")
    tried.machine.detach_nic("tried")


def memory(tried: Tried) -> None:
    before = int(tried.sh(growth._MEMORY_KIB))
    total = f"{growth._USE_MEMORY}; {growth._MEMORY_KIB}"
    tried.machine.attach_memory("tried", 128)
    tried.sees(total, lambda said: int(said) >= before + 128 * 1000, "the memory")
    tried.machine.detach_memory("tried")
    tried.sees(growth._MEMORY_KIB, lambda said: int(said) <= before + 1024, "the memory to go")


def processor(tried: Tried) -> None:
    tried.machine.set_vcpus(2)
    tried.sees(f"{growth._USE_PROCESSORS}; {growth._PROCESSORS}", lambda said: said == "2", "the processor")


def processor_out(tried: Tried) -> None:
    tried.machine.set_vcpus(1)
    assert tried.sh(growth._PROCESSORS) == "1"


def watchdog(tried: Tried) -> None:
    arm, _, disarm = growth._handles(tried.booted)
    before = tried.machine.watchdog_fired()
    tried.sh(arm)
    waiting.until(lambda: tried.machine.watchdog_fired() > before, what="the watchdog", timeout_s=WITHIN_S)
    tried.sh(disarm)


def kept(tried: Tried, act: Callable[[], object]) -> None:
    """The guest is the same afterwards, with what it had in memory."""
    token, boot = secrets.token_hex(8), tried.booted.boot_id()
    tried.sh(f"echo {token} >/run/tried")
    act()
    tried.booted.reconnect()
    assert tried.sh("cat /run/tried") == token
    assert tried.booted.boot_id() == boot


def snapshot(tried: Tried) -> None:
    def act() -> None:
        tried.machine.snapshot("tried")
        tried.sh("echo late >/run/tried")
        tried.machine.restore("tried")

    kept(tried, act)
    tried.machine.delete_snapshot("tried")


def sleep(tried: Tried) -> None:
    kept(tried, lambda: (tried.machine.save_state(), tried.machine.start()))


def move(tried: Tried) -> None:
    kept(tried, lambda: tried.machine.migrate_live(tried.machine.destinations()[0], with_storage=False))


def move_disks(tried: Tried) -> None:
    kept(tried, lambda: tried.machine.migrate_live(tried.machine.destinations()[0], with_storage=True))


def resize(tried: Tried) -> None:
    tried.machine.resize_data_disk(96)
    # A guest looks at a SCSI disk again when it is told to.
    again = "for disk in /sys/block/sd*/device/rescan; do [ ! -e $disk ] || echo 1 >$disk; done"
    tried.sees(f"{again}; cat /sys/block/*/size", lambda said: str(96 << 11) in said.split(), "the larger disk")


def panic(tried: Tried) -> None:
    tried.sh("modprobe pvpanic-mmio; modprobe pvpanic; (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    waiting.until(lambda: tried.machine.state() is MachineState.CRASHED, what="the panic to be told", timeout_s=30)


TRIALS: Mapping[str, Callable[[Tried], None]] = {
    "pause and go on": pause,
    "NMI": nmi,
    "screenshot": screenshot,
    "random numbers": random_numbers,
    "balloon": balloon,
    "discard": discard,
    "disk plugged in and out": disk,
    "card plugged in and out": card,
    "card of a shared network": shared_card,
    "memory plugged in and out": memory,
    "watchdog counts": watchdog,
    "snapshot": snapshot,
    "sleep": sleep,
    "migration, shared disks": move,
    "migration with disks": move_disks,
    "processor plugged in": processor,
    "processor plugged out": processor_out,
    "disk grows": resize,
    "panic is told": panic,
}


def tried_in(tried: Tried) -> Iterator[tuple[str, str]]:
    """Each trial and "works", or why not."""
    for name, trial in TRIALS.items():
        try:
            trial(tried)
        except NotSupported as reason:
            yield name, reason.what
        except (LabError, AssertionError) as reason:
            yield name, f"FAILS: {str(reason)[:200]}"
            tried.booted.revive()
        else:
            yield name, "works"


@contextmanager
def guest(host: Any, profile: Profile, folder: Path) -> Iterator[Tried]:
    """Boot the smallest guest on that hardware."""
    identity = Identity.make("hardware")
    disk_of_seed = folder / f"seed-{secrets.token_hex(4)}.img"
    seed.write_seed(identity, keys.client_key().public, disk_of_seed)
    login = SshLogin("root", keys.client_key().private, identity.host_key_public)
    image = images.resolve(BuildSource(build="jeos"), progress=lambda _: None)
    owner = Owner("hardware", "a/b/c", os.getpid(), process.start_time(os.getpid()) or 0)

    def attempt(machine: Machine) -> Any:
        try:
            return ssh.connect(machine.endpoint(22), login, timeout_s=20)
        except GuestError:
            return None

    def log_in(machine: Machine) -> Any:
        return waiting.until(lambda: attempt(machine), what="the guest to answer", timeout_s=300)

    def create() -> Machine:
        name = f"hardware-{secrets.token_hex(4)}"
        spec = MachineSpec(name, owner, image, replace(profile, name="tried"), disk_of_seed, data_disk_mib=64)
        made: Machine = host.create(spec)
        return made

    machine = create()
    try:
        machine.start()
        tried = Tried(Booted(machine, log_in(machine), log_in, create), host)
        yield tried
        machine = tried.machine
    finally:
        machine.destroy()


def table(results: Mapping[str, Mapping[str, str]], version: str) -> str:
    """The page."""
    notes: list[str] = []

    def cell(said: str) -> str:
        if said == "works":
            return "works"
        if said not in notes:
            notes.append(said)
        return f"{'fails' if said.startswith('FAILS') else 'no'} ({notes.index(said) + 1})"

    names = list(results)
    rows = [
        f"| {trial} | {' | '.join(cell(results[name].get(trial, 'not tried')) for name in names)} |" for trial in TRIALS
    ]
    head = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    return "\n".join(
        (
            "# What QEMU machines can, by hardware",
            "",
            "<!-- Written by `python -m tests.hypervisors.hardware --write`. -->",
            "",
            f"Tried with {version} in software emulation and the smallest guest (jeos), each from inside.",
            "The profiles of the inventory are made of these. jeos has no driver for AHCI and cannot boot from SATA.",
            "With a guest of one sector that writes and counts, sleep, snapshots, both migrations, processors,",
            "memory and cards were tried on SATA with e1000e on both chipsets. All worked but plugging a disk in and",
            "out, which QEMU's AHCI controller does not take.",
            "",
            *head,
            *rows,
            "",
            *(f"{number}. {note}" for number, note in enumerate(notes, 1)),
            "",
        )
    )


def _results() -> dict[str, dict[str, str]]:
    known: dict[str, dict[str, str]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return known


def main(arguments: Sequence[str]) -> None:
    """Try the named hardware, or all; keep what was found; with --write, write the page."""
    wanted = [argument for argument in arguments if not argument.startswith("--")]
    with tempfile.TemporaryDirectory(prefix="lab-hardware-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        with qemu.connect("hardware", qemu.Settings(accelerator="tcg")) as host:
            version = f"QEMU {host.facts().version}"
            for profile in HARDWARE:
                if wanted and profile.name not in wanted:
                    continue
                with guest(host, profile, Path(folder)) as tried:
                    found = {}
                    for name, said in tried_in(tried):
                        found[name] = said
                        sys.stdout.write(f"{profile.name}: {name}: {said}\n")
                        sys.stdout.flush()
                # Several of these may run side by side.
                RESULTS.write_text(json.dumps({**_results(), profile.name: found}, indent=1) + "\n")
    if "--write" in arguments:
        results = _results()
        order = [profile.name for profile in HARDWARE if profile.name in results]
        PAGE.write_text(table({name: results[name] for name in order}, version))


if __name__ == "__main__":
    main(sys.argv[1:])
