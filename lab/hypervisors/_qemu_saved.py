"""A QEMU machine put to sleep: its memory in a file of its directory, its disks as they were at that moment.

One write of the mark is the moment at which the machine counts as asleep, and one the moment at which it is
awake, always before its processors run: memory that was used once is never used again with newer disks.
"""

from __future__ import annotations

from lab import log, process
from lab.contracts import MachineState
from lab.errors import HypervisorRefused, LabError
from lab.hypervisors import _qemu_memory as memory
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors._qemu_store import Directory, require_space

_log = log.get(__name__)


def save(directory: Directory) -> None:
    """Keep memory and devices, then stop. Raises `HypervisorRefused`, `NotSupported`, `LabDiskFull`."""
    mark = directory.read()
    snapshots.refuse_unsaved(directory)
    if power.state(directory) is not MachineState.RUNNING:
        raise HypervisorRefused(f"{mark.spec.name} does not run, so there is no memory to save")
    require_space(directory.path, memory.size_bytes(mark), f"the memory of {mark.spec.name}")
    draft = directory.saved.with_name(".saved-memory.draft")
    try:
        with power.monitor_of(directory) as monitor:
            monitor.command("stop")
            try:
                memory.write(monitor, draft)
                draft.replace(directory.saved)
                directory.change(saved=True, wanted="stopped")
            except BaseException:
                monitor.command("cont")
                raise
    except OSError as reason:
        raise process.disk_full_or(reason, f"saving the memory of {mark.spec.name}") from reason
    finally:
        draft.unlink(missing_ok=True)
    power.kill(directory)
    _log.info("machine.saved", machine=mark.spec.name, bytes=directory.saved.stat().st_size)


def wake(directory: Directory) -> None:
    """Go on where the machine was. Raises `HypervisorRefused`, `LabBusy`; the saved memory is then still there."""
    name = directory.read().spec.name
    power.kill(directory)  # one that was killed while it fell asleep or woke up
    try:
        memory.load(directory, directory.saved, lambda monitor: directory.forget_saved())
    except LabError as reason:
        if directory.read().saved:
            power.kill(directory)
            directory.change(wanted="stopped")
        if not isinstance(reason, HypervisorRefused):
            raise  # a port or memory of this machine, which may be free later
        raise HypervisorRefused(
            f"the saved memory of {name} cannot be loaded: {reason.what}", hint="discard it to boot"
        ) from reason


def settle(directory: Directory) -> None:
    """Finish what a killed process of the lab began: a machine that counts as asleep does not run."""
    mark = directory.read()
    if mark.saved and mark.wanted == "stopped":
        power.kill(directory)
