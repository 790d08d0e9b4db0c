"""HVM domains before a toolstack of files: what is asked of xl, what is refused, and pictures of a display."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from lab.contracts import Capability, Firmware, MachineSpec, Realness
from lab.errors import HypervisorRefused, NotSupported
from lab.hypervisors import _xen_device_model, _xen_host, _xen_toolstack, xen
from lab.hypervisors._xen_config import Disk, FullHardware, Kind, text
from lab.hypervisors._xen_host import XenHost
from lab.hypervisors._xen_machine import XenMachine
from tests.hypervisors import test_rfb
from tests.hypervisors.test_xen_config import HOSTILE, PLAIN, read
from tests.hypervisors.xen_dom0 import HARDWARE, FakeDom0

HVM = replace(HARDWARE, name="xen-hvm", chipset="xenhvm", firmware=Firmware.BIOS)
UEFI = replace(HVM, name="xen-uefi", firmware=Firmware.UEFI)
FULL = FullHardware("/var/log/xen/console/serial-lab-one.log")
DOMAIN = replace(PLAIN, kind=Kind.HVM, full=FULL)


@pytest.fixture
def boot(fake: FakeDom0, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the dom0 where the examination looks for a device model and for OVMF, instead of everywhere."""
    folder = fake.folder / "boot"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    script = _xen_host._EXAMINE.replace("/usr/libexec/xen-", f"{folder}/").replace("/usr/share/ovmf", str(folder))
    monkeypatch.setattr(_xen_host, "_EXAMINE", script)
    return folder


@pytest.fixture
def host(fake: FakeDom0, boot: Path) -> Iterator[XenHost]:
    """With a device model, and an OVMF that knows Xen."""
    (boot / "qemu-system-i386").write_bytes(b"")
    (boot / "qemu-system-i386").chmod(0o755)
    (boot / "OVMF.fd").write_bytes(b"\x7fELF\0\0")
    with fake.host() as host:
        yield host


@contextmanager
def made(host: XenHost, spec: MachineSpec) -> Iterator[XenMachine]:
    machine = host.create(spec)
    assert isinstance(machine, XenMachine)
    try:
        yield machine
    finally:
        machine.destroy()


def started(fake: FakeDom0, host: XenHost, spec: MachineSpec) -> dict[str, Any]:
    """The configuration that xl was given."""
    with made(host, spec) as machine:
        machine.start()
        found: dict[str, Any] = fake.domains()["lab-one"]["config"]
    return found


# ---------------------------------------------------------------------------------------------------------
# What is written


def test_an_hvm_domain_is_written_as_xl_wants_it() -> None:
    assert text(DOMAIN, knows_type=True) == (
        'name = "lab-one"\n'
        'uuid = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"\n'
        'type = "hvm"\n'
        'kernel = "/x/kernel"\n'
        'ramdisk = "/x/ramdisk"\n'
        'extra = "root=/dev/xvda rw console=hvc0 lab.ip=10.0.2.101/24,10.0.2.2"\n'
        'firmware = "seabios"\n'
        'device_model_version = "qemu-xen"\n'
        "xen_platform_pci = 1\n"
        'vga = "stdvga"\n'
        "vnc = 1\n"
        'vnclisten = "127.0.0.1"\n'
        "vncunused = 1\n"
        'serial = "chardev:serial0"\n'
        'device_model_args_hvm = [ "-chardev", '
        '"pty,id=serial0,logfile=/var/log/xen/console/serial-lab-one.log,logappend=on" ]\n'
        "vcpus = 1\n"
        "maxvcpus = 2\n"
        "memory = 192\n"
        "maxmem = 320\n"
        'disk = [ "format=raw,vdev=xvda,access=rw,target=/var/lib/interop-lab/machines/one/root.raw", '
        '"format=raw,vdev=xvdb,access=ro,target=/x/seed.raw" ]\n'
        'vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0,type=vif" ]\n'
        'on_poweroff = "preserve"\n'
        'on_reboot = "restart"\n'
        'on_crash = "preserve"\n'
        'on_watchdog = "preserve"\n'
    )


