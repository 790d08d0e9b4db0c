"""An xl.cfg from typed values: xl.cfg(5) and xl-disk-configuration(5), quoted so that no value becomes a key.

The grammar of xl.cfg knows strings with escapes, and its releases read escapes differently. So nothing is escaped here:
a value that would need it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.errors import HypervisorRefused

Value = str | int | Sequence[str]

_KEY = re.compile(r"[a-z][a-z0-9_]*")
# Printable ASCII without the quote that ends a string and the backslash that begins an escape.
_TEXT = re.compile(r"[ !#-\[\]-~]*")
# A comma or an equals sign would begin another word of a disk or a card; a leading dash an option of a hotplug script.
_PATH = re.compile(r"/[A-Za-z0-9._/+-]{0,400}")
_VDEV = re.compile(r"xvd[a-p]")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with its NUL
_LARGEST_NUMBER = 1 << 31


class Kind(StrEnum):
    """What a domain is: xl.cfg(5), `type`."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


_BUILDERS = {Kind.PV: "generic", Kind.HVM: "hvm"}  # of an xl that does not know the key `type`


@dataclass(frozen=True)
class Disk:
    """One virtual block device on a raw file or block device of the dom0."""

    target: str  # absolute path in the dom0
    vdev: str  # "xvda"; in an HVM domain the first four are emulated too, until the guest drives Xen's own
    writable: bool = True

    def word(self) -> str:
        """As xl takes it. Raises `HypervisorRefused` for what could become another word."""
        if not _PATH.fullmatch(self.target) or ".." in self.target.split("/"):
            raise HypervisorRefused(f"{self.target!r} cannot be a disk of a domain: not a plain absolute path")
        if not _VDEV.fullmatch(self.vdev):
            raise HypervisorRefused(f"{self.vdev!r} is not the name of a virtual disk")
        return f"format=raw,vdev={self.vdev},access={'rw' if self.writable else 'ro'},target={self.target}"


@dataclass(frozen=True)
class Nic:
    """One virtual network card on a bridge of the dom0."""

    mac: str
    bridge: str

    def word(self, kind: Kind) -> str:
        """As xl takes it. Raises `HypervisorRefused` for what could become another word."""
        if not _MAC.fullmatch(self.mac):
            raise HypervisorRefused(f"{self.mac!r} is not the address of a network card")
        if not _BRIDGE.fullmatch(self.bridge):
            raise HypervisorRefused(f"{self.bridge!r} cannot be the name of a bridge")
        # xl-network-configuration(5), `type`: without it an HVM domain gets an emulated card beside this one.
        return f"mac={self.mac},bridge={self.bridge}{',type=vif' if kind is Kind.HVM else ''}"


@dataclass(frozen=True)
class FullHardware:
    """What an HVM domain has besides: a PC that Xen's build of QEMU, the device model, emulates in the dom0."""

    serial_log: str  # where the device model writes down what comes out of the serial port
    ovmf: str = ""  # UEFI firmware in the dom0; empty: the toolstack's BIOS

    def keys(self, *, knows_type: bool) -> dict[str, Value]:
        """Of xl.cfg. Raises `HypervisorRefused`."""
        firmware: dict[str, Value] = {"firmware" if knows_type else "bios": "ovmf" if self.ovmf else "seabios"}
        if self.ovmf:
            firmware["bios_path_override"] = _path(self.ovmf)
        return firmware | {
            "device_model_version": "qemu-xen",
            # By this device the guest tells that it drives Xen's own disks and cards, and the emulated ones vanish.
            "xen_platform_pci": 1,
            "vga": "stdvga",
            "vnc": 1,
            "vnclisten": "127.0.0.1",
            "vncunused": 1,
            # A terminal, as serial="pty" makes it and by the name under which libxl looks for it, that keeps a log.
            "serial": f"chardev:{_SERIAL}",
            "device_model_args_hvm": [
                "-chardev",
                f"pty,id={_SERIAL},logfile={_path(self.serial_log)},logappend=on",
            ],
        }


