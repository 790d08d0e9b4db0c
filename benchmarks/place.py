"""A lab made up for measuring: an inventory of a driver without guests, and suites of checks that check nothing."""

from __future__ import annotations

from pathlib import Path

FEATURE = "measured.nothing"
FILE = "conformance/measured/test_nothing.py"
_FEATURES = f"""features:
- id: {FEATURE}
  area: Measured
  meaning: "Nothing: it is here for its cost"
  families: [linux]
  hypervisors: [qemu]
"""
_PROFILE = "  firmware: bios\n  chipset: pc\n  disk: virtio\n  nic: virtio\n  vcpus: 1\n  memory_mib: 64\n"


def suites(folder: Path, *, checks: int, fixture: str, body: str) -> tuple[str, ...]:
    """Write `folder/suites`; every check has that one fixture and that one line. Returns their ids."""
    area = folder / "suites" / Path(FILE).parent
    area.mkdir(parents=True)
    (folder / "suites/features.yaml").write_text(_FEATURES)
    functions = [
        f'@check("{FEATURE}")\ndef test_number_{number}({fixture}) -> None:\n    """Catches nothing."""\n    {body}\n'
        for number in range(checks)
    ]
    head = '"""Checks that check nothing."""\n\nfrom lab.suite import check\n'
    (folder / "suites" / FILE).write_text("\n\n".join([head, *functions]))
    return tuple(f"{FILE}::test_number_{number}" for number in range(checks))


def inventory(folder: Path, *, cells: int, at_once: int) -> Path:
    """Write an inventory of one simulated host beside the suites; returns its folder."""
    found = folder / "inventories/measured"
    guests = folder / "inventories/guests"
    found.mkdir(parents=True)
    guests.mkdir()
    (found / "hosts.yaml").write_text(
        f"hypervisors:\n  hosts:\n    nothing:\n      lab_driver: simulated\n      lab_cells_at_once: {at_once}\n"
    )
    profiles = [f"profile-{number}" for number in range(min(cells, 20))]
    (folder / "inventories/profiles.yaml").write_text("".join(f"{name}:\n{_PROFILE}" for name in profiles))
    names = [f"guest-{number}" for number in range(cells // len(profiles))]
    for name in names:
        (guests / f"{name}.yaml").write_text(
            "title: A guest\nfamily: linux\nos: {name: debian, version: '12'}\nimage: {build: jeos}\n"
        )
    (found / "matrix.yaml").write_text(
        f"hosts: [nothing]\nguests: [{', '.join(names)}]\nprofiles: [{', '.join(profiles)}]\nsuites: [conformance]\n"
    )
    return found
