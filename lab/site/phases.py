"""A picture of where the time of a cell went: one bar for each phase, as an SVG file without script."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from lab.results.plain import one_line
from lab.site import words

_WIDTH, _LABEL, _VALUE, _ROW = 720, 150, 80, 26
# A tone that stands out (contrast 3 and more) from the light and from the dark page alike.
BAR = "#5b82b5"
TEXT, TEXT_IN_DARK = "#57606a", "#b6bec9"


def picture(phases: Mapping[str, float]) -> str:
    """The SVG document; every bar begins where the one before ended."""
    total = sum(max(0.0, value) for value in phases.values()) or 1.0
    room = _WIDTH - _LABEL - _VALUE
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {max(1, len(phases)) * _ROW}",
            "role": "img",
            "font-family": "system-ui, sans-serif",
            "font-size": "13",
        },
    )
    ET.SubElement(root, "title").text = description(phases)
    # A picture has a style sheet of its own; the page's policy for styles does not reach into it.
    style = ET.SubElement(root, "style")
    style.text = f"text{{fill:{TEXT}}}@media (prefers-color-scheme:dark){{text{{fill:{TEXT_IN_DARK}}}}}"
    at = 0.0
    for row, (name, value) in enumerate(phases.items()):
        length = max(0.0, value)
        top = row * _ROW
        label = ET.SubElement(root, "text", {"x": str(_LABEL - 10), "y": str(top + 17), "text-anchor": "end"})
        label.text = one_line(name, at_most=22)
        left = _LABEL + room * at / total
        width = max(2.0, room * length / total)
        ET.SubElement(
            root,
            "rect",
            {
                "x": f"{left:.1f}",
                "y": str(top + 5),
                "width": f"{width:.1f}",
                "height": str(_ROW - 10),
                "rx": "3",
                "fill": BAR,
            },
        )
        said = ET.SubElement(root, "text", {"x": f"{left + width + 8:.1f}", "y": str(top + 17)})
        said.text = words.seconds(value)
        at += length
    return ET.tostring(root, encoding="unicode") + "\n"


def description(phases: Mapping[str, float]) -> str:
    """The picture in words."""
    told = ", ".join(f"{one_line(name, at_most=40)} {words.seconds(value)}" for name, value in phases.items())
    return f"Time by phase: {told or 'nothing was timed'}"
