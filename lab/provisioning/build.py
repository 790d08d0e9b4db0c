"""Builds an image from its recipe: mmdebstrap makes the tree, mke2fs the disk; nothing is mounted by the lab.

Works as root and, where user namespaces allow it, as an ordinary user: all that needs to look like root happens
in hooks of mmdebstrap, and what they made comes out through a pipe, because inside a user namespace nobody may
write to this user's folders.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import process, waiting
from lab.errors import CommandFailed, ImageError, LabDiskFull, WaitedTooLong
from lab.provisioning import build_cpio, build_sources
from lab.provisioning.recipes import Recipe

Progress = Callable[[str], None]
_TIMEOUT_S = 1800.0
_SHOWN_LINES = 12
# What of mmdebstrap's account says how far it is; the rest is in the error when it fails.
_STEPS = ("running apt-get", "downloading packages", "extracting archives", "installing ")
_SPACE_HINT = "free some space (`lab images list` shows what the cache holds), or point XDG_CACHE_HOME at a larger disk"


@dataclass(frozen=True)
class Built:
    """What a build left in its folder."""

    disk: Path
    kernel: Path
    initrd: Path
    hypervisor: Path | None  # of a recipe that makes a host
    packages: dict[str, str]  # name -> version


def build(recipe: Recipe, work: Path, progress: Progress) -> Built:
    """Build into the folder `work`. Raises `ImageError`, `LabDiskFull`, `MissingTool`."""
    mmdebstrap = process.find("mmdebstrap", package="mmdebstrap")
    process.find("mke2fs", package="e2fsprogs")
    if not build_sources.KEYRING.is_file():
        raise ImageError(f"{build_sources.KEYRING} is missing", hint="apt-get install debian-archive-keyring")
    try:
        (work / "sources.list").write_text("\n".join(build_sources.for_suite(recipe.suite)) + "\n")
        (work / "apt.conf").write_text(build_sources.apt_options())
        write_kit(recipe, work / "kit.tar")
    except OSError as reason:
        raise process.disk_full_or(reason, f"preparing the build in {work}") from reason
    out = work / "out"
    out.mkdir()
    run_builder(_argv(mmdebstrap, recipe, work), out, progress, name=recipe.name)
    try:
        with (work / "initrd").open("wb") as initrd:
            build_cpio.write(out / "initrd-tree", initrd)
    except OSError as reason:
        raise process.disk_full_or(reason, "writing the initial RAM disk") from reason
    packages = dict(line.split() for line in (out / "packages").read_text().splitlines())
    hypervisor = out / "hypervisor"
    below = hypervisor if hypervisor.is_file() else None
    return Built(out / "disk.raw", out / "vmlinuz", work / "initrd", below, packages)


def write_kit(recipe: Recipe, target: Path) -> None:
    """The recipe's files as a tar archive owned by root; scripts are executable, whatever a checkout made of them."""
    with tarfile.open(target, "w") as archive:
        for name, path in recipe.kit():
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755 if content.startswith(b"#!") else 0o644
            archive.addfile(member, io.BytesIO(content))


def _argv(mmdebstrap: str, recipe: Recipe, work: Path) -> list[str]:
    kit = shlex.quote(str(work / "kit.tar"))
    # The variant that only unpacks ends after that hook.
    hook = "extract" if recipe.variant == "extract" else "customize"
    finish = (
        f'LAB_DISK_MIB={recipe.disk_mib} sh "$1/lab-kit/finish.sh" "$1" "$1/lab-kit" "$1/lab-out"'
        # The shell cannot name a file descriptor above 9; perl is there because mmdebstrap is written in it.
        """ && perl -e 'open(STDOUT, ">&=", $ENV{LAB_OUT}) or die $!; exec @ARGV' """
        'tar -C "$1/lab-out" -S -cf - .'
    )
    return [
        mmdebstrap,
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        f"--variant={recipe.variant}",
        "--format=null",
        "--architectures=amd64",
        "--skip=cleanup",
        f"--aptopt={work / 'apt.conf'}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=force-confold",
        f"--include={','.join(recipe.packages)}",
        '--extract-hook=mkdir "$1/lab-kit" "$1/lab-out"',
        f"--extract-hook=tar-in {kit} /lab-kit",
        *(['--extract-hook=sh "$1/lab-kit/prepare.sh" "$1"'] if recipe.prepare else []),
        f"--{hook}-hook={finish}",
        recipe.suite,
        "/dev/null",
        str(work / "sources.list"),
    ]


