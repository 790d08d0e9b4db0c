"""Waiting for the SSH server of a guest that boots, however slow the machine is."""

from __future__ import annotations

import itertools
import operator

from lab import waiting
from lab.contracts import Machine
from lab.guests.channels import ssh


def until_it_greets(machine: Machine, *, timeout_s: float) -> None:
    """Return when the SSH server greets. Raises `WaitedTooLong`, and what the machine raises.

    A connection that was begun before the guest was up may stay silent for ever, so the first looks are short; a guest
    that has little time needs a long one, so each is longer than the one before.
    """
    looks_s = itertools.accumulate(itertools.repeat(1.5), operator.mul, initial=2.0)

    def greets() -> bool:
        return ssh.probe(machine.endpoint(22), timeout_s=min(next(looks_s), 30.0)) is ssh.Answer.BANNER

    waiting.until(greets, what=f"the SSH server of {machine.name} to greet", timeout_s=timeout_s)
