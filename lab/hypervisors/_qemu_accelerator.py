"""Which accelerator to use: KVM counts only after a program ran under it as a guest does.

`/dev/kvm` that opens proves nothing: on machines whose own hypervisor offers no hardware virtualisation it can
answer every request and run guests thousands of times too slowly. The program is a boot sector (its source is
`_qemu_proof.s`) that goes the way of a kernel: protected mode, page tables, 64-bit mode, an interrupt handler,
sleep until a timer has ticked, then 2^27 steps of a computation whose result is known. Firmware alone would
not do: it runs in real mode, which such a KVM carries out. No image is needed, and QEMU's software emulation
takes half a second for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import locations, log, process
from lab.errors import CommandFailed, HostError, MissingExtra

LIMIT_S = 10.0
_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STEPS = 1 << 27
_EXITED = 33  # isa-debug-exit: (0x10 << 1) | 1
_PROGRAM = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfcbf0010b90018f3abc70600100320c70600200330c70600308300bf0040b90008f3abc70680"
    "40e97cc70682400800c7068440008e0f0116087d0f011e0e7d66b8200000000f22e066b8001000000f22d866b9800000c00f"
    "320d00010f300f20c0660d010000800f22c0ea7b7c080031c08ed88ec08ed0b0fee621b034e643b0a9e640b004e64031dbfb"
    "f483fb1472fafab801000000b90000000869c00d661900055ff36e3cffc975f189c566bafb03b003eeb908000000c1c50489"
    "e8240f046166baf803ee66bafd03eca82074fbffc975e566baf400b010eef4ebfd50ffc3b020e6205848cf0f1f4400000000"
    "00000000000000000000009a20000f00f87c0000ff0f0040"
)
_log = log.get(__name__)


@dataclass(frozen=True)
class Choice:
    """An accelerator and one sentence why."""

    name: str  # "tcg" or "kvm"
    why: str


@dataclass(frozen=True)
class Proof:
    """Whether KVM runs guests here, and one sentence that says how that is known."""

    works: bool
    sentence: str


def require_client() -> None:
    """Raises `MissingExtra` without the package that speaks QMP; imports nothing."""
    if importlib.util.find_spec("qemu") is None or importlib.util.find_spec("qemu.qmp") is None:
        raise MissingExtra("the qemu driver", "qemu")


def choose(wanted: str, binary: str, version: str) -> Choice:
    """The accelerator for "auto", "tcg" or "kvm". Raises `HostError` when KVM is demanded and does not work."""
    if wanted == "tcg":
        return Choice("tcg", "software emulation, as the inventory says")
    proof = kvm_proof(binary, version)
    if proof.works:
        return Choice("kvm", proof.sentence)
    if wanted == "kvm":
        raise HostError(proof.sentence, hint="take lab_accelerator: auto or tcg, or a machine with working KVM")
    return Choice("tcg", f"software emulation, because {proof.sentence}")


def kvm_proof(binary: str, version: str) -> Proof:
    """Boot the test program under KVM, once for each boot of this machine and version of QEMU."""
    if not _DEVICE.exists():
        return Proof(False, f"{_DEVICE} is not there")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Proof(False, f"{_DEVICE} cannot be opened by this user (is the user in the group kvm?)")
    from filelock import FileLock

    remembered = locations.cache() / "kvm-proof.json"
    key = f"{_BOOT_ID.read_text().strip()} {binary} {version}"
    # One process proves, the others wait for its answer instead of slowing it down.
    with FileLock(remembered.with_suffix(".lock"), timeout=LIMIT_S * 6):
        known = _remembered(remembered)
        if known.get("key") == key:
            return Proof(bool(known["works"]), str(known["sentence"]))
        proof = prove(binary, "kvm")
        remembered.write_text(json.dumps({"key": key, "works": proof.works, "sentence": proof.sentence}))
    _log.info("kvm.proved", works=proof.works, sentence=proof.sentence)
    return proof


def prove(binary: str, accelerator: str, *, limit_s: float = LIMIT_S) -> Proof:
    """Run the test program under an accelerator; QEMU is killed at the limit."""
    name = accelerator.upper()
    with tempfile.TemporaryDirectory(prefix="lab-proof-") as folder:
        disk = Path(folder) / "proof.raw"
        disk.write_bytes(boot_sector())
        line = [
            *(binary, "-accel", accelerator, "-cpu", "max", "-m", "16", "-nodefaults", "-no-user-config"),
            *("-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
            *("-drive", f"file={disk},format=raw,if=ide,snapshot=on"),
        ]
        try:
            finished = process.run(line, timeout_s=limit_s)
        except CommandFailed:
            return Proof(False, f"{name} answers, but a test guest did not finish within {limit_s:.0f} s under it")
    if finished.status == _EXITED and finished.stdout == expected():
        return Proof(True, f"{name} ran a test guest with the right result")
    said = (finished.stderr.strip() or repr(finished.stdout))[-300:].replace("\n", " ")
    return Proof(False, f"{name} did not run a test guest (exit status {finished.status}): {said}")


def boot_sector() -> bytes:
    """The program as a disk of one sector, with the mark that makes firmware start it."""
    return _PROGRAM.ljust(510, b"\0") + b"\x55\xaa"


def expected() -> str:
    """What the program prints: the generator's state after all steps from 1, by squaring its one-step map."""
    mask = 0xFFFFFFFF
    factor, summand, steps = 1664525, 1013904223, _STEPS
    result_factor, result_summand = 1, 0
    while steps:
        if steps & 1:
            result_factor = result_factor * factor & mask
            result_summand = (result_summand * factor + summand) & mask
        factor, summand = factor * factor & mask, (summand * factor + summand) & mask
        steps >>= 1
    state = (result_factor + result_summand) & mask
    return "".join(chr(ord("a") + (state >> shift & 15)) for shift in range(28, -1, -4))


def _remembered(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
