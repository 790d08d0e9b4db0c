"""Every error that the lab raises on purpose: what happened, what to do next, whose fault, which exit code.

Only `lab/cli.py` turns an error into an exit code; only the runner turns one into an outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What the shell sees; the table is in docs/reference/exit-codes.md."""

    AS_EXPECTED = 0  # everything did what it should, or failed as a known issue says
    PRODUCT_FAILED = 1  # a guest or a hypervisor failed, or something regressed
    USAGE = 2  # the command or the inventory is wrong; nothing was started
    LAB_AT_FAULT = 3  # the lab could not do its work; says nothing about a product
    NOTHING_RUN = 4  # the selection is empty, or every cell is left out
    INTERRUPTED = 130  # Ctrl-C; everything was undone, what was found is kept


class Blame(StrEnum):
    """Whose fault an outcome is. The lab's fault is never the product's fault."""

    NOBODY = "none"
    LAB = "lab"  # our code, our network, the machine that the lab runs on
    CONFIGURATION = "configuration"  # what a person wrote into an inventory
    GUEST = "guest"  # the guest operating system, proved to be its fault
    HYPERVISOR = "hypervisor"  # the hypervisor, proved to be its fault
    PRODUCT = "product"  # guest or hypervisor: the pair failed, it is not proved which
    SUITE = "suite"  # the check itself is wrong


class LabError(Exception):
    """Root of all; `hint` says what to do next and may be empty."""

    blame: Blame = Blame.LAB
    exit_code: ExitCode = ExitCode.LAB_AT_FAULT

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}" if self.hint else self.what


class ConfigurationError(LabError):
    """An inventory, an option or a file that a person wrote is wrong; nothing was started."""

    blame = Blame.CONFIGURATION
    exit_code = ExitCode.USAGE


class InventoryProblems(ConfigurationError):
    """All problems of an inventory at once, each `file:line: key: problem`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__("\n".join((*self.problems, f"{count} {noun}; nothing was started.")))


class NothingToRun(ConfigurationError):
    """The selection matches no cell, or every cell is excluded."""

    exit_code = ExitCode.NOTHING_RUN


class MissingExtra(ConfigurationError):
    """A driver or channel needs a package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs a package that is not installed",
            hint=f"pip install 'interop-lab[{extra}]'",
        )


class NotUp(ConfigurationError):
    """Nobody keeps that cell up to work in it by hand."""


class MissingTool(LabError):
    """A program that the lab calls is not on this machine, or is too old."""


class CommandFailed(LabError):
    """A program of this machine that the lab called ended with an error or did not end in time."""


class WaitedTooLong(LabError):
    """Something did not happen within its limit."""


class LabDiskFull(LabError):
    """No space is left on this machine."""


class LabBusy(LabError):
    """Somebody else holds what is needed (a lock, a port, the memory of this machine)."""


class ImageError(LabError):
    """An image cannot be built, fetched, verified or read."""


class ImageCorrupt(ImageError):
    """An image's bytes are not those that its digest names."""


class HostError(LabError):
    """A host of the inventory cannot be used; the guest was never judged."""


class HypervisorRefused(LabError):
    """The hypervisor answered with an error to a request that it should carry out."""

    blame = Blame.HYPERVISOR


class MachineVanished(HypervisorRefused):
    """The machine ended although nobody asked for it (its process was killed, it crashed)."""


class NotSupported(LabError):
    """Host or guest says that it cannot do this: outcome `unsupported`, with the reason."""

    blame = Blame.NOBODY
    exit_code = ExitCode.AS_EXPECTED


class GuestError(LabError):
    """The guest did not do what a guest must do."""

    blame = Blame.PRODUCT
    exit_code = ExitCode.PRODUCT_FAILED


class FirmwareStopped(GuestError):
    """The firmware found nothing to boot, or stopped by itself."""


class BootLoaderStopped(GuestError):
    """The boot loader waits for a person or cannot find its files."""


class RootMissing(GuestError):
    """The kernel or its initial RAM disk does not find the root file system."""


class GuestPanicked(GuestError):
    """The guest's kernel gave up; the console holds its last words."""

    blame = Blame.GUEST


class GuestHung(GuestError):
    """The console stopped before user space was up and stays silent."""


class GuestHasNoNetwork(GuestError):
    """User space is up, and nothing of the guest answers on the network."""


class GuestHasNoSsh(GuestError):
    """The guest answers on the network, and nothing listens where SSH should."""


class GuestRebooted(GuestError):
    """The guest rebooted although nobody asked for it."""

    blame = Blame.GUEST


class GuestUnreachable(GuestError):
    """The connection to a guest that worked before is gone and does not come back."""


class GuestLoginRefused(GuestError):
    """SSH answers and refuses the lab's key."""

    blame = Blame.LAB


class HostKeyChanged(GuestError):
    """The guest shows another SSH host key than the one the lab gave it."""

    blame = Blame.LAB


class CommandTimedOut(GuestError):
    """A command in the guest did not end within its limit."""


class GuestCommandFailed(GuestError):
    """`guest.check` ran a command that exited with an error."""


class RunError(LabError):
    """A run directory cannot be read or written."""
