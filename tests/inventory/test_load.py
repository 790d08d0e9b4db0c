"""The text of every problem that an inventory can have is an interface, so all of it is compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.contracts import Cell, Firmware, Profile, Realness
from lab.errors import ExitCode, InventoryProblems


def test_a_good_inventory_holds_what_its_files_say(lab):
    inventory = lab.load()

    assert list(inventory.hosts) == ["one", "two"]
    assert inventory.hosts["two"].settings.address == "two.example.org"
    assert inventory.guests["big"].memory_mib == 512
    assert inventory.profiles["q35"] == Profile("q35", Firmware.BIOS, "q35", "nvme", "virtio", 1, 256)
    assert len(list(inventory.matrix.cells())) == 8
    assert inventory.suites == lab.top / "suites"


def test_a_host_is_as_real_as_its_driver_unless_the_inventory_says_otherwise(lab):
    assert lab.load().hosts["two"].realness is Realness.EMULATED

    lab.append("dc/hosts.yaml", "      lab_realness: simulated")

    assert lab.load().hosts["two"].realness is Realness.SIMULATED


def test_host_variables_of_the_lab_reach_host_and_settings(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          hosts:
            one:
              ansible_host: 192.0.2.1
              lab_driver: qemu
              lab_cells_at_once: 3
              lab_memory_mib: 4096
              lab_insecure: [the certificate is not checked]
              lab_binary: /opt/qemu
              lab_ports: [1, 2]
            two: {lab_driver: esxi, lab_address: x}
        """,
    )

    host = lab.load().hosts["one"]

    assert (host.cells_at_once, host.memory_mib) == (3, 4096)
    assert host.insecure == ("the certificate is not checked",)
    assert (host.settings.binary, host.settings.ports) == (Path("/opt/qemu"), (1, 2))


def test_a_machine_gets_the_memory_that_its_guest_needs(lab):
    inventory = lab.load()

    assert inventory.profile_of(Cell("one", "big", "pc")).memory_mib == 512
    assert inventory.profile_of(Cell("one", "small", "pc")).memory_mib == 256


