"""A rehearsal tells what a command would do, and does nothing of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from service.commands import amendments, cancellations, contracts, disputes, escrows, rates
from service.commands.contracts import TYPED, Mark
from service.commands.perform import Command, House, perform, rehearse
from service.rules.aggregate import Escrow
from service.rules.errors import (
    EscrowCancelled,
    EscrowFrozen,
    EscrowNotFound,
    FxRateUnavailable,
    InsufficientFunds,
    Refused,
)
from service.rules.machine import Actor, ActorKind
from service.store.deadlines import read_open
from service.wire.base import instant
from tests.books import count_rows
from tests.makers import (
    PATHS,
    STEPS,
    Buyer,
    Shop,
    arrange,
    bring_on,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
    reread,
)

pytestmark = pytest.mark.usefixtures("sound")
DAY = timedelta(days=1)
OPERATOR = Actor(ActorKind.OPERATOR)
SU = "escrow.status.updated"

# Every row of every table: what a rehearsal must leave as it was, byte by byte.
DIGEST = """
SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t
"""


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


async def digests(owner: asyncpg.Connection) -> dict[str, str]:
    """Each table -> a digest of all its rows."""
    tables = await owner.fetch(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    )
    return {t["relname"]: await owner.fetchval(DIGEST.format(table=t["relname"])) for t in tables}


async def rehearsed(house: House, actor: Actor, command: Command, status: int = 200) -> Any:
    answer = await rehearse(house, actor, command, status)
    assert (answer.status, answer.replayed) == (200, False)
    return orjson.loads(answer.body)


@dataclass(frozen=True)
class Rehearsed:
    """A command to be rehearsed: in which mode and state, by whom, the steps that it takes."""

    name: str
    mode: str
    state: str
    command: Callable[[str], Command]
    who: str
    then: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.mode}-{self.state}"


UNDECIDED = ("submit_proof", "request_correction") * 4
OF_PROOFS = {
    "submit_proof", "accept_proof", "request_correction", "proof_accepted", "proof_rejected",
}  # fmt: skip


def by_makers() -> list[Rehearsed]:
    """Every step that somebody takes, in every state of every mode that it is taken from."""
    found = []
    for mode, paths in PATHS.items():
        for state in paths:
            for name, (who, command) in STEPS.items():
                then = {
                    "accept_cancellation": ("request_cancellation",),
                    "reject_cancellation": ("request_cancellation",),
                    "sellers_withdrawal": ("sellers_dispute",),
                    "buyers_withdrawal": ("buyers_dispute",),
                    "to_seller": ("buyers_dispute",),
                    "to_buyer": ("sellers_dispute",),
                    "sellers_answer": ("buyers_dispute",),
                    "buyers_answer": ("sellers_dispute",),
                    "accept_proof": ("submit_proof",),
                    "request_correction": ("submit_proof",),
                    "proof_accepted": UNDECIDED,
                    "proof_rejected": UNDECIDED,
                }.get(name, ())
                if name == "deliver" and mode == "quick_proof":
                    then = ("submit_proof", "accept_proof")
                if name == "pay" and mode == "standard":
                    then = ("sellers_signature", "buyers_signature")
                found.append(Rehearsed(name, mode, state, command, who, then))
    return [one for one in found if is_legal(one)]


def is_legal(one: Rehearsed) -> bool:
    pending = {"sellers_signature", "buyers_signature"} if one.mode == "standard" else set()
    legal = {
        "pending": {"pay", "cancel", "update"} | pending,
        "paid": set(STEPS) - {"pay", "cancel", "update", "complete", "reject_delivery",
                              "sellers_signature", "buyers_signature"}
        - (set() if one.mode == "quick_proof" else OF_PROOFS),
        "delivered": {"complete", "reject_delivery", "cancel_escrow", "request_cancellation",
                      "accept_cancellation", "reject_cancellation", "sellers_dispute",
                      "buyers_dispute", "sellers_withdrawal", "buyers_withdrawal", "to_seller",
                      "to_buyer", "sellers_answer", "buyers_answer"},
    }  # fmt: skip
    return one.name in legal.get(one.state, set())


def actor_of(who: str, shop: Shop, buyer: Buyer) -> Actor:
    return {"seller": shop.actor, "buyer": buyer.actor, "operator": OPERATOR}[who]


@pytest.mark.parametrize("one", by_makers(), ids=str)
async def test_what_is_told_is_what_then_happens_and_nothing_has_happened_yet(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer, one: Rehearsed
):
    escrow = await make_escrow(house, shop, buyer, mode=one.mode, status=one.state, then=one.then)
    actor = actor_of(one.who, shop, buyer)
    before = await digests(owner), await reread(house, escrow.id)
    told = await rehearsed(house, actor, one.command(escrow.id))
    again = await rehearsed(house, actor, one.command(escrow.id))
    assert (await digests(owner), await reread(house, escrow.id)) == before
    done = await perform(house, actor, one.command(escrow.id))
    after = await reread(house, escrow.id)
    assert (told["dryRun"], told["status"]) == (True, 200)
    assert outline(told["answer"]) == outline(again["answer"]) == outline(orjson.loads(done.body))
    [step] = told["steps"]
    assert (step["escrowId"], step["fromStatus"], step["toStatus"]) == (
        escrow.id,
        escrow.status,
        after.status,
    )
    assert step["events"] == await types_after(house, escrow)
    assert step["postings"] == await postings_of(house, escrow)
    assert told["fees"] == {
        "escrowFee": after.escrow_fee_minor / 1000,
        "developerFee": after.developer_fee_minor / 1000,
    }
    stand = await read_open(house.pool, escrow.id)
    assert {(d["kind"], d["paused"]) for d in told["deadlines"]} == {
        (d.kind, d.remaining is not None) for d in stand
    }


async def types_after(house: House, escrow: Escrow) -> list[str]:
    rows = await house.pool.fetch(
        "SELECT type FROM event WHERE subject_id = $1 AND seq > $2 AND type IS NOT NULL"
        " ORDER BY seq",
        escrow.id,
        escrow.seq,
    )
    return [row["type"] for row in rows]


async def postings_of(house: House, escrow: Escrow) -> list[dict[str, Any]]:
    """What the ledger has taken down of the escrow's last step, as a rehearsal tells it."""
    rows = await house.pool.fetch(
        "SELECT s.kind AS from_kind, s.owner AS from_owner, t.kind AS to_kind,"
        " t.owner AS to_owner, x.amount_minor, x.currency, x.reason FROM transfer x"
        " JOIN account s ON s.id = x.from_account JOIN account t ON t.id = x.to_account"
        " WHERE x.escrow_id = $1 AND x.seq > $2 ORDER BY x.id",
        escrow.id,
        escrow.seq,
    )
    return [
        {
            "source": {"account": row["from_kind"], "owner": row["from_owner"]},
            "target": {"account": row["to_kind"], "owner": row["to_owner"]},
            "amount": row["amount_minor"] / 1000,
            "currency": row["currency"],
            "reason": row["reason"],
        }
        for row in rows
    ]


