"""Libvirt of a host that the lab made: how it is connected, how images come there and guests are reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.contracts import Endpoint, Image, Realness, SshLogin
from lab.errors import HostError
from lab.hypervisors import _libvirt_host, libvirt
from lab.hypervisors._libvirt_link import Link
from lab.hypervisors._libvirt_storage import Pool
from lab.hypervisors._reached_host import ReachedHost

KEY = "ssh-ed25519 " + "A" * 68


class Maker:
    """Remembers what was lent and copied."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def forward(self, address: str, port: int, *, here: int = 0) -> Endpoint:
        return Endpoint("127.0.0.1", 40000 + port)

    def unforward(self, address: str) -> None:
        return None

    def lend(self, file: Path, disk_format: str) -> str:
        self.asked.append(("lend", file.name, disk_format))
        return f"/dev/lab/{file.name}"

    def keep(self, file: Path) -> str:
        self.asked.append(("keep", file.name))
        return f"/kept/{file.name}"

    def take_back(self, file: Path) -> None:
        return None

    def console(self) -> bytes:
        return b""

    def require_alive(self) -> None:
        return None


def test_a_made_host_is_reached_by_what_its_maker_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @contextmanager
    def connect_to(name: str, settings: libvirt.Settings, **more: Any) -> Iterator[str]:
        seen.update(more, settings=settings)
        yield name

    monkeypatch.setattr(_libvirt_host, "connect_to", connect_to)
    maker = Maker()
    login = SshLogin("root", Path("/keys/id"), KEY)
    reached = ReachedHost(Endpoint("127.0.0.1", 4022), login, Realness.EMULATED, maker)

    with libvirt.connect_made("kvm-local", libvirt.Settings(made_from="kvm-host"), reached):
        pass

    settings = seen["settings"]
    assert settings.uri == "qemu+ssh://root@127.0.0.1:4022/system"
    assert (settings.private_key, settings.host_key, settings.network) == ("/keys/id", KEY, "network:default")
    assert (seen["realness"], seen["maker"]) == (Realness.EMULATED, maker)


def test_a_made_host_is_not_connected_before_it_is_made() -> None:
    with (
        pytest.raises(HostError, match="kvm-local is a host that the lab makes first"),
        libvirt.connect("kvm-local", libvirt.Settings(made_from="kvm-host")),
    ):
        pass


def test_how_a_made_host_is_reached_is_not_the_inventorys_to_say() -> None:
    with pytest.raises(ValueError, match="lab_uri, lab_network, lab_folder: of a host that the lab makes"):
        libvirt.Settings(made_from="kvm-host", uri="qemu:///system")


def test_an_image_is_lent_to_a_made_host_and_its_kernel_copied_there(tmp_path: Path) -> None:
    parts = {name: tmp_path / name for name in ("disk", "kernel", "initrd")}
    for path in parts.values():
        path.write_bytes(b"x")
    image = Image("jeos", "sha256:1", parts["disk"], "qcow2", parts["kernel"], parts["initrd"])
    maker = Maker()

    found = Pool(Link("kvm-local", "nowhere:///"), "/pool", is_here=False, maker=maker).bring(image)

    assert (found.disk, found.disk_format) == ("/dev/lab/disk", "raw")
    assert (found.kernel, found.initrd) == ("/kept/kernel", "/kept/initrd")
    assert sorted(maker.asked) == [("keep", "initrd"), ("keep", "kernel"), ("lend", "disk", "qcow2")]