def test_all_problems_of_all_files_are_told_at_once(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          hosts:
            one: {lab_driver: qemo}
            two:
              lab_driver: esxi
              lab_adress: x
        """,
    )
    lab.append("profiles.yaml", "  memory: 2")
    lab.append("guests/big.yaml", "titel: x")
    lab.append("dc/matrix.yaml", "exlude: []")

    with pytest.raises(InventoryProblems) as caught:
        lab.load()

    assert str(caught.value).replace(f"{lab.top}/", "") == (
        'dc/hosts.yaml:3: one.lab_driver: no driver "qemo" (did you mean "qemu"? known: esxi, qemu)\n'
        'dc/hosts.yaml:4: two: the key "lab_address" is missing\n'
        'dc/hosts.yaml:6: two.lab_adress: unknown key (did you mean "lab_address"?)\n'
        'dc/matrix.yaml:6: exlude: unknown key (did you mean "exclude"?)\n'
        'guests/big.yaml:6: titel: unknown key (did you mean "title"?)\n'
        'profiles.yaml:12: q35.memory: unknown key (did you mean "memory_mib"?)\n'
        "6 problems; nothing was started."
    )
    assert caught.value.exit_code is ExitCode.USAGE


# -- hosts ------------------------------------------------------------------------------------------------


HOST_PROBLEMS = {
    "lab_driver: 3": "hosts.yaml:4: one.lab_driver: wanted text, got 3 (write it in quotes)",
    "lab_drivr: qemu": (
        'hosts.yaml:3: one: the key "lab_driver" is missing (did you mean it by "lab_drivr"? known drivers: esxi, qemu)'
    ),
    "ansible_host: x": 'hosts.yaml:3: one: the key "lab_driver" is missing (known drivers: esxi, qemu)',
    "lab_driver: qemu\n      lab_cells_at_once: many": (
        'hosts.yaml:5: one.lab_cells_at_once: wanted a whole number, got "many"'
    ),
    "lab_driver: qemu\n      lab_cells_at_once: 0": (
        "hosts.yaml:5: one.lab_cells_at_once: the value should be greater than or equal to 1, got 0"
    ),
    "lab_driver: qemu\n      lab_memory_mib: 1.5": ("hosts.yaml:5: one.lab_memory_mib: wanted a whole number, got 1.5"),
    "lab_driver: qemu\n      lab_realness: reel": (
        'hosts.yaml:5: one.lab_realness: wanted one of real, emulated, simulated, got "reel" (did you mean "real"?)'
    ),
    "lab_driver: qemu\n      lab_accelerator: kwm": (
        'hosts.yaml:5: one.lab_accelerator: wanted one of auto, tcg, kvm, got "kwm" (did you mean "kvm"?)'
    ),
    "lab_driver: qemu\n      lab_ports: [1, x]": ('hosts.yaml:5: one.lab_ports[1]: wanted a whole number, got "x"'),
    "lab_driver: qemu\n      lab_ports: 1": "hosts.yaml:5: one.lab_ports: wanted a list, got 1",
    "lab_driver: qemu\n      lab_binary: {a: b}": "hosts.yaml:5: one.lab_binary: wanted text, got a mapping",
    "lab_driver: qemu\n      lab_driver: esxi": (
        "hosts.yaml:5: hypervisors.hosts.one.lab_driver: written twice, first on line 4"
    ),
    "lab_driver: qemu\n      lab_address: x": "hosts.yaml:5: one.lab_address: unknown key",
}


@pytest.mark.parametrize(("variables", "expected"), HOST_PROBLEMS.items())
def test_a_wrong_variable_of_a_host_is_told_with_its_line(lab, variables, expected):
    lab.write("dc/hosts.yaml", f"hypervisors:\n  hosts:\n    one:\n      {variables}\n")
    lab.write(
        "dc/matrix.yaml", "hosts: [one]\nguests: [big]\nprofiles: [pc]\nsuites: [smoke]\nsuites_from: ../suites\n"
    )

    assert lab.problems() == [f"dc/{expected}"]


def test_a_bad_host_name_is_a_problem(lab):
    lab.write("dc/hosts.yaml", "hypervisors:\n  hosts:\n    One_a: {lab_driver: qemu}\n")
    lab.write(
        "dc/matrix.yaml", "hosts: [One_a]\nguests: [big]\nprofiles: [pc]\nsuites: [smoke]\nsuites_from: ../suites\n"
    )

    assert lab.problems() == [
        (
            "dc/hosts.yaml:3: One_a: not a name: small letters, digits, dots and hyphens, at most 64, "
            "first and last a letter or digit"
        )
    ]


STRUCTURE_PROBLEMS = {
    "hypervisors:\n  hots:\n    a: {}\n": (
        'hosts.yaml:2: hypervisors.hots: unknown key of a group (did you mean "hosts"?)'
    ),
    "hypervisors: 3\n": "hosts.yaml:1: hypervisors: wanted a group with any of children, hosts, vars, got 3",
    "hypervisors:\n  hosts: [a, b]\n": "hosts.yaml:2: hypervisors.hosts: wanted a mapping, got a list",
    "hypervisors:\n  hosts:\n    a: 3\n": "hosts.yaml:3: a: wanted a mapping of variables, got 3",
    "- a\n": "hosts.yaml:1: wanted a mapping of groups, got a list",
    "": "hosts.yaml:1: wanted a mapping of groups, got nothing",
    "hypervisors: {}\n": "hosts.yaml: hypervisors: the group has no hosts; the lab uses the hosts of this group",
    "other:\n  hosts: {a: {}}\n": (
        "hosts.yaml: hypervisors: the group has no hosts; the lab uses the hosts of this group"
    ),
    "hypervisors:\n  hosts: {a: {}\n": "hosts.yaml:3: not valid YAML: expected ',' or '}', but got '<stream end>'",
    "hypervisors:\n\thosts: {}\n": ("hosts.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
    "a: *b\n": "hosts.yaml:1: not valid YAML: found undefined alias 'b'",
    "a: 1\n---\nb: 2\n": "hosts.yaml:2: not valid YAML: but found another document",
    "a: \x07\n": "hosts.yaml:1: not valid YAML: special characters are not allowed",
    "? [a]\n: b\n": "hosts.yaml:1: a key must be plain text",
    "a: &x\n  hosts: *x\n": "hosts.yaml:2: a.hosts: the value contains itself",
    "hypervisors:\n  children:\n    kvm:\n      children:\n        hypervisors: {}\n": (
        "hosts.yaml:5: hypervisors: a cycle of groups: kvm contains hypervisors contains kvm"
    ),
    "hypervisors:\n  children: {kvm: {}}\nkvm:\n  children:\n    old: {}\nold:\n  children: {hypervisors: {}}\n": (
        "hosts.yaml:7: hypervisors: a cycle of groups: old contains hypervisors contains kvm contains old"
    ),
}


@pytest.mark.parametrize(("text", "expected"), STRUCTURE_PROBLEMS.items())
def test_a_file_of_hosts_that_ansible_would_stumble_over_is_told_with_its_line(lab, text, expected):
    lab.write("dc/hosts.yaml", text)

    assert lab.problems() == [f"dc/{expected}"]


def test_a_file_that_is_not_utf8_is_told_with_its_line(lab):
    lab.write("dc/hosts.yaml", b"hypervisors:\n  hosts:\n    \xff: {}\n")

    assert lab.problems() == ["dc/hosts.yaml:3: not UTF-8 text"]


def test_a_file_nested_without_end_is_a_problem_and_no_crash(lab):
    lab.write("dc/hosts.yaml", "[" * 5000)
    lab.write("profiles.yaml", "{a: " * 60 + "1" + "}" * 60)

    problems = lab.problems()

    assert problems[0] == "dc/hosts.yaml: nested deeper than 40 levels"
    assert any(problem.endswith(": nested deeper than 40 levels") for problem in problems[1:])


def test_aliases_that_unfold_without_end_are_a_problem(lab):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    lab.write("profiles.yaml", bomb)

    assert lab.problems()[-1].endswith("the file unfolds to more than 200000 values")


def test_a_file_without_end_is_a_problem(lab):
    lab.write("profiles.yaml", b"# " + b"x" * (5 << 20))

    assert "profiles.yaml: larger than 4 MiB" in lab.problems()


def test_a_problem_in_a_variable_of_a_group_is_told_once_and_where_it_is_written(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          vars:
            lab_acelerator: kvm
          hosts:
            one: {lab_driver: qemu, lab_acelerator: kvm}
            two: {lab_driver: qemu, lab_acelerator: kvm}
        """,
    )
    lab.write("dc/group_vars/all.yaml", "lab_x: 1\n")

    assert lab.problems(real=True) == [
        "dc/group_vars/all.yaml:1: all.lab_x: unknown key",
        'dc/hosts.yaml:5: one.lab_acelerator: unknown key (did you mean "lab_accelerator"?)',
        'dc/hosts.yaml:6: two.lab_acelerator: unknown key (did you mean "lab_accelerator"?)',
    ]


