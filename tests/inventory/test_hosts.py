"""Hosts: the text of every problem is an interface, so all of it is compared."""

from __future__ import annotations

import pytest

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
    "lab_driver: esxi\n      lab_address: x\n      lab_realness: real": (
        'hosts.yaml:6: one.lab_realness: hosts of the driver "esxi" are emulated; "real" would hide that'
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
    lab.write("dc/hosts.yaml", "[" * 700)
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
