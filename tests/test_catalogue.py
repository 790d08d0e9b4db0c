"""The catalogue: what it finds in the suites, and what it says about mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab import catalogue
from lab.catalogue import Check
from lab.contracts import Capability
from lab.errors import InventoryProblems

REPOSITORY = Path(__file__).parents[1]
SUITES = REPOSITORY / "suites"

FEATURES = """\
drivers: {qemu: qemu}
features:
- {id: boot.core, area: Boot, meaning: Boots, families: [linux, windows], hypervisors: [kvm, qemu]}
- {id: security.vbs, area: Security, meaning: VBS, families: [windows], hypervisors: [hyperv]}
"""

COLLECT = """
import sys, pytest
from pathlib import Path
from lab.checking import mark

class Collector:
    def pytest_collection_finish(self, session):
        for item in session.items:
            found = mark.of(item.function)
            needs = ",".join(sorted(found.needs))
            file = item.path.relative_to(Path(sys.argv[1])).as_posix()
            name = f"{file}::{item.nodeid.partition('::')[2]}"
            print("CHECK", name, found.feature, found.level, found.cold, needs, ",".join(found.families), found.defect,
                  found.timeout_s, found.machines, found.spoils, sep="|")

arguments = ["-q", "--collect-only", "-c", "/dev/null", "--rootdir", sys.argv[1], "--import-mode=importlib",
             "--disable-plugin-autoload", "-p", "no:cacheprovider", sys.argv[1]]