# -- guests -----------------------------------------------------------------------------------------------


def _guest(image: str) -> str:
    return f'title: x\nfamily: linux\nos: {{name: a, version: "1"}}\nimage: {image}\n'


ZEROES = "0" * 64

GUEST_PROBLEMS = {
    "title: x\nfamily: linux\nos: {name: a, version: 12}\nimage: {build: x}\n": (
        "3: os.version: wanted text, got 12 (write it in quotes)"
    ),
    'title: x\nfamily: linus\nos: {name: a, version: "1"}\nimage: {build: x}\n': (
        '2: family: wanted one of linux, got "linus" (did you mean "linux"?)'
    ),
    'title: x\nfamily: linux\nos: {name: a, version: "1"}\n': '1: the key "image" is missing',
    _guest("{bild: x}"): "4: image: wanted a mapping with one of the keys build, file, url, package",
    _guest("jeos"): "4: image: wanted a mapping with one of the keys build, file, url, package",
    _guest("{build: x, formt: raw}"): "4: image.formt: unknown key",
    _guest('\n  file: a\n  formt: raw\n  sha256: "' + ZEROES + '"'): (
        '4: image: the key "format" is missing|6: image.formt: unknown key (did you mean "format"?)'
    ),
    _guest(f'{{url: "ftp://x/y", format: raw, sha256: "{ZEROES}"}}'): (
        "4: image.url: the text should match pattern '^https?://[^\\s]+$', got \"ftp://x/y\""
    ),
    _guest('{url: "https://x/y", format: raw, sha256: abc}'): (
        "4: image.sha256: the text should match pattern '^[0-9a-f]{64}$', got \"abc\""
    ),
    _guest(f'{{url: "https://x/y", format: vdi, sha256: "{ZEROES}"}}'): (
        '4: image.format: wanted one of raw, qcow2, got "vdi"'
    ),
    _guest(f'{{url: "https://x/y", format: raw, sha256: "{ZEROES}", authorization: hunter2}}'): (
        "4: image.authorization: a secret is written as a reference (env:NAME, file:/PATH, keyring:SERVICE/USER, "
        "or a value encrypted with ansible-vault), never in plain"
    ),
    _guest(f'{{url: "https://x/y", format: raw, sha256: "{ZEROES}", authorization: 12345}}'): (
        "4: image.authorization: a secret is written as a reference (env:NAME, file:/PATH, keyring:SERVICE/USER, "
        "or a value encrypted with ansible-vault)"
    ),
    _guest("{build: x}") + "drivers: [virtio, ahci]\n": (
        "5: drivers[1]: wanted one of virtio, sata, nvme, pvscsi, ubd, e1000e, vmxnet3, vector"
    ),
    _guest("{build: x}") + "boot_timeout_s: -1\n": "5: boot_timeout_s: the value should be greater than 0, got -1",
    _guest("{build: x}") + "channel: {port: 70000}\n": (
        "5: channel.port: the value should be less than or equal to 65535, got 70000"
    ),
    _guest("{build: x}") + "optional: no\n": '5: optional: wanted true or false, got "no"',
    _guest("{build: x}") + "memory_mib: 0x_zz\n": '5: memory_mib: wanted a whole number, got "0x_zz"',
    _guest("{build: x}") + f"memory_mib: {'9' * 50}\n": "5: memory_mib: not a number that the lab can read",
    _guest("{build: x}")
    + "seed: !vault x\n": "5: seed: the tag !vault means nothing here|5: seed: wanted one of lab, none, got",
    _guest('{build: "a\\0b"}'): "4: image.build: not text: it holds a NUL or half of a character",
    "3\n": "1: wanted a mapping, got 3",
    "": "1: wanted a mapping, got nothing",
}


