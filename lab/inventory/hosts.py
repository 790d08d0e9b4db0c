"""Makes the hosts of an inventory from what Ansible answered and the settings that each driver declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field

from lab.contracts import NAME_PATTERN, Driver, Realness
from lab.inventory.host_files import HostFiles
from lab.inventory.models import Host
from lab.inventory.positions import Place, Spot
from lab.inventory.problems import Problems, did_you_mean, unknown
from lab.inventory.profiles import NOT_A_NAME
from lab.inventory.resolve import PREFIX, Resolved, ResolvedHost
from lab.inventory.secrets import handed_over, secret_fields
from lab.inventory.validation import check
from lab.results.record import FileModel
from lab.secrets import Secret

_ORDER = tuple(Realness)  # the most real first


class Drivers(Protocol):
    """Where drivers come from: `lab.hypervisors`, or a test's own."""

    def names(self) -> tuple[str, ...]: ...

    def load(self, name: str) -> Driver: ...


class HostFields(FileModel):
    """The `lab_*` variables that every host may have, whatever its driver."""

    driver: str  # file name in lab/hypervisors/
    realness: Realness | None = None  # less real than the driver's own answer
    cells_at_once: int | None = Field(default=None, ge=1, le=10_000)  # how many cells it runs together
    memory_mib: int | None = Field(default=None, ge=16)  # of all its guests together
    insecure: tuple[str, ...] = ()  # safeguards that are off, as sentences for the report


@dataclass
class _Reading:
    """One host while it is read."""

    name: str
    asked: ResolvedHost
    files: HostFiles
    problems: Problems

    def locate(self, place: Place) -> Spot:
        """Where the variable of a field is written."""
        written: Place = (f"{PREFIX}{place[0]}", *place[1:]) if place else ()
        return self.files.spot(self.name, self.asked.groups, written)

    def complain(self, place: Place, text: str) -> None:
        spot = self.locate(place)
        self.problems.add(spot.path, spot.line, spot.label, text)


def make_hosts(resolved: Resolved, files: HostFiles, drivers: Drivers, problems: Problems) -> Mapping[str, Host | None]:
    """The hosts by name; one with a problem is there and is `None`."""
    return {name: _host(_Reading(name, asked, files, problems), drivers) for name, asked in resolved.items()}


def _host(reading: _Reading, drivers: Drivers) -> Host | None:
    if not NAME_PATTERN.fullmatch(reading.name):
        reading.complain((), NOT_A_NAME)
        return None
    before = len(reading.problems)
    values = {key.removeprefix(PREFIX): value for key, value in reading.asked.variables.items()}
    if "driver" not in values:
        known = ", ".join(drivers.names())
        close = [key for key in values if did_you_mean(key, ("driver",))]
        hint = f'did you mean it by "{PREFIX}{close[0]}"? ' if close else ""
        reading.complain((), f'the key "{PREFIX}driver" is missing ({hint}known drivers: {known})')
        return None
    name = values["driver"]
    if isinstance(name, str) and name not in drivers.names():
        reading.complain(("driver",), unknown("driver", name, drivers.names()))
        return None
    driver = drivers.load(name) if isinstance(name, str) else None
    settings_keys = frozenset(driver.Settings.model_fields) if driver else frozenset(values)
    fields = _common(reading, values, settings_keys)
    settings = _settings(reading, driver, values) if driver else None
    if driver and fields and fields.realness and _ORDER.index(fields.realness) < _ORDER.index(driver.REALNESS):
        # A simulation must never be shown as the real thing.
        text = f'hosts of the driver "{name}" are {driver.REALNESS}; "{fields.realness}" would hide that'
        reading.complain(("realness",), text)
    if driver is None or fields is None or len(reading.problems) > before:
        return None
    return Host(
        name=reading.name,
        driver=fields.driver,
        settings=settings,
        realness=driver.REALNESS if fields.realness is None else fields.realness,
        cells_at_once=fields.cells_at_once,
        memory_mib=fields.memory_mib,
        insecure=fields.insecure,
    )


def _common(reading: _Reading, values: Mapping[str, Any], settings_keys: frozenset[str]) -> HostFields | None:
    mine = frozenset(HostFields.model_fields)
    for key in values:
        if key not in mine and key not in settings_keys:
            reading.complain((key,), f"unknown key{did_you_mean(key, sorted(mine | settings_keys), prefix=PREFIX)}")
    common = {key: value for key, value in values.items() if key in mine}
    return check(HostFields, common, reading.locate, reading.problems, prefix=PREFIX)


def _settings(reading: _Reading, driver: Driver, values: Mapping[str, Any]) -> Any:
    secrets = secret_fields(driver.Settings)
    decrypted = set()
    for key in secrets & set(values):
        value, written = values[key], PREFIX + key
        if not isinstance(value, str) or Secret.is_reference(value):
            continue
        # What a plugin, a program or an encrypted file gave is nowhere to be read by others.
        vaulted = written in reading.asked.protected
        if vaulted or not reading.files.holds_plain(reading.name, reading.asked.groups, written):
            decrypted.add(key)
    own = {key: value for key, value in values.items() if key in driver.Settings.model_fields}
    return check(
        driver.Settings, handed_over(own, frozenset(decrypted)), reading.locate, reading.problems, prefix=PREFIX
    )
