"""An xl.cfg holds what it was given and nothing else, or is refused."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import HypervisorRefused
from lab.hypervisors._xen_config import Disk, Domain, Kind, Nic, rendered, text

SYNTAX = "ab,=\"'\\\n\r\t #[]{}()$`;|&%\0\x1b/.é-"
HOSTILE = st.text(alphabet=st.sampled_from(SYNTAX), max_size=40) | st.text(max_size=40)
PLAIN = Domain(
    name="lab-one",
    uuid="6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
    kind=Kind.PV,
    vcpus=1,
    max_vcpus=2,
    memory_mib=192,
    max_memory_mib=320,
    disks=(Disk("/var/lib/interop-lab/machines/one/root.raw", "xvda"), Disk("/x/seed.raw", "xvdb", writable=False)),
    nics=(Nic("00:16:3e:00:00:01", "xenbr0"),),
    kernel="/x/kernel",
    ramdisk="/x/ramdisk",
    arguments="root=/dev/xvda rw console=hvc0 lab.ip=10.0.2.101/24,10.0.2.2",
)


def read(config: str) -> dict[str, Any]:
    """An xl.cfg as something else than the writer reads it: its values are those of Python (xl.cfg(5), SYNTAX)."""
    lines = config.split("\n")
    assert lines[-1] == ""
    found = {}
    for line in lines[:-1]:
        key, equals, value = line.partition(" = ")
        assert equals
        assert key not in found
        found[key] = ast.literal_eval(value)
    return found


def test_a_pv_domain_is_written_as_xl_wants_it() -> None:
    assert text(PLAIN, knows_type=True) == (
        'name = "lab-one"\n'
        'uuid = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"\n'
        'type = "pv"\n'
        'kernel = "/x/kernel"\n'
        'ramdisk = "/x/ramdisk"\n'
        'extra = "root=/dev/xvda rw console=hvc0 lab.ip=10.0.2.101/24,10.0.2.2"\n'
        "vcpus = 1\n"
        "maxvcpus = 2\n"
        "memory = 192\n"
        "maxmem = 320\n"
        'disk = [ "format=raw,vdev=xvda,access=rw,target=/var/lib/interop-lab/machines/one/root.raw", '
        '"format=raw,vdev=xvdb,access=ro,target=/x/seed.raw" ]\n'
        'vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0" ]\n'
        'on_poweroff = "preserve"\n'
        'on_reboot = "restart"\n'
        'on_crash = "preserve"\n'
        'on_watchdog = "preserve"\n'
    )


def test_an_image_without_a_kernel_is_left_to_pygrub() -> None:
    keys = read(text(_with(kernel="", ramdisk=""), knows_type=True))

    assert keys["bootloader"] == "pygrub"
    assert not {"kernel", "ramdisk", "extra"} & set(keys)


def test_a_toolstack_without_the_key_type_gets_a_builder() -> None:
    keys = read(text(PLAIN, knows_type=False))

    assert keys["builder"] == "generic"
    assert "type" not in keys
    with pytest.raises(HypervisorRefused, match="this toolstack cannot make PVH domains"):
        text(_with(kind=Kind.PVH), knows_type=False)


def test_a_pvh_domain_on_an_emulated_processor_reads_the_counter_itself() -> None:
    keys = read(text(_with(kind=Kind.PVH, native_tsc=True), knows_type=True))

    assert (keys["type"], keys["tsc_mode"]) == ("pvh", "native")
    assert "tsc_mode" not in read(text(PLAIN, knows_type=True))


@given(HOSTILE)
def test_kernel_arguments_come_out_as_they_went_in_or_are_refused(arguments: str) -> None:
    expected = {**read(text(PLAIN, knows_type=True)), "extra": arguments}

    if arguments.isascii() and arguments.isprintable() and not {'"', "\\"} & set(arguments):
        assert read(text(_with(arguments=arguments), knows_type=True)) == expected
        return
    with pytest.raises(HypervisorRefused, match=r"extra = .* cannot be written into the configuration") as caught:
        text(_with(arguments=arguments), knows_type=True)
    assert caught.value.what.isprintable()


@given(HOSTILE, st.sampled_from(("name", "uuid", "kernel", "ramdisk")))
def test_no_value_of_a_domain_becomes_a_key(value: str, field: str) -> None:
    try:
        keys = read(text(_with(**{field: value}), knows_type=True))
    except HypervisorRefused:
        return

    assert set(keys) <= {*read(text(PLAIN, knows_type=True)), "bootloader"}
    assert value == "" or keys[field] == value


@given(HOSTILE)
def test_no_target_becomes_another_word_of_a_disk(target: str) -> None:
    try:
        word = Disk(target, "xvda").word()
    except HypervisorRefused:
        return

    assert target.startswith("/")
    assert word.split(",") == ["format=raw", "vdev=xvda", "access=rw", f"target={target}"]


@given(HOSTILE)
def test_no_slot_becomes_another_word_of_a_disk(vdev: str) -> None:
    try:
        word = Disk("/x", vdev).word()
    except HypervisorRefused:
        return

    assert word.split(",") == ["format=raw", f"vdev={vdev}", "access=rw", "target=/x"]


@given(HOSTILE, HOSTILE)
def test_no_card_has_more_words_than_two(mac: str, bridge: str) -> None:
    for one, other in ((mac, "xenbr0"), ("00:16:3e:00:00:01", bridge)):
        try:
            word = Nic(one, other).word(Kind.PV)
        except HypervisorRefused:
            continue
        assert word.split(",") == [f"mac={one}", f"bridge={other}"]
        assert Nic(one, other).word(Kind.HVM) == f"{word},type=vif"


@given(st.dictionaries(HOSTILE, HOSTILE | st.integers() | st.lists(HOSTILE, max_size=3), max_size=4))
def test_whatever_is_written_is_read_back(keys: dict[str, Any]) -> None:
    try:
        config = rendered(keys)
    except HypervisorRefused:
        return

    assert read(config) == keys


@pytest.mark.parametrize("target", ["/a/../etc/shadow", "relative", "", "/x,access=rw", "/x\n", "/-x y", "-x"])
def test_a_path_that_is_not_plain_is_refused(target: str) -> None:
    with pytest.raises(HypervisorRefused, match="cannot be a disk of a domain: not a plain absolute path"):
        Disk(target, "xvda").word()


@pytest.mark.parametrize("number", [-1, 1 << 31, True])
def test_a_number_that_xl_could_misread_is_refused(number: int) -> None:
    with pytest.raises(HypervisorRefused, match="cannot be written into the configuration of a domain"):
        rendered({"memory": number})


def _with(**values: Any) -> Domain:
    from dataclasses import replace

    return replace(PLAIN, **values)
