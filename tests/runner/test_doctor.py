"""The doctor: a probe that did not run is never good, and every bad finding has its remedy."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lab.errors import ExitCode, HostError
from lab.hypervisors import _uml_network, uml
from lab.inventory.models import Inventory
from lab.provisioning import hosts
from lab.runner import doctor
from lab.runner.doctor import Finding, Health


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own; programs are shell scripts in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path, name: str, script: str) -> None:
    file = path / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def find(findings: list[Finding], subject: str) -> Finding:
    return next(finding for finding in findings if finding.subject == subject)


@pytest.fixture(autouse=True)
def no_real_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.hypervisors, "names", lambda: ())


def test_a_missing_tool_is_bad_and_says_what_to_install(path: Path) -> None:
    found = find(doctor.examine(None), "mmdebstrap")

    assert found == Finding(
        "mmdebstrap", Health.BAD, "not on this machine; needed for building images", "apt-get install mmdebstrap"
    )


def test_a_tool_that_is_too_old_is_bad(path: Path) -> None:
    program(path, "qemu-system-x86_64", "echo QEMU emulator version 5.2.0")

    found = find(doctor.examine(None), "qemu-system-x86_64")

    assert found.health is Health.BAD
    assert found.found == "QEMU emulator version 5.2.0; 6.2 or newer is needed"


def test_a_tool_that_fails_is_not_good_because_it_exists(path: Path) -> None:
    program(path, "qemu-img", "exit 127")

    assert find(doctor.examine(None), "qemu-img").health is Health.BAD


def test_a_tool_that_answers_is_good_with_its_version(path: Path) -> None:
    program(path, "qemu-img", "echo qemu-img version 7.2.22 '(Debian 1:7.2)'")

    assert find(doctor.examine(None), "qemu-img") == Finding("qemu-img", Health.GOOD, "7.2.22")


def test_anything_bad_makes_the_exit_code_the_labs_fault() -> None:
    good, poor, bad = (Finding("x", health, "y") for health in (Health.GOOD, Health.POOR, Health.BAD))

    assert doctor.exit_code([good, poor]) is ExitCode.AS_EXPECTED
    assert doctor.exit_code([good, bad]) is ExitCode.LAB_AT_FAULT


def test_too_little_disk_is_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_GIB", 10**9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    found = find(doctor.examine(None), "disk")

    assert found.health is Health.BAD
    assert "XDG_CACHE_HOME" in found.remedy


def test_a_network_that_cannot_be_made_is_bad_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        raise HostError("no namespaces here", hint="allow them")

    monkeypatch.setattr(doctor.hypervisors, "names", lambda: ("walled",))
    monkeypatch.setattr(doctor.hypervisors, "load", lambda name: SimpleNamespace(prove_network=refused))

    assert find(doctor.examine(None), "network of walled") == Finding(
        "network of walled", Health.BAD, "no namespaces here", "allow them"
    )


def test_the_network_of_uml_is_tried_and_not_guessed() -> None:
    assert uml.prove_network() == "namespaces and a tap device were made"


def test_a_machine_that_does_not_let_us_make_namespaces_says_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import ctypes, sys\nfrom lab.hypervisors import _uml_network as network\n"
        "network.ALL_NAMESPACES = -1\nsys.exit(network.main())\n"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout == (
        f"this machine does not let us make user namespaces: Invalid argument\n{_uml_network.REMEDY}\n"
    )


def test_a_made_host_whose_hypervisor_is_doubted_is_not_shown_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    kvm = SimpleNamespace(name="kvm-local")
    monkeypatch.setattr(hosts, "made_from", lambda host: "kvm-host")
    monkeypatch.setattr(hosts, "is_there", lambda host: False)
    monkeypatch.setattr(hosts, "lacks", lambda host: None)
    monkeypatch.setattr(hosts, "state_of", lambda host: "its frozen copy is there")

    inventory = cast(Inventory, SimpleNamespace(hosts={"kvm-local": kvm}, guests={}))
    found = find(doctor.examine(inventory), "host kvm-local")

    assert found.health is Health.POOR
    assert found.found.startswith("can be made here: its frozen copy is there; KVM there is not proved to be stable")
