"""Ways to bend QEMU's command line: other words, other devices, other disks behind the same names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.defects.definition import Words

Line = Callable[[Words], list[str]]
Properties = dict[str, Any]

SMALL_DISK = 32 << 20  # bytes; the machine's empty disk was asked for with 64 MiB


def option(option: str, value: str) -> Line:
    """Another value for the first such option."""

    def change(line: Words) -> list[str]:
        at = list(line).index(option)
        return [*line[: at + 1], value, *line[at + 2 :]]

    return change


def more(*words: str) -> Line:
    return lambda line: [*line, *words]


def in_turn(*changes: Line) -> Line:
    def every(line: Words) -> list[str]:
        made = list(line)
        for change in changes:
            made = change(made)
        return made

    return every


def each(option: str, change: Callable[[Properties], Properties | None]) -> Line:
    """Every value of an option that is JSON is changed, or left out with its option for `None`."""

    def every(line: Words) -> list[str]:
        made: list[str] = []
        words = iter(line)
        for word in words:
            if word != option:
                made.append(word)
                continue
            value = next(words)
            changed = change(json.loads(value)) if value.startswith("{") else value
            if changed is not None:
                made += [word, changed if isinstance(changed, str) else json.dumps(changed)]
        return made

    return every


def device(name: str, **other: object) -> Line:
    """Other properties for the device with that id."""
    return each("-device", lambda it: {**it, **other} if it.get("id") == name else it)


def without(driver: str) -> Line:
    return each("-device", lambda it: None if it["driver"] == driver else it)


def card(model: str) -> Line:
    keep = ("id", "netdev", "mac", "bus")
    return each(
        "-device",
        lambda it: {"driver": model, **{key: it[key] for key in keep if key in it}} if it.get("id") == "nic0" else it,
    )


def node(name: str, change: Callable[[Properties], Properties]) -> Line:
    """Another block node of that name."""
    return each("-blockdev", lambda it: change(it) if it.get("node-name") == name else it)


def cut(node: Properties) -> Properties:
    """The beginning of a disk only."""
    inner = {key: value for key, value in node.items() if key != "node-name"}
    return {"driver": "raw", "node-name": node["node-name"], "size": SMALL_DISK, "file": inner}


def failing(node: Properties) -> Properties:
    """A disk that takes no write after its first MiB."""
    rule = {"event": "write_aio", "iotype": "write", "errno": 5, "once": False, "immediately": False}
    return {**node, "file": {"driver": "blkdebug", "image": node["file"], "inject-error": [rule]}}


def forgetful(node: Properties) -> Properties:
    return {"driver": "null-co", "node-name": node["node-name"], "size": 64 << 20, "read-zeroes": True}


def keeping(node: Properties) -> Properties:
    """A disk that takes discards and does not pass them on."""
    return {**node, "discard": "ignore", "file": {**node["file"], "discard": "ignore"}}


def swapped(first: str, second: str) -> Line:
    """Two disks in each other's place."""
    other: Mapping[str, str] = {first: second, second: first}
    return each("-device", lambda it: {**it, "drive": other[it["drive"]]} if it.get("drive") in other else it)


def kernel(*words: str, without: str = "") -> Line:
    """More words, or one less, for the kernel."""

    def change(line: Words) -> list[str]:
        at = list(line).index("-append") + 1
        said = line[at].replace(without, "") if without else line[at]
        return [*line[:at], " ".join((said, *words)), *line[at + 1 :]]

    return change
