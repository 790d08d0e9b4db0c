"""Working in a cell by hand: bring its guest up and leave it up, find it from another shell, put it away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from lab import hypervisors, log, process
from lab.contracts import Capability, Cell, Hypervisor, Machine, MachineState, Owner, SshLogin, TakesScreenshots
from lab.errors import ConfigurationError, GuestError, LabError, MachineVanished, NotSupported, NotUp
from lab.guests import claims, triage
from lab.guests.channels import ssh
from lab.guests.triage import Triage
from lab.inventory.models import Inventory
from lab.provisioning import hosts, keys
from lab.provisioning.bring_up import CellSession, guest_maker, open_session
from lab.provisioning.first_login import PROBE_TIMEOUT_S, log_in
from lab.runner import kept, reap
from lab.runner.kept import Document, Place

Progress = Callable[[str], None]


class How(StrEnum):
    """What `lab up` did."""

    ALREADY = "already"  # nothing: it was up
    STARTED = "started"  # it was powered off, and was started again
    RESTORED = "restored"  # a copy of a machine that had booted was started
    BOOTED = "booted"  # a new machine was booted


@dataclass(frozen=True)
class Spot:
    """A cell of an inventory, and the command line's words for it."""

    inventory: Inventory
    cell: Cell
    written: str  # the inventory as it was written, for hints

    @property
    def place(self) -> Place:
        return kept.place_of(self.inventory.path, self.cell)

    def command(self, name: str) -> str:
        """`lab NAME INVENTORY CELL`."""
        return f"lab {name} {self.written} {self.cell}"


@dataclass(frozen=True)
class Found:
    """A machine that is kept up, while its host is connected."""

    document: Document
    hypervisor: Hypervisor
    machine: Machine


def spot(inventory: Inventory, name: str, written: str) -> Spot:
    """The cell of that name. Raises `ConfigurationError` for what is not in the inventory."""
    cell = Cell.parse(name)
    lacking = inventory.lacks(cell)
    if lacking is not None:
        raise ConfigurationError(
            f'{cell}: there is no {lacking.kind} "{lacking.name}"', hint=f"known: {', '.join(lacking.known)}"
        )
    return Spot(inventory, cell, written)


# ---------------------------------------------------------------------------------------------------------
# Up and down


def up(at: Spot, *, cold: bool, progress: Progress) -> tuple[Document, How]:
    """Bring a cell up and leave it up; what is known of it, and how it came up.

    A guest that was powered off is started again, with its disks as they are.
    Raises what bringing up raises, `ConfigurationError` when the cell cannot be, `LabBusy`.
    """
    with at.place.locked():
        document = at.place.read()
        if document is None:
            _require_possible(at)
            document = _bring_up(at, cold=cold, progress=progress)
            return document, How.RESTORED if document.warm else How.BOOTED
        with found(at) as it:
            if it.machine.state() is MachineState.STOPPED:
                progress("start")
                _start(at, it)
                return document, How.STARTED
            require_well(at, it)
        return document, How.ALREADY


def down(at: Spot) -> bool:
    """Destroy the machine of a cell and forget the cell; false when there was nothing. Raises `LabError`, `LabBusy`."""
    with at.place.locked():
        was_up = at.place.read() is not None
        destroyed = _destroy(at)
        at.place.clear()
    return was_up or destroyed


def _require_possible(at: Spot) -> None:
    profile = at.inventory.profile_of(at.cell)
    entry = at.inventory.guests[at.cell.guest]
    driver = hypervisors.load(at.inventory.hosts[at.cell.host].driver)
    reason = driver.refuses(profile) or entry.lacks(profile) or entry.missing()
    if reason is not None:
        raise ConfigurationError(f"{at.cell} cannot be brought up: {reason}")


def _bring_up(at: Spot, *, cold: bool, progress: Progress) -> Document:
    place = at.place
    _destroy(at)  # of a `lab up` that was killed
    place.make()
    owner = Owner(place.run, at.cell.name, os.getpid(), process.start_time(os.getpid()) or 0)
    handler = log.write_to(place.log)
    try:
        with open_session(at.inventory, at.cell, owner=owner, directory=place.folder, progress=progress) as session:
            try:
                session.guest(cold=cold)
            except NotSupported as reason:
                raise ConfigurationError(f"{at.cell} cannot be worked in: {reason.what}") from reason
            document = _document(at, session)
            place.write(document)
            # The last thing that can go wrong is done: from here on the machine is the next shell's.
            session.let_go()
    except GuestError as reason:
        # The folder stays until the next `lab up`, because the console is in it.
        reason.hint = f"all of its console: {place.folder / 'console.log'}"
        raise
    except BaseException:
        place.clear()
        raise
    finally:
        log.stop_writing(handler)
    return document


def _document(at: Spot, session: CellSession) -> Document:
    machine, login = session.machine, session.login
    if machine is None or login is None:
        raise AssertionError("a session whose guest is up has a machine")
    return Document(
        cell=at.cell.name,
        inventory=at.inventory.path.resolve(),
        machine=machine.name,
        user=login.user,
        port=session.entry.channel.port,
        host_key=login.host_key,
        warm=session.is_warm,
        since=datetime.now(UTC),
    )


