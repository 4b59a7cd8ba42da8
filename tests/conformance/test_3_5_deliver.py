"""escrows.md 3.5: `POST /escrows/:id/deliver`, a test a sentence."""

from datetime import datetime, timedelta

import pytest

from tests.conformance.shapes import INSTANT, SENTENCE, e1, e2, moved, saying
from tests.conformance.world import ESCROWS, Life, World


def moment(shown: dict, name: str) -> datetime:
    return datetime.fromisoformat(shown[name])


@pytest.mark.parametrize("kind", ["standard", "quick"])
async def test_standard_and_quick_are_delivered_with_a_deadline_7_days_on(world: World, kind):
    life = await world.life(kind, "paid")
    answer = await life.partner.post(f"{life.path}/deliver")
    shown = moved(life, "delivered", deliveredAt=INSTANT, completionDeadline=INSTANT)
    assert answer.differs(200, {"message": SENTENCE, "escrow": shown}) == []
    delivered = moment(answer.escrow, "deliveredAt")
    assert moment(answer.escrow, "completionDeadline") == delivered + timedelta(days=7)
    assert answer.escrow["updatedAt"] == answer.escrow["deliveredAt"]
    read = await life.read()
    assert {name: read[name] for name in answer.escrow} == answer.escrow
    assert await world.wallet(life.seller) == 0


async def test_the_deadlines_length_is_configurable(world: World, another_door):
    life = await world.life("quick", "paid")
    async with another_door(completion_days=3) as session:
        answer = await life.partner.by(session).post(f"{life.path}/deliver")
    delivered = moment(answer.escrow, "deliveredAt")
    assert moment(answer.escrow, "completionDeadline") == delivered + timedelta(days=3)


async def test_instant_is_completed_and_the_funds_are_released_at_once(world: World):
    life = await world.life("instant", "paid")
    answer = await life.partner.post(f"{life.path}/deliver")
    shown = moved(life, "completed", deliveredAt=INSTANT, completedAt=INSTANT)
    assert answer.differs(200, {"message": SENTENCE, "escrow": shown}) == []
    assert answer.escrow["deliveredAt"] == answer.escrow["completedAt"]
    read = await life.read()
    assert {name: read[name] for name in answer.escrow} == answer.escrow
    assert read["completionDeadline"] is None
    assert await world.wallet(life.seller) == 100


@pytest.mark.parametrize("raw", [b"", b"{}", b" {} ", b'{"ignored":1}'])
async def test_no_body_is_needed_and_an_empty_object_is_none(world: World, raw):
    life = await world.life("instant", "paid")
    assert (await life.partner.post(f"{life.path}/deliver", raw=raw)).status == 200


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null", b'"x"', b"0"])
async def test_a_body_that_is_no_object_is_400_and_nothing_is_delivered(world: World, raw):
    life = await world.life("instant", "paid")
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/deliver", raw=raw)
        assert answer.differs(400, e1(400)) == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *[("quick", s) for s in ("pending", "delivered", "completed", "cancelled", "disputed")],
        *[("instant", s) for s in ("pending", "completed", "cancelled", "disputed")],
    ],
)
async def test_not_paid_is_400(world: World, kind, status):
    life = await world.life(kind, status)
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/deliver")
        assert answer.differs(400, e1(400, saying(status, "paid"))) == []


async def test_the_callers_user_must_be_the_seller(world: World):
    creator, buyers = await world.partner(), await world.partner()
    await world.top_up(buyers.user.email, 500)
    seller = await world.person()
    life = await world.life("quick", "paid", partner=creator, seller=seller, buyer=buyers.user)
    async with world.unchanged(life):
        for who in (creator, buyers):
            answer = await who.post(f"{life.path}/deliver")
            assert answer.differs(403, e1(403, saying("seller"))) == []


async def test_the_sellers_own_developer_delivers_what_another_created(world: World):
    creator, sellers = await world.partner(), await world.partner()
    life = await world.life("quick", "paid", partner=creator, seller=sellers.user)
    assert (await sellers.post(f"{life.path}/deliver")).status == 200


async def test_association_is_needed(world: World):
    lone = await world.partner(associated=False)
    life = await world.life("quick", "paid", partner=lone, seller=await world.person())
    async with world.unchanged(life):
        for path in (life.path, f"{ESCROWS}/nonsense"):
            answer = await lone.post(f"{path}/deliver")
            assert answer.differs(403, e1(403, saying("associated"))) == []


async def test_a_stranger_is_403_a_bad_id_400_and_an_unknown_one_404(world: World):
    life, stranger = await world.life("quick", "paid"), await world.partner()
    async with world.unchanged(life):
        assert (await stranger.post(f"{life.path}/deliver")).differs(403, e1(403)) == []
    for odd, status, sentence in (
        ("x", 400, "Invalid escrow ID"),
        ("0" * 24, 404, "Escrow not found"),
    ):
        answer = await stranger.post(f"{ESCROWS}/{odd}/deliver")
        assert answer.differs(status, e2(sentence)) == []


async def test_while_the_proof_gate_is_closed_it_is_409(world: World):
    life = await world.life("quick_proof", "paid")
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/deliver")
        assert answer.differs(409, e1(409, code="PROOF_NOT_ACCEPTED")) == []


async def test_an_unpaid_proof_escrow_is_400_like_any_other(world: World):
    life = await world.life("quick_proof")
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/deliver")
        assert answer.differs(400, e1(400, saying("pending", "paid"))) == []


async def asked(world: World, kind: str) -> Life:
    life = await world.life(kind, "paid")
    await world.act(life, life.buyer, "request_cancellation", reason="Too slow.")
    return life


async def test_an_instant_deliver_while_a_cancellation_request_is_pending_is_409(world: World):
    life = await asked(world, "instant")
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/deliver")
        assert answer.differs(409, e1(409, code="CANCELLATION_PENDING")) == []


@pytest.mark.parametrize("kind", ["standard", "quick"])
async def test_the_others_may_be_delivered_while_one_is_pending_with_a_frozen_deadline(
    world: World, kind
):
    life = await asked(world, kind)
    answer = await life.partner.post(f"{life.path}/deliver")
    shown = moved(life, "delivered", deliveredAt=INSTANT, completionDeadline=None)
    assert answer.differs(200, {"message": SENTENCE, "escrow": shown}) == []
    assert (await life.read())["completionDeadline"] is None
