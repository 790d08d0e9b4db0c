"""Frozen hosts: booted once, stopped when ready, and kept in the cache to start others from.

A copy is a directory below the cache that appears by one rename. It is tied to what QEMU's state file is tied to: its
build, its command line, the image. It holds no key and no identity: those come with the seed when a host wakes up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab import locations, log, process
from lab.contracts import Image
from lab.errors import HostError, HypervisorRefused, LabError, MachineVanished, WaitedTooLong
from lab.hypervisors import _qemu_memory as memory
from lab.hypervisors import _qemu_power as power
from lab.hypervisors._qemu_store import require_space
from lab.provisioning import made_kinds as kinds
from lab.provisioning import made_qemu as qemu
from lab.provisioning.cache import Progress

# A quiet machine of two processors needs less than half a minute, one with eight times as much to do many minutes.
READY_LIMIT_S = 900.0
STATE, MANIFEST = "state", "manifest.json"
_NEEDED_BYTES = 512 << 20
_SEED_BYTES = 1 << 20
_log = log.get(__name__)


def key(image: Image) -> str:
    """64 hexadecimal digits over all that a frozen host depends on. Raises `MissingTool`."""
    binary, build = qemu.find()
    kind = kinds.of(image)
    whole = {"image": image.digest, "disk": str(image.disk), "build": build, "words": qemu.words(binary, kind)}
    whole["boot"] = kind.boot_words(image)
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def place(frozen_key: str) -> Path:
    """Where the copy of that key is, or would be."""
    return locations.cache() / "hosts" / frozen_key


def exists(frozen_key: str) -> bool:
    """Whether a whole copy is there: every file of the size that was written."""
    home = place(frozen_key)
    try:
        return all((home / name).stat().st_size == size for name, size in _manifest(home)["sizes"].items())
    except (HypervisorRefused, FileNotFoundError):
        return False


def forget(frozen_key: str) -> None:
    """Delete a copy; hosts made from it have their own and go on. Safe to call twice."""
    home = place(frozen_key)
    grave = home.with_name(f".draft-{frozen_key[:12]}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        home.replace(grave)
    except FileNotFoundError:
        return
    shutil.rmtree(grave, ignore_errors=True)


def every() -> Mapping[str, Path]:
    """Everything that lies where copies are, by name; what a dead process left has a name that nobody wants."""
    folder = locations.cache() / "hosts"
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        draft = re.fullmatch(r"\.draft-[0-9a-f]{12}-(\d+)-[0-9a-f]{8}", path.name)
        if draft is None or process.start_time(int(draft[1])) is None:
            found[path.name] = path
    return found


def freeze(image: Image, frozen_key: str, progress: Progress) -> None:
    """Boot the image, wait until the host is ready, keep it. Raises `HostError`, `LabBusy`, `LabDiskFull`."""
    _end_abandoned()
    progress(f"booting {image.name} once, to freeze it when it is ready (about half a minute)")
    home = place(frozen_key)
    draft = home.with_name(f".draft-{frozen_key[:12]}-{os.getpid()}-{os.urandom(4).hex()}")
    start = time.monotonic()
    try:
        draft.mkdir(parents=True, mode=0o700)
        require_space(draft, _NEEDED_BYTES, "a frozen host")
        with (draft / qemu.SEED).open("wb") as seed:
            seed.truncate(_SEED_BYTES)
        power.make_disks([power.overlay_command(image.disk, image.disk_format, draft / qemu.ROOT)])
        _boot_and_save(image, draft, progress)
        _seal(draft)
        _publish(draft, home)
    except OSError as reason:
        raise process.disk_full_or(reason, f"freezing {image.name}") from reason
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _log.info("host.frozen", image=image.name, key=frozen_key, seconds=round(time.monotonic() - start, 1))


def _end_abandoned() -> None:
    """The emulators of processes that were killed while they froze a host: a keeper lives on without them."""
    for path in every().values():
        if path.name.startswith(".draft-"):
            qemu.Emulator(path).end()
            shutil.rmtree(path, ignore_errors=True)


def _boot_and_save(image: Image, draft: Path, progress: Progress) -> None:
    binary, _ = qemu.find()
    kind = kinds.of(image)
    emulator = qemu.Emulator(draft)
    start = time.monotonic()
    try:
        emulator.start([*qemu.words(binary, kind), *kind.boot_words(image)])
        try:
            emulator.wait_for(kind.ready, what=f"the host of {image.name} to be ready", timeout_s=READY_LIMIT_S)
            _require_proof(kind, emulator)
        except (WaitedTooLong, MachineVanished, HypervisorRefused) as reason:
            raise did_not_come_up(image.name, emulator, reason) from reason
        progress(f"the host of {image.name} was ready after {time.monotonic() - start:.0f} s")
        with emulator.monitor() as monitor:
            monitor.command("stop")
            memory.write(monitor, draft / STATE)
    finally:
        emulator.end()


def _require_proof(kind: kinds.Kind, emulator: qemu.Emulator) -> None:
    """Raises `HypervisorRefused` when the host is up and no guest ran in it."""
    if kind.proof and kind.proof.encode() not in emulator.console():
        raise HypervisorRefused("it is up, but the guest that was to prove its hypervisor did not run")


def did_not_come_up(recipe: str, emulator: qemu.Emulator, reason: LabError) -> HostError:
    """What happened, where it can be read, whose fault it is, what to do: the console is kept."""
    kept = keep_console(emulator, recipe)
    return HostError(
        f"the host that the lab makes from {recipe} did not come up: {reason.what}; "
        f"the last lines of its console:{emulator.console_end()}",
        hint=f"all of it is in {kept}. No guest was judged: this is the lab's own host on this machine. "
        "Is the machine very busy or short of memory (`lab doctor`)? Then run again with less beside it; "
        "else `lab images build` the image anew, or leave the host out with --exclude",
    )


def keep_console(emulator: qemu.Emulator, name: str) -> Path:
    """Copy the console to where it stays when the host is gone; one for each name. Returns the place."""
    kept = locations.state() / "failed-hosts" / f"{name}.log"
    try:
        kept.parent.mkdir(exist_ok=True, mode=0o700)
        kept.write_bytes(emulator.console())
    except OSError as reason:
        _log.warning("host.console-not-kept", path=kept, reason=reason)
        return emulator.path
    return kept


def _seal(draft: Path) -> None:
    for path in draft.iterdir():
        if path.name not in (STATE, qemu.ROOT):
            path.unlink()
    sizes = {path.name: path.stat().st_size for path in draft.iterdir()}
    (draft / MANIFEST).write_text(
        json.dumps({"schema": 1, "sizes": sizes, "state_crc32": checksum(draft / STATE)}),
    )
    for path in draft.iterdir():
        path.chmod(0o400)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _publish(draft: Path, home: Path) -> None:
    try:
        draft.rename(home)
    except OSError:
        # Somebody else froze the same host meanwhile; both are good and theirs stays.
        if not home.is_dir():
            raise


def verifier(frozen_key: str, found: Callable[[], int]) -> Callable[[], None]:
    """What raises `HypervisorRefused` when the memory that was loaded is not what was written."""

    def verify() -> None:
        if found() != _manifest(place(frozen_key)).get("state_crc32"):
            raise HypervisorRefused("the saved memory is not what was written")

    return verify


def checksum(path: Path) -> int:
    """CRC-32 of a file's content."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def _manifest(home: Path) -> Any:
    try:
        content = json.loads((home / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("sizes"), dict) or not content["sizes"]:
        raise HypervisorRefused(f"there is no frozen host {home.name[:12]}, or it is damaged")
    return content
