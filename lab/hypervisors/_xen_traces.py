"""What a Xen machine leaves in its dom0: its console, xl's log of it, its folder; and their end."""

from __future__ import annotations

from lab.hypervisors import _xen_disks as disks
from lab.hypervisors import _xen_plugged as plugged
from lab.hypervisors import _xen_store as store
from lab.hypervisors._xen_link import said
from lab.hypervisors._xen_power import Look, Machine

_KEPT = 1 << 20  # bytes of each end of an endless console

_CONSOLE = """# read a console
kept=$1
shift
for log; do
  shift
  [ ! -f "$log" ] || set -- "$@" "$log"
done
[ $# != 0 ] || exit 0
size=$(cat "$@" | wc -c)
if [ "$size" -le $((2 * kept)) ]; then
  cat "$@"
else
  cat "$@" | head -c "$kept"
  printf '\\n[%d bytes of the console are not kept]\\n' $((size - 2 * kept))
  cat "$@" | tail -c "$kept"
fi
"""
_RESETS = """# count resets
cat "$1" "$2" "$2".[0-9] 2>/dev/null | grep -c "Rebooting now"
:
"""
_REMOVE = f"""# remove a machine
{disks.FUNCTIONS}
{{ read -r line || [ -n "$line" ]; }} 2>/dev/null <"$1/machine.json" || exit 0
case $line in *"$2"*) ;; *) exit 0 ;; esac
detach "$1" "$3" || {{ echo "the overlay $3 is in use" >&2; exit 1; }}
folder=$1
shift 3
for log; do rm -f "$log" "$log".*; done
for file in "$folder"/* "$folder"/.[!.]*; do
  # The mark goes last, so that a removal that is interrupted can be found and finished.
  case $file in */machine.json) ;; *) rm -rf "$file" ;; esac
done
rm -rf "$folder"
"""


def console(machine: Machine) -> bytes:
    """What xenconsoled logged of all boots, behind what came out of the serial port."""
    folder = machine.folder
    logs = (folder.serial(), folder.console(), folder.console_since())
    return machine.link.sh(_CONSOLE, str(_KEPT), *logs).stdout


def resets(machine: Machine) -> int:
    """How often xl started the domain anew since the machine was started."""
    folder = machine.folder
    counted = machine.link.sh(_RESETS, folder.xl_log(), folder.xl_log_since()).out.strip()
    return int(counted) if counted.isdigit() and len(counted) < 7 else 0


def remove(machine: Machine, found: Look) -> None:
    """Of a machine without a domain. Raises `HostError`."""
    folder, uuid = machine.folder, machine.mark.uuid
    if found.exists:
        consoles = (folder.serial(), folder.console(), folder.console_since())
        logs = (*consoles, folder.device_model_log(), folder.xl_log(), folder.xl_log_since())
        result = machine.link.sh(_REMOVE, folder.path, uuid, disks.device_of(uuid), *logs)
        if result.status != 0:
            raise store.trouble(machine.link, f"removing {folder.path}", said(result))
    plugged.leave_bridges(machine.link, found.devices.bridges())
    if machine.mark.address:
        machine.link.forget(machine.mark.address)
