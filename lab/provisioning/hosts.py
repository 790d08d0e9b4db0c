"""Connections to the hosts of an inventory: those that somebody set up, and those that the lab makes itself.

A made host is shared by every process of this machine that connects to the host of that name, and goes when the last
of them has left and no machine is on it. What a killed process left, the next one to connect takes over or removes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lab import hypervisors, log, process
from lab.contracts import Hypervisor, Image, Realness
from lab.errors import ConfigurationError, HostError, LabBusy, LabError, MissingTool
from lab.hypervisors import _machine_directory as files
from lab.hypervisors._reached_host import ReachedHost
from lab.inventory.models import BuildSource, Host
from lab.provisioning.cache import Progress

if TYPE_CHECKING:
    from lab.provisioning.made_host import MadeHost

TURN_LIMIT_S = 900.0  # another process may be freezing the host
LEAST_MEMORY_MIB = 4000  # of a machine that makes a host of 2048 beside what else it does
_NEEDED_TOOLS = (("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils"))
_TOOLS_TO_BUILD = (("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs"), ("xz", "xz-utils"))
_log = log.get(__name__)


@runtime_checkable
class DrivesMadeHosts(Protocol):
    """Of a driver: it also drives hosts that the lab makes on this machine."""

    def made_from(self, settings: Any) -> str:
        """The recipe of the image that the host is made from; empty for one that somebody set up."""

    def connect_made(self, name: str, settings: Any, reached: ReachedHost) -> AbstractContextManager[Hypervisor]:
        """As `connect`, to a host that was made."""


def made_from(host: Host) -> str:
    """The recipe from which the lab makes that host; empty for one that somebody set up."""
    driver = hypervisors.load(host.driver)
    # Not by isinstance: a protocol is compared name by name, a millisecond that every cell would pay several times.
    made = getattr(driver, "made_from", None)
    return str(made(host.settings)) if made is not None else ""


def runs_here(host: Host) -> bool:
    """Whether the host's machines take processors and memory of this machine."""
    return hypervisors.load(host.driver).RUNS_HERE or bool(made_from(host))


def is_there(host: Host) -> bool:
    """Whether a made host of that name runs, or did and was not removed."""
    from lab.provisioning import made_host

    return files.is_marked(made_host.place(host.name))


@contextmanager
def connect(host: Host, *, progress: Progress = lambda line: None) -> Iterator[Hypervisor]:
    """Connect, making the host first where that is the lab's to do.

    Raises `HostError`, `MissingTool`, `MissingExtra`, `LabBusy`, `ConfigurationError`.
    """
    recipe = made_from(host)
    if not recipe:
        with hypervisors.load(host.driver).connect(host.name, host.settings) as hypervisor:
            yield hypervisor
        return
    from lab.provisioning import images

    require_possible(host)
    image = images.resolve(BuildSource(build=recipe), progress=progress)
    with _shared(host, image, progress) as hypervisor:
        yield hypervisor


@contextmanager
def connect_existing(host: Host) -> Iterator[Hypervisor | None]:
    """As `connect`, but a host that would have to be made first is not: there are no machines on it."""
    if made_from(host) and not is_there(host):
        yield None
        return
    with connect(host) as hypervisor:
        yield hypervisor


def require_possible(host: Host) -> None:
    """Raises `MissingTool`, `LabBusy`, `ConfigurationError` when this machine cannot make that host."""
    if host.realness is Realness.REAL:
        # The real hypervisor on an emulated processor: it shows what works, never how fast.
        raise ConfigurationError(
            f"{host.name} is a host that the lab makes on an emulated processor", hint="write lab_realness: emulated"
        )
    problem = lacks(host)
    if problem is not None:
        raise problem
    import psutil

    from lab.provisioning import made_qemu

    free = psutil.virtual_memory().available >> 20
    if free < made_qemu.MEMORY_MIB and not is_there(host):
        raise LabBusy(
            f"the host {host.name} takes {made_qemu.MEMORY_MIB} MiB of memory, {free} MiB are free",
            hint="end something else, or run fewer cells at once",
        )


