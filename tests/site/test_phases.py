"""The picture of where the time went."""

from __future__ import annotations

from lxml import etree

from lab.site import phases

SVG = "{http://www.w3.org/2000/svg}"


def drawn(timed: dict[str, float]) -> etree._Element:
    text = phases.picture(timed).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return etree.fromstring(text)


def test_every_phase_is_a_bar_that_begins_where_the_one_before_ended() -> None:
    root = drawn({"boot": 20.0, "login": 5.0})

    first, second = root.findall(f"{SVG}rect")
    assert float(first.get("x")) + float(first.get("width")) == float(second.get("x"))
    assert float(first.get("width")) == 4 * float(second.get("width"))


def test_the_picture_is_told_in_words() -> None:
    assert drawn({"boot": 20.0, "login": 5.0}).get("aria-label") == "Time by phase: boot 20.0 s, login 5.00 s"


def test_no_phase_and_no_time_make_a_picture_as_well() -> None:
    assert drawn({}).get("aria-label") == "Time by phase: nothing was timed"
    assert drawn({"image": 0.0}).tag == f"{SVG}svg"


def test_a_hostile_name_is_escaped() -> None:
    text = phases.picture({'"><script>x</script>': 1.0})

    assert "<script" not in text
    assert not list(drawn({'"><script>x</script>': 1.0}).iter(f"{SVG}script"))
