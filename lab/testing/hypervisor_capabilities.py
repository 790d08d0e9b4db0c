"""The contract suite for what a driver may be able to do; `lab.testing.hypervisor` says how to use it."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lab import waiting
from lab.contracts import (
    Balloons,
    Capability,
    Channel,
    ClonesWarm,
    HotplugsDisks,
    HotplugsNics,
    Hypervisor,
    InjectsNmi,
    Machine,
    MachineSpec,
    MachineState,
    Pauses,
    ResizesDisks,
    Snapshots,
    TakesScreenshots,
)
from lab.errors import HypervisorRefused
from lab.testing.contract import Booted, capable, proves

_SEEN_S = 60.0  # for a slow guest to notice what was done to it


class CapabilityContract:
    """Behaviour tests of every capability."""

    # -----------------------------------------------------------------------------------------------------
    # Snapshots

    @pytest.fixture
    def keeper(self, hypervisor: Hypervisor, booted: Booted) -> Iterator[Snapshots]:
        machine: Snapshots = capable(hypervisor, booted.machine, Capability.SNAPSHOTS)
        yield machine
        for name in machine.snapshots():
            machine.delete_snapshot(name)

    @proves(Capability.SNAPSHOTS)
    def test_a_restored_machine_forgets_what_came_after(self, booted: Booted, keeper: Snapshots) -> None:
        early, late = secrets.token_hex(8), secrets.token_hex(8)
        booted.sh(f"echo {early} >/var/tmp/contract-kept; echo {early} >/run/contract-kept; sync")
        boot = booted.boot_id()
        keeper.snapshot("contract")
        assert booted.machine.state() is MachineState.RUNNING
        booted.sh(f"echo {late} >/var/tmp/contract-kept; echo x >/var/tmp/contract-late; sync")

        for _ in range(2):
            keeper.restore("contract")
            booted.reconnect()

            assert booted.sh("cat /var/tmp/contract-kept") == early
            assert booted.sh("test -e /var/tmp/contract-late || echo absent") == "absent"
            if keeper.snapshots_hold_memory():
                assert booted.boot_id() == boot
                assert booted.sh("cat /run/contract-kept") == early
            else:
                assert booted.boot_id() != boot
            booted.sh("echo again >/var/tmp/contract-late; sync")

    @proves(Capability.SNAPSHOTS)
    def test_a_stopped_machine_can_be_restored(self, booted: Booted, keeper: Snapshots) -> None:
        token = secrets.token_hex(8)
        booted.sh(f"echo {token} >/var/tmp/contract-off; sync")
        keeper.snapshot("contract")
        booted.sh("rm /var/tmp/contract-off; sync")
        booted.machine.stop(force=True)

        keeper.restore("contract")
        booted.machine.start()
        booted.reconnect()

        assert booted.sh("cat /var/tmp/contract-off") == token

    @proves(Capability.SNAPSHOTS)
    def test_snapshots_are_listed_until_they_are_deleted(self, keeper: Snapshots) -> None:
        keeper.snapshot("one")
        keeper.snapshot("two")
        assert list(keeper.snapshots()) == ["one", "two"]

        keeper.delete_snapshot("one")

        assert list(keeper.snapshots()) == ["two"]
        with pytest.raises(HypervisorRefused, match="one"):
            keeper.restore("one")
        with pytest.raises(HypervisorRefused, match="two"):
            keeper.snapshot("two")

    # -----------------------------------------------------------------------------------------------------
    # Warm clones

    @proves(Capability.WARM_CLONES)
    def test_a_key_depends_on_what_a_copy_depends_on(self, hypervisor: Hypervisor, booted: Booted) -> None:
        host: ClonesWarm = capable(hypervisor, hypervisor, Capability.WARM_CLONES)
        spec = booted.machine.spec
        others = (
            replace(spec, image=replace(spec.image, digest="sha256:" + "1" * 64)),
            replace(spec, profile=replace(spec.profile, memory_mib=spec.profile.memory_mib + 64)),
            replace(spec, profile=replace(spec.profile, vcpus=spec.profile.vcpus + 1)),
            replace(spec, data_disk_mib=spec.data_disk_mib + 1),
        )
        keys = [host.warm_key(other) for other in (spec, *others)]

        assert len(set(keys)) == len(keys)
        assert host.warm_key(replace(spec, name="another", owner=replace(spec.owner, run="another"))) == keys[0]

    @proves(Capability.WARM_CLONES)
    def test_a_clone_goes_on_where_the_saved_machine_was(
        self, hypervisor: Hypervisor, booted: Booted, log_in: Callable[[Machine], Channel]
    ) -> None:
        host: ClonesWarm = capable(hypervisor, hypervisor, Capability.WARM_CLONES)
        token, boot = secrets.token_hex(8), booted.boot_id()
        booted.sh(f"echo {token} >/run/contract-warm; echo {token} >/var/tmp/contract-warm; sync")
        key = host.warm_key(booted.machine.spec)
        host.forget_warm(key)
        assert not host.has_warm(key)
        identity = secrets.token_bytes(64)

        host.save_warm(key, booted.machine, identity)
        try:
            assert host.has_warm(key)
            assert host.warm_identity(key) == identity
            assert booted.machine.state() is MachineState.RUNNING
            booted.reconnect()
            assert booted.boot_id() == boot
            booted.sh("echo source >/var/tmp/contract-warm; sync")
            clone = host.clone_warm(key, replace(booted.machine.spec, name=f"contract-{secrets.token_hex(4)}"))
            try:
                self._judge_clone(booted, clone, log_in(clone), (token, boot))
                host.forget_warm(key)
                assert clone.state() is MachineState.RUNNING
            finally:
                clone.destroy()
        finally:
            host.forget_warm(key)
        assert not host.has_warm(key)

    @staticmethod
    def _judge_clone(source: Booted, clone: Machine, channel: Channel, expected: tuple[str, str]) -> None:
        token, boot = expected
        try:
            assert clone.state() is MachineState.RUNNING
            assert clone.endpoint(22) != source.machine.endpoint(22)
            said = channel.run(["cat", "/run/contract-warm", "/var/tmp/contract-warm"]).out.split()
            assert said == [token, token]
            assert channel.run(["cat", "/proc/sys/kernel/random/boot_id"]).out == boot
            channel.run(["sh", "-c", "echo clone >/var/tmp/contract-warm; sync"])
            assert source.sh("cat /var/tmp/contract-warm") == "source"
        finally:
            channel.close()

    @proves(Capability.WARM_CLONES)
    def test_a_copy_that_is_not_there_is_refused(self, hypervisor: Hypervisor, booted: Booted) -> None:
        host: ClonesWarm = capable(hypervisor, hypervisor, Capability.WARM_CLONES)
        spec: MachineSpec = replace(booted.machine.spec, name=f"contract-{secrets.token_hex(4)}", data_disk_mib=17)
        key = host.warm_key(spec)

        assert not host.has_warm(key)
        with pytest.raises(HypervisorRefused):
            host.clone_warm(key, spec)
        with pytest.raises(HypervisorRefused):
            host.warm_identity(key)
        host.forget_warm(key)
        assert spec.name not in [machine.name for _, machine in hypervisor.machines()]

    # -----------------------------------------------------------------------------------------------------
    # Pauses, NMI, display

    @proves(Capability.PAUSES)
    def test_a_paused_guest_stands_still_and_goes_on(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: Pauses = capable(hypervisor, booted.machine, Capability.PAUSES)
        token, boot = secrets.token_hex(8), booted.boot_id()
        stop = f"/run/{token}"
        booted.sh(f"(while ! test -e {stop}; do echo {token} >/dev/console; sleep 0.2; done) >/dev/null 2>&1 &")

        def count() -> int:
            return booted.machine.console().count(token.encode())

        waiting.until(lambda: count() >= 2, what="the guest to tick on its console", timeout_s=_SEEN_S)

        machine.pause()
        machine.pause()
        try:
            assert booted.machine.state() is MachineState.PAUSED
            waiting.pause(1.0)  # what the guest had written before may still be on its way
            seen = count()
            waiting.pause(2.0)
            assert count() == seen
        finally:
            machine.resume()

        machine.resume()
        waiting.until(lambda: count() > seen, what="the guest to tick again", timeout_s=_SEEN_S)
        assert booted.machine.state() is MachineState.RUNNING
        booted.sh(f"touch {stop}")
        assert booted.boot_id() == boot

    @proves(Capability.NMI)
    def test_an_nmi_reaches_the_processor(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: InjectsNmi = capable(hypervisor, booted.machine, Capability.NMI)
        script = "sed -n 's/^ *NMI: *\\([0-9]*\\).*/\\1/p' /proc/interrupts"
        before = int(booted.sh(script))

        machine.inject_nmi()

        waiting.until(lambda: int(booted.sh(script)) > before, what="the guest to count the NMI", timeout_s=_SEEN_S)

    @proves(Capability.SCREENSHOTS)
    def test_a_screenshot_is_a_picture(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: TakesScreenshots = capable(hypervisor, booted.machine, Capability.SCREENSHOTS)

        picture = machine.screenshot()

        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture.endswith(b"IEND\xaeB`\x82")
        width, height = struct.unpack(">II", picture[16:24])
        assert width >= 320
        assert height >= 200

    # -----------------------------------------------------------------------------------------------------
    # Memory, disks, cards

    @proves(Capability.BALLOON)
    def test_a_balloon_takes_memory_and_gives_it_back(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: Balloons = capable(hypervisor, booted.machine, Capability.BALLOON)
        given = booted.machine.spec.profile.memory_mib
        script = "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"
        before = int(booted.sh(script))
        assert machine.balloon_mib() == given

        machine.set_balloon(given - 48)
        try:
            waiting.until(lambda: machine.balloon_mib() == given - 48, what="the balloon to grow", timeout_s=_SEEN_S)
            assert before - int(booted.sh(script)) >= 40 * 1024
        finally:
            machine.set_balloon(given)
        waiting.until(lambda: machine.balloon_mib() == given, what="the balloon to shrink", timeout_s=_SEEN_S)
        waiting.until(lambda: int(booted.sh(script)) == before, what="the guest's memory to return", timeout_s=_SEEN_S)

    @proves(Capability.DISK_HOTPLUG)
    def test_a_disk_comes_and_goes(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: HotplugsDisks = capable(hypervisor, booted.machine, Capability.DISK_HOTPLUG)
        sizes = "cat /sys/block/*/size"
        wanted = 37 << 11  # 37 MiB in sectors: no other disk is that large
        assert str(wanted) not in booted.sh(sizes).split()

        machine.attach_disk("contract", 37)
        try:
            waiting.until(
                lambda: str(wanted) in booted.sh(sizes).split(), what="the guest to see the disk", timeout_s=_SEEN_S
            )
        finally:
            machine.detach_disk("contract")

        waiting.until(
            lambda: str(wanted) not in booted.sh(sizes).split(), what="the guest to lose the disk", timeout_s=_SEEN_S
        )
        with pytest.raises(HypervisorRefused, match="contract"):
            machine.detach_disk("contract")

    @proves(Capability.NIC_HOTPLUG)
    def test_a_card_comes_and_goes(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: HotplugsNics = capable(hypervisor, booted.machine, Capability.NIC_HOTPLUG)
        mac, addresses = "52:54:00:c0:ff:ee", "cat /sys/class/net/*/address"

        machine.attach_nic("contract", mac)
        try:
            waiting.until(lambda: mac in booted.sh(addresses), what="the guest to see the card", timeout_s=_SEEN_S)
        finally:
            machine.detach_nic("contract")

        waiting.until(lambda: mac not in booted.sh(addresses), what="the guest to lose the card", timeout_s=_SEEN_S)

    @proves(Capability.DISK_RESIZE)
    def test_the_data_disk_grows_while_the_guest_runs(self, hypervisor: Hypervisor, booted: Booted) -> None:
        machine: ResizesDisks = capable(hypervisor, booted.machine, Capability.DISK_RESIZE)
        assert booted.machine.spec.data_disk_mib, "boot_spec must give a data disk to a driver that can resize one"
        wanted = (booted.machine.spec.data_disk_mib + 41) << 11

        machine.resize_data_disk(booted.machine.spec.data_disk_mib + 41)

        waiting.until(
            lambda: str(wanted) in booted.sh("cat /sys/block/*/size").split(),
            what="the guest to see the larger disk",
            timeout_s=_SEEN_S,
        )
        assert 0 <= machine.data_disk_used_bytes() <= wanted * 512
        with pytest.raises(HypervisorRefused):
            machine.resize_data_disk(1)
        booted.machine.destroy()  # no longer what the other tests expect; they get a new one