@pytest.mark.parametrize(("text", "expected"), GUEST_PROBLEMS.items())
def test_a_wrong_guest_is_told_with_its_line(lab, text, expected):
    lab.write("guests/big.yaml", text)

    found = lab.problems()

    wanted = [f"guests/big.yaml:{one}" for one in expected.split("|")]
    assert [problem[: len(start)] for problem, start in zip(found, wanted, strict=True)] == wanted


def test_an_image_of_a_file_is_found_beside_the_guest(lab):
    lab.write("guests/images/disk.raw", "x")
    lab.write("guests/big.yaml", _guest(f'{{file: images/disk.raw, format: raw, sha256: "{ZEROES}"}}'))

    assert lab.load().guests["big"].image.file == lab.top / "guests/images/disk.raw"


def test_a_missing_image_of_a_guest_in_use_is_a_problem(lab):
    lab.write("guests/big.yaml", _guest(f'{{file: disk.raw, format: raw, sha256: "{ZEROES}"}}'))

    assert lab.problems() == [
        f"guests/big.yaml:4: image: there is no file {lab.top}/guests/disk.raw "
        '(put it there, or say "optional: true")'.replace(f"{lab.top}/", "")
    ]


def test_a_missing_image_is_no_problem_of_an_optional_guest_or_one_that_no_cell_uses(lab):
    missing = _guest(f'{{file: disk.raw, format: raw, sha256: "{ZEROES}"}}')
    lab.write("guests/big.yaml", missing + "optional: true\n")
    lab.write("guests/unused.yaml", missing)

    guests = lab.load().guests

    assert guests["big"].missing() == f"there is no file {lab.top}/guests/disk.raw"


