"""The site, read as a browser would read it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from lxml import html

from lab.catalogue.features import read_features
from lab.contracts import Realness
from lab.site import pages

ROOT = Path(__file__).parents[2]
NEW = "20261122-031500-a1b2"


@pytest.fixture(scope="module")
def site(reading: ModuleType, make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    runs = list(make.small_runs(folder))
    catalogue = reading.catalogue_of(runs, make.check("net.vlan")[1])
    return pages.write(runs, folder / "site", catalogue, now=make.NOW).parent


def test_every_link_leads_to_a_file_and_a_place_of_the_site(reading: ModuleType, site: Path) -> None:
    assert reading.broken_links(site) == []


def test_no_page_has_a_script_a_style_of_its_own_or_a_handler(reading: ModuleType, site: Path) -> None:
    found = [
        (path.name, element.tag, name)
        for path, document in reading.documents(site)
        for element in document.iter("*")
        for name in ("", *element.attrib)
        if element.tag in ("script", "style", "iframe", "object", "form") or name == "style" or name.startswith("on")
    ]

    assert found == []


def test_every_page_forbids_scripts_and_names_its_language_and_title(reading: ModuleType, site: Path) -> None:
    titles = set()
    for _, document in reading.documents(site):
        (policy,) = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert document.get("lang") == "en"
        assert document.xpath("//meta[@name='viewport']")
        assert len(document.xpath("//h1")) == 1
        titles.add(document.findtext(".//title"))

    assert len(titles) > 90


def test_ids_are_unique_on_every_page(reading: ModuleType, site: Path) -> None:
    for path, document in reading.documents(site):
        ids = document.xpath("//@id")
        assert len(ids) == len(set(ids)), path


def test_every_table_has_a_caption_and_headers_with_scope(reading: ModuleType, site: Path) -> None:
    for path, document in reading.documents(site):
        for table in document.iter("table"):
            assert table.xpath("./caption"), path
            assert all(header.get("scope") for header in table.iter("th")), path
            assert table.getparent().get("class") == "scroll", path


def test_the_index_shows_each_realness_in_a_section_of_its_own(reading: ModuleType, site: Path) -> None:
    index = reading.page(site, "index.html")

    sections = {section.get("aria-labelledby"): section for section in index.xpath("//section[.//table]")}

    assert list(sections) == ["real", "emulated", "simulated"]
    for realness, section in sections.items():
        (heading,) = section.iter("h2")
        assert realness in reading.said(heading)
        cells = [link for link in section.xpath(".//a/@href") if link.startswith("cells/")]
        assert cells
        assert all(link.startswith(f"cells/{realness}/") for link in cells)


def test_no_table_of_any_page_mixes_realness(reading: ModuleType, site: Path) -> None:
    for path, document in reading.documents(site):
        for table in document.iter("table"):
            cells = {match[1] for link in table.xpath(".//a/@href") if (match := re.search(r"cells/(\w+)/", link))}
            assert len(cells) <= 1, path


def test_every_page_of_cells_and_evidence_bears_its_badge(reading: ModuleType, site: Path) -> None:
    for realness in Realness:
        for path in (site / "cells" / realness).rglob("*.html"):
            (heading,) = html.fromstring(path.read_bytes()).iter("h1")
            assert realness in reading.said(heading)
    attempt = reading.page(site, f"runs/{NEW}/simulated/debian-12/q35/attempt-1.html")
    assert "simulated" in reading.said(next(attempt.iter("h1")))


def test_all_79_features_are_shown_and_those_without_a_check_are_no_data(reading: ModuleType, site: Path) -> None:
    rows = reading.page(site, "features.html").xpath("//tbody/tr[th/a]")

    states = {reading.said(row.find("th")): reading.said(row) for row in rows}

    assert len(states) == 79
    assert "none · no data · no data · no data" in states["security.vbs"]
    assert "✓ works 1" in states["boot.core"]
    assert len(list((site / "features").iterdir())) == 79


def test_a_cell_lists_every_feature_of_the_catalogue(reading: ModuleType, site: Path) -> None:
    cell = reading.page(site, "cells/emulated/tcg/debian-12/q35.html")

    ids = set(cell.xpath("//@id"))

    features, _ = read_features(ROOT / "suites" / "features.yaml", [])
    assert {feature.id.replace(".", "-").replace("_", "-") for feature in features} <= ids


def test_every_green_of_a_cell_has_a_run_a_date_and_a_log(reading: ModuleType, site: Path) -> None:
    for path in (site / "cells").rglob("*.html"):
        for row in html.fromstring(path.read_bytes()).xpath("//tr[contains(@class, 'check')]"):
            if row.xpath(".//span[contains(@class, 'good')]"):
                links = row.xpath(".//a/@href")
                assert [link for link in links if re.search(r"runs/\d{8}-\d{6}-[0-9a-f]{4}/.*attempt-\d", link)], path
                assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", reading.said(row)), path


def test_a_check_shows_outcome_blame_reason_numbers_and_seconds(reading: ModuleType, site: Path) -> None:
    cell = reading.page(site, "cells/emulated/tcg/debian-12/q35.html")
    rows = {reading.said(row.find("th")): reading.said(row) for row in cell.xpath("//tr[contains(@class, 'check')]")}

    assert "✓ passed boot: 24.9 s 1.25 s log 2026-11-22 03:15 UTC, warm" in rows["userspace is up"]
    text = reading.said(cell)
    assert "✕ failed blame: product ping -s 8972 lost 10 of 10 packets" in text
    assert "! lab fault blame: lab QMP answered nothing within 10 s" in text
    assert "known issue TSO is off in this driver (net team, until 2027-01-01)" in text
    assert "net.jumbo ✕ broken ▼ regression nothing stated" in text


def test_all_attempts_at_a_flaky_check_are_linked(reading: ModuleType, site: Path) -> None:
    cell = reading.page(site, "cells/real/uml/debian-12/pv.html")

    (feature,) = cell.xpath("//tbody[@id='net-pv-nic']")

    assert "flaky" in reading.said(feature)
    assert "Attempts: 1 ✕ failed, 2 ✓ passed" in reading.said(feature)


def test_a_planned_check_without_a_record_is_not_run(reading: ModuleType, site: Path) -> None:
    run = reading.page(site, f"runs/{NEW}/index.html")
    rows = {reading.said(row.find("th")): reading.said(row) for row in run.xpath("//tbody/tr")}

    assert "11 of 12 checks recorded ○ not run 1 conformance/net/test_vlan.py::test_holds" in rows["tcg/debian-12/q35"]
    assert "○ not run 0 of 1 check recorded" in rows["tcg/jeos/microvm"]
    (feature,) = reading.page(site, "cells/emulated/tcg/debian-12/q35.html").xpath("//tbody[@id='net-vlan']")
    assert "? unknown" in reading.said(feature)
    assert "○ not run" in reading.said(feature)


def test_a_run_says_when_where_what_and_what_changed(reading: ModuleType, site: Path) -> None:
    text = reading.said(reading.page(site, f"runs/{NEW}/index.html"))

    for part in (
        "Started 2026-11-22 03:15 UTC (3 hours old). It took 9 min 0 s and exited with 0.",
        "Command lab run inventories/local --suite conformance",
        "Machine · hostname builder-7",
        "Hypervisors QEMU 7.2.22 tcg; Simulated; User-Mode Linux 6.1.42",
        "Changes since run 20261121-031500-0a0b ▼ regressed 1 tcg/debian-12/q35 · net.jumbo",
        "tcg/alpine-3/microvm no driver for pvscsi in this guest",
    ):
        assert part in text


def test_the_evidence_has_versions_timing_reproduction_and_logs(reading: ModuleType, site: Path) -> None:
    attempt = reading.page(site, f"runs/{NEW}/tcg/debian-12/q35/attempt-1.html")
    text = reading.said(attempt)

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


def test_the_console_is_neutral_on_the_page_and_beside_it(site: Path) -> None:
    folder = site / "runs" / NEW / "tcg" / "debian-12" / "q35"
    attempt = html.fromstring((folder / "attempt-1.html").read_bytes())

    (shown, *_) = attempt.xpath("//h2[@id='console']/following::pre[1]")

    assert shown.text.splitlines() == [
        "<script>alert(1)</script>",
        "[    0.000000] Linux version 6.1.0-41-amd64",
        "[    1.9] EXT4-fs error <00><01>\ufffd\ufffd",
        "[    2.0] <U+202E>gnp.exe bidi",
    ]
    assert (folder / "attempt-1-console.txt").read_text().splitlines() == shown.text.splitlines()


def test_a_feature_shows_every_cell_that_has_data(reading: ModuleType, site: Path) -> None:
    feature = reading.page(site, "features/boot-core.html")

    cells = [reading.said(row.find("th")) for row in feature.xpath("//tbody/tr")]

    assert cells == ["uml/debian-12/pv", "tcg/debian-12/q35", "tcg/jeos/microvm", "simulated/debian-12/q35"]
    assert "Installs and boots to a usable state" in reading.said(feature)
