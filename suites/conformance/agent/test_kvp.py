"""agent.kvp: host and guest leave each other short texts under names, and each reads what the other wrote."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from lab.suite import Capability, ExchangesKeyValues, Guest, Machine, check, key_values, linux, waiting, who_can

WITHIN_S = 60.0
NASTY = "-n 'a' \"b\" $c `d` \\x41 \\ *\n\tü"


@check("agent.kvp", needs=(Capability.KEY_VALUES,))
def test_guest_reads_what_the_host_leaves(guest: Guest, machine: Machine) -> None:
    """Catches values that never arrive, that arrive changed, and an old value that the guest goes on to see."""
    linux.settle(guest)
    host = who_can(machine, ExchangesKeyValues)
    inside = key_values.guest_keys(host.key_store(), guest.run)
    name = f"lab-{secrets.token_hex(4)}"
    assert inside.read(name) is None, f"a key {name} that nobody wrote is there"
    try:
        for value in (f"{NASTY}{secrets.token_hex(8)}", secrets.token_hex(400)):
            host.set_key(name, value)
            _wait_for(lambda value=value: inside.read(name) == value.encode(), "the guest to read it")  # type: ignore[misc]
    finally:
        host.delete_key(name)
    _wait_for(lambda: inside.read(name) is None, "the guest to find it gone")


@check("agent.kvp", needs=(Capability.KEY_VALUES,))
def test_host_reads_what_the_guest_leaves(guest: Guest, machine: Machine) -> None:
    """Catches a store that takes what the guest writes and keeps it to itself, or shows the host something else."""
    linux.settle(guest)
    host = who_can(machine, ExchangesKeyValues)
    inside = key_values.guest_keys(host.key_store(), guest.run)
    name = f"guest_{secrets.token_hex(4)}"
    assert host.key(name) is None, f"a key {name} that nobody wrote is there"
    try:
        for value in (f"{NASTY}{secrets.token_hex(8)}", secrets.token_hex(400)):
            inside.write(name, value.encode())
            _wait_for(lambda value=value: host.key(name) == value, "the host to read it")  # type: ignore[misc]
        assert name in host.key_names(), f"the host reads the guest's {name} and does not list it"
    finally:
        host.delete_key(name)
    assert host.key(name) is None, "the host deleted the key, and it is there"


def _wait_for(probe: Callable[[], bool], what: str) -> None:
    waiting.until(probe, what=what, timeout_s=WITHIN_S)