def lacks(host: Host) -> LabError | None:
    """Why this machine cannot make that host; `None` when it can or need not. Starts nothing."""
    recipe = made_from(host)
    if not recipe or is_there(host):
        return None
    import psutil

    from lab.provisioning import images

    tools: tuple[tuple[str, str], ...] = _NEEDED_TOOLS
    if images.cached(BuildSource(build=recipe)) is None:
        tools = (*tools, *_TOOLS_TO_BUILD)
    for program, package in tools:
        try:
            process.find(program, package=package)
        except MissingTool as reason:
            return MissingTool(f"{reason.what}, and the host {host.name} is made with it", hint=reason.hint)
    memory = psutil.virtual_memory().total >> 20
    if memory < LEAST_MEMORY_MIB:
        return LabBusy(
            f"this machine has {memory} MiB of memory, and a host that the lab makes needs one of {LEAST_MEMORY_MIB}",
            hint="use a machine with more memory",
        )
    return None


def state_of(host: Host) -> str:
    """What making that host will take, in a sentence. Raises `MissingTool`."""
    from lab.provisioning import images, made_frozen

    image = images.cached(BuildSource(build=made_from(host)))
    if image is None:
        return "its image is built first, which takes minutes, once"
    if not made_frozen.exists(made_frozen.key(image)):
        return "its image is there, and is booted and frozen first, once"
    return "its frozen copy is there, and is restored in seconds"


def doubt_about(host: Host) -> str:
    """Why the results of a host that the lab makes are not to be relied on yet; empty when they are."""
    from lab.provisioning import made_kinds

    recipe = made_from(host)
    return made_kinds.named(recipe).doubt if recipe else ""


# ---------------------------------------------------------------------------------------------------------
# One host for several processes


@contextmanager
def _shared(host: Host, image: Image, progress: Progress) -> Iterator[Hypervisor]:
    from lab.provisioning import made_host

    driver = hypervisors.load(host.driver)
    assert isinstance(driver, DrivesMadeHosts)  # noqa: S101 (`made_from` named a recipe)
    folder = files.of_host(made_host.DRIVER, host.name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened(folder / ".users") as users:
        with _alone(folder, host.name):
            made = _taken_over(host.name, users)
            if made is None:
                made = made_host.restore(host.name, image, progress)
            fcntl.flock(users, fcntl.LOCK_SH)
        is_empty = True  # a host that cannot be asked is no use to anybody
        try:
            with ExitStack() as connection:
                hypervisor = _logged_in(connection, driver.connect_made(host.name, host.settings, made.reached()), made)
                try:
                    yield hypervisor
                finally:
                    is_empty = _is_empty(hypervisor)
        finally:
            with _alone(folder, host.name):
                fcntl.flock(users, fcntl.LOCK_UN)
                if is_empty and _nobody_uses(users):
                    made.destroy()


def _logged_in(stack: ExitStack, connection: AbstractContextManager[Hypervisor], made: MadeHost) -> Hypervisor:
    try:
        return stack.enter_context(connection)
    except HostError as reason:
        raise made.did_not_answer(reason) from reason


def _is_empty(hypervisor: Hypervisor) -> bool:
    try:
        return not hypervisor.machines()
    except LabError as reason:
        _log.warning("host.does-not-answer", host=hypervisor.name, why=reason.what)
        return True


def _taken_over(name: str, users: int) -> Any:
    """The host that is there already, if it is of use; one that is not goes."""
    from lab.provisioning import made_host

    made = made_host.existing(name)
    if made is None or made.answers():
        return made
    if not _nobody_uses(users):
        raise HostError(
            f"the host {name} that other processes of the lab use does not answer (console: {made.emulator.path})",
            hint="wait until they end; the next connection makes a new one",
        )
    _log.warning("host.dead", name=name, path=made.emulator.path)
    made.destroy()
    return None


def _nobody_uses(users: int) -> bool:
    """Whether no other process holds the host; asked by who is alone. What this process holds is given up."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(users, fcntl.LOCK_UN)
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as reason:
        raise process.disk_full_or(reason, f"opening {path}") from reason
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Be the only process that makes or removes the host. Raises `LabBusy`."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=TURN_LIMIT_S):
            yield
    except Timeout:
        raise LabBusy(
            f"another process makes the host {name} for more than {TURN_LIMIT_S / 60:.0f} minutes",
            hint=f"look who holds {folder / '.lock'} with `fuser`, and end it if it hangs",
        ) from None
