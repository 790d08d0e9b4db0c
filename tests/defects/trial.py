"""A trial: one defect (or none) in a real guest, through the machinery of a run, and the records that came of it."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import catalogue as suites_catalogue
from lab import locations, process, pytest_plugin
from lab.contracts import Cell, Hypervisor, Machine, MachineSpec, Owner
from lab.errors import GuestError
from lab.guests.guest import Guest
from lab.inventory.load import load
from lab.inventory.models import Inventory
from lab.provisioning.bring_up import CellSession, open_session
from lab.results import layout, store
from lab.results.record import Record
from tests.defects.definition import Defect, replace_method

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "local"


class Spoilt:
    """A cell's session whose guests have the defect before anybody sees them."""

    def __init__(self, session: CellSession, defect: Defect) -> None:
        self._session = session
        self._defect = defect
        self._seen: Guest | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def guest(self, *, cold: bool) -> Guest:
        guest = self._session.guest(cold=cold)
        if guest is not self._seen:
            self._seen = guest
            try:
                self._seed(guest)
            except GuestError as reason:
                # Not the guest's failure to have the defect: a trial without defect proves nothing.
                raise RuntimeError(f"the defect could not be made: {reason}") from reason
        return guest

    def _seed(self, guest: Guest) -> None:
        if self._defect.script:
            guest.check("sh", "-c", self._defect.script, timeout_s=120.0)
        if self._defect.in_guest is not None:
            self._defect.in_guest(guest)


def run(defect: Defect | None, cell: Cell, checks: Sequence[str], place: Path) -> tuple[Record, ...]:
    """Run these checks in that cell with the defect in it, and return their records.

    `place` takes everything that the trial writes but images, which come from the machine's cache.
    """
    directory = place / "cells" / cell.host / cell.guest / cell.profile / "attempt-1"
    directory.mkdir(parents=True)
    inventory = _inventory(defect, cell, place)
    owner = Owner(f"defect-{uuid.uuid4().hex}", cell.name, os.getpid(), process.start_time(os.getpid()) or 0)
    with open_session(inventory, cell, owner=owner, directory=directory, progress=_silent) as session:
        handed: Any = session
        if defect is not None:
            # One boot for all where one must be anyhow.
            known = suites_catalogue.load(inventory.suites).checks_by_id
            session.use_warm = not defect.needs_boot and not any(known[check].cold for check in checks)
            _bend(session.hypervisor, defect, place)
            handed = Spoilt(session, defect)
        pytest_plugin.run_checks(handed, checks, run=owner.run, attempt=1, suites=inventory.suites, progress=_silent)
    return tuple(store.read_attempt(layout.AttemptLayout(directory, cell, 1), owner.run).records)


def _silent(step: str) -> None:
    """Nobody watches a trial."""


def _inventory(defect: Defect | None, cell: Cell, place: Path) -> Inventory:
    inventory = load(INVENTORY)
    host = inventory.hosts[cell.host]
    if host.driver == "qemu":
        # What a defect does must not hang on whether this machine has KVM.
        host = replace(host, settings=host.settings.model_copy(update={"accelerator": "tcg"}))
    if defect is not None and defect.line is not None:
        binary = _wrapper(defect, host.settings.binary, place)
        host = replace(host, settings=host.settings.model_copy(update={"binary": str(binary)}))
    inventory = replace(inventory, hosts={**inventory.hosts, cell.host: host})
    if defect is not None and defect.profile is not None:
        inventory = replace(inventory, profiles={**inventory.profiles, cell.profile: defect.profile})
    if defect is not None and defect.boot_timeout_s:
        entry = inventory.guests[cell.guest].model_copy(update={"boot_timeout_s": defect.boot_timeout_s})
        inventory = replace(inventory, guests={**inventory.guests, cell.guest: entry})
    return inventory


def _wrapper(defect: Defect, binary: str, place: Path) -> Path:
    """A program that is QEMU to whoever starts it, and starts QEMU with another command line."""
    path = place / "qemu-with-defect"
    real = process.find(binary, package="qemu-system-x86")
    words = [sys.executable, "-m", "tests.defects.wrapper", defect.name, real]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)
    return path


def _bend(hypervisor: Hypervisor, defect: Defect, place: Path) -> None:
    """Let every machine that this host makes be one with the defect."""
    if defect.hypervisor is not None:
        defect.hypervisor(hypervisor)
    create = hypervisor.create
    clone = getattr(hypervisor, "clone_warm", None)

    def bent(machine: Machine) -> Machine:
        if defect.machine is not None:
            defect.machine(machine)
        return machine

    def spoilt(spec: MachineSpec) -> Machine:
        if defect.image is not None:
            spec = replace(spec, image=defect.image(spec.image, place))
        return bent(create(spec))

    replace_method(hypervisor, "create", spoilt)
    if clone is not None:
        replace_method(hypervisor, "clone_warm", lambda key, spec: bent(clone(key, spec)))


@contextmanager
def own_place(place: Path) -> Iterator[None]:
    """Machines, keys and warm copies below `place`; images from the machine's own cache.

    A trial must not spoil a warm copy that somebody else restores from.
    """
    cache = place / "cache" / "interop-lab"
    cache.mkdir(parents=True, exist_ok=True)
    images = locations.cache() / "images"
    with suppress(FileExistsError):
        (cache / "images").symlink_to(images)
    names = {"XDG_CACHE_HOME": str(place / "cache"), "XDG_STATE_HOME": str(place / "state")}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
