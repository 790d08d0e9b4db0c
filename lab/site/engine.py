"""Templates made into files: every value is escaped, every missing name is an error, every link is relative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.contracts import Realness
from lab.results.plain import one_line, visible
from lab.site import names, tables, words
from lab.site.names import root_of
from lab.site.view import SiteView

if TYPE_CHECKING:
    from markupsafe import Markup


class Pages:
    """Writes the pages of one site into a folder."""

    def __init__(self, folder: Path, site: SiteView) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        self.folder = folder
        self.site = site
        self._made: set[Path] = set()
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_without_deceit,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            site=site,
            mark=mark,
            badge=badge,
            realness_mark=words.REALNESS.__getitem__,
            no_data=words.NO_DATA,
            not_run=words.NOT_RUN,
            moment=words.moment,
            age=words.age,
            plural=words.plural,
            size=size,
            slug=names.slug,
            visible=lambda text: visible(str(text)),
            one_line=one_line,
            guest_path=names.guest_path,
            feature_path=names.feature_path,
            run_path=names.run_path,
            evidence_path=names.evidence_path,
        )

    def page(self, path: str, template: str, context: Mapping[str, Any]) -> None:
        """Write one page; `path` is relative to the site, `context` names its `title`."""
        text = self.render(path, template, context)
        self.target(path).write_text(text, encoding="utf-8")

    def render(self, path: str, template: str, context: Mapping[str, Any]) -> str:
        """The text of a page or a part of one that lies at `path`."""
        words_of_all = {"root": root_of(path), "nav": ""}
        return self._environment.get_template(template).render({**words_of_all, **context})

    def target(self, path: str) -> Path:
        """The file for a path of the site; its folder is made."""
        target = self.folder / path
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        return target


def _without_deceit(value: object) -> object:
    # Exactly str: markup is made of values that went through here or through `tables.text` already.
    return visible(value) if type(value) is str else value


def safe(markup: str) -> Markup:
    """Markup that was built by `lab.site.tables` or a template, for use in another template."""
    from markupsafe import Markup

    return Markup(markup)  # noqa: S704 - both escape every value


@lru_cache(maxsize=256)
def mark(state: words.Mark) -> Markup:
    """A state as symbol and word."""
    return safe(tables.mark(state))


@lru_cache(maxsize=8)
def badge(realness: Realness) -> Markup:
    """The badge that says what stood behind the records."""
    state = words.REALNESS[realness]
    return safe(tables.mark(replace(state, tone=f"badge {state.tone}")))


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < 1024:
        return words.plural(count, "byte")
    return f"{count / 1024:,.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"
