"""`GET /escrows/:id/next`: who may do what in each state, what time does, who holds the matter."""

import itertools

import pytest

from service.ingress.api.sessions import ACTS
from service.rules.clocks import running
from service.rules.errors import Refused
from service.rules.escrow import FINAL
from service.rules.escrow import STEPS as ROWS
from service.rules.machine import Role
from service.rules.outlook import AGREED
from service.wire.base import instant
from tests.books import count_rows
from tests.makers import (
    PATHS,
    STEPS,
    act,
    bring_on,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    user_actor,
)
from tests.service.commands.asking import clocks

EITHER = {"dispute"}
PAID_SELLER = {"deliver", "cancel_escrow"} | EITHER
PAID_BUYER = {"request_cancellation"} | EITHER
ASKED = {"accept_cancellation", "reject_cancellation"}
STANDINGS = [
    # mode, state, then, the seller's legal steps, the buyer's, who holds the matter
    ("standard", "pending", (), {"update", "sign_contract", "cancel"},
     {"sign_contract", "cancel"}, "buyer"),
    ("standard", "pending", ("sellers_signature",), {"update", "cancel"},
     {"sign_contract", "cancel"}, "buyer"),
    ("standard", "pending", ("sellers_signature", "buyers_signature"), {"update", "cancel"},
     {"accept_pay", "cancel"}, "buyer"),
    ("quick", "pending", (), {"update", "cancel"}, {"accept_pay", "cancel"}, "buyer"),
    ("quick_proof", "pending", (), {"update", "cancel"}, {"accept_pay", "cancel"}, "buyer"),
    ("instant", "pending", (), {"update", "cancel"}, {"accept_pay", "cancel"}, "buyer"),
    ("standard", "paid", (), PAID_SELLER, PAID_BUYER, "seller"),
    ("quick", "paid", (), PAID_SELLER, PAID_BUYER, "seller"),
    ("quick_proof", "paid", (), {"cancel_escrow", "submit_proof"} | EITHER, PAID_BUYER, "seller"),
    ("instant", "paid", (), PAID_SELLER, PAID_BUYER, "seller"),
    ("quick", "paid", ("request_cancellation",), PAID_SELLER | ASKED, EITHER, "seller"),
    ("instant", "paid", ("request_cancellation",), PAID_SELLER - {"deliver"} | ASKED, EITHER,
     "seller"),
    ("standard", "delivered", (), {"cancel_escrow"} | EITHER,
     {"complete", "reject_delivery"} | PAID_BUYER, "buyer"),
    ("quick", "delivered", (), {"cancel_escrow"} | EITHER,
     {"complete", "reject_delivery"} | PAID_BUYER, "buyer"),
    ("quick", "delivered", ("request_cancellation",), {"cancel_escrow"} | ASKED | EITHER,
     {"complete", "reject_delivery"} | EITHER, "seller"),
    ("quick", "delivered", ("buyers_dispute",), {"answer_dispute"},
     {"withdraw_dispute", "answer_dispute"}, "seller"),
    ("instant", "paid", ("sellers_dispute",), {"withdraw_dispute", "answer_dispute"},
     {"answer_dispute"}, "buyer"),
    ("quick", "completed", (), set(), set(), None),
    ("instant", "completed", (), set(), set(), None),
    ("quick", "cancelled", (), set(), set(), None),
    ("standard", "paid", ("cancel_escrow",), set(), set(), None),
]  # fmt: skip


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def shop(house):
    return await make_shop(house)


@pytest.fixture
async def buyer(house):
    return await make_buyer(house)


