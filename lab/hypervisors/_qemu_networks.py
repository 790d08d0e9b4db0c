"""Networks that QEMU machines of one user and run share: a folder each, and a cable for each card."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from lab import locations
from lab.errors import HypervisorRefused
from lab.hypervisors._qemu_cable import alone
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_plugged import Plugged
from lab.hypervisors._qemu_store import Directory

_CABLE = Path(__file__).with_name("_qemu_cable.py")
_START_S = 60.0


def folder_of(run: str, network: str) -> Path:
    """Where the cables of a network meet. The name may be anything, so its digest stands for it."""
    digest = hashlib.sha256(f"{run}\0{network}".encode()).hexdigest()
    return locations.state() / "networks" / "qemu" / digest[:32]


def join(directory: Directory, monitor: Monitor, card: Plugged) -> None:
    """Lay a cable from a card to its network. Raises `HypervisorRefused`."""
    ours, theirs = socket.socketpair()
    name = _name(card)
    with ours:
        with theirs:
            monitor.give_file(name, theirs.fileno())
        monitor.command("netdev_add", {"type": "socket", "id": name, "fd": name})
        monitor.command("netdev_add", {"type": "hubport", "id": f"{name}-end", "hubid": card.network, "netdev": name})
        _lay(directory, card, ours)


def join_all(directory: Directory, monitor: Monitor) -> None:
    """Lay the cables of all shared cards of a machine that was just started."""
    for card in directory.read().nics:
        if card.shared:
            join(directory, monitor, card)


def leave(monitor: Monitor, card: Plugged) -> None:
    """Take the cable away; it ends when QEMU has closed its end."""
    for name in (f"{_name(card)}-end", _name(card)):
        forget(monitor, name)


def forget(monitor: Monitor, name: str) -> None:
    """Take away QEMU's end of a network, if it is there."""
    # A line of a hub's port that nothing is connected to ends with its name; else a colon follows.
    if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", monitor.human("info network")):
        monitor.command("netdev_del", {"id": name})


def _name(card: Plugged) -> str:
    return f"cable-{card.name}"


def _lay(directory: Directory, card: Plugged, end: socket.socket) -> None:
    owner = directory.read().spec.owner
    folder = folder_of(owner.run, card.shared)
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two places of one machine are two ends for a moment.
    name = hashlib.sha256(f"{directory.here}\0{card.name}".encode()).hexdigest()[:16]
    job = {"card": end.fileno(), "folder": str(folder), "name": f"{name}-{os.urandom(4).hex()}"}
    # Whoever leaves last takes the folder away, which must not happen between here and the cable's first step in it.
    with alone(folder):
        folder.mkdir(exist_ok=True, mode=0o700)
        said, complaint = _start(job, end, card.shared)
    if said != b"joined\n":
        raise HypervisorRefused(f"no cable to network {card.shared}: {complaint.decode(errors='replace')[-500:]}")


def _start(job: dict[str, object], end: socket.socket, network: str) -> tuple[bytes, bytes]:
    """What the cable says, and what it complains of. It has said `joined` when it goes on by itself."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(_CABLE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[end.fileno()],
        start_new_session=True,
    ) as cable:
        try:
            return cable.communicate(json.dumps(job).encode(), _START_S)
        except subprocess.TimeoutExpired:
            cable.kill()
            raise HypervisorRefused(f"the cable to network {network} did not start in {_START_S:.0f} s") from None