def test_an_older_xl_gets_a_builder_and_a_bios() -> None:
    keys = read(text(replace(DOMAIN, full=replace(FULL, ovmf="/x/ovmf.bin")), knows_type=False))

    assert (keys["builder"], keys["bios"], keys["bios_path_override"]) == ("hvm", "ovmf", "/x/ovmf.bin")
    assert not {"type", "firmware"} & set(keys)


def test_a_domain_without_a_kernel_boots_from_its_disk() -> None:
    keys = read(text(replace(DOMAIN, kernel="", ramdisk="", disks=(Disk("/x/root", "xvda"),)), knows_type=True))

    assert keys["boot"] == "c"
    assert keys["disk"] == ["format=raw,vdev=xvda,access=rw,target=/x/root"]
    assert not {"kernel", "ramdisk", "extra", "bootloader"} & set(keys)


@pytest.mark.parametrize("kind", [Kind.PV, Kind.PVH])
def test_no_other_domain_gets_emulated_hardware(kind: Kind) -> None:
    with pytest.raises(
        HypervisorRefused, match=f"lab-one: emulated hardware is of HVM domains, and this one is {kind.upper()}"
    ):
        text(replace(DOMAIN, kind=kind), knows_type=True)
    with pytest.raises(HypervisorRefused, match="emulated hardware is of HVM domains"):
        text(replace(DOMAIN, full=None), knows_type=True)


@given(HOSTILE)
def test_no_path_becomes_another_option_of_the_device_model(path: str) -> None:
    plain = read(text(DOMAIN, knows_type=True))
    for full in (FullHardware(path), FullHardware("/x", ovmf=path)):
        try:
            keys = read(text(replace(DOMAIN, full=full), knows_type=True))
        except HypervisorRefused:
            continue
        assert set(keys) <= {*plain, "bios_path_override"}
        first, second = keys["device_model_args_hvm"]
        assert first == "-chardev"
        words = [word.partition("=")[0] for word in second.split(",")]
        assert words == ["pty", "id", "logfile", "logappend"]


# ---------------------------------------------------------------------------------------------------------
# What a host makes


def test_an_hvm_machine_boots_its_packed_kernel_by_the_bios(fake: FakeDom0, host: XenHost) -> None:
    keys = started(fake, host, fake.hardware(chipset="xenhvm", firmware=Firmware.BIOS))

    assert (keys["type"], keys["firmware"], keys["tsc_mode"]) == ("hvm", "seabios", "native")
    assert Path(keys["kernel"]).name == "bzimage"
    assert Path(keys["kernel"]).read_bytes() == fake.spec().image.kernel.read_bytes()  # type: ignore[union-attr]
    assert keys["extra"].startswith("root=/dev/xvda rw console=hvc0 ")
    assert [word.partition("vdev=")[2].partition(",")[0] for word in keys["disk"]] == ["xvda", "xvdp", "xvdc"]
    assert all(card.endswith(",type=vif") for card in keys["vif"])


def test_a_real_host_shows_the_boot_on_the_display_and_asks_its_clock(fake: FakeDom0, host: XenHost) -> None:
    with fake.host(like=replace(fake.dom0, realness=Realness.REAL)) as real:
        keys = started(fake, real, replace(fake.spec(), profile=HVM))

    assert keys["extra"].startswith("root=/dev/xvda rw console=tty0 console=hvc0 ")
    assert "tsc_mode" not in keys


@pytest.mark.parametrize(("hardware", "firmware"), [(HVM, "seabios"), (UEFI, "ovmf")])
def test_an_image_without_a_kernel_boots_by_its_firmware(
    fake: FakeDom0, host: XenHost, boot: Path, hardware: Any, firmware: str
) -> None:
    image = replace(fake.spec().image, kernel=None, initrd=None, digest="sha256:" + "6" * 64)

    keys = started(fake, host, replace(fake.spec(), image=image, profile=hardware))

    assert "vdev=xvda," in keys["disk"][0]
    assert (keys["boot"], keys["firmware"]) == ("c", firmware)
    assert keys.get("bios_path_override") == (str(boot / "OVMF.fd") if firmware == "ovmf" else None)


