"""escrows.md 7: what a real receiver is told of the steps of these endpoints, a test an event."""

import hashlib
import hmac
import json
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from standardwebhooks import Webhook

from service.gateways.post import HttpPost
from service.wire.base import dump_json
from tests.conformance.shapes import (
    ID,
    INSTANT,
    LEFT_OUT,
    UUID,
    changed,
    differences,
    party,
    snapshot,
    written,
)
from tests.conformance.world import ESCROWS, POLICY, V1, WEBHOOKS, Life, Partner, World, new_email
from tests.pictures import PICTURES, data_uri
from tests.receiver import Parcel, receiving
from workers.webhooks import Courier

UPDATED = "escrow.status.updated"
NAMED = ("_id", "firstName", "lastName")


def named(person) -> dict:
    """A person without the e-mail."""
    return {key: value for key, value in party(person).items() if key in NAMED}


class Desk:
    """A receiver, and the courier that brings it everything that is due."""

    def __init__(self, world, receiver, courier):
        self.world, self.receiver, self.courier = world, receiver, courier

    async def hears(self, partner: Partner, events=("*",), tail="") -> dict:
        """This partner's events from now on; the endpoint as create showed it."""
        asked = {"url": self.receiver.url + tail, "events": list(events)}
        answer = await partner.post(WEBHOOKS, asked)
        assert answer.status == 201, answer.raw
        return answer.body["webhook"]

    async def parcels(self) -> list[Parcel]:
        """What came since the last time, in the order of the events."""
        await self.courier.settle_all()
        found = sorted(self.receiver.parcels, key=lambda one: one.headers["webhook-id"])
        self.receiver.parcels.clear()
        return found

    async def told(self) -> list[dict]:
        """Their bodies."""
        return [json.loads(one.body, parse_float=Decimal) for one in await self.parcels()]


@pytest.fixture
async def desk(world: World):
    async with receiving() as receiver:
        post = HttpPost(allow_private=True)
        courier = Courier(world.house, post, chance=lambda: 0.5)
        yield Desk(world, receiver, courier)
        await courier.close(grace_seconds=0)
        await post.close()


@pytest.fixture
def heard(world: World, desk: Desk):
    """`await heard(kind, status)`: an escrow whose creator has been told everything so far."""

    async def made(kind="quick", status="pending", **changes):
        partner = changes.pop("partner", None) or await world.partner()
        await desk.hears(partner)
        life = await world.life(kind, status, partner=partner, **changes)
        await desk.parcels()
        return life

    return made


def event(name: str, **data) -> dict:
    """The envelope."""
    return {"id": UUID, "type": name, "timestamp": INSTANT, "data": data}


def status_updated(life: Life, old: str, new: str, **changes) -> dict:
    return event(UPDATED, escrow=snapshot(life, status=new, oldStatus=old, **changes))


def by_type(told: list[dict]) -> list[dict]:
    """Events of one step have one moment and no order; those of one type keep theirs."""
    return sorted(told, key=lambda one: one["type"])


async def differs(desk: Desk, *expected) -> list[str]:
    """Where what came since the last time is not what is expected."""
    return differences(by_type(await desk.told()), by_type(list(expected)), "told")


# ---- Deliveries ---------------------------------------------------------------------------------


async def test_the_envelope_is_compact_json_in_raw_utf_8(world: World, desk: Desk, partner):
    await desk.hears(partner)
    await world.life(partner=partner, title="Ünï “😀” </script>")
    [parcel] = await desk.parcels()
    told = json.loads(parcel.body, parse_float=Decimal)
    assert list(told) == ["id", "type", "timestamp", "data"]
    assert parcel.body == dump_json(told)
    assert "Ünï “😀” </script>".encode() in parcel.body


