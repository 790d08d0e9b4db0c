"""Live migration of a PVH guest that works, between two real Xen hosts that the lab makes.

The dom0 that the guest leaves is its partner: it hears the guest over a bridge, which a cable between the two hosts
makes one network with the bridge of the other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from lab import waiting
from lab.contracts import Channel, Machine, MachineSpec, MachineState, Profile
from lab.errors import HypervisorRefused
from lab.hypervisors import _xen_plugged as plugged
from lab.hypervisors._xen_handshake import Handshake
from lab.hypervisors._xen_host import XenHost
from lab.provisioning import made_host
from lab.testing.hypervisor import Booted
from tests.hypervisors import traveller
from tests.hypervisors.test_xen_guests import PVH, WHOLE, XenFixtures, _made
from tests.hypervisors.traveller import Traveller

MAC = "00:16:3e:c0:78:02"
CABLE_MACS = ("52:54:00:c0:79:01", "52:54:00:c0:79:02")
MIDWAY_BYTES = 16 << 20

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not WHOLE, reason="two emulated hosts take minutes: set INTEROP_LAB_WHOLE_CONTRACT"),
]
# The dom0's busybox has no links for what a partner needs.
_APPLETS = 'nc() { busybox nc "$@"; }; netstat() { busybox netstat "$@"; }\n'
_PLUG_IN = """
for card in /sys/class/net/*; do
  [ "$(cat "$card/address")" != "$2" ] || { ip link set "${card##*/}" master "$1" up && echo there; }
done; :"""


def emulator_of(host: XenHost) -> Any:
    maker = host.link.dom0.maker
    assert isinstance(maker, made_host.MadeHost)
    return maker.emulator


def lay_cable(hosts: tuple[XenHost, XenHost], bridge: str) -> None:
    """Make the bridges of that name in two dom0s one network: a card more in each, joined in their emulators."""
    for host, mac, end in zip(hosts, CABLE_MACS, socket.socketpair(), strict=True):
        with end, emulator_of(host).monitor() as monitor:
            monitor.give_file("cable", end.fileno())
            monitor.command("netdev_add", {"type": "socket", "id": "cable", "fd": "cable"})
            card = {"driver": "virtio-net-pci", "id": "cable-card", "netdev": "cable", "mac": mac, "romfile": ""}
            monitor.command("device_add", card)
        plugged.make_bridges(host.link, plugged.Devices(cards=(("cable", mac, bridge),)))
        seen = partial(_plugged_in, host, bridge, mac)
        waiting.until(seen, what=f"the dom0 of {host.name} to see its end of the cable", timeout_s=60)


def _plugged_in(host: XenHost, bridge: str, mac: str) -> bool:
    return "there" in host.link.sh(_PLUG_IN, bridge, mac).out


class TestTwoXenHosts(XenFixtures):
    """Each test has its guest, and the host that it goes to."""

    hardware: Profile = PVH

    @pytest.fixture
    def other(self, hypervisor: XenHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XenHost]:
        with _made("other", tmp_path_factory.mktemp("other")) as host:
            hypervisor.meet(host)
            yield host

    @pytest.fixture
    def mover(
        self, hypervisor: XenHost, boot_spec: Callable[[str], MachineSpec], log_in: Callable[[Machine], Channel]
    ) -> Iterator[Booted]:
        machine = hypervisor.create(boot_spec("mover"))
        try:
            machine.start()
            yield Booted(machine, log_in(machine), log_in, lambda: machine)
        finally:
            machine.destroy()

    @pytest.fixture
    def bridge(self, mover: Booted) -> str:
        return plugged.bridge_of(mover.machine.spec.owner.run, traveller.NETWORK)

    @pytest.fixture
    def journey(self, hypervisor: XenHost, mover: Booted, bridge: str) -> Traveller:
        """The guest at work, and the dom0 that hears it."""

        def partner(script: str) -> str:
            result = hypervisor.link.sh(_APPLETS + script)
            assert result.status == 0, f"{script!r} ended with {result.status} in the dom0: {result.err}"
            return result.out

        machine: Any = mover.machine
        machine.attach_shared_nic("way", MAC, traveller.NETWORK)
        traveller.address(mover.sh, MAC, traveller.THERE)
        partner(f"ip address replace {traveller.HERE}/24 dev {bridge}")
        return Traveller(mover.sh, partner)

    def test_a_guest_goes_to_another_host_and_its_connection_holds(
        self,
        hypervisor: XenHost,
        other: XenHost,
        mover: Booted,
        bridge: str,
        journey: Traveller,
        record_property: Callable[[str, object], None],
    ) -> None:
        machine: Any = mover.machine
        lay_cable((hypervisor, other), bridge)

        took = machine.migrate_live("other", with_storage=True, timeout_s=900.0)

        assert (machine.place(), machine.state()) == ("other", MachineState.RUNNING)
        mover.reconnect()
        journey.arrived(record_property)
        assert took.transferred_bytes > traveller.MARKER_MIB << 20

    def test_a_move_that_is_broken_off_leaves_the_guest_at_work(
        self,
        hypervisor: XenHost,
        other: XenHost,
        mover: Booted,
        journey: Traveller,
        record_property: Callable[[str, object], None],
    ) -> None:
        machine: Any = mover.machine

        with pytest.raises(HypervisorRefused, match="mover could not be brought to other and stays: it did not end in"):
            machine.migrate_live("other", with_storage=True, timeout_s=15.0)

        assert (machine.place(), machine.state()) == ("contract", MachineState.RUNNING)
        assert list(other.machines()) == []
        mover.reconnect()
        journey.arrived(record_property)

    def test_a_destination_that_is_killed_midway_leaves_the_guest_at_work(
        self,
        other: XenHost,
        mover: Booted,
        journey: Traveller,
        monkeypatch: pytest.MonkeyPatch,
        record_property: Callable[[str, object], None],
    ) -> None:
        machine: Any = mover.machine
        carry = Handshake._one_way
        killed: list[int] = []

        def dies(handshake: Handshake) -> bool:
            if handshake.carried > MIDWAY_BYTES and not killed:
                killed.append(handshake.carried)
                emulator_of(other).end()
            return carry(handshake)

        monkeypatch.setattr(Handshake, "_one_way", dies)

        with pytest.raises(HypervisorRefused, match="mover could not be brought to other and stays"):
            machine.migrate_live("other", with_storage=True, timeout_s=900.0)

        assert killed
        assert (machine.place(), machine.state()) == ("contract", MachineState.RUNNING)
        mover.reconnect()
        journey.arrived(record_property)
