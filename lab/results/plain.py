"""Hostile text made safe to show: no escapes, no control characters, no reordering of what the reader sees."""

from __future__ import annotations

import re

# ECMA-48, 5.4 (control sequences), 5.6 (control strings) and 5.5 (independent functions); bounded so that a
# console full of half-finished sequences costs no more than its length.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]{1,4}[0-~]"
    r"|\x1b[0-Z\\^_`-~]"
)
# Some consoles send CR CR LF. Bounded, or a megabyte of CR would be read a million times.
_LINE_END = re.compile(r"\r{1,3}\n|\r")
# C0 but tab and newline, DEL, C1, and the characters that reorder or hide text (Unicode TR 36, 3.1; the Trojan
# Source attack), and what XML 1.0 (2.2) cannot hold.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """The text with every character that could deceive a reader or break a file shown as a code."""
    return _UNSAFE.sub(_symbol, text)


def console(data: bytes) -> str:
    """What a serial console sent, as lines of plain text: escape sequences are taken out, the rest is visible."""
    text = _LINE_END.sub("\n", data.decode(errors="replace"))
    return visible(_SEQUENCE.sub("", text))


def one_line(text: str, *, at_most: int = 300) -> str:
    """The text on one line, cut at `at_most` characters."""
    flat = " ".join(visible(text).split())
    return flat if len(flat) <= at_most else f"{flat[: at_most - 3]}..."


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20 or code == 0x7F:
        return f"<{code:02X}>"
    if 0xD800 <= code <= 0xDFFF or code >= 0xFFFE:
        return _REPLACEMENT
    return f"<U+{code:04X}>"
