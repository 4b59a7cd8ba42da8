"""escrows.md 3.3: `GET /escrows/:id`, a test a sentence."""

from datetime import datetime, timedelta

import pytest

from tests.conformance.shapes import (
    INSTANT,
    changed,
    detail,
    e1,
    e2,
    party,
    policy,
    signatures,
    written,
)
from tests.conformance.world import ESCROWS, KINDS, POLICY, Life, Partner, World, new_email, order

UNKNOWN = "0" * 24
DAY = timedelta(days=1)
SHOWN = timedelta(milliseconds=2)
"""What the difference of two instants may lose: each is shown to the millisecond."""


async def shows(life: Life, **changes) -> list[str]:
    """Where the escrow reads otherwise than so."""
    answer = await life.partner.get(life.path)
    return answer.differs(200, {"escrow": detail(life, **changes)})


def at(shown: dict, name: str) -> datetime:
    """An instant of an answer."""
    return datetime.fromisoformat(shown[name])


def ticket(reason: str = "?", **changes) -> dict:
    """`disputeTicket` while the dispute is open."""
    shape = {
        "ticketNumber": written(r"DHM-\d{5,}"),
        "type": "dispute",
        "subject": "Dispute: A camera",
        "status": "open",
        "createdAt": INSTANT,
        "previewReason": reason,
    }
    return changed(shape, changes)


# ---- Access -------------------------------------------------------------------------------------


async def test_the_creator_and_the_developers_of_both_parties_may_read_it(world: World):
    creator = await world.partner(associated=False)
    sellers, buyers = await world.partner(), await world.partner()
    life = await world.life("quick", partner=creator, seller=sellers.user, buyer=buyers.user)
    answers = [await one.get(life.path) for one in (creator, sellers, buyers)]
    for answer in answers:
        assert answer.differs(200, {"escrow": detail(life)}) == []


async def test_a_stranger_is_403_where_it_exists(world: World):
    life = await world.life()
    for stranger in (await world.partner(), await world.partner(associated=False)):
        assert (await stranger.get(life.path)).differs(403, e1(403)) == []


async def test_an_unknown_id_is_404(partner: Partner):
    answer = await partner.get(f"{ESCROWS}/{UNKNOWN}")
    assert answer.differs(404, e2("Escrow not found")) == []


@pytest.mark.parametrize(
    "odd", ["x", "0" * 23, "0" * 25, "A" * 24, "g" * 24, "%00", f"{'0' * 23}%0A", "\u0660" * 24]
)
async def test_an_id_that_is_not_24_lower_case_hex_characters_is_400(partner: Partner, odd):
    answer = await partner.get(f"{ESCROWS}/{odd}")
    assert answer.differs(400, e2("Invalid escrow ID")) == []


# ---- The shape ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pending_escrow_has_exactly_this_shape(world: World, kind):
    life = await world.life(kind)
    assert await shows(life) == []


async def test_parties_who_are_not_registered_are_null_and_the_seller_email_is_there(
    partner: Partner,
):
    seller, buyer = new_email("sells"), new_email("bo")
    made = (await partner.post(ESCROWS, order("quick", buyer, sellerEmail=seller))).escrow
    life = Life(partner, "quick", None, None, seller, buyer, id=made["id"])
    assert await shows(life) == []


async def test_a_party_who_registers_is_shown(world: World, partner: Partner):
    seller = new_email("sells")
    made = (await partner.post(ESCROWS, order("quick", new_email(), sellerEmail=seller))).escrow
    person = await world.person(seller, funds=0)
    shown = (await partner.get(f"{ESCROWS}/{made['id']}")).escrow
    assert shown["seller"] == party(person)
    assert "sellerEmail" not in shown


@pytest.mark.parametrize("kind", KINDS)
async def test_a_paid_escrow_shows_when(world: World, kind):
    life = await world.life(kind, "paid")
    changes = {"signatures": signatures(seller=True, buyer=True)} if kind == "standard" else {}
    assert await shows(life, status="paid", paidAt=INSTANT, **changes) == []


