"""The script that asks a Linux guest for its facts, and the reading of its answer.

The script starts few programs, because each costs an emulated guest 5 to 20 ms: one grep reads all of sysfs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from lab.errors import GuestCommandFailed
from lab.guests.facts import (
    BlockDevice,
    ClockFacts,
    CpuFacts,
    Facts,
    KernelFacts,
    Mount,
    Nic,
    OsFacts,
    VirtualizationFacts,
)

# $1 is a random word that no file of the guest contains.
SCRIPT = r"""
s() { echo; echo "$1 $2"; }
s "$1" files
grep -Hs '' /proc/sys/kernel/ostype /proc/sys/kernel/osrelease /proc/sys/kernel/version /proc/sys/kernel/hostname \
  /proc/sys/kernel/tainted /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/entropy_avail /proc/cmdline \
  /proc/uptime /proc/1/comm /etc/machine-id /etc/os-release /sys/devices/system/cpu/online /sys/hypervisor/type \
  /sys/devices/system/clocksource/clocksource0/*_clocksource /sys/class/rtc/rtc0/since_epoch \
  /sys/class/dmi/id/*_vendor /sys/class/dmi/id/*_name /sys/class/dmi/id/*_version \
  /sys/block/*/size /sys/block/*/ro /sys/block/*/serial /sys/block/*/queue/rotational /sys/block/*/device/model \
  /sys/block/*/device/serial /sys/class/net/*/address /sys/class/net/*/mtu /sys/class/net/*/operstate \
  /sys/class/net/*/speed 2>/dev/null | head -c 200000
s "$1" links
ls -ld /sys/block/* /sys/class/net/* /sys/block/*/device/driver /sys/block/*/device/device/driver \
  /sys/class/net/*/device/driver /sys/bus/pci/devices/*/driver /sys/bus/virtio/devices/*/driver \
  2>/dev/null | head -c 200000
s "$1" cpu
head -n 40 /proc/cpuinfo
s "$1" cpus
grep -c '^processor' /proc/cpuinfo
s "$1" memory
head -n 60 /proc/meminfo
s "$1" modules
head -c 200000 /proc/modules 2>/dev/null
s "$1" mounts
head -c 100000 /proc/mounts
s "$1" addresses
ip -o addr 2>/dev/null | head -c 50000
s "$1" routes
ip route 2>/dev/null | head -n 50
s "$1" log
dmesg 2>/dev/null | grep -iE 'hypervisor|paravirt|kvm-clock|hyper-v|vmware|xen version|clocksource: Switched' |
  head -n 30
s "$1" machine
uname -m
s "$1" time
date -u +%s
s "$1" efi
[ ! -d /sys/firmware/efi ] || echo efi
s "$1" failed
[ ! -d /run/systemd/system ] || systemctl list-units --failed --plain --no-legend 2>/dev/null | head -n 100
[ ! -x /bin/rc-status ] || rc-status --crashed 2>/dev/null | head -n 100
s "$1" end
"""

_LONGEST = 400  # characters of one value that a report can use
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# Block devices that are no hardware: RAM disks, loops, compressed memory, device mapper, MD.
_NOT_A_DISK = re.compile(r"(?:ram|loop|zram|dm-|md|nbd|fd|sr)\d")
_HYPERVISOR = re.compile(r"Hypervisor detected: ([ -~]{1,60})")


def read(answer: str, separator: str) -> Facts:
    """The facts in the script's answer. Raises `GuestCommandFailed` when it is not whole."""
    sections = _sections(answer, separator)
    if "end" not in sections:
        raise GuestCommandFailed("the guest did not tell its facts to the end", hint="look at its console log")
    files = _files(sections.get("files", ()))
    links = _links(sections.get("links", ()))
    release = _os_release(files.get("/etc/os-release", ()))
    memory = _keyed(sections.get("memory", ()))
    dmi = tuple(sorted((path.name, first) for path, first in _below(files, "/sys/class/dmi/id")))
    return Facts(
        boot_id=_first(files, "/proc/sys/kernel/random/boot_id"),
        machine_id=_first(files, "/etc/machine-id"),
        hostname=_first(files, "/proc/sys/kernel/hostname"),
        firmware="efi" if "efi" in sections.get("efi", ()) else "bios" if dmi else "none",
        os=OsFacts(
            id=release.get("ID", ""),
            name=release.get("PRETTY_NAME") or release.get("NAME", ""),
            version=release.get("VERSION_ID", ""),
            init=_first(files, "/proc/1/comm"),
        ),
        kernel=_kernel(files, sections),
        clock=_clock(files, sections),
        cpu=_cpu(sections),
        memory_kib=_number(memory.get("MemTotal", "").removesuffix("kB")),
        swap_kib=_number(memory.get("SwapTotal", "").removesuffix("kB")),
        entropy_bits=_number(_first(files, "/proc/sys/kernel/random/entropy_avail")),
        disks=tuple(_disks(files, links)),
        nics=tuple(_nics(files, links, sections.get("addresses", ()))),
        routes=tuple(_cut(line) for line in sections.get("routes", ()) if line.strip()),
        mounts=tuple(_mounts(sections.get("mounts", ()))),
        virtualization=_virtualization(files, sections, dmi),
        failed_units=tuple(_cut(line.split()[0]) for line in sections.get("failed", ()) if line.strip()),
    )


