"""The script that gives a warm clone its own identity, clock and randomness, and what it answers."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lab.errors import ConfigurationError, GuestCommandFailed
from lab.guests.identity import Identity

# All that is secret or long comes by standard input, one value a line, the private key as the rest.
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
# busybox's date knows whole seconds only, so there it waits for the next one while the rest is done.
ticking=
date -u -s "@$whole.${part#1}" >/dev/null 2>&1 || {
  rest=$((300 - part))
  [ "$part" -gt 100 ] || whole=$((whole - 1))
  { sleep "0.${rest#[12]}"; date -u -s "@$((whole + 1))" >/dev/null; } &
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
cat >"$dir/ssh_host_ed25519_key"
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
[ -z "$ticking" ] || wait "$ticking"
echo "clock $(date -u +%s.%N) reseeded $reseeded"
"""

_ANSWER = re.compile(r"clock ([0-9]{1,12})(?:\.([0-9]{1,9}))?\S* reseeded (yes|no)")


@dataclass(frozen=True)
class Renewal:
    """What a renewal achieved.

    `reseeded`: the guest's random generator took the new bytes in at once. Where it could not be asked to, the
    clones of one saved machine may draw equal numbers until the generator reseeds itself: within a minute since
    Linux 5.18, within five before, at once where the hypervisor has a VM generation id.
    """

    reseeded: bool
    clock_late_s: float  # at most so late (the answer's way back is in it); rarely negative


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
    # A date without %N leaves its letters; its second is half over on average.
    guests = int(found[1]) + (float(f"0.{found[2]}") if found[2] else 0.5)
    arrived = (now + timedelta(seconds=seconds)).timestamp()
    return Renewal(reseeded=found[3] == "yes", clock_late_s=arrived - guests)
