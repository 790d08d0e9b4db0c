"""A witness in a guest: a process that counts, and random data in memory and on disk, to be found again afterwards.

What saves, copies or moves a machine is judged by it: a guest that booted, lost memory, or lives on without its
processes cannot show it. Nothing here judges but `assert_survived`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from lab import waiting
from lab.checking import linux
from lab.guests.guest import Guest

TICK_S = 0.2
MEMORY_MIB = 4
DISK_MIB = 1


@dataclass(frozen=True)
class Witness:
    """A process that counts in `folder`, which is in memory, and a file on the disk of `/`."""

    guest: Guest
    folder: str
    file: str
    boot_id: str
    digests: tuple[str, str]

    def count(self) -> int:
        """How far the process came. Raises `WaitedTooLong` when it left its file empty."""
        # It rewrites its file; a read in between finds it empty.
        return int(
            waiting.until(
                lambda: self.guest.check("cat", f"{self.folder}/count"), what="the witness's count", timeout_s=30.0
            )
        )

    def wait_until_it_counts(self, *, beyond: int, timeout_s: float = 30.0) -> int:
        """Wait until the count is larger than that. Raises `WaitedTooLong` when the process stands still."""
        waiting.until(lambda: self.count() > beyond, what=f"the guest to count beyond {beyond}", timeout_s=timeout_s)
        return self.count()

    def assert_survived(self, *, at_least: int) -> None:
        """The same boot, the same data, and a process that goes on from `at_least`."""
        assert self.guest.boot_id == self.boot_id, "the guest booted instead of going on where it was"
        first = self.count()
        assert first >= at_least, f"the count in memory stood at {at_least} before and is at {first} now"
        for place, before, now in zip(("memory", "disk"), self.digests, _digests(self), strict=True):
            assert now == before, f"random data in the guest's {place} is not what it was"
        self.wait_until_it_counts(beyond=first)

    def leave(self) -> None:
        """End the process and remove the data; safe to call twice."""
        # Put aside first: the process would write into a folder that is being emptied, which then cannot be removed.
        aside = f"{self.folder}-gone"
        linux.sh(self.guest, f"[ ! -d {self.folder} ] || mv {self.folder} {aside}; rm -rf {aside} {self.file}")


def place(guest: Guest) -> Witness:
    """Start one; it counts when this returns."""
    name = f"lab-witness-{secrets.token_hex(4)}"
    memory = "/dev/shm" if guest.run("test", "-d", "/dev/shm").status == 0 else "/tmp"
    folder, file = f"{memory}/{name}", f"/root/{name}"
    loop = f"i=0; while [ -d {folder} ]; do i=$((i + 1)); echo $i >{folder}/count; sleep {TICK_S}; done 2>/dev/null"
    script = f"""
    set -e
    mkdir {folder}
    dd if=/dev/urandom of={folder}/memory bs=1048576 count={MEMORY_MIB} 2>/dev/null
    dd if=/dev/urandom of={file} bs=1048576 count={DISK_MIB} conv=fsync 2>/dev/null
    echo 0 >{folder}/count
    setsid sh -c '{loop}' </dev/null >/dev/null 2>&1 &
    """
    linux.sh(guest, script)
    made = Witness(guest, folder, file, guest.boot_id, ("", ""))
    made = Witness(guest, folder, file, made.boot_id, _digests(made))
    made.wait_until_it_counts(beyond=1)
    return made


def _digests(witness: Witness) -> tuple[str, str]:
    # Dropping what was read makes the disk be read, and leaves what lies in memory alone (proc(5), drop_caches).
    script = f"echo 3 >/proc/sys/vm/drop_caches; md5sum {witness.folder}/memory {witness.file}"
    memory, disk = linux.sh(witness.guest, script).splitlines()
    return memory.split()[0], disk.split()[0]