async def test_a_delivered_escrow_shows_its_completion_deadline(world: World):
    life = await world.life("quick", "delivered")
    moments = dict.fromkeys(("paidAt", "deliveredAt", "completionDeadline"), INSTANT)
    assert await shows(life, status="delivered", **moments) == []
    shown = await life.read()
    assert at(shown, "completionDeadline") == at(shown, "deliveredAt") + 7 * DAY


@pytest.mark.parametrize("kind", ["quick", "instant"])
async def test_a_completed_escrow_has_no_deadline(world: World, kind):
    life = await world.life(kind, "completed")
    moments = dict.fromkeys(("paidAt", "deliveredAt", "completedAt"), INSTANT)
    assert await shows(life, status="completed", **moments) == []


async def test_the_description_is_there_once_it_was_given(world: World):
    life = await world.life()
    assert "description" not in await life.read()
    assert (await life.partner.put(life.path, {"description": "Hardly used."})).status == 200
    assert await shows(life, description="Hardly used.") == []


async def test_created_by_application_name_is_the_developers_company(world: World):
    life = await world.life(partner=await world.partner(company="Ünïcode & Söhne <b>"))
    shown = await life.read()
    assert shown["createdViaThirdParty"] is True
    assert shown["createdByApplicationName"] == "Ünïcode & Söhne <b>"


@pytest.mark.parametrize("signed", [("seller",), ("buyer",), ("seller", "buyer")])
async def test_the_moments_of_signatures_exist_only_when_their_boolean_is_true(
    world: World, signed
):
    life = await world.life("standard")
    for side in signed:
        await world.act(life, getattr(life, side), "sign_contract", signature="A Name")
    given = signatures(**dict.fromkeys(signed, True))
    assert await shows(life, signatures=given) == []


async def test_the_policy_is_shown_with_its_defaults_and_never_a_file(world: World):
    given = {**POLICY, "buyerReviewDeadlineHours": 48, "allowedProofTypes": ["receipt"]}
    life = await world.life("quick_proof", "paid", fulfillmentPolicy=given)
    filled = policy(buyerReviewDeadlineHours=48, allowedProofTypes=["receipt"])
    assert await shows(life, status="paid", paidAt=INSTANT, fulfillmentPolicy=filled) == []


async def test_the_upload_deadline_is_the_funding_and_the_upload_hours(world: World):
    given = {**POLICY, "proofUploadDeadlineHours": 6}
    shown = await (await world.life("quick_proof", "paid", fulfillmentPolicy=given)).read()
    due = datetime.fromisoformat(shown["proofInfo"]["uploadDeadline"])
    assert due == at(shown, "paidAt") + timedelta(hours=6)


# ---- Disputes and cancellations -----------------------------------------------------------------


@pytest.mark.parametrize("opener", ["seller", "buyer"])
async def test_a_dispute_has_a_ticket_and_freezes_the_completion_deadline(world: World, opener):
    life = await world.life("quick", "delivered")
    await world.act(life, getattr(life, opener), "dispute", reason="It is broken.")
    assert await shows(
        life,
        status="disputed",
        paidAt=INSTANT,
        deliveredAt=INSTANT,
        completionDeadline=None,
        disputeTicketId=written(".+"),
        disputeTicket=ticket("It is broken."),
    ) == []  # fmt: skip


async def test_ticket_numbers_count_up_with_at_least_5_digits(world: World):
    numbers = []
    for _ in range(2):
        shown = await (await world.life(status="disputed")).read()
        numbers.append(shown["disputeTicket"]["ticketNumber"])
    first, second = (int(number.removeprefix("DHM-")) for number in numbers)
    assert second == first + 1
    assert len(numbers[0]) == len("DHM-00042")


async def test_the_preview_is_the_reasons_first_140_characters(world: World):
    life = await world.life("quick", "paid", title="Öl")
    await world.act(life, life.buyer, "dispute", reason="ü" * 139 + "ab" + "c" * 100)
    shown = (await life.read())["disputeTicket"]
    assert shown["previewReason"] == "ü" * 139 + "a"
    assert shown["subject"] == "Dispute: Öl"


