"""Power of one Xen machine: how it is, start it, shut it down, end it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab import log, waiting
from lab.contracts import Firmware, MachineSpec, MachineState, Realness
from lab.errors import HostError, HypervisorRefused, LabBusy, LabError, MachineVanished
from lab.hypervisors import _xen_disks as disks
from lab.hypervisors import _xen_domains as domains
from lab.hypervisors import _xen_images as images
from lab.hypervisors import _xen_plugged as plugged
from lab.hypervisors import _xen_store as store
from lab.hypervisors._xen_config import Disk, Domain, FullHardware, Kind, Nic, text
from lab.hypervisors._xen_domains import Running
from lab.hypervisors._xen_link import Link, said
from lab.hypervisors._xen_store import Folder, Mark
from lab.hypervisors._xen_toolstack import Can, Toolstack

START_S = 180.0
_END_S = 60.0
_UP = (MachineState.RUNNING, MachineState.PAUSED)
_log = log.get(__name__)

# What stands between the NULs: mark, wish, saved memory, what is plugged, domains, and of a machine without a domain
# the end of what xl logged of the last start and its age. Every process costs a tenth of a second where a dom0 is
# emulated, so the shell does what it can by itself.
_LOOK = """# look at a machine
folder=$1 log=$2 there= wanted= saved= plugged=
[ ! -f "$4" ] || log=$4  # since it migrated
{ read -r line || [ -n "$line" ]; } 2>/dev/null <"$folder/machine.json" && case $line in *"$3"*) there=there ;; esac
[ ! -f "$folder/wanted" ] || read -r wanted <"$folder/wanted"
[ ! -f "$folder/saved" ] || saved=saved
[ ! -d "$folder/plugged" ] || plugged=$(cd "$folder/plugged" && grep -sH "" -- * | head -c 20000)
listed=$(xl list -v) || exit 3
printf '%s\\0%s\\0%s\\0%s\\0%s\\n\\0' "$there" "$wanted" "$saved" "$plugged" "$listed"
# A domain that dies is on its way out, perhaps to come again.
case $listed in *[-s][-rscwS?]d" "*) ;; *"$3"*) exit 0 ;; esac
[ ! -f "$log" ] || { tail -n 3 "$log" | head -c 2000; printf '\\0'; echo $(($(date +%s) - $(stat -c %Y "$log"))); }
"""
# The mark for people is not worth waiting for.
_NOTED = """
echo running >"$1/wanted"
{ xenstore-write "/vm/$2/interop-lab" "$3" || :; } </dev/null >/dev/null 2>&1 &
"""
# What a domain that migrated wrote goes behind what it wrote before.
_ONE_LOG = '[ ! -f "$6" ] || { cat "$6" >>"$5"; rm -f "$6" "$7" "$7".*; }'
_CREATE = f"""# start a domain
set -eu
{disks.FUNCTIONS}
{_ONE_LOG}
printf '%s' "$8" >"$1/xl.cfg"
attach "$1" "$4"
xl create -q "$1/xl.cfg" </dev/null
{_NOTED}
"""
_WAKE = f"""# restore a domain
set -eu
{disks.FUNCTIONS}
{_ONE_LOG}
attach "$1" "$4"
came=
[ ! -f "$1/came.cfg" ] || came=$1/came.cfg
xl restore ${{came:+"$came"}} "$1/saved" </dev/null
rm -f "$1/saved" "$1/came.cfg"
{_NOTED}
"""
_SLEEP = """# save a domain
set -eu
umask 077
rm -f "$1/saved.part"
xl save "$2" "$1/saved.part" >&2
rm -f "$1/came.cfg"
mv -f "$1/saved.part" "$1/saved"
echo stopped >"$1/wanted"
"""
# xl.cfg(5), Direct Kernel Boot: with qemu-xen and SeaBIOS.
_KERNEL_NEEDS_BIOS = (
    "Xen starts the kernel of an image in an HVM domain by its BIOS alone; by UEFI only what is on a disk"
)
_HYPERVISOR_LOG = "# read the log of Xen\nxl dmesg 2>/dev/null | tail -n 5 | head -c 2000"
_REBOOTING = re.compile(r"reason code 1\b|Rebooting now")
_REBOOT_S = 90  # xl itself waits for two seconds between the old domain and the new one
_MEMORY = re.compile(r"(?i)not enough (free )?memory|failed to free memory|cannot allocate memory|ENOMEM|out of memory")
_LOCKED = re.compile(r"(?i)cannot be mounted now|device or resource busy|already in use|lock held|sharing violation")
_XENSTORE = re.compile(
    r"(?i)xenstore.*(no such file|refused|not running|cannot|could not)|cannot (open|connect to) xenstore"
)


@dataclass(frozen=True)
class Machine:
    """All that tells one machine of a host."""

    link: Link
    toolstack: Toolstack
    mark: Mark
    folder: Folder

    @property
    def name(self) -> str:
        return self.mark.spec.name

    @property
    def kind(self) -> Kind:
        return kind_of(self.mark.spec.profile.chipset)


@dataclass(frozen=True)
class Look:
    """What one look at a host told about a machine."""

    state: MachineState
    exists: bool  # false when it was destroyed, also when another one has its name now
    domain: Running | None  # also one that ended and was kept to be looked at
    has_saved_state: bool
    devices: plugged.Devices


def kind_of(chipset: str) -> Kind:
    return {"xenpvh": Kind.PVH, "xenhvm": Kind.HVM}.get(chipset, Kind.PV)


def look(machine: Machine) -> Look:
    """One round trip. Raises `HostError`, `HypervisorRefused` when xl hangs."""
    folder = machine.folder
    result = machine.link.sh(_LOOK, folder.path, folder.xl_log(), machine.mark.uuid, folder.xl_log_since())
    parts = result.stdout.decode(errors="replace").split("\0")
    if result.status != 0 or len(parts) < 6:
        raise HostError(
            f"{machine.link.host}: xl list does not work: {said(result)}",
            hint="in the dom0: does xenstored run, and does xl belong to the Xen that is booted?",
        )
    there, wanted, saved, plugs, listed, logged = (*(part.strip() for part in parts[:4]), parts[4], parts[5])
    domain = domains.by_uuid(listed, machine.mark.uuid, machine.link.host)
    age = parts[6].strip() if len(parts) > 6 else ""
    rebooting = bool(_REBOOTING.search(logged)) and age.isdigit() and int(age) < _REBOOT_S
    if not there:
        state = MachineState.GONE
    elif domain is not None:
        state = domain.state
    elif wanted == "running":
        state = MachineState.RUNNING if rebooting else MachineState.GONE
    else:
        state = MachineState.STOPPED
    return Look(state, bool(there), domain, bool(saved), plugged.parsed(plugs))


def require_up(machine: Machine) -> Running:
    """The domain. Raises `MachineVanished`, or `HypervisorRefused` when the machine does not run."""
    return domain_of(machine, look(machine))


def domain_of(machine: Machine, found: Look) -> Running:
    """The domain that was seen. Raises as `require_up`."""
    if found.state in _UP and found.domain is not None:
        return found.domain
    if found.state in _UP:
        raise HypervisorRefused(f"{machine.name} is rebooting: it has no domain right now", hint="try again")
    raise not_up(machine, found)


def not_up(machine: Machine, found: Look) -> LabError:
    """The error for a machine that does not run."""
    if found.state is not MachineState.GONE:
        return HypervisorRefused(f"{machine.name} is {found.state}")
    if not found.exists:
        return HypervisorRefused(f"machine {machine.name!r} is gone: it was destroyed")
    result = machine.link.sh(_HYPERVISOR_LOG)
    log = f"; the last that Xen logged: {said(result)}" if result.out.strip() else ""
    return MachineVanished(
        f"{machine.name} ended unasked: Xen has no domain {machine.mark.uuid} any more{log}",
        hint=f"look at {machine.folder.xl_log()} in the dom0 of {machine.link.host}, and at xl dmesg",
    )


def start(machine: Machine) -> None:
    """Create the domain, or restore its saved memory. Of a running machine, nothing.

    Raises `HypervisorRefused`, `LabBusy` where memory or a disk is taken, `HostError`.
    """
    found = look(machine)
    if found.state is MachineState.RUNNING:
        return
    if found.state is MachineState.PAUSED:
        raise HypervisorRefused(f"{machine.name} is paused", hint="resume it")
    if not found.exists:
        raise not_up(machine, found)
    _end_domain(machine, found.domain)
    mark = machine.mark
    owner = f"{mark.spec.owner.run} {mark.spec.owner.cell}"
    folder = machine.folder
    logs = (folder.console(), folder.console_since(), folder.xl_log_since())
    words = (folder.path, mark.uuid, owner, disks.device_of(mark.uuid), *logs)
    plugged.make_bridges(machine.link, found.devices)
    if found.has_saved_state:
        result = machine.link.sh(_WAKE, *words, timeout_s=START_S)
    else:
        result = machine.link.sh(_CREATE, *words, configuration(machine, found.devices), timeout_s=START_S)
    if result.status != 0:
        raise refused(machine, "start", said(result))
    _log.info("machine.started", machine=machine.name, host=machine.link.host)


def configuration(machine: Machine, devices: plugged.Devices = plugged.NONE) -> str:
    """The machine's xl.cfg. Raises `HypervisorRefused` when a value cannot be written into it."""
    mark, folder, spec = machine.mark, machine.folder, machine.mark.spec
    dom0, profile, image = machine.link.dom0, spec.profile, spec.image
    kernel, ramdisk = images.boot_files(folder.root, image, machine.kind)
    full = _full_hardware(machine)
    attached = [Disk(disks.root_of(folder, mark.uuid, overlay=mark.overlay), "xvda")]
    if spec.seed is not None:
        # xen-vbd-interface(7): the first four disks are emulated too, and the device model takes no read-only one.
        attached.append(Disk(folder.file("seed.raw"), "xvdb" if full is None else plugged.LAST, writable=False))
    if spec.data_disk_mib:
        attached.append(Disk(folder.file("data.raw"), "xvdc"))
    # Where the processor is emulated, each line that scrolls over an emulated display takes a second.
    display = ["console=tty0"] if full is not None and dom0.realness is Realness.REAL else []
    words = ["root=/dev/xvda", "rw", *display, "console=hvc0"]
    if mark.address:
        words.append(f"lab.ip={mark.address}/{dom0.guest_prefix},{dom0.gateway}")
    return text(
        Domain(
            name=mark.domain,
            uuid=mark.uuid,
            kind=machine.kind,
            vcpus=profile.vcpus,
            max_vcpus=profile.max_vcpus,
            memory_mib=profile.memory_mib + sum(size for _, size in devices.memory),
            max_memory_mib=profile.max_memory_mib,
            disks=(*attached, *devices.disks(folder)),
            nics=(Nic(mark.mac, dom0.bridge), *devices.nics()),
            kernel=kernel,
            ramdisk=ramdisk,
            arguments=" ".join([*words, *image.kernel_arguments.split()]),
            native_tsc=machine.kind is not Kind.PV and dom0.realness is not Realness.REAL,
            full=full,
        ),
        knows_type=machine.toolstack.can(Can.TYPE_KEY),
    )


