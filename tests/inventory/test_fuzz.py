"""Whatever stands in the files, the answer is an inventory or a list of problems."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.errors import InventoryProblems
from lab.inventory.host_files import HostFiles
from lab.inventory.hosts import make_hosts
from lab.inventory.models import Inventory
from lab.inventory.problems import Problems
from lab.inventory.resolve import ResolvedHost

FILES = ("dc/hosts.yaml", "dc/matrix.yaml", "profiles.yaml", "guests/big.yaml", "dc/group_vars/all.yaml")
_WORDS = """
    hypervisors hosts vars children one two plugin lab_driver lab_address lab_password lab_ports qemu esxi guests small
    big profiles pc q35 like suites smoke include exclude cells cell reason known_issues owner expires feature
    firmware bios chipset disk nic virtio vcpus memory_mib title family linux os name version image build file url
    format raw sha256 drivers optional one/small/pc * [ ]
    """
WORDS = tuple(_WORDS.split())
SIGNS = tuple("\n\n\n  :-[]{}&*!|>'\"#%,?@`~<\t\\0x.=_")
PIECES = (": ", "\n  ", "\n- ", "&a ", "*a", "<<: ", "!vault |", "---\n", "%YAML 1.1\n", "? ", "\ufeff")

often = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
    st.dates().map(str),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), inner, max_size=5),
    ),
    max_leaves=20,
)
yaml_like = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(SIGNS), st.sampled_from(PIECES), st.text(max_size=3)),
    max_size=40,
).map("".join)


def judge(lab) -> None:
    """Load; let anything through but an inventory or problems that can be printed."""
    try:
        loaded = lab.load()
    except InventoryProblems as reason:
        problems: tuple[str, ...] = reason.problems
        str(reason).encode()
    else:
        problems = ()
        assert isinstance(loaded, Inventory)
        assert list(loaded.matrix.cells())
    assert all(problem.isprintable() and len(problem) < 2000 for problem in problems)


def with_file(lab, name: str, content: str | bytes) -> None:
    """Put this content into one file of the inventory, look at it, and put back what was there."""
    path = lab.top / name
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    try:
        judge(lab)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


@often
@given(name=st.sampled_from(FILES), content=st.binary(max_size=80))
def test_arbitrary_bytes(lab, name, content):
    with_file(lab, name, content)


@often
@given(name=st.sampled_from(FILES), content=yaml_like)
@example(name="profiles.yaml", content="a: &a [*a]")
@example(name="profiles.yaml", content="&a {<<: *a}")
@example(name="profiles.yaml", content="? &a [*a]\n: 1")
@example(name="profiles.yaml", content="%TAG ! tag:x,2000:\n---\n!a b")
@example(name="profiles.yaml", content="- !!int x\n- !!float 1__\n- !!bool maybe\n- !!null x\n- !!binary x")
@example(name="profiles.yaml", content="!!set {a}\n")
@example(name="profiles.yaml", content="- 0x\n- 0o8\n- 1e999\n- -.inf\n- 0b2\n- +0x1_0")
def test_text_that_looks_like_yaml(lab, name, content):
    with_file(lab, name, content)


@often
@given(name=st.sampled_from(FILES), tree=trees)
def test_arbitrary_structures(lab, name, tree):
    with_file(lab, name, json.dumps(tree))


@often
@given(name=st.sampled_from(FILES[:4]), data=st.data())
def test_a_valid_file_with_one_value_exchanged(lab, name, data):
    lines = (lab.top / name).read_text().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon} {json.dumps(data.draw(trees))}"

    with_file(lab, name, "\n".join(lines))


@often
@given(name=st.sampled_from(FILES[:4]), data=st.data())
def test_a_valid_file_with_lines_lost_doubled_moved_or_misspelt(lab, name, data):
    lines = (lab.top / name).read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        cut = data.draw(st.integers(0, len(line)))
        change = data.draw(st.sampled_from(["lose", "double", "indent", "misspell"]))
        lines[number : number + 1] = {
            "lose": [""],
            "double": [line, line],
            "indent": ["  " + line],
            "misspell": [line[:cut] + data.draw(st.sampled_from(list("xX0:-'\"[{ "))) + line[cut + 1 :]],
        }[change]

    with_file(lab, name, "\n".join(lines))


@often
@given(
    variables=st.dictionaries(st.sampled_from(WORDS).map(lambda word: f"lab_{word}".replace("lab_lab", "lab")), trees)
)
def test_whatever_a_plugin_answers_makes_a_host_or_problems(lab, variables):
    problems = Problems()
    resolved = {"one": ResolvedHost(("hypervisors",), {"lab_driver": "esxi", **variables}, frozenset(variables))}

    hosts = make_hosts(resolved, HostFiles(Path(lab.folder)), lab.drivers, problems)

    assert (hosts["one"] is None) == bool(len(problems))
