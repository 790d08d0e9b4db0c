"""Files and downloads: verified, continued, bounded."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.errors import ImageCorrupt, ImageError, LabDiskFull
from lab.inventory.models import FileSource, UrlSource
from lab.provisioning import cache, fetch, fetch_http, images

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SUM = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Server:
    """A server on loopback that does what a test tells it; it keeps the headers of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: Callable[[BaseHTTPRequestHandler, int], None] = whole
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                server.asked.append({name.lower(): value for name, value in self.headers.items()})
                server.answer(self, len(server.asked))

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/images/disk.raw"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def head(handler: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def whole(handler: BaseHTTPRequestHandler, time: int) -> None:
    head(handler, 200, Content_Length=len(CONTENT), ETag='"one"')
    handler.wfile.write(CONTENT)


def cut_then_range(handler: BaseHTTPRequestHandler, time: int) -> None:
    """Half of it, then the connection ends; the rest when it is asked for as it should be."""
    if time == 1:
        head(handler, 200, Content_Length=len(CONTENT), ETag='"one"')
        handler.wfile.write(CONTENT[:HALF])
        return
    start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    head(
        handler,
        206,
        Content_Length=len(CONTENT) - start,
        Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}",
    )
    handler.wfile.write(CONTENT[start:])


@pytest.fixture
def server(own_cache: Path) -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def _source(server: Server, sha256: str = SUM) -> UrlSource:
    return UrlSource(url=server.url, sha256=sha256, format="raw")


def _quiet(line: str) -> None:
    pass


def test_a_download_is_verified_and_kept(server: Server) -> None:
    image = images.resolve(_source(server), progress=_quiet)
    assert image.disk.read_bytes() == CONTENT
    assert image.origin == f"downloaded from {server.url}, verified by sha256"
    assert images.resolve(_source(server), progress=_quiet) == image
    assert len(server.asked) == 1


def test_a_cut_download_goes_on_where_it_stopped(server: Server) -> None:
    server.answer = cut_then_range
    assert images.resolve(_source(server), progress=_quiet).disk.read_bytes() == CONTENT
    assert "range" not in server.asked[0]
    assert server.asked[1]["range"].startswith("bytes=")
    assert int(server.asked[1]["range"][6:-1]) > 0
    assert server.asked[1]["if-range"] == '"one"'


def test_what_an_earlier_run_fetched_is_used_by_a_later_one(server: Server) -> None:
    server.answer = lambda handler, time: cut_then_range(handler, 1) if time == 1 else head(handler, 404)
    with pytest.raises(ImageError, match="the server answered 404"):
        images.resolve(_source(server), progress=_quiet)
    server.answer = lambda handler, time: cut_then_range(handler, 2)
    images.resolve(_source(server), progress=_quiet)
    assert "range" in server.asked[-1]


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler, time: int) -> None:
        cut_then_range(handler, 1) if time == 1 else whole(handler, time)

    server.answer = answer
    assert images.resolve(_source(server), progress=_quiet).disk.read_bytes() == CONTENT


def test_a_range_that_begins_elsewhere_is_not_glued_on(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler, time: int) -> None:
        if time == 1:
            cut_then_range(handler, 1)
        elif time == 2:
            head(handler, 206, Content_Length=10, Content_Range=f"bytes 0-9/{len(CONTENT)}")
            handler.wfile.write(CONTENT[:10])
        else:
            whole(handler, time)

    server.answer = answer
    assert images.resolve(_source(server), progress=_quiet).disk.read_bytes() == CONTENT


def test_a_server_that_announces_more_than_it_sends_is_given_up(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler, time: int) -> None:
        if "Range" in handler.headers:
            head(handler, 206, Content_Length=0, Content_Range=f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}")
            return
        head(handler, 200, Content_Length=len(CONTENT), ETag='"one"')
        handler.wfile.write(CONTENT[:HALF])

    server.answer = answer
    with pytest.raises(ImageError, match=r"broke off 4 times without a byte more") as caught:
        images.resolve(_source(server), progress=_quiet)
    assert "run again later: the download goes on where it stopped" in str(caught.value)


def test_a_server_that_sends_without_end_is_stopped(server: Server, tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, time: int) -> None:
        head(handler, 200)  # no length: the end of the connection is the end of the file
        try:
            while True:
                handler.wfile.write(CONTENT)
        except OSError:
            return

    server.answer = answer
    part = tmp_path / "part"
    with pytest.raises(ImageError, match="sends more than it said, or more than 3000000 bytes; stopped"):
        fetch_http.download(fetch_http.Request(server.url, largest_bytes=3_000_000), part, _quiet)
    assert part.stat().st_size <= 3_000_000


def test_a_size_over_the_limit_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 1000 bytes"):
        fetch_http.download(fetch_http.Request(server.url, largest_bytes=1000), tmp_path / "part", _quiet)
    assert not (tmp_path / "part").exists()