def _full_hardware(machine: Machine) -> FullHardware | None:
    if machine.kind is not Kind.HVM:
        return None
    uefi = machine.mark.spec.profile.firmware is Firmware.UEFI
    return FullHardware(machine.folder.serial(), machine.toolstack.ovmf if uefi else "")


def lacks(toolstack: Toolstack, spec: MachineSpec) -> str | None:
    """Why a host does not make that machine, or `None`."""
    kind = kind_of(spec.profile.chipset)
    if kind is not Kind.HVM:
        return toolstack.runs_pvh() if kind is Kind.PVH else None
    uefi = spec.profile.firmware is Firmware.UEFI
    reason = toolstack.runs_uefi() if uefi else toolstack.runs_hvm()
    if reason is None and spec.image.kernel is not None:
        reason = _KERNEL_NEEDS_BIOS if uefi else toolstack.lacks(Can.HVM_KERNEL)
    return reason


def stop(machine: Machine, *, force: bool, timeout_s: float) -> None:
    """Ask the guest through xenbus to shut down and wait, or cut the power.

    Raises `WaitedTooLong` when the guest ignores it, `MachineVanished`.
    """
    found = look(machine)
    if not force and found.exists and found.state is MachineState.GONE:
        raise not_up(machine, found)
    if not force and found.state in _UP and found.domain is not None:
        found = _shut_down(machine, found.domain, timeout_s)
    _cut(machine, found)


