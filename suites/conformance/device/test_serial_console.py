"""device.serial_console: what the guest writes to its console reaches the host, all of it and in order."""

from __future__ import annotations

import re
import secrets

from lab.suite import Guest, Machine, check, linux, waiting

LINES = 200
WITHIN_S = 30.0  # 200 lines are 10 KiB; a line of 115,200 bit/s needs a second for them


@check("device.serial_console", level="smoke")
def test_console_carries_what_the_guest_writes(guest: Guest, machine: Machine) -> None:
    """Catches a console that is not connected, or a guest that writes to another one."""
    marker = f"lab-console-{secrets.token_hex(8)}"
    linux.sh(guest, f"echo {marker} >/dev/console")
    waiting.until(lambda: marker.encode() in machine.console(), what=f"{marker} in the console log", timeout_s=WITHIN_S)


@check("device.serial_console")
def test_console_loses_nothing(guest: Guest, machine: Machine) -> None:
    """Catches lost, doubled and reordered output when much is written at once."""
    marker = f"lab-{secrets.token_hex(4)}"
    script = f'i=0; while [ $i -lt {LINES} ]; do echo "{marker} line $i of {LINES}"; i=$((i + 1)); done >/dev/console'
    linux.sh(guest, script)
    pattern = re.compile(rf"{marker} line (\d+) of {LINES}\b".encode())
    last = f"{marker} line {LINES - 1} of {LINES}".encode()
    waiting.until(lambda: last in machine.console(), what="the last line in the console log", timeout_s=WITHIN_S)
    found = [int(number) for number in pattern.findall(machine.console())]
    assert found == list(range(LINES)), (
        f"wrote {LINES} lines in order, the console log has {len(found)}: {found[:10]}..."
    )
