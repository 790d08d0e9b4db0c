"""A process that is the parent of a libvirtd and of every QEMU which that leaves behind; run as a program of its own.

libvirtd lets its QEMUs be adopted by process 1. One that never asks how its children ended (a container without an
init, prctl(2), PR_SET_CHILD_SUBREAPER) keeps them as zombies, and libvirt takes a zombie for a process that resists
SIGKILL: it waits 40 s for it and then holds the domain to be running for ever (virProcessKillPainfullyDelay).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run the program; its exit status, when nothing that it started is left."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)  # noqa: T201  the caller reads it
        return 1
    program = os.posix_spawn(argv[0], argv, os.environ)

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(program, number)

    signal.signal(signal.SIGTERM, pass_on)
    status = 0
    while True:
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            return status
        if pid == program:
            status = 1 if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)
            # Its id may become that of another process.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
