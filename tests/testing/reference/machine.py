"""The reference machine: a folder, with a shell for a guest. It keeps the whole contract, or all but one lie."""

from __future__ import annotations

import secrets
import shutil
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.contracts import Endpoint, MachineSpec, MachineState
from lab.errors import HypervisorRefused
from tests.testing.reference.guest import Processes

ADDRESS = "192.0.2.1"
MAC = "52:54:00:00:00:01"


class FolderMachine:
    """A machine that is a folder, and can what a machine without devices can; `lie` is what it does wrong."""

    def __init__(self, spec: MachineSpec, folder: Path, tools: Path, lie: str) -> None:
        self.spec, self.folder, self.root, self.lie = spec, folder, folder / "root", lie
        self.processes = Processes(self.root, tools)
        self.generation = 0
        self.was_started = False
        self.port = secrets.randbelow(60000) + 1000
        self.on_destroy: Callable[[], None] = lambda: None
        (self.folder / "snapshots").mkdir(parents=True)
        self.root.mkdir()
        self.become(MachineState.STOPPED)

    @property
    def name(self) -> str:
        return self.spec.name

    def become(self, state: MachineState) -> None:
        (self.folder / "state").write_text(state)

    def state(self) -> MachineState:
        if not self.folder.exists():
            return MachineState.GONE
        if (self.root / "run/poweroff").exists() and self.lie != "runs-for-ever":
            return MachineState.STOPPED
        return MachineState((self.folder / "state").read_text())

    def must_run(self) -> None:
        if self.state() not in (MachineState.RUNNING, MachineState.PAUSED):
            raise HypervisorRefused(f"{self.name} is {self.state()}")

    # -- power ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.was_started = True
        if self.state() is not MachineState.RUNNING or self.lie == "start-reboots":
            self.boot()

    def boot(self) -> None:
        if self.lie != "keeps-memory":
            shutil.rmtree(self.root / "run", ignore_errors=True)
        (self.root / "run/poweroff").unlink(missing_ok=True)
        if self.lie == "forgets-disk":
            shutil.rmtree(self.root / "var", ignore_errors=True)
        if self.lie == "writes-into-image":
            self.spec.image.disk.write_bytes(secrets.token_bytes(8))
        for name in ("var", "run", "dev", "proc/sys/kernel/random", "sys/class/net", "sys/block"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.file("proc/sys/kernel/random/boot_id", secrets.token_hex(8))
        self.put_processors(self.spec.profile.vcpus)
        self.file("sys/devices/system/memory/memory0/state", "online")
        for name in ("null", "watchdog"):
            (self.root / "dev" / name).unlink(missing_ok=True)
            (self.root / "dev" / name).symlink_to("/dev/null")  # a device, as `test -c` wants it
        self.set_memory(self.spec.profile.memory_mib * (2 if self.lie == "wrong-memory" else 1))
        self.file("proc/interrupts", " NMI:          3   Non-maskable interrupts")
        self.put_card("eth0", MAC, [ADDRESS])
        self.put_disk("data", self.spec.data_disk_mib)
        if self.lie == "deaf-console":
            (self.root / "dev/console").unlink(missing_ok=True)
            (self.root / "dev/console").symlink_to("/dev/null")
        else:
            with (self.root / "dev/console").open("a") as console:
                console.write("booted\n")
        self.become(MachineState.RUNNING)
        self.generation += 1

    def stop(self, *, force: bool = False, timeout_s: float = 60.0) -> None:
        if self.lie == "stop-starts" and self.folder.exists() and not self.was_started:
            self.boot()
            return
        if not self.folder.exists() or self.state() is MachineState.STOPPED:
            return
        if not force and self.lie == "cuts-power":
            self.processes.signal(signal.SIGKILL)
            shutil.rmtree(self.root / "var/tmp")  # what a guest did not write yet
        if not force and self.lie == "returns-early":
            return
        self.become(MachineState.STOPPED)
        self.generation += 1

    def destroy(self) -> None:
        if self.lie != "leaves-traces" and self.folder.exists():
            self.processes.signal(signal.SIGCONT)
            self.processes.signal(signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.on_destroy()

    # -- what is seen from outside -------------------------------------------------------------------------

    def addresses(self) -> Sequence[str]:
        if self.state() is MachineState.RUNNING:
            return () if self.lie == "no-guest-address" else (ADDRESS,)
        stale = self.lie == "stale-address" and self.generation > 0
        return (ADDRESS,) if stale or self.lie == "always-has-address" else ()

    def endpoint(self, guest_port: int) -> Endpoint:
        if self.lie == "other-endpoint":
            self.port += 1
        if self.lie != "always-has-endpoint":
            self.must_run()
        return Endpoint("192.0.2.1", self.port)

    def console(self) -> bytes:
        with suppress(FileNotFoundError):
            return (self.root / "dev/console").read_bytes()
        return b""

    def reproduce(self) -> str:
        return "make one yourself" if self.lie == "no-script" else f"start {self.spec.image.kernel}"

    # -- snapshots, pauses ---------------------------------------------------------------------------------

    def snapshot(self, name: str) -> None:
        if name in self.snapshots():
            raise HypervisorRefused(f"there is a snapshot {name}")
        shutil.copytree(self.root, self.folder / "snapshots" / f"{time.monotonic_ns()}-{name}", symlinks=True)

    def restore(self, name: str) -> None:
        kept = self._kept(name)
        if kept is None:
            raise HypervisorRefused(f"there is no snapshot {name}")
        if self.lie == "restores-nothing":
            return
        with self.without_processes():
            self.replace_root(kept)
        if self.lie == "restores-disk-alone":
            self.file("proc/sys/kernel/random/boot_id", secrets.token_hex(8))
        if self.lie == "restores-once":
            shutil.rmtree(kept)
            shutil.copytree(self.root, kept)
            (kept / "var/tmp/contract-kept").write_text("what was late")
        self.become(MachineState.RUNNING)
        self.generation += 1

    def delete_snapshot(self, name: str) -> None:
        kept = self._kept(name)
        if kept is not None and self.lie != "deletes-nothing":
            shutil.rmtree(kept)

    def snapshots(self) -> Sequence[str]:
        return [path.name.partition("-")[2] for path in sorted((self.folder / "snapshots").iterdir())]

    def snapshots_hold_memory(self) -> bool:
        return True

    def pause(self) -> None:
        if self.lie != "never-pauses":
            self.processes.signal(signal.SIGSTOP)
        self.become(MachineState.PAUSED)

    def resume(self) -> None:
        self.processes.signal(signal.SIGCONT)
        self.become(MachineState.RUNNING)

    def replace_root(self, other: Path) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(other, self.root, symlinks=True)

    @contextmanager
    def without_processes(self) -> Iterator[None]:
        self.processes.signal(signal.SIGKILL)
        self.processes.groups.clear()
        yield

    def _kept(self, name: str) -> Path | None:
        found = (path for path in (self.folder / "snapshots").iterdir() if path.name.partition("-")[2] == name)
        return next(found, None)

    # -- devices -------------------------------------------------------------------------------------------

    def file(self, name: str, content: str) -> None:
        """A file of the guest that its kernel would make."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")

    def set_memory(self, mib: int) -> None:
        self.file("proc/meminfo", f"MemTotal:  {mib * 1024 - 4096} kB")

    def put_processors(self, count: int) -> None:
        self.file("proc/cpuinfo", "processor : 0\n" * count)
        for number in range(count):
            self.file(f"sys/devices/system/cpu/cpu{number}/online", "1")

    def count_processors(self) -> int:
        return (self.root / "proc/cpuinfo").read_text().count("processor")

    def put_disk(self, name: str, mib: int) -> None:
        self.file(f"sys/block/{name}/size", str(mib << 11))

    def put_card(self, name: str, mac: str, addresses: Sequence[str]) -> None:
        self.file(f"sys/class/net/{name}/address", mac)
        self.file(f"sys/class/net/{name}/addresses", "\n".join(addresses))

    def inject_nmi(self) -> None:
        if self.lie != "no-nmi":
            self.file("proc/interrupts", " NMI:          4   Non-maskable interrupts")

    def screenshot(self) -> bytes:
        return b"a fine picture" if self.lie == "no-picture" else _png(640, 400)

    def set_balloon(self, memory_mib: int) -> None:
        (self.folder / "balloon").write_text(str(memory_mib))
        if self.lie != "balloon-told":
            self.set_memory(memory_mib)

    def balloon_mib(self) -> int:
        told = self.folder / "balloon"
        return int(told.read_text()) if told.exists() else self.spec.profile.memory_mib

    def attach_disk(self, name: str, size_mib: int) -> None:
        if self.lie != "no-disk":
            self.put_disk(name, size_mib)

    def detach_disk(self, name: str) -> None:
        self._detach(self.root / "sys/block" / name, stays=self.lie == "disk-stays")

    def attach_nic(self, name: str, mac: str) -> None:
        self.put_card(name, "52:54:00:ab:ad:1d" if self.lie == "other-mac" else mac, [])

    def detach_nic(self, name: str) -> None:
        self._detach(self.root / "sys/class/net" / name, stays=self.lie == "card-stays")

    def _detach(self, device: Path, *, stays: bool) -> None:
        if not device.exists():
            if self.lie in ("no-disk", "no-card"):
                return
            raise HypervisorRefused(f"{self.name} has no {device.name}")
        if not stays:
            shutil.rmtree(device)

    def resize_data_disk(self, size_mib: int) -> None:
        if size_mib < self.spec.data_disk_mib and self.lie != "disk-shrinks":
            raise HypervisorRefused("a disk cannot shrink")
        if self.lie != "disk-told":
            self.put_disk("data", size_mib)

    def data_disk_used_bytes(self) -> int:
        return 4096


def _png(width: int, height: int) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(width) for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
