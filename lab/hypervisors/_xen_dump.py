"""The memory of a Xen machine as a file here: `xl dump-core` into a pipe of the dom0, and through the connection.

Nothing of it is kept in the dom0, which may have no room for it. The format is Xen's own kind of ELF core file
(docs/misc/dump-core-format.txt), with sections for pages and their places; crash(8) and gdb of xen-tools read it.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import BinaryIO

from lab import log
from lab.contracts import MachineState
from lab.errors import HostError, HypervisorRefused
from lab.hypervisors import _dump_file as dumps
from lab.hypervisors import _xen_power as power
from lab.hypervisors._xen_link import shown
from lab.hypervisors._xen_power import Machine
from lab.ssh._pump import PeerGone, Pump

_DUMP_S = 900.0  # an emulated dom0 packs a megabyte or two a second
_AROUND = 64 << 20  # besides the pages: headers, places, what a device model has
_AT_ONCE = 1 << 20
_COMPLAINTS = 1 << 12
_GZIP = 31  # zlib.decompressobj: with the head of gzip

# The guest stands still meanwhile, or the dump would be of no one moment. xl opens the pipe for reading too
# (tools/libs/ctrl/xc_core.c, O_RDWR), so it does not notice when its reader, gzip, is gone with the connection: it is
# ended then. And gzip waits for somebody to open the pipe, which an xl that refuses never does.
_DUMP = """# dump memory
folder=$1 domain=$2 stands=$3 limit=$4
pipe=$folder/.dump-$$
umask 077
mkfifo "$pipe" || exit 1
goes_on() {
  stays=
  [ -n "$stands" ] || xl unpause "$domain" </dev/null >/dev/null 2>&1 || stays=yes
  rm -f "$pipe"
  [ -z "$stays" ] || { echo "xl unpause failed" >&2; exit 1; }
}
trap goes_on EXIT
trap 'exit 1' HUP INT TERM
trap : PIPE  # whatever becomes of the connection, the guest goes on
[ -n "$stands" ] || xl pause "$domain" </dev/null >&2 || exit 1
(
  trap 'kill "$dumping" 2>/dev/null' TERM
  timeout -k 5 "$limit" xl dump-core "$domain" "$pipe" </dev/null >&2 &
  dumping=$!
  wait "$dumping"
  done=$?
  : <>"$pipe"
  exit "$done"
) &
dumper=$!
gzip -1 <"$pipe" || kill "$dumper"
wait "$dumper"
"""
_log = log.get(__name__)


def dump(machine: Machine, file: Path) -> None:
    """Raises `HypervisorRefused`, `LabDiskFull`, `HostError`; then no file is left."""
    found = power.look(machine)
    domain = found.domain
    if domain is None or found.state not in (MachineState.RUNNING, MachineState.PAUSED, MachineState.CRASHED):
        power.domain_of(machine, found)  # raises what there is to say
        raise HypervisorRefused(f"{machine.name} is {found.state}")
    stands = "" if found.state is MachineState.RUNNING else "yes"
    profile = machine.mark.spec.profile
    most = (max(profile.memory_mib, profile.max_memory_mib) << 20) + _AROUND
    words = ("/bin/sh", "-c", _DUMP, "sh", machine.folder.path, str(domain.domid), stands, f"{_DUMP_S:.0f}")
    with dumps.begun(file) as opened:
        pump = machine.link.program(words, timeout_s=_DUMP_S)
        try:
            packed = _take(machine, pump, opened, most)
        except TimeoutError:
            raise HypervisorRefused(
                f"{machine.link.host}: the memory of {machine.name} did not come within {_DUMP_S:.0f} s"
            ) from None
        except PeerGone as reason:
            raise HostError(f"{machine.link.host}: the dom0 was lost while memory came: {reason}") from reason
        finally:
            pump.close()
        dumps.require_core(opened, f"what xl dumped of {machine.name}")
    _log.info("machine.dumped", machine=machine.name, file=file, packed_bytes=packed)


def _take(machine: Machine, pump: Pump, opened: BinaryIO, most: int) -> int:
    """Unpack what comes, no more than `most` bytes of it; how many bytes came packed."""
    deadline = time.monotonic() + _DUMP_S
    unpacker, packed, complaints = zlib.decompressobj(_GZIP), 0, b""
    try:
        while True:
            out, err = pump.read(deadline)
            complaints = (complaints + err)[-_COMPLAINTS:]
            packed += len(out)
            while out:
                dumps.append(opened, unpacker.decompress(out, _AT_ONCE))
                out = unpacker.unconsumed_tail
                if opened.tell() > most:
                    raise HypervisorRefused(f"xl dumps more than {most >> 20} MiB of {machine.name}")
    except EOFError:
        # The program has said all; of what was taken in some may not have come out.
        while rest := unpacker.decompress(b"", _AT_ONCE):
            dumps.append(opened, rest)
    except zlib.error as reason:
        raise HypervisorRefused(f"{machine.link.host}: the dump of {machine.name} is broken: {reason}") from reason
    while pump.status() is None:
        pump.wait(deadline, at_most_s=0.05)
    if pump.status() != 0 or not unpacker.eof:
        raise power.refused(machine, "dump-core", shown(complaints.decode(errors="replace")))
    dumps.end(opened)
    return packed
