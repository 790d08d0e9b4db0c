"""Ansible itself is asked here: variables of groups, vaults, templates, plugins and programs; and the cache."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from lab.inventory import resolve, sources
from lab.inventory.problems import Problems
from lab.inventory.resolve import ask_ansible

ONE_HOST = """\
hosts: [one]
guests: [small]
profiles: [pc]
suites: [smoke]
suites_from: ../suites
"""


@pytest.fixture
def calls(monkeypatch):
    """How often Ansible was started."""
    made = []
    start = resolve.process.run

    def counted(argv, **options):
        made.append(list(map(str, argv)))
        return start(argv, **options)

    monkeypatch.setattr(resolve.process, "run", counted)
    return made


@pytest.fixture
def vault_password(lab, monkeypatch) -> Path:
    path = lab.write("vault-password", "correct horse")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(path))
    return path


@pytest.fixture
def answers(monkeypatch):
    """Ansible's answer without Ansible, for tests of what is done with it; counts how often it is asked."""
    hosts = {"one": {"lab_driver": "qemu"}, "two": {"lab_driver": "esxi", "lab_address": "two.example.org"}}
    answer = {"_meta": {"hostvars": hosts}, "hypervisors": {"hosts": list(hosts)}}
    asked = []

    def run(argv, **options):
        asked.append(argv)
        return resolve.process.Finished(0, json.dumps(answer), "")

    monkeypatch.setattr(resolve.process, "run", run)
    return asked


def encrypted(text: str, password: Path) -> str:
    """What ansible-vault makes of a text."""
    from ansible.parsing.vault import VaultLib, VaultSecret

    vault = VaultLib([("default", VaultSecret(password.read_bytes()))])
    return vault.encrypt(text).decode()


def cached_files(lab) -> list[Path]:
    return list((lab.top.parent / "cache/interop-lab/inventories").glob("*.json"))


def test_variables_come_from_groups_hosts_and_their_files(lab):
    lab.write(
        "dc/hosts.yaml",
        """\
        hypervisors:
          vars: {lab_cells_at_once: 1}
          children:
            near:
              hosts: {one: {}}
            far:
              hosts: {"two": {lab_address: two.example.org}}
        """,
    )
    lab.write("dc/group_vars/near.yaml", "lab_driver: qemu\nlab_cells_at_once: 2\n")
    lab.write("dc/group_vars/far/driver.yml", "lab_driver: esxi\n")
    lab.write("dc/group_vars/all.yaml", "lab_memory_mib: 1024\n")
    lab.write("dc/host_vars/one.yaml", "lab_accelerator: tcg\n")
    lab.write("dc/host_vars/empty.yaml", "")

    hosts = lab.load(real=True).hosts

    assert {name: (host.driver, host.cells_at_once, host.memory_mib) for name, host in hosts.items()} == {
        "one": ("qemu", 2, 1024),
        "two": ("esxi", 1, 1024),
    }
    assert hosts["one"].settings.accelerator == "tcg"


def test_a_problem_in_a_file_of_variables_is_told_with_its_line(lab):
    lab.write("dc/group_vars/hypervisors.yaml", "# of all\nlab_memory_mib: lots\n")
    lab.write("dc/host_vars/one/lab.yaml", "\n\nlab_acelerator: tcg\n")

    assert lab.problems(real=True) == [
        'dc/group_vars/hypervisors.yaml:2: hypervisors.lab_memory_mib: wanted a whole number, got "lots"',
        'dc/host_vars/one/lab.yaml:3: one.lab_acelerator: unknown key (did you mean "lab_accelerator"?)',
    ]


def test_a_range_of_hosts_is_unfolded_and_its_problems_are_told_once(lab):
    lab.write("dc/hosts.yaml", "hypervisors:\n  hosts:\n    kvm[01:03]:\n      lab_driver: qemu\n      lab_ports: x\n")
    lab.write("dc/matrix.yaml", ONE_HOST.replace("[one]", '["kvm*"]'))

    assert lab.problems(real=True) == ['dc/hosts.yaml:5: kvm[01:03].lab_ports: wanted a list, got "x"']

    lab.write("dc/hosts.yaml", "hypervisors:\n  hosts:\n    kvm[01:03]:\n      lab_driver: qemu\n")

    assert lab.load(real=True).matrix.hosts == ("kvm01", "kvm02", "kvm03")


