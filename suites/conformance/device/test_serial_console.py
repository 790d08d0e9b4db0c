"""device.serial_console: what the guest writes to its console reaches the host, all of it and in order."""

from __future__ import annotations

import re
import secrets

from lab.suite import Capability, Guest, Machine, TakesSerialInput, check, linux, unsupported, waiting, who_can

LINES = 200
TYPED_LINES = 40
WITHIN_S = 30.0  # 200 lines are 10 KiB; a line of 115,200 bit/s needs a second for them


@check("device.serial_console", level="smoke", defect=True)
def test_console_carries_what_the_guest_writes(guest: Guest, machine: Machine) -> None:
    """Catches a console that is not connected, or a guest that writes to another one."""
    marker = f"lab-console-{secrets.token_hex(8)}"
    linux.sh(guest, f"echo {marker} >/dev/console")
    waiting.until(lambda: marker.encode() in machine.console(), what=f"{marker} in the console log", timeout_s=WITHIN_S)


@check("device.serial_console", defect=True)
def test_console_loses_nothing(guest: Guest, machine: Machine) -> None:
    """Catches lost, doubled and reordered output when much is written at once."""
    marker = f"lab-{secrets.token_hex(4)}"
    write = f'i=0; while [ $i -lt {LINES} ]; do echo "{marker} line $i of {LINES}"; i=$((i + 1)); done'
    # Said three times, so that a console which loses lines is told by what it lost and not by a wait.
    linux.sh(guest, f'{{ {write}; for i in 1 2 3; do echo "{marker} end"; done; }} >/dev/console')
    pattern = re.compile(rf"{marker} line (\d+) of {LINES}\b".encode())
    end = f"{marker} end".encode()
    waiting.until(lambda: end in machine.console(), what="the last line in the console log", timeout_s=WITHIN_S)
    found = [int(number) for number in pattern.findall(machine.console())]
    assert found == list(range(LINES)), (
        f"wrote {LINES} lines in order, the console log has {len(found)}: {found[:10]}..."
    )


@check("device.serial_console", needs=(Capability.SERIAL_INPUT,), cold=True, timeout_s=240, defect=True)
def test_console_takes_what_is_typed(guest: Guest, machine: Machine) -> None:
    """Catches a console without input, and one that loses, doubles or changes what is typed."""
    linux.settle(guest)
    terminal = guest.check("cat", "/sys/class/tty/console/active").split()[-1]
    # Of all terminals called tty and a number a screen's alone tells which of its like is shown.
    if guest.run("test", "-e", f"/sys/class/tty/{terminal}/active").status == 0:
        unsupported(f"the guest's console is its screen ({terminal}), not a serial line")
    text = "".join(f"{number} {secrets.token_hex(12)}\n" for number in range(TYPED_LINES))
    # A login program on the line would read what is meant for us.
    login = f"serial-getty@{terminal}.service"
    had_login = guest.run("systemctl", "stop", login).status == 0
    # Raw, so that every byte comes as it is; hexadecimal digits and ends of lines mean nothing to a terminal anyway.
    collect = f"stty raw -echo; echo ready >&2; head -c {len(text)} >/tmp/lab-typed; touch /tmp/lab-typed-all"
    start = f"rm -f /tmp/lab-typed*; setsid sh -c '{collect}' </dev/{terminal} >/dev/null 2>/tmp/lab-typed-ready &"
    try:
        linux.sh(guest, start)
        waiting.until(
            lambda: guest.check("cat", "/tmp/lab-typed-ready") == "ready",
            what="a reader on the line",
            timeout_s=WITHIN_S,
        )
        who_can(machine, TakesSerialInput).type_on_console(text.encode())
        waiting.until(
            lambda: guest.run("test", "-e", "/tmp/lab-typed-all").status == 0,
            what=f"{len(text)} typed bytes to arrive in the guest",
            timeout_s=WITHIN_S,
        )
        typed = guest.read("/tmp/lab-typed").decode(errors="replace")
        assert typed == text, f"typed {text[:60]!r}..., the guest read {typed[:60]!r}..."
    finally:
        linux.sh(guest, f"stty sane </dev/{terminal} 2>/dev/null; rm -f /tmp/lab-typed*")
        if had_login:
            guest.run("systemctl", "start", login)
