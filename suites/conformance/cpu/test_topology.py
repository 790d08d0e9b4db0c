"""cpu.topology: sockets, cores and NUMA nodes are as configured."""

from __future__ import annotations

from lab.suite import Guest, Machine, check, linux

_TOPOLOGY = r"""
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  # A processor that is off has no place.
  [ -e "$cpu/topology/core_id" ] || continue
  echo "$(cat "$cpu/topology/physical_package_id") $(cat "$cpu/topology/core_id")"
done
"""


@check("cpu.topology", defect=True)
def test_every_processor_has_a_place_of_its_own(guest: Guest, machine: Machine) -> None:
    """Catches processors that share a core although no threads were asked for, and packages that are not there."""
    places = [tuple(line.split()) for line in linux.sh(guest, _TOPOLOGY).splitlines()]
    assert len(places) == machine.spec.profile.vcpus, f"asked for {machine.spec.profile.vcpus} processors: {places}"
    assert all(int(package) >= 0 for package, _ in places), f"a processor is in no package: {places}"
    cores = {(package, core) for package, core in places}
    assert len(cores) == len(places), f"the profile asks for no threads, and processors share cores: {places}"


@check("cpu.topology", defect=True)
def test_all_memory_is_in_one_node(guest: Guest, machine: Machine) -> None:
    """Catches a machine that is split into NUMA nodes although its profile asks for none."""
    nodes = guest.run("cat", "/sys/devices/system/node/online")
    assert nodes.status == 0, "the kernel knows nothing of NUMA nodes"
    assert nodes.out == "0", f"the profile asks for no NUMA nodes, the guest has {nodes.out}"
    last = machine.spec.profile.vcpus - 1
    cpus = guest.check("cat", "/sys/devices/system/node/node0/cpulist")
    assert cpus == ("0" if last == 0 else f"0-{last}"), f"node 0 has the processors {cpus}"