def test_a_guest_has_one_file(lab):
    lab.write("dc/guests/big.yaml", _guest("{build: x}"))

    assert lab.problems() == [
        f"guests/big.yaml: big: a guest of this name is in {lab.folder}/guests/big.yaml too".replace(f"{lab.top}/", "")
    ]


def test_files_of_guests_that_are_badly_named_are_problems(lab):
    lab.write("guests/two.yml", _guest("{build: x}"))
    lab.write("guests/Three.yaml", _guest("{build: x}"))

    assert lab.problems() == [
        (
            "guests/Three.yaml: Three: not a name: small letters, digits, dots and hyphens, at most 64, "
            "first and last a letter or digit"
        ),
        "guests/two.yml: the file of a guest is named <guest>.yaml",
    ]


# -- profiles ---------------------------------------------------------------------------------------------


PROFILE_PROBLEMS = {
    "  disk: scsi": ("12: q35.disk: written twice, first on line 11"),
    "x:\n  like: pc\n  nic: virtio-net": (
        '14: x.nic: wanted one of virtio, e1000e, vmxnet3, vector, got "virtio-net" (did you mean "virtio"?)'
    ),
    "x:\n  like: pcc": '13: x.like: no profile "pcc" (did you mean "pc"? known: pc, q35, x)',
    "x:\n  like: x": "13: x.like: a cycle: x is like x",
    "x: {like: y}\ny: {like: x}": (
        "12: x.like: a cycle: y is like x is like y|13: y.like: a cycle: x is like y is like x"
    ),
    "x: {like: [pc]}": "12: x.like: wanted the name of a profile, got a list",
    "x: 1": "12: x: wanted a mapping, got 1",
    "X!: {like: pc}": (
        "12: X!: not a name: small letters, digits, dots and hyphens, at most 64, first and last a letter or digit"
    ),
    "x: {like: pc, vcpus: 0}": "12: x.vcpus: the value should be greater than or equal to 1, got 0",
    "x: {like: pc, memory_mib: '512'}": '12: x.memory_mib: wanted a whole number, got "512"',
    "x: {firmware: bios, chipset: pc, disk: virtio, nic: virtio, vcpus: 1}": ('12: x: the key "memory_mib" is missing'),
}


@pytest.mark.parametrize(("added", "expected"), PROFILE_PROBLEMS.items())
def test_a_wrong_profile_is_told_with_its_line(lab, added, expected):
    lab.append("profiles.yaml", added)

    assert lab.problems() == [f"profiles.yaml:{one}" for one in expected.split("|")]


def test_a_mistake_in_a_profile_is_told_where_it_is_written_and_once(lab):
    lab.write("profiles.yaml", (lab.top / "profiles.yaml").read_text().replace("vcpus: 1", "vcpus: one"))

    assert lab.problems() == ['profiles.yaml:6: pc.vcpus: wanted a whole number, got "one"']


