"""Profiles: the text of every problem is an interface, so all of it is compared."""

from __future__ import annotations

import pytest

PROFILE_PROBLEMS = {
    "  disk: scsi": ("12: q35.disk: written twice, first on line 11"),
    "x:\n  like: pc\n  nic: virtio-net": (
        '14: x.nic: wanted one of virtio, e1000e, vmxnet3, vector, xen, got "virtio-net" (did you mean "virtio"?)'
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
    "x: {like: pc, max_vcpus: 1}": (
        "12: x.max_vcpus: 1 is not more than vcpus, which is 1; without it nothing is added"
    ),
    "x: {like: pc, max_memory_mib: 256}": (
        "12: x.max_memory_mib: 256 is not more than memory_mib, which is 256; without it nothing is added"
    ),
    "x:\n  like: pc\n  secure_boot: true": ("14: x.secure_boot: only UEFI knows signatures, and the firmware is bios"),
    "x: {like: pc, tpm: 'yes'}": '12: x.tpm: wanted true or false, got "yes"',
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


def test_what_can_be_plugged_in_and_trusted_is_said_by_the_profile(lab):
    lab.append(
        "profiles.yaml",
        "x: {like: pc, firmware: uefi, max_vcpus: 4, max_memory_mib: 1024, tpm: true, secure_boot: true}",
    )

    profile = lab.load().profiles["x"]

    assert (profile.max_vcpus, profile.max_memory_mib, profile.tpm, profile.secure_boot) == (4, 1024, True, True)
    plain = lab.load().profiles["pc"]
    assert (plain.max_vcpus, plain.max_memory_mib, plain.tpm, plain.secure_boot) == (0, 0, False, False)