async def test_every_delivery_carries_these_headers_and_both_signatures(
    world: World, desk: Desk, partner: Partner
):
    secret = (await desk.hears(partner))["secret"]
    await world.life(partner=partner)
    [parcel] = await desk.parcels()
    body, headers = parcel.body, parcel.headers
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()  # the hex is not decoded
    assert headers["X-Webhook-Signature"] == mac
    assert headers["X-Webhook-Event"] == "escrow.created"
    assert UUID.holds(headers["X-Webhook-Id"])
    assert headers["X-Webhook-Id"] != json.loads(body)["id"] == headers["webhook-id"]
    assert INSTANT.holds(headers["X-Webhook-Timestamp"])
    assert headers["Content-Type"] == "application/json"
    made = (await partner.get(WEBHOOKS)).body["webhooks"][0]
    regenerated = await partner.post(
        f"{WEBHOOKS}/{made['id']}/regenerate-secret", {"overlapHours": 1}
    )
    await world.life(partner=partner)
    [parcel] = await desk.parcels()
    Webhook(regenerated.body["standardSecret"]).verify(parcel.body, dict(parcel.headers))


async def test_a_retry_has_the_same_id_and_body_and_an_instant_of_its_own(
    world: World, desk: Desk, partner: Partner, owner
):
    await desk.hears(partner)
    await world.life(partner=partner)
    desk.receiver.says(500)
    [first] = await desk.parcels()
    await owner.execute("UPDATE delivery SET visible_at = now() WHERE state = 'pending'")
    await owner.execute("UPDATE lane SET next_due_at = now(), hold_until = '-infinity'")
    [second] = await desk.parcels()
    assert first.body == second.body
    assert first.headers["X-Webhook-Id"] == second.headers["X-Webhook-Id"]
    assert first.headers["X-Webhook-Timestamp"] < second.headers["X-Webhook-Timestamp"]


async def test_the_creator_and_the_developers_of_both_parties_receive_and_nobody_else(
    world: World, desk: Desk
):
    creator = await world.partner(associated=False)
    sellers, buyers, stranger = [await world.partner() for _ in range(3)]
    for n, who in enumerate((creator, sellers, buyers, stranger)):
        await desk.hears(who, events=["escrow.created"], tail=f"/{n}")
    await world.life("quick", partner=creator, seller=sellers.user, buyer=buyers.user)
    await desk.courier.settle_all()
    assert len(desk.receiver.parcels) == 3
    shown = []
    for who in (creator, sellers, buyers, stranger):
        [hook] = (await who.get(WEBHOOKS)).body["webhooks"]
        shown.append(hook["lastResponseStatus"])
    assert shown == [200, 200, 200, None]


async def test_only_what_an_endpoint_is_subscribed_to_is_sent(world: World, desk: Desk, partner):
    await desk.hears(partner, events=[UPDATED, "escrow.delivery.rejected"])
    life = await world.life("quick", "delivered", partner=partner)
    assert await differs(
        desk, status_updated(life, "pending", "paid"), status_updated(life, "paid", "delivered")
    ) == []  # fmt: skip


# ---- Creation and steps -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["standard", "quick", "quick_proof", "instant"])
async def test_created_says_the_escrow(world: World, desk: Desk, kind):
    partner = await world.partner()
    await desk.hears(partner)
    life = await world.life(kind, partner=partner, language="ar", amount=Decimal("77.125"))
    fee = 0 if kind == "instant" else Decimal("3.856")
    money = {"amount": Decimal("77.125"), "amountTnd": Decimal("77.125"), "escrowFee": fee}
    assert await differs(desk, event("escrow.created", escrow=snapshot(life, **money))) == []


async def test_a_party_who_is_not_registered_is_null(desk: Desk, partner: Partner):
    await desk.hears(partner)
    body = {"title": "A camera", "amount": 100, "buyerEmail": new_email(), "mode": "quick",
            "sellerEmail": new_email(), "estimatedDeliveryDays": 3}  # fmt: skip
    made = (await partner.post(ESCROWS, body)).escrow
    life = Life(partner, "quick", None, None, id=made["id"])
    assert await differs(desk, event("escrow.created", escrow=snapshot(life))) == []


