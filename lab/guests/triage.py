"""Triage: reads a console log and says how far the guest came, what stopped it, and whose fault that is.

What proves a panic: a line of the kernel (with printk's time stamp, or in a log where no line has one) that says
"Kernel panic - not syncing", behind which the same boot prints nothing but the dump that belongs to it. The same
words printed by a program have no time stamp; written to /dev/kmsg they have one, and then the boot goes on.
A program that writes whole lines of the kernel, stamps and all, cannot be told from it here: so whatever a console
tells is "claimed by console only", and `lab/guests/claims.py` weighs it beside what hypervisor and network prove.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import (
    Blame,
    BootLoaderStopped,
    FirmwareStopped,
    GuestError,
    GuestHasNoNetwork,
    GuestHasNoSsh,
    GuestHung,
    GuestPanicked,
    GuestUnreachable,
    RootMissing,
)
from lab.guests import _triage_patterns as patterns
from lab.guests._triage_patterns import Failure, Stage
from lab.ssh._dial import Answer

__all__ = ["Stage", "Triage", "error_for", "last_line", "last_lines", "stage", "triage"]

_HEAD_BYTES = 512 << 10
_TAIL_BYTES = 1536 << 10
_LONGEST_LINE = 500
CONSOLE_ONLY = "claimed by console only"
# ECMA-48: CSI sequences, OSC strings, two-character escapes; each bounded.
_ESCAPES = re.compile(r"\x1b\[[0-9:;<=>?]{0,32}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?|\x1b[ -~]?")


@dataclass(frozen=True)
class Triage:
    """What a console log tells."""

    booted: bool  # the last boot reached a login
    failure_class: str  # `class` in JSON; "none" when nothing is wrong
    blame: Blame
    cause: str  # one sentence, printable; empty when nothing is wrong
    lines: tuple[int, ...]  # the log's lines (from 1) that prove it
    os: str | None
    kernel: str | None
    hypervisor: str | None
    stage: Stage
    proof: str = ""  # of the cause; empty when nothing is wrong

    def as_json(self) -> dict[str, Any]:
        """The keys that `lab triage --json` promises."""
        return {
            "booted": self.booted,
            "class": self.failure_class,
            "blame": self.blame.value,
            "cause": self.cause,
            "proof": self.proof,
            "lines": list(self.lines),
            "os": self.os,
            "kernel": self.kernel,
            "hypervisor": self.hypervisor,
        }


@dataclass(frozen=True)
class _Line:
    number: int
    text: str  # without escape sequences, and without the time stamp
    is_kernel: bool
    is_worth: bool  # a table may know it


@dataclass(frozen=True)
class _Found:
    at: int  # index in the boot's lines
    failure: Failure
    cause: str


def triage(log: bytes) -> Triage:
    """Judge a console log of any content and length; of a very long one the beginning and the end count."""
    lines = list(_lines(log))
    stamped = any(line.is_kernel for line in lines)
    boots = _boots(lines)
    last = boots[-1]
    reached = _stage_of(last)
    found = _worst(last, stamped)
    if found is None and reached < Stage.LOGIN and len(boots) > 1:
        # It restarted after a failure and is on its way again: what ended the boot before is what matters.
        last = boots[-2]
        found = _worst(last, stamped)
    booted = reached is Stage.LOGIN
    worth = [line for line in lines if line.is_worth]
    about = (_os(worth), _kernel(worth), _hypervisor(worth))
    if found is not None:
        numbers = tuple(line.number for line in last[found.at : found.at + 3] if line.text)
        failure = found.failure
        return Triage(booted, failure.name, failure.blame, found.cause, numbers, *about, reached, CONSOLE_ONLY)
    if booted:
        return Triage(booted, "none", Blame.NOBODY, "", (), *about, reached)
    name, cause = _UNFINISHED[reached]
    numbers = tuple(line.number for line in lines if line.text)[-1:]
    return Triage(booted, name, Blame.PRODUCT, cause, numbers, *about, reached, CONSOLE_ONLY)


_UNFINISHED = {
    Stage.NOTHING: ("unknown", "the console is empty"),
    Stage.FIRMWARE: ("hang", "the console ends in the firmware"),
    Stage.BOOT_LOADER: ("hang", "the console ends in the boot loader"),
    Stage.KERNEL: ("hang", "the console ends while the kernel starts"),
    Stage.USER_SPACE: ("timeout", "user space started, and no login came"),
}


def stage(log: bytes) -> Stage:
    """How far the last boot in the log came."""
    return _stage_of(_boots(list(_lines(log)))[-1])


def last_lines(log: bytes, count: int = 5) -> tuple[str, ...]:
    """The last lines that are not empty: printable, without escape sequences, at most 160 characters each."""
    texts = [_printable(_plain(line)) for line in log[-(64 << 10) :].decode(errors="replace").splitlines()]
    return tuple(text[:160] for text in texts if text.strip())[-count:]


def last_line(log: bytes) -> str:
    """The last line that is not empty, as `last_lines` gives it; "" of an empty log."""
    return next(iter(last_lines(log, 1)), "")


_ERRORS: dict[str, tuple[type[GuestError], str]] = {
    "firmware": (FirmwareStopped, "does the image fit the profile's firmware, and is its disk's bus bootable?"),
    "bootloader": (BootLoaderStopped, "is the image whole, and does its loader know this disk's bus?"),
    "root-missing": (RootMissing, "does the guest's initial RAM disk have the driver of the profile's disk?"),
    "kernel-panic": (GuestPanicked, "the console log has the kernel's last words"),
    "oom": (GuestPanicked, "give the profile more memory, or say in the guest's file how much it needs"),
    "filesystem": (GuestError, "is the image whole? Build or fetch it again"),
    "network": (GuestHasNoNetwork, "does the guest have the driver of the profile's network card?"),
    "provisioning": (GuestError, "look at the first-boot step's lines in the console log"),
}


def error_for(found: Triage, answer: Answer, log: bytes, *, waited_s: float, guest: str) -> GuestError:
    """The error for a guest that did not come up, from its console and from what its SSH port did."""
    known = _ERRORS.get(found.failure_class)
    # A network complaint on the console is contradicted by a guest that answers.
    if known is not None and not (found.failure_class == "network" and answer in (Answer.CLOSED, Answer.BANNER)):
        kind, hint = known
        error = kind(_told(guest, f"{found.cause} ({found.proof})", log, waited_s), hint=hint)
        error.blame = found.blame
        return error
    kind, cause, hint = _by_answer(found, answer)
    return kind(_told(guest, cause, log, waited_s), hint=hint)


def _by_answer(found: Triage, answer: Answer) -> tuple[type[GuestError], str, str]:
    if answer is Answer.BANNER:
        claimed = f" ({found.cause})" if found.failure_class == "unknown" and found.cause else ""
        return (
            GuestUnreachable,
            f"SSH greets, but no login succeeded{claimed}",
            "look at the SSH server's lines in the console log",
        )
    if answer is Answer.CLOSED or answer is Answer.NOISE:
        said = "nothing listens" if answer is Answer.CLOSED else "something else than an SSH server answers"
        return (
            GuestHasNoSsh,
            f"the guest's network answers, and {said} on its SSH port",
            "is the SSH server installed and enabled in the image?",
        )
    if answer is Answer.UNREACHABLE:
        return GuestUnreachable, "nothing forwards to the guest any more", "look at what the hypervisor logged"
    if found.stage >= Stage.USER_SPACE:
        return (
            GuestHasNoNetwork,
            "user space is up, and nothing of the guest answers on the network",
            "does the guest have the driver of the profile's network card, and does it ask for DHCP?",
        )
    return GuestHung, found.cause, "raise boot_timeout in the guest's file if it is only slow; else try another profile"


def _told(guest: str, cause: str, log: bytes, waited_s: float) -> str:
    shown = last_lines(log)
    said = "".join(f"\n  | {line}" for line in shown) if shown else " nothing"
    return f"{guest} did not come up within {waited_s:.0f} s: {cause}; the console's last lines:{said}"


def _lines(log: bytes) -> Iterator[_Line]:
    skipped = 0
    head, tail = log, b""
    if len(log) > _HEAD_BYTES + _TAIL_BYTES:
        head, tail = log[:_HEAD_BYTES], log[-_TAIL_BYTES:]
        skipped = log.count(b"\n", _HEAD_BYTES, len(log) - _TAIL_BYTES)
    number = 0
    for part in (head, tail):
        for raw in part.split(b"\n") if part else ():
            number += 1
            # Bounded before the regular expressions see it, and again after the escape sequences went.
            text = _plain(raw[: 4 * _LONGEST_LINE].decode(errors="replace"))[:_LONGEST_LINE]
            kernel = patterns.KERNEL_LINE.match(text)
            yield _Line(
                number, kernel[1] if kernel else text, kernel is not None, patterns.WORTH.search(text) is not None
            )
        number += skipped - (1 if tail and part is head and skipped else 0)


def _plain(text: str) -> str:
    text = _ESCAPES.sub("", text).rstrip("\r\n")
    # A carriage return inside a line writes it anew; firmware menus do that.
    return text.rpartition("\r")[2].replace("\0", "")


def _boots(lines: Sequence[_Line]) -> list[Sequence[_Line]]:
    """The log cut where a machine started anew; at least one part, perhaps empty."""
    starts = [0]
    seen_kernel = False
    for index, line in enumerate(lines):
        if not line.is_worth:
            seen_kernel = seen_kernel or line.is_kernel
            continue
        kernel = line.text.startswith("Linux version ")
        firmware = not line.is_kernel and patterns.NEW_BOOT.search(line.text) is not None
        if seen_kernel and (kernel or firmware):
            starts.append(index)
            seen_kernel = False
        # The firmware's own lines follow each other in one boot, and the kernel's first line follows them.
        seen_kernel = seen_kernel or kernel or line.is_kernel
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _stage_of(boot: Sequence[_Line]) -> Stage:
    reached = Stage.FIRMWARE if any(line.text.strip() for line in boot) else Stage.NOTHING
    for line in boot:
        reached = max(reached, _proves(line))
    return reached


def _proves(line: _Line) -> Stage:
    if line.is_kernel and not line.text.startswith(("systemd", "Run /")):
        return Stage.KERNEL
    if not line.is_worth:
        return Stage.NOTHING
    return next((row.stage for row in patterns.PROGRESS if row.pattern.search(line.text)), Stage.NOTHING)


def _worst(boot: Sequence[_Line], stamped: bool) -> _Found | None:
    """The failure that stopped a boot: the first kind of the table that no later line disproves."""
    best: tuple[int, _Found] | None = None
    later = Stage.NOTHING
    for index in range(len(boot) - 1, -1, -1):
        line = boot[index]
        if not line.is_worth:
            later = max(later, _proves(line))
            continue
        for rank, row in enumerate(patterns.FAILURES):
            if later > row.stage or (row.kernel_only and stamped and not line.is_kernel):
                continue
            caught = row.pattern.search(line.text)
            if caught is None or ("Kernel panic" in caught[0] and _lived_on(boot[index + 1 :])):
                continue
            if best is None or rank <= best[0]:
                said = _printable(next((group for group in caught.groups() if group), "")).strip(" :")
                best = (rank, _Found(index, row, row.cause.format(said).strip(" :")))
            break
        later = max(later, _proves(line))
    return best[1] if best else None


def _lived_on(after: Sequence[_Line]) -> bool:
    """Whether a panic's line was followed by something that a machine after a panic does not do."""
    for line in after[:200]:
        if line.text.startswith("---[ end Kernel panic"):
            return False
        if _proves(line) >= Stage.USER_SPACE:
            return True
        if line.is_kernel and not patterns.AFTER_PANIC.match(line.text):
            return True
    return False


def _os(lines: Sequence[_Line]) -> str | None:
    for line in reversed(lines):
        for pattern in patterns.OS:
            if not line.is_kernel and (found := pattern.search(line.text)):
                return _printable(found[1]).strip()
    return None


def _kernel(lines: Sequence[_Line]) -> str | None:
    for line in reversed(lines):
        if found := patterns.LINUX_VERSION.match(line.text):
            return _printable(found[1])
    return None


def _hypervisor(lines: Sequence[_Line]) -> str | None:
    for name, pattern in patterns.HYPERVISORS:
        if any(pattern.search(line.text) for line in lines):
            return name
    return None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in text)