def test_a_card_that_is_plugged_in_is_xens_own_alone(fake: FakeDom0, host: XenHost) -> None:
    with made(host, replace(fake.spec(), profile=HVM)) as machine:
        machine.start()
        machine.attach_nic("second", "00:16:3e:aa:bb:cc")

        assert fake.domains()["lab-one"]["cards"][-1] == "mac=00:16:3e:aa:bb:cc,bridge=xenbr0,type=vif"


def test_the_console_begins_with_what_came_out_of_the_serial_port(fake: FakeDom0, host: XenHost) -> None:
    serial = fake.folder / "log/console/serial-lab-one.log"
    log = fake.folder / "log/qemu-dm-lab-one.log"
    with made(host, replace(fake.spec(), profile=HVM)) as machine:
        machine.start()
        serial.write_text("GNU GRUB\n")
        log.write_text("warning\n")

        assert machine.console().startswith(b"GNU GRUB\nLinux version of lab-one\n")
    assert not serial.exists()
    assert not log.exists()


def test_reproducing_names_the_kernel_as_it_is(fake: FakeDom0, host: XenHost) -> None:
    with made(host, replace(fake.spec(), profile=HVM)) as machine:
        said = machine.reproduce()

    assert "/bzimage\n" in said
    assert "ELF" not in said
    assert 'type = "hvm"' in said


# ---------------------------------------------------------------------------------------------------------
# What is refused


def test_a_dom0_without_a_device_model_makes_no_hvm(fake: FakeDom0, boot: Path) -> None:
    with fake.host() as host:
        with pytest.raises(HypervisorRefused, match="the dom0 has no device model for HVM: Xen's qemu-system-i386"):
            host.create(replace(fake.spec(), profile=HVM))

        assert host.limits()[Capability.SCREENSHOTS].startswith(
            "PV and PVH domains have no display, and there is no HVM here: the dom0 has no device model"
        )


def test_an_ovmf_that_was_not_built_for_xen_is_none(fake: FakeDom0, host: XenHost, boot: Path) -> None:
    (boot / "OVMF.fd").write_bytes(bytes(64) + b"_FVH")
    with (
        fake.host() as without,
        pytest.raises(HypervisorRefused, match="the dom0 has no OVMF that was built for Xen"),
    ):
        without.create(replace(fake.spec(), profile=UEFI))


def test_uefi_starts_no_kernel_from_a_file(fake: FakeDom0, host: XenHost) -> None:
    with pytest.raises(HypervisorRefused, match="Xen starts the kernel of an image in an HVM domain by its BIOS alone"):
        host.create(replace(fake.spec(), profile=UEFI))

    assert host.machines() == []


def test_xl_before_4_5_starts_no_kernel_from_a_file(fake: FakeDom0, host: XenHost) -> None:
    fake.fault("minor", "4")
    with (
        fake.host() as old,
        pytest.raises(HypervisorRefused, match=r"xl before 4\.5 starts no kernel of its own choice in an HVM domain"),
    ):
        old.create(replace(fake.spec(), profile=HVM))


def test_a_processor_without_virtualisation_makes_no_hvm() -> None:
    toolstack = _xen_toolstack.Toolstack((4, 17), "4.17", ("pv",), 0, device_model=True)

    assert "no hardware virtualisation" in (toolstack.runs_hvm() or "")
    assert replace(toolstack, capabilities=("pv", "hvm")).runs_hvm() is None