async def test_a_withdrawn_dispute_leaves_its_ticket_resolved_and_the_deadline_runs_on(
    world: World,
):
    life = await world.life("quick", "delivered")
    before = await life.read()
    await world.act(life, life.buyer, "dispute", reason="?")
    opened = await life.read()
    await world.advance(days=2)
    await world.act(life, life.buyer, "withdraw_dispute")
    after = await life.read()
    assert (after["status"], after["disputeTicketId"]) == ("delivered", opened["disputeTicketId"])
    assert after["disputeTicket"] == {**opened["disputeTicket"], "status": "resolved"}
    frozen = at(after, "updatedAt") - at(opened, "updatedAt")
    later = at(after, "completionDeadline") - at(before, "completionDeadline")
    assert abs(later - frozen) <= SHOWN


async def test_the_completion_deadline_is_null_while_a_cancellation_request_is_pending(
    world: World,
):
    life = await world.life("quick", "delivered")
    before = await life.read()
    await world.act(life, life.buyer, "request_cancellation", reason="Too late.")
    moments = dict.fromkeys(("paidAt", "deliveredAt"), INSTANT)
    request = {
        "requestedBy": {k: v for k, v in party(life.buyer).items() if k != "email"},
        "reason": "Too late.",
        "status": "pending",
        "requestedAt": INSTANT,
    }
    assert await shows(life, status="delivered", **moments, cancellationRequest=request) == []
    asked = await life.read()
    await world.advance(days=1)
    await world.act(life, life.seller, "reject_cancellation")
    after = await life.read()
    assert after["cancellationRequest"]["status"] == "rejected"
    frozen = at(after, "updatedAt") - at(asked, "updatedAt")
    later = at(after, "completionDeadline") - at(before, "completionDeadline")
    assert abs(later - frozen) <= SHOWN


async def test_delivery_rejections_are_listed(world: World):
    life = await world.life("quick", "delivered")
    delivered = (await life.read())["deliveredAt"]
    await world.act(life, life.buyer, "reject_delivery", reason="Wrong colour.")
    rejection = {
        "rejectedAt": INSTANT,
        "reason": "Wrong colour.",
        "previousDeliveredAt": delivered,
    }
    assert await shows(life, status="paid", paidAt=INSTANT, deliveryRejections=[rejection]) == []


# ---- cancelReason -------------------------------------------------------------------------------


async def by_seller(world: World) -> Life:
    life = await world.life()
    await world.act(life, life.seller, "cancel")
    return life


async def by_buyer(world: World) -> Life:
    life = await world.life()
    await world.act(life, life.buyer, "cancel")
    return life


async def by_creator(world: World) -> Life:
    lone = await world.partner(associated=False)
    return await world.life("quick", "cancelled", partner=lone, seller=await world.person())


async def by_expiry(world: World) -> Life:
    life = await world.life()
    await world.advance(days=32)
    return life


async def undelivered(world: World) -> Life:
    life = await world.life("instant", "paid")
    await world.advance(days=7)
    return life


async def without_proof(world: World) -> Life:
    life = await world.life("quick_proof", "paid")
    await world.advance(hours=25)
    return life


async def by_cancel_escrow(world: World) -> Life:
    life = await world.life("quick", "delivered")
    await world.act(life, life.seller, "cancel_escrow")
    return life


async def by_request(world: World) -> Life:
    life = await world.life("quick", "paid")
    await world.act(life, life.buyer, "request_cancellation", reason="?")
    await world.act(life, life.seller, "accept_cancellation")
    return life


async def by_dispute(world: World) -> Life:
    life = await world.life("quick", "disputed")
    await world.advance(days=6)  # the seller did not answer: as the buyer claims
    return life


@pytest.mark.parametrize(
    ("reason", "cancelled"),
    [
        ("seller", by_seller),
        ("buyer", by_buyer),
        ("creator", by_creator),
        ("expired", by_expiry),
        ("undelivered", undelivered),
        ("proof_expired", without_proof),
        ("seller", by_cancel_escrow),
        ("request_accepted", by_request),
        ("dispute", by_dispute),
    ],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
async def test_cancel_reason_says_why_and_the_buyer_has_everything_back(
    world: World, reason, cancelled
):
    life = await cancelled(world)
    shown = await life.read()
    assert (shown["status"], shown["cancelReason"]) == ("cancelled", reason)
    assert INSTANT.holds(shown["cancelledAt"])
    assert await world.wallet(life.buyer) == 1000