VARYING = ("At", "Id", "Deadline", "ticketNumber")


def outline(told: Any) -> Any:
    """The answer without what no two runs share: moments, new ids and numbers."""
    if isinstance(told, list):
        return [outline(one) for one in told]
    if not isinstance(told, dict):
        return told
    return {
        name: (value is not None) if name.endswith(VARYING) else outline(value)
        for name, value in told.items()
    }


async def test_every_command_is_rehearsed():
    assert {one.name for one in by_makers()} == set(STEPS)


# 2. The whole of it ------------------------------------------------------------------------------


async def test_a_release_is_told_with_its_postings_fees_and_events(house: House, buyer: Buyer):
    shop, seller = await make_shop(house), await make_buyer(house, funds="0")
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", amount=Decimal(1000),
        seller_email=seller.email, developer_fee_bps=1_000,
    )  # fmt: skip
    told = await rehearsed(house, buyer.actor, escrows.complete(escrow.id))
    held = {"account": "held", "owner": escrow.id}
    moment = told["answer"]["escrow"]["completedAt"]
    assert told == {
        "dryRun": True,
        "status": 200,
        "answer": {
            "message": "Escrow completed",
            "escrow": {
                "id": escrow.id,
                "title": "A camera",
                "amount": 1000,
                "status": "completed",
                "deliveredAt": instant(escrow.delivered_at),
                "completedAt": moment,
                "createdAt": instant(escrow.created_at),
                "updatedAt": moment,
            },
        },
        "steps": [
            {
                "escrowId": escrow.id,
                "step": "complete",
                "fromStatus": "delivered",
                "toStatus": "completed",
                "events": [SU],
                "postings": [
                    {"source": held, "target": {"account": "platform_fees", "owner": ""},
                     "amount": 50, "currency": "TND", "reason": "escrow_fee"},
                    {"source": held, "target": {"account": "available", "owner": seller.user_id},
                     "amount": 850, "currency": "TND", "reason": "release"},
                    {"source": held, "target": {"account": "available", "owner": shop.user_id},
                     "amount": 100, "currency": "TND", "reason": "developer_fee"},
                ],
            }
        ],
        "fees": {"escrowFee": 50, "developerFee": 100},
        "deadlines": [],
    }  # fmt: skip


