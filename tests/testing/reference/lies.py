"""The lies that the reference driver can tell, and by which test of the contract each is convicted.

The reference (docs/reference/driver-contract.md) is made from this table as well.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lie:
    """One way not to keep the contract."""

    name: str
    does: str  # what the driver does wrong
    convicted_by: tuple[str, ...]  # the tests that fail, of all the tests of their feature


LIES = (
    Lie("no-version", "does not know its version", ("test_the_host_says_what_it_is",)),
    Lie("no-sentence", "says no reason for what it cannot do", ("test_limits_are_sentences_about_capabilities",)),
    Lie(
        "no-reason",
        "has not a capability and says nothing of it",
        ("test_what_is_not_offered_has_a_reason",),
    ),
    Lie(
        "believes-images",
        "takes an image that is not there",
        ("test_an_image_whose_file_is_missing_is_refused",),
    ),
    Lie("any-name", "takes a path as a name", ("test_a_name_that_could_be_a_path_or_an_option_is_refused",)),
    Lie("takes-twice", "gives a name twice", ("test_a_name_is_given_once",)),
    Lie("always-has-address", "reports an address of a stopped machine", ("test_a_new_machine_is_stopped",)),
    Lie("always-has-endpoint", "leads to a stopped machine", ("test_a_stopped_machine_has_no_endpoint",)),
    Lie("leaves-traces", "destroys nothing", ("test_a_destroyed_machine_leaves_nothing",)),
    Lie(
        "destroys-others",
        "destroys another machine too",
        ("test_destroying_a_machine_leaves_the_others_alone",),
    ),
    Lie(
        "lists-nothing",
        "forgets its machines",
        (
            "test_destroying_a_machine_leaves_the_others_alone",
            "test_a_machine_bears_its_owners_mark",
            "test_another_look_at_the_host_finds_the_running_machine",
        ),
    ),
    Lie("wrong-owner", "marks machines with another owner", ("test_a_machine_bears_its_owners_mark",)),
    Lie("no-script", "tells a way to reproduce that is none", ("test_what_reproduces_a_machine_names_its_image",)),
    Lie(
        "other-endpoint",
        "leads elsewhere at every look",
        ("test_another_look_at_the_host_finds_the_running_machine",),
    ),
    Lie("stop-starts", "starts what it should stop", ("test_stopping_a_stopped_machine_changes_nothing",)),
    Lie("start-reboots", "boots what runs already", ("test_starting_a_running_machine_changes_nothing",)),
    Lie("cuts-power", "cuts the power where it should ask", ("test_a_guest_shuts_down_in_order_when_asked",)),
    Lie(
        "stale-address",
        "reports the address of a machine that was stopped",
        ("test_a_guest_shuts_down_in_order_when_asked",),
    ),
    Lie("returns-early", "returns before the guest has shut down", ("test_a_guest_shuts_down_in_order_when_asked",)),
    Lie(
        "forgets-disk",
        "starts from an empty disk",
        (
            "test_a_guest_shuts_down_in_order_when_asked",
            "test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written",
        ),
    ),
    Lie(
        "keeps-memory",
        "keeps memory over a power cut",
        ("test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written",),
    ),
    Lie(
        "writes-into-image",
        "lets the guest write into the image",
        ("test_a_power_cut_ends_the_guest_at_once_and_keeps_what_was_written",),
    ),
    Lie(
        "runs-for-ever", "does not see a guest that powered off", ("test_a_guest_that_powers_off_by_itself_is_stopped",)
    ),
    Lie("wrong-memory", "gives other hardware than was asked for", ("test_the_guest_has_the_hardware_of_the_profile",)),
    Lie("deaf-console", "keeps no console", ("test_the_console_holds_what_the_guest_writes_there",)),
    Lie("no-guest-address", "knows no address of a running guest", ("test_a_guest_computes_what_we_ask",)),
    Lie(
        "restores-nothing",
        "restores nothing",
        ("test_a_restored_machine_forgets_what_came_after", "test_a_stopped_machine_can_be_restored"),
    ),
    Lie(
        "restores-disk-alone",
        "claims memory and restores the disk",
        ("test_a_restored_machine_forgets_what_came_after",),
    ),
    Lie("restores-once", "restores a snapshot once", ("test_a_restored_machine_forgets_what_came_after",)),
    Lie(
        "deletes-nothing",
        "deletes no snapshot",
        ("test_snapshots_are_listed_until_they_are_deleted", "test_a_stopped_machine_can_be_restored"),
    ),
    Lie("never-pauses", "says that it paused", ("test_a_paused_guest_stands_still_and_goes_on",)),
    Lie("one-key", "has one key for all", ("test_a_key_depends_on_what_a_copy_depends_on",)),
    Lie("clones-boot", "boots a clone anew", ("test_a_clone_goes_on_where_the_saved_machine_was",)),
    Lie("clones-share", "lets clone and source share a disk", ("test_a_clone_goes_on_where_the_saved_machine_was",)),
    Lie("clones-nothing", "makes a clone of a copy that is not there", ("test_a_copy_that_is_not_there_is_refused",)),
    Lie("no-nmi", "injects nothing", ("test_an_nmi_reaches_the_processor",)),
    Lie("no-picture", "has a text for a picture", ("test_a_screenshot_is_a_picture",)),
    Lie(
        "balloon-told",
        "tells a balloon that the guest does not feel",
        ("test_a_balloon_takes_memory_and_gives_it_back",),
    ),
    Lie("disk-stays", "leaves a disk that it took away", ("test_a_disk_comes_and_goes",)),
    Lie("no-disk", "attaches a disk that never comes", ("test_a_disk_comes_and_goes",)),
    Lie("card-stays", "leaves a card that it took away", ("test_a_card_comes_and_goes",)),
    Lie("other-mac", "gives a card another address", ("test_a_card_comes_and_goes",)),
    Lie(
        "disk-told",
        "tells a larger disk that the guest does not see",
        ("test_the_data_disk_grows_while_the_guest_runs",),
    ),
    Lie("disk-shrinks", "lets a disk shrink", ("test_the_data_disk_grows_while_the_guest_runs",)),
    Lie(
        "types-nothing",
        "types on a line that leads nowhere",
        ("test_what_is_typed_on_the_console_reaches_a_program_in_the_guest",),
    ),
    Lie(
        "types-anywhere",
        "types on a stopped machine",
        (
            "test_what_is_typed_on_the_console_reaches_a_program_in_the_guest",
            "test_nothing_is_typed_on_a_stopped_machine",
        ),
    ),
    Lie(
        "agent-runs-nothing",
        "has an agent that runs nothing",
        (
            "test_the_agent_runs_a_program_in_this_guest",
            "test_a_program_that_does_not_end_is_ended",
            "test_endless_output_is_cut",
        ),
    ),
    Lie("agent-waits-not", "says that a program ended that goes on", ("test_a_program_that_does_not_end_is_ended",)),
    Lie("agent-endless", "takes all that a guest says", ("test_endless_output_is_cut",)),
    Lie("agent-of-the-dead", "has an agent in a stopped machine", ("test_a_stopped_machine_has_no_agent",)),
    Lie("agent-cuts-files", "cuts a file off", ("test_files_go_in_and_out_through_the_agent",)),
    Lie("agent-reads-all", "reads a file that is too large", ("test_a_file_that_cannot_be_copied_is_named",)),
    Lie(
        "stale-agent-address",
        "tells the addresses that the guest had",
        ("test_the_agent_tells_the_addresses_of_the_guest",),
    ),
    Lie("freezes-not", "says that file systems rest", ("test_nothing_is_written_while_file_systems_rest",)),
    Lie("never-thaws", "leaves file systems frozen", ("test_nothing_is_written_while_file_systems_rest",)),
    Lie("vsock-of-the-dead", "leads into a stopped machine", ("test_a_vsock_port_of_a_stopped_machine_is_refused",)),
    Lie("cpus-told", "tells processors that it did not give", ("test_processors_come_compute_and_go",)),
    Lie("cpus-stay", "leaves processors that it took away", ("test_processors_come_compute_and_go",)),
    Lie("cpus-without-end", "gives more processors than the profile allows", ("test_processors_come_compute_and_go",)),
    Lie("memory-told", "tells memory that it did not give", ("test_memory_comes_and_goes",)),
    Lie("memory-stays", "leaves memory that it took away", ("test_memory_comes_and_goes",)),
    Lie("memory-without-end", "gives more memory than the profile allows", ("test_memory_comes_and_goes",)),
    Lie(
        "watchdog-always",
        "has a watchdog that fires when it is fed",
        ("test_a_watchdog_fires_when_nobody_feeds_it_and_only_then",),
    ),
    Lie(
        "watchdog-never",
        "has a watchdog that never fires",
        ("test_a_watchdog_fires_when_nobody_feeds_it_and_only_then",),
    ),
    Lie(
        "watchdog-resets",
        "resets the guest when its watchdog fires",
        ("test_a_watchdog_fires_when_nobody_feeds_it_and_only_then",),
    ),
    Lie("sleep-boots", "boots a machine that slept", ("test_a_guest_that_slept_goes_on_where_it_was",)),
    Lie(
        "sleep-loses-disk",
        "loses over a sleep what was on its way to the disk",
        ("test_a_guest_that_slept_goes_on_where_it_was",),
    ),
    Lie(
        "discards-nothing", "goes on with a sleep that was discarded", ("test_a_guest_whose_sleep_was_discarded_boots",)
    ),
    Lie(
        "moves-in-words",
        "says that it moved a machine",
        (
            "test_a_guest_that_writes_does_not_notice_that_it_moves",
            "test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks",
        ),
    ),
    Lie(
        "moves-not",
        "leaves a machine where it was",
        (
            "test_a_guest_that_writes_does_not_notice_that_it_moves",
            "test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks",
        ),
    ),
    Lie(
        "moves-by-boot",
        "boots a machine at the other place",
        (
            "test_a_guest_that_writes_does_not_notice_that_it_moves",
            "test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks",
        ),
    ),
    Lie(
        "moves-to-another-port",
        "is reached elsewhere after a move",
        (
            "test_a_guest_that_writes_does_not_notice_that_it_moves",
            "test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks",
        ),
    ),
    Lie(
        "moves-without-its-disk",
        "loses what was written to a disk that moved",
        ("test_a_guest_that_writes_does_not_notice_that_it_moves_with_its_disks",),
    ),
    Lie(
        "goes-anywhere",
        "moves a machine to a place that is not there",
        ("test_a_place_that_is_not_there_is_refused_and_the_guest_stays",),
    ),
    Lie("one-network", "has one network for all", ("test_two_guests_meet_on_a_network_and_not_on_another",)),
    Lie("no-network", "connects nobody", ("test_two_guests_meet_on_a_network_and_not_on_another",)),
    Lie("tpm-told", "tells a TPM that the guest has not", ("test_the_guest_has_the_tpm_of_its_profile_and_no_other",)),
    Lie(
        "tpm-forgets",
        "has a TPM that forgets at a power cut",
        ("test_a_tpm_keeps_what_was_stored_and_forgets_what_was_measured_over_a_power_cycle",),
    ),
    Lie(
        "tpm-measures-for-ever",
        "has a TPM whose registers outlive the power",
        ("test_a_tpm_keeps_what_was_stored_and_forgets_what_was_measured_over_a_power_cycle",),
    ),
    Lie("tpm-not-restored", "restores a machine without its TPM", ("test_a_restored_machine_has_the_tpm_that_it_had",)),
    Lie(
        "secure-told",
        "says that signatures are checked",
        ("test_firmware_and_guest_agree_on_secure_boot_with_the_profile",),
    ),
    Lie(
        "runs-unsigned",
        "runs what nobody signed",
        ("test_a_program_that_nobody_signed_runs_only_where_nothing_is_enforced",),
    ),
    Lie(
        "boots-from-disk",
        "boots from the disk instead of the network",
        ("test_a_machine_boots_what_the_network_gives_it_once",),
    ),
    Lie(
        "boots-from-network-for-ever",
        "boots from the network ever after",
        ("test_a_machine_boots_what_the_network_gives_it_once",),
    ),
    Lie(
        "boots-any-file", "boots a file of this machine over the network", ("test_only_a_file_of_the_folder_is_booted",)
    ),
    Lie("keys-for-itself", "leaves the guest no key", ("test_what_the_host_leaves_the_guest_reads",)),
    Lie(
        "keys-from-nobody",
        "reads no key of a guest",
        (
            "test_what_the_guest_leaves_the_host_reads",
            "test_a_guest_cannot_leave_more_than_fits_nor_what_is_no_text",
        ),
    ),
    Lie(
        "keys-without-end",
        "takes whatever a guest leaves",
        ("test_a_guest_cannot_leave_more_than_fits_nor_what_is_no_text",),
    ),
    Lie("any-key", "takes a path as the name of a key", ("test_what_is_no_name_and_no_text_is_refused",)),
    Lie("keys-of-the-dead", "keeps keys of a stopped machine", ("test_nothing_is_left_with_a_machine_that_is_off",)),
    Lie("dump-of-nothing", "dumps zeros", ("test_a_dump_holds_what_the_guest_has_in_memory",)),
    Lie("dump-ends-it", "boots a machine that it dumped", ("test_a_dump_holds_what_the_guest_has_in_memory",)),
    Lie(
        "dump-over-a-file",
        "writes a dump over a file",
        ("test_no_dump_is_made_of_a_stopped_machine_nor_over_a_file",),
    ),
    Lie("sysrq-nowhere", "sends a magic key nowhere", ("test_a_magic_key_reaches_the_kernel",)),
    Lie("any-sysrq", "takes anything for a magic key", ("test_what_is_no_magic_key_is_refused",)),
    Lie(
        "carries-in-words",
        "says that it carried a machine away",
        ("test_a_guest_that_slept_goes_on_at_another_place", "test_a_machine_that_is_off_boots_at_another_place"),
    ),
    Lie(
        "carries-no-memory",
        "leaves behind what a machine slept with",
        ("test_a_guest_that_slept_goes_on_at_another_place",),
    ),
    Lie(
        "carries-no-disk",
        "carries a machine without its disk",
        ("test_a_guest_that_slept_goes_on_at_another_place", "test_a_machine_that_is_off_boots_at_another_place"),
    ),
    Lie(
        "carries-what-runs",
        "carries a machine that runs",
        ("test_a_machine_is_not_carried_while_it_runs_nor_to_nowhere",),
    ),
)
