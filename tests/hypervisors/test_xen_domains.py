"""What `xl list` says is read exactly or refused, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contracts import MachineState
from lab.errors import HostError
from lab.hypervisors import _xen_domains as domains

HEAD = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    "   UUID                            Reason-Code\tSecurity Label\n"
)
OURS = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
ZERO = "00000000-0000-0000-0000-000000000000"


def _line(flags: str = "-b----", name: str = "lab-one", uuid: str = OURS, reason: str = "-") -> str:
    return f"{name:<40} {7:5d} {192:5d} {1:5d}     {flags}  {3.2:8.1f} {uuid} {reason:>8} {'-':>16}\n"


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ("r-----", MachineState.RUNNING),
        ("-b----", MachineState.RUNNING),
        ("------", MachineState.RUNNING),
        ("--p---", MachineState.PAUSED),
        ("-bp---", MachineState.PAUSED),
        ("---s--", MachineState.STOPPED),
        ("---sr-", MachineState.RUNNING),
        ("---ss-", MachineState.RUNNING),
        ("---sS-", MachineState.RUNNING),
        ("---sc-", MachineState.CRASHED),
        ("---sw-", MachineState.CRASHED),
        ("---s?-", MachineState.CRASHED),
    ],
)
def test_every_state_is_told(flags: str, state: MachineState) -> None:
    found = domains.by_uuid(HEAD + _line("r-----", "Domain-0", ZERO) + _line(flags), OURS, "host")

    assert found is not None
    assert (found.domid, found.name, found.memory_mib, found.vcpus, found.state) == (7, "lab-one", 192, 1, state)


def test_a_domain_that_is_dying_is_gone() -> None:
    assert domains.by_uuid(HEAD + _line("---s-d"), OURS, "host") is None


def test_only_the_identity_counts_and_not_the_name() -> None:
    said = HEAD + _line(uuid=ZERO, name="lab-one") + _line(name="a name with spaces 9 9 9 r----- 1.0")

    found = domains.by_uuid(said, OURS, "host")

    assert found is not None
    assert found.name == "a name with spaces 9 9 9 r----- 1.0"


def test_a_domain_without_a_name_is_still_found() -> None:
    found = domains.by_uuid(HEAD + _line(name="(null)"), OURS, "host")

    assert found is not None


@pytest.mark.parametrize("said", ["", "xl: command not found", "\x1b[2J{[" * 100, HEAD[:40]])
def test_what_no_xl_says_is_the_hosts_fault(said: str) -> None:
    with pytest.raises(HostError, match="host: xl list answers what no xl says") as caught:
        domains.table(said, "host")
    assert caught.value.what.isprintable()


def test_an_endless_list_is_cut_off() -> None:
    with pytest.raises(HostError, match="host: xl list answers with more than 4 MiB"):
        domains.table(HEAD + _line() * 100_000, "host")
    with pytest.raises(HostError, match="host: xl list answers with more than 4 MiB"):
        domains.named("[" * (5 << 20), "host")


@given(st.text(max_size=300))
def test_no_text_makes_the_table_raise_anything_but_a_host_error(text: str) -> None:
    try:
        found = domains.table(HEAD + text, "host")
    except HostError:
        return

    assert all(len(one.uuid) == 36 and one.domid >= 0 for one in found)


def _entry(**values: Any) -> dict[str, Any]:
    return {"domid": 7, "config": {"c_info": {"type": "pv", "name": "lab-one", "uuid": OURS, **values}}}


def test_names_and_identities_come_from_json() -> None:
    said = json.dumps([{"domid": 0, "config": {"c_info": {"type": "pv"}}}, _entry()], indent=4)

    assert list(domains.named(said, "host")) == [domains.Named(7, OURS, "lab-one")]
    assert list(domains.named("", "host")) == []


@pytest.mark.parametrize(
    "said", ["{}", "nonsense", "[" * 10_000, "(domain (domid 1))", json.dumps([_entry()] * 5000), '"x"', "null"]
)
def test_json_that_no_xl_says_is_the_hosts_fault(said: str) -> None:
    with pytest.raises(HostError, match="host: xl list answers what no xl says"):
        domains.named(said, "host")


_KEYS = st.sampled_from(("domid", "config", "c_info", "uuid", "name"))
_LEAVES = st.none() | st.booleans() | st.integers() | st.text()
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner))


@given(_JSON)
def test_no_json_makes_it_raise_anything_but_a_host_error(content: Any) -> None:
    try:
        found = domains.named(json.dumps([content]), "host")
    except HostError:
        return

    assert all(isinstance(one.name, str) and 0 <= one.domid < 1 << 15 for one in found)