def test_profiles_may_take_over_by_yaml_merge_too(lab):
    lab.write("profiles.yaml", (lab.top / "profiles.yaml").read_text().replace("pc:\n", "pc: &pc\n"))
    lab.append("profiles.yaml", "x: {<<: *pc, vcpus: 2}")

    profile = lab.load().profiles["x"]

    assert (profile.vcpus, profile.disk) == (2, "virtio")


def test_an_inventory_may_have_profiles_of_its_own(lab):
    (lab.top / "profiles.yaml").rename(lab.folder / "profiles.yaml")

    assert list(lab.load().profiles) == ["pc", "q35"]


# -- matrix -----------------------------------------------------------------------------------------------


MATRIX = "hosts: [one]\nguests: [small]\nprofiles: [pc]\nsuites: [smoke]\nsuites_from: ../suites\n"

MATRIX_PROBLEMS = {
    MATRIX.replace("[one]", "[one, tow]"): '1: hosts[1]: no host "tow" (did you mean "two"? known: one, two)',
    MATRIX.replace("[small]", "[smal]"): '2: guests[0]: no guest "smal" (did you mean "small"? known: big, small)',
    MATRIX.replace("[pc]", "[pcc]"): '3: profiles[0]: no profile "pcc" (did you mean "pc"? known: pc, q35)',
    MATRIX.replace("[pc]", "[z*]"): '3: profiles[0]: no profile "z*" (known: pc, q35)',
    MATRIX.replace("[one]", "[one, one]"): '1: hosts[1]: "one" is in the list already',
    MATRIX.replace("[one]", "one"): '1: hosts: wanted a list, got "one"',
    MATRIX.replace("[one]", "[]"): "1: the matrix has no cells",
    MATRIX.replace("[smoke]", "[]"): "4: suites: names no suite",
    MATRIX.replace("[smoke]", "[smok]"): (
        '4: suites[0]: wanted one of smoke, conformance, performance, got "smok" (did you mean "smoke"?)'
    ),
    MATRIX + "exclude:\n- cells: one/small/pc\n": '7: exclude[0]: the key "reason" is missing',
    MATRIX + "exclude:\n- cells: one/small/pc\n  reason: ' '\n": (
        "8: exclude[0].reason: the text should match pattern '\\S', got \" \""
    ),
    MATRIX + "exclude:\n- {cells: 'two/*', reason: x}\n": '7: exclude[0].cells: "two/*" fits no cell of the matrix',
    MATRIX + "include:\n- cell: one/small\n": (
        "7: include[0].cell: 'one/small' is not a cell; a cell is written HOST/GUEST/PROFILE"
    ),
    MATRIX + "include:\n- cell: one/small/pc\n": "7: include[0].cell: one/small/pc is in the matrix already",
    MATRIX + "include:\n- cell: two/smal/pc\n": (
        '7: include[0].cell: no guest "smal" (did you mean "small"? known: big, small)'
    ),
    MATRIX + "include:\n- cell: two/small/pc\n- cell: two/small/pc\n": (
        "8: include[1].cell: two/small/pc is in the matrix already"
    ),
    MATRIX + "known_issues:\n- {cells: '*', reason: x, owner: ada, expires: 2026-11-21}\n": (
        "7: known_issues[0].expires: expired on 2026-11-21: remove it, or agree on a new date with ada"
    ),
    MATRIX + "known_issues:\n- {cells: '*', reason: x, owner: ada, expires: 2026-13-01}\n": (
        '7: known_issues[0].expires: wanted a date such as 2027-03-31, got "2026-13-01"'
    ),
    MATRIX + "known_issues:\n- {cells: '*', reason: x, expires: 2026-12-01}\n": (
        '7: known_issues[0]: the key "owner" is missing'
    ),
    MATRIX + "known_issues:\n- {cells: 'tree/*', reason: x, owner: ada, expires: 2026-12-01}\n": (
        '7: known_issues[0].cells: "tree/*" fits no cell of the matrix'
    ),
    "[]\n": "1: wanted a mapping, got a list",
}


