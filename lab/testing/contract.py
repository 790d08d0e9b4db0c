"""What the tests of the driver contract prove: each names the feature of a driver that it is about.

    @proves(Capability.SNAPSHOTS)
    def test_a_restored_machine_forgets_what_came_after(self, ...) -> None: ...

A qualification (`lab qualify`), the reference and the tests of the suite itself find the tests by that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from _pytest.outcomes import Skipped  # what pytest.skip raises; `pytest.skip.Exception` is it, and has no type

from lab.checking.outcomes import NotApplicable
from lab.contracts import CAPABILITY_PROTOCOLS, Capability, Channel, Hypervisor, Machine
from lab.errors import NotSupported

F = TypeVar("F", bound=Callable[..., None])
_PROVES = "__lab_proves__"

REQUIRED: Mapping[str, str] = {
    "driver.host": "The host says what it is and what it cannot do, and refuses an image that is not there",
    "driver.machines": "Machines are made, marked with their owner, found again and removed without a trace",
    "driver.power": "Machines start, shut down in order, lose power, and their disk outlives all of it",
    "driver.guest": "The guest has the hardware that was asked for, computes, and is seen on its console",
}
"""What every driver must do: feature and meaning."""


class HostRefuses(Skipped, NotSupported):
    """The host says that it cannot do what the test is about; its sentence is the message."""


class DriverLacks(Skipped, NotApplicable):
    """The driver has not the methods that the test is about, and the host says nothing of it."""


@dataclass(frozen=True)
class ContractTest:
    """One test of the suite."""

    name: str
    feature: str  # "driver.snapshots"
    capability: Capability | None  # None: every driver must pass it
    meaning: str  # first paragraph of its docstring

    @property
    def id(self) -> str:
        """How a record names it."""
        return f"driver/{self.feature.partition('.')[2]}::{self.name}"


class Booted(Protocol):
    """The machine that the tests of a class share, running, and a way into it (`lab.testing.hypervisor.Booted`)."""

    machine: Machine
    channel: Channel

    def sh(self, script: str, *, timeout_s: float = 60.0) -> str:
        """Run a script in the guest; it must succeed. Its standard output."""

    def reconnect(self) -> None:
        """Log in anew, after the machine was somewhere else in time."""

    def boot_id(self) -> str: ...


def proves(what: Capability | str) -> Callable[[F], F]:
    """Say which capability, or which of `REQUIRED`, a test is about."""
    if not isinstance(what, Capability) and what not in REQUIRED:
        raise ValueError(f"{what!r} is neither a capability nor one of {', '.join(REQUIRED)}")

    def put(function: F) -> F:
        setattr(function, _PROVES, what)
        return function

    return put


def feature_of(what: Capability | str) -> str:
    """The id of the feature under which the tests of a capability are shown."""
    return f"driver.{what.value.replace('-', '_')}" if isinstance(what, Capability) else what


def meaning_of(what: Capability | str) -> str:
    """What that feature is, in a few words: of a capability the first line of its Protocol."""
    if not isinstance(what, Capability):
        return REQUIRED[what]
    first = (inspect.getdoc(CAPABILITY_PROTOCOLS[what]) or "").partition("\n")[0]
    said = first.partition(": ")[2].rstrip(".")  # behind "Of a machine: "
    return said[:1].upper() + said[1:]


def contract_tests(contract: type) -> Iterator[ContractTest]:
    """The tests of a contract class, the required ones first. Raises `ValueError` for what is none."""
    found = []
    for name, function in inspect.getmembers(contract, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        what: Capability | str | None = getattr(function, _PROVES, None)
        if what is None:
            raise ValueError(f"{function.__qualname__} does not say what it proves")
        if any(mark.name == "parametrize" for mark in getattr(function, "pytestmark", ())):
            # A record names a test, and there is one record of each.
            raise ValueError(f"{function.__qualname__} is parametrized: write a loop, or several tests")
        found.append(
            ContractTest(
                name=name,
                feature=feature_of(what),
                capability=what if isinstance(what, Capability) else None,
                meaning=" ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()),
            )
        )
    order = [*REQUIRED, *(feature_of(capability) for capability in Capability)]
    # As they stand in the file, which is how pytest runs them.
    lines = {test.name: getattr(contract, test.name).__code__.co_firstlineno for test in found}
    yield from sorted(found, key=lambda test: (order.index(test.feature), lines[test.name]))


def capable(hypervisor: Hypervisor, subject: object, capability: Capability) -> Any:
    """The machine or host as one with that capability; skips the test where it has none.

    Raises `HostRefuses`, `DriverLacks`.
    """
    reason = hypervisor.limits().get(capability)
    if reason is not None:
        raise HostRefuses(f"{hypervisor.name}: {reason}")
    if not isinstance(subject, CAPABILITY_PROTOCOLS[capability]):
        raise DriverLacks(f"{hypervisor.name}: its driver has no {capability}")
    return subject