@pytest.mark.parametrize("kind", ["standard", "quick"])
async def test_each_step_of_a_life_says_the_status_before_and_after(
    world: World, desk: Desk, heard, kind
):
    life = await heard(kind)
    await world.bring(life, "delivered")
    told = [one for one in await desk.told() if one["type"] == UPDATED]
    steps = [status_updated(life, "pending", "paid"), status_updated(life, "paid", "delivered")]
    assert differences(told, steps, "told") == []
    await world.advance(days=8)
    assert await differs(desk, status_updated(life, "delivered", "completed")) == []


async def test_an_instant_escrow_skips_delivered(world: World, desk: Desk, heard):
    life = await heard("instant")
    await world.bring(life, "completed")
    assert await differs(
        desk, status_updated(life, "pending", "paid"), status_updated(life, "paid", "completed")
    ) == []  # fmt: skip


async def test_a_cancellation_is_a_change_of_status_only(desk: Desk, heard):
    life = await heard()
    assert (await life.partner.post(f"{life.path}/cancel")).status == 200
    assert await differs(desk, status_updated(life, "pending", "cancelled")) == []


async def test_an_expiry_is_a_change_of_status_only(world: World, desk: Desk, heard):
    life = await heard()
    await world.advance(days=32)
    assert await differs(desk, status_updated(life, "pending", "cancelled")) == []


async def test_a_sellers_cancel_escrow_is_a_change_of_status_only(world, desk: Desk, heard):
    life = await heard("quick", "paid")
    await world.act(life, life.seller, "cancel_escrow")
    assert await differs(desk, status_updated(life, "paid", "cancelled")) == []


async def test_a_refused_step_tells_nobody(desk: Desk, heard):
    life = await heard()
    assert (await life.partner.post(f"{life.path}/deliver")).status == 400
    assert (await life.partner.put(life.path, {"title": ""})).status == 400
    assert await differs(desk) == []


async def test_an_update_that_is_replayed_is_told_once(desk: Desk, heard):
    life = await heard()
    for _ in range(3):
        assert (await life.partner.put(life.path, {"title": "New"}, key="k")).status == 200
    assert len(await desk.told()) == 1


# ---- Updates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fields", "changes"),
    [
        ({"title": "New"}, ["title"], {"title": "New"}),
        ({"amount": 50}, ["amount"], {"amount": 50, "amountTnd": 50, "escrowFee": Decimal("2.5")}),
        ({"description": "x"}, ["description"], {}),
        ({"estimatedDeliveryDays": 9}, ["estimatedDeliveryDays"], {"estimatedDeliveryDays": 9}),
        ({"title": "A camera", "amount": 100, "description": "x"}, ["description"], {}),
        ({"title": "New", "estimatedDeliveryDays": 3, "who": 1}, ["title"], {"title": "New"}),
    ],
    ids=str,
)
async def test_updated_fields_are_the_requests_fields_that_changed_and_not_what_follows(
    desk: Desk, heard, body, fields, changes
):
    life = await heard()
    assert (await life.partner.put(life.path, body)).status == 200
    shown = snapshot(life, **changes)
    assert await differs(desk, event("escrow.updated", updatedFields=fields, escrow=shown)) == []


async def test_the_contract_is_told_only_when_its_terms_changed(desk: Desk, heard):
    life = await heard("standard", language="fr")
    await life.partner.put(life.path, {"contractTerms": "Autrement."})
    contract = {"id": ID, "terms": "Autrement.", "language": "fr"}
    told = event(
        "escrow.updated",
        updatedFields=["contractTerms"],
        escrow=snapshot(life),
        contract=contract,
    )
    assert await differs(desk, told) == []
    await life.partner.put(life.path, {"title": "New", "contractTerms": "Autrement."})
    shown = snapshot(life, title="New")
    assert await differs(desk, event("escrow.updated", updatedFields=["title"], escrow=shown)) == []