@pytest.mark.parametrize(("text", "expected"), MATRIX_PROBLEMS.items())
def test_a_wrong_matrix_is_told_with_its_line(lab, text, expected):
    lab.write("dc/matrix.yaml", text)

    assert lab.problems() == [f"dc/matrix.yaml:{expected}"]


def test_a_known_issue_counts_on_its_last_day(lab):
    lab.write("dc/matrix.yaml", MATRIX + "known_issues:\n- {cells: '*', reason: x, owner: ada, expires: 2026-11-22}\n")

    (issue,) = lab.load().matrix.known_issues_of(Cell("one", "small", "pc"))

    assert issue.owner == "ada"
    assert issue.covers("one/small/pc", feature="boot.core", check="x.py::test_y")


def test_a_known_issue_covers_what_its_globs_fit_only(lab):
    lab.write(
        "dc/matrix.yaml",
        MATRIX
        + "known_issues:\n"
        + "- {cells: '*/pc', feature: 'time.*', check: '*::test_a', reason: x, owner: ada, expires: 2027-01-01}\n",
    )

    (issue,) = lab.load().matrix.known_issues

    assert issue.covers("one/small/pc", feature="time.sync", check="a.py::test_a")
    assert not issue.covers("one/small/q35", feature="time.sync", check="a.py::test_a")
    assert not issue.covers("one/small/pc", feature="boot.core", check="a.py::test_a")
    assert not issue.covers("one/small/pc", feature="time.sync", check="a.py::test_b")


def test_a_list_of_the_matrix_may_hold_globs(lab):
    lab.write("dc/matrix.yaml", MATRIX.replace("[one]", '["*"]').replace("[pc]", '[q*, "*"]'))

    matrix = lab.load().matrix

    assert (matrix.hosts, matrix.profiles) == (("one", "two"), ("q35", "pc"))


def test_a_missing_folder_of_suites_is_a_problem(lab):
    lab.write("dc/matrix.yaml", MATRIX.replace("../suites", "../suits"))

    assert lab.problems() == ["dc/matrix.yaml:5: suites_from: no such folder: suits"]


# -- missing files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dc/hosts.yaml", "dc/matrix.yaml", "profiles.yaml"])
def test_a_missing_file_is_a_problem(lab, name):
    (lab.top / name).unlink()

    assert f"{name}: no such file" in lab.problems()


def test_an_inventory_without_guests_is_a_problem(lab):
    for path in (lab.top / "guests").iterdir():
        path.unlink()
    (lab.top / "guests").rmdir()

    assert "guests: no such folder; it holds one file for each guest" in lab.problems()


def test_a_missing_inventory_is_a_problem_that_names_the_nearest(lab):
    lab.folder = lab.top / "dcc"

    assert lab.problems() == ['dcc: no such folder (did you mean "dc"?)']


def test_a_file_is_not_an_inventory(lab):
    lab.folder = lab.top / "dc" / "hosts.yaml"

    assert lab.problems() == [
        "dc/hosts.yaml: an inventory is a folder; give dc instead".replace("give dc", f"give {lab.top}/dc").replace(
            f"{lab.top}/", ""
        )
    ]


def test_a_file_that_points_at_itself_is_a_problem(lab):
    (lab.top / "profiles.yaml").unlink()
    (lab.top / "profiles.yaml").symlink_to("profiles.yaml")

    assert "profiles.yaml: cannot be read: Too many levels of symbolic links" in lab.problems()


def test_no_problem_carries_a_control_character(lab):
    lab.write("dc/matrix.yaml", MATRIX.replace("[one]", '["\\e]0;owned\\a"]'))

    (problem,) = lab.problems()

    assert re.search(r"[\x00-\x1f\x7f]", problem) is None
    assert problem == 'dc/matrix.yaml:1: hosts[0]: no host "\\x1b]0;owned\\x07" (known: one, two)'