def test_a_static_answer_is_kept_and_the_kept_one_is_the_same(lab, calls, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")  # as in a bare container; Ansible itself would refuse to start
    lab.write("dc/yaml.py", "raise SystemExit('a module in the folder was imported')")
    fresh = lab.load(real=True)
    kept = lab.load(real=True)

    assert len(calls) == 1
    assert len(cached_files(lab)) == 1
    assert kept == fresh


@pytest.mark.parametrize("name", ["dc/hosts.yaml", "dc/group_vars/all.yaml", "dc/host_vars/one/deep/x.yaml"])
def test_a_change_of_any_file_asks_ansible_again(lab, answers, name):
    lab.load(real=True)

    path = lab.top / name
    lab.write(name, (path.read_text() if path.exists() else "") + "# one more line\n")

    assert lab.load(real=True)
    assert len(answers) == 2


@pytest.mark.parametrize("content", ["", "[", "[]", '{"one": 3}', '{"one": {"groups": 1}}'])
def test_an_unusable_cache_is_made_again(lab, answers, content):
    fresh = lab.load(real=True)
    (kept,) = cached_files(lab)
    kept.write_text(content)

    assert lab.load(real=True) == fresh
    assert len(answers) == 2


def test_what_is_kept_holds_no_variable_but_the_labs_and_nobody_else_reads_it(lab):
    lab.append("dc/hosts.yaml", "      ansible_password: hunter2")
    assert lab.load(real=True)

    (kept,) = cached_files(lab)

    assert "hunter2" not in kept.read_text()
    assert "lab_address" in kept.read_text()
    assert (lab.top.parent / "cache/interop-lab").stat().st_mode & 0o077 == 0


def test_a_template_is_resolved_and_its_answer_never_kept(lab, calls, monkeypatch):
    lab.append("dc/hosts.yaml", "      lab_cells_at_once: \"{{ lookup('env', 'CELLS') | int }}\"")
    monkeypatch.setenv("CELLS", "5")
    assert {name: host.cells_at_once for name, host in lab.load(real=True).hosts.items()} == {"one": None, "two": 5}

    monkeypatch.setenv("CELLS", "6")

    assert lab.load(real=True).hosts["two"].cells_at_once == 6
    assert cached_files(lab) == []


def test_an_unsafe_text_is_taken_as_it_stands(lab):
    lab.append("dc/hosts.yaml", '      lab_insecure: [!unsafe "{{ x }}"]')

    assert lab.load(real=True).hosts["two"].insecure == ("{{ x }}",)


def test_a_template_that_cannot_be_resolved_is_a_problem(lab):
    lab.append("dc/hosts.yaml", '      lab_memory_mib: "{{ lab_memroy }}"')

    assert lab.problems(real=True) == ["dc: two: Ansible cannot resolve its variables: 'lab_memroy' is undefined"]


def test_a_vaulted_value_reaches_the_driver_and_nothing_else(lab, vault_password):
    blob = encrypted("hunter2", vault_password).strip().replace("\n", "\n        ")
    lab.append("dc/hosts.yaml", f"      lab_password: !vault |\n        {blob}")

    host = lab.load(real=True).hosts["two"]

    assert host.settings.password.reveal() == "hunter2"
    assert "hunter2" not in f"{host!r} {host} {host.settings.model_dump()} {host.settings.model_dump_json()}"
    assert cached_files(lab) == []


def test_a_file_that_is_a_vault_as_a_whole_is_read(lab, vault_password):
    lab.write("dc/host_vars/two.yaml", encrypted("lab_password: hunter2\n", vault_password))

    assert lab.load(real=True).hosts["two"].settings.password.reveal() == "hunter2"
    assert cached_files(lab) == []


def test_a_variable_in_a_vault_may_be_named_by_a_template(lab, vault_password):
    lab.write("dc/group_vars/hypervisors/vault.yaml", encrypted("vault_password: hunter2\n", vault_password))
    lab.append("dc/hosts.yaml", '      lab_password: "{{ vault_password }}"')

    assert lab.load(real=True).hosts["two"].settings.password.reveal() == "hunter2"


def test_a_vault_without_its_password_is_a_problem_and_not_an_empty_secret(lab, vault_password, monkeypatch):
    blob = encrypted("hunter2", vault_password).strip().replace("\n", "\n        ")
    lab.append("dc/hosts.yaml", f"      lab_password: !vault |\n        {blob}")
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")

    assert lab.problems(real=True) == [
        (
            "dc: two: Ansible cannot resolve its variables: Error rendering template: Attempt to use undecryptable "
            "variable: Attempting to decrypt but no vault secrets found."
        )
    ]


def test_a_secret_in_plain_is_a_problem_that_does_not_repeat_it(lab):
    lab.append("dc/hosts.yaml", "      lab_password: hunter2")

    assert lab.problems() == [
        (
            "dc/hosts.yaml:8: two.lab_password: a secret is written as a reference (env:NAME, file:/PATH, "
            "keyring:SERVICE/USER, or a value encrypted with ansible-vault), never in plain"
        )
    ]


def test_a_program_that_lists_hosts_is_asked_each_time(lab, calls):
    (lab.folder / "hosts.yaml").unlink()
    hosts = {
        "hypervisors": {"hosts": ["one", "two"]},
        "_meta": {
            "hostvars": {
                "one": {"lab_driver": "qemu"},
                "two": {"lab_driver": "esxi", "lab_address": "x", "lab_password": "from the program"},
            }
        },
    }
    program = lab.write("dc/hosts.sh", f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(hosts)}\nEOF\n")
    program.chmod(0o755)

    hosts = lab.load(real=True).hosts

    assert list(hosts) == ["one", "two"]
    assert hosts["two"].settings.password.reveal() == "from the program"
    assert lab.load(real=True)
    assert len(calls) == 2
    assert cached_files(lab) == []


def test_an_inventory_plugin_is_asked_and_its_answer_never_kept(lab):
    lab.write(
        "dc/groups.yaml",
        """\
        plugin: ansible.builtin.constructed
        strict: true
        compose:
          lab_memory_mib: 40 * 100
        groups:
          near: inventory_hostname == "one"
        """,
    )
    (lab.folder / "groups.yaml").rename(lab.folder / "z.yaml")  # sources are read in the order of their names

    assert [host.memory_mib for host in lab.load(real=True).hosts.values()] == [4000, 4000]
    assert cached_files(lab) == []


def test_a_program_that_fails_is_a_problem(lab):
    program = lab.write("dc/hosts.yaml", "#!/bin/sh\nexit 3\n")
    program.chmod(0o755)

    assert lab.problems(real=True) == [
        "dc/hosts.yaml: Ansible cannot read it: Inventory script returned non-zero exit code 3."
    ]


def test_an_unknown_plugin_is_a_problem(lab):
    lab.write("dc/hosts.yaml", "plugin: no.such.plugin\n")

    (problem,) = lab.problems(real=True)

    assert problem.startswith("dc/hosts.yaml: Ansible cannot read it: inventory config '")
    assert problem.endswith("specifies unknown plugin 'no.such.plugin'")


def test_an_inventory_in_the_ini_form_works_and_its_problems_name_the_file(lab):
    (lab.folder / "hosts.yaml").unlink()
    lab.write(
        "dc/hosts.ini", "[hypervisors]\none lab_driver=qemu lab_accelerator=kwm\ntwo lab_driver=esxi lab_address=x\n"
    )

    assert lab.problems(real=True) == [
        ('dc/hosts.ini: one.lab_accelerator: wanted one of auto, tcg, kvm, got "kwm" (did you mean "kvm"?)')
    ]


def test_an_ansible_cfg_beside_the_inventory_counts_and_nothing_is_kept(lab, vault_password, monkeypatch):
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")
    lab.write("dc/ansible.cfg", "[defaults]\nvault_password_file = ../vault-password\n")
    lab.write("dc/host_vars/one.yaml", encrypted("lab_memory_mib: 77\n", vault_password))

    assert lab.load(real=True).hosts["one"].memory_mib == 77
    assert cached_files(lab) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dc/group_vars/all.yaml", "lab_x: '{{ y }}'\n"),
        ("dc/group_vars/all.yaml", "lab_x: '{% if 1 %}'\n"),
        ("dc/group_vars/all.yaml", "lab_x: !vault |\n  x\n"),
        ("dc/group_vars/all/deep/vault.yaml", "$ANSIBLE_VAULT;1.1;AES256\n00\n"),
        ("dc/cloud.yml", "plugin: amazon.aws.aws_ec2\n"),
        ("dc/cloud.yml", '{"plugin": "amazon.aws.aws_ec2"}\n'),
        ("dc/ansible.cfg", "[defaults]\n"),
    ],
)
def test_an_answer_that_can_change_or_is_secret_has_no_key(lab, name, text):
    assert sources.digest(lab.folder, sources.sources(lab.folder)) is not None

    lab.write(name, text)

    assert sources.digest(lab.folder, sources.sources(lab.folder)) is None