def _shut_down(machine: Machine, domain: Running, timeout_s: float) -> Look:
    if domain.state is MachineState.PAUSED:
        command(machine, "unpause", str(domain.domid))
    command(machine, "shutdown", "-F", str(domain.domid))

    def ended() -> Look | None:
        found = look(machine)
        return None if found.state in _UP else found

    what = f"{machine.name} to shut down after xl shutdown"
    return waiting.until(ended, what=what, timeout_s=timeout_s, longest_pause_s=1.0)


def cut(machine: Machine) -> Look:
    """End the domain at once; the machine is stopped then. How it was. Safe to call twice."""
    found = look(machine)
    _cut(machine, found)
    return found


def _cut(machine: Machine, found: Look) -> None:
    _end_domain(machine, found.domain)
    if found.exists:
        machine.link.sh('# note a wish\necho stopped >"$1/wanted"', machine.folder.path)


def end(machine: Machine) -> Look:
    """End the domain of a machine that goes. How it was."""
    found = look(machine)
    _end_domain(machine, found.domain)
    return found


def _end_domain(machine: Machine, domain: Running | None) -> None:
    if domain is None:
        return
    # By its number, which Xen does not give away again soon, and which this look found with our identity.
    result = machine.link.run(("xl", "destroy", str(domain.domid)), timeout_s=_END_S)
    if result.status != 0 and look(machine).domain is not None:
        raise HypervisorRefused(f"xl does not destroy {machine.mark.domain}: {said(result)}")