def test_a_wrong_sum_names_both_and_throws_the_download_away(server: Server, own_cache: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(ImageCorrupt) as caught:
        images.resolve(_source(server, wrong), progress=_quiet)
    assert f"sha256 is {SUM}, the inventory says {wrong}" in str(caught.value)
    assert list((own_cache / ".parts").glob("*.part")) == []
    assert list((own_cache / ".making").iterdir()) == []


def test_a_damaged_download_is_named_and_not_used(server: Server) -> None:
    image = images.resolve(_source(server), progress=_quiet)
    image.disk.chmod(0o644)
    image.disk.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(ImageCorrupt, match="is not what it was"):
        images.resolve(_source(server), progress=_quiet)


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_told_at_once(server: Server, status: int) -> None:
    server.answer = lambda handler, time: head(handler, status, Content_Length=0)
    with pytest.raises(ImageError, match=f"the server answered {status}"):
        images.resolve(_source(server), progress=_quiet)
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server: Server) -> None:
    server.answer = lambda handler, time: head(handler, 503, Content_Length=0) if time == 1 else whole(handler, time)
    images.resolve(_source(server), progress=_quiet)
    assert len(server.asked) == 2


def test_a_full_disk_keeps_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "part"
    part.symlink_to("/dev/full")
    with pytest.raises(LabDiskFull, match="no space left on this machine while downloading"):
        fetch_http.download(fetch_http.Request(server.url), part, _quiet)
    assert not part.is_symlink()


def test_nothing_secret_of_an_address_is_shown() -> None:
    assert (
        fetch.without_secrets("https://me:pw@host.test:8443/a/disk.raw?token=x#y")
        == "https://host.test:8443/a/disk.raw"
    )
    assert fetch_http.Request("https://me:pw@host.test/a?token=x").shown == "https://host.test/a"


# ---------------------------------------------------------------------------------------------------------
# Files


def _file(tmp_path: Path, content: bytes = CONTENT, sha256: str | None = None, **more: object) -> FileSource:
    path = tmp_path / "mine.raw"
    path.write_bytes(content)
    said = sha256 or hashlib.sha256(content).hexdigest()
    return FileSource.model_validate({"file": path, "format": "raw", "sha256": said, **more})


def test_a_file_is_used_where_it_lies_and_read_once(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_text("kernel")
    source = _file(tmp_path, kernel=kernel, kernel_arguments="quiet")
    image = images.resolve(source, progress=_quiet)
    assert (image.disk, image.kernel, image.kernel_arguments) == (source.file, kernel, "quiet")

    def read_again(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(cache, "sha256_of", read_again)
    assert images.resolve(source, progress=_quiet) == image


def test_a_file_with_another_sum_is_refused(own_cache: Path, tmp_path: Path) -> None:
    source = _file(tmp_path, sha256="1" * 64)
    with pytest.raises(ImageCorrupt) as caught:
        images.resolve(source, progress=_quiet)
    assert f"sha256 is {SUM}, the inventory says {'1' * 64}" in str(caught.value)
    assert "put the right file there, or correct its sha256" in str(caught.value)


def test_a_file_that_changed_since_is_verified_again(own_cache: Path, tmp_path: Path) -> None:
    source = _file(tmp_path)
    images.resolve(source, progress=_quiet)
    source.file.write_bytes(b"other")
    with pytest.raises(ImageCorrupt, match="is not the file that the inventory means"):
        images.resolve(source, progress=_quiet)
    source.file.write_bytes(CONTENT)
    assert images.resolve(source, progress=_quiet).disk == source.file


def test_a_file_that_is_missing_is_an_image_error(own_cache: Path, tmp_path: Path) -> None:
    source = _file(tmp_path)
    source.file.unlink()
    with pytest.raises(ImageError, match=r"mine\.raw: No such file or directory"):
        images.resolve(source, progress=_quiet)


def _qcow2(backing: int = 0, features: int = 0) -> bytes:
    return (b"QFI\xfb" + struct.pack(">IQ", 3, backing)).ljust(72, b"\0") + struct.pack(">Q", features) + bytes(512)


@pytest.mark.parametrize("content", [_qcow2(backing=104), _qcow2(features=1 << 2)])
def test_a_qcow2_that_opens_other_files_is_refused(own_cache: Path, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ImageError, match="refers to other files and is refused"):
        images.resolve(_file(tmp_path, content, format="qcow2"), progress=_quiet)


def test_a_raw_disk_that_is_called_qcow2_is_refused(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not a qcow2 disk"):
        images.resolve(_file(tmp_path, format="qcow2"), progress=_quiet)


def test_a_whole_qcow2_is_accepted(own_cache: Path, tmp_path: Path) -> None:
    assert images.resolve(_file(tmp_path, _qcow2(), format="qcow2"), progress=_quiet).disk_format == "qcow2"
