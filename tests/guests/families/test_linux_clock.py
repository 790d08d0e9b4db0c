"""The program that sets a guest's clock: it is its source, every shell writes it whole, and it judges its words.

That it sets a clock is seen in restored guests (the suites check their clocks), never here.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lab.guests.families import _linux_clock as clock

OTHER_PROCESSORS = pytest.mark.skipif(platform.machine() != clock.MACHINE, reason="it runs on x86-64 only")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    made = tmp_path / "clock"
    made.write_bytes(clock.PROGRAM)
    made.chmod(0o700)
    return made


def test_the_program_is_the_assembled_source(tmp_path: Path) -> None:
    source = Path(clock.__file__).with_name("_linux_clock.s")
    made, linked = str(tmp_path / "clock.o"), str(tmp_path / "clock")
    subprocess.run(["as", "--64", source, "-o", made], check=True, timeout=60)
    line = ["ld", "-Ttext", "0x400000", "--oformat", "binary", "-e", "_start", made, "-o", linked]
    subprocess.run(line, check=True, timeout=60)

    assert Path(linked).read_bytes() == clock.PROGRAM


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_shell_writes_it_as_it_is(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    words = [shell, "sh"] if shell == "busybox" else [shell]

    written = subprocess.run([*words, "-c", f"printf %b '{clock.as_text()}'"], capture_output=True, check=True)

    assert written.stdout == clock.PROGRAM


@OTHER_PROCESSORS
def test_without_words_it_shows_that_it_can_be_started(program: Path) -> None:
    assert subprocess.run([str(program)], timeout=60, check=False).returncode == 0


@OTHER_PROCESSORS
@pytest.mark.parametrize("words", [("1",), ("1", "2", "3"), ("1", "1000000000"), ("1", "99999999999")])
def test_what_is_no_time_is_refused_and_sets_nothing(program: Path, words: tuple[str, ...]) -> None:
    assert subprocess.run([str(program), *words], timeout=60, check=False).returncode == 1


@OTHER_PROCESSORS
def test_who_may_not_set_the_clock_is_told_so(program: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives nobody a user namespace")

    # Root of a user namespace may not set the machine's clock (user_namespaces(7)).
    now = f"{time.time():.0f}"
    assert subprocess.run([*alone, str(program), now, "0"], timeout=60, check=False).returncode == 1