async def test_a_delivery_is_told_with_the_deadline_that_it_would_arm(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    told = await rehearsed(house, shop.actor, escrows.deliver(escrow.id))
    due = told["answer"]["escrow"]["completionDeadline"]
    assert told["deadlines"] == [
        {
            "kind": "completion",
            "dueAt": due,
            "paused": False,
            "step": "complete",
            "to": "completed",
            "outcome": "The buyer confirms, or the time to object has passed: released.",
        }
    ]


async def test_a_dispute_is_told_with_what_stands_still(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    told = await rehearsed(house, buyer.actor, disputes.open_dispute(escrow.id, "?"))
    stand = {one["kind"]: one for one in told["deadlines"]}
    assert set(stand) == {"completion", "dispute_answer", "dispute_reminder"}
    assert (stand["completion"]["paused"], stand["completion"]["dueAt"]) == (True, None)
    week = 7 * 24 * 3600
    assert week - 60 < stand["completion"]["remainingSeconds"] <= week
    assert (stand["dispute_answer"]["step"], stand["dispute_answer"]["to"]) == (
        "resolve_dispute",
        "cancelled",
    )


async def test_an_update_is_told_with_the_fees_that_would_follow(house: House, shop: Shop):
    escrow = await make_escrow(house, shop, mode="quick")
    changes = amendments.Changes(amount=Decimal(1500))
    told = await rehearsed(house, shop.actor, amendments.update(escrow.id, changes))
    assert told["fees"] == {"escrowFee": 75, "developerFee": 0}
    assert told["answer"]["escrow"]["amountTnd"] == 1500
    assert [one["events"] for one in told["steps"]] == [["escrow.updated"]]


async def test_an_update_that_changes_nothing_takes_no_step(house: House, shop: Shop):
    escrow = await make_escrow(house, shop)
    changes = amendments.Changes(title="A camera")
    told = await rehearsed(house, shop.actor, amendments.update(escrow.id, changes))
    assert (told["steps"], told["fees"], told["deadlines"]) == ([], None, [])
    assert told["answer"]["escrow"]["title"] == "A camera"


@pytest.mark.parametrize("mode", PATHS)
async def test_a_creation_is_told_and_nobody_is_invited(
    house: House, owner: asyncpg.Connection, shop: Shop, mode: str
):
    terms = make_terms(shop, "new@example.org", mode)
    before = await digests(owner)
    told = await rehearsed(house, shop.actor, escrows.create(shop.developer_id, terms), 201)
    assert await digests(owner) == before
    assert told["status"] == 201
    made = told["answer"]["escrow"]
    [step] = told["steps"]
    assert step == {
        "escrowId": made["id"],
        "step": "create",
        "fromStatus": "-",
        "toStatus": "pending",
        "events": ["escrow.created"],
        "postings": [],
    }
    assert {one["kind"] for one in told["deadlines"]} == {"expiry", "invitation_reminder"}
    fee = 0 if mode == "instant" else 5
    assert told["fees"] == {"escrowFee": fee, "developerFee": 0}


# 3. Refusals -------------------------------------------------------------------------------------


async def assert_refused_alike(
    house: House, owner: asyncpg.Connection, actor: Actor, command: Command
) -> Refused:
    before = await digests(owner)
    with pytest.raises(Refused) as told:
        await rehearse(house, actor, command, 200)
    assert await digests(owner) == before
    with pytest.raises(Refused) as refused:
        await perform(house, actor, command)
    assert type(told.value) is type(refused.value)
    assert (str(told.value), told.value.facts) == (str(refused.value), refused.value.facts)
    return told.value


@pytest.mark.parametrize("state", ["pending", "paid", "delivered", "completed", "cancelled"])
async def test_a_rehearsal_is_refused_as_the_command_is(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer, state: str
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=state)
    legal = {one.name for one in by_makers() if (one.mode, one.state) == ("quick", state)}
    asked = {"accept_cancellation", "reject_cancellation"}
    disputed = {"sellers_withdrawal", "buyers_withdrawal", "to_seller", "to_buyer"}
    disputed |= {"sellers_answer", "buyers_answer"}
    for name in sorted((set(STEPS) - legal) | asked | disputed):
        who, command = STEPS[name]
        await assert_refused_alike(house, owner, actor_of(who, shop, buyer), command(escrow.id))


async def test_the_refusals_of_money_and_of_rates_are_the_same(
    house: House, owner: asyncpg.Connection, shop: Shop
):
    poor = await make_buyer(house, funds="99.999")
    escrow = await make_escrow(house, shop, poor)
    refusal = await assert_refused_alike(house, owner, poor.actor, escrows.pay(escrow.id))
    assert isinstance(refusal, InsufficientFunds)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(3), "test"))
    escrow = await make_escrow(house, shop, currency="USD")
    await owner.execute("UPDATE fx_rate SET fetched_at = now() - interval '49 hours'")
    changes = amendments.update(escrow.id, amendments.Changes(amount=Decimal(5)))
    refusal = await assert_refused_alike(house, owner, shop.actor, changes)
    assert isinstance(refusal, FxRateUnavailable)
    unknown = cancellations.accept("0" * 24)
    refusal = await assert_refused_alike(house, owner, shop.actor, unknown)
    assert isinstance(refusal, EscrowNotFound)