async def next_of(client, shop, escrow):
    path = f"/api/v1/escrows/{escrow.id}/next"
    async with client.get(path, headers=shop.headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def legal(party):
    return {step["step"] for step in party["steps"] if step["legal"]}


@pytest.mark.parametrize(("mode", "state", "then", "sellers", "buyers", "waits_for"), STANDINGS)
async def test_each_party_is_told_what_they_may_do_and_who_is_waited_for(
    house, client, shop, buyer, mode, state, then, sellers, buyers, waits_for
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state, then=then)
    before = await count_rows(house), await reread(house, escrow.id)
    told = await next_of(client, shop, escrow)
    assert (await count_rows(house), await reread(house, escrow.id)) == before
    shown = {
        "id": escrow.id,
        "status": escrow.status,
        "mode": "quick" if mode == "quick_proof" else mode,
        "frozen": False,
    }
    if mode == "quick_proof" and state == "paid":
        shown["proofPhase"] = "waiting_seller_proof"
    assert told["escrow"] == shown
    assert told["waitsFor"] == waits_for
    assert legal(told["parties"]["seller"]) == sellers
    assert legal(told["parties"]["buyer"]) == buyers
    for side, email in (("seller", shop.email), ("buyer", buyer.email)):
        party = told["parties"][side]
        assert (party["email"], party["registered"]) == (email, True)
        for step in party["steps"]:
            assert set(step) >= {"step", "legal"}
            assert ("message" in step) == (not step["legal"])
    stand = await clocks(house, escrow.id)
    assert {one["kind"] for one in told["deadlines"]} == set(stand)
    assert bool(told["deadlines"]) == (escrow.status not in FINAL)
    for one in told["deadlines"]:
        assert one["step"] == running(escrow)[one["kind"]].step
        assert one["paused"] == (stand[one["kind"]].remaining is not None)
        assert None not in (one["to"], one["outcome"])


def test_every_step_that_is_named_has_a_door():
    of_parties = {row.name for row in ROWS if row.who & {Role.SELLER, Role.BUYER}}
    assert of_parties - AGREED == set(ACTS) - {"review_proof"}  # a session's word for two of them


@pytest.mark.parametrize("mode", PATHS)
async def test_what_is_told_to_be_legal_is_and_what_is_not_is_refused_so(house, client, shop, mode):
    """Each step that somebody can take today, tried in each state: the next is what happens."""
    taken = {
        "pay": "accept_pay", "sellers_signature": "sign_contract",
        "buyers_signature": "sign_contract", "sellers_dispute": "dispute",
        "buyers_dispute": "dispute", "sellers_withdrawal": "withdraw_dispute",
        "buyers_withdrawal": "withdraw_dispute", "sellers_answer": "answer_dispute",
        "buyers_answer": "answer_dispute",
    }  # fmt: skip
    rich = await make_buyer(house, funds="100000")
    people = [(name, who, command) for name, (who, command) in STEPS.items() if who != "operator"]
    for state, (name, who, command) in itertools.product(PATHS[mode], people):
        escrow = await make_escrow(house, shop, rich, mode=mode, status=state)
        told = await next_of(client, shop, escrow)
        step = taken.get(name, name)
        found = [one for one in told["parties"][who]["steps"] if one["step"] == step]
        actor = user_actor(shop.user_id if who == "seller" else rich.user_id)
        refusal = await refusal_of(house, actor, command(escrow.id))
        if refusal is None:
            assert found == [{"step": step, "legal": True}], (state, name)
        elif found:
            code = {} if refusal.code is None else {"code": refusal.code}
            no = {"step": step, "legal": False, **code, "message": str(refusal)}
            assert found == [no], (state, name)


async def refusal_of(house, actor, command):
    try:
        await act(house, actor, command)
    except Refused as refusal:
        return refusal
    return None


async def test_the_whole_of_a_delivered_escrow(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    pending = "The escrow is delivered; it must be pending to {}."
    unasked = {
        "legal": False,
        "code": "NO_PENDING_CANCELLATION",
        "message": "No cancellation request waits for an answer.",
    }
    undisputed = {
        "legal": False,
        "code": "NO_OPEN_DISPUTE",
        "message": "No dispute is open on this escrow.",
    }
    cancel = pending.format("cancel") + (
        " Once it is paid a buyer asks with request_cancellation and a seller cancels with"
        " cancel_escrow, through a checkout session."
    )
    assert await next_of(client, shop, escrow) == {
        "escrow": {"id": escrow.id, "status": "delivered", "mode": "quick", "frozen": False},
        "waitsFor": "buyer",
        "parties": {
            "seller": {
                "email": shop.email,
                "registered": True,
                "steps": [
                    {"step": "update", "legal": False, "message": pending.format("update")},
                    {"step": "cancel", "legal": False, "message": cancel},
                    {"step": "deliver", "legal": False,
                     "message": "The escrow is delivered; it must be paid to deliver."},
                    {"step": "cancel_escrow", "legal": True},
                    {"step": "accept_cancellation", **unasked},
                    {"step": "reject_cancellation", **unasked},
                    {"step": "dispute", "legal": True},
                    {"step": "answer_dispute", **undisputed},
                    {"step": "withdraw_dispute", **undisputed},
                ],
            },
            "buyer": {
                "email": buyer.email,
                "registered": True,
                "steps": [
                    {"step": "accept_pay", "legal": False, "code": "PAYMENT_ALREADY_DONE",
                     "message": "This escrow was paid already; its status is delivered."},
                    {"step": "cancel", "legal": False, "message": cancel},
                    {"step": "complete", "legal": True},
                    {"step": "reject_delivery", "legal": True},
                    {"step": "request_cancellation", "legal": True},
                    {"step": "dispute", "legal": True},
                    {"step": "answer_dispute", **undisputed},
                    {"step": "withdraw_dispute", **undisputed},
                ],
            },
        },
        "deadlines": [
            {
                "kind": "completion",
                "dueAt": instant(escrow.completion_deadline),
                "paused": False,
                "step": "complete",
                "to": "completed",
                "outcome": "The buyer confirms, or the time to object has passed: released.",
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("opener", "to"), [("sellers_dispute", "completed"), ("buyers_dispute", "cancelled")]
)
async def test_in_a_dispute_the_clocks_stand_still_but_for_the_answers(
    house, client, shop, buyer, opener, to
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered", then=(opener,))
    stand = await clocks(house, escrow.id)
    told = {one["kind"]: one for one in (await next_of(client, shop, escrow))["deadlines"]}
    assert told["completion"] == {
        "kind": "completion",
        "dueAt": None,
        "paused": True,
        "remainingSeconds": int(stand["completion"].remaining.total_seconds()),
        "step": "complete",
        "to": "completed",
        "outcome": "The buyer confirms, or the time to object has passed: released.",
    }
    answering = told["dispute_answer"]
    assert (answering["step"], answering["to"]) == ("resolve_dispute", to)
    assert (answering["paused"], answering["dueAt"]) == (
        False,
        instant(stand["dispute_answer"].due_at),
    )


@pytest.mark.parametrize(
    ("state", "step", "to"),
    [("paid", "accept_cancellation", "cancelled"),
     ("delivered", "reject_cancellation", "delivered")],
)  # fmt: skip
async def test_an_unanswered_request_ends_by_the_state(house, client, shop, buyer, state, step, to):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status=state, then=("request_cancellation",)
    )
    told = {one["kind"]: one for one in (await next_of(client, shop, escrow))["deadlines"]}
    answering = told["cancellation_answer"]
    assert (answering["step"], answering["to"], answering["paused"]) == (step, to, False)


async def test_who_has_not_registered_is_told_so(house, client, shop):
    escrow = await make_escrow(house, shop, mode="quick", buyer_email="new@example.org")
    told = await next_of(client, shop, escrow)
    party = told["parties"]["buyer"]
    assert (party["email"], party["registered"]) == ("new@example.org", False)
    assert legal(party) == {"accept_pay", "cancel"}
    reminder = [one for one in told["deadlines"] if one["kind"] == "invitation_reminder"]
    assert [(one["step"], one["to"], one["outcome"]) for one in reminder] == [(None, None, None)]


async def test_a_frozen_escrow_waits_for_the_operator(house, client, shop, buyer, owner):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    told = await next_of(client, shop, escrow)
    assert (told["escrow"]["frozen"], told["waitsFor"]) == (True, "operator")
    for party in told["parties"].values():
        assert {step["code"] for step in party["steps"]} == {"ESCROW_FROZEN"}


async def test_only_those_who_may_see_the_escrow_are_told(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick")
    stranger = await make_shop(house)
    for path, status in (
        (f"/api/v1/escrows/{escrow.id}/next", 403),
        (f"/api/v1/escrows/{'0' * 24}/next", 404),
        ("/api/v1/escrows/x/next", 400),
    ):
        async with client.get(path, headers=stranger.headers) as response:
            assert response.status == status
    assert (await bring_on(house, shop, escrow.id, "cancel")).status == "cancelled"
