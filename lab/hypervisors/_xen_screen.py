"""What the display of an HVM domain shows: its device model's VNC server, on 127.0.0.1 in the dom0, through SSH."""

from __future__ import annotations

from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _picture, _rfb
from lab.hypervisors import _xen_power as power
from lab.hypervisors._xen_config import Kind
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Machine

NO_DISPLAY = "PV and PVH domains have no display"
_PORTS = range(5900, 6000)  # libxl_dm.c, dm_spice and vnc: `-vnc ADDRESS:0,to=99`
_LOOK_S = 60.0  # an emulated dom0 encrypts a megabyte a second


def shot(machine: Machine) -> bytes:
    """A PNG file. Raises `NotSupported` for a domain without a display, `HypervisorRefused`, `HostError`."""
    if machine.kind is not Kind.HVM:
        raise NotSupported(f"{NO_DISPLAY}, and {machine.name} is {machine.kind.upper()}")
    domain = power.require_up(machine)
    result = machine.link.run(("xenstore-read", f"/local/domain/{domain.domid}/console/vnc-port"))
    told = result.out.strip()
    if result.status != 0 or not (told.isascii() and told.isdigit() and len(told) < 6 and int(told) in _PORTS):
        raise HypervisorRefused(f"{machine.link.host}: libxl tells no VNC port of {machine.name}: {said(result)[:200]}")
    tunnel = machine.link.tunnel(int(told))
    try:
        seen = _rfb.picture(tunnel, timeout_s=_LOOK_S)
    except HypervisorRefused as reason:
        raise HypervisorRefused(f"{machine.link.host}: no picture of {machine.name}: {reason.what}") from reason
    finally:
        tunnel.close()
    return _picture.png(seen.width, seen.height, seen.pixels)