async def test_a_frozen_escrow_rehearses_nothing(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    refusal = await assert_refused_alike(house, owner, buyer.actor, escrows.pay(escrow.id))
    assert isinstance(refusal, EscrowFrozen)


# 4. The clock first ------------------------------------------------------------------------------


async def test_what_is_due_comes_first_and_is_rolled_back_as_well(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    await jump(house, 30 * DAY)
    before = await digests(owner)
    told = await rehearsed(house, shop.actor, escrows.deliver(escrow.id))
    assert await digests(owner) == before
    assert [(one["step"], one["events"]) for one in told["steps"]] == [
        ("note_overdue", ["escrow.delivery.overdue"]),
        ("deliver", [SU]),
    ]
    assert told["answer"]["escrow"]["status"] == "delivered"


async def test_every_due_step_comes_first(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=("request_cancellation",)
    )
    await jump(house, 5 * DAY + timedelta(hours=1))
    before = await digests(owner)
    told = await rehearsed(house, buyer.actor, escrows.complete(escrow.id))
    assert await digests(owner) == before
    assert [one["step"] for one in told["steps"]] == ["reject_cancellation", "complete"]
    assert told["steps"][0]["events"] == ["escrow.cancellation.rejected"]


async def test_where_the_clock_has_ended_it_the_refusal_is_told_and_nothing_kept(
    house: House, owner: asyncpg.Connection, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer)
    await jump(house, 40 * DAY)
    before = await digests(owner)
    with pytest.raises(EscrowCancelled):
        await rehearse(house, buyer.actor, escrows.pay(escrow.id), 200)
    assert await digests(owner) == before
    assert (await reread(house, escrow.id)).status == "pending"


async def test_a_rehearsal_rings_no_bell_and_holds_no_lock(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    rung: list[str] = []

    class Noting:
        def ring(self, names) -> None:
            rung.extend(names)

    noting = House(house.pool, house.policy, house.vault, Noting())
    for actor, command in (
        (shop.actor, escrows.cancel(escrow.id)),
        (buyer.actor, contracts.sign(escrow.id, Mark(TYPED, name="Bo"))),
    ):
        await rehearsed(noting, actor, command)
    assert rung == []
    counts = await count_rows(house)
    await bring_on(house, shop, escrow.id, "cancel")
    assert await count_rows(house) != counts
