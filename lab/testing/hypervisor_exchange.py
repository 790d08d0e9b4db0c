"""The contract suite for texts that host and guest leave each other under names."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest

from lab import waiting
from lab.checking.key_values import GuestKeys, guest_keys
from lab.contracts import KEY_VALUE_BYTES, Capability, CommandResult, ExchangesKeyValues, Hypervisor, Machine
from lab.errors import HypervisorRefused, NotSupported
from lab.testing.contract import Booted, HostRefuses, capable, proves

_SEEN_S = 60.0  # for a store whose guest has to be told
_NASTY = "-n a 'b' \"c\" $d `e` \\x41 \\ *\n\tü = {}"


class ExchangeContract:
    """Behaviour tests of key-value exchange, from both ends."""

    @proves(Capability.KEY_VALUES)
    def test_what_the_host_leaves_the_guest_reads(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: ExchangesKeyValues = capable(hypervisor, booted.machine, Capability.KEY_VALUES)
        name, value = f"to-{secrets.token_hex(4)}", f"{_NASTY}{secrets.token_hex(8)}"
        guest = _guest(machine, booted)
        assert guest.read(name) is None

        for sent in (value, "x" * KEY_VALUE_BYTES):
            machine.set_key(name, sent)
            waiting.until(
                lambda sent=sent: guest.read(name) == sent.encode(),  # type: ignore[misc]
                what="the guest to read what the host left",
                timeout_s=_SEEN_S,
            )
        machine.delete_key(name)
        machine.delete_key(name)

        waiting.until(lambda: guest.read(name) is None, what="the guest to find nothing there", timeout_s=_SEEN_S)

    @proves(Capability.KEY_VALUES)
    def test_what_the_guest_leaves_the_host_reads(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: ExchangesKeyValues = capable(hypervisor, booted.machine, Capability.KEY_VALUES)
        name, value = f"from_{secrets.token_hex(4)}", f"{_NASTY}{secrets.token_hex(8)}"
        assert machine.key(name) is None
        assert name not in machine.key_names()

        _guest(machine, booted).write(name, value.encode())

        waiting.until(
            lambda: machine.key(name) == value, what="the host to read what the guest left", timeout_s=_SEEN_S
        )
        assert name in machine.key_names()
        machine.delete_key(name)
        assert machine.key(name) is None
        assert name not in machine.key_names()

    @proves(Capability.KEY_VALUES)
    def test_a_guest_cannot_leave_more_than_fits_nor_what_is_no_text(
        self, hypervisor: Hypervisor, booted: Booted
    ) -> None:
        machine: ExchangesKeyValues = capable(hypervisor, booted.machine, Capability.KEY_VALUES)
        name, guest = f"big-{secrets.token_hex(4)}", _guest(machine, booted)

        guest.write(name, b"\xff\x00\x1b[2Jx")
        waiting.until(lambda: machine.key(name) == "\ufffd\x00\x1b[2Jx", what="the host to read it", timeout_s=_SEEN_S)
        guest.write(name, b"y" * (KEY_VALUE_BYTES + 1))
        with pytest.raises(HypervisorRefused, match=f"more than {KEY_VALUE_BYTES} bytes"):
            waiting.until(lambda: machine.key(name) is None, what="the host to refuse it", timeout_s=_SEEN_S)

        machine.delete_key(name)
        assert machine.key(name) is None

    @proves(Capability.KEY_VALUES)
    def test_what_is_no_name_and_no_text_is_refused(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: ExchangesKeyValues = capable(hypervisor, booted.machine, Capability.KEY_VALUES)
        before = list(machine.key_names())

        for name in ("", "../name", "a/b", "-x", "a b", "a\n", "ü", "x" * 65):
            with pytest.raises(HypervisorRefused):
                machine.set_key(name, "value")
            with pytest.raises(HypervisorRefused):
                machine.key(name)
            with pytest.raises(HypervisorRefused):
                machine.delete_key(name)
        for value in ("a\0b", "x" * (KEY_VALUE_BYTES + 1), "ü" * KEY_VALUE_BYTES, "\udcff"):
            with pytest.raises(HypervisorRefused):
                machine.set_key("contract", value)

        assert list(machine.key_names()) == before

    @proves(Capability.KEY_VALUES)
    def test_nothing_is_left_with_a_machine_that_is_off(self, hypervisor: Hypervisor, made: Machine) -> None:
        machine: ExchangesKeyValues = capable(hypervisor, made, Capability.KEY_VALUES)

        with pytest.raises(HypervisorRefused, match="stopped"):
            machine.set_key("contract", "value")
        with pytest.raises(HypervisorRefused, match="stopped"):
            machine.key("contract")


def _guest(machine: ExchangesKeyValues, booted: Booted) -> GuestKeys:
    """The guest's end. Skips where it has none."""

    def run(*argv: str, stdin: bytes = b"") -> CommandResult:
        words: Sequence[str] = argv
        return booted.channel.run(words, stdin=stdin)

    try:
        keys = guest_keys(machine.key_store(), run)
        keys.read("contract")
    except NotSupported as reason:
        raise HostRefuses(reason.what) from reason
    return keys
