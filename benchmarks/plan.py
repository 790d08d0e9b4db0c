"""Planning: seconds and memory for 25,000, 50,000 and 100,000 cells, each in a process of its own.

    python benchmarks/plan.py             a table, with ratios to the smallest
    python benchmarks/plan.py --json      one JSON document instead
    python benchmarks/plan.py --cells N   measure one size in this process and print it as JSON

Planning waits for nothing, so its seconds are those of the processor: what else runs here does not count.
Limits for 100,000 cells: 2 s, 300 MiB, and no more than 1.5 times the seconds per cell of the smallest.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SIZES = (25_000, 50_000, 100_000)
GUESTS, PROFILES = 50, 20
CHECKS = 60
LIMIT_S, LIMIT_MIB, LIMIT_RATIO = 2.0, 300.0, 1.5


def measure(cells: int) -> dict[str, float]:
    """Plan that many cells here; the process's memory at its largest includes Python and the inventory."""
    from lab import hypervisors
    from lab.catalogue import Catalogue, Check, Feature
    from lab.contracts import Firmware, Profile, Realness
    from lab.inventory.models import BuildSource, Exclusion, GuestEntry, Host, Inventory, Matrix, OsName
    from lab.runner import plan

    hosts = {f"host-{n}": Host(f"host-{n}", "qemu", None, Realness.REAL) for n in range(cells // (GUESTS * PROFILES))}
    guests = {
        f"guest-{n}": GuestEntry(
            name=f"guest-{n}",
            title="A guest",
            family="linux",
            os=OsName(name="os", version="1"),
            image=BuildSource(build="x"),
            drivers=("virtio",) if n % 10 else ("nvme",),
        )
        for n in range(GUESTS)
    }
    profiles = {
        f"profile-{n}": Profile(f"profile-{n}", Firmware.BIOS, "q35", "virtio", "virtio", 1, 512)
        for n in range(PROFILES)
    }
    exclusions = tuple(Exclusion(cells=f"host-{n}/guest-7/*", reason="not today") for n in range(8))
    matrix = Matrix(tuple(hosts), tuple(guests), tuple(profiles), ("smoke", "conformance"), exclude=exclusions)
    inventory = Inventory(Path("dc"), hosts, guests, profiles, matrix, Path("suites"))
    features = tuple(Feature(f"area.f{n}", "Area", "meaning", ("linux",), ("qemu",)) for n in range(CHECKS))
    checks = tuple(Check(f"conformance/area/test_x.py::test_{n}", f"area.f{n}") for n in range(CHECKS))

    hypervisors.load("qemu")  # importing it is the same for every size and would make the smallest look slow
    before = time.process_time()
    made = plan.make(inventory, Catalogue(features, checks), suite=None, select=("host-*",), exclude=("*/profile-0",))
    seconds = time.process_time() - before
    assert len(made.cells) == cells * (PROFILES - 1) // PROFILES
    assert sum(planned.excluded is None for planned in made.cells) > cells // 2
    return {"cells": cells, "seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_own_process(cells: int) -> dict[str, float]:
    """Measure one size where no other size has left its memory; the best of three, for noise only adds."""
    runs = []
    for _ in range(3):
        out = subprocess.run([sys.executable, __file__, "--cells", str(cells)], check=True, capture_output=True)
        runs.append(json.loads(out.stdout))
    return min(runs, key=lambda run: run["seconds"])


def ratio_per_cell(measured: Sequence[dict[str, float]]) -> float:
    """Seconds per cell of the largest size over those of the smallest: 1 is linear."""
    first, last = measured[0], measured[-1]
    return (last["seconds"] / last["cells"]) / (first["seconds"] / first["cells"])


def main(words: Sequence[str]) -> int:
    if words[:1] == ["--cells"]:
        print(json.dumps(measure(int(words[1]))))
        return 0
    measured = [in_own_process(cells) for cells in SIZES]
    ratio, last = ratio_per_cell(measured), measured[-1]
    good = last["seconds"] < LIMIT_S and last["mib"] < LIMIT_MIB and ratio < LIMIT_RATIO
    if words == ["--json"]:
        print(json.dumps({"measured": measured, "ratio_per_cell": ratio, "within_limits": good}))
        return not good
    print(f"{'cells':>8} {'seconds':>9} {'ratio':>6} {'us per cell':>12} {'MiB':>7}")
    for row in measured:
        times = row["seconds"] / measured[0]["seconds"]
        print(
            f"{row['cells']:>8} {row['seconds']:>9.3f} {times:>6.2f} "
            f"{row['seconds'] / row['cells'] * 1e6:>12.2f} {row['mib']:>7.1f}"
        )
    print(f"seconds per cell, largest over smallest: {ratio:.2f} (1.00 is linear)")
    print("within the limits" if good else f"OVER THE LIMITS: {LIMIT_S} s, {LIMIT_MIB} MiB, {LIMIT_RATIO}")
    return not good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
