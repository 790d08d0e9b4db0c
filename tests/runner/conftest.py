"""Runs of the real program in a place of their own, with the images that this machine has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import locations

REPOSITORY = Path(__file__).parents[2]
LOCAL = REPOSITORY / "inventories" / "local"
TIMEOUT_S = 600.0


@dataclass
class Lab:
    """Starts `lab` and reads what it left."""

    place: Path
    inventory: Path = LOCAL
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = self.place / "own-cache"
        self.fill_cache(("images", "uml"))

    @property
    def reports(self) -> Path:
        return self.place / "reports"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.place / "state"), "XDG_CACHE_HOME": str(self.cache)}

    def fill_cache(self, shared: Sequence[str]) -> None:
        """Images are dear, so they are this machine's; and the proof about KVM, which takes 10 s.

        Saved machines are not: they let in the key of the lab that saved them, and another lab throws them away.
        """
        folder = self.cache / "interop-lab"
        folder.mkdir(parents=True)
        for name in shared:
            (locations.cache() / name).mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(locations.cache() / name)
        proof = locations.cache() / "kvm-proof.json"
        if proof.exists():
            shutil.copy(proof, folder)

    def keep_images_apart(self) -> None:
        """Put the images as well into a cache of its own."""
        self.cache = self.place / "apart"
        self.fill_cache(())

    def start(self, *words: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [sys.executable, "-m", "lab", *words],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell starts what runs in the background without Ctrl-C, and these tests may run there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._started.append(started)
        return started

    def run_words(self, *more: str) -> Sequence[str]:
        return ("run", str(self.inventory), "--reports", str(self.reports), *more)

    def run(self, *more: str) -> tuple[int, str]:
        """Run to the end; exit status and output."""
        started = self.start(*self.run_words(*more))
        out, _ = started.communicate(timeout=TIMEOUT_S)
        return started.returncode, out

    def runs(self) -> list[Path]:
        folder = self.reports / "runs"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def records(self, run: Path) -> list[dict[str, Any]]:
        files = sorted(run.glob("cells/*/*/*/attempt-*/records.jsonl"))
        return [json.loads(line) for file in files for line in _lines(file)]

    def cells(self, run: Path) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(run.glob("cells/*/*/*/attempt-*/cell.json"))]

    def journal(self, run: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in _lines(run / "journal.jsonl")]

    def machine_files(self) -> list[Path]:
        # A walk goes on when a machine is destroyed meanwhile, and a glob does not.
        folders = os.walk(self.place / "state")
        return [Path(folder) / "machine.json" for folder, _, files in folders if "machine.json" in files]

    def processes(self) -> list[str]:
        """Command lines of every process that has to do with this place."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.place) in command:
                    found.append(f"{entry.name} {command[:200]}")
        return found

    def end(self) -> None:
        for started in self._started:
            if started.poll() is None:
                started.send_signal(signal.SIGINT)
                try:
                    started.wait(180)
                except subprocess.TimeoutExpired:
                    started.kill()
                    started.wait()
            if started.stdout is not None:
                started.stdout.close()
        subprocess.run(
            [sys.executable, "-m", "lab", "reap", str(self.inventory), "--older-than", "0"],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )


def _lines(file: Path) -> list[str]:
    """Those that are whole: of a run that goes on, the last one may be under way."""
    return file.read_text().split("\n")[:-1]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.end()