def sleep(machine: Machine) -> None:
    """Keep memory on the dom0's disk and end the domain. Raises `HypervisorRefused`, `HostError`."""
    domain = require_up(machine)
    result = machine.link.sh(_SLEEP, machine.folder.path, str(domain.domid), timeout_s=600.0)
    if result.status != 0:
        raise refused(machine, "save", said(result))


def command(machine: Machine, *words: str, timeout_s: float = 60.0) -> None:
    """One call of xl. Raises `HypervisorRefused` with its words, `HostError`."""
    result = machine.link.run(("xl", *words), timeout_s=timeout_s)
    if result.status != 0:
        raise refused(machine, words[0], said(result))


def refused(machine: Machine, doing: str, words: str) -> LabError:
    """Whose fault it is when xl does not do something, told by its words."""
    host, name = machine.link.host, machine.name
    if store.DISK_FULL in words:
        return store.trouble(machine.link, f"{doing} of {name}", words)
    if _MEMORY.search(words):
        return LabBusy(
            f"{host}: no memory is left for {name}: {words}", hint="stop other guests, or give the dom0 less (dom0_mem)"
        )
    if _LOCKED.search(words):
        return LabBusy(
            f"{host}: a disk of {name} is locked: {words}",
            hint="somebody else uses it: xl list, losetup -a in the dom0",
        )
    if _XENSTORE.search(words):
        return HostError(
            f"{host}: xenstored does not answer: {words}", hint="a dom0 whose xenstored died must be booted again"
        )
    if re.search(r"(?i)domain .*already exists", words):
        return HypervisorRefused(
            f"{host} has a domain {machine.mark.domain!r} that is not the lab's {name}; it was not touched: {words}",
            hint="rename or remove that domain",
        )
    return HypervisorRefused(f"{host}: xl {doing} of {name} failed: {words or 'it said nothing'}")
