"""The seed disk: what a guest reads from it."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from lab.errors import LabDiskFull
from lab.guests.identity import Identity
from lab.provisioning import seed

KEY = "ssh-ed25519 AAAA interop-lab"


def test_the_disk_is_an_archive_from_its_first_byte(tmp_path: Path) -> None:
    identity = Identity.make("guest-1")
    seed.write_seed(identity, KEY, tmp_path / "seed.img")
    content = (tmp_path / "seed.img").read_bytes()
    assert content.startswith(b"lab-seed/")
    assert len(content) == 1 << 20
    # Guests read no more than this much of it.
    with tarfile.open(fileobj=io.BytesIO(content[: 64 << 10])) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
    read = {name: source.read().decode() for name, source in found.items() if source is not None}
    assert read == {
        "lab-seed/hostname": "guest-1\n",
        "lab-seed/machine-id": f"{identity.machine_id}\n",
        "lab-seed/ssh_host_ed25519_key": identity.host_key_private,
        "lab-seed/ssh_host_ed25519_key.pub": f"{identity.host_key_public}\n",
        "lab-seed/authorized_keys": f"{KEY}\n",
    }


def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    seed.write_seed(Identity.make("guest-1"), KEY, tmp_path / "seed.img")
    assert stat.S_IMODE((tmp_path / "seed.img").stat().st_mode) == 0o600


def test_it_replaces_an_older_one_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        seed.write_seed(Identity.make(name), KEY, tmp_path / "seed.img")
    assert b"two\n" in (tmp_path / "seed.img").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["seed.img"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LabDiskFull, match="writing the seed"):
        seed.write_seed(Identity.make("guest-1"), KEY, tmp_path / "seed.img")
    assert list(tmp_path.iterdir()) == []
