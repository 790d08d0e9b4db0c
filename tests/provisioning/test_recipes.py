"""Recipes: what names them, what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.errors import ImageError
from lab.provisioning import recipes


def test_the_shipped_recipes_are_well_formed() -> None:
    assert {"jeos", "debian-12", "debian-13"} <= set(recipes.names())
    for name in recipes.names():
        assert dict(recipes.load(name).kit())["finish.sh"].is_file()


def test_the_shipped_scripts_have_no_syntax_error() -> None:
    scripts = [path for path in recipes.FOLDER.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!")]
    assert len(scripts) > 10
    for script in scripts:
        assert subprocess.run(["sh", "-n", str(script)], capture_output=True, check=False).stderr == b"", script


def test_an_unknown_recipe_names_the_known_ones(tiny: object) -> None:
    with pytest.raises(ImageError, match=r"no recipe 'teeny'\n  -> known: tiny"):
        recipes.load("teeny")


def test_a_recipe_tells_all_its_mistakes_at_once(tiny: object) -> None:
    path = recipes.FOLDER / "tiny" / "recipe.toml"
    text = path.read_text().replace("disk_mib = 1", 'disk_mib = "1"').replace("suite", "siute")
    path.write_text(text)
    with pytest.raises(ImageError) as caught:
        recipes.load("tiny")
    for problem in ("siute: unknown key", "suite: missing", "disk_mib: must be int, is str"):
        assert problem in str(caught.value)


def test_a_recipe_that_is_no_toml_is_an_image_error(tiny: object) -> None:
    (recipes.FOLDER / "tiny" / "recipe.toml").write_text("title = \n")
    with pytest.raises(ImageError, match=r"recipe\.toml"):
        recipes.load("tiny")


@pytest.mark.parametrize("changed", ["recipe.toml", "finish.sh", "files/etc/hostname"])
def test_the_key_changes_with_every_file_of_the_recipe(tiny: object, changed: str) -> None:
    before = recipes.load("tiny").key()
    with (recipes.FOLDER / "tiny" / changed).open("a") as target:
        target.write("# more\n")
    assert recipes.load("tiny").key() != before


def test_the_key_changes_with_the_builder(tiny: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipes.load("tiny").key()
    monkeypatch.setattr(recipes, "BUILDER_VERSION", recipes.BUILDER_VERSION + 1)
    assert recipes.load("tiny").key() != before


def test_the_key_does_not_depend_on_where_the_recipe_lies(
    tiny: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recipes.load("tiny").key()
    moved = recipes.FOLDER.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(recipes, "FOLDER", moved)
    assert recipes.load("tiny").key() == before


def test_the_xen_host_for_hvm_is_the_xen_host_with_a_device_model() -> None:
    plain, hvm = recipes.load("xen-host"), recipes.load("xen-host-hvm")

    assert list(hvm.kit()) == list(plain.kit())
    assert set(hvm.packages) - set(plain.packages) == {"qemu-system-xen", "seabios"}
    assert set(plain.packages) <= set(hvm.packages)
    assert hvm.kernel_arguments == plain.kernel_arguments
