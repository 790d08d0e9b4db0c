"""Reading a site as a browser does: its pages, their text, their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

from lxml import html

from lab.catalogue.features import read_features
from lab.results.store import Run

ROOT = Path(__file__).parents[2]


def catalogue_of(runs: list[Path], *more: str) -> SimpleNamespace:
    """The real features, and a check for every record and planned check of the runs."""
    features, _ = read_features(ROOT / "suites" / "features.yaml", [])
    checks = {record.check: record.feature for path in runs for record in Run.open(path).records()}
    checks |= dict.fromkeys(more, "net.vlan")
    listed = tuple(SimpleNamespace(id=key, feature=value, level="conformance") for key, value in sorted(checks.items()))
    return SimpleNamespace(features=tuple(features), checks=listed)


def documents(site: Path) -> Iterator[tuple[Path, html.HtmlElement]]:
    for path in sorted(site.rglob("*.html")):
        yield path, html.fromstring(path.read_bytes())


def page(site: Path, path: str) -> html.HtmlElement:
    return html.fromstring((site / path).read_bytes())


def said(element: html.HtmlElement) -> str:
    words = " ".join(" ".join(element.itertext()).split())
    return re.sub(r" (?=[,.):;])", "", words).replace("( ", "(")


def broken_links(site: Path) -> list[tuple[str, str]]:
    """Every link that leads out of the site, to no file, or to no place of a page."""
    ids = {path: set(document.xpath("//@id")) for path, document in documents(site)}
    broken = []
    for path, document in documents(site):
        for link in document.xpath("//@href | //@src"):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or not target.is_file() or (parts.fragment and parts.fragment not in ids[target]):
                broken.append((path.name, link))
    return broken
