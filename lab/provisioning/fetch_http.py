"""Download a file over HTTP: goes on where a cut left it, bounded in size, follows only safe redirects.

RFC 9110: sections 13.1.5 (If-Range), 14.2 (Range), 14.4 (Content-Range).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from lab import log
from lab.errors import ImageError, LabDiskFull
from lab.process import disk_full_or

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

logger = log.get(__name__)

LARGEST_BYTES = 64 << 30
_TRIES_WITHOUT_PROGRESS = 4
_TIMEOUT_S = 30.0
_PROGRESS_STEP = 32 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Request:
    """What to fetch. The authorization is a header's value and is never shown."""

    url: str
    authorization: str | None = None
    largest_bytes: int = LARGEST_BYTES

    @property
    def shown(self) -> str:
        split = urlsplit(self.url)
        host = split.hostname or ""
        return urlunsplit((split.scheme, f"{host}:{split.port}" if split.port else host, split.path, "", ""))


class _Again(Exception):
    """The connection was cut, or what we have cannot be continued: ask once more."""


def download(request: Request, part: Path, progress: Callable[[str], None]) -> None:
    """Fetch into `part`, continuing what an earlier try left there; returns when the server's end is reached.

    Raises `ImageError` when the server refuses, sends too much or keeps cutting; `LabDiskFull` (and then keeps
    nothing, for there is no room to keep it in).
    """
    import httpx

    progress(f"downloading {request.shown}")
    without_progress = 0
    why = ""
    try:
        with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True, max_redirects=5) as client:
            client.event_hooks["request"].append(_never_from_tls_to_plain(request))
            while without_progress < _TRIES_WITHOUT_PROGRESS:
                before = _size(part)
                try:
                    _once(client, request, part, progress)
                    _validator_file(part).unlink(missing_ok=True)
                    return
                except (httpx.TransportError, _Again) as reason:
                    why = str(reason) or type(reason).__name__
                    logger.info("download.cut", url=request.shown, have=_size(part), why=why)
                without_progress = 0 if _size(part) > before else without_progress + 1
    except OSError as reason:
        error = disk_full_or(reason, f"downloading {request.shown}")
        if isinstance(error, LabDiskFull):
            part.unlink(missing_ok=True)
        raise error from reason
    except (httpx.TooManyRedirects, httpx.InvalidURL, httpx.DecodingError) as reason:
        raise ImageError(f"{request.shown}: {reason}") from reason
    raise ImageError(
        f"{request.shown} broke off {_TRIES_WITHOUT_PROGRESS} times without a byte more, "
        f"after {_size(part)} bytes: {why}",
        hint="run again later: the download goes on where it stopped",
    )


def _once(client: httpx.Client, request: Request, part: Path, progress: Callable[[str], None]) -> None:
    have = _size(part)
    validator = _validator(part) if have else ""
    headers = {"Accept-Encoding": "identity"}
    if request.authorization is not None:
        headers["Authorization"] = request.authorization
    if validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with client.stream("GET", request.url, headers=headers) as answer:
        start, total = _where(answer, have, request, part)
        if total is not None and total > request.largest_bytes:
            raise ImageError(_too_large(request))
        _remember_validator(answer, part)
        with part.open("r+b" if start else "wb") as target:
            target.seek(start)
            got = start
            shown = start
            for chunk in answer.iter_raw(1 << 18):
                got += len(chunk)
                if got > request.largest_bytes or (total is not None and got > total):
                    target.truncate(0)
                    raise ImageError(_too_large(request))
                target.write(chunk)
                if got - shown >= _PROGRESS_STEP:
                    shown = got
                    progress(_progress_line(request, got, total))
        if total is not None and got < total:
            raise _Again(f"the connection ended after {got} of {total} bytes")


def _where(answer: httpx.Response, have: int, request: Request, part: Path) -> tuple[int, int | None]:
    """Where in the file the body of this answer begins, and how large the whole is (`None`: not told)."""
    if answer.status_code == 206:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if found is None or int(found[1]) != have:
            part.unlink()
            raise _Again(f"asked for bytes from {have} on, got {answer.headers.get('content-range')!r}")
        return have, None if found[3] == "*" else int(found[3])
    if answer.status_code == 416:
        # The file is shorter than what we have: it is another one, or we have all of it and were told nothing.
        part.unlink(missing_ok=True)
        raise _Again("the server has fewer bytes than were downloaded before")
    if answer.status_code == 200:
        length = answer.headers.get("content-length", "")
        return 0, int(length) if length.isdecimal() else None
    if answer.status_code >= 500 or answer.status_code == 429:
        raise _Again(f"the server answered {answer.status_code}")
    raise ImageError(
        f"{request.shown}: the server answered {answer.status_code} {answer.reason_phrase}",
        hint="is the address in the inventory right, and its authorization?",
    )


def _never_from_tls_to_plain(request: Request) -> Callable[[httpx.Request], None]:
    def check(sent: httpx.Request) -> None:
        if request.url.lower().startswith("https:") and sent.url.scheme != "https":
            raise ImageError(f"{request.shown} redirects from https to plain http, which is refused")

    return check


def _too_large(request: Request) -> str:
    return f"{request.shown} sends more than it said, or more than {request.largest_bytes} bytes; stopped"


def _progress_line(request: Request, got: int, total: int | None) -> str:
    whole = f" of {total >> 20}" if total is not None else ""
    return f"downloading {request.shown}: {got >> 20}{whole} MiB"


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _validator(part: Path) -> str:
    try:
        kept = json.loads(_validator_file(part).read_bytes())
    except (FileNotFoundError, ValueError):
        return ""
    value = kept.get("validator") if isinstance(kept, dict) else None
    return value if isinstance(value, str) else ""


def _remember_validator(answer: httpx.Response, part: Path) -> None:
    etag = answer.headers.get("etag", "")
    # A weak tag may not be used in If-Range; a date may.
    validator = etag if etag.startswith('"') else answer.headers.get("last-modified", "")
    if answer.status_code == 200:
        _validator_file(part).write_text(json.dumps({"validator": validator}))
