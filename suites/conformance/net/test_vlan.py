"""net.vlan: frames bear tags, and who has another tag does not see them."""

from __future__ import annotations

from lab.suite import Capability, Guest, check, wire

TAG, OTHER_TAG = 77, 78
FULL = 1500 - wire.HEADERS
COUNT = 3


@check("net.vlan", machines=2, needs=(Capability.SHARED_NETWORKS, Capability.NIC_HOTPLUG), timeout_s=400, defect=True)
def test_tags_join_and_part_two_guests(guest: Guest, peer: Guest) -> None:
    """Catches tags that are lost, added or ignored on the way, and networks too narrow for a tagged full frame."""
    with wire.between(guest, peer) as (here, there):
        here.set_up("10.78.1.1/24")
        there.set_up("10.78.1.2/24")
        here.wait_for("10.78.1.2")
        here.set_up_vlan(TAG, "10.78.2.1/24", "10.78.3.1/24")
        # Another tag, and none: nobody with the right one is there.
        other = there.set_up_vlan(OTHER_TAG, "10.78.2.2/24")
        there.set_up("10.78.1.2/24", "10.78.3.2/24")
        stranger = wire.End(peer, other)
        before, (heard, _) = here.sent(), stranger.received()
        wrong_tag, no_tag = here.pings("10.78.2.2", count=COUNT), here.pings("10.78.3.2", count=COUNT)
        assert wrong_tag == 0, f"{wrong_tag} of {COUNT} packets with tag {TAG} were answered by a card with {OTHER_TAG}"
        assert no_tag == 0, f"{no_tag} of {COUNT} packets with tag {TAG} were answered by a card without tag"
        heard = stranger.received()[0] - heard
        assert heard == 0, f"the card for tag {OTHER_TAG} took {heard} frames, and nobody sent with that tag"
        # The other side's card may throw them away before anybody counts them.
        left = here.sent() - before
        assert left >= 2, f"{left} frames left the card: nothing was tried"
        # Gone first: answers would take its way, which leads to the same addresses.
        there.remove(other)
        there.set_up_vlan(TAG, "10.78.2.3/24")
        here.wait_for("10.78.2.3")
        whole = here.pings("10.78.2.3", size=FULL, count=COUNT)
        assert whole == COUNT, f"{whole} of {COUNT} full frames with tag {TAG} came back"
