"""lifecycle.crash_dump: the host sees that the guest's kernel panicked."""

from __future__ import annotations

from lab.suite import Guest, Machine, MachineState, Reconnect, check, linux, waiting

SEEN_WITHIN_S = 60.0
BACK_WITHIN_S = 240.0


@check("lifecycle.crash_dump", cold=True, timeout_s=500, defect=True)
def test_host_sees_a_panic(guest: Guest, machine: Machine, reconnect: Reconnect) -> None:
    """Catches a panic that the hypervisor takes for a running guest: nobody would ever be called."""
    linux.settle(guest)
    linux.sh(guest, "sync; echo 0 >/proc/sys/kernel/panic")
    # In the background, so that the command returns before the guest is gone.
    linux.sh(guest, "(sleep 1; echo c >/proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &")
    try:
        waiting.until(
            lambda: machine.state() is not MachineState.RUNNING,
            what="the hypervisor to notice that the guest's kernel panicked",
            timeout_s=SEEN_WITHIN_S,
        )
        state = machine.state()
        assert state is MachineState.CRASHED, f"the guest's kernel panicked, and the hypervisor says {state}"
        console = machine.console()
        assert b"Kernel panic" in console[-20_000:], "the console does not show the panic"
    finally:
        machine.stop(force=True)
        machine.start()
        reconnect(BACK_WITHIN_S)
