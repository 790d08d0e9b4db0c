"""A program that waits in a guest while it is saved, and gives each copy its own identity before anybody logs in.

It is a shell that stands at a read: nothing has to be started and nobody has to log in when a copy goes on. What it
is told comes over a line of the machine (`lab.contracts.HasLine`), which no network and no other guest reaches.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import struct
import time
from datetime import UTC, datetime
from enum import StrEnum

from lab.errors import GuestCommandFailed, GuestUnreachable
from lab.guests.families import _linux_clock
from lab.guests.identity import Identity


class Server(StrEnum):
    """Which SSH server the guest has, and so in which form it takes a host key."""

    DROPBEAR = "dropbear"
    OPENSSH = "openssh"


# Starts the waiter ($2) behind the port that is called $1. First the guest may come to rest: what it still had to do
# after its boot, every copy would have to do. At most 20 s of that, and as long for the port's driver.
START = r"""
tries=0
while [ $tries -lt 40 ]; do
  read -r _ _ _ _ before _ </proc/stat
  read -r began _ </proc/uptime
  sleep 0.5
  read -r _ _ _ _ after _ </proc/stat
  read -r now _ </proc/uptime
  # In 1/100 s, of all processors together: seven tenths of one are enough.
  [ $((after - before)) -lt $(((${now%.*}${now#*.} - ${began%.*}${began#*.}) * 7 / 10)) ] || break
  tries=$((tries + 1))
done
for port in /sys/class/virtio-ports/*; do
  read -r name 2>/dev/null <"$port/name" && [ "$name" = "$1" ] && [ -c "/dev/${port##*/}" ] || continue
  setsid sh -c "$2" sh "/dev/${port##*/}" </dev/null >/dev/null 2>&1 &
  echo started
  exit 0
done
echo "no port"
"""

# Every program that is started costs an emulated guest 20 ms. So the shell does what it can by itself, and dropbear,
# which never reads its host key again, has a second server standing by that reads it from a pipe. The files are
# written in place: nobody else uses the copy yet, and one that fails is thrown away.
_WAITER = r"""
umask 077
exec 3<>"$1" || exit 1
second= pipe= clock=
clean() { [ -z "$pipe$clock" ] || rm -f $pipe $clock; }
nobody() { clean; echo "waiting nobody" >&3; exit 0; }
# A program of ours, where nobody but root can put one; some systems let nothing be started from /run.
if [ "$(uname -m)" = @MACHINE@ ]; then
  for folder in /run /root; do
    clock=$folder/.lab-clock
    rm -f $clock
    { printf %b '@CLOCK@' >$clock && chmod 700 $clock && $clock; } 2>/dev/null && break
    rm -f $clock
    clock=
  done
fi
# By its path: busybox's shell takes its own before any other, and that one sets whole seconds.
date=/usr/bin/date
[ -x $date ] || date=/bin/date
[ -n "$clock" ] || $date -u -d @1.50 >/dev/null 2>&1 || nobody
if [ -e /etc/dropbear/dropbear_ed25519_host_key ] && [ -e /run/dropbear.pid ]; then
  grep -qs stand-by /usr/lib/interop-lab/ssh-server || nobody
  kind=dropbear pipe=/run/lab-host-key
  rm -f $pipe; mkfifo $pipe || nobody
  (umask 022; exec /usr/lib/interop-lab/ssh-server stand-by $pipe) & second=$!
elif [ -e /etc/ssh/ssh_host_ed25519_key ] && [ -e /run/sshd.pid ]; then
  kind=openssh
else
  nobody
fi
# By force: dropbear notes that it is to end, and goes on opening its pipe.
give_up() { [ -z "$second" ] || kill -KILL "$second"; clean; exit 1; }
echo "waiting $kind" >&3
# Here it is saved. Where nobody is at the other end of the line, this ends.
IFS= read -r now <&3 && [ -n "$now" ] || give_up
read -r up _ </proc/uptime
IFS= read -r entropy <&3 && IFS= read -r name <&3 && IFS= read -r id <&3 && IFS= read -r key <&3 &&
  IFS= read -r public <&3 && IFS= read -r last <&3 && [ "$last" = end ] || give_up
if [ $kind = dropbear ]; then
  printf %b "$key" >/etc/dropbear/dropbear_ed25519_host_key || give_up
  read -r old </run/dropbear.pid
  # By force: it has nothing to save, and its sessions are processes of their own.
  kill -KILL "$old"
  tries=0
  # The pause leaves the processor to whoever has to end here.
  while kill -0 "$old" 2>/dev/null && [ $tries -lt 1000 ]; do tries=$((tries + 1)); sleep 0.01; done
  printf %b "$key" >$pipe || give_up
else
  printf %b "$key" >/etc/ssh/ssh_host_ed25519_key || give_up
  echo "$public" >/etc/ssh/ssh_host_ed25519_key.pub
  # HUP makes sshd start itself anew; sessions are processes of their own and stay.
  read -r old </run/sshd.pid
  kill -HUP "$old" || give_up
fi
echo "$entropy" >/dev/urandom
echo "$name" >/proc/sys/kernel/hostname && echo "$name" >/etc/hostname && echo "$id" >/etc/machine-id &&
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$name" >/etc/hosts || give_up
reseeded=no
# RNDRESEEDCRNG of random(4): without it a clone's generator takes the new bytes in at its next reseeding only.
if [ -z "$clock" ] && command -v perl >/dev/null; then
  perl -e 'open my $f, ">", "/dev/urandom" or exit 1; ioctl($f, 0x5207, 0) or exit 1' 2>/dev/null && reseeded=yes
fi
# $now, in 1/100 s, was true when the line came; up to here time went on.
read -r then _ </proc/uptime
case $up in 0.*) ;; *) now=$((now + ${then%.*}${then#*.} - ${up%.*}${up#*.})) ;; esac
part=$((now % 100 + 100))
if [ -n "$clock" ]; then
  $clock $((now / 100)) ${part#1}0000000
  case $? in 0) reseeded=yes ;; 2) ;; *) give_up ;; esac
else
  $date -u -s "@$((now / 100)).${part#1}" >/dev/null || give_up
fi
echo "done reseeded $reseeded" >&3
clean
"""
WAITER = _WAITER.replace("@MACHINE@", _linux_clock.MACHINE).replace("@CLOCK@", _linux_clock.as_text())

WAITER_DIGEST = hashlib.sha256(WAITER.encode()).hexdigest()
"""Of the program that waits: a copy in which another one does would not understand what it is told."""

LINE_TIMEOUT_S = 30.0
"""For an answer over the line; an emulated guest on a busy machine takes seconds."""

_LONGEST = 4096  # bytes of an answer; all that are right have less than a hundred
_WAITS = re.compile(r"waiting (dropbear|openssh|nobody)")
_DONE = re.compile(r"done reseeded (yes|no)")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 +/=-:.,")


def await_waiter(line: socket.socket) -> Server | None:
    """What the waiter says when it stands at its read; none when it knows no way with this guest.

    Raises `GuestUnreachable`, `GuestCommandFailed`.
    """
    said = _line(line)
    found = _WAITS.fullmatch(said)
    if found is None:
        raise GuestCommandFailed(f"what waits in the guest makes no sense: {said[:200]!r}")
    return None if found[1] == "nobody" else Server(found[1])


def tell(line: socket.socket, server: Server, identity: Identity) -> bool:
    """Give a copy its identity, clock and entropy; whether its random generator took that in at once.

    Raises `GuestUnreachable`, `GuestCommandFailed`.
    """
    try:
        line.settimeout(LINE_TIMEOUT_S)
        line.sendall(content(server, identity, datetime.now(UTC)))
    except OSError as reason:
        raise GuestUnreachable(f"the line into the guest broke: {reason}") from reason
    said = _line(line)
    found = _DONE.fullmatch(said)
    if found is None:
        raise GuestCommandFailed(f"the guest did not take its new identity: it says {said[:200]!r}")
    return found[1] == "yes"


def content(server: Server, identity: Identity, now: datetime) -> bytes:
    """What the waiter reads: one value a line."""
    private = _dropbear_key(identity) if server is Server.DROPBEAR else identity.host_key_private.encode()
    lines = (
        f"{now.astimezone(UTC).timestamp() * 100:.0f}",
        base64.b64encode(secrets.token_bytes(48)).decode(),
        identity.hostname,
        identity.machine_id,
        _escaped(private),
        identity.host_key_public,
        "end",
    )
    return "\n".join(lines).encode() + b"\n"


def _dropbear_key(identity: Identity) -> bytes:
    """As dropbear keeps it: the type, then the private and the public half (dropbear's ed25519.c)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = serialization.load_ssh_private_key(identity.host_key_private.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise GuestCommandFailed("a host key is not of the kind that the lab makes")
    halves = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-ed25519", halves))


def _escaped(data: bytes) -> str:
    """For `printf %b`: POSIX gives it `\\0` and three octal digits for any byte."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in data)


def _line(line: socket.socket) -> str:
    """One line from the guest, bounded in bytes and in time."""
    deadline = time.monotonic() + LINE_TIMEOUT_S
    said = b""
    while b"\n" not in said:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise GuestUnreachable("what waits in the guest does not answer")
        if len(said) > _LONGEST:
            raise GuestCommandFailed(f"what waits in the guest makes no sense: {said[:100]!r}")
        try:
            line.settimeout(left_s)
            data = line.recv(_LONGEST)
        except TimeoutError:
            continue
        except OSError as reason:
            raise GuestUnreachable(f"the line into the guest broke: {reason}") from reason
        if not data:
            raise GuestUnreachable("the line into the guest ended")
        said += data
    return said.partition(b"\n")[0].decode(errors="replace").strip()
