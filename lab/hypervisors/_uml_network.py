"""Namespaces and the network of a User-Mode Linux machine: made without any privilege, gone with its process.

A machine gets a user, network, mount, IPC and process namespace of its own. In that network namespace stands
one tap device; the guest is at its other end. Nothing of it is visible in the host's network. Only the standard
library, because the warden imports it. Specifications: user_namespaces(7), netdevice(7), Linux' tuntap.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

GATEWAY = "192.168.64.1"
GUEST = "192.168.64.2"
PREFIX = 24
TAPS = 4
"""How many tap devices a machine's namespace has: one for its own card, the rest for cards that come later."""

_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
ALL_NAMESPACES = _NEW_MOUNTS | _NEW_IPC | _NEW_USER | _NEW_PIDS | _NEW_NETWORK

_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_IFF_UP_RUNNING, _IFF_NOARP = 0x41, 0x80
_ARP_COMPLETE = 0x2

REMEDY = (
    "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0; "
    "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
)
TUN_REMEDY = "make /dev/net/tun usable for this user (modprobe tun; chmod 0666 /dev/net/tun), or run as root"


class NotAllowed(Exception):
    """This machine does not let us make namespaces or a tap device; `hint` says what to change."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def enter_namespaces() -> None:
    """Move this process into new namespaces, its user becomes root there; children get new process ids.

    Raises `NotAllowed`.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ALL_NAMESPACES) != 0:
        why = os.strerror(ctypes.get_errno())
        raise NotAllowed(f"this machine does not let us make user namespaces: {why}", REMEDY)
    try:
        # setgroups must be denied before an unprivileged process may write gid_map, user_namespaces(7).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as reason:
        raise NotAllowed(f"this machine does not let us map a user into a namespace: {reason}", REMEDY) from reason


def tap(number: int) -> str:
    """The name of a tap device; the guest's card at its other end is `vec<number>`."""
    return f"lab{number}"


def make_tap(name: str) -> None:
    """Make a tap device that stays as long as the namespace. Raises `NotAllowed`."""
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as reason:
        raise NotAllowed(f"/dev/net/tun cannot be opened: {reason.strerror}", TUN_REMEDY) from reason
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    except OSError as reason:
        hint = REMEDY if reason.errno in (errno.EPERM, errno.EACCES) else TUN_REMEDY
        raise NotAllowed(f"a tap device cannot be made: {reason.strerror}", hint) from reason
    finally:
        os.close(tun)


def set_address(name: str, address: str, prefix: int) -> None:
    """Give a network device its IPv4 address and bring it up. Raises `OSError`."""
    mask = socket.inet_ntoa(struct.pack(">I", (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFADDR, _request(name, address))
        fcntl.ioctl(asked, _SIOCSIFNETMASK, _request(name, mask))
        bring_up(name)


def bring_up(name: str) -> None:
    """Bring a network device up. Raises `OSError`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP_RUNNING))


def keep_silent(name: str) -> None:
    """Let this side of a tap device answer and say nothing, so that the guest is alone at it. Raises `OSError`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP_RUNNING | _IFF_NOARP))
    switch = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if switch.exists():  # not on a kernel without IPv6
        switch.write_text("1")


def neighbours(table: str) -> list[str]:
    """The addresses that answered on the tap, from the text of /proc/net/arp."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return [row[0] for row in rows if len(row) >= 6 and int(row[2], 16) & _ARP_COMPLETE]


def _request(name: str, address: str) -> bytes:
    # struct ifreq with a struct sockaddr_in, netdevice(7)
    return struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(address))


def main() -> int:
    """Make what a machine needs, say what does not work and what to change, and take it all along at the end."""
    try:
        enter_namespaces()
        make_tap(tap(0))
        set_address(tap(0), GATEWAY, PREFIX)
    except NotAllowed as reason:
        print(reason, reason.hint, sep="\n")  # noqa: T201 - a process of its own that says why it failed
        return 1
    return 0
