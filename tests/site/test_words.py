"""States are told by symbol and word, and the colours can be read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.site import words
from lab.site.words import NO_DATA, NOT_RUN, RUNNING, Mark

STYLE = (Path(words.__file__).parent / "assets" / "style.css").read_text()
NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
GROUPS = {
    "outcomes": [*words.OUTCOMES.values(), NOT_RUN, RUNNING, NO_DATA],
    "observed": [*words.OBSERVED.values(), NO_DATA],
    "expected": list(words.EXPECTED.values()),
    "verdicts": list(words.VERDICTS.values()),
    "realness": list(words.REALNESS.values()),
    "changes": list(words.CHANGES.values()),
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_no_two_states_share_a_symbol_or_a_word(group: list[Mark]) -> None:
    assert len({mark.symbol for mark in group}) == len(group)
    assert len({mark.word for mark in group}) == len(group)
    assert all(mark.meaning.endswith(".") for mark in group)


def colours(theme: str) -> dict[str, str]:
    """The custom properties of a theme; the dark ones stand over the light ones."""
    light, _, rest = STYLE.partition("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    if theme == "dark":
        dark = rest.partition("*, *::before")[0]
        found |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark))
    return found


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio, WCAG 2.2, 1.4.3."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TONES = ("good", "bad", "warn", "lab", "quiet", "none", "real", "emulated", "simulated")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(theme: str) -> None:
    found = colours(theme)
    pairs = [(f"{tone}-text", f"{tone}-back") for tone in TONES]
    for text in ("text", "soft", "link"):
        pairs += [(text, behind) for behind in ("page", "paper", "sunken")]
    # Small print and links within coloured notes and squares.
    pairs += [(text, f"{tone}-back") for tone in ("bad", "warn", "lab") for text in ("text", "soft", "link")]

    weak = {pair: round(contrast(found[pair[0]], found[pair[1]]), 2) for pair in pairs}

    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_and_the_focus_stand_out(theme: str) -> None:
    found = colours(theme)

    assert min(contrast(found[one], found["page"]) for one in ("bar", "focus")) >= 3


def test_both_themes_define_the_same_colours() -> None:
    _, _, rest = STYLE.partition("@media (prefers-color-scheme: dark)")
    dark = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", rest))

    assert set(dark) == set(colours("light"))


def test_every_tone_of_a_state_has_its_class() -> None:
    tones = {mark.tone for group in GROUPS.values() for mark in group}

    assert tones == set(TONES)
    assert all(f".{tone} {{ color: var(--{tone}-text); background: var(--{tone}-back);" in STYLE for tone in TONES)


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(seconds=30), "just now"),
        (timedelta(minutes=1), "1 minute old"),
        (timedelta(hours=3, minutes=59), "3 hours old"),
        (timedelta(days=2), "2 days old"),
        (timedelta(seconds=-5), "just now"),
    ],
)
def test_an_age_is_told_in_one_unit(span: timedelta, said: str) -> None:
    assert words.age(NOW - span, NOW) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.00 s"), (1.234, "1.23 s"), (61.26, "61.3 s"), (150, "2 min 30 s"), (7260, "2 h 1 min")],
)
def test_a_span_has_as_many_digits_as_matter(value: float, said: str) -> None:
    assert words.seconds(value) == said


def test_a_check_is_told_as_a_sentence() -> None:
    assert words.sentence("conformance/net/test_x.py::test_the_card_is_up") == "the card is up"
    assert words.sentence("odd") == "odd"