@pytest.mark.parametrize("path", ["relative", "/x y", "/x,y", "/x\n", "/" + "x" * 300, ""])
def test_a_path_of_ovmf_that_is_not_plain_is_not_believed(path: str) -> None:
    toolstack = _xen_toolstack.Toolstack((4, 17), "4.17", ("hvm",), 0)

    assert _xen_device_model.told(toolstack, [f"has ovmf {path}"]).ovmf == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"firmware": Firmware.NONE}, "xenhvm machines of the lab have no firmware 'none' (they have bios, uefi)"),
        ({"chipset": "xenpvh"}, "xenpvh machines of the lab have no firmware 'bios' (they have none)"),
        ({"chipset": "pc"}, "Xen machines of the lab have no chipset 'pc' (they have xenpv, xenpvh, xenhvm)"),
        ({"disk": "sata"}, "xenhvm machines of the lab have no disk 'sata' (they have xen)"),
        ({"firmware": Firmware.UEFI, "secure_boot": True}, "Xen keeps no UEFI variables of a domain"),
    ],
)
def test_hardware_that_no_xen_machine_has_is_told_while_planning(values: dict[str, Any], words: str) -> None:
    assert xen.refuses(HVM) is None
    assert xen.refuses(UEFI) is None
    assert (xen.refuses(replace(HVM, **values)) or "").startswith(words)


# ---------------------------------------------------------------------------------------------------------
# Pictures


@contextmanager
def display(speech: bytes) -> Iterator[int]:
    """A VNC server on a port where device models have theirs."""
    for port in range(5999, 5899, -1):
        try:
            listener = socket.create_server(("127.0.0.1", port))
            break
        except OSError:
            continue

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                sock.sendall(speech)
                while sock.recv(1 << 16):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.fixture
def machine(fake: FakeDom0, host: XenHost) -> Iterator[XenMachine]:
    """HVM, that runs."""
    with made(host, replace(fake.spec(), profile=HVM)) as machine:
        machine.start()
        yield machine


def tells_port(fake: FakeDom0, port: str) -> None:
    key = fake.folder / f"keys/local/domain/{fake.domains()['lab-one']['domid']}/console/vnc-port"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(port)


def test_a_picture_comes_through_the_dom0(fake: FakeDom0, machine: XenMachine) -> None:
    with display(test_rfb.GREETING + test_rfb.screen() + test_rfb.WHOLE) as port:
        tells_port(fake, str(port))

        picture = machine.screenshot()

    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture[16:24] == test_rfb.WIDTH.to_bytes(4, "big") + test_rfb.HEIGHT.to_bytes(4, "big")


def test_a_display_that_is_none_is_told_with_host_and_machine(fake: FakeDom0, machine: XenMachine) -> None:
    with display(b"220 mail.example.net ESMTP\r\n") as port:
        tells_port(fake, str(port))

        with pytest.raises(HypervisorRefused, match="fake: no picture of one: no VNC server of protocol"):
            machine.screenshot()


def test_a_display_where_nobody_listens_is_told(fake: FakeDom0, machine: XenMachine) -> None:
    with display(b"") as port:
        tells_port(fake, str(port))

    with pytest.raises(HypervisorRefused, match=f"fake: port {port} of the dom0: 127.0.0.1:{port} cannot be reached"):
        machine.screenshot()


@pytest.mark.parametrize("port", ["22", "6000", "-1", "5900; reboot", "٥٩٠٠", "", "9" * 500])
def test_a_port_that_no_device_model_has_is_not_asked(fake: FakeDom0, machine: XenMachine, port: str) -> None:
    tells_port(fake, port)

    with pytest.raises(HypervisorRefused, match="fake: libxl tells no VNC port of one: "):
        machine.screenshot()


def test_a_pv_machine_has_no_display(fake: FakeDom0, host: XenHost) -> None:
    assert Capability.SCREENSHOTS not in host.limits()
    with made(host, fake.spec()) as machine:
        machine.start()

        with pytest.raises(NotSupported, match="PV and PVH domains have no display, and one is PV"):
            machine.screenshot()
