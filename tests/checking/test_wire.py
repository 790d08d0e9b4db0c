"""A wire between two guests: a card in each on one network, taken away again whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lab.checking import linux, wire
from lab.errors import HypervisorRefused, NotSupported


@dataclass
class FakeMachine:
    """Shares networks; what is attached is seen by its guest."""

    events: list[str]
    cards: dict[str, str] = field(default_factory=dict)
    networks: list[str] = field(default_factory=list)
    stuck: bool = False

    def attach_shared_nic(self, name: str, mac: str, network: str) -> None:
        self.cards[name] = mac
        self.networks.append(network)

    def attach_nic(self, name: str, mac: str) -> None: ...

    def detach_nic(self, name: str) -> None:
        self.events.append("detach")
        if self.stuck:
            raise HypervisorRefused("held open")
        del self.cards[name]


class FakeGuest:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.machine = FakeMachine(self.events)
        self.ping = ""
        self.mtu_status = 0
        self.shown = ""

    def run(self, *argv: str, **_: Any) -> Any:
        if argv[0] == "ping":
            return SimpleNamespace(out=self.ping, status=0)
        self.events.append(" ".join(argv))
        return SimpleNamespace(out="", err="RTNETLINK answers: Invalid argument", status=self.mtu_status)

    def check(self, *argv: str, **_: Any) -> str:
        if argv[:1] == ("cat",):
            return "Ip: InReceives ReasmReqds FragCreates\nIp: 100 2 3\nIcmp: x\nIcmp: 1"
        return self.shown


@pytest.fixture(autouse=True)
def nics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        linux, "nics", lambda guest: [SimpleNamespace(name="eth1", mac=mac) for mac in guest.machine.cards.values()]
    )


def two() -> tuple[Any, Any]:
    return FakeGuest(), FakeGuest()


def test_both_get_a_card_on_one_network_with_an_address_of_its_own() -> None:
    guest, peer = two()

    with wire.between(guest, peer) as (here, there):
        assert (here.nic, there.nic) == ("eth1", "eth1")
        assert guest.machine.networks == peer.machine.networks
        (one,), (other,) = guest.machine.cards.values(), peer.machine.cards.values()
        assert one != other
        assert one.startswith("52:54:00:")

    assert not guest.machine.cards
    assert guest.events == ["ip link set eth1 down", "detach"]


def test_the_second_card_goes_although_the_first_is_held() -> None:
    guest, peer = two()
    peer.machine.stuck = True

    with pytest.raises(HypervisorRefused), wire.between(guest, peer):
        pass

    assert not guest.machine.cards


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("3 packets transmitted, 3 received, 0% packet loss", 3),
        ("3 packets transmitted, 1 packets received, 66% packet loss", 1),
        ("ping: sendto: Network is unreachable", 0),
    ],
)
def test_both_kinds_of_ping_are_understood(said: str, count: int) -> None:
    guest, _ = two()
    guest.ping = said

    assert wire.End(guest, "eth1").pings("10.0.0.2", count=3) == count


def test_a_card_that_takes_no_large_packets_is_no_failure() -> None:
    guest, _ = two()
    guest.mtu_status = 1

    with pytest.raises(NotSupported, match="eth1 takes no packets of 9000 bytes: RTNETLINK answers"):
        wire.End(guest, "eth1").set_up("10.0.0.1/24", mtu=9000)


def test_addresses_are_there_when_a_card_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, _ = two()
    scripts: list[str] = []

    def sh(guest: Any, script: str) -> str:
        scripts.append(script)
        # Whoever manages the network threw the first one away.
        guest.shown = "eth1: mtu 1500 qdisc" if len(scripts) == 1 else "eth1: mtu 1500 qdisc\n inet 10.0.0.1/24 brd"
        return ""

    monkeypatch.setattr(linux, "sh", sh)
    wire.End(guest, "eth1").set_up("10.0.0.1/24")

    assert len(scripts) == 2


def test_fragments_are_counted_both_ways() -> None:
    guest, _ = two()

    assert wire.End(guest, "eth1").fragments() == 5
