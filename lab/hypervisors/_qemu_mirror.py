"""The disks of a QEMU machine copied to another place while it writes to them: over NBD, block by block."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from lab import process
from lab.errors import HypervisorRefused
from lab.hypervisors import _qemu_power as power
from lab.hypervisors import _qemu_snapshots as snapshots
from lab.hypervisors._qemu_monitor import Monitor
from lab.hypervisors._qemu_store import Directory, require_space

_SOCKET = "nbd.sock"
_ENDING = ("aborting", "concluded")  # job.c, `JobVerbTable`: nothing more can be cancelled then


def prepare(directory: Directory, there: Directory) -> None:
    """Empty disks for the other place, on the same bases: what the image holds is at every place of this machine."""
    for path in snapshots.disks(directory).values():
        about = json.loads(process.check(["qemu-img", "info", "-U", "--output=json", path], timeout_s=60))
        require_space(there.here, int(about["actual-size"]), f"a copy of {path.name}")
        base = about.get("backing-filename")
        backed = [] if base is None else ["-b", base, "-F", about["backing-filename-format"]]
        size = [] if base is not None else [str(about["virtual-size"])]
        made = there.here / path.name
        power.make_disks([["qemu-img", "create", "-q", "-f", "qcow2", *backed, str(made), *size]])
        if base is not None:  # the disk may have grown since it was put on its base
            power.make_disks([["qemu-img", "resize", "-q", "-f", "qcow2", str(made), str(about["virtual-size"])]])


def begin(directory: Directory, there: Directory, source: Monitor, target: Monitor) -> None:
    """Start copying; from then on what the guest writes is written at both places before it counts as written."""
    nodes = snapshots.disks(directory)
    target.command("nbd-server-start", {"addr": {"type": "unix", "data": {"path": _SOCKET}}})
    # Relative to the folder in which QEMU runs: an address of a UNIX socket has 107 bytes (unix(7)).
    server = {"type": "unix", "path": os.path.relpath(there.here / _SOCKET, directory.here)}
    for node in nodes:
        export = {"type": "nbd", "id": f"export-{node}", "node-name": node, "name": node, "writable": True}
        target.command("block-export-add", export)
        far: dict[str, object] = {
            "driver": "nbd",
            "node-name": _far(node),
            "server": server,
            "export": node,
            "discard": "unmap",
        }
        source.command("blockdev-add", far)
        job = {"job-id": _job(node), "device": node, "target": _far(node), "sync": "top", "auto-dismiss": False}
        source.command("blockdev-mirror", {**job, "copy-mode": "write-blocking", "on-target-error": "report"})


def is_level(directory: Directory, source: Monitor) -> bool:
    """Whether every disk there holds what the one here holds. Raises `HypervisorRefused` when a copy failed."""
    jobs = _jobs(source)
    for node in snapshots.disks(directory):
        job = jobs.get(_job(node))
        if job is None or job["status"] == "concluded":
            said = (job or {}).get("error", "it ended")
            raise HypervisorRefused(f"QEMU could not copy the disk {node}: {said}")
    return all(jobs[_job(node)]["status"] == "ready" for node in snapshots.disks(directory))


def finish(directory: Directory, source: Monitor, target: Monitor) -> int:
    """With the processors at rest: write the last blocks and let go; how many bytes were copied."""
    nodes = snapshots.disks(directory)
    copied = sum(int(_jobs(source)[_job(node)]["current-progress"]) for node in nodes)
    for node in nodes:
        # Of a level copy this is its orderly end: the machine stays on its own disk.
        source.command("block-job-cancel", {"device": _job(node)})
    source.until(lambda: _all_ended(source), what="QEMU to write the last blocks", timeout_s=60)
    for name, job in _jobs(source).items():
        if job.get("error"):
            raise HypervisorRefused(f"QEMU could not copy a disk to its end ({name}): {job['error']}")
    clean(source)
    target.command("nbd-server-stop")
    return copied


def clean(source: Monitor) -> None:
    """Take away what `begin` made here, whatever came of it."""
    for name, job in _jobs(source).items():
        if job["status"] not in _ENDING:
            _break_off(source, name)
    source.until(lambda: _all_ended(source), what="QEMU to stop copying", timeout_s=60)
    for name in _jobs(source):
        source.command("job-dismiss", {"id": name})
    for node in source.command("query-named-block-nodes", {"flat": True}):
        if node["node-name"].startswith(_far("")):
            source.command("blockdev-del", {"node-name": node["node-name"]})


def _break_off(source: Monitor, name: str) -> None:
    try:
        source.command("block-job-cancel", {"device": name, "force": True})
    except HypervisorRefused:
        # A copy whose other end has died fails when it comes to write, which may be just now.
        if _jobs(source)[name]["status"] not in _ENDING:
            raise


def _jobs(monitor: Monitor) -> Mapping[str, Any]:
    return {job["id"]: job for job in monitor.command("query-jobs") if job["id"].startswith(_job(""))}


def _all_ended(monitor: Monitor) -> bool:
    return all(job["status"] == "concluded" for job in _jobs(monitor).values())


def _job(node: str) -> str:
    return f"copy-{node}"


def _far(node: str) -> str:
    return f"far-{node}"


def link(directory: Directory, there: Directory) -> None:
    """The same disks at the other place, as a storage that both share."""
    for path in snapshots.disks(directory).values():
        os.link(path, there.here / path.name)
