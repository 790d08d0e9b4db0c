"""First login: wait for a booting guest while its console is watched, or renew a restored one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from lab import log, waiting
from lab.contracts import CountsResets, Endpoint, Machine, MachineState, SshLogin
from lab.errors import (
    GuestError,
    GuestHasNoNetwork,
    GuestHasNoSsh,
    GuestRebooted,
    GuestUnreachable,
    HostKeyChanged,
    MachineVanished,
    WaitedTooLong,
)
from lab.guests import claims, triage
from lab.guests.channels import ssh
from lab.guests.families import linux
from lab.guests.guest import Guest
from lab.guests.identity import Identity
from lab.provisioning import keys

_log = log.get(__name__)

LOGIN_TIMEOUT_S = 30.0
"""For key exchange and login once the SSH banner is there; emulated guests need a second or two."""

CLONE_TIMEOUT_S = 30.0
"""For a restored guest to answer; it is up already, so a longer silence means that the copy is bad."""

PROBE_TIMEOUT_S = 25.0
"""For the SSH greeting. An emulated guest forks a server for each connection, which takes seconds while it boots:
who hangs up early and asks again keeps it from ever answering."""

CONSOLE_EVERY_S = 1.0
"""How often the console of a booting guest is read."""

STOPS_BOOT = frozenset({"kernel-panic", "root-missing", "bootloader", "firmware", "filesystem", "oom"})
"""Classes of failure that explain why a guest resets itself."""

GuestMaker = Callable[[SshLogin, float], Guest]


QUIET_S = 10.0
"""How long the console must be silent before a boot loader or a missing root is believed to be final."""

SETTLED_S = 40.0
"""How long a guest may stay unreachable after its console showed a login and fell silent."""

RESETS_ALLOWED = 3
"""How often a guest may reset itself while it boots (first-boot relabelling, firmware updates) before it is a loop."""


def log_in(machine: Machine, port: int, make: GuestMaker, login: SshLogin, *, timeout_s: float) -> Guest:
    """Log in to a booting guest; give up as soon as its console proves that it will not come up.

    Raises the `GuestError` that tells panic, boot loader, missing root, hang, no network and no SSH apart,
    `MachineVanished` when the machine ended by itself.
    """
    watch = _Watch(machine)
    deadline = time.monotonic() + timeout_s
    prober = _Prober(machine.endpoint(port))

    def answers() -> Guest | None:
        watch.look()
        watch.answer = prober.answer() or watch.answer
        if watch.answer is not ssh.Answer.BANNER:
            return None
        try:
            return make(login, max(LOGIN_TIMEOUT_S, deadline - time.monotonic()))
        except GuestUnreachable as reason:
            # sshd may restart once while the guest still boots; the deadline decides.
            _log.info("login.again", machine=machine.name, reason=reason)
            watch.answer = ssh.Answer.CLOSED
            return None

    try:
        return waiting.until(
            answers, what=f"{machine.name} to answer over SSH", timeout_s=timeout_s, longest_pause_s=0.2
        )
    except WaitedTooLong:
        raise watch.error(timeout_s) from None


def log_in_to_clone(machine: Machine, make: GuestMaker, template: SshLogin, identity: Identity) -> Guest:
    """Log in to a restored copy with the template's identity, give it its own, and log in again with that.

    Clock, identity and entropy are renewed before any check sees the guest.
    """
    guest = log_in_anew(machine, make, template)
    try:
        renewal = linux.renew_identity(guest.channel, identity, keys.client_key().public, datetime.now(UTC))
    finally:
        guest.close()
    own = SshLogin(template.user, template.private_key, identity.host_key_public)
    guest = log_in_anew(machine, make, own)
    try:
        linux.await_clock(guest.channel, renewal)
    except BaseException:
        guest.close()
        raise
    return guest


def log_in_anew(machine: Machine, make: GuestMaker, login: SshLogin) -> Guest:
    """Log in to a restored copy, whose SSH server may be about to start anew. Raises `WaitedTooLong`."""

    def answers() -> Guest | None:
        try:
            return make(login, LOGIN_TIMEOUT_S)
        except (GuestUnreachable, GuestHasNoSsh, GuestHasNoNetwork, HostKeyChanged) as reason:
            # The old listener may answer once more while the new key is being put in place.
            _log.debug("clone.again", machine=machine.name, reason=reason)
            return None

    what = f"the restored {machine.name} to answer with the host key {login.host_key[-12:]}"
    return waiting.until(answers, what=what, timeout_s=CLONE_TIMEOUT_S, longest_pause_s=0.1)


class _Prober:
    """Asks a guest's SSH port beside the watch over its console; one question at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._answers: queue.SimpleQueue[ssh.Answer] = queue.SimpleQueue()
        self._asking: threading.Thread | None = None

    def answer(self) -> ssh.Answer | None:
        """The answer to a question that has ended; asks the next one when none is under way."""
        if self._asking is None:
            self._asking = threading.Thread(target=self._ask, daemon=True, name="ssh-probe")
            self._asking.start()
        self._asking.join(0.05)
        if self._asking.is_alive():
            return None
        self._asking = None
        return self._answers.get()

    def _ask(self) -> None:
        self._answers.put(ssh.probe(self._endpoint, timeout_s=PROBE_TIMEOUT_S))


class _Watch:
    """What the console of a booting machine says, read now and then."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._log = b""
        self._looked = 0.0
        self._begun = self._changed = time.monotonic()
        self._crashed = False
        self._stopped_by: triage.Triage | None = None
        self.answer = ssh.Answer.SILENT

    def look(self) -> None:
        """Raise when the console or the hypervisor proves that waiting longer is of no use."""
        now = time.monotonic()
        if now - self._looked < CONSOLE_EVERY_S:
            return
        self._looked = now
        state = self._machine.state()
        log_now = self._machine.console()
        if log_now != self._log:
            self._log, self._changed = log_now, now
        if state is MachineState.GONE:
            last = triage.last_line(self._log)
            raise MachineVanished(
                f"{self._machine.name} ended while it booted; its console's last line was {last!r}",
                hint="was it killed from outside? The run's cell.log has what the hypervisor said",
            )
        found = triage.triage(self._log)
        self._crashed = state is MachineState.CRASHED
        silent_s = now - self._changed
        certain = claims.is_certain(found, crashed=self._crashed, silent_s=silent_s, answer=self.answer)
        final = found.failure_class in ("firmware", "bootloader", "root-missing") and silent_s > QUIET_S
        settled = triage.stage(self._log) is triage.Stage.LOGIN and silent_s > SETTLED_S
        if (not found.booted and (certain or final)) or (settled and self.answer is not ssh.Answer.BANNER):
            raise self.error(now - self._begun)
        if found.failure_class in STOPS_BOOT:
            self._stopped_by = found
        if isinstance(self._machine, CountsResets) and self._machine.resets() > RESETS_ALLOWED:
            if self._stopped_by is not None:
                # The boot that runs now looks well so far; what ended the ones before is the cause.
                raise triage.error_for(
                    self._stopped_by, self.answer, self._log, waited_s=now - self._begun, guest=self._machine.name
                )
            raise GuestRebooted(
                f"{self._machine.name} reset itself {self._machine.resets()} times while it booted",
                hint="the console log shows what each boot ended with",
            )

    def error(self, waited_s: float) -> GuestError:
        """The error that names what stopped the boot and whose fault it is."""
        found = claims.weighed(triage.triage(self._log), crashed=self._crashed, answer=self.answer)
        return triage.error_for(found, self.answer, self._log, waited_s=waited_s, guest=self._machine.name)
