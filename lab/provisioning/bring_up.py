"""Bring-up: from a cell of the plan to a guest that answers, and everything undone at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab import log
from lab.contracts import (
    Capability,
    Cell,
    ClonesWarm,
    HostFacts,
    Hypervisor,
    Image,
    Machine,
    MachineSpec,
    Owner,
    Realness,
    SshLogin,
)
from lab.errors import HypervisorRefused, LabDiskFull, LabError
from lab.guests.guest import Guest
from lab.guests.identity import Identity
from lab.inventory.models import GuestEntry, Host, Inventory
from lab.provisioning import evidence, hosts, images, keys, seed
from lab.provisioning.first_login import GuestMaker, log_in
from lab.provisioning.first_login_warm import Kept, kept_while, log_in_to_copy

_log = log.get(__name__)

DATA_DISK_MIB = 64
"""Size of the empty third disk that checks may write to."""

Progress = Callable[[str], None]


@dataclass
class _Current:
    """The machine that is up now."""

    machine: Machine
    guest: Guest
    login: SshLogin
    warm: bool


@dataclass
class CellSession:
    """One cell while it runs: makes machines when a check first asks; at most one, and one more as its peer."""

    cell: Cell
    host: Host
    entry: GuestEntry
    inventory: Inventory
    hypervisor: Hypervisor
    owner: Owner
    directory: Path
    progress: Progress
    use_warm: bool = True
    phases: dict[str, float] = field(default_factory=dict)  # seconds
    warm_history: list[bool] = field(default_factory=list)
    _image: Image | None = None
    _host_facts: HostFacts | None = None
    _guest_facts: Mapping[str, object] | None = None
    _current: _Current | None = None
    _peer: _Current | None = None
    _made: int = 0

    # -- what a check or the runner asks -------------------------------------------------------------------

    def guest(self, *, cold: bool) -> Guest:
        """The guest of this cell, brought up when needed; with `cold` one that was booted for this cell.

        Raises `GuestError` when the guest does not come up, other `LabError` when the lab cannot try.
        """
        current = self._current
        if current is not None and not (cold and current.warm):
            return current.guest
        self.put_away()
        current = self._bring_up(cold=cold)
        self._current = current
        self.warm_history.append(current.warm)
        if self._guest_facts is None:
            with self._phase("facts"):
                self._guest_facts = current.guest.facts.as_json()
        return current.guest

    def peer(self) -> Guest:
        """A second guest of this cell beside the first, made when first asked for and kept with it.

        Raises what `guest` raises.
        """
        if self._peer is None:
            self.progress("peer")
            self._peer = self._bring_up(cold=False)
        return self._peer.guest

    @property
    def machine(self) -> Machine | None:
        """The machine that is up now."""
        return self._current.machine if self._current else None

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All that are up now, the peer's last."""
        return tuple(each.machine for each in (self._current, self._peer) if each is not None)

    @property
    def login(self) -> SshLogin | None:
        """How to log in to the guest that is up now."""
        return self._current.login if self._current else None

    def let_go(self) -> None:
        """Leave the machine that is up as it is: this session does not destroy it any more."""
        current, self._current = self._current, None
        if current is not None:
            current.guest.close()

    @property
    def is_warm(self) -> bool:
        """Whether the guest handed out last is a restored copy."""
        return bool(self.warm_history and self.warm_history[-1])

    @property
    def host_facts(self) -> HostFacts:
        if self._host_facts is None:
            self._host_facts = self.hypervisor.facts()
        return self._host_facts

    @property
    def realness(self) -> Realness:
        """The less real of what the inventory says and what the connected host says."""
        order = tuple(Realness)
        return max(self.host.realness, self.host_facts.realness, key=order.index)

    @property
    def emulates_virtualisation(self) -> bool:
        """Whether the guest runs by an extension of the processor that is itself emulated; a PV domain needs none."""
        return self.realness is Realness.EMULATED and self.inventory.profile_of(self.cell).chipset != "xenpv"

    @property
    def image(self) -> Image:
        if self._image is None:
            with self._phase("image"):
                self._image = images.resolve(self.entry.image, progress=self.progress)
        return self._image

    def facts(self) -> dict[str, object]:
        """What stood behind the records: host, guest (null before it answered), image, profile."""
        image = self._image
        profile = self.inventory.profile_of(self.cell)
        return {
            "host": {key: _plain(value) for key, value in asdict(self.host_facts).items()},
            "guest": dict(self._guest_facts) if self._guest_facts is not None else None,
            "image": {"name": image.name, "digest": image.digest, "origin": image.origin} if image else None,
            "profile": {key: _plain(value) for key, value in asdict(profile).items()},
        }

    def put_away(self) -> None:
        """Collect what the current machine and its peer leave and destroy them. Safe to call twice."""
        current, self._current = self._current, None
        peer, self._peer = self._peer, None
        try:
            if current is not None:
                self._end(current, self.directory)
        finally:
            if peer is not None:
                self._end(peer, self.directory / "peer")

    def _end(self, ended: _Current, directory: Path) -> None:
        with self._phase("collect"):
            directory.mkdir(exist_ok=True)
            evidence.collect(ended.machine, directory, guest=ended.guest)
        ended.guest.close()
        with self._phase("tear down"):
            ended.machine.destroy()

    # -- how a machine comes up ----------------------------------------------------------------------------

    def _bring_up(self, *, cold: bool) -> _Current:
        image = self.image
        self.hypervisor.upload(image)
        self._made += 1
        tag = hashlib.sha256(f"{self.owner.run} {self.cell}".encode()).hexdigest()[:10]
        name = f"lab-{tag}-{self.directory.name.rpartition('-')[2]}-{self._made}"
        identity = Identity.make(f"{self.entry.name.replace('.', '-')}-{tag[:6]}{self._made}"[:63])
        seed_path = self.directory / f"seed-{self._made}.img"
        seed.write_seed(identity, keys.client_key().public, seed_path)
        try:
            spec = MachineSpec(
                name=name,
                owner=self.owner,
                image=image,
                profile=self.inventory.profile_of(self.cell),
                seed=seed_path if self.entry.seed == "lab" else None,
                data_disk_mib=DATA_DISK_MIB,
            )
            clones = self._clones_warm()
            if clones is not None and not cold:
                current = self._clone(clones, spec, identity)
                if current is not None:
                    return current
            return self._boot(spec, identity, save_with=clones)
        finally:
            # The machine keeps its own copy or an open handle; the private host key stays nowhere else.
            seed_path.unlink(missing_ok=True)

    def _clones_warm(self) -> ClonesWarm | None:
        refused = Capability.WARM_CLONES in self.hypervisor.limits()
        if not self.use_warm or refused or not isinstance(self.hypervisor, ClonesWarm):
            return None
        return self.hypervisor

    def _clone(self, clones: ClonesWarm, spec: MachineSpec, identity: Identity) -> _Current | None:
        """A restored copy, or `None` where there is none to restore or it is of no use."""
        key = clones.warm_key(spec)
        if not clones.has_warm(key):
            return None
        self.progress("restore")
        machine: Machine | None = None
        try:
            with self._phase("restore"):
                kept = Kept.from_bytes(clones.warm_identity(key))
                kept.require_key()
                machine = clones.clone_warm(key, spec)
            with self._phase("renew"):
                guest = log_in_to_copy(machine, self._guest_maker(machine), kept, self._login(kept.identity), identity)
        except LabError as reason:
            # A saved copy that does not wake up is the lab's affair; the guest is judged by a cold boot.
            _log.warning("warm.unusable", cell=self.cell, key=key, reason=reason)
            self.progress("the saved machine is of no use; booting cold")
            if machine is not None:
                machine.destroy()
            clones.forget_warm(key)
            return None
        except BaseException:
            if machine is not None:
                machine.destroy()
            raise
        return _Current(machine, guest, self._login(identity), warm=True)

    def _boot(self, spec: MachineSpec, identity: Identity, *, save_with: ClonesWarm | None) -> _Current:
        self.progress("create")
        with self._phase("create"):
            machine = self.hypervisor.create(spec)
        try:
            self.progress("boot")
            with self._phase("boot"):
                machine.start()
                guest = log_in(
                    machine,
                    self.entry.channel.port,
                    self._guest_maker(machine),
                    self._login(identity),
                    timeout_s=self.host.boot_limit_s(self.entry),
                )
            if save_with is not None:
                self._save(save_with, guest, identity)
        except BaseException:
            evidence.collect(machine, self.directory, guest=None)
            machine.destroy()
            raise
        return _Current(machine, guest, self._login(identity), warm=False)

    def _save(self, clones: ClonesWarm, guest: Guest, identity: Identity) -> None:
        machine = guest.machine
        key = clones.warm_key(machine.spec)
        if clones.has_warm(key):
            return
        self.progress("save for later cells")
        try:
            with self._phase("save warm"), kept_while(machine, guest, identity) as kept:
                clones.save_warm(key, machine, kept.to_bytes())
        except (HypervisorRefused, LabDiskFull) as reason:
            # Only later speed is lost. If the machine itself suffered, the first check says so.
            _log.warning("warm.not_saved", cell=self.cell, key=key, reason=reason)

    def _guest_maker(self, machine: Machine) -> GuestMaker:
        return guest_maker(self.cell, self.entry.family, self.hypervisor, machine, self.entry.channel.port)

    def _login(self, identity: Identity) -> SshLogin:
        return SshLogin(self.entry.channel.user, keys.client_key().private, identity.host_key_public)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.monotonic() - start