def _sections(answer: str, separator: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in answer.split("\n"):
        if line.startswith(f"{separator} "):
            lines = found.setdefault(line[len(separator) + 1 :], [])
        else:
            lines.append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def _files(lines: Iterable[str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for line in lines:
        # PCI addresses do not occur in these paths, so the first colon ends the path.
        path, colon, content = line.partition(":")
        if colon and path.startswith("/"):
            files.setdefault(path, []).append(_cut(content))
    return files


def _links(lines: Iterable[str]) -> dict[str, str]:
    """Path to target, of `ls -l` lines."""
    links = {}
    for line in lines:
        before, arrow, target = line.partition(" -> ")
        if arrow and " /" in before:
            links["/" + before.rpartition(" /")[2]] = _cut(target)
    return links


def _os_release(lines: Iterable[str]) -> dict[str, str]:
    release = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals:
            try:
                release[key.strip()] = _cut(" ".join(shlex.split(value)))
            except ValueError:  # an unfinished quotation
                release[key.strip()] = value
    return release


def _keyed(lines: Iterable[str]) -> dict[str, str]:
    """The first value of each `key : value` line."""
    keyed: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            keyed.setdefault(key.strip(), value.strip())
    return keyed


def _kernel(files: Mapping[str, list[str]], sections: Mapping[str, tuple[str, ...]]) -> KernelFacts:
    return KernelFacts(
        release=_first(files, "/proc/sys/kernel/osrelease"),
        version=_first(files, "/proc/sys/kernel/version"),
        arch=_cut(next(iter(sections.get("machine", ())), "")),
        arguments=_first(files, "/proc/cmdline"),
        taint=_number(_first(files, "/proc/sys/kernel/tainted")),
        modules=tuple(sorted(_cut(line.split()[0]) for line in sections.get("modules", ()) if line.strip())),
    )


def _clock(files: Mapping[str, list[str]], sections: Mapping[str, tuple[str, ...]]) -> ClockFacts:
    folder = "/sys/devices/system/clocksource/clocksource0"
    return ClockFacts(
        source=_first(files, f"{folder}/current_clocksource").strip(),
        sources=tuple(_first(files, f"{folder}/available_clocksource").split()),
        seconds=_number(next(iter(sections.get("time", ())), "")),
        uptime_s=_decimal(next(iter(_first(files, "/proc/uptime").split()), "")),
        rtc_seconds=_number(_first(files, "/sys/class/rtc/rtc0/since_epoch")),
    )


def _cpu(sections: Mapping[str, tuple[str, ...]]) -> CpuFacts:
    keyed = _keyed(sections.get("cpu", ()))
    return CpuFacts(
        count=_number(next(iter(sections.get("cpus", ())), "")),
        model=_cut(keyed.get("model name") or keyed.get("cpu model") or keyed.get("cpu") or keyed.get("Processor", "")),
        vendor=_cut(keyed.get("vendor_id") or keyed.get("CPU implementer", "")),
        flags=tuple(sorted({_cut(flag) for flag in (keyed.get("flags") or keyed.get("Features", "")).split()})),
    )


def _disks(files: Mapping[str, list[str]], links: Mapping[str, str]) -> Iterable[BlockDevice]:
    for path, target in sorted(links.items()):
        name = path.removeprefix("/sys/block/")
        if "/" in name or _NOT_A_DISK.match(name) or ("/virtual/" in target and "nvme" not in target):
            continue
        sectors = _number(_first(files, f"{path}/size"))
        rotational = _number(_first(files, f"{path}/queue/rotational"))
        yield BlockDevice(
            name=_cut(name),
            size_bytes=None if sectors is None else sectors * 512,  # sysfs counts in 512 bytes whatever the disk does
            driver=_driver(path, target, links),
            model=_first(files, f"{path}/device/model").strip(),
            serial=(_first(files, f"{path}/serial") or _first(files, f"{path}/device/serial")).strip(),
            read_only=_first(files, f"{path}/ro") == "1",
            rotational=None if rotational is None else rotational == 1,
        )


def _nics(files: Mapping[str, list[str]], links: Mapping[str, str], lines: Iterable[str]) -> Iterable[Nic]:
    addresses: dict[str, list[str]] = {}
    for line in lines:
        words = line.split()
        if len(words) > 3 and words[2] in ("inet", "inet6"):
            addresses.setdefault(words[1], []).append(_cut(words[3]))
    for path, target in sorted(links.items()):
        name = path.removeprefix("/sys/class/net/")
        if "/" in name or "/virtual/" in target:
            continue
        state = _first(files, f"{path}/operstate")
        yield Nic(
            name=_cut(name),
            driver=_driver(path, target, links),
            mac=_first(files, f"{path}/address"),
            mtu=_number(_first(files, f"{path}/mtu")),
            up={"up": True, "down": False}.get(state),
            speed_mbit=_speed(_first(files, f"{path}/speed")),
            addresses=tuple(addresses.get(name, ())),
        )


def _driver(path: str, target: str, links: Mapping[str, str]) -> str:
    """The driver that matters: of virtio the function driver, of everything else the one of the PCI device."""
    near = next((links[at] for at in (f"{path}/device/driver", f"{path}/device/device/driver") if at in links), "")
    name = PurePosixPath(near).name
    if name not in ("", "sd", "sr"):
        return name
    # A SCSI or ATA disk is driven by `sd` everywhere; what differs between machines is the adapter.
    virtio = re.findall(r"/(virtio\d+)/", target)
    pci = _PCI.findall(target)
    adapters = [f"/sys/bus/virtio/devices/{device}/driver" for device in virtio]
    adapters += [f"/sys/bus/pci/devices/{address}/driver" for address in reversed(pci)]
    return next((PurePosixPath(links[at]).name for at in adapters if at in links), name)


def _mounts(lines: Iterable[str]) -> Iterable[Mount]:
    for line in lines:
        words = [_cut(word) for word in line.split()]
        if len(words) >= 4:
            yield Mount(path=words[1], device=words[0], type=words[2], options=words[3])


def _virtualization(
    files: Mapping[str, list[str]], sections: Mapping[str, tuple[str, ...]], dmi: tuple[tuple[str, str], ...]
) -> VirtualizationFacts:
    hints = tuple(_cut(line) for line in sections.get("log", ()) if line.strip())
    named = next((found[1].strip() for line in hints if (found := _HYPERVISOR.search(line))), "")
    user_mode = "User Mode Linux" if "User Mode Linux" in "\n".join(sections.get("cpu", ())) else ""
    return VirtualizationFacts(
        hypervisor=named or _first(files, "/sys/hypervisor/type") or user_mode, dmi=dmi, hints=hints
    )


def _below(files: Mapping[str, list[str]], folder: str) -> Iterable[tuple[PurePosixPath, str]]:
    for path, lines in files.items():
        if path.startswith(f"{folder}/"):
            yield PurePosixPath(path), lines[0].strip()


def _first(files: Mapping[str, list[str]], path: str) -> str:
    return next(iter(files.get(path, ())), "")


def _cut(text: str) -> str:
    """Short and printable: what a guest says goes into pages and terminals."""
    text = text[:_LONGEST]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in text)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if len(text) < 20 and re.fullmatch(r"-?[0-9]+", text) else None


def _speed(text: str) -> int | None:
    speed = _number(text)
    return None if speed is None or speed < 0 else speed  # -1: the card does not know


def _decimal(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", text) else None
