"""Logging: an event and its facts, as one line of text; library code logs and never prints.

Built on the standard library alone because `lab --help` must not pay for more.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_ROOT = "lab"


class Log(Protocol):
    """What a module calls: `log.info("machine.started", machine=name, seconds=1.2)`."""

    def debug(self, event: str, **facts: object) -> None: ...
    def info(self, event: str, **facts: object) -> None: ...
    def warning(self, event: str, **facts: object) -> None: ...
    def error(self, event: str, **facts: object) -> None: ...


class _EventLog:
    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def _emit(self, level: int, event: str, facts: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", _line(event, facts))

    def debug(self, event: str, **facts: object) -> None:
        self._emit(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._emit(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._emit(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._emit(logging.ERROR, event, facts)


def _line(event: str, facts: dict[str, object]) -> str:
    # repr escapes control characters, so a hostile value cannot forge a second line.
    return " ".join((event, *(f"{key}={_shown(value)}" for key, value in facts.items())))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text.isprintable() and " " not in text and text != ""
    return text if plain else repr(text)


def get(name: str) -> Log:
    """The log of one module; call it as `log = log.get(__name__)`."""
    return _EventLog(logging.getLogger(name))


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line when the disk is full: what it tells of is more important, and has its own error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Lose the last lines likewise: they are written out here."""
        with suppress(OSError):
            super().close()


def write_to(path: Path) -> logging.Handler:
    """Send everything the lab logs, from debug up, to a file; return the handler to take it off again."""
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    line = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s"
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    logger = logging.getLogger(_ROOT)
    if logger.level != logging.DEBUG:  # to set it makes every logger of the process look its level up anew
        logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    return handler


def stop_writing(handler: logging.Handler) -> None:
    """Undo `write_to`."""
    logging.getLogger(_ROOT).removeHandler(handler)
    handler.close()
