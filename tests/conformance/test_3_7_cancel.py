"""escrows.md 3.7: `POST /escrows/:id/cancel`, a test a sentence."""

import pytest

from tests.conformance.shapes import INSTANT, SENTENCE, detail, e1, e2, moved, saying
from tests.conformance.world import ESCROWS, KINDS, Life, Partner, World
from tests.outbox import send_all


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pending_escrow_is_cancelled_with_exactly_this_body(world: World, kind):
    life = await world.life(kind)
    answer = await life.partner.post(f"{life.path}/cancel")
    shown = moved(life, "cancelled", cancelledAt=INSTANT)
    assert answer.differs(200, {"message": SENTENCE, "escrow": shown}) == []
    assert answer.escrow["cancelledAt"] == answer.escrow["updatedAt"]
    read = await life.read()
    assert {name: read[name] for name in answer.escrow} == answer.escrow


@pytest.fixture
async def sold(world: World) -> tuple[Life, dict[str, Partner]]:
    """An escrow whose creator, seller and buyer are three developers."""
    creator = await world.partner(associated=False)
    sellers, buyers = await world.partner(), await world.partner()
    life = await world.life("quick", partner=creator, seller=sellers.user, buyer=buyers.user)
    return life, {"seller": sellers, "buyer": buyers, "creator": creator}


@pytest.mark.parametrize("who", ["seller", "buyer", "creator"])
async def test_the_sellers_or_the_buyers_developer_or_the_creator_may_cancel(sold, who):
    life, partners = sold
    assert (await partners[who].post(f"{life.path}/cancel")).status == 200
    read = await life.partner.get(life.path)
    shown = detail(life, status="cancelled", cancelledAt=INSTANT, cancelReason=who)
    assert read.differs(200, {"escrow": shown}) == []


async def test_a_stranger_is_403(world: World, sold):
    life, _ = sold
    strangers = await world.partner(), await world.partner(associated=False)
    async with world.unchanged(life):
        for who in strangers:
            assert (await who.post(f"{life.path}/cancel")).differs(403, e1(403)) == []


async def mailed(world: World, life: Life) -> list[str]:
    """Who was told of the cancellation by mail."""
    await send_all(world.house)
    mails = (await world.root.get("/api/v1/sandbox/mailbox")).body["mails"]
    return sorted(mail["to"] for mail in mails if "cancel" in mail["subject"].lower())


async def test_the_other_party_gets_a_mail(world: World, sold):
    life, partners = sold
    assert (await partners["seller"].post(f"{life.path}/cancel")).status == 200
    assert await mailed(world, life) == [life.buyer.email]


async def test_the_seller_gets_a_mail_when_the_buyer_cancels(world: World, sold):
    life, partners = sold
    assert (await partners["buyer"].post(f"{life.path}/cancel")).status == 200
    assert await mailed(world, life) == [life.seller.email]


async def test_both_get_a_mail_when_the_creator_cancels(world: World, sold):
    life, partners = sold
    assert (await partners["creator"].post(f"{life.path}/cancel")).status == 200
    assert await mailed(world, life) == sorted([life.seller.email, life.buyer.email])


@pytest.mark.parametrize("status", ["paid", "delivered", "completed", "cancelled", "disputed"])
async def test_not_pending_is_400_and_the_message_points_to_the_other_ways(world: World, status):
    life = await world.life("quick", status)
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/cancel")
        pointing = saying(status, "pending", "request_cancellation", "cancel_escrow")
        assert answer.differs(400, e1(400, pointing)) == []


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"reason":"ignored"}'])
async def test_no_body_is_needed(world: World, raw):
    life = await world.life()
    assert (await life.partner.post(f"{life.path}/cancel", raw=raw)).status == 200


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null"])
async def test_a_body_that_is_no_object_is_400(world: World, raw):
    life = await world.life()
    async with world.unchanged(life):
        answer = await life.partner.post(f"{life.path}/cancel", raw=raw)
        assert answer.differs(400, e1(400)) == []


async def test_a_bad_id_is_400_and_an_unknown_one_404(partner: Partner):
    for odd, status, sentence in (
        ("x", 400, "Invalid escrow ID"),
        ("0" * 24, 404, "Escrow not found"),
    ):
        answer = await partner.post(f"{ESCROWS}/{odd}/cancel")
        assert answer.differs(status, e2(sentence)) == []


async def test_a_cancelled_escrow_does_not_expire(world: World):
    life = await world.life(status="cancelled")
    assert (await world.advance(days=40))["fired"] == []
    assert (await life.read())["cancelReason"] == "seller"
