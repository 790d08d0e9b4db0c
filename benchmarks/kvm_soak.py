"""Whether KVM on an emulated processor can be trusted: the made host is restored, a guest boots in it and calculates.

    python -m benchmarks.kvm_soak --times 20

Each round is a host of its own, restored from the frozen copy, and a guest under `-accel kvm`, which says what it runs
on, and hashes data whose hash is known, again and again, through pipes, from memory and from its disk. It goes on
where an earlier call ended: what was found is a line for each round in `benchmarks/kvm_soak.jsonl`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lab import process, waiting
from lab.contracts import Channel, Firmware, Hypervisor, Machine, MachineSpec, Owner, Profile, Realness, SshLogin
from lab.errors import GuestError, LabError
from lab.guests.channels import ssh
from lab.guests.identity import Identity
from lab.hypervisors import libvirt
from lab.inventory.models import BuildSource, Host
from lab.provisioning import hosts, images, keys, seed

RESULTS = Path(__file__).with_suffix(".jsonl")
HARDWARE = Profile("pc-bios", Firmware.BIOS, "pc", "virtio", "virtio", vcpus=1, memory_mib=256)
DETECTED = "Hypervisor detected: KVM"
NUMBERS, TIMES = 100_000, 5
BOOT_S, WORK_S = 300.0, 300.0
ENDED = "ended from outside before it was over"
# Streams through a pipe, readings of a file in memory, readings of one on the disk past the cache.
WORK = """set -eu
dmesg | grep -m 1 -o 'Hypervisor detected: .*'
seq 1 "$1" >/dev/shm/soak; seq 1 "$1" >/root/soak; sync
i=0
while [ $i -lt "$2" ]; do
    seq 1 "$1" | sha256sum
    sha256sum </dev/shm/soak
    echo 3 >/proc/sys/vm/drop_caches
    sha256sum </root/soak
    i=$((i + 1))
done
"""


def expected() -> str:
    """What each line of the work must be."""
    return hashlib.sha256("".join(f"{number}\n" for number in range(1, NUMBERS + 1)).encode()).hexdigest()


def judge(said: str) -> tuple[int, str]:
    """How many hashes were right, and what was wrong; nothing when that is empty."""
    first, *hashes = said.splitlines() or [""]
    right = [line for line in hashes if line.split()[:1] == [expected()]]
    if first != DETECTED:
        return len(right), f"the guest said {first[:100]!r}, not {DETECTED!r}"
    if len(hashes) != 3 * TIMES or len(right) != len(hashes):
        return len(right), f"{len(right)} of {3 * TIMES} hashes are right, {len(hashes)} came"
    return len(right), ""


def done() -> list[dict[str, object]]:
    """The rounds of earlier calls."""
    if not RESULTS.is_file():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines() if line]


def main(arguments: list[str] | None = None) -> int:
    """Soak; 1 when a round was not clean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="rounds that there shall be in all")
    parser.add_argument("--seconds", type=float, default=300.0, help="after these no more is begun")
    wanted = parser.parse_args(arguments)
    # A round that a limit from outside ends is a round that was not clean, and leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    while len(done()) < wanted.times and time.monotonic() - began < wanted.seconds:
        found = one(len(done()) + 1)
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
        if found["wrong"] == ENDED:
            break
    rounds = done()
    clean = sum(not entry["wrong"] for entry in rounds)
    print(f"{clean} of {len(rounds)} rounds clean")
    return 0 if clean == len(rounds) else 1


def one(number: int) -> dict[str, object]:
    """One round: what it took, and what was wrong."""
    host = Host("kvm-soak", "libvirt", libvirt.Settings(made_from="kvm-host"), Realness.EMULATED)
    found: dict[str, object] = {"number": number, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    found["load"] = round(os.getloadavg()[0], 1)
    start = time.monotonic()
    try:
        with hosts.connect(host) as hypervisor:
            found["host_s"] = round(time.monotonic() - start, 1)
            facts = hypervisor.facts()
            found["host"] = f"{facts.build}, {facts.accelerator}, {facts.realness}"
            in_a_guest(hypervisor, found)
    except LabError as reason:
        found["wrong"] = f"{type(reason).__name__}: {reason.what[:500]}"
    except SystemExit:
        found["wrong"] = ENDED
    found["seconds"] = round(time.monotonic() - start, 1)
    return found


def in_a_guest(hypervisor: Hypervisor, found: dict[str, object]) -> None:
    """Boot jeos there, let it work, remove it; `found` gets what it took, as it goes on, and what was wrong."""
    image = images.resolve(BuildSource(build="jeos"), progress=lambda line: None)
    # Every character on the serial line leaves the guest twice, which is most of a talkative boot's minute and a half.
    image = replace(image, kernel_arguments=f"{image.kernel_arguments} quiet")
    identity = Identity.make("soak")
    owner = Owner("soak", "kvm-soak/jeos/pc-bios", os.getpid(), process.start_time(os.getpid()) or 0)
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "seed.img"
        seed.write_seed(identity, keys.client_key().public, disk)
        start = time.monotonic()
        machine = hypervisor.create(MachineSpec("soak", owner, image, HARDWARE, disk))
        try:
            found["create_s"] = round(time.monotonic() - start, 1)
            start = time.monotonic()
            machine.start()
            with closing(_logged_in(machine, identity)) as channel:
                found["login_s"] = round(time.monotonic() - start, 1)
                start = time.monotonic()
                said = channel.run(("sh", "-c", WORK, "sh", str(NUMBERS), str(TIMES)), timeout_s=WORK_S)
                found["work_s"] = round(time.monotonic() - start, 1)
        finally:
            machine.destroy()
    found["right"], wrong = judge(said.out)
    found["wrong"] = wrong or said.err.strip()[:300]


def _logged_in(machine: Machine, identity: Identity) -> Channel:
    login = SshLogin("root", keys.client_key().private, identity.host_key_public)

    def attempt() -> Channel | None:
        try:
            return ssh.connect(machine.endpoint(22), login, timeout_s=60)
        except GuestError:
            return None

    return waiting.until(attempt, what="the guest to answer", timeout_s=BOOT_S, longest_pause_s=1.0)


if __name__ == "__main__":
    sys.exit(main())