def test_a_variable_that_changes_ansible_has_its_way(lab, monkeypatch):
    monkeypatch.setenv("ANSIBLE_INVENTORY_PLUGINS", "/somewhere")

    assert sources.digest(lab.folder, sources.sources(lab.folder)) is None


def test_files_that_are_no_source_are_left_alone(lab):
    for name in ("README.md", ".hosts.swp", "hosts.yaml~", "hosts.bak", "notes.txt", "other.yaml"):
        lab.write(f"dc/{name}", "not an inventory: [\n")

    assert [path.name for path in sources.sources(lab.folder)] == ["hosts.yaml"]


def test_ansible_is_the_one_of_our_own_environment(lab, answers):
    lab.load(real=True)

    assert answers[0][:5] == [sys.executable, "-P", "-m", "ansible", "inventory"]


def test_an_ansible_that_cannot_be_started_is_a_problem(lab, monkeypatch):
    monkeypatch.setattr(resolve.sys, "executable", "/nonexistent/python")

    assert lab.problems(real=True) == ["dc: Ansible cannot be asked: /nonexistent/python is not on this machine"]


def test_an_answer_that_is_no_inventory_is_a_problem(lab, monkeypatch):
    monkeypatch.setattr(resolve.process, "run", lambda argv, **options: resolve.process.Finished(0, "[1]", ""))
    problems = Problems()

    assert ask_ansible(lab.folder, problems) is None
    with pytest.raises(Exception, match="ansible-inventory answered something else than an inventory"):
        problems.raise_if_any()


def test_a_full_disk_only_costs_the_cache(lab, answers, monkeypatch):
    def full(self, text):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)

    assert list(lab.load(real=True).hosts) == ["one", "two"]
    assert cached_files(lab) == []
