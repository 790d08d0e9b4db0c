"""The contract of a channel, as tests: every channel of the lab passes them, and a new one should first.

Inherit `ChannelContract` in a pytest file and give it a fixture `channel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from lab import waiting
from lab.contracts import Channel
from lab.errors import CommandTimedOut, GuestCommandFailed

_LIMIT = 1 << 20
"""An endless output is cut off somewhere; a channel that keeps less than this of it keeps too little."""


def _raises(kind: type[Exception], act: Callable[[], Any]) -> Exception:
    # Not pytest.raises: the suite is shipped, and `lab qualify` runs it where pytest's assertions are not rewritten.
    try:
        got = act()
    except kind as reason:
        return reason
    raise AssertionError(f"no {kind.__name__}, but {got!r}")


class ChannelContract:
    """What a channel into a POSIX guest promises; `channel` is a fixture that the inheriting class gives."""

    def test_output_and_errors_come_apart_with_the_status(self, channel: Channel) -> None:
        result = channel.run(("sh", "-c", "echo out; echo err >&2; exit 7"))

        assert (result.status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
        assert not result.truncated
        assert result.argv == ("sh", "-c", "echo out; echo err >&2; exit 7")

    def test_words_arrive_as_they_were_given(self, channel: Channel) -> None:
        words = ("a b", "", "$HOME", "`id`", "it's", '"', "*", "\\", "a\nb", "-n", "ä€", ";reboot", "!", "~", "#x")

        result = channel.run(("printf", "[%s]", *words))

        assert result.stdout.decode() == "".join(f"[{word}]" for word in words)

    def test_the_first_word_is_a_program_and_not_syntax(self, channel: Channel) -> None:
        for word in ("if", "A=b", "{", "!", "a b", "$(reboot)"):
            assert channel.run((word,)).status == 127, word

    def test_undecodable_bytes_and_nuls_come_back_unchanged(self, channel: Channel) -> None:
        result = channel.run(("printf", r"\377\000\001\r\n\033[31m"))

        assert result.stdout == b"\xff\x00\x01\r\n\x1b[31m"

    def test_output_without_a_last_newline_stays_without(self, channel: Channel) -> None:
        assert channel.run(("printf", "x")).stdout == b"x"
        assert channel.run(("printf", "")).stdout == b""

    def test_one_command_leaves_nothing_behind_for_the_next(self, channel: Channel) -> None:
        before = channel.run(("pwd",)).stdout
        channel.run(("cd", "/proc"))
        channel.run(("exit", "3"))
        channel.run(("set", "--", "x"))
        channel.run(("exec", "true"))

        assert channel.run(("pwd",)).stdout == before

    def test_standard_input_is_empty_unless_given(self, channel: Channel) -> None:
        assert channel.run(("cat",), timeout_s=60).stdout == b""

    def test_standard_input_arrives_whole(self, channel: Channel) -> None:
        content = bytes(range(256)) * 1200

        assert channel.run(("cat",), stdin=content).stdout == content

    def test_a_command_may_leave_its_input_unread(self, channel: Channel) -> None:
        result = channel.run(("head", "-c", "3"), stdin=b"abcdef" * 500_000)

        assert (result.status, result.stdout) == (0, b"abc")

    def test_a_missing_program_is_a_result(self, channel: Channel) -> None:
        result = channel.run(("/no/such/program",))

        assert result.status == 127
        assert b"/no/such/program" in result.stderr

    def test_a_command_ended_by_a_signal_has_a_status_above_128(self, channel: Channel) -> None:
        assert channel.run(("sh", "-c", "kill -KILL $$")).status == 137

    def test_long_output_is_cut_and_says_so(self, channel: Channel) -> None:
        result = channel.run(("head", "-c", str(40 << 20), "/dev/zero"), timeout_s=120)

        assert result.truncated
        assert _LIMIT <= len(result.stdout) <= 32 << 20
        assert channel.run(("echo", "after")).stdout == b"after\n"

    def test_an_endless_output_ends_with_the_time(self, channel: Channel) -> None:
        error = _raises(CommandTimedOut, lambda: channel.run(("yes",), timeout_s=1.5))

        assert len(str(error)) < 2000
        assert channel.run(("echo", "after")).stdout == b"after\n"

    def test_a_command_that_takes_too_long_is_told_with_its_output(self, channel: Channel) -> None:
        error = _raises(CommandTimedOut, lambda: channel.run(("sh", "-c", "echo begun; sleep 600"), timeout_s=5))

        assert "sleep 600" in str(error)
        assert "did not end within 5 s" in str(error)
        assert "begun" in str(error)

    def test_a_message_that_quotes_hostile_output_holds_no_control_character(self, channel: Channel) -> None:
        script = r"printf '\033[2J\000\377\007'; printf '\033]0;x\007' >&2; sleep 600"

        error = _raises(CommandTimedOut, lambda: channel.run(("sh", "-c", script), timeout_s=1.5))

        assert all(character.isprintable() or character == "\n" for character in str(error))

    def test_a_command_that_took_too_long_does_not_run_on(self, channel: Channel) -> None:
        mark = f"6{time.time_ns() % 10**9:09d}"
        late = ("sh", "-c", f"sleep {mark}; :")
        _raises(CommandTimedOut, lambda: channel.run(late, timeout_s=1.5))
        _raises(CommandTimedOut, lambda: channel.run(late, stdin=b"x", timeout_s=1.5))

        # The pattern does not match the line that looks for it.
        look = ("sh", "-c", f"grep -ls 'sleep.[6]{mark[1:]}' /proc/[0-9]*/cmdline")
        waiting.until(lambda: channel.run(look).stdout == b"", what="the late command to be gone", timeout_s=60)

    def test_a_command_that_ends_the_shell_around_it_is_survived(self, channel: Channel) -> None:
        with suppress(GuestCommandFailed):  # or a plain result, from a channel without such a shell
            channel.run(("sh", "-c", "kill -KILL $PPID"))

        assert channel.run(("echo", "after")).stdout == b"after\n"

    def test_what_a_command_prints_is_never_taken_for_its_end(self, channel: Channel) -> None:
        echoed = channel.run(("sh", "-c", "tr '\\0' '\\n' </proc/$PPID/environ; set; cat /proc/$PPID/cmdline"))

        assert channel.run(("cat",), stdin=echoed.stdout).stdout == echoed.stdout
        assert channel.run(("echo", "after")).stdout == b"after\n"

    def test_a_stream_comes_while_the_command_runs(self, channel: Channel) -> None:
        lines = channel.stream(("sh", "-c", "echo one; sleep 600"), timeout_s=60)

        assert next(lines) == b"one\n"
        _close(lines)

    def test_a_stream_ends_at_its_limit(self, channel: Channel) -> None:
        total = sum(len(part) for part in channel.stream(("yes",), limit_bytes=100_000))

        assert total == 100_000

    def test_a_stream_ends_with_its_command(self, channel: Channel) -> None:
        assert b"".join(channel.stream(("printf", "a\\nb"))) == b"a\nb"

    def test_a_stream_that_takes_too_long_is_told(self, channel: Channel) -> None:
        error = _raises(CommandTimedOut, lambda: list(channel.stream(("sleep", "600"), timeout_s=1.5)))

        assert "sleep 600" in str(error)

    def test_closing_a_stream_ends_its_command(self, channel: Channel) -> None:
        mark = f"6{time.time_ns() % 10**9:09d}"
        lines = channel.stream(("sh", "-c", f"echo one; sleep {mark}; :"))
        next(lines)

        _close(lines)

        look = ("sh", "-c", f"grep -ls 'sleep.[6]{mark[1:]}' /proc/[0-9]*/cmdline")
        waiting.until(lambda: channel.run(look).stdout == b"", what="the streaming command to be gone", timeout_s=60)

    def test_commands_run_beside_a_stream(self, channel: Channel) -> None:
        lines = channel.stream(("sh", "-c", "echo one; sleep 600"))
        next(lines)

        assert channel.run(("echo", "beside")).stdout == b"beside\n"
        _close(lines)

    def test_a_file_is_read_as_it_was_written(self, channel: Channel) -> None:
        path = _fresh("a file's name; with 'quotes'")
        content = bytes(range(256)) * 100

        channel.write(path, content, mode=0o640)

        assert channel.read(path) == content
        assert channel.run(("stat", "-c", "%a", str(path))).stdout == b"640\n"
        channel.run(("rm", str(path)))

    def test_an_empty_file_can_be_written(self, channel: Channel) -> None:
        path = _fresh("empty")

        channel.write(path, b"")

        assert channel.read(path) == b""
        channel.run(("rm", str(path)))

    def test_writing_replaces_a_file_and_leaves_nothing_beside_it(self, channel: Channel) -> None:
        folder = _fresh("folder")
        channel.run(("mkdir", str(folder)))
        channel.write(folder / "file", b"first, and longer")

        channel.write(folder / "file", b"second")

        assert channel.read(folder / "file") == b"second"
        assert channel.run(("ls", "-A", str(folder))).stdout == b"file\n"
        channel.run(("rm", "-r", str(folder)))

    def test_a_failed_write_is_told_and_leaves_nothing(self, channel: Channel) -> None:
        folder = _fresh("folder")
        channel.run(("mkdir", str(folder)))

        error = _raises(GuestCommandFailed, lambda: channel.write(folder, b"x"))
        missing = _raises(GuestCommandFailed, lambda: channel.write(folder / "no" / "such", b"x"))

        assert f"{str(folder)!r} cannot be written" in str(error)
        assert "cannot be written" in str(missing)
        assert channel.run(("ls", "-A", str(folder))).stdout == b""
        channel.run(("rmdir", str(folder)))

    def test_a_missing_file_cannot_be_read(self, channel: Channel) -> None:
        error = _raises(GuestCommandFailed, lambda: channel.read(PurePosixPath("/no/such/file")))

        assert "'/no/such/file' cannot be read" in str(error)

    def test_a_file_over_the_limit_is_refused(self, channel: Channel) -> None:
        error = _raises(GuestCommandFailed, lambda: channel.read(PurePosixPath("/dev/zero"), limit_bytes=1000))

        assert "'/dev/zero' is larger than 1000 bytes" in str(error)

    def test_closing_twice_is_the_same_as_once(self, channel: Channel) -> None:
        channel.close()
        channel.close()


def _fresh(name: str) -> PurePosixPath:
    return PurePosixPath("/tmp") / f"lab-channel-{time.time_ns()} {name}"


def _close(lines: Iterator[bytes]) -> None:
    close = getattr(lines, "close", None)
    assert close is not None, "a stream must be closable"
    close()
