"""Run directories for tests, made with the lab's own writers: small ones by hand, a realistic one with everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.contracts import Cell, Realness
from lab.errors import Blame
from lab.results import store
from lab.results.documents import CellDocument, HostDocument, ImageDocument, JournalEvent, KnownIssue, RunDocument
from lab.results.layout import AttemptLayout, RunLayout
from lab.results.record import Measure, Outcome, Record

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)

_BLAMES = {
    Outcome.FAILED: Blame.PRODUCT,
    Outcome.BROKEN: Blame.LAB,
    Outcome.BLOCKED: Blame.LAB,
}


@dataclass(frozen=True)
class Result:
    """What a check left: outcome, reason and the rest of a record that matters to a test."""

    outcome: Outcome
    reason: str = ""
    blame: Blame | None = None
    measured: Mapping[str, Measure] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    seconds: float = 1.25


def passed(**measured: Measure) -> Result:
    return Result(Outcome.PASSED, measured=measured)


def result(outcome: str, reason: str = "", blame: Blame | None = None) -> Result:
    return Result(Outcome(outcome), reason, blame)


Results = Mapping[tuple[str, str], Result]  # (feature, check) -> result

QEMU = HostDocument(
    product="QEMU",
    version="7.2.22",
    build="Debian 1:7.2+dfsg-7+deb12u18",
    accelerator="tcg",
    cpu_model="max",
    details={"machine types": "pc-i440fx-7.2, pc-q35-7.2"},
)
UML = HostDocument(product="User-Mode Linux", version="6.1.42", build="Debian 6.1-2um-1+b1")
DEBIAN = {
    "hostname": "debian-12-5f1c",
    "firmware": "bios",
    "os": {"id": "debian", "name": "Debian GNU/Linux 12 (bookworm)", "version": "12", "init": "systemd"},
    "kernel": {"release": "6.1.0-41-amd64", "arch": "x86_64", "modules": ["virtio_net", "virtio_blk"]},
    "cpu": {"count": 1, "model": "QEMU TCG CPU version 2.5+", "flags": ["fpu", "sse2"]},
    "disks": [{"name": "vda", "size_bytes": 2147483648, "driver": "virtio_blk", "read_only": False}],
}


class RunMaker:
    """One run directory that grows."""

    def __init__(self, reports: Path, run: str = "20261122-061500-a1b2", **facts: Any) -> None:
        self.run = run
        self.layout = RunLayout(reports / "runs" / run)
        self.layout.root.mkdir(parents=True)
        self.started = datetime.strptime(run[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        self.plan: list[dict[str, Any]] = []
        self.facts = facts
        self._document(finished=None)

    def _document(self, finished: datetime | None, outcomes: Mapping[Outcome, int] | None = None) -> None:
        given = {
            "run": self.run,
            "started": self.started,
            "finished": finished,
            "inventory": "inventories/local",
            "command": "lab run inventories/local --suite conformance",
            "version": "0.1.0",
            "machine": {"hostname": "builder-7", "cpus": 2, "memory_mib": 7900, "kernel": "6.8.0"},
            "exit_code": None if finished is None else 0,
            "outcomes": dict(outcomes or {}),
            **self.facts,
        }
        store.write_document(self.layout.run_json, RunDocument.model_validate(given))

    def planned(self, cell: str, realness: str, checks: Sequence[str], excluded: str | None = None) -> None:
        host, guest, profile = cell.split("/")
        self.plan.append(
            {
                "cell": cell,
                "host": host,
                "guest": guest,
                "profile": profile,
                "realness": realness,
                "checks": list(checks),
                "excluded": excluded,
            }
        )

    def cell(
        self,
        cell: str,
        results: Results,
        *,
        realness: Realness = Realness.REAL,
        attempt: int = 1,
        host: HostDocument | None = None,
        **facts: Any,
    ) -> AttemptLayout:
        """One attempt at a cell with its records, and its cell.json."""
        layout = self.layout.attempt(Cell.parse(cell), attempt)
        layout.evidence.mkdir(parents=True)
        writer = store.RecordFile(layout.records)
        started = self.started + timedelta(seconds=40)
        for (feature, check), given in results.items():
            writer.append(self.record(cell, feature, check, given, realness=realness, attempt=attempt, started=started))
            started += timedelta(seconds=given.seconds)
        worst = max((given for given in results.values()), key=lambda given: given.outcome.badness, default=None)
        document = {
            "run": self.run,
            "cell": cell,
            "attempt": attempt,
            "realness": realness,
            "warm": [True],
            "host": host or QEMU,
            "guest": DEBIAN,
            "image": ImageDocument(
                name="debian-12", digest="sha256:" + "5f" * 32, origin="built from snapshot 20261101"
            ),
            "profile": {
                "name": cell.split("/")[2],
                "firmware": "bios",
                "chipset": "q35",
                "disk": "virtio",
                "nic": "virtio",
                "vcpus": 1,
                "memory_mib": 512,
            },
            "phases": {"image": 0.4, "create": 0.21, "boot": 24.9, "login": 1.8, "checks": 41.0, "collect": 2.2},
            "outcome": worst.outcome if worst else None,
            "blame": (_blame(worst) if worst else Blame.NOBODY),
            "reason": worst.reason if worst else "",
            "command": f"lab cell inventories/local {cell}",
            **facts,
        }
        store.write_document(layout.cell_json, CellDocument.model_validate(document))
        return layout

    def record(self, cell: str, feature: str, check: str, given: Result, **facts: Any) -> Record:
        known: dict[str, Any] = {
            "schema": 1,
            "run": self.run,
            "cell": cell,
            "feature": feature,
            "check": check,
            "attempt": 1,
            "outcome": given.outcome,
            "blame": _blame(given),
            "reason": given.reason,
            "realness": Realness.REAL,
            "warm": True,
            "started": self.started,
            "seconds": given.seconds,
            "measured": dict(given.measured),
            "evidence": given.evidence,
        }
        return Record.model_validate(known | facts)

    def finish(self, **facts: Any) -> Path:
        """Write plan, journal and the end of the run; return its directory."""
        store.write_json(self.layout.plan_json, {"schema": 1, "cells": self.plan, "estimate_s": 120.0})
        journal = store.Journal(self.layout.journal)
        journal.append(JournalEvent(time=self.started, event="run-started"))
        records = store.Run.open(self.layout.root).records()
        outcomes = {outcome: sum(record.outcome is outcome for record in records) for outcome in Outcome}
        end = self.started + timedelta(minutes=9)
        journal.append(JournalEvent(time=end, event="run-finished"))
        self.facts |= facts
        self._document(end, {outcome: count for outcome, count in outcomes.items() if count})
        return self.layout.root


def _blame(given: Result) -> Blame:
    return given.blame or _BLAMES.get(given.outcome, Blame.NOBODY)


def check(feature: str, name: str = "holds", suite: str = "conformance") -> tuple[str, str]:
    """A key of `Results`: the feature and a check of it as the suites name them."""
    area, _, subject = feature.partition(".")
    return feature, f"{suite}/{area}/test_{subject}.py::test_{name}"


def known_issue(**facts: Any) -> KnownIssue:
    return KnownIssue(
        **{"reason": "TSO is off in this driver", "owner": "net team", "expires": date(2027, 1, 1)} | facts
    )


HOSTILE_CONSOLE = (
    b"\x1b[2J\x1b[H<script>alert(1)</script>\r\n"
    b"\x1b]0;title\x07[    0.000000] Linux version 6.1.0-41-amd64\r\n"
    b"\x1b[31m[    1.9] EXT4-fs error\x1b[0m \x00\x01\xff\xfe\r\n"
    b"[    2.0] \xe2\x80\xaegnp.exe bidi\n"
)


@dataclass(frozen=True)
class CatalogueLike:
    """As much of a catalogue as pages need."""

    features: tuple[Any, ...]
    checks: tuple[Any, ...]


def small_runs(reports: Path) -> Sequence[Path]:
    """Two runs of the same three cells: every outcome, every realness, a flaky check, a regression, a known issue."""
    return [_night(reports, "20261121-031500-0a0b", yesterday=True), _night(reports, "20261122-031500-a1b2")]


def _night(reports: Path, run: str, *, yesterday: bool = False) -> Path:
    maker = RunMaker(reports, run)
    tcg, uml, fake = "tcg/debian-12/q35", "uml/debian-12/pv", "simulated/debian-12/q35"
    slow = Measure(value=31.4, unit="MiB/s", better="higher")
    results = {
        check("boot.core", "userspace_is_up"): passed(boot=Measure(value=24.9, unit="s", better="lower")),
        check("boot.core", "no_unit_failed"): passed(),
        check("boot.reboot"): passed(),
        check("net.jumbo"): passed() if yesterday else result("failed", "ping -s 8972 lost 10 of 10 packets"),
        check("net.offload_tso_csum"): result("failed", "no TSO on eth0: tcp-segmentation-offload is off"),
        check("time.clocksource"): result("unsupported", "QEMU without KVM offers no paravirtual clock"),
        check("storage.hotplug"): result("blocked", "the machine vanished in the check before"),
        check("memory.balloon"): result("broken", "QMP answered nothing within 10 s"),
        check("cpu.smp"): result("skipped", "one processor only in this profile"),
        check("device.vgpu"): result("not_applicable", "no GPU can be passed to an emulated machine"),
        check("storage.pv_block", "sequential_read", "performance"): passed(read=slow),
    }
    planned = [name for _, name in results]
    maker.planned(tcg, "emulated", [*planned, check("net.vlan")[1]])
    issues = [known_issue(cell="tcg/*", feature="net.offload_tso_csum")]
    first = maker.cell(tcg, results, realness=Realness.EMULATED, known_issues=issues)
    first.console.write_bytes(HOSTILE_CONSOLE)
    first.kernel_log.write_bytes(b"[    0.000000] Command line: root=/dev/vda console=ttyS0\n")
    first.cell_log.write_text("2026-11-22T03:15:41.120 INFO lab.hypervisors.qemu machine.started seconds=1.200\n")
    first.reproduce.write_text(
        "qemu-system-x86_64 -machine q35,accel=tcg -m 512 -nographic \\\n  -drive file=root.qcow2\n"
    )
    (first.evidence / "ethtool.txt").write_text("tcp-segmentation-offload: off [fixed]\n")

    maker.planned(uml, "real", [name for _, name in (check("boot.core"), check("net.pv_nic"))])
    maker.cell(uml, {check("net.pv_nic"): result("failed", "vec0 gave up")}, host=UML)
    second = maker.cell(uml, {check("boot.core"): passed(), check("net.pv_nic"): passed()}, host=UML, attempt=2)
    second.console.write_bytes(b"Kernel panic? no.\n")

    maker.planned(fake, "simulated", [check("boot.core")[1]])
    maker.cell(
        fake, {check("boot.core"): passed()}, realness=Realness.SIMULATED, host=HostDocument(product="Simulated")
    )
    maker.planned("tcg/alpine-3/microvm", "emulated", [], excluded="no driver for pvscsi in this guest")
    maker.planned("tcg/jeos/microvm", "emulated", [check("boot.core")[1]])
    return maker.finish()


def many_cells(reports: Path, cells: Iterable[str], features: Sequence[str]) -> Path:
    """A large run whose outcomes differ from cell to cell."""
    outcomes = list(Outcome)
    maker = RunMaker(reports)
    for number, cell in enumerate(cells):
        results = {
            check(feature): Result(
                Outcome.PASSED if (number + at) % 5 else outcomes[(number + at) % len(outcomes)], "because"
            )
            for at, feature in enumerate(features)
        }
        maker.planned(cell, "emulated", [name for _, name in results])
        layout = maker.cell(cell, results, realness=Realness.EMULATED)
        layout.console.write_bytes(b"[ 0.0] Linux version\n" * 40)
    return maker.finish()
