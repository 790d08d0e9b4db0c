"""What a check asks a Linux guest about itself, by /sys, /proc and words that busybox understands too.

Each function is one round trip. Nothing here judges; what cannot be read raises `GuestCommandFailed`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lab import waiting
from lab.contracts import Machine
from lab.errors import NotSupported
from lab.guests.guest import Guest

# Values are read by the shell itself: each process costs an emulated guest a tenth of a second.
_COMMON = r"""
value() { value=; read -r value <"$1"; } 2>/dev/null
drivers() {
  drivers= path=$(readlink -f "$1")
  while [ -n "$path" ] && [ "$path" != /sys ] && [ "$path" != /sys/devices ]; do
    if [ -e "$path/driver" ]; then driver=$(readlink "$path/driver"); drivers="$drivers,${driver##*/}"; fi
    path=${path%/*}
  done
}
"""

_DISKS = (
    _COMMON
    + r"""
for block in /sys/block/*; do
  name=${block##*/}
  case $name in loop*|ram*|zram*|sr*|fd*|dm-*|md*|nbd*) continue;; esac
  value "$block/size"; size=$value
  [ "$size" -gt 0 ] || continue
  serial=
  for file in serial wwid device/wwid device/serial; do
    [ -e "$block/$file" ] || continue
    value "$block/$file"; serial=$value
    [ -z "$serial" ] || break
  done
  # SCSI Primary Commands: the unit serial number page has a head of four bytes.
  if [ -z "$serial" ] && [ -e "$block/device/vpd_pg80" ]; then
    serial=$(tail -c +5 "$block/device/vpd_pg80" | tr -cd 'A-Za-z0-9_.:-')
  fi
  drivers "$block/device"
  value "$block/ro"; ro=$value
  case $(dd if="/dev/$name" bs=9 count=1 2>/dev/null | tr -d '\000') in lab-seed/) seed=1;; *) seed=0;; esac
  echo "$name|$size|$ro|$seed|${drivers#,}|$serial"
done
"""
)

_NICS = (
    _COMMON
    + r"""
