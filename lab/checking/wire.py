"""A wire between two guests: a further card in each, on a network where nobody else is."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lab import waiting
from lab.checking import linux
from lab.checking.abilities import who_can
from lab.contracts import HotplugsNics, SharesNetworks
from lab.errors import NotSupported
from lab.guests.guest import Guest

APPEARS_WITHIN_S = 60.0
PING_S = 3  # that an emulated guest may take for one answer

# Documentation/networking: the header of an IPv4 packet has 20 bytes, that of an ICMP echo 8.
HEADERS = 28
ETHERNET_MTU = 1500  # RFC 894


@dataclass(frozen=True)
class End:
    """One guest's card on the wire."""

    guest: Guest
    nic: str

    def set_up(self, *addresses: str, mtu: int = ETHERNET_MTU) -> None:
        """Give the card addresses ("10.0.0.1/24") and a size of packets, and wait until it has all of them.

        Raises `NotSupported` when the card refuses packets larger than an ordinary Ethernet's.
        """
        asked = self.guest.run("ip", "link", "set", self.nic, "mtu", str(mtu))
        if asked.status != 0 and mtu > ETHERNET_MTU:
            raise NotSupported(f"{self.nic} takes no packets of {mtu} bytes: {asked.err or asked.out}")
        self._set_up(self.nic, addresses, mtu)

    def set_up_vlan(self, tag: int, *addresses: str) -> str:
        """Make a card for what bears that tag; its name. Raises `NotSupported` where the kernel knows no tags."""
        name = f"lab{tag}"
        if linux.sh(self.guest, "modprobe 8021q 2>/dev/null; [ -d /proc/net/vlan ] || echo none"):
            raise NotSupported("the guest's kernel knows no tags of IEEE 802.1Q (8021q)")
        self.guest.check("ip", "link", "add", "link", self.nic, "name", name, "type", "vlan", "id", str(tag))
        self._set_up(name, addresses, ETHERNET_MTU)
        return name

    def remove(self, name: str) -> None:
        """Remove a card that `set_up_vlan` made."""
        self.guest.check("ip", "link", "del", name)

    def _set_up(self, nic: str, addresses: tuple[str, ...], mtu: int) -> None:
        commands = [f"ip link set {nic} mtu {mtu}", f"ip link set {nic} up"]
        # Whoever manages the guest's network may flush what it does not know when it first sees a card.
        commands += [f"ip address add {address} dev {nic} 2>/dev/null || true" for address in addresses]
        script = "; ".join(commands)

        def has_all() -> bool:
            linux.sh(self.guest, script)
            shown = self.guest.check("ip", "address", "show", "dev", nic)
            return all(f"inet {address} " in shown for address in addresses) and f"mtu {mtu} " in shown

        waiting.until(has_all, what=f"{nic} to have {' and '.join(addresses)}", timeout_s=APPEARS_WITHIN_S)

    def pings(self, address: str, *, size: int = 56, count: int = 1) -> int:
        """How many of `count` echoes with `size` bytes came back."""
        words = ["ping", "-c", str(count), "-W", str(PING_S), "-s", str(size), address]
        said = self.guest.run(*words, timeout_s=PING_S * count + 60).out
        received = re.search(r"(\d+) (?:packets )?received", said)
        return int(received[1]) if received else 0

    def wait_for(self, address: str) -> None:
        """Wait until an address answers. Raises `WaitedTooLong`."""
        waiting.until(
            lambda: self.pings(address) == 1, what=f"{address} to answer over the wire", timeout_s=APPEARS_WITHIN_S
        )

    def received(self) -> tuple[int, int]:
        """Packets and bytes that the card received so far."""
        folder = f"/sys/class/net/{self.nic}/statistics"
        packets, size = self.guest.check("cat", f"{folder}/rx_packets", f"{folder}/rx_bytes").split()
        return int(packets), int(size)

    def sent(self) -> int:
        """Packets that the card sent so far."""
        return int(self.guest.check("cat", f"/sys/class/net/{self.nic}/statistics/tx_packets"))

    def fragments(self) -> int:
        """IP packets that the guest cut into pieces, or put together from such, so far (RFC 4293)."""
        rows = [line.split() for line in self.guest.check("cat", "/proc/net/snmp").splitlines() if line[:3] == "Ip:"]
        counts = dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))
        return counts["FragCreates"] + counts["ReasmReqds"]


@contextmanager
def between(guest: Guest, peer: Guest) -> Iterator[tuple[End, End]]:
    """Attach a card to each of two guests, on a network of their own; take them away at the end.

    Raises `WaitedTooLong` when a guest does not see its card.
    """
    network = f"lab-{secrets.token_hex(4)}"
    name = f"wire-{secrets.token_hex(3)}"
    with ExitStack() as undo:
        yield _attached(guest, name, network, undo), _attached(peer, name, network, undo)


def _attached(guest: Guest, name: str, network: str, undo: ExitStack) -> End:
    tail = secrets.token_bytes(3)
    mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)
    who_can(guest.machine, SharesNetworks).attach_shared_nic(name, mac, network)
    undo.callback(lambda: who_can(guest.machine, HotplugsNics).detach_nic(name))
    found = waiting.until(
        lambda: [nic.name for nic in linux.nics(guest) if nic.mac == mac],
        what=f"a network card with address {mac}",
        timeout_s=APPEARS_WITHIN_S,
    )
    # Taken down first, as an operator would: some cards cannot go while they are in use.
    undo.callback(lambda: guest.run("ip", "link", "set", found[0], "down"))
    return End(guest, found[0])