async def test_several_fields_are_told_at_once(desk: Desk, heard):
    life = await heard("standard")
    body = {"contractTerms": "x", "estimatedDeliveryDays": 9, "amount": 7, "description": "d",
            "title": "t"}  # fmt: skip
    assert (await life.partner.put(life.path, body)).status == 200
    [told] = await desk.told()
    assert set(told["data"]["updatedFields"]) == set(body)
    assert set(told["data"]) == {"updatedFields", "escrow", "contract"}


# ---- Rejected deliveries ------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [None, "Wrong colour."])
async def test_a_rejected_delivery_is_two_events_and_the_reason_is_absent_when_none_was_given(
    world: World, desk: Desk, heard, reason
):
    buyers = await world.partner()
    await world.top_up(buyers.user.email, 100)
    life = await heard("quick", "delivered", buyer=buyers.user)
    delivered_at = (await life.read())["deliveredAt"]
    body = {} if reason is None else {"reason": reason}
    assert (await buyers.post(f"{life.path}/reject-delivery", body)).status == 200
    rejection = {
        "rejectedAt": INSTANT,
        "previousDeliveredAt": delivered_at,
        "rejectedBy": named(life.buyer),
    }
    told = event(
        "escrow.delivery.rejected",
        escrow=snapshot(life, status="paid", oldStatus="delivered"),
        deliveryRejection={**rejection, **body},
    )
    assert await differs(desk, told, status_updated(life, "delivered", "paid")) == []


# ---- Signatures ---------------------------------------------------------------------------------


async def test_each_signature_is_told_as_one_contract_signed(world: World, desk: Desk, heard):
    life = await heard("standard")
    await world.sign(life)
    signed = {"signedAt": INSTANT}
    shape = {
        "id": life.answer.body["contract"]["id"],
        "escrowId": life.id,
        "signedBy": "seller",
        "sellerSignature": signed,
        "buyerSignature": None,
        "isFullySigned": False,
        "signedAt": INSTANT,
    }
    both = changed(shape, {"signedBy": "buyer", "buyerSignature": signed, "isFullySigned": True})
    assert await differs(
        desk,
        event("contract.signed", contract=shape, escrow=snapshot(life)),
        event("contract.signed", contract=both, escrow=snapshot(life)),
    ) == []  # fmt: skip


async def test_auto_sign_is_told_too(world: World, desk: Desk, partner: Partner):
    drawn = data_uri(PICTURES["gif"], "gif")
    assert (await partner.put("/api/developer/signature", {"signatureImage": drawn})).status == 200
    await desk.hears(partner)
    await world.life("standard", partner=partner, autoSign=True)
    signed, created = by_type(await desk.told())
    assert (created["type"], signed["type"]) == ("escrow.created", "contract.signed")
    assert signed["data"]["contract"]["signedBy"] == "seller"


# ---- Proofs -------------------------------------------------------------------------------------


def proof_event(name: str, life: Life, status: str, phase: str, actions: list) -> dict:
    shown = {"id": life.id, "title": "A camera", "status": status, "mode": "quick"}
    proof = {
        "phase": phase,
        "correctionRounds": 0,
        "uploadDeadline": INSTANT,
        "reviewDeadline": None,
        "latestSubmission": None,
        "checkoutActions": actions,
    }
    return event(name, escrow=shown, proof=proof)


