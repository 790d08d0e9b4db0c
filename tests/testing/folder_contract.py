"""The contract suite over the reference driver, honest or with one lie; `test_hypervisor.py` runs this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import waiting
from lab.contracts import Channel, Firmware, Image, MachineSpec, Owner, Profile
from lab.testing.hypervisor import HypervisorContract
from tests.testing.reference.host import FolderHost
from tests.testing.reference.lies import LIES
from tests.testing.reference.trusted import CapableMachine, FolderChannel

PATIENCE_S = 2.0


class TestFolders(HypervisorContract):
    lie = ""

    convicted_by: tuple[str, ...] = ()

    @pytest.fixture(autouse=True)
    def impatient(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        # What never comes need not be waited for long; what comes may take its time on a busy machine.
        patient, slow = waiting.until, waiting.pause
        never_comes = request.node.originalname in self.convicted_by

        def until(probe: Callable[[], Any], **how: Any) -> Any:
            limit_s = PATIENCE_S if never_comes else how["timeout_s"]
            return patient(probe, **{**how, "timeout_s": min(how["timeout_s"], limit_s)})

        monkeypatch.setattr(waiting, "until", until)
        monkeypatch.setattr(waiting, "pause", lambda seconds: slow(min(seconds, 0.6)))

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderHost]:
        host = FolderHost(tmp_path_factory.mktemp("folders"), cls.lie)
        yield host
        host.close()

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MachineSpec]:
        disk = tmp_path_factory.mktemp("image") / "disk"
        disk.write_bytes(b"disk")
        disk.with_name("kernel").write_bytes(b"kernel")
        image = Image("folder", "sha256:0", disk, "raw", kernel=disk.with_name("kernel"))
        profile = Profile(*("p", Firmware.UEFI, "q35", "virtio", "virtio", 1, 64), 3, 320, tpm=True, secure_boot=True)
        return lambda name: MachineSpec(name, Owner("run", "a/b/c", 1, 2), image, profile, data_disk_mib=8)

    @pytest.fixture(scope="class")
    @classmethod
    def log_in(cls) -> Callable[[CapableMachine], Channel]:
        return FolderChannel  # type: ignore[return-value]


for _lie in LIES:
    globals()[f"Test_{_lie.name}"] = type(
        f"Test_{_lie.name}", (TestFolders,), {"lie": _lie.name, "convicted_by": _lie.convicted_by}
    )
