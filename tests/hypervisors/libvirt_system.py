"""A libvirtd in system mode, root's, with everything that it writes in one folder: this machine's is not touched.

In a mount namespace of its own the folder's parts lie over /etc/libvirt, /run and /var, and over the list of users,
which there has the one that libvirt runs guests as.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from lab import process, waiting
from lab.hypervisors import _libvirt_parent

GUESTS_USER = 64055  # Debian's number of libvirt-qemu
_UNSHARE = ("unshare", "--mount", "--propagation", "private")
_SCRIPT = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/var" /var
mount --bind "$1/run" /run
# A /dev/kvm that root alone may open has libvirt 9.0 ask QEMU anew what it can, a dozen times for every definition.
mount -t tmpfs none "$1/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$1/dev"
mkdir "$1/dev/pts" "$1/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 none "$1/dev/pts"
ln -s pts/ptmx "$1/dev/ptmx"
umount --recursive --lazy /dev
mount --move "$1/dev" /dev
/usr/sbin/virtlogd &
exec /usr/sbin/libvirtd
"""


@functools.cache
def lacking() -> str:
    """Why there can be none here; empty when there can."""
    if os.geteuid() != 0:
        return "only root can start a libvirtd in system mode"
    tried = process.run([*_UNSHARE, "--", "mount", "-t", "tmpfs", "none", "/dev"], timeout_s=30)
    return "" if tried.status == 0 else f"root may not mount here: {tried.stderr.strip()[:200]}"


class SystemDaemon:
    """One of them, in a folder whose name is short enough for sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks = folder / "disks"
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "sock/libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    def start(self, *, of_logs: str = "") -> None:
        """Returns when it answers."""
        for name in ("dev", "etc", "sock", "run", "var/lib", "var/cache", "var/log"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        for name, line in (
            ("passwd", f"libvirt-qemu:x:{GUESTS_USER}:{GUESTS_USER}::/var/lib/libvirt:/usr/sbin/nologin\n"),
            ("group", f"libvirt-qemu:x:{GUESTS_USER}:\n"),
        ):
            known = Path("/etc", name).read_text().splitlines(keepends=True)
            others = (entry for entry in known if not entry.startswith("libvirt-qemu:"))
            (self.folder / name).write_text("".join((*others, line)))
        settings = f'unix_sock_dir = "{self.folder}/sock"\nhost_uuid = "{uuid.uuid4()}"\nauth_unix_rw = "none"\n'
        (self.folder / "etc/libvirtd.conf").write_text(settings)
        # The groups of processes (cgroups) belong to the whole machine.
        (self.folder / "etc/qemu.conf").write_text("cgroup_controllers = []\n")
        (self.folder / "etc/virtlogd.conf").write_text(of_logs)
        program = process.find("unshare", package="util-linux")
        parent = (sys.executable, "-I", "-S", _libvirt_parent.__file__)
        with (self.folder / "said").open("wb") as said:
            self._started = subprocess.Popen(
                (*parent, program, *_UNSHARE[1:], "/bin/sh", "-c", _SCRIPT, "sh", str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                start_new_session=True,
            )
        waiting.until(self._answers, what="the system's libvirtd", timeout_s=60)

    def _answers(self) -> bool:
        assert self._started is not None
        assert self._started.poll() is None, (self.folder / "said").read_text()
        return self.socket.exists()

    def end(self) -> None:
        """End it and what writes its logs; returns when nothing of it is left."""
        for name in ("libvirtd", "virtlogd"):
            try:
                pid = int((self.folder / f"run/{name}.pid").read_text())
            except (FileNotFoundError, ValueError):
                continue
            _end(pid)
        if self._started is not None:
            # Guests that a test which failed has left.
            for word in _children(self._started.pid).split():
                _end(int(word))
            self._started.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return ""  # it has ended


def _end(pid: int) -> None:
    started = process.start_time(pid)
    if started is not None:
        process.end_by_id(pid, started, patience_s=20.0)
