"""Guests: the text of every problem is an interface, so all of it is compared."""

from __future__ import annotations

import pytest


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
        "5: drivers[1]: wanted one of virtio, sata, nvme, pvscsi, ubd, xen, e1000e, vmxnet3, vector"
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