for net in /sys/class/net/*; do
  [ -e "$net/device" ] || continue
  drivers "$net/device"
  rx=0
  for queue in "$net"/queues/rx-*; do [ ! -e "$queue" ] || rx=$((rx + 1)); done
  # A card that is down refuses to tell its carrier.
  value "$net/carrier"; carrier=${value:-0}
  value "$net/address"; address=$value
  value "$net/mtu"; mtu=$value
  value "$net/operstate"
  echo "${net##*/}|$address|${drivers#,}|$mtu|$carrier|$rx|$value"
done
"""
)


@dataclass(frozen=True)
class Disk:
    """A block device of the guest."""

    name: str  # "vda"
    size_bytes: int
    read_only: bool
    is_seed: bool  # the lab's: it begins with the name of its first file
    drivers: tuple[str, ...]  # of the device and of what it hangs on, nearest first
    serial: str

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"


@dataclass(frozen=True)
class Nic:
    """A network card of the guest that has a device behind it."""

    name: str
    mac: str
    drivers: tuple[str, ...]
    mtu: int
    carrier: bool
    rx_queues: int
    state: str


@dataclass(frozen=True)
class KernelLine:
    """A line of the kernel's log."""

    level: int  # 0 emergency ... 3 error, 4 warning ... 7 debug (syslog(2))
    text: str


def sh(guest: Guest, script: str, *, timeout_s: float = 60.0) -> str:
    """Run a POSIX shell script; its standard output. Raises `GuestCommandFailed` when it ends with an error."""
    return guest.check("sh", "-c", script, timeout_s=timeout_s)


def has_tool(guest: Guest, name: str) -> bool:
    """Whether the guest has that program."""
    return guest.run("sh", "-c", f"command -v {name}").status == 0


def require_tools(guest: Guest, *names: str) -> None:
    """End the check as `unsupported` when the guest lacks one of the programs. Raises `NotSupported`."""
    missing = [name for name in names if not has_tool(guest, name)]
    if missing:
        raise NotSupported(f"the guest has no {' and no '.join(missing)}")


def disks(guest: Guest) -> Sequence[Disk]:
    """The guest's disks, without loop, optical and memory devices."""
    found = []
    for line in sh(guest, _DISKS).splitlines():
        name, sectors, read_only, seed, drivers, serial = line.split("|", 5)
        # The kernel counts sizes in 512 bytes whatever the device's blocks are (Documentation/ABI/stable/sysfs-block).
        size = int(sectors) * 512
        found.append(Disk(name, size, read_only == "1", seed == "1", _words(drivers), serial.strip()))
    return found


def root_disk(guest: Guest) -> Disk:
    """The disk that `/` lies on. Raises `LookupError` when no disk is."""
    found = disks(guest)
    return _root(guest, found)


def _root(guest: Guest, found: Sequence[Disk]) -> Disk:
    script = "while read -r id parent device root point rest; do [ $point != / ] || break; done </proc/self/mountinfo"
    path = sh(guest, f"{script}; readlink -f /sys/dev/block/$device")
    names = PurePosixPath(path).parts
    for disk in found:
        if disk.name in names:
            return disk
    raise LookupError(f"/ lies on {path}, which is no disk")


def data_disk(guest: Guest, machine: Machine) -> Disk:
    """The empty disk that checks may write to: neither the root nor the seed.

    Raises `AssertionError` when the machine has one and the guest does not see it, `NotSupported` when it has none.
    """
    if machine.spec.data_disk_mib == 0:
        raise NotSupported("this machine was made without a disk to write to")
    every = disks(guest)
    root = _root(guest, every).name
    others = [disk for disk in every if disk.name != root]
    found = [disk for disk in others if not disk.is_seed and not disk.read_only and not disk.serial.startswith("hot")]
    seen = ", ".join(f"{disk.name} ({disk.size_bytes} bytes)" for disk in others) or "none"
    if len(found) != 1:
        raise AssertionError(f"the guest should see one empty disk beside its root and its seed; it sees: {seen}")
    return found[0]


def nics(guest: Guest) -> Sequence[Nic]:
    """The guest's network cards, without loopback and other virtual interfaces."""
    found = []
    for line in sh(guest, _NICS).splitlines():
        name, mac, drivers, mtu, carrier, queues, state = line.split("|", 6)
        found.append(Nic(name, mac, _words(drivers), int(mtu), carrier == "1", int(queues), state))
    return found


def first_nic(guest: Guest) -> Nic:
    """The card that the default route uses. Raises `AssertionError` when there is none."""
    name, _ = default_route(guest)
    found = [nic for nic in nics(guest) if nic.name == name]
    if not found:
        raise AssertionError(f"the default route uses {name}, which is no network card")
    return found[0]


def default_route(guest: Guest) -> tuple[str, str]:
    """Interface and gateway of the default IPv4 route. Raises `AssertionError` when there is none."""
    for line in guest.check("cat", "/proc/net/route").splitlines()[1:]:
        interface, destination, gateway, *_ = line.split()
        if destination == "00000000":
            # Addresses stand there as hexadecimal numbers in the byte order of the processor, here little endian.
            octets = bytes.fromhex(gateway)[::-1]
            return interface, ".".join(str(octet) for octet in octets)
    raise AssertionError("the guest has no default route")


def kernel_log(guest: Guest) -> Sequence[KernelLine]:
    """The kernel's own log with its levels; what programs wrote into it through /dev/kmsg is not in it.

    A line begins with facility * 8 + level, and no program can write with the kernel's facility 0 (printk.c,
    devkmsg_write).
    """
    found = []
    # util-linux loses the facility with -r and can leave others out itself (-k); busybox keeps it and knows no -k.
    kernel_only = guest.run("dmesg", "-k", "-r")
    text = kernel_only.out if kernel_only.status == 0 else guest.check("dmesg", "-r")
    for line in text.splitlines():
        match = re.match(r"<(\d+)>(.*)", line)
        if match and int(match[1]) >> 3 == 0:
            found.append(KernelLine(int(match[1]) & 7, match[2]))
    return found


def cpus(guest: Guest) -> int:
    """How many processors the kernel runs on."""
    return len(re.findall(r"^processor\s*:", guest.check("cat", "/proc/cpuinfo"), re.MULTILINE))


def uptime_s(guest: Guest) -> float:
    """Seconds since the guest booted, by its own clock."""
    return float(guest.check("cat", "/proc/uptime").split()[0])


def set_clock(guest: Guest) -> None:
    """Give the guest the controller's time: a restored one stands at the moment when it was saved."""
    guest.check("date", "-s", f"@{round(time.time())}")


def counters(guest: Guest, nic: str) -> tuple[int, int]:
    """Bytes received and sent by a network card."""
    folder = f"/sys/class/net/{nic}/statistics"
    received, sent = guest.check("cat", f"{folder}/rx_bytes", f"{folder}/tx_bytes").split()
    return int(received), int(sent)


def settle(guest: Guest, *, timeout_s: float = 120.0) -> None:
    """Wait until the guest has started what it starts: late drivers and services come after the first login.

    Raises `WaitedTooLong`.
    """
    script = """
    if [ -d /run/systemd/system ]; then
      case $(systemctl is-system-running) in initializing|starting) exit 1;; esac
    elif [ -x /usr/lib/interop-lab/late ]; then
      [ -e /run/lab-late ] || exit 1
    fi
    exit 0
    """
    waiting.until(
        lambda: guest.run("sh", "-c", script).status == 0,
        what="the guest to have started everything",
        timeout_s=timeout_s,
    )


def write_and_read_back(guest: Guest, disk: Disk, *, mib: int, at_mib: int = 0) -> str:
    """Write random data to a disk, past the page cache and back: nothing, or how what came back differs."""
    script = f"""
    set -e
    data=$(mktemp /tmp/lab-data.XXXXXX)
    trap 'rm -f "$data"' EXIT
    dd if=/dev/urandom of="$data" bs=1048576 count={mib} 2>/dev/null
    [ "$(wc -c <"$data")" = {mib << 20} ]
    said=$(dd if="$data" of={disk.path} bs=1048576 seek={at_mib} conv=fsync 2>&1) || {{ echo "$said" >&2; exit 1; }}
    echo 3 >/proc/sys/vm/drop_caches
    dd if={disk.path} bs=1048576 skip={at_mib} count={mib} 2>/dev/null | cmp - "$data" 2>&1 || true
    """
    return sh(guest, script, timeout_s=120.0)


def digest(guest: Guest, disk: Disk, *, mib: int) -> str:
    """The MD5 sum of the beginning of a disk, read past the page cache; cheap enough for an emulated guest."""
    read = f"echo 3 >/proc/sys/vm/drop_caches; dd if={disk.path} bs=1048576 count={mib} 2>/dev/null | md5sum"
    return sh(guest, read, timeout_s=120.0).split()[0]


def _words(joined: str) -> tuple[str, ...]:
    return tuple(word for word in joined.split(",") if word)
