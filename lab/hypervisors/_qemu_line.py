"""The line of a QEMU machine to a program in its guest: a second port of its virtio-serial device.

A guest that finds nobody at the other end reads an end of file (virtio_console.c, port_fops_read). A copy goes on in
the middle of such a read, so whoever wants to speak to it is there before its processors run.
"""

from __future__ import annotations

import socket

from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _machine_directory as files
from lab.hypervisors import _qemu_arguments as arguments
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_store import Directory

_LIMIT_S = 30.0


def opened(directory: Directory) -> socket.socket:
    """Connect; QEMU has told the guest when it returns.

    Raises `HypervisorRefused`, also for hardware that cannot be saved, as nobody in it needs to wait for being
    restored; `MachineVanished`.
    """
    try:
        snapshots.refuse_unsaved(directory)
    except NotSupported as reason:
        raise HypervisorRefused(reason.what) from reason
    with power.monitor_of(directory) as monitor:
        return opened_while(monitor, directory)


def opened_while(monitor: Monitor, directory: Directory) -> socket.socket:
    """The same in a conversation that is under way."""
    try:
        connection = files.connect(directory.here, arguments.LINE_SOCKET)
    except OSError as reason:
        raise HypervisorRefused(f"{directory.path.name} has no line into its guest: {reason}") from reason
    try:
        monitor.until(lambda: _is_connected(monitor), what="QEMU to take the line", timeout_s=_LIMIT_S)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_connected(monitor: Monitor) -> bool:
    # QEMU serves one client at a time; another one waits, and the first one's name would be seen here.
    lines = [device for device in monitor.command("query-chardev") if device["label"] == "line"]
    return bool(lines) and not str(lines[0]["filename"]).startswith("disconnected:")
