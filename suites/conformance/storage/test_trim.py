"""storage.trim: space that the guest gives back reaches the host's storage."""

from __future__ import annotations

from lab.suite import Guest, Machine, Measurements, ResizesDisks, check, linux, not_applicable, waiting

WRITTEN_MIB = 16
BACK_SHARE = 0.75  # the rest is what the file format keeps in clusters and tables
WITHIN_S = 30.0


@check("storage.trim", cold=True, timeout_s=240, defect=True)
def test_discarded_space_is_given_back(guest: Guest, machine: Machine, measured: Measurements) -> None:
    """Catches discard that is not offered, is ignored, or stops halfway to the backing file."""
    linux.require_tools(guest, "blkdiscard")
    if not isinstance(machine, ResizesDisks):
        not_applicable("this driver does not tell how much a disk occupies on its host")
    disk = linux.data_disk(guest, machine)
    linux.sh(guest, f"blkdiscard {disk.path} 2>/dev/null || true")
    empty = machine.data_disk_used_bytes()
    differs = linux.write_and_read_back(guest, disk, mib=WRITTEN_MIB)
    assert not differs, f"what was read from {disk.name} is not what was written: {differs}"
    full = machine.data_disk_used_bytes()
    grown = full - empty
    assert grown >= WRITTEN_MIB * BACK_SHARE * (1 << 20), (
        f"wrote {WRITTEN_MIB} MiB, the host's storage grew by {grown} bytes"
    )
    result = guest.run("blkdiscard", disk.path)
    assert result.status == 0, f"{disk.name} takes no discard: {result.err or result.out}"
    waiting.until(
        lambda: full - machine.data_disk_used_bytes() >= grown * BACK_SHARE,
        what=f"the host to get {grown} bytes back",
        timeout_s=WITHIN_S,
    )
    measured.add("given_back", (full - machine.data_disk_used_bytes()) / (1 << 20), "MiB", better="higher")
