"""The guest of a folder machine: a shell that sees the machine's folder as its root, and a few programs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_INSIDE = re.compile(r"(?<![\w/.])/(var|run|proc(?!/\[0-9\])|dev(?!/zero|/urandom)|sys)\b")
_TO_VAR = re.compile(r">\s*'?([^\s;'&)]*/root/var/[^\s;'&)]*)'?")
_REAL = (
    *(
        "awk",
        "basename",
        "dirname",
        "cat",
        "chmod",
        "cmp",
        "cp",
        "cut",
        "date",
        "dd",
        "env",
        "expr",
        "grep",
        "head",
        "ln",
        "ls",
    ),
    *("mkdir", "mv", "od", "printf", "rm", "rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "tail", "test"),
    *("touch", "tr", "true", "uname", "wc"),
)
_OWN = {
    "poweroff": 'touch "$LAB_ROOT/run/poweroff"',
    # The whole machine's, which would wait for everybody else's disk.
    "sync": ":",
    # ip address add|del ADDRESS dev CARD; every card is up
    "ip": """
file="$LAB_ROOT/sys/class/net/$5/addresses"
case "$1 $2" in
'address add') echo "$3" >>"$file";;
'address del') grep -v -x -F "$3" "$file" >"$file.new"; mv "$file.new" "$file";;
esac
""",
    # ping ... ADDRESS: whether a machine on one of our networks has it
    "ping": """
for address; do :; done
for own in "$LAB_ROOT"/sys/class/net/*/network; do
  for other in "$LAB_ROOT"/../../*/root/sys/class/net/*/network; do
    cmp -s "$own" "$other" && grep -q "^$address/" "${other%/network}/addresses" && exit 0
  done
done
exit 1
""",
    # taskset MASK ...: the number of the processor of a mask, if there is one
    "taskset": """
mask=$((0x$1)) number=0
while [ $mask -gt 1 ]; do mask=$((mask / 2)) number=$((number + 1)); done
[ $(grep -c ^processor "$LAB_ROOT/proc/cpuinfo") -gt $number ] && echo $number
""",
    # busybox watchdog ...: feeds until it is stopped or ended
    "busybox": """
trap 'rm -f "$LAB_ROOT/run/fed"; exit' TERM
while :; do : >"$LAB_ROOT/run/fed"; sleep 0.1; done
""",
    "modprobe": ":",
    "mount": ":",
}


def make_tools(folder: Path) -> Path:
    """A folder with the programs of the guests; nothing else of this machine is found by its name there."""
    folder.mkdir()
    for name in _REAL:
        real = shutil.which(name)
        assert real is not None, name
        (folder / name).symlink_to(real)
    for name, script in _OWN.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


class Processes:
    """The processes of one guest."""

    def __init__(self, root: Path, tools: Path) -> None:
        self.root, self.tools = root, tools
        self.groups: list[int] = []  # of the commands that ran, for what they left in the background

    def run(self, argv: Sequence[str], stdin: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Status and output. Raises `subprocess.TimeoutExpired`, with everything of the command ended."""
        inside = [self._inside(word) for word in argv]
        pipe = subprocess.PIPE
        environment = {"PATH": str(self.tools), "LAB_ROOT": str(self.root)}
        program = shutil.which(inside[0], path=str(self.tools))
        if program is None:
            return 127, b"", b"not found"
        with subprocess.Popen(
            [program, *inside[1:]], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, env=environment
        ) as started:
            try:
                out, err = started.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                raise
        with suppress(ProcessLookupError):
            # Only a group that something stayed in is remembered, so its id cannot become somebody else's.
            os.killpg(started.pid, 0)
            self.groups.append(started.pid)
        return started.returncode, out, err

    def signal(self, number: int) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)

    def _inside(self, word: str) -> str:
        word = _INSIDE.sub(rf"{self.root}/\1", word)
        console = f"{self.root}/dev/console"
        # >> because the console of a folder is a file, which > would empty; what is typed comes from another.
        word = word.replace(f">{console}", f">>{console}").replace(f"<{console}", f"<{self.root.parent}/typed")
        if (self.root.parent / "frozen").exists():
            wait = f"while test -e {self.root.parent}/frozen; do sleep 0.05; done"
            word = _TO_VAR.sub(rf">$({wait}; echo '\1')", word)
        return word
