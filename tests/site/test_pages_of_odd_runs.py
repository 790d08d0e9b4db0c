"""The site of odd runs: hostile, damaged, killed, contradictory, empty, large."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lab.errors import ConfigurationError, RunError
from lab.site import pages

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e{{ 7*7 }}"


def test_hostile_text_is_text_wherever_it_stands(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path, inventory=HOSTILE, command=HOSTILE, version=HOSTILE, machine={HOSTILE: HOSTILE})
    measure = make.Measure(value=1.0, unit=HOSTILE, better="lower")
    given = make.Result(make.Outcome.FAILED, HOSTILE, measured={HOSTILE: measure}, evidence=(HOSTILE,))
    issue = make.known_issue(reason=HOSTILE, owner=HOSTILE)
    maker.planned("a/b/c", "real", [HOSTILE, HOSTILE + "2"])
    maker.planned("a/b/d", "real", [], excluded=HOSTILE)
    host = make.HostDocument(product=HOSTILE, version=HOSTILE, details={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]})
    layout = maker.cell(
        "a/b/c",
        {(HOSTILE, HOSTILE): given},
        host=host,
        guest={"os": {"name": HOSTILE}, HOSTILE: HOSTILE},
        command=HOSTILE,
        phases={HOSTILE: 1.0},
        profile={"name": HOSTILE},
        known_issues=[issue],
    )
    for path in (layout.console, layout.kernel_log, layout.cell_log, layout.reproduce):
        path.write_text(HOSTILE)
    (layout.evidence / "<b>.html").write_text(HOSTILE)
    with layout.records.open("a") as file:
        file.write(json.dumps({HOSTILE: 1}) + "\n")
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent

    for path in site.rglob("*.html"):
        text = path.read_text()
        assert "<script" not in text, path
        assert "<img" not in text, path
        assert "\x1b" not in text, path
        assert "\u202e" not in text, path
        assert "49" not in re.findall(r"\{\{ ?7\*7 ?\}\}|\b49\b", text), path
    assert reading.broken_links(site) == []
    # What a guest left is never served as anything but plain text or a picture.
    assert {path.suffix for path in site.rglob("*") if path.is_file() and path.name != ".interop-lab-site"} == {
        ".html",
        ".txt",
        ".css",
    }


STATEMENTS = """
schema: 1
vendor: ACME & Sons
sources:
  old: {title: "Old <table>", reference: r, as_of: "2016"}
  new: {title: New table, reference: r, as_of: "2025"}
statements:
  - {hypervisor: [qemu-tcg], features: [boot.core], says: supported, words: "full <b>support</b>", source: old}
  - {hypervisor: [qemu-tcg], features: [boot.core], says: unsupported, source: new}
  - {hypervisor: [kvm], features: [boot.core], says: limited, source: new}
