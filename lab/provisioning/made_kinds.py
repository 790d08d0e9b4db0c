"""The kinds of host that the lab makes itself: what is booted, on which processor, and when it is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lab.contracts import Image
from lab.errors import HostError
from lab.hypervisors._qemu_host import TCG_CPU

DOM0_MIB = 640
# bootscrub: writing every page would make QEMU take all of the memory. noreboot: a panic stays to be read.
# spec-ctrl, xpti: they cost time and protect nobody on an emulated processor. One processor for the dom0: two wait for
# each other most of the time when this machine is busy.
_XEN = (
    f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 "
    "spec-ctrl=no xpti=no bootscrub=0 noreboot=1"
)


@dataclass(frozen=True)
class Kind:
    """One kind, known by the recipe of its image."""

    recipe: str
    noun: str  # in a sentence
    cpu: str  # QEMU's -cpu
    bridge: str  # in the host, for it and its guests
    ready: str  # the line on its console that says so
    boot_words: Callable[[Image], list[str]]  # of QEMU; raises `HostError` for an image that is no such host
    proof: str = ""  # a line that must have come before; empty: being ready is the proof
    proved: str = ""  # what that line proves, as a sentence
    doubt: str = ""  # why its results are not to be relied on yet; empty: they are
    knock: bool = True  # see that its SSH answers before a driver logs in; False: the driver's own login waits for it


def of(image: Image) -> Kind:
    """The kind of host that is made from an image. Raises `HostError` when it is none."""
    return named(image.name)


def named(recipe: str) -> Kind:
    """The kind of host whose image comes from that recipe. Raises `HostError` when there is none."""
    if recipe not in KINDS:
        raise HostError(f"the image {recipe} is no host", hint=f"hosts are made from {', '.join(KINDS)}")
    return KINDS[recipe]


def _xen_words(image: Image) -> list[str]:
    if image.hypervisor is None or image.kernel is None or image.initrd is None:
        raise HostError(f"the image {image.name} is no host: it has no hypervisor, kernel and initial RAM disk")
    dom0 = f"console=hvc0 root=/dev/vda rw {image.kernel_arguments}"
    # A comma begins the next module, and two are one (docs/system/multiboot of QEMU).
    modules = f"{_doubled(image.kernel)} {dom0},{_doubled(image.initrd)}"
    return ["-kernel", str(image.hypervisor), "-append", _XEN, "-initrd", modules]


def _doubled(path: Path) -> str:
    return str(path).replace(",", ",,")


def _kvm_words(image: Image) -> list[str]:
    if image.kernel is None or image.initrd is None:
        raise HostError(f"the image {image.name} is no host: it has no kernel and initial RAM disk")
    line = f"console=ttyS0 root=/dev/vda rw {image.kernel_arguments}"
    return ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", line]


# All on the processor without what gave wrong data in a dom0; Xen's PV guests fault on SMAP besides. An emulated sshd
# takes half a second for each connection, so nobody knocks where that is not needed.
_XEN_HOST = Kind("xen-host", "Xen host", TCG_CPU, "xenbr0", "interop-lab: dom0 ready", _xen_words, knock=False)
KINDS = {
    kind.recipe: kind
    for kind in (
        _XEN_HOST,
        replace(_XEN_HOST, recipe="xen-host-hvm"),
        Kind(
            "kvm-host",
            "KVM host",
            # AMD's virtualisation with nested paging, which QEMU emulates (target/i386/tcg/sysemu/svm_helper.c).
            f"{TCG_CPU},+svm,+npt",
            "labbr0",
            "interop-lab: host ready",
            _kvm_words,
            "interop-lab: proved by a guest: Hypervisor detected: KVM",
            "before the host was frozen, a guest booted in it under -accel kvm and said: Hypervisor detected: KVM",
            doubt="KVM there is not proved to be stable: see benchmarks/kvm_soak.jsonl and decision 31",
        ),
    )
}
