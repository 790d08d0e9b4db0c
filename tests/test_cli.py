"""The command line: exit codes, errors as a person sees them, JSON that is nothing but JSON."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cli
from lab.errors import ExitCode

REPOSITORY = Path(__file__).parents[1]
LOCAL = REPOSITORY / "inventories" / "local"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    out, err = capsys.readouterr()
    return int(str(caught.value.code)), out, err


def test_the_plan_as_json_is_one_document_with_every_cell_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "plan", str(LOCAL), "--json")

    plan = json.loads(out)
    assert (status, err) == (0, "")
    assert {"schema", "cells", "estimate_s"} <= plan.keys()
    for cell in plan["cells"]:
        assert {"cell", "host", "guest", "profile", "realness", "checks", "excluded"} <= cell.keys()
        assert bool(cell["checks"]) != bool(cell["excluded"])


def test_select_and_exclude_narrow_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(
        capsys, "plan", str(LOCAL), "--json", "--select", "*/jeos/*", "--exclude", "uml/*", "--exclude", "xen/*"
    )

    cells = [cell["cell"] for cell in json.loads(out)["cells"]]
    assert cells
    assert all(name.startswith("qemu/jeos/") for name in cells)


def test_the_smoke_suite_has_fewer_checks_than_conformance(capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for suite in ("smoke", "conformance"):
        _, out, _ = call(capsys, "plan", str(LOCAL), "--json", "--suite", suite, "--select", "qemu/jeos/pc-bios")
        counts.append(len(json.loads(out)["cells"][0]["checks"]))

    assert 0 < counts[0] < counts[1]


def test_a_selection_that_fits_nothing_ends_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "plan", str(LOCAL), "--select", "qemo/*")

    assert status in (ExitCode.USAGE, ExitCode.NOTHING_RUN)
    assert out == ""
    assert "qemo/*" in err
    assert "Traceback" not in err


def test_all_inventory_errors_come_at_once_and_nothing_is_started(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "inventories", tmp_path / "inventories")
    hosts = tmp_path / "inventories" / "local" / "hosts.yaml"
    hosts.write_text(
        "hypervisors:\n  hosts:\n    a:\n      lab_driver: qemo\n    b:\n      lab_driver: qemu\n      lab_binry: x\n"
    )

    status, out, err = call(capsys, "run", str(tmp_path / "inventories" / "local"))

    assert (status, out) == (ExitCode.USAGE, "")
    assert f'{hosts}:4: a.lab_driver: no driver "qemo" (did you mean "qemu"?' in err
    assert f"{hosts}:7: b.lab_binry: unknown key" in err
    assert err.rstrip().endswith("nothing was started.")


def test_an_inventory_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "plan", "/no/such/inventory")

    assert status == ExitCode.USAGE
    assert "/no/such/inventory" in err


def test_a_cell_is_written_with_two_slashes(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "cell", str(LOCAL), "qemu/jeos")

    assert status == ExitCode.USAGE
    assert err == "lab: 'qemu/jeos' is not a cell\n  -> a cell is written HOST/GUEST/PROFILE\n"


def test_an_unknown_run_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = call(capsys, "run", str(LOCAL), "--resume", "20200101-000000-0000", "--reports", str(tmp_path))

    assert status == ExitCode.LAB_AT_FAULT
    assert err.startswith("lab: there is no run '20200101-000000-0000'\n  -> ")


def test_features_lists_all_79_with_their_checks(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "features", str(REPOSITORY / "suites"), "--json")

    features = json.loads(out)
    assert status == 0
    assert len(features) == 79
    assert {"id", "area", "meaning", "families", "hypervisors", "checks"} <= features[0].keys()
    assert sum(len(feature["checks"]) for feature in features) >= 35
    assert sum(bool(feature["checks"]) for feature in features) >= 25


def test_triage_reads_a_panic_from_a_console_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text(
        "[    0.000000] Linux version 6.1.0-40-amd64 (gcc)\n"
        "[    1.500000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
        "[    1.600000] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\n"
    )

    status, out, _ = call(capsys, "triage", str(console), "--json")

    found = json.loads(out)
    assert status == 0
    assert (found["booted"], found["class"], found["blame"]) == (False, "kernel-panic", "guest")
    assert found["kernel"] == "6.1.0-40-amd64"


def test_an_unreadable_log_is_a_usage_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = call(capsys, "triage", str(tmp_path))

    assert status == ExitCode.USAGE
    assert err.startswith(f"lab: {tmp_path} cannot be read")


def test_a_misspelt_option_is_a_usage_error_that_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "plan", str(LOCAL), "--selct", "x")

    assert status == ExitCode.USAGE
    assert out == ""
    assert err.startswith("lab: No such option '--selct'.")


def test_the_help_imports_neither_ssh_nor_pytest_nor_models() -> None:
    script = (
        "import sys\nfrom lab import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'paramiko', 'pytest', 'pydantic', 'ansible_runner', 'jinja2'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)

    assert said.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m lab features suites | head -1; exit ${{PIPESTATUS[0]}}"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=REPOSITORY)

    assert (ended.returncode, ended.stderr) == (0, "")