sys.exit(pytest.main(arguments, plugins=[Collector()]))
"""


def suites(folder: Path, check: str, features: str = FEATURES) -> Path:
    (folder / "conformance" / "boot").mkdir(parents=True)
    (folder / "features.yaml").write_text(features)
    (folder / "conformance" / "boot" / "test_core.py").write_text(check)
    return folder


def problems(folder: Path, check: str = "", features: str = FEATURES) -> tuple[str, ...]:
    with pytest.raises(InventoryProblems) as caught:
        catalogue.load(suites(folder, check, features))
    return tuple(problem.replace(f"{folder}/", "") for problem in caught.value.problems)


def test_the_project_has_all_79_features_in_order() -> None:
    found = catalogue.load(SUITES)
    assert len(found.features) == 79
    assert [feature.id for feature in found.features[:3]] == ["boot.core", "boot.unattended_install", "boot.reboot"]
    assert found.features[-1].id == "security.vbs"
    areas = "boot firmware lifecycle cpu time memory net storage device agent channel security"
    assert list(dict.fromkeys(feature.id.partition(".")[0] for feature in found.features)) == areas.split()


def test_there_are_enough_checks_for_the_local_hypervisors() -> None:
    found = catalogue.load(SUITES)
    linux = [check for check in found.checks if "linux" in check.families]
    assert len(linux) >= 40
    assert len({check.feature for check in linux}) >= 28
    assert 10 <= sum(check.level == "smoke" for check in linux) <= 24


def test_the_catalogue_equals_what_pytest_collects() -> None:
    collected = subprocess.run(
        [sys.executable, "-c", COLLECT, str(SUITES)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr
    rows = sorted(line.partition("|")[2] for line in collected.stdout.splitlines() if line.startswith("CHECK|"))
    assert rows == [
        "|".join(
            (
                check.id,
                check.feature,
                check.level,
                str(check.cold),
                ",".join(sorted(check.needs)),
                ",".join(check.families),
                str(check.defect),
                str(check.timeout_s),
                str(check.machines),
                str(check.spoils),
            )
        )
        for check in catalogue.load(SUITES).checks
    ]


def test_a_check_is_read_with_all_its_arguments(tmp_path: Path) -> None:
    text = '''
from lab.suite import Capability, check

@check("boot.core", level="smoke", cold=True, needs=(Capability.NMI,), families=("windows",), defect=True, timeout_s=7,
       machines=2, spoils=True)
def test_x(guest):
    """Catches a thing.

    And more.
    """
'''
    found = catalogue.load(suites(tmp_path, text))
    assert found.checks == (
        Check(
            id="conformance/boot/test_core.py::test_x",
            feature="boot.core",
            level="smoke",
            defect=True,
            families=("windows",),
            cold=True,
            needs=frozenset({Capability.NMI}),
            timeout_s=7.0,
            machines=2,
            spoils=True,
            meaning="Catches a thing.",
        ),
    )


def test_no_file_of_a_suite_is_run(tmp_path: Path) -> None:
    text = 'raise SystemExit("ran")\n@check("boot.core")\ndef test_x(): ...\n'
    assert len(catalogue.load(suites(tmp_path, text)).checks) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def test_x(): ...", "1: test_x: a test without @check; every check names its feature"),
        (
            '@check("boot.cor")\ndef test_x(): ...',
            "1: test_x: unknown feature 'boot.cor' (did you mean \"boot.core\"?)",
        ),
        (
            '@check("boot.core")\ndef test_x(): ...\n\n@check("boot.core")\ndef test_x(): ...',
            "5: test_x: duplicate; the first is in line 2",
        ),
        (
            'F = "boot.core"\n@check(F)\ndef test_x(): ...',
            "2: test_x: feature: expected the feature's id written out, because checks are read without running them",
        ),
        (
            '@check("boot.core", level="smok")\ndef test_x(): ...',
            "1: test_x: level: unknown level 'smok' (did you mean \"smoke\"?); known: smoke, conformance, performance",
        ),
        (
            '@check("boot.core", needs=(Capability.NIM,))\ndef test_x(): ...',
            "1: test_x: needs: unknown capability 'NIM' (did you mean \"NMI\"?); known: "
            + ", ".join(Capability.__members__),
        ),
        (
            '@check("boot.core", needs=("nmi",))\ndef test_x(): ...',
            "1: test_x: needs: expected members of Capability written out, as Capability.SNAPSHOTS",
        ),
        (
            '@check("boot.core", colt=True)\ndef test_x(): ...',
            "1: test_x: @check has no 'colt' (did you mean \"cold\"?)",
        ),
        ('@check("boot.core", **more)\ndef test_x(): ...', "1: test_x: @check has no '**'"),
        ('@check("boot.core", cold=1)\ndef test_x(): ...', "1: test_x: cold: expected True or False written out"),
        (
            '@check("boot.core", machines=3)\ndef test_x(): ...',
            "1: test_x: machines: a check has one machine or two, not 3",
        ),
        (
            '@check("boot.core", timeout_s=0)\ndef test_x(): ...',
            "1: test_x: timeout_s: 0 s is not between 0 and an hour",
        ),
        ("@check\ndef test_x(): ...", "1: test_x: @check needs the feature's id"),
        ("@check()\ndef test_x(): ...", "1: test_x: @check needs the feature's id"),
        ('@check("boot.core", families=("linus",))\ndef test_x(): ...', "unknown family 'linus'"),
        ('@check("security.vbs")\ndef test_x(): ...', "1: test_x: security.vbs is not a feature of linux guests"),
        (
            '@pytest.mark.parametrize("a", [1])\n@check("boot.core")\ndef test_x(a): ...',
            "1: test_x: a check has one decorator, @check",
        ),
        ("class TestX: ...", "1: TestX: a check is a function, not a class"),
        ('@check("boot.core")\nasync def test_x(): ...', "test_x: a check is not async"),
        ("def broken(:", "1: invalid syntax"),
        ("x = '\\0'\n\0", "test_core.py:"),
    ],
)
def test_a_mistake_in_a_check_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith("conformance/boot/test_core.py")
    assert problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("features: [", "features.yaml:2: not YAML"),
        ("features: {}", "features.yaml:1: features: expected a list"),
        ("", "features.yaml:1: the file: expected the keys features, drivers"),
        ("features: [{id: a.b}]", "features.yaml:1: a feature lacks area, meaning, families, hypervisors"),
        (
            FEATURES.replace("meaning: VBS", "meaning: VBS, aera: x"),
            'features.yaml:4: aera: unknown key (did you mean "area"?)',
        ),
        (
            FEATURES.replace("security.vbs", "boot.core"),
            "features.yaml:4: boot.core: duplicate; the first is in line 3",
        ),
        (
            FEATURES.replace("[hyperv]", "[hyperw]"),
            "security.vbs.hypervisors: unknown 'hyperw' (did you mean \"hyperv\"?)",
        ),
        (FEATURES.replace("[windows]", "windows"), "features.yaml:4: security.vbs.families: expected a list"),
        (FEATURES.replace("Boots", "''"), "features.yaml:3: boot.core.meaning: expected a text"),
        (FEATURES.replace("{qemu: qemu}", "{qemu: kvn}"), "features.yaml:1: drivers.qemu: unknown 'kvn'"),
    ],
)
def test_a_mistake_in_the_features_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in problems(tmp_path, features=text)[0]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "def test_x(): ...\ndef test_y(): ...", FEATURES.replace("[hyperv]", "[xem]"))
    assert len(found) == 3


def test_features_that_are_missing_or_not_text_are_a_problem(tmp_path: Path) -> None:
    folder = suites(tmp_path, "")
    (folder / "features.yaml").unlink()
    with pytest.raises(InventoryProblems, match=r"features.yaml: cannot be read: No such file"):
        catalogue.load(folder)
    (folder / "features.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InventoryProblems, match="not UTF-8"):
        catalogue.load(folder)


def test_a_pair_that_cannot_have_a_feature_is_told_why(tmp_path: Path) -> None:
    found = catalogue.load(suites(tmp_path, '@check("security.vbs", families=("windows",))\ndef test_x(): ...'))
    (check,) = found.checks
    assert found.not_applicable(check, family="linux", driver="qemu") == "security.vbs is not a feature of linux guests"
    told = found.not_applicable(check, family="windows", driver="qemu")
    assert told == "security.vbs is not a feature of this kind of hypervisor (qemu)"
    assert found.not_applicable(check, family="windows", driver="other") is None


def test_a_check_that_does_not_know_the_family_is_not_applicable(tmp_path: Path) -> None:
    found = catalogue.load(suites(tmp_path, '@check("boot.core")\ndef test_x(): ...'))
    (check,) = found.checks
    assert found.not_applicable(check, family="windows", driver="qemu") == "this check does not know windows guests"
    assert found.not_applicable(check, family="linux", driver="qemu") is None
    assert found.checks_of("boot.core") == (check,)
    assert found.checks_of("security.vbs") == ()
