"""The matrix: the text of every problem is an interface, so all of it is compared."""

from __future__ import annotations

import re

import pytest

from lab.contracts import Cell

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


def test_no_problem_carries_a_control_character(lab):
    lab.write("dc/matrix.yaml", MATRIX.replace("[one]", '["\\e]0;owned\\a"]'))

    (problem,) = lab.problems()

    assert re.search(r"[\x00-\x1f\x7f]", problem) is None
    assert problem == 'dc/matrix.yaml:1: hosts[0]: no host "\\x1b]0;owned\\x07" (known: one, two)'
