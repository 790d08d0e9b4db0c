"""Secrets: references only, read when needed, shown never."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import pytest

from lab.errors import ConfigurationError, MissingExtra
from lab.inventory.models import UrlSource
from lab.inventory.secrets import handed_over, secret_fields
from lab.secrets import Secret

FORMS = "env:NAME, file:/PATH, keyring:SERVICE/USER, or a value encrypted with ansible-vault"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"s3cret\n")
    path.chmod(0o600)
    return path


def test_a_secret_is_never_shown(monkeypatch):
    monkeypatch.setenv("LAB_TOKEN", "s3cret")
    secret = Secret.parse("env:LAB_TOKEN")

    assert (repr(secret), str(secret), f"{secret:>5}", f"{[secret]}") == ("***", "***", "  ***", "[***]")
    assert secret.reveal() == "s3cret"


def test_a_secret_travels_to_another_process_as_its_reference(monkeypatch):
    sent = pickle.dumps(Secret.parse("env:LAB_TOKEN"))
    monkeypatch.setenv("LAB_TOKEN", "s3cret")

    assert pickle.loads(sent).reveal() == "s3cret"  # noqa: S301


@pytest.mark.parametrize("text", ["hunter2", "", "env:", "env:1A", "env:A B", "file:relative", "keyring:x", "vault:x"])
def test_what_is_no_reference_is_refused_without_being_repeated(text):
    with pytest.raises(ValueError) as caught:
        Secret.parse(text)

    assert str(caught.value) == f"a secret is written as a reference ({FORMS}), never in plain"


def test_a_variable_that_is_not_set_is_an_error(monkeypatch):
    monkeypatch.delenv("LAB_TOKEN", raising=False)

    with pytest.raises(ConfigurationError, match="the environment variable LAB_TOKEN is not set"):
        Secret.parse("env:LAB_TOKEN").reveal()


def test_a_file_is_read_without_its_last_newline(key_file):
    assert Secret.parse(f"file:{key_file}").reveal() == "s3cret"


def test_a_file_below_the_home_folder_is_found(key_file, monkeypatch):
    monkeypatch.setenv("HOME", str(key_file.parent))

    assert Secret.parse("file:~/key").reveal() == "s3cret"


def test_a_file_that_others_may_read_is_refused(key_file):
    key_file.chmod(0o640)

    with pytest.raises(ConfigurationError) as caught:
        Secret.parse(f"file:{key_file}").reveal()

    assert str(caught.value) == f"{key_file} holds a secret and others may read it\n  -> chmod 600 {key_file}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "the secret in {} is not text"),
        (b"x" * 70_000, "{} is larger than 64 KiB, so it is no secret of ours"),
    ],
)
def test_a_file_that_cannot_be_a_secret_is_refused(key_file, content, expected):
    key_file.write_bytes(content)

    with pytest.raises(ConfigurationError) as caught:
        Secret.parse(f"file:{key_file}").reveal()

    assert str(caught.value) == expected.format(key_file)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        Secret.parse(f"file:{tmp_path}/none").reveal()


def test_a_password_comes_from_the_keyring(monkeypatch):
    passwords = {("vcenter", "lab"): "s3cret"}
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_password=lambda *key: passwords.get(key)))

    assert Secret.parse("keyring:vcenter/lab").reveal() == "s3cret"
    with pytest.raises(ConfigurationError, match="the keyring has no password of root for vcenter"):
        Secret.parse("keyring:vcenter/root").reveal()


def test_a_missing_keyring_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)

    with pytest.raises(MissingExtra) as caught:
        Secret.parse("keyring:vcenter/lab").reveal()

    assert "pip install 'interop-lab[keyring]'" in str(caught.value)


def test_only_what_ansible_decrypted_may_be_the_secret_itself():
    values = {"password": "hunter2", "token": "env:TOKEN", "name": "x"}

    handed = handed_over(values, frozenset(("password", "token")))

    assert Secret.parse(handed["password"]).reveal() == "hunter2"
    assert handed == {**values, "password": handed["password"]}


def test_the_secret_fields_of_a_model_are_known_by_their_type():
    assert secret_fields(UrlSource) == {"authorization"}