def _start(at: Spot, it: Found) -> None:
    entry = at.inventory.guests[at.cell.guest]
    make = guest_maker(at.cell, entry.family, it.hypervisor, it.machine, it.document.port)
    it.machine.start()
    login = SshLogin(it.document.user, keys.client_key().private, it.document.host_key)
    limit_s = at.inventory.hosts[at.cell.host].boot_limit_s(entry)
    log_in(it.machine, it.document.port, make, login, timeout_s=limit_s).close()


def _destroy(at: Spot) -> bool:
    host = at.inventory.hosts[at.cell.host]
    reaped = reap.reap_host(host, picks=reap.of_run(at.place.run))
    if reaped.problem:
        raise LabError(f"{at.cell} could not be put away: {reaped.problem}", hint="try again once the host answers")
    return bool(reaped.destroyed)


# ---------------------------------------------------------------------------------------------------------
# Finding it again


@contextmanager
def found(at: Spot) -> Iterator[Found]:
    """The machine of a cell that is up, in whatever state it is. Raises `NotUp`, `MachineVanished`, `HostError`."""
    document = at.place.read()
    if document is None:
        raise NotUp(f"{at.cell} is not up", hint=at.command("up"))
    host = at.inventory.hosts[at.cell.host]
    with hosts.connect_existing(host) as hypervisor:
        machines = [
            machine
            for owner, machine in (hypervisor.machines() if hypervisor is not None else ())
            if owner.run == at.place.run and machine.name == document.machine
        ]
        if hypervisor is None or not machines:
            raise MachineVanished(
                f"the machine of {at.cell} is not on {host.name} any more: somebody destroyed it",
                hint=f"{at.command('down')} forgets it",
            )
        yield Found(document, hypervisor, machines[0])


def require_well(at: Spot, it: Found) -> None:
    """Raise what happened to the guest when it does not run any more: its console's last words, and whose fault."""
    state = it.machine.state()
    console = it.machine.console()
    read = _weighed(it, state, triage.triage(console))
    if state is MachineState.RUNNING and read.failure_class != claims.PANIC:
        return
    hint = f"{at.command('console')} shows all of it; {at.command('down')} puts it away"
    said = "".join(f"\n  | {line}" for line in triage.last_lines(console)) or " nothing"
    if read.failure_class == claims.PANIC or state is MachineState.CRASHED:
        cause = read.cause or "its kernel gave up"
        raise GuestError(
            f"{at.cell} has died: {cause} (blame: {read.blame}); its console's last lines:{said}", hint=hint
        )
    if state is MachineState.GONE:
        raise MachineVanished(f"the machine of {at.cell} ended unasked; its console's last lines:{said}", hint=hint)
    if state is MachineState.STOPPED:
        raise NotUp(f"{at.cell} is powered off", hint=f"{at.command('up')} starts it again")
    raise NotUp(f"{at.cell} is {state}", hint=f"whoever did that has to undo it, or {at.command('down')}")


def _weighed(it: Found, state: MachineState, read: Triage) -> Triage:
    """What the console told, beside what hypervisor and network prove: any program of the guest can write a panic."""
    crashed = state is MachineState.CRASHED
    if read.failure_class != claims.PANIC or crashed:
        return claims.weighed(read, crashed=crashed, answer=ssh.Answer.SILENT)
    runs = state is MachineState.RUNNING
    answer = ssh.probe(it.machine.endpoint(it.document.port), timeout_s=PROBE_TIMEOUT_S) if runs else ssh.Answer.SILENT
    return claims.weighed(read, crashed=False, answer=answer)


def ssh_command(at: Spot, it: Found, words: tuple[str, ...], *, tty: bool) -> list[str]:
    """OpenSSH with the host key pinned and nothing of the user's own configuration. Raises `MissingTool`."""
    endpoint = it.machine.endpoint(it.document.port)
    options = {
        "UserKnownHostsFile": at.place.known_hosts,
        "GlobalKnownHostsFile": Path(os.devnull),
        "HostKeyAlias": it.document.machine,
        "StrictHostKeyChecking": "yes",
        "IdentityFile": keys.client_key().private,
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": 30,
    }
    return [
        *(process.find("ssh", package="openssh-client"), "-F", os.devnull, "-p", str(endpoint.port)),
        *(word for key, value in options.items() for word in ("-o", f'{key}="{value}"')),
        *(("-t",) if tty else ()),
        *(f"{it.document.user}@{endpoint.host}", *words),
    ]


def screenshot(at: Spot, it: Found) -> bytes:
    """What the display of a cell shows, as PNG. Raises `ConfigurationError` where there is none."""
    refused = it.hypervisor.limits().get(Capability.SCREENSHOTS)
    if refused is None and isinstance(it.machine, TakesScreenshots):
        return it.machine.screenshot()
    driver = at.inventory.hosts[at.cell.host].driver
    raise ConfigurationError(
        f"{at.cell} has no screenshot: {refused or f'the driver {driver} takes none'}", hint=at.command("console")
    )
