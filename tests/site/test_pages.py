"""The site, read as a browser would read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from lxml import html

from lab.catalogue.features import read_features
from lab.contracts import Realness
from lab.errors import ConfigurationError, RunError
from lab.results.store import Run
from lab.site import pages

ROOT = Path(__file__).parents[2]
NEW = "20261122-031500-a1b2"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e{{ 7*7 }}"


def catalogue_of(runs: list[Path], *more: str) -> SimpleNamespace:
    """The real features, and a check for every record and planned check of the runs."""
    features, _ = read_features(ROOT / "suites" / "features.yaml", [])
    checks = {record.check: record.feature for path in runs for record in Run.open(path).records()}
    checks |= dict.fromkeys(more, "net.vlan")
    listed = tuple(SimpleNamespace(id=key, feature=value, level="conformance") for key, value in sorted(checks.items()))
    return SimpleNamespace(features=tuple(features), checks=listed)


@pytest.fixture(scope="module")
def site(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    runs = list(make.small_runs(folder))
    catalogue = catalogue_of(runs, make.check("net.vlan")[1])
    return pages.write(runs, folder / "site", catalogue, now=make.NOW).parent


def documents(site: Path) -> Iterator[tuple[Path, html.HtmlElement]]:
    for path in sorted(site.rglob("*.html")):
        yield path, html.fromstring(path.read_bytes())


def page(site: Path, path: str) -> html.HtmlElement:
    return html.fromstring((site / path).read_bytes())


def said(element: html.HtmlElement) -> str:
    words = " ".join(" ".join(element.itertext()).split())
    return re.sub(r" (?=[,.):;])", "", words).replace("( ", "(")


def test_every_link_leads_to_a_file_and_a_place_of_the_site(site: Path) -> None:
    ids = {path: set(document.xpath("//@id")) for path, document in documents(site)}
    broken = []
    for path, document in documents(site):
        for link in document.xpath("//@href | //@src"):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or not target.is_file() or (parts.fragment and parts.fragment not in ids[target]):
                broken.append((path.name, link))

    assert broken == []


def test_no_page_has_a_script_a_style_of_its_own_or_a_handler(site: Path) -> None:
    found = [
        (path.name, element.tag, name)
        for path, document in documents(site)
        for element in document.iter("*")
        for name in ("", *element.attrib)
        if element.tag in ("script", "style", "iframe", "object", "form") or name == "style" or name.startswith("on")
    ]

    assert found == []


def test_every_page_forbids_scripts_and_names_its_language_and_title(site: Path) -> None:
    titles = set()
    for _, document in documents(site):
        (policy,) = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert document.get("lang") == "en"
        assert document.xpath("//meta[@name='viewport']")
        assert len(document.xpath("//h1")) == 1
        titles.add(document.findtext(".//title"))

    assert len(titles) > 90


def test_ids_are_unique_on_every_page(site: Path) -> None:
    for path, document in documents(site):
        ids = document.xpath("//@id")
        assert len(ids) == len(set(ids)), path


def test_every_table_has_a_caption_and_headers_with_scope(site: Path) -> None:
    for path, document in documents(site):
        for table in document.iter("table"):
            assert table.xpath("./caption"), path
            assert all(header.get("scope") for header in table.iter("th")), path
            assert table.getparent().get("class") == "scroll", path


def test_the_index_shows_each_realness_in_a_section_of_its_own(site: Path) -> None:
    index = page(site, "index.html")

    sections = {section.get("aria-labelledby"): section for section in index.xpath("//section[.//table]")}

    assert list(sections) == ["real", "emulated", "simulated"]
    for realness, section in sections.items():
        (heading,) = section.iter("h2")
        assert realness in said(heading)
        cells = [link for link in section.xpath(".//a/@href") if link.startswith("cells/")]
        assert cells
        assert all(link.startswith(f"cells/{realness}/") for link in cells)


def test_no_table_of_any_page_mixes_realness(site: Path) -> None:
    for path, document in documents(site):
        for table in document.iter("table"):
            cells = {match[1] for link in table.xpath(".//a/@href") if (match := re.search(r"cells/(\w+)/", link))}
            assert len(cells) <= 1, path


def test_every_page_of_cells_and_evidence_bears_its_badge(site: Path) -> None:
    for realness in Realness:
        for path in (site / "cells" / realness).rglob("*.html"):
            (heading,) = html.fromstring(path.read_bytes()).iter("h1")
            assert realness in said(heading)
    attempt = page(site, f"runs/{NEW}/simulated/debian-12/q35/attempt-1.html")
    assert "simulated" in said(next(attempt.iter("h1")))


def test_all_79_features_are_shown_and_those_without_a_check_are_no_data(site: Path) -> None:
    rows = page(site, "features.html").xpath("//tbody/tr[th/a]")

    states = {said(row.find("th")): said(row) for row in rows}

    assert len(states) == 79
    assert "none · no data · no data · no data" in states["security.vbs"]
    assert "✓ works 1" in states["boot.core"]
    assert len(list((site / "features").iterdir())) == 79


def test_a_cell_lists_every_feature_of_the_catalogue(site: Path) -> None:
    cell = page(site, "cells/emulated/tcg/debian-12/q35.html")

    ids = set(cell.xpath("//@id"))

    features, _ = read_features(ROOT / "suites" / "features.yaml", [])
    assert {feature.id.replace(".", "-").replace("_", "-") for feature in features} <= ids


def test_every_green_of_a_cell_has_a_run_a_date_and_a_log(site: Path) -> None:
    for path in (site / "cells").rglob("*.html"):
        for row in html.fromstring(path.read_bytes()).xpath("//tr[contains(@class, 'check')]"):
            if row.xpath(".//span[contains(@class, 'good')]"):
                links = row.xpath(".//a/@href")
                assert [link for link in links if re.search(r"runs/\d{8}-\d{6}-[0-9a-f]{4}/.*attempt-\d", link)], path
                assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", said(row)), path


def test_a_check_shows_outcome_blame_reason_numbers_and_seconds(site: Path) -> None:
    cell = page(site, "cells/emulated/tcg/debian-12/q35.html")
    rows = {said(row.find("th")): said(row) for row in cell.xpath("//tr[contains(@class, 'check')]")}

    assert "✓ passed boot: 24.9 s 1.25 s log 2026-11-22 03:15 UTC, warm" in rows["userspace is up"]
    text = said(cell)
    assert "✕ failed blame: product ping -s 8972 lost 10 of 10 packets" in text
    assert "! lab fault blame: lab QMP answered nothing within 10 s" in text
    assert "known issue TSO is off in this driver (net team, until 2027-01-01)" in text
    assert "net.jumbo ✕ broken ▼ regression nothing stated" in text


def test_all_attempts_at_a_flaky_check_are_linked(site: Path) -> None:
    cell = page(site, "cells/real/uml/debian-12/pv.html")

    (feature,) = cell.xpath("//tbody[@id='net-pv-nic']")

    assert "flaky" in said(feature)
    assert "Attempts: 1 ✕ failed, 2 ✓ passed" in said(feature)


def test_a_planned_check_without_a_record_is_not_run(site: Path) -> None:
    run = page(site, f"runs/{NEW}/index.html")
    rows = {said(row.find("th")): said(row) for row in run.xpath("//tbody/tr")}

    assert "11 of 12 checks recorded ○ not run 1 conformance/net/test_vlan.py::test_holds" in rows["tcg/debian-12/q35"]
    assert "○ not run 0 of 1 check recorded" in rows["tcg/jeos/microvm"]
    (feature,) = page(site, "cells/emulated/tcg/debian-12/q35.html").xpath("//tbody[@id='net-vlan']")
    assert "? unknown" in said(feature)
    assert "○ not run" in said(feature)


def test_a_run_says_when_where_what_and_what_changed(site: Path) -> None:
    text = said(page(site, f"runs/{NEW}/index.html"))

    for part in (
        "Started 2026-11-22 03:15 UTC (3 hours old). It took 9 min 0 s and exited with 0.",
        "Command lab run inventories/local --suite conformance",
        "Machine · hostname builder-7",
        "Hypervisors QEMU 7.2.22 tcg; Simulated; User-Mode Linux 6.1.42",
        "Changes since run 20261121-031500-0a0b ▼ regressed 1 tcg/debian-12/q35 · net.jumbo",
        "tcg/alpine-3/microvm no driver for pvscsi in this guest",
    ):
        assert part in text


def test_the_evidence_has_versions_timing_reproduction_and_logs(site: Path) -> None:
    attempt = page(site, f"runs/{NEW}/tcg/debian-12/q35/attempt-1.html")
    text = said(attempt)

    for part in (
        "product QEMU version 7.2.22",
        "os · name Debian GNU/Linux 12 (bookworm)",
        "kernel · release 6.1.0-41-amd64",
        "disks vda, size_bytes 2147483648, virtio_blk",
        "lab cell inventories/local tcg/debian-12/q35",
        "qemu-system-x86_64 -machine q35,accel=tcg",
        "Command line: root=/dev/vda console=ttyS0",
        "machine.started",
    ):
        assert part in text
    assert attempt.xpath("//*[name()='svg']/@aria-label")[0].startswith("Time by phase: image 0.40 s")


def test_the_console_is_neutral_on_the_page_and_raw_beside_it(site: Path, make: ModuleType) -> None:
    folder = site / "runs" / NEW / "tcg" / "debian-12" / "q35"
    attempt = html.fromstring((folder / "attempt-1.html").read_bytes())

    (shown, *_) = attempt.xpath("//h2[@id='console']/following::pre[1]")

    assert shown.text.splitlines() == [
        "<script>alert(1)</script>",
        "[    0.000000] Linux version 6.1.0-41-amd64",
        "[    1.9] EXT4-fs error <00><01>\ufffd\ufffd",
        "[    2.0] <U+202E>gnp.exe bidi",
    ]
    assert (folder / "attempt-1-console.txt").read_bytes() == make.HOSTILE_CONSOLE


def test_a_feature_shows_every_cell_that_has_data(site: Path) -> None:
    feature = page(site, "features/boot-core.html")

    cells = [said(row.find("th")) for row in feature.xpath("//tbody/tr")]

    assert cells == ["uml/debian-12/pv", "tcg/debian-12/q35", "tcg/jeos/microvm", "simulated/debian-12/q35"]
    assert "Installs and boots to a usable state" in said(feature)


def test_hostile_text_is_text_wherever_it_stands(make: ModuleType, tmp_path: Path) -> None:
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

    site = pages.write([run], tmp_path / "site", catalogue_of([run]), now=make.NOW).parent

    for path in site.rglob("*.html"):
        text = path.read_text()
        assert "<script" not in text, path
        assert "<img" not in text, path
        assert "\x1b" not in text, path
        assert "\u202e" not in text, path
        assert "49" not in re.findall(r"\{\{ ?7\*7 ?\}\}|\b49\b", text), path
    test_every_link_leads_to_a_file_and_a_place_of_the_site(site)
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


def test_statements_that_disagree_are_both_shown_with_their_dates(make: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "inventories" / "statements"
    folder.mkdir(parents=True)
    (folder / "acme.yaml").write_text(STATEMENTS)
    maker = make.RunMaker(tmp_path, inventory=str(tmp_path / "inventories" / "local"))
    maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", catalogue_of([run]), now=make.NOW).parent

    for path in ("cells/real/a/b/c.html", "features/boot-core.html"):
        text = said(page(site, path))
        assert "⇄ sources disagree" in text
        assert "✓ supported says ACME & Sons: full <b>support</b> (vendor-table; Old <table>, 2016)" in text
        assert "⊖ unsupported says ACME & Sons: unsupported (vendor-table; New table, 2025)" in text
        assert "limited" not in text


def test_old_data_is_marked_stale(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path, "20260101-000000-aaaa")
    maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()

    site = pages.write([run], tmp_path / "site", catalogue_of([run]), now=make.NOW).parent

    assert "stale" in said(page(site, "cells/real/a/b/c.html"))
    assert "325 days old" in said(page(site, "index.html"))


def test_parts_of_a_run_that_cannot_be_read_are_said_and_the_rest_is_shown(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    layout = maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    run = maker.finish()
    with layout.records.open("a") as file:
        file.write("{}\n")

    site = pages.write([run], tmp_path / "site", catalogue_of([run]), now=make.NOW).parent

    text = said(page(site, f"runs/{maker.run}/index.html"))
    assert "1 part of this run could not be read and is left out; the rest is shown." in text
    assert "records.jsonl:2: run: Field required" in text
    assert "✓ passed 1" in text


def test_a_run_that_was_killed_says_that_it_never_ended(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    layout = maker.cell("a/b/c", {make.check("boot.core"): make.passed()})
    layout.cell_json.unlink()

    site = pages.write([maker.layout.root], tmp_path / "site", catalogue_of([maker.layout.root]), now=make.NOW).parent

    assert "It never said that it ended" in said(page(site, f"runs/{maker.run}/index.html"))
    assert "… unfinished" in said(page(site, "cells/real/a/b/c.html"))


def test_no_run_at_all_makes_a_site_that_says_so(make: ModuleType, tmp_path: Path) -> None:
    site = pages.write([], tmp_path / "site", catalogue_of([]), now=make.NOW).parent

    assert "No data: none of the runs holds a cell." in said(page(site, "index.html"))
    test_every_link_leads_to_a_file_and_a_place_of_the_site(site)


def test_what_is_no_run_leaves_the_old_site(make: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "site"
    pages.write([], out, catalogue_of([]), now=make.NOW)

    with pytest.raises(RunError, match="is not a run"):
        pages.write([tmp_path / "nothing"], out, catalogue_of([]), now=make.NOW)

    assert (out / "index.html").is_file()


def test_a_run_whose_name_would_lead_out_of_the_site_is_refused(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    run = maker.finish()
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"run": "../../escape"}))

    with pytest.raises(
        ConfigurationError, match=r"run\.json names itself '\.\./\.\./escape', which is no name of a run"
    ):
        pages.write([run], tmp_path / "site", catalogue_of([]), now=make.NOW)


def test_records_of_a_feature_that_the_catalogue_forgot_are_still_linked(make: ModuleType, tmp_path: Path) -> None:
    maker = make.RunMaker(tmp_path)
    maker.cell("a/b/c", {("gone.feature", "x::test_y"): make.passed()})
    run = maker.finish()
    catalogue = catalogue_of([])
    catalogue.checks = (SimpleNamespace(id="other", feature="boot.core", level="smoke"),)

    site = pages.write([run], tmp_path / "site", catalogue, now=make.NOW).parent

    test_every_link_leads_to_a_file_and_a_place_of_the_site(site)
    assert "the catalogue does not know it" in said(page(site, "features/gone-feature.html"))


def test_a_large_lab_has_guests_by_hosts_on_its_index(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_CELLS_ON_INDEX", 3)
    run = make.many_cells(tmp_path, [f"h{h}/g{g}/p" for h in range(2) for g in range(2)], ["boot.core", "net.jumbo"])

    site = pages.write([run], tmp_path / "site", catalogue_of([run]), now=make.NOW).parent

    (table,) = page(site, "index.html").iter("table")
    assert [said(header) for header in table.xpath("./thead//th")] == ["Guest", "h0", "h1"]
    assert [said(header) for header in table.xpath("./tbody//th")] == ["g0", "g1"]
    test_every_link_leads_to_a_file_and_a_place_of_the_site(site)


def test_an_undefined_name_in_a_template_is_an_error(make: ModuleType, tmp_path: Path) -> None:
    from jinja2 import UndefinedError

    from lab.results.statements import Statements
    from lab.site.engine import Pages
    from lab.site.view import gather

    site = gather([], catalogue_of([]), Statements(), make.NOW)

    with pytest.raises(UndefinedError, match="'title' is undefined"):
        Pages(tmp_path, site).page("x.html", "legend.html.j2", {})