async def test_a_paid_proof_escrow_asks_for_its_proof_and_then_expires_without(
    world: World, desk: Desk, heard
):
    life = await heard("quick_proof", fulfillmentPolicy={**POLICY, "proofUploadDeadlineHours": 6})
    await world.bring(life, "paid")
    waiting = {
        "action": "submit_proof",
        "targetUserEmail": life.seller.email,
        "description": written(".+"),
    }
    required = proof_event("escrow.proof.required", life, "paid", "waiting_seller_proof", [waiting])
    told = by_type(await desk.told())
    expected = by_type([required, status_updated(life, "pending", "paid")])
    assert differences(told, expected, "told") == []
    due = datetime.fromisoformat(told[0]["data"]["proof"]["uploadDeadline"])
    paid = datetime.fromisoformat((await life.read())["paidAt"])
    assert due == paid + timedelta(hours=6)
    await world.advance(hours=7)
    expired = proof_event("escrow.proof.expired", life, "cancelled", "expired_no_proof", [])
    assert await differs(desk, expired, status_updated(life, "paid", "cancelled")) == []


# ---- Cancellation requests ----------------------------------------------------------------------


def request_event(name: str, life: Life, status: str, /, **changes) -> dict:
    request = {
        "requestedBy": named(life.buyer),
        "reason": "Too late.",
        "status": "pending",
        "requestedAt": INSTANT,
    }
    return event(
        f"escrow.cancellation.{name}",
        escrow=snapshot(life, status=status),
        cancellationRequest=changed(request, changes),
    )


@pytest.mark.parametrize("status", ["paid", "delivered"])
async def test_a_cancellation_is_requested_and_rejected_without_a_change_of_status(
    world: World, desk: Desk, heard, status
):
    life = await heard("quick", status)
    await world.act(life, life.buyer, "request_cancellation", reason="Too late.")
    assert await differs(desk, request_event("requested", life, status)) == []
    await world.act(life, life.seller, "reject_cancellation")
    answered = {"status": "rejected", "rejectedBy": named(life.seller)}
    assert await differs(desk, request_event("rejected", life, status, **answered)) == []


@pytest.mark.parametrize("status", ["paid", "delivered"])
async def test_an_accepted_cancellation_is_told_and_then_the_status(
    world: World, desk: Desk, heard, status
):
    life = await heard("quick", status)
    await world.act(life, life.buyer, "request_cancellation", reason="Too late.")
    await desk.parcels()
    await world.act(life, life.seller, "accept_cancellation")
    answered = {"status": "accepted", "acceptedBy": named(life.seller)}
    assert await differs(
        desk,
        request_event("accepted", life, "cancelled", **answered),
        status_updated(life, status, "cancelled"),
    ) == []  # fmt: skip


@pytest.mark.parametrize(("status", "answer"), [("paid", "accepted"), ("delivered", "rejected")])
async def test_a_request_that_is_not_answered_in_5_days_is_answered_by_nobody(
    world: World, desk: Desk, heard, status, answer
):
    life = await heard("quick", status, estimatedDeliveryDays=100)
    await world.act(life, life.buyer, "request_cancellation", reason="Too late.")
    await desk.parcels()
    await world.advance(days=5, hours=1)
    after = "cancelled" if answer == "accepted" else status
    expected = [request_event(answer, life, after, status=answer, acceptedBy=LEFT_OUT)]
    expected[0]["data"]["escrow"]["estimatedDeliveryDays"] = 100
    if answer == "accepted":
        expected.append(status_updated(life, status, after, estimatedDeliveryDays=100))
    assert await differs(desk, *expected) == []


# ---- Disputes -----------------------------------------------------------------------------------


def dispute_event(name: str, life: Life, status: str, /, **changes) -> dict:
    dispute = {
        "ticketNumber": written(r"DHM-\d{5,}"),
        "openedBy": named(life.buyer),
        "reason": "Broken.",
        "status": "open",
    }
    return event(
        f"escrow.dispute.{name}",
        escrow=snapshot(life, status=status),
        dispute=changed(dispute, changes),
    )


