"""The catalogue is what the tables declare, and a subscription picks from it."""

from service.rules import escrow, events

# escrows.md 7, word for word: the documented types and ours of this family.
DOCUMENTED = {
    "escrow.status.updated",
    "escrow.updated",
    "contract.signed",
    "escrow.cancellation.requested",
    "escrow.cancellation.accepted",
    "escrow.cancellation.rejected",
    "escrow.delivery.rejected",
    "escrow.deposit_proof.rejected",
    "escrow.proof.required",
    "escrow.proof.submitted",
    "escrow.proof.correction_requested",
    "escrow.proof.accepted",
    "escrow.proof.accepted_by_timeout",
    "escrow.proof.needs_review",
    "escrow.proof.expired",
    "identity.verification.updated",
    "identity.verification.linked",
    "escrow.created",
    "escrow.delivery.overdue",
    "escrow.dispute.opened",
    "escrow.dispute.resolved",
    "invitation.accepted",
    # milestones.md 6; the note is ours.
    "milestone_escrow.created",
    "milestone_escrow.funded",
    "milestone_escrow.updated",
    "milestone_escrow.released",
    "milestone_escrow.disputed",
    "milestone_escrow.dispute_resolved",
    "milestone_escrow.dispute_noted",
    "milestone_escrow.withdrawn",
    "milestone.status_changed",
    "milestone.approved",
    "milestone.released",
    "milestone.disputed",
    "milestone.dispute_resolved",
}


def test_every_documented_type_can_be_subscribed_to_and_the_rest_is_of_endpoints():
    assert events.CATALOGUE - set(events.OF_ENDPOINTS) == DOCUMENTED


def test_the_test_event_cannot_be_subscribed_to():
    assert events.unknown([events.TEST]) == [events.TEST]


def test_names_that_nobody_sends_are_told_apart():
    asked = ["escrow.status.updated", "*", "escrow.*", "escrow.exploded", "es*", "nothing.*"]
    assert events.unknown(asked) == ["escrow.exploded", "es*", "nothing.*"]


def test_the_default_is_the_change_of_status():
    assert events.DEFAULT_SUBSCRIPTION == (escrow.STATUS_UPDATED,)
