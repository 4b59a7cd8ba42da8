"""escrows.md 3.6: `POST /escrows/:id/reject-delivery`, a test a sentence."""

from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from tests.conformance.shapes import INSTANT, SENTENCE, detail, e1, e2, invalid, moved, saying
from tests.conformance.world import ESCROWS, NOTHING, Life, Partner, World


class Sale(NamedTuple):
    """An escrow whose buyer's user is a developer's."""

    life: Life
    buyers: Partner

    @property
    def path(self) -> str:
        return f"{self.life.path}/reject-delivery"


@pytest.fixture
def sale(world: World):
    """`await sale(kind, status)`."""

    async def made(kind="quick", status="delivered", **who):
        buyers = await world.partner()
        await world.top_up(buyers.user.email, 1000)
        return Sale(await world.life(kind, status, buyer=buyers.user, **who), buyers)

    return made


def rejection(reason, delivered_at=INSTANT) -> dict:
    return {"rejectedAt": INSTANT, "reason": reason, "previousDeliveredAt": delivered_at}


def returned(life: Life, *rejections) -> dict:
    shown = moved(
        life,
        "paid",
        deliveredAt=None,
        completionDeadline=None,
        deliveryRejections=list(rejections),
    )
    return {"message": SENTENCE, "escrow": shown}


@pytest.mark.parametrize("kind", ["standard", "quick"])
async def test_a_delivered_escrow_goes_back_to_paid_with_exactly_this_body(sale, kind):
    life, buyers = sold = await sale(kind)
    delivered_at = (await life.read())["deliveredAt"]
    answer = await buyers.post(sold.path, {"reason": "Wrong colour."})
    assert answer.differs(200, returned(life, rejection("Wrong colour.", delivered_at))) == []
    read = await life.read()
    assert {name: read[name] for name in answer.escrow} == answer.escrow
    assert answer.escrow["updatedAt"] == answer.escrow["deliveryRejections"][0]["rejectedAt"]


@pytest.mark.parametrize(
    "body",
    [NOTHING, {}, {"reason": None}, {"why": "ignored"}],
    ids=["no body", "empty", "null", "unknown field"],
)
async def test_the_reason_is_optional(sale, body):
    life, buyers = sold = await sale()
    answer = await buyers.post(sold.path, body)
    assert answer.differs(200, returned(life, rejection(None))) == []


async def test_the_reason_is_at_most_2000_characters(world: World, sale):
    life, buyers = sold = await sale()
    async with world.unchanged(life):
        for bad in ("x" * 2001, 5, True, ["x"], {}):
            answer = await buyers.post(sold.path, {"reason": bad})
            assert answer.differs(400, invalid("reason")) == [], bad
    answer = await buyers.post(sold.path, {"reason": "ü" * 2000})
    assert answer.differs(200, returned(life, rejection("ü" * 2000))) == []


async def test_no_money_moves(world: World, sale):
    life, buyers = sold = await sale()
    before = [await world.wallet(person) for person in (life.seller, life.buyer)]
    held = (await buyers.get("/api/v1/balance")).body["balance"]["escrow"]
    assert (await buyers.post(sold.path)).status == 200
    assert [await world.wallet(person) for person in (life.seller, life.buyer)] == before
    assert (await buyers.get("/api/v1/balance")).body["balance"]["escrow"] == held == 100


async def test_it_may_happen_again_after_each_delivery(world: World, sale):
    life, buyers = sold = await sale()
    told = []
    for n in range(3):
        told.append(rejection(f"No {n}.", (await life.read())["deliveredAt"]))
        answer = await buyers.post(sold.path, {"reason": f"No {n}."})
        assert answer.differs(200, returned(life, *told)) == []
        told = answer.escrow["deliveryRejections"]
        await world.advance(hours=1)
        assert (await life.partner.post(f"{life.path}/deliver")).status == 200
    moments = [one["previousDeliveredAt"] for one in told]
    assert moments == sorted(set(moments))
    shown = await life.read()
    due, delivered = (
        datetime.fromisoformat(shown[key]) for key in ("completionDeadline", "deliveredAt")
    )
    assert due == delivered + timedelta(days=7)


async def test_the_deadline_is_disarmed(world: World, sale):
    life, buyers = sold = await sale(estimatedDeliveryDays=100)
    assert (await buyers.post(sold.path)).status == 200
    fired = (await world.advance(days=8))["fired"]
    assert fired == []
    shown = detail(
        life,
        status="paid",
        paidAt=INSTANT,
        estimatedDeliveryDays=100,
        deliveryRejections=[rejection(None)],
    )
    assert (await life.partner.get(life.path)).differs(200, {"escrow": shown}) == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *[("quick", s) for s in ("pending", "paid", "completed", "cancelled")],
        *[("instant", s) for s in ("pending", "paid", "completed", "cancelled")],
    ],
)
async def test_not_delivered_is_400(world: World, sale, kind, status):
    life, buyers = sold = await sale(kind, status)
    async with world.unchanged(life):
        answer = await buyers.post(sold.path, {"reason": "?"})
        assert answer.differs(400, e1(400, saying(status))) == []


async def test_with_a_dispute_open_it_is_400_with_a_message_of_its_own(world: World, sale):
    life, buyers = sold = await sale("quick", "delivered")
    await world.act(life, life.buyer, "dispute", reason="Broken.")
    async with world.unchanged(life):
        answer = await buyers.post(sold.path)
        assert answer.differs(400, e1(400, saying("dispute", "open"))) == []
    _, others = other = await sale("quick", "paid")
    assert "dispute" not in (await others.post(other.path)).body["message"].lower()


async def test_the_callers_user_must_be_the_buyer(world: World, sale):
    creator = await world.partner()
    sellers = await world.partner()
    life, _ = sold = await sale(partner=creator, seller=sellers.user)
    stranger = await world.partner()
    async with world.unchanged(life):
        for who in (creator, sellers):
            answer = await who.post(sold.path)
            assert answer.differs(403, e1(403, saying("buyer"))) == []
        assert (await stranger.post(sold.path)).differs(403, e1(403)) == []


async def test_association_is_needed(world: World):
    lone = await world.partner(associated=False)
    life = await world.life("quick", partner=lone, seller=await world.person())
    answer = await lone.post(f"{life.path}/reject-delivery")
    assert answer.differs(403, e1(403, saying("associated"))) == []


async def test_a_bad_id_is_400_and_an_unknown_one_404(partner: Partner):
    for odd, status, sentence in (
        ("x", 400, "Invalid escrow ID"),
        ("0" * 24, 404, "Escrow not found"),
    ):
        answer = await partner.post(f"{ESCROWS}/{odd}/reject-delivery")
        assert answer.differs(status, e2(sentence)) == []
