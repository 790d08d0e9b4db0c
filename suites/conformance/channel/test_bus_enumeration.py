"""channel.bus_enumeration: the devices of the paravirtual bus are listed, and each has a driver."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux, not_applicable

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
