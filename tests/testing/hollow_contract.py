"""A driver that has every method and does nothing; `test_hypervisor.py` runs the contract suite over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.contracts import (
    CommandResult,
    Firmware,
    HostFacts,
    Image,
    MachineSpec,
    MachineState,
    Owner,
    Profile,
    Realness,
)
from lab.testing.hypervisor import HypervisorContract


class Hollow:
    """Every method of every capability, each answering with what looks right and doing nothing."""

    name = "hollow"

    def __init__(self, spec: MachineSpec | None = None) -> None:
        self.spec = spec

    def state(self) -> MachineState:
        return MachineState.RUNNING

    def snapshots_hold_memory(self) -> bool:
        return True

    def console(self) -> bytes:
        return b""

    def limits(self) -> dict[Any, str]:
        return {}

    def facts(self) -> HostFacts:
        return HostFacts("Hollow", "", "", Realness.REAL)

    def create(self, spec: MachineSpec) -> Hollow:
        return Hollow(spec)

    def run(self, argv: Any, *, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        return CommandResult(tuple(argv), 0, b"", b"", 0.0)


def _nothing(*_: Any, **__: Any) -> Any:
    return ()


def _zero(*_: Any, **__: Any) -> int:
    return 0


_METHODS = """
    start stop addresses endpoint reproduce destroy upload machines snapshot restore delete_snapshot snapshots
    warm_key has_warm save_warm warm_identity clone_warm forget_warm pause resume inject_nmi set_balloon attach_disk
    detach_disk resize_data_disk attach_nic detach_nic close attach_shared_nic set_vcpus attach_memory detach_memory
    save_state discard_saved_state migrate_live place type_on_console boot_unsigned boot_from_network
    agent_run agent_read agent_write agent_addresses vsock_endpoint set_key key key_names delete_key dump_memory
    send_sysrq migrate_cold
"""
for _method in _METHODS.split():
    setattr(Hollow, _method, _nothing)
for _method in ("balloon_mib", "data_disk_used_bytes", "vcpus", "watchdog_fired", "freeze", "thaw"):
    setattr(Hollow, _method, _zero)


def _yes(*_: Any, **__: Any) -> bool:
    return True


for _method in ("has_saved_state", "agent_answers", "secure_boot_enforced"):
    setattr(Hollow, _method, _yes)
Hollow.destinations = lambda self: ("there",)  # type: ignore[attr-defined]
Hollow.cold_destinations = lambda self: ("there",)  # type: ignore[attr-defined]
Hollow.tpm_version = lambda self: "2.0"  # type: ignore[attr-defined]
Hollow.key_store = lambda self: "xenstore"  # type: ignore[attr-defined]
Hollow.screenshot = lambda self: b""  # type: ignore[attr-defined]


class TestHollow(HypervisorContract):
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # What never comes need not be waited for long.
        from lab import waiting
        from lab.errors import WaitedTooLong

        def until(probe: Callable[[], Any], **_: Any) -> Any:
            answer = probe()
            if not answer:
                raise WaitedTooLong("waited for what a hollow driver never does")
            return answer

        monkeypatch.setattr(waiting, "until", until)

    @pytest.fixture(scope="class")
    @classmethod
    def hypervisor(cls) -> Hollow:
        return Hollow()

    @pytest.fixture(scope="class")
    @classmethod
    def boot_spec(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MachineSpec]:
        disk = Path(tmp_path_factory.mktemp("hollow")) / "disk"
        disk.write_bytes(b"x")
        image = Image("hollow", "sha256:0", disk, "raw")
        profile = Profile("p", Firmware.UEFI, "q35", "x", "x", 1, 64, 3, 320, tpm=True, secure_boot=True)
        return lambda name: MachineSpec(name, Owner("r", "a/b/c", 1, 2), image, profile, data_disk_mib=8)

    @pytest.fixture(scope="class")
    @classmethod
    def log_in(cls) -> Callable[[Any], Any]:
        return lambda machine: Hollow()
