"""A place for the sweep: inventory, suites, cache and state of its own; whatever is left in it is a leftover."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKS = (
    "boot/test_core.py",
    "cpu/test_smp.py",
    "device/test_rng.py",
    "net/test_ip_reporting.py",
    "net/test_pv_nic.py",
    "storage/test_nvme.py",
    "storage/test_pv_block.py",
    "time/test_clocksource.py",
)
"""Files of the real conformance suite whose smoke checks a cell of the sweep runs."""

PROFILES = ("pc-bios", "q35-uefi", "q35-nvme", "q35-vmxnet3-pvscsi", "q35-virtio")
_OWN_PROFILES = """
q35-virtio:
  like: pc-bios
  chipset: q35
"""
_HOSTS = """
hypervisors:
  vars:
    ansible_connection: local
  hosts:
"""
_REAL_HOSTS = """
    qemu:
      lab_driver: qemu
    uml:
      lab_driver: uml
"""
_SIMULATED_HOSTS = """
    simulated:
      lab_driver: simulated
      lab_cells_at_once: 2
"""


@dataclass(frozen=True)
class Place:
    """One folder with everything of a sweep in it."""

    root: Path
    driver: str  # "real" or "simulated"
    cells: int

    @property
    def inventory(self) -> Path:
        return self.root / "inventories" / "sweep"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def machines(self) -> Path:
        return self.root / "state" / "interop-lab" / "machines"

    @property
    def cache(self) -> Path:
        return self.root / "cache" / "interop-lab"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "TMPDIR": str(self.temporary),
        }

    def make(self) -> None:
        """Write what is needed; safe to call twice."""
        suites = self.root / "suites"
        for name in CHECKS:
            target = suites / "conformance" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / "suites" / "conformance" / name, target)
        shutil.copy(REPOSITORY / "suites" / "features.yaml", suites)
        (self.inventory.parent / "guests").mkdir(parents=True, exist_ok=True)
        self.inventory.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "inventories/guests/jeos.yaml", self.inventory.parent / "guests")
        profiles = (REPOSITORY / "inventories/profiles.yaml").read_text() + _OWN_PROFILES
        # Little memory, because every QEMU cell of the sweep saves or restores it.
        (self.inventory.parent / "profiles.yaml").write_text(profiles.replace("memory_mib: 512", "memory_mib: 256"))
        hosts = _REAL_HOSTS if self.driver == "real" else _SIMULATED_HOSTS
        (self.inventory / "hosts.yaml").write_text(_HOSTS + hosts)
        (self.inventory / "matrix.yaml").write_text(self._matrix())
        self.temporary.mkdir(exist_ok=True)
        self._fill_cache()

    def _matrix(self) -> str:
        host, more = "simulated", ""
        profiles: Sequence[str] = (*PROFILES, "uml")[: self.cells]
        if self.driver == "real":
            host, profiles = "qemu", PROFILES[: self.cells - 1]
            more = "include:\n- cell: uml/jeos/uml\n"
        lines = f"hosts: [{host}]\nguests: [jeos]\nprofiles: [{', '.join(profiles)}]\nsuites: [smoke]\n"
        return f"{lines}suites_from: {self.root / 'suites'}\n{more}"

    def _fill_cache(self) -> None:
        """Images and proofs from this user's cache, when it has them: to make them is not what is swept."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        known = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "interop-lab"
        (self.cache / "images").mkdir(parents=True, exist_ok=True)
        for folder in sorted((known / "images").glob("jeos-*")):
            target = self.cache / "images" / folder.name
            if not target.exists():
                shutil.copytree(folder, target)
        for name in ("kvm-proof.json",):
            if (known / name).exists() and not (self.cache / name).exists():
                shutil.copy2(known / name, self.cache / name)

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Begin a run, or with `--resume` go on with it."""
        words = ["run", str(self.inventory), "--reports", str(self.reports), *more]
        log = (self.root / "last-output.txt").open("w", encoding="utf-8")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "lab", *words],
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def said(self) -> str:
        """What the run that was started last has printed."""
        return (self.root / "last-output.txt").read_text(errors="replace")

    def runs(self) -> list[Path]:
        folder = self.reports / "runs"
        return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
