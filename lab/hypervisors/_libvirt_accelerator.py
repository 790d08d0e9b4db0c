"""Whether machines of a libvirt host run under KVM: libvirt's word is enough for a far host, for this one a proof is.

`/dev/kvm` that opens proves nothing, and libvirt says no more than that it opens (docs/decisions/0008). So on this
machine a domain of one boot sector has to end in time, under KVM, through the same libvirt.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import locations, log, waiting
from lab.errors import HostError, LabError, WaitedTooLong
from lab.hypervisors import _libvirt_sdk
from lab.hypervisors import _libvirt_xml as xml
from lab.hypervisors._libvirt_link import LibvirtRefused, Link
from lab.hypervisors._libvirt_xml import element

LIMIT_S = 10.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The program of the qemu driver's proof (`_qemu_proof.s`) and what it writes on its serial line at the end: it goes the
# way of a kernel into 64-bit mode, sleeps until a timer ticks, and takes 2^27 steps of a computation.
PROGRAM = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfcbf0010b90018f3abc70600100320c70600200330c70600308300bf0040b90008f3abc70680"
    "40e97cc70682400800c7068440008e0f0116087d0f011e0e7d66b8200000000f22e066b8001000000f22d866b9800000c00f"
    "320d00010f300f20c0660d010000800f22c0ea7b7c080031c08ed88ec08ed0b0fee621b034e643b0a9e640b004e64031dbfb"
    "f483fb1472fafab801000000b90000000869c00d661900055ff36e3cffc975f189c566bafb03b003eeb908000000c1c50489"
    "e8240f046166baf803ee66bafd03eca82074fbffc975e566baf400b010eef4ebfd50ffc3b020e6205848cf0f1f4400000000"
    "00000000000000000000009a20000f00f87c0000ff0f0040"
)
RESULT = b"eiaaaaab"
_log = log.get(__name__)


@dataclass(frozen=True)
class Choice:
    """An accelerator and one sentence why."""

    name: str  # "tcg" or "kvm"
    why: str


def choose(link: Link, wanted: str, *, is_this_machine: bool) -> Choice:
    """The accelerator for "auto", "tcg" or "kvm". Raises `HostError` when KVM is demanded and does not work."""
    if wanted == "tcg":
        return Choice("tcg", "software emulation, as the inventory says")
    works, sentence = _offered(link)
    if works and is_this_machine:
        works, sentence = _remembered_proof(link)
    if works:
        return Choice("kvm", sentence)
    if wanted == "kvm":
        raise HostError(
            f"{link.host}: {sentence}", hint="take lab_accelerator: auto or tcg, or a host with working KVM"
        )
    return Choice("tcg", f"software emulation, because {sentence}")


def _offered(link: Link) -> tuple[bool, str]:
    try:
        link.ask("asking for KVM", lambda it: it.getDomainCapabilities(None, "x86_64", None, "kvm", 0), limit_s=120.0)
    except LibvirtRefused as reason:
        return False, f"libvirt offers no KVM: {reason.words}"
    return True, "libvirt offers KVM"


def _remembered_proof(link: Link) -> tuple[bool, str]:
    """Once for each boot of this machine and way to libvirt."""
    from filelock import FileLock

    memory = locations.cache() / "libvirt-kvm-proof.json"
    key = f"{_BOOT_ID.read_text().strip()} {link.uri.partition('?')[0]} {os.geteuid()}"
    # One process proves, the others wait for its answer instead of slowing it down.
    with FileLock(memory.with_suffix(".lock"), timeout=LIMIT_S * 12):
        known = _read(memory)
        if known.get("key") != key:
            works, sentence = prove(link, "kvm")
            known = {"key": key, "works": works, "sentence": sentence}
            memory.write_text(json.dumps(known))
            _log.info("kvm.proved", host=link.host, works=works, sentence=sentence)
    return bool(known["works"]), str(known["sentence"])


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def prove(link: Link, kind: str, *, limit_s: float = LIMIT_S) -> tuple[bool, str]:
    """Run the program in a domain of that kind, which is gone afterwards; whether it came to its end in time."""
    name = "KVM" if kind == "kvm" else "software emulation"
    with tempfile.TemporaryDirectory(prefix="lab-proof-") as made:
        folder = Path(made)
        folder.chmod(0o711)  # the system's libvirt runs QEMU as a user of its own
        disk, said = folder / "proof.raw", folder / "said"
        disk.write_bytes(PROGRAM.ljust(510, b"\0") + b"\x55\xaa")
        said.touch()
        said.chmod(0o666)
        uuid = str(uuids.uuid4())
        try:
            link.ask("proving KVM", lambda it: _run(it, _document(uuid, kind, disk, said)), limit_s=60.0)
            waiting.until(lambda: RESULT in said.read_bytes(), what="the test guest", timeout_s=limit_s)
        except WaitedTooLong:
            return False, f"{name} answers, but a test guest did not finish within {limit_s:.0f} s under it"
        except LabError as reason:
            return False, f"{name} did not run a test guest: {reason.what[-300:]}"
        finally:
            link.ask("ending the proof", lambda it: _end(it, uuid))
    return True, f"{name} ran a test guest of libvirt with the right result"


def _document(uuid: str, kind: str, disk: Path, said: Path) -> str:
    devices = element(
        "devices",
        element(
            "disk",
            element("driver", name="qemu", type_="raw"),
            element("source", file=str(disk)),
            element("target", dev="hda", bus="ide"),
            type_="file",
            device="disk",
        ),
        element("controller", type_="usb", model="none"),
        element("serial", element("source", path=str(said)), element("target", port=0), type_="file"),
        element("memballoon", model="none"),
    )
    return xml.text(
        element(
            "domain",
            element("name", text=f"lab-proof-{uuid[:8]}"),
            element("uuid", text=uuid),
            element("memory", text=16, unit="MiB"),
            element("vcpu", text=1),
            element("os", element("type", text="hvm", arch="x86_64", machine="pc")),
            element("features", element("acpi"), element("apic")),
            element("cpu", mode="host-passthrough" if kind == "kvm" else "maximum", check="none"),
            devices,
            type_=kind,
        )
    )


def _run(connection: Any, document: str) -> None:
    # It ends with this connection, whatever becomes of us.
    connection.createXML(document, _libvirt_sdk.load().VIR_DOMAIN_START_AUTODESTROY)


def _end(connection: Any, uuid: str) -> None:
    sdk = _libvirt_sdk.load()
    try:
        connection.lookupByUUIDString(uuid).destroy()
    except sdk.libvirtError as reason:
        if reason.get_error_code() != sdk.VIR_ERR_NO_DOMAIN:
            raise
