"""channel.bus_enumeration: the devices of the paravirtual bus are listed, and each has a driver."""

from __future__ import annotations

from lab.suite import Guest, Hypervisor, Machine, check, linux, not_applicable

# Virtual I/O Device (VIRTIO) 1.2, section 5: device types.
NETWORK, BLOCK = 1, 2
NAMES = {1: "network card", 2: "block device", 3: "console", 4: "entropy source", 5: "memory balloon", 8: "SCSI host"}

_LIST = r"""
for device in /sys/bus/virtio/devices/*; do
  [ -e "$device" ] || continue
  if [ -e "$device/driver" ]; then driver=$(basename "$(readlink "$device/driver")"); else driver=; fi
  echo "$(cat "$device/device")|$driver"
done
"""
# Every device of xenbus: its kind, its driver, and what its state is called by drivers/xen/xenbus/xenbus_probe.c.
_XENBUS = r"""
for device in /sys/bus/xen/devices/*; do
  [ -e "$device" ] || continue
  if [ -e "$device/driver" ]; then driver=$(basename "$(readlink "$device/driver")"); else driver=; fi
  echo "$(cat "$device/nodename")|$(cat "$device/devtype")|$driver|$(cat "$device/state")"
done
"""


@check("channel.bus_enumeration", defect=True)
def test_every_virtio_device_has_its_driver(guest: Guest, machine: Machine) -> None:
    """Catches devices that the bus does not list and devices that no driver took."""
    linux.settle(guest)
    found = [line.split("|") for line in linux.sh(guest, _LIST).splitlines()]
    profile = machine.spec.profile
    expected = {NETWORK} if profile.nic == "virtio" else set()
    expected |= {BLOCK} if profile.disk == "virtio" else set()
    if not found and not expected:
        not_applicable("this machine has no virtio devices")
    kinds = {int(kind, 16) for kind, _ in found}
    missing = sorted(NAMES[kind] for kind in expected - kinds)
    assert not missing, f"the virtio bus lists no {' and no '.join(missing)}"
    idle = [NAMES.get(int(kind, 16), f"type {kind}") for kind, driver in found if not driver]
    assert not idle, f"no driver took the virtio {', '.join(idle)}"


@check("channel.bus_enumeration", defect=True)
def test_every_xenbus_device_is_connected(guest: Guest, machine: Machine) -> None:
    """Catches devices that xenstore does not list, that no driver took, and whose backend never answered."""
    _require_xen(machine)
    linux.settle(guest)
    found = [line.split("|") for line in linux.sh(guest, _XENBUS).splitlines()]
    expected = {"vif"} if machine.spec.profile.nic == "xen" else set()
    expected |= {"vbd"} if machine.spec.profile.disk == "xen" else set()
    missing = sorted(expected - {kind for _, kind, _, _ in found})
    assert not missing, f"xenbus lists no {' and no '.join(missing)}"
    of_hardware = [device for device in found if device[1] in ("vif", "vbd")]
    idle = [node for node, _, driver, _ in of_hardware if not driver]
    assert not idle, f"no driver took {', '.join(idle)}"
    apart = [f"{node} is {state}" for node, _, _, state in of_hardware if state != "Connected"]
    assert not apart, f"not connected to their backends: {', '.join(apart)}"


@check("channel.bus_enumeration", level="smoke", defect=True)
def test_guest_sees_the_xen_that_it_runs_on(guest: Guest, machine: Machine, hypervisor: Hypervisor) -> None:
    """Catches a guest on another hypervisor than the host says, and hypercalls that answer with something else."""
    _require_xen(machine)
    folder = "/sys/hypervisor"
    kind = guest.check("cat", f"{folder}/type")
    assert kind == "xen", f"the guest says that it runs on {kind!r}"
    parts = guest.check("cat", *(f"{folder}/version/{part}" for part in ("major", "minor", "extra"))).splitlines()
    version = f"{parts[0]}.{parts[1]}{parts[2] if len(parts) > 2 else ''}"
    assert version == hypervisor.facts().version, f"the guest sees Xen {version}, the host {hypervisor.facts().version}"


def _require_xen(machine: Machine) -> None:
    if not machine.spec.profile.chipset.startswith("xen"):
        not_applicable("this machine is no domain of Xen")