def guest_maker(cell: Cell, family: str, hypervisor: Hypervisor, machine: Machine, port: int) -> GuestMaker:
    """What logs in to that machine over SSH and makes it a guest."""
    from lab.guests.channels import ssh

    def make(login: SshLogin, timeout_s: float) -> Guest:
        channel = ssh.connect(machine.endpoint(port), login, timeout_s=timeout_s)
        return Guest(cell=cell, hypervisor=hypervisor, machine=machine, channel=channel, family=family)

    return make


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


@contextmanager
def open_session(
    inventory: Inventory, cell: Cell, *, owner: Owner, directory: Path, progress: Progress
) -> Iterator[CellSession]:
    """Connect to the host of a cell; on exit everything that was made there is gone again.

    Raises `HostError`, `MissingTool`, `MissingExtra` when the host cannot be used.
    """
    host = inventory.hosts[cell.host]
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    progress("connect")
    with hosts.connect(host, progress=progress) as hypervisor:
        session = CellSession(
            cell=cell,
            host=host,
            entry=inventory.guests[cell.guest],
            inventory=inventory,
            hypervisor=hypervisor,
            owner=owner,
            directory=directory,
            progress=progress,
        )
        session.phases["connect"] = time.monotonic() - start
        _log.info("session.open", cell=cell, at=datetime.now(UTC).isoformat())
        try:
            yield session
        finally:
            session.put_away()
