"""Identities are unique, survive being saved, and never show their private key."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ConfigurationError
from lab.guests.identity import Identity


def test_the_private_key_belongs_to_the_public_one() -> None:
    identity = Identity.make("cell-1")

    private = load_ssh_private_key(identity.host_key_private.encode(), password=None)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    assert public == identity.host_key_public


def test_two_identities_share_nothing() -> None:
    one, other = Identity.make("a"), Identity.make("a")

    assert one.machine_id != other.machine_id
    assert one.host_key_public != other.host_key_public


def test_the_private_key_is_not_in_the_repr() -> None:
    identity = Identity.make("a")

    assert "PRIVATE KEY" not in repr(identity)
    assert identity.host_key_private.splitlines()[1] not in repr(identity)


def test_a_saved_identity_comes_back_the_same() -> None:
    identity = Identity.make("db.example-2")

    assert Identity.from_bytes(identity.to_bytes()) == identity


@pytest.mark.parametrize("name", ["", "-a", "a b", "A", "a\nb", "$(reboot)", "a" * 65])
def test_a_host_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a host name"):
        Identity.make(name)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("machine_id", "0" * 31, "a saved identity holds a machine id that is not 32 hexadecimal digits"),
        ("machine_id", 7, "a saved identity holds something that is not text"),
        ("host_key_public", "ssh-rsa AAAA", "a saved identity holds a host key that is not ed25519"),
        ("host_key_private", "x", "a saved identity holds a private key that is not in OpenSSH's format"),
    ],
)
def test_a_damaged_field_is_named(key: str, value: object, said: str) -> None:
    fields = json.loads(Identity.make("a").to_bytes())

    with pytest.raises(ConfigurationError) as caught:
        Identity.from_bytes(json.dumps({**fields, key: value}).encode())

    assert caught.value.what == said


@given(st.binary(max_size=300))
def test_no_bytes_give_another_error_than_ours(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Identity.from_bytes(data)
