"""Hostile text made safe to show."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.results import plain


@given(st.text())
def test_visible_text_can_stand_in_xml_and_is_read_back(text: str) -> None:
    element = ET.Element("e")
    element.text = plain.visible(text)

    read = ET.fromstring(ET.tostring(element, encoding="unicode"))  # noqa: S314 - our own
    assert read.text == (plain.visible(text) or None)


@given(st.binary(max_size=300))
def test_a_console_holds_no_control_characters_but_newline_and_tab(data: bytes) -> None:
    shown = plain.console(data)

    assert not {character for character in shown if ord(character) < 32} - {"\n", "\t"}
    assert "\x1b" not in shown
    assert "\x7f" not in shown


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07after", "after"),
        (b"\x1b]8;;http://x\x1b\\link", "link"),
        (b"\x1bP1$r\x1b\\after", "after"),
        (b"\x1b(Bplain\x1b=", "plain"),
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        (b"nul \x00 bell \x07", "nul <00> bell <07>"),
        (b"lone escape \x1b", "lone escape <1B>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u202egnp.exe".encode(), "<U+202E>gnp.exe"),
        ("zero\u200bwidth".encode(), "zero<U+200B>width"),
        ("Grüße 日本 ✓".encode(), "Grüße 日本 ✓"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_a_console_is_shown_as_plain_text(sent: bytes, shown: str) -> None:
    assert plain.console(sent) == shown


@pytest.mark.timeout(60)  # a reader that goes back takes hours
@pytest.mark.parametrize("unit", [b"\x1b[", b"\x1b]", b"\x1b]" + b"a" * 50, b"\x1bP\x1b[0", b"\x1b", b"\r", b"\x1b[0"])
def test_a_console_of_half_finished_sequences_is_read_in_one_go(unit: bytes) -> None:
    shown = plain.console(unit * (2_000_000 // len(unit)))

    assert "\x1b" not in shown


def test_one_line_is_one_line_of_bounded_length() -> None:
    assert plain.one_line("a\nb\t c  ") == "a b c"
    assert plain.one_line("x" * 500, at_most=10) == "xxxxxxx..."
