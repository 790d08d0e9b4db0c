"""What a dom0 needs besides for HVM domains: the device model, Xen's build of QEMU, and OVMF that was built for Xen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lab.hypervisors._xen_toolstack import Toolstack

# Where Xen's own build, Debian, Fedora and SUSE put them. Of the files in folders that other hypervisors use too, only
# those are taken that begin as an ELF file: so does OvmfXen alone (edk2, OvmfPkg/OvmfXen.fdf), because Xen can start
# it as a kernel. Debian 12's OVMF.fd lies where its libxl looks and knows nothing of Xen.
EXAMINE = r"""
for file in /usr/libexec/xen-qemu-system-i386 /usr/lib/xen*/bin/qemu-system-i386 /usr/libexec/xen/bin/qemu-system-i386 \
  /usr/local/lib/xen/bin/qemu-system-i386 /usr/local/libexec/xen/bin/qemu-system-i386 \
  /usr/lib64/xen/bin/qemu-system-i386; do
  [ ! -x "$file" ] || { echo "has device model"; break; }
done
ovmf=
for file in /usr/lib/xen*/boot/ovmf.bin /usr/libexec/xen/boot/ovmf.bin /usr/local/lib/xen/boot/ovmf.bin \
  /usr/local/libexec/xen/boot/ovmf.bin; do
  [ ! -s "$file" ] || ovmf=$file
done
for file in /usr/share/ovmf/*.fd /usr/share/OVMF/*.fd /usr/share/edk2/xen/*.fd /usr/share/qemu/ovmf-x86_64-xen*.bin; do
  [ -s "$file" ] || continue
  case $(head -c 4 "$file" 2>/dev/null) in ?ELF) ovmf=$file ;; esac
done
[ -z "$ovmf" ] || echo "has ovmf $ovmf"
"""
_DEVICE_MODEL = "has device model"
_OVMF = re.compile(r"has ovmf (/[A-Za-z0-9._/+-]{1,200})")


def told(toolstack: Toolstack, lines: Sequence[str]) -> Toolstack:
    """The toolstack with what an examination said of the two."""
    found = next((match[1] for match in map(_OVMF.fullmatch, lines) if match), "")
    return replace(toolstack, device_model=_DEVICE_MODEL in lines, ovmf=found)
