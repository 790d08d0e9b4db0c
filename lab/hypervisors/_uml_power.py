"""Power of one User-Mode Linux machine: start its warden, see how it is, shut it down, end it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lab
from lab import log, process, waiting
from lab.contracts import MachineState
from lab.errors import HostError, HypervisorRefused, LabDiskFull, LabError, MachineVanished, WaitedTooLong
from lab.hypervisors import _uml_arguments as arguments
from lab.hypervisors import _uml_control as control
from lab.hypervisors import _uml_warden as warden
from lab.hypervisors._uml_store import Directory, Holder

START_LIMIT_S = 60.0
_ABORTED = -6  # SIGABRT: what linux.uml ends itself with when its kernel panics
_UP = (MachineState.RUNNING, MachineState.PAUSED)
_log = log.get(__name__)


def state(directory: Directory) -> MachineState:
    """How the machine is, from its processes and from what the warden saw of their end."""
    if not directory.exists():
        return MachineState.GONE
    holder = directory.holder()
    if holder is None:
        return MachineState.STOPPED
    alive = holder.is_alive()
    ended = directory.ended()
    if ended is None:
        if not alive:
            return MachineState.GONE
        return MachineState.PAUSED if directory.paused.exists() else MachineState.RUNNING
    if ended.status == _ABORTED:
        return MachineState.CRASHED
    return MachineState.STOPPED if ended.status == 0 or ended.restart_withheld else MachineState.GONE


def start(directory: Directory) -> bool:
    """Start the warden and linux.uml; returns when the kernel runs. Safe to call twice; false when it runs already.

    Raises `HostError` where this machine does not allow namespaces, `HypervisorRefused` with linux.uml's words.
    """
    if state(directory) in _UP:
        return False
    end(directory)
    mark = directory.read()
    before = directory.console()
    _launch(directory)
    try:
        directory.keep_ports({22: control.forward(directory.path, 22)})
    except HypervisorRefused:
        if state(directory) in _UP:
            raise  # otherwise the reason is on the console, and is told below
    waiting.until(
        lambda: _runs_or_ended(directory),
        what=f"the kernel of {mark.spec.name} to run",
        timeout_s=START_LIMIT_S,
    )
    if state(directory) in _UP:
        _log.info("machine.started", machine=mark.spec.name, directory=directory.path)
        return True
    said = directory.console()
    new = said[len(before) :] if said.startswith(before) else said
    if b"Linux version" not in new:
        raise HypervisorRefused(f"linux.uml ended while starting {mark.spec.name}: {directory.last_words()}")
    # The kernel ran and gave up at once; the console says why, and it is the guest's affair.
    return False


def _runs_or_ended(directory: Directory) -> bool:
    try:
        return state(directory) not in _UP or control.kernel_runs(directory.path)
    except HypervisorRefused:
        if state(directory) in _UP:
            raise
        return True


def _plugs(directory: Directory) -> list[Path]:
    """The files behind the slots for disks that come later, because nothing can be added to a sandbox."""
    files = [directory.plug(slot) for slot in arguments.DISK_SLOTS]
    for file in files:
        file.touch(mode=0o600)
    return files


def _launch(directory: Directory) -> None:
    mark = directory.read()
    read_only = {arguments.BASE: mark.base}
    if mark.preload is not None:
        read_only[arguments.PRELOAD] = mark.preload
    if not Path(mark.program).is_relative_to("/usr"):
        read_only[mark.program.lstrip("/")] = Path(mark.program)
    if mark.spec.seed is not None:
        read_only[f"machine/{directory.seed.name}"] = directory.seed
    disks = [directory.root, *([directory.data] if mark.spec.data_disk_mib else []), *_plugs(directory)]
    orders = {
        "program": mark.program,
        "argv": arguments.argv(mark),
        "read_only": {name: str(path) for name, path in read_only.items()},
        "writable": {f"machine/{path.name}": str(path) for path in disks},
        "memory_mib": mark.spec.profile.memory_mib,
        "environment": {"LD_PRELOAD": f"/{arguments.PRELOAD}"} if mark.preload else {},
    }
    # -S: no site packages, they would only slow it down; -P: nothing is imported from the machine's folder.
    started = process.run(
        [sys.executable, "-S", "-P", "-m", warden.__name__],
        timeout_s=START_LIMIT_S,
        stdin=json.dumps(orders).encode(),
        cwd=directory.path,
        environment={"PYTHONPATH": os.fspath(Path(lab.__file__).parents[1])},
    )
    try:
        answer = json.loads(started.stdout)
    except ValueError:
        said = started.stderr.strip()[-500:]
        end(directory)
        if "No space left on device" in said:
            raise LabDiskFull(f"no space left on this machine while starting {mark.spec.name}") from None
        raise HypervisorRefused(f"the warden of {mark.spec.name} did not start: {said}") from None
    if "error" in answer:
        end(directory)
        raise HostError(answer["error"], hint=answer["hint"])


def shut_down(directory: Directory, timeout_s: float) -> None:
    """Press Ctrl-Alt-Del and wait until the guest has shut down. Raises `WaitedTooLong`.

    User-Mode Linux has no power button. Ctrl-Alt-Del makes a guest shut down in good order and then reboot; the
    warden does not start linux.uml again then.
    """
    resume(directory)
    control.withhold_restart(directory.path, yes=True)
    try:
        control.mconsole(directory.path, "cad")
        waiting.until(
            lambda: state(directory) not in _UP,
            what=f"{directory.path.name} to shut down after Ctrl-Alt-Del",
            timeout_s=timeout_s,
        )
    except LabError:
        if state(directory) in _UP:
            control.withhold_restart(directory.path, yes=False)
            raise
    if state(directory) is MachineState.GONE:
        raise vanished(directory)


def pause(directory: Directory) -> None:
    """Safe to call twice."""
    require_up(directory)
    if not directory.paused.exists():
        control.mconsole(directory.path, "stop")
        directory.paused.touch()


def resume(directory: Directory) -> None:
    """Safe to call twice."""
    require_up(directory)
    if directory.paused.exists():
        control.mconsole(directory.path, "go")
        directory.paused.unlink(missing_ok=True)


def end(directory: Directory) -> None:
    """Cut the power and forget the run. Safe to call twice. Raises `HypervisorRefused` when it does not end."""
    holder = directory.holder()
    if holder is not None:
        _end(holder, directory)
    directory.forget_run()


def _end(holder: Holder, directory: Directory) -> None:
    holder.end()
    try:
        # The kernel ends every process of the namespace before the warden counts as ended.
        waiting.until(lambda: not holder.is_alive(), what=f"{directory.path.name} to end", timeout_s=30)
    except WaitedTooLong as reason:
        raise HypervisorRefused(f"linux.uml, held by process {holder.pid}, cannot be ended: {reason}") from reason


def require_up(directory: Directory) -> None:
    """Raises `MachineVanished` with the console's end, or `HypervisorRefused` when the machine is stopped."""
    found = state(directory)
    if found in _UP:
        return
    if found is MachineState.GONE:
        raise vanished(directory)
    raise HypervisorRefused(f"{directory.path.name} is {found}")


def vanished(directory: Directory) -> LabError:
    """The error for a machine that is gone."""
    name = directory.path.name
    if not directory.exists():
        return HypervisorRefused(f"machine {name!r} is gone: it was destroyed")
    ended = directory.ended()
    how = "its processes were killed" if ended is None else f"linux.uml ended with status {ended.status}"
    return MachineVanished(f"{name} ended unasked: {how}; the end of its console: {directory.last_words()}")
