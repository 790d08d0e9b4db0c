"""The lab's own SSH key."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.provisioning import keys


def test_the_key_is_made_once_and_for_this_user_alone(own_cache: Path) -> None:
    first = keys.client_key()
    assert first.public.startswith("ssh-ed25519 AAAA")
    assert first.private.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert stat.S_IMODE(first.private.stat().st_mode) == 0o600
    assert keys.client_key() == first


def test_the_ssh_client_of_this_machine_can_use_it(own_cache: Path) -> None:
    import paramiko

    key = keys.client_key()
    assert key.public.split()[1] == paramiko.Ed25519Key.from_private_key_file(str(key.private)).get_base64()


def test_two_processes_get_the_same_key(own_cache: Path) -> None:
    words = [sys.executable, "-c", "from lab.provisioning import keys; print(keys.client_key().public)"]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=120)[0] for process in started}) == 1


def test_a_key_that_others_may_read_is_refused(own_cache: Path) -> None:
    private = keys.client_key().private
    private.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"others may read the lab's SSH key {private}\n  -> chmod 600"):
        keys.client_key()


@pytest.mark.parametrize("content", [b"", b"not a key\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_a_damaged_key_is_named_and_not_replaced(own_cache: Path, content: bytes) -> None:
    private = keys.client_key().private
    private.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not an SSH key that the lab can use"):
        keys.client_key()
    assert private.read_bytes() == content