@pytest.mark.parametrize("status", ["paid", "delivered"])
async def test_a_dispute_is_told_as_a_status_and_with_its_ticket_and_withdrawn_likewise(
    world: World, desk: Desk, heard, status
):
    life = await heard("quick", status)
    await world.act(life, life.buyer, "dispute", reason="Broken.")
    assert await differs(
        desk, status_updated(life, status, "disputed"), dispute_event("opened", life, "disputed")
    ) == []  # fmt: skip
    await world.act(life, life.buyer, "withdraw_dispute")
    withdrawn = {"status": "resolved", "outcome": "withdrawn"}
    assert await differs(
        desk,
        status_updated(life, "disputed", status),
        dispute_event("resolved", life, status, **withdrawn),
    ) == []  # fmt: skip


async def test_a_dispute_that_nobody_answers_is_resolved_as_the_opener_claims(
    world: World, desk: Desk, heard
):
    life = await heard("quick", "paid", estimatedDeliveryDays=100)
    await world.act(life, life.buyer, "dispute", reason="Broken.")
    await desk.parcels()
    await world.advance(days=5, hours=1)
    settlement = {
        "sellerAmount": 0,
        "buyerAmount": 100,
        "escrowFee": 0,
        "developerFee": 0,
        "sellerNet": 0,
        "resolvedBy": "clock",
    }
    resolved = dispute_event(
        "resolved", life, "cancelled", status="resolved", outcome=written(".+"),
        settlement=settlement,
    )  # fmt: skip
    resolved["data"]["escrow"]["estimatedDeliveryDays"] = 100
    moved = status_updated(life, "disputed", "cancelled", estimatedDeliveryDays=100)
    assert await differs(desk, moved, resolved) == []
    assert (await life.read())["settlement"] == settlement


# ---- Ours ---------------------------------------------------------------------------------------


async def test_an_overdue_delivery_is_told_with_its_moment(world: World, desk: Desk, heard):
    life = await heard("quick", "paid")
    await world.advance(days=3, hours=1)
    paid = datetime.fromisoformat((await life.read())["paidAt"])
    told = await desk.told()
    overdue = event(
        "escrow.delivery.overdue", escrow=snapshot(life, status="paid"), overdueSince=INSTANT
    )
    assert differences(told, [overdue], "told") == []
    since = datetime.fromisoformat(told[0]["data"]["overdueSince"])
    assert since == paid + timedelta(days=3)


async def test_an_accepted_invitation_is_told_with_its_role(world: World, desk: Desk, partner):
    await desk.hears(partner)
    email = new_email("sells")
    body = {"title": "A camera", "amount": 100, "buyerEmail": new_email(), "mode": "quick",
            "sellerEmail": email, "estimatedDeliveryDays": 3}  # fmt: skip
    made = (await partner.post(ESCROWS, body)).escrow
    await desk.parcels()
    person = await world.person(email, funds=0)
    life = Life(partner, "quick", person, None, id=made["id"])
    invitation = {"email": email, "role": "seller", "acceptedAt": INSTANT}
    told = event("invitation.accepted", escrow=snapshot(life), invitation=invitation)
    assert await differs(desk, told) == []


async def test_identity_events_are_flat_and_in_snake_case(world: World, desk: Desk, partner):
    await desk.hears(partner, events=["identity.*"])
    email = new_email()
    asked = {"email": email, "external_user_id": "u-1"}
    made = (await partner.post(f"{V1}/identity-verifications", asked)).body
    updated = {
        "id": made["id"],
        "external_user_id": "u-1",
        "email": email,
        "kyc_status": "approved",
        "previous_kyc_status": "pending",
        "needs_admin_review": False,
        "linked_user_id": None,
        "status_source": "sandbox",
        "claim_status": "pending",
        "updated_at": INSTANT,
    }
    assert await differs(desk, event("identity.verification.updated", **updated)) == []
    person = await world.person(email, funds=0)
    linked = {
        "id": made["id"],
        "external_user_id": "u-1",
        "email": email,
        "kyc_status": "approved",
        "linked_user_id": person.id,
        "linked_at": INSTANT,
    }
    assert await differs(desk, event("identity.verification.linked", **linked)) == []