"""


def test_statements_that_disagree_are_both_shown_with_their_dates(
    reading: ModuleType, make: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "inventories" / "statements"
    folder.mkdir(parents=True)
    (folder / "acme.yaml").write_text(STATEMENTS)
    maker = make.RunMaker(tmp_path, inventory=str(tmp_path / "inventories" / "local"))
    maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent

    for path in ("cells/real/a/b/c.html", "features/boot-core.html"):
        text = reading.said(reading.page(site, path))
        assert "⇄ sources disagree" in text
        assert "✓ supported says ACME & Sons: full <b>support</b> (vendor-table; Old <table>, 2016)" in text
        assert "⊖ unsupported says ACME & Sons: unsupported (vendor-table; New table, 2025)" in text
        assert "limited" not in text


def test_old_data_is_marked_stale(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path, "20260101-000000-aaaa")
    maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent

    assert "stale" in reading.said(reading.page(site, "cells/real/a/b/c.html"))
    assert "325 days old" in reading.said(reading.page(site, "index.html"))


def test_parts_of_a_run_that_cannot_be_read_are_said_and_the_rest_is_shown(
    reading: ModuleType, make: ModuleType, tmp_path: Path
) -> None:
    maker = make.RunMaker(tmp_path)
    layout = maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()
    with layout.records.open("a") as file:
        file.write("{}\n")

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent

    text = reading.said(reading.page(site, f"runs/{maker.run}/index.html"))
    assert "1 part of this run could not be read and is left out; the rest is shown." in text
    assert "records.jsonl:2: run: Field required" in text
    assert "✓ passed 1" in text


def test_a_run_that_was_killed_says_that_it_never_ended(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    layout = maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    layout.cell_json.unlink()

    site = pages.write(
        [maker.layout.root], tmp_path / "site", reading.catalogue_of([maker.layout.root]), now=make.NOW
    ).parent

    assert "It never said that it ended" in reading.said(reading.page(site, f"runs/{maker.run}/index.html"))
    assert "… unfinished" in reading.said(reading.page(site, "cells/real/a/b/c.html"))


def test_no_run_at_all_makes_a_site_that_says_so(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    site = pages.write([], tmp_path / "site", reading.catalogue_of([]), now=make.NOW).parent

    assert "No data: none of the runs holds a cell." in reading.said(reading.page(site, "index.html"))
    assert reading.broken_links(site) == []


def test_what_is_no_run_leaves_the_old_site(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "site"
    pages.write([], out, reading.catalogue_of([]), now=make.NOW)

    with pytest.raises(RunError, match="is not a run"):
        pages.write([tmp_path / "nothing"], out, reading.catalogue_of([]), now=make.NOW)

    assert (out / "index.html").is_file()


def test_a_run_whose_name_would_lead_out_of_the_site_is_refused(
    reading: ModuleType, make: ModuleType, tmp_path: Path
) -> None:
    maker = make.RunMaker(tmp_path)
    run = maker.finish()
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"run": "../../escape"}))

    with pytest.raises(
        ConfigurationError, match=r"run\.json names itself '\.\./\.\./escape', which is no name of a run"
    ):
        pages.write([run], tmp_path / "site", reading.catalogue_of([]), now=make.NOW)


def test_records_of_a_feature_that_the_catalogue_forgot_are_still_linked(
    reading: ModuleType, make: ModuleType, tmp_path: Path
) -> None:
    maker = make.RunMaker(tmp_path)
    maker.cell("a/b/c", {("gone.feature", "x::test_y"): make.passed()})
    run = maker.finish()
    catalogue = reading.catalogue_of([])
    catalogue.checks = (SimpleNamespace(id="other", feature="boot.core", level="smoke"),)

    site = pages.write([run], tmp_path / "site", catalogue, now=make.NOW).parent

    assert reading.broken_links(site) == []
    assert "the catalogue does not know it" in reading.said(reading.page(site, "features/gone-feature.html"))


def test_a_large_lab_has_guests_by_hosts_on_its_index(
    reading: ModuleType, make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_CELLS_ON_INDEX", 3)
    run = make.many_cells(tmp_path, [f"h{h}/g{g}/p" for h in range(2) for g in range(2)], ["boot.core", "net.jumbo"])

    site = pages.write([run], tmp_path / "site", reading.catalogue_of([run]), now=make.NOW).parent

    (table,) = reading.page(site, "index.html").iter("table")
    assert [reading.said(header) for header in table.xpath("./thead//th")] == ["Guest", "h0", "h1"]
    assert [reading.said(header) for header in table.xpath("./tbody//th")] == ["g0", "g1"]
    assert reading.broken_links(site) == []


def test_an_undefined_name_in_a_template_is_an_error(reading: ModuleType, make: ModuleType, tmp_path: Path) -> None:
    from jinja2 import UndefinedError

    from lab.results.statements import Statements
    from lab.site.engine import Pages
    from lab.site.view import gather

    site = gather([], reading.catalogue_of([]), Statements(), make.NOW)

    with pytest.raises(UndefinedError, match="'title' is undefined"):
        Pages(tmp_path, site).page("x.html", "legend.html.j2", {})
