"""The script that gives a warm clone its own identity, clock and randomness, and what it answers."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lab.errors import ConfigurationError, GuestCommandFailed
from lab.guests.identity import Identity

# All that is secret or long comes by standard input, one value a line, the private key as the rest. Every program
# that is started costs an emulated guest 20 ms, so what the shell can do by itself it does.
SCRIPT = r"""set -eu
umask 077
read -r now; read -r entropy
# $now, in 1/100 s, was true when the controller asked for this shell. The process around it knows when it was
# started, so that the slow start of programs in an emulated guest does not make its clock late.
read -r up _ </proc/uptime
read -r stat </proc/$PPID/stat
set -- $stat
case $up in 0.*) ;; *) now=$((now + ${up%.*}${up#*.} - ${22})) ;; esac
whole=$((now / 100)) part=$((now % 100 + 100))
# busybox's date knows whole seconds only, so there it waits for the next one while everything else goes on.
ticking=
date -u -s "@$whole.${part#1}" >/dev/null 2>&1 || {
  rest=$((300 - part))
  [ "$part" -gt 100 ] || whole=$((whole - 1))
  { sleep "0.${rest#[12]}"; date -u -s "@$((whole + 1))"; } </dev/null >/dev/null 2>&1 &
  ticking=$!
}
printf '%s' "$entropy" >/dev/urandom
reseeded=no
# RNDRESEEDCRNG of random(4): without it a clone's generator takes the new bytes in at its next reseeding only.
if command -v perl >/dev/null; then
  perl -e 'open my $f, ">", "/dev/urandom" or exit 1; ioctl($f, 0x5207, 0) or exit 1' 2>/dev/null && reseeded=yes
elif command -v python3 >/dev/null; then
  python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)' 2>/dev/null && reseeded=yes
fi
[ ! -d /run ] || export TMPDIR=/run
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
read -r name; printf '%s\n' "$name" >"$dir/hostname"
read -r line; printf '%s\n' "$line" >"$dir/machine-id"
read -r line; printf '%s\n' "$line" >"$dir/ssh_host_ed25519_key.pub"
read -r line; printf '%s\n' "$line" >"$dir/authorized_keys"
while IFS= read -r line; do printf '%s\n' "$line"; done >"$dir/ssh_host_ed25519_key"
if [ -x /usr/lib/interop-lab/apply-identity ]; then
  /usr/lib/interop-lab/apply-identity "$dir" >&2
else
  hostname "$name"
  put() { cp "$dir/$1" "$2.new"; chmod "$3" "$2.new"; mv "$2.new" "$2"; }
  put hostname /etc/hostname 644
  put machine-id /etc/machine-id 444
  mkdir -p ~/.ssh
  put authorized_keys ~/.ssh/authorized_keys 600
  put ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key 600
  put ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ed25519_key.pub 644
  # HUP makes sshd start itself anew; sessions are processes of their own and stay.
  kill -HUP "$(cat /run/sshd.pid)"
fi
if [ -n "$ticking" ]; then
  echo "ticking $ticking reseeded $reseeded"
else
  echo "clock $(date -u +%s.%N) reseeded $reseeded"
fi
"""

# Waits for the process that sets the clock at the next whole second; where process 1 asks nobody how it ended, as in
# some containers, it stays a zombie.
CLOCK = r"""while { read -r _ _ state _ <"/proc/$1/stat"; } 2>/dev/null && [ "$state" != Z ]; do sleep 0.02; done
date -u +%s"""

_ANSWER = re.compile(r"(?:clock ([0-9]{1,12})(?:\.([0-9]{1,9}))?\S*|ticking ([0-9]{1,9})) reseeded (yes|no)")
_SECONDS = re.compile(r"[0-9]{1,12}")
_LATEST_S = 60.0  # a guest that stood still for so long between two programs is of no use anyway


@dataclass(frozen=True)
class Renewal:
    """What a renewal achieved.

    `reseeded`: the guest's random generator took the new bytes in at once. Where it could not be asked to, the
    clones of one saved machine may draw equal numbers until the generator reseeds itself: within a minute since
    Linux 5.18, within five before, at once where the hypervisor has a VM generation id.
    """

    reseeded: bool
    clock_late_s: float | None  # at most so late (the answer's way back is in it); none while it is being set
    ticking: int | None = None  # the process that sets the clock at its next whole second


def content(identity: Identity, authorized_key: str, now: datetime) -> bytes:
    """The script's standard input. Raises `ConfigurationError` for a key of more than one line."""
    if "\n" in authorized_key.strip():
        raise ConfigurationError("an authorized key is one line")
    lines = (
        f"{now.astimezone(UTC).timestamp() * 100:.0f}",
        base64.b64encode(secrets.token_bytes(96)).decode(),
        identity.hostname,
        identity.machine_id,
        identity.host_key_public,
        authorized_key.strip(),
    )
    return "\n".join((*lines, identity.host_key_private.rstrip("\n"))).encode() + b"\n"


def read(answer: str, now: datetime, seconds: float) -> Renewal:
    """What the script said, `seconds` after `now`. Raises `GuestCommandFailed`."""
    found = _ANSWER.search(answer)
    if found is None:
        raise GuestCommandFailed(f"the guest's answer to its new identity makes no sense: {answer[-200:]!r}")
    reseeded = found[4] == "yes"
    if found[3] is not None:
        return Renewal(reseeded=reseeded, clock_late_s=None, ticking=int(found[3]))
    # A date without %N leaves its letters; its second is half over on average.
    guests = int(found[1]) + (float(f"0.{found[2]}") if found[2] else 0.5)
    arrived = (now + timedelta(seconds=seconds)).timestamp()
    return Renewal(reseeded=reseeded, clock_late_s=arrived - guests)


def with_clock(renewal: Renewal, answer: str, now: datetime) -> Renewal:
    """The renewal once the clock is set. Raises `GuestCommandFailed` when it is not what it was set to."""
    late_s = now.timestamp() - int(answer) - 0.5 if _SECONDS.fullmatch(answer) else None
    if late_s is None or abs(late_s) > _LATEST_S:
        raise GuestCommandFailed(f"the guest did not take the time: it says {answer[:40]!r} at {now.timestamp():.0f}")
    return Renewal(renewal.reseeded, late_s)
