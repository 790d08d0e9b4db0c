"""Defects in PV guests on a real Xen: those of any guest seeded there too, and those that only xenbus can have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lab.contracts import Hypervisor
from tests.defects import drivers, guests
from tests.defects.definition import Defect, replace_method

CELL = "xen/jeos/xen-pv"
# Made by root in the guest, or of what any driver says; nothing in them is of QEMU's machines.
_ANYWHERE = (
    "clock-an-hour-late",
    "clock-drifts",
    "root-read-only",
    "root-full",
    "kernel-tainted",
    "second-host-key",
    "host-name-ignored",
    "gateway-dead",
    "route-missing",
    "mtu-too-small",
    "out-of-tree-module",
    "kernel-oops",
    "file-system-error",
    "clone-kept-its-identity",
    "machine-id-missing",
    "machine-id-changes-at-boot",
    "root-not-unmounted",
    "state-wrong",
    "console-loses-lines",
    "nmi-ignored",
    "pause-is-a-word",
    "restore-changes-nothing",
    "power-cut-for-shutdown",
    "balloon-is-a-word",
    "disks-not-plugged",
    "cards-not-plugged",
)


def _on_xen(defects: Iterable[Defect]) -> tuple[Defect, ...]:
    """Raises `KeyError` when a defect of that name is no more."""
    known = {defect.name: defect for defect in defects}
    return tuple(replace(known[name], name=f"{name}-on-xen", cell=CELL) for name in _ANYWHERE)


def _another_version(host: Hypervisor) -> None:
    facts = host.facts
    replace_method(host, "facts", lambda: replace(facts(), version="4.4.0"))


DEFECTS = (
    *_on_xen((*guests.DEFECTS, *drivers.DEFECTS)),
    Defect(
        name="data-disk-without-driver-on-xen",
        what="No driver holds the domain's data disk.",
        breaks=("channel.bus_enumeration", "storage.pv_block"),
        says="no driver took device/vbd/51744|disk",
        script="""
        for device in /sys/bus/xen/drivers/vbd/vbd-*; do
            case $(cat "$device/nodename") in */51744) echo "${device##*/}" >/sys/bus/xen/drivers/vbd/unbind ;; esac
        done
        """,
        cell=CELL,
    ),
    Defect(
        name="version-of-another-xen",
        what="The host says that it is a Xen of another version than its guests see.",
        breaks=("channel.bus_enumeration",),
        says=r"the guest sees Xen 4\.\d+\.\d+, the host 4\.4\.0",
        hypervisor=_another_version,
        cell=CELL,
    ),
)
