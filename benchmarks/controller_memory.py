"""Memory of a run: the lab's own processes while real guests run, against what they may take.

    python benchmarks/controller_memory.py

Counted are the controller, the server that cells fork from, and the cells; not the machines. A page that several
of them share is counted once (PSS in /proc/PID/smaps_rollup, proc(5)).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.row import Row  # noqa: E402 - also run as a file
from lab import waiting  # noqa: E402

ALONE_MIB, PER_CELL_MIB = 150.0, 25.0
LIMIT_S = 900.0
CELLS = "qemu/jeos/*"


@dataclass
class Peak:
    """The moment at which the run took most of what it may take."""

    mib: float = 0.0
    cells: int = 0

    @property
    def allowed_mib(self) -> float:
        return ALONE_MIB + PER_CELL_MIB * self.cells

    def take(self, mib: float, cells: int) -> None:
        """Keep the worse of this moment and the worst before it."""
        now = Peak(mib, cells)
        if now.mib / now.allowed_mib > self.mib / self.allowed_mib:
            self.mib, self.cells = mib, cells


def measure() -> list[Row]:
    """Run a part of the local lab and look at its processes all the while."""
    peak = Peak()
    with tempfile.TemporaryDirectory() as reports:
        line = (
            *(sys.executable, "-m", "lab", "run", "inventories/local"),
            *("--select", CELLS, "--suite", "smoke"),
            "--reports",
            reports,
        )
        with subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as run:

            def ended() -> bool:
                cells = _cells(run.pid)
                peak.take(sum(_pss_mib(pid) for pid in (run.pid, *_children(run.pid), *cells)), len(cells))
                return run.poll() is not None

            try:
                waiting.until(ended, what="the run to end", timeout_s=LIMIT_S, longest_pause_s=0.25)
            finally:
                run.terminate()
    return [
        Row(
            f"memory of `lab run`, {peak.cells} cells running",
            f"{peak.mib:.0f} MiB",
            f"{peak.mib / peak.allowed_mib:.2f} of what it may take",
            f"{ALONE_MIB:.0f} MiB + {PER_CELL_MIB:.0f} MiB a cell = {peak.allowed_mib:.0f} MiB",
            0 < peak.mib <= peak.allowed_mib and peak.cells > 0,
        )
    ]


def _children(pid: int) -> list[int]:
    """The processes that a process started, of Python only: machines are not the lab's memory."""
    try:
        listed = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in listed if "python" in Path(f"/proc/{child}/exe").readlink().name]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cells(controller: int) -> list[int]:
    """The cells: children of the server, which is a child of the controller."""
    return [cell for server in _children(controller) for cell in _children(server)]


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    for row in measure():
        print(*row.cells(), sep="  ")