def run_builder(argv: list[str], out: Path, progress: Progress, *, name: str) -> None:
    """Run a builder that writes a tar archive to the file descriptor `$LAB_OUT`; unpack that into `out`.

    Raises `ImageError` with the builder's last lines, `LabDiskFull`.
    """
    read_end, write_end = os.pipe()
    try:
        unpack = subprocess.Popen(
            ["tar", "-xSf", "-", "-C", str(out), "--no-same-owner"],
            stdin=read_end,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            status, lines = _run(argv, write_end, progress, work=out.parent)
        finally:
            os.close(write_end)
            write_end = -1
            os.close(read_end)
            read_end = -1
            _, said = unpack.communicate()
    finally:
        for end in (read_end, write_end):
            if end >= 0:
                os.close(end)
    complaints = said.decode(errors="replace")
    everything = "\n".join(lines) + complaints
    if "No space left on device" in everything or "Could not allocate block" in everything:
        raise LabDiskFull(f"no space left on this machine while building {name} in {out.parent}", hint=_SPACE_HINT)
    if status != 0 or unpack.returncode != 0:
        last = "\n".join([*lines[-_SHOWN_LINES:], *complaints.splitlines()[-3:]])
        raise ImageError(f"building {name} failed with status {status}:\n{last}", hint=_hint(everything))


def _hint(everything: str) -> str:
    if "newuidmap" in everything or "unshare" in everything.lower():
        return "user namespaces do not work for this user: run as root, or apt-get install uidmap and fill /etc/subuid"
    if "Failed to fetch" in everything or "Could not resolve" in everything or "Unable to connect" in everything:
        return "does `apt-get update` work on this machine? A build uses the same mirrors and proxy"
    return ""


def _run(argv: list[str], out: int, progress: Progress, *, work: Path) -> tuple[int, list[str]]:
    environment = {**os.environ, "LAB_OUT": str(out), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    if os.geteuid() == 0:
        # In a user namespace the tree must lie where its apparent root may go, which ~/.cache is not.
        environment["TMPDIR"] = str(work)
    # When this process is killed, the builder is told so and ends too.
    setpriv = process.find("setpriv", package="util-linux")
    started = subprocess.Popen(
        [setpriv, "--pdeathsig", "TERM", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=(out,),
        start_new_session=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=_follow, args=(started, lines, progress), daemon=True)
    reader.start()
    try:
        status = started.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{argv[0]} did not end within {_TIMEOUT_S:.0f} s") from None
    finally:
        _end_group(started)
        reader.join(5)
    return status, lines


def _follow(started: subprocess.Popen[bytes], lines: list[str], progress: Progress) -> None:
    assert started.stdout is not None  # noqa: S101 (asked for above)
    for raw in started.stdout:
        line = raw.decode(errors="replace").rstrip()
        del lines[:-200]
        lines.append(line)
        speaker, _, step = line.partition(": ")
        if speaker == "lab" or (speaker == "I" and step.startswith(_STEPS)):
            progress(step)


def _end_group(started: subprocess.Popen[bytes]) -> None:
    """End mmdebstrap as it likes to be ended: by a signal on which it unmounts what it had mounted."""
    for sent, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        if started.poll() is not None:
            return
        try:
            os.killpg(started.pid, sent)
            waiting.until(lambda: started.poll() is not None, what="the builder to end", timeout_s=patience_s)
        except (ProcessLookupError, WaitedTooLong):
            continue