_SERIAL = "serial0"  # libxl_qmp.c, qmp_register_serial_chardev_callback


@dataclass(frozen=True)
class Domain:
    """All that an xl.cfg of the lab says."""

    name: str
    uuid: str
    kind: Kind
    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    kernel: str = ""  # in the dom0; empty: pygrub finds one on the first disk
    ramdisk: str = ""
    arguments: str = ""  # of the kernel
    native_tsc: bool = False  # see `_xen_toolstack.NATIVE_TSC`
    full: FullHardware | None = None  # of an HVM domain


def text(domain: Domain, *, knows_type: bool) -> str:
    """The file; `knows_type` says whether this xl has the key `type`. Raises `HypervisorRefused`."""
    keys: dict[str, Value] = {"name": domain.name, "uuid": domain.uuid}
    if knows_type:
        keys["type"] = domain.kind.value
    elif domain.kind in _BUILDERS:
        keys["builder"] = _BUILDERS[domain.kind]
    else:
        raise HypervisorRefused(f"this toolstack cannot make {domain.kind.upper()} domains")
    if (domain.full is not None) != (domain.kind is Kind.HVM):
        raise HypervisorRefused(
            f"{domain.name}: emulated hardware is of HVM domains, and this one is {domain.kind.upper()}"
        )
    keys |= _what_boots(domain)
    if domain.full is not None:
        keys |= domain.full.keys(knows_type=knows_type)
    keys |= {
        "vcpus": domain.vcpus,
        "maxvcpus": max(domain.vcpus, domain.max_vcpus),
        "memory": domain.memory_mib,
        "maxmem": max(domain.memory_mib, domain.max_memory_mib),
        "disk": [disk.word() for disk in domain.disks],
        "vif": [nic.word(domain.kind) for nic in domain.nics],
        # What ended stays to be looked at: otherwise nobody could tell a guest that shut down from one that vanished.
        "on_poweroff": "preserve",
        "on_reboot": "restart",
        "on_crash": "preserve",
        "on_watchdog": "preserve",
    }
    if domain.native_tsc:
        keys["tsc_mode"] = "native"
    return rendered(keys)


def _what_boots(domain: Domain) -> dict[str, Value]:
    if not domain.kernel:
        return {"boot": "c"} if domain.kind is Kind.HVM else {"bootloader": "pygrub"}
    ramdisk: dict[str, Value] = {"ramdisk": _path(domain.ramdisk)} if domain.ramdisk else {}
    return {"kernel": _path(domain.kernel), **ramdisk, "extra": domain.arguments}


def rendered(keys: Mapping[str, Value]) -> str:
    """Keys and values as xl.cfg. Raises `HypervisorRefused` for what cannot be written safely."""
    return "".join(f"{_key(key)} = {_value(key, value)}\n" for key, value in keys.items())


def _value(key: str, value: Value) -> str:
    if isinstance(value, str):
        return _quoted(key, value)
    if isinstance(value, int):
        if isinstance(value, bool) or not 0 <= value < _LARGEST_NUMBER:
            raise HypervisorRefused(f"{key} = {value!r} cannot be written into the configuration of a domain")
        return str(value)
    return f"[ {', '.join(_quoted(key, word) for word in value)} ]" if value else "[ ]"


def _key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise HypervisorRefused(f"{key!r} cannot be a key of a domain's configuration")
    return key


def _quoted(key: str, value: str) -> str:
    if not _TEXT.fullmatch(value) or len(value) > 4096:
        raise HypervisorRefused(
            f"{key} = {value[:200]!r} cannot be written into the configuration of a domain",
            hint="only printable ASCII without double quotes and backslashes can",
        )
    return f'"{value}"'


def _path(path: str) -> str:
    if not _PATH.fullmatch(path) or ".." in path.split("/"):
        raise HypervisorRefused(f"{path!r} cannot be a file of a domain: not a plain absolute path")
    return path
