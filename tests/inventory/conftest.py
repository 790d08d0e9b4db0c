"""A small inventory in a temporary folder that each test bends, and drivers that speak to nothing."""

from __future__ import annotations

import textwrap
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from lab.contracts import Realness
from lab.errors import ConfigurationError, InventoryProblems
from lab.inventory.load import Sources, load
from lab.inventory.models import Inventory
from lab.inventory.positions import read
from lab.inventory.problems import Problems
from lab.inventory.resolve import Resolved, ResolvedHost, ask_ansible
from lab.secrets import Secret

TODAY = date(2026, 11, 22)


class LocalSettings(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    accelerator: Literal["auto", "tcg", "kvm"] = "auto"
    binary: Path = Path("qemu")
    ports: tuple[int, ...] = ()


class RemoteSettings(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    address: str
    password: Secret | None = None


class FakeDrivers:
    """Two drivers: one of this machine, one of a distant host with a password."""

    def __init__(self) -> None:
        self._drivers = {
            "qemu": SimpleNamespace(Settings=LocalSettings, REALNESS=Realness.REAL, RUNS_HERE=True),
            "esxi": SimpleNamespace(Settings=RemoteSettings, REALNESS=Realness.EMULATED, RUNS_HERE=False),
        }

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._drivers))

    def load(self, name: str) -> SimpleNamespace:
        if name not in self._drivers:
            raise ConfigurationError(f'no driver "{name}"')
        return self._drivers[name]


def read_without_ansible(folder: Path, problems: Problems) -> Resolved | None:
    """What Ansible answers to a `hosts.yaml` without children and templates, in a thousandth of its time."""
    document = read(folder / "hosts.yaml", problems)
    group = document.value.get("hypervisors") if document and isinstance(document.value, dict) else None
    hosts = (group.get("hosts") if isinstance(group, dict) else None) or {}
    return {
        name: ResolvedHost(("hypervisors",), {k: v for k, v in (held or {}).items() if k.startswith("lab_")})
        for name, held in hosts.items()
    }


GOOD = {
    "dc/hosts.yaml": """\
        hypervisors:
          hosts:
            one:
              lab_driver: qemu
            two:
              lab_driver: esxi
              lab_address: two.example.org
        """,
    "dc/matrix.yaml": """\
        hosts: [one, two]
        guests: [small, big]
        profiles: [pc, q35]
        suites: [smoke, conformance]
        """,
    "profiles.yaml": """\
        pc:
          firmware: bios
          chipset: pc
          disk: virtio
          nic: virtio
          vcpus: 1
          memory_mib: 256
        q35:
          like: pc
          chipset: q35
          disk: nvme
        """,
    "guests/small.yaml": """\
        title: A small guest
        family: linux
        os: {name: debian, version: "12"}
        image: {build: small}
        """,
    "guests/big.yaml": """\
        title: A big guest
        family: linux
        os: {name: debian, version: "13"}
        image: {build: big}
        memory_mib: 512
        """,
}


class Lab:
    """An inventory on disk."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.folder = top / "dc"
        self.drivers = FakeDrivers()
        (top / "suites").mkdir()
        for name, text in GOOD.items():
            self.write(name, text)
        self.append("dc/matrix.yaml", "suites_from: ../suites")

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    def append(self, name: str, text: str) -> None:
        path = self.top / name
        path.write_text(f"{path.read_text()}{text.rstrip()}\n")

    def load(self, *, real: bool = False) -> Inventory:
        resolver = ask_ansible if real else read_without_ansible
        return load(self.folder, sources=Sources(resolver, self.drivers, lambda: TODAY))

    def problems(self, *, real: bool = False) -> list[str]:
        """The problems of the inventory, without the folder in which they all are."""
        with pytest.raises(InventoryProblems) as caught:
            self.load(real=real)
        return [problem.replace(f"{self.top}/", "") for problem in caught.value.problems]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "inventories").mkdir()
    return Lab(tmp_path / "inventories")
