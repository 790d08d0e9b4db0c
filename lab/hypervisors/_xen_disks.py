"""The root disk of a Xen machine: an overlay over the image where the dom0's kernel makes them, else a copy of it.

An overlay is device-mapper's `snapshot` target, which LVM uses too (Linux, Documentation/admin-guide/device-mapper/
snapshot.rst): what the guest writes is in one sparse file, and a snapshot of the machine copies nothing else.
"""

from __future__ import annotations

from lab.hypervisors._xen_store import Folder

COPY_S = 900.0

CHUNK_SECTORS = 8  # 4 KiB, what file systems write: so nothing of the image is copied to be overwritten

# Functions for the scripts that need the device. The loop devices go by themselves once nothing holds them: loop(4),
# LO_FLAGS_AUTOCLEAR, which `losetup -d` sets for a device in use.
NO_UDEV = "[ -e /run/udev/control ] || export DM_DISABLE_UDEV=1"
"""Before every dmsetup: who makes the device's file is udev where there is one."""
FUNCTIONS = f"""
{NO_UDEV}
# attach FOLDER DEVICE: make the device of an overlay unless it is there
attach() {{
  [ -f "$1/root.cow" ] && [ ! -b "/dev/mapper/$2" ] || return 0
  read -r base <"$1/root.base"
  loop=
  [ -b "$base" ] || {{ loop=$(losetup -r --show -f "$base"); base=$loop; }}
  cow=$(losetup --show -f "$1/root.cow")
  done=0
  dmsetup create "$2" --table "0 $(blockdev --getsz "$base") snapshot $base $cow P {CHUNK_SECTORS}" || done=$?
  losetup -d "$cow" $loop
  return "$done"
}}
# detach FOLDER DEVICE: take it away; nobody may hold it
detach() {{
  [ ! -f "$1/root.cow" ] || dmsetup remove --retry "$2" >/dev/null 2>&1 || [ ! -b "/dev/mapper/$2" ]
}}
"""

MAKE = """# make disks
set -eu
umask 077
if [ "$5" = overlay ]; then
  # Where each piece of the image may be written once, and 16 bytes for each say where it is.
  size=$([ -b "$2" ] && blockdev --getsize64 "$2" || stat -c %s "$2")
  truncate -s "$((size + size / 128 + 4194304))" "$1/root.cow"
  echo "$2" >"$1/root.base"
else
  cp --sparse=always --reflink=auto "$2" "$1/root.raw"
fi
[ "$3" = 0 ] || truncate -s "$3M" "$1/data.raw"
[ "$4" = 0 ] || { cat >"$1/seed.raw"; [ "$(stat -c %s "$1/seed.raw")" = "$4" ]; }
"""

# In the examination of a host: overlays are used when its kernel and its tools know them.
EXAMINE = """
if command -v dmsetup >/dev/null && command -v blockdev >/dev/null; then
  [ -d /sys/module/dm_snapshot ] || modprobe dm-snapshot 2>/dev/null
  case $(dmsetup targets 2>/dev/null) in *snapshot*) echo "has overlays" ;; esac
fi
"""
HAS = "has overlays"


def device_of(uuid: str) -> str:
    """The name of an overlay's device."""
    return f"lab-{uuid}"


def root_of(folder: Folder, uuid: str, *, overlay: bool) -> str:
    """Where the root disk of a machine is."""
    return f"/dev/mapper/{device_of(uuid)}" if overlay else folder.file("root.raw")


KEPT = ("root.cow", "root.raw", "data.raw")
"""The files that a snapshot keeps, those of them that are there."""
