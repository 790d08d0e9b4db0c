"""A picture of where the time of a cell went: one bar for each phase, as SVG within the page, without script.

It is part of the page and not a file, so that it takes the page's colours in both themes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

from lab.results.plain import one_line
from lab.site import words

_WIDTH, _LABEL, _VALUE, _ROW = 720, 150, 80, 26


def picture(phases: Mapping[str, float]) -> str:
    """The `svg` element; every bar begins where the one before ended."""
    total = sum(max(0.0, value) for value in phases.values()) or 1.0
    room = _WIDTH - _LABEL - _VALUE
    told = html.escape(description(phases))
    parts = [f'<svg class="phases" viewBox="0 0 {_WIDTH} {max(1, len(phases)) * _ROW}" role="img" aria-label="{told}">']
    at = 0.0
    for row, (name, value) in enumerate(phases.items()):
        length, top = max(0.0, value), row * _ROW
        left, width = _LABEL + room * at / total, max(2.0, room * length / total)
        label = html.escape(one_line(name, at_most=22))
        parts.append(
            f'<text x="{_LABEL - 10}" y="{top + 17}" text-anchor="end">{label}</text>'
            f'<rect x="{left:.1f}" y="{top + 5}" width="{width:.1f}" height="{_ROW - 10}" rx="3"/>'
            f'<text x="{left + width + 8:.1f}" y="{top + 17}">{words.seconds(value)}</text>'
        )
        at += length
    return "".join((*parts, "</svg>"))


def description(phases: Mapping[str, float]) -> str:
    """The picture in words."""
    told = ", ".join(f"{one_line(name, at_most=40)} {words.seconds(value)}" for name, value in phases.items())
    return f"Time by phase: {told or 'nothing was timed'}"
