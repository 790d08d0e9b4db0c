"""Power of one QEMU machine: make its disks, start its process, see how it is, end it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lab import log, process, waiting
from lab.contracts import Firmware, MachineSpec, MachineState
from lab.errors import (
    HypervisorRefused,
    LabBusy,
    LabDiskFull,
    MachineVanished,
)
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_boot_disk as boot_disk
from lab.hypervisors import _qemu_firmware as firmware
from lab.hypervisors import _qemu_networks as networks
from lab.hypervisors import _qemu_overlay as overlay
from lab.hypervisors import _qemu_ports as ports
from lab.hypervisors import _qemu_process as qemu
from lab.hypervisors import _qemu_tpm as tpm
from lab.hypervisors._qemu_arguments import Files, Hardware
from lab.hypervisors._qemu_monitor import Monitor, MonitorLost, talk
from lab.hypervisors._qemu_store import Directory, Mark

_PACKAGES = {
    "qemu-img": "qemu-utils",
    **dict.fromkeys(("cp", "dd"), "coreutils"),
    "sh": "dash",
    **dict.fromkeys(("mformat", "mmd", "mcopy"), "mtools"),
}
_PAUSED = frozenset(
    {"paused", "prelaunch", "inmigrate", "postmigrate", "finish-migrate", "save-vm", "restore-vm", "suspended"}
)
DiskCommands = Callable[[Mark, Directory], list[list[str]]]
Alter = Callable[[Hardware], Hardware]
_log = log.get(__name__)


def hardware(mark: Mark, directory: Directory) -> Hardware:
    """Everything that the command line of a machine depends on."""
    spec = mark.spec
    overlaid = seed_needs_overlay(spec)
    own = directory.seed if spec.seed is not None else None
    seed = directory.seed_overlay if overlaid else own
    uefi = spec.profile.firmware is Firmware.UEFI
    files = Files(
        root=directory.root,
        seed=seed,
        seed_format="qcow2" if overlaid else "raw",
        data=directory.data if spec.data_disk_mib else None,
        firmware_code=firmware.code(spec.profile),
        firmware_variables=directory.variables if uefi else None,
        boot=directory.boot if boot_disk.wanted(spec) else None,
    )
    disks = tuple((plugged, directory.plugged(plugged.name)) for plugged in mark.disks)
    return Hardware(
        mark.binary,
        mark.accelerator,
        mark.cpu_model,
        spec,
        files,
        disks=disks,
        nics=mark.nics,
        processors=mark.processors,
        modules=mark.modules,
    )


def seed_needs_overlay(spec: MachineSpec) -> bool:
    """SATA disks cannot be read-only in QEMU ("Block node is read-only"), so a throw-away overlay protects the seed."""
    return spec.seed is not None and spec.profile.disk == "sata"


def disk_commands(mark: Mark, directory: Directory) -> list[list[str]]:
    """The `qemu-img` commands that make a machine's own disks."""
    spec = mark.spec
    made = [overlay_command(spec.image.disk, spec.image.disk_format, directory.root)]
    made += seed_commands(mark, directory)
    if spec.data_disk_mib:
        made.append(["qemu-img", "create", "-q", "-f", "qcow2", str(directory.data), f"{spec.data_disk_mib}M"])
    if spec.profile.firmware is Firmware.UEFI:
        variables = str(firmware.variables(spec.profile))
        made.append(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", variables, str(directory.variables)])
    return [*made, *own_boot_disk(mark, directory)]


def own_boot_disk(mark: Mark, directory: Directory) -> list[list[str]]:
    """What makes the disk that the firmware starts from, where that is not the root disk."""
    return boot_commands(mark, directory.boot, firmware.SHIM) if boot_disk.wanted(mark.spec) else []


def boot_commands(mark: Mark, target: Path, program: Path) -> list[list[str]]:
    """What makes a disk from which the firmware starts `program`, and that the image's kernel."""
    return boot_disk.commands(mark.spec, arguments.kernel_arguments(mark.spec), target, program)


def seed_commands(mark: Mark, directory: Directory) -> list[list[str]]:
    """What copies the seed into the machine's directory, readable by this user alone as the original."""
    if mark.spec.seed is None:
        return []
    made = [["cp", "--preserve=mode", str(mark.spec.seed), str(directory.seed)]]
    if seed_needs_overlay(mark.spec):
        made.append(overlay_command(directory.seed, "raw", directory.seed_overlay))
    return made


def overlay_command(backing: Path, backing_format: str, overlay: Path) -> list[str]:
    """A writable layer on a disk that nobody writes to; JSON keeps a comma or a colon in the path what it is."""
    # Nobody writes to it, so QEMU need not lock it; User-Mode Linux holds locks that QEMU takes for a writer's.
    file = {"driver": "file", "filename": str(backing.resolve()), "locking": "off"}
    base = json.dumps({"driver": backing_format, "file": file})
    return ["qemu-img", "create", "-q", "-f", "qcow2", "-b", f"json:{base}", "-F", backing_format, str(overlay)]


def make_disks(commands: list[list[str]]) -> None:
    """Raises `LabDiskFull`, `MissingTool`, `CommandFailed`."""
    for command in commands:
        if not overlay.carried_out(command):
            process.check([process.find(command[0], package=_PACKAGES[command[0]]), *command[1:]], timeout_s=120)


def require_parts(spec: MachineSpec) -> None:
    """Raises `MissingTool` when this machine lacks a firmware or an emulator that the profile wants, `NotSupported`."""
    firmware.require(spec.profile)
    boot_disk.require_signed(spec)
    tpm.command(spec.profile)


def reproduce(mark: Mark, directory: Directory) -> str:
    """A shell script that makes the same machine by hand; its console comes to the terminal."""
    line = arguments.words(hardware(mark, directory), _wanted_forwards(mark))
    # One option a line, so that two machines can be compared.
    pretty = "".join((" \\\n  " if word.startswith("-") else " ") + shlex.quote(word) for word in line).strip()
    cloned = ["# The lab started it from a saved memory; by hand it boots."] if mark.warm_key else []
    lines = [*cloned, f"mkdir -p {shlex.quote(str(directory.path))} && cd {shlex.quote(str(directory.path))}"]
    lines += [shlex.join(command) for command in disk_commands(mark, directory)]
    lines += tpm.by_hand(mark.spec.profile)
    pretty += "".join(f" \\\n  {word}" for word in tpm.by_hand_line(mark.spec.profile))
    return "\n".join((*lines, pretty, ""))


# ---------------------------------------------------------------------------------------------------------
# Starting


def launch(
    directory: Directory, *, extra: tuple[str, ...] = (), incoming: Path | None = None, alter: Alter | None = None
) -> None:
    """Start QEMU and its keeper; returns when the monitor answers. `alter` changes the hardware of this start alone.

    Raises `LabBusy` for a port that is taken or memory that is not there, `LabDiskFull`, `HypervisorRefused`.
    """
    mark = directory.change(wanted="running", resets=0, fired=0)
    try:
        qemu.start(directory, (*_line(mark, directory, alter), *extra), incoming)
    except LabBusy:
        if mark.fixed_port or not any(mark.forwards.values()):
            raise
        # The ports of the last start are somebody else's now: any others will do.
        mark = directory.change(forwards=dict.fromkeys(mark.forwards, 0))
        qemu.start(directory, (*_line(mark, directory, alter), *extra), incoming)
    try:
        with talk(directory.here) as monitor:
            directory.change(forwards=ports.told(monitor))
            networks.join_all(directory, monitor)
    except MonitorLost:
        # A guest that has powered off before we could ask did start.
        if not qemu.ends(directory) or state(directory) is not MachineState.STOPPED:
            require_up(directory)
            raise
    _log.info("machine.started", machine=mark.spec.name, directory=directory.path, incoming=incoming)


def launch_beside(there: Directory) -> None:
    """Start a second QEMU of a running machine, at another place of it: it runs nothing and has no ports yet.

    Raises as `launch`.
    """
    mark = there.read()
    qemu.start(there, (*arguments.words(hardware(mark, there), {}), "-S", "-incoming", "defer"), None)
    with talk(there.here) as monitor:
        networks.join_all(there, monitor)


def _line(mark: Mark, directory: Directory, alter: Alter | None) -> list[str]:
    made = hardware(mark, directory)
    return arguments.words(made if alter is None else alter(made), _wanted_forwards(mark))


def _wanted_forwards(mark: Mark) -> Mapping[int, int]:
    # Port 0 lets the kernel choose while it binds, so nobody can take the port in between.
    return {22: 0, **mark.forwards, **({22: mark.fixed_port} if mark.fixed_port else {})}


def forward(directory: Directory, guest_port: int) -> int:
    """The port of 127.0.0.1 that leads to that port of the guest; made when it is not there yet.

    QEMU binds port 0 and the kernel chooses, so two machines never race for one.
    """
    known = directory.read().forwards.get(guest_port)
    if known:
        return known
    with monitor_of(directory) as monitor:
        said = ports.add(monitor, guest_port, 0)
        found = ports.told(monitor)
    if guest_port not in found:
        raise HypervisorRefused(f"QEMU did not forward a port to port {guest_port} of the guest: {said}")
    directory.change(forwards=found)
    return found[guest_port]


# ---------------------------------------------------------------------------------------------------------
# State and end


def state(directory: Directory) -> MachineState:
    """How the machine is. Raises `LabDiskFull` when QEMU stopped it because this machine's disk is full."""
    if not directory.exists():
        return MachineState.GONE
    mark, running = directory.read(), directory.running()
    if running is None:
        return MachineState.STOPPED
    status = _status(directory) if running.is_alive() else None
    events = directory.events()
    if status is None:
        asked = mark.wanted == "stopped" or events.guest_shutdown
        return MachineState.STOPPED if asked else MachineState.GONE
    if status == "shutdown":
        return MachineState.STOPPED
    if status == "io-error" and events.no_space:
        raise LabDiskFull(f"the disk of {mark.spec.name} cannot grow: this machine's disk is full; QEMU paused it")
    if status in ("guest-panicked", "internal-error") or (status == "running" and events.panicked):
        return MachineState.CRASHED
    return MachineState.PAUSED if status in _PAUSED or status == "io-error" else MachineState.RUNNING


def _status(directory: Directory) -> str | None:
    try:
        with talk(directory.here) as monitor:
            return monitor.status()
    except MonitorLost:
        if qemu.ends(directory):
            return None
        raise


@contextmanager
def monitor_of(directory: Directory) -> Iterator[Monitor]:
    """Speak to a machine that must be up. Raises `MachineVanished`, or `HypervisorRefused` when it is stopped."""
    require_up(directory)
    try:
        with talk(directory.here) as monitor:
            yield monitor
    except MonitorLost:
        if qemu.ends(directory):
            require_up(directory)
        raise


def require_up(directory: Directory) -> None:
    """Raises `MachineVanished` with QEMU's last words, or `HypervisorRefused` when the machine is stopped."""
    name = directory.read().spec.name
    running = directory.running()
    found = MachineState.STOPPED if running is None else MachineState.RUNNING
    if running is not None and not running.is_alive():
        found = state(directory)
        if found is MachineState.GONE:
            raise MachineVanished(f"the QEMU process of {name} ended unasked: {qemu.last_words(directory, running)}")
    if found is MachineState.STOPPED:
        raise HypervisorRefused(f"{name} is stopped")


def shut_down(directory: Directory, timeout_s: float) -> None:
    """Press the ACPI power button and wait. Raises `WaitedTooLong`, `MachineVanished`."""
    name = directory.read().spec.name
    with monitor_of(directory) as monitor:
        monitor.command("system_powerdown")
    waiting.until(
        lambda: state(directory) in (MachineState.STOPPED, MachineState.GONE),
        what=f"{name} to shut down after the power button",
        timeout_s=timeout_s,
    )
    if state(directory) is MachineState.GONE:
        require_up(directory)  # it was killed meanwhile, which is no shutdown


def kill(directory: Directory) -> None:
    """Cut the power: end QEMU and its keeper, and nobody else, whoever started them. Safe to call twice."""
    for place in directory.places():
        kill_at(directory.at(place))


def kill_at(directory: Directory) -> None:
    """As `kill`, at the place of that directory alone."""
    running = directory.running()
    if running is not None:
        qemu.end(running)
