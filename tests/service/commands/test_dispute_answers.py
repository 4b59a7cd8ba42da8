"""What is said, shown and offered in a dispute, and what becomes of it."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import orjson
import pytest

from service.commands import disputes
from service.commands.deadlines import sweep
from service.commands.perform import House
from service.rules import dispute as rules
from service.rules.aggregate import Escrow
from service.rules.dispute import Split
from service.rules.errors import (
    DisputeNotFound,
    EscrowFrozen,
    Invalid,
    NoOpenDispute,
    OfferClosed,
    OfferOwn,
    Refused,
    SplitMustEqualHeld,
    TooManyStatements,
    WrongParty,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.store.disputes import read_offers, read_statements
from service.wire.base import dump_json, instant
from tests.books import read_log
from tests.makers import (
    Buyer,
    Shop,
    act,
    advance,
    bring_on,
    jump,
    make_buyer,
    make_escrow,
    make_file,
    make_shop,
    reread,
)
from tests.service.commands.asking import available, bodies, clocks, refused

pytestmark = pytest.mark.usefixtures("sound")
DAY = timedelta(days=1)
OPERATOR = Actor(ActorKind.OPERATOR)
HALVES = Split(50_000, 50_000)


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


async def disputed(house: House, shop: Shop, buyer: Buyer, opener: str = "buyer") -> Escrow:
    """100 TND with a fee of 5, delivered, and disputed by this party."""
    return await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=(f"{opener}s_dispute",)
    )


async def offered(house: House, actor: Actor, escrow: Escrow, split: Split = HALVES) -> str:
    """The id of the offer that this party makes now."""
    await act(house, actor, disputes.answer(escrow.id, offer=split))
    after = await reread(house, escrow.id)
    assert after.dispute is not None
    return (await read_offers(house.pool, after.dispute.id))[-1].id


# Statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", ["seller", "buyer"])
async def test_the_other_partys_first_word_stops_the_clock_that_would_decide(
    house: House, shop: Shop, buyer: Buyer, opener: str
):
    escrow = await disputed(house, shop, buyer, opener)
    mine, theirs = (shop, buyer) if opener == "seller" else (buyer, shop)
    await act(house, mine.actor, disputes.answer(escrow.id, "And one thing more."))
    assert {"dispute_answer", "dispute_reminder"} <= {*await clocks(house, escrow.id)}
    assert (await reread(house, escrow.id)).dispute.answered_at is None
    await act(house, theirs.actor, disputes.answer(escrow.id, "It is not so."))
    after = await reread(house, escrow.id)
    assert after.dispute.answered_at == after.updated_at
    assert {*await clocks(house, escrow.id)} == {"completion"}
    await advance(house, after.updated_at + 30 * DAY)
    assert (await reread(house, escrow.id)).status == "disputed"
    assert (await read_log(house, escrow.id))[-1][:2] == ("answer_dispute", None)


@pytest.mark.parametrize("what", ["text", "file", "offer"])
async def test_a_word_a_file_or_an_offer_is_an_answer(
    house: House, shop: Shop, buyer: Buyer, what: str
):
    escrow = await disputed(house, shop, buyer)
    given = {
        "text": disputes.answer(escrow.id, "No."),
        "file": disputes.answer(escrow.id, files=[make_file()]),
        "offer": disputes.answer(escrow.id, offer=HALVES),
    }[what]
    await act(house, shop.actor, given)
    assert (await reread(house, escrow.id)).dispute.answered_at is not None
    await refused(house, Invalid, shop.actor, disputes.answer(escrow.id), escrow.id)


async def test_both_parties_add_to_it_until_it_is_over_and_all_of_it_is_kept(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, status="paid")
    first, second, third = (make_file(f"{n}.pdf") for n in range(3))
    await act(house, buyer.actor, disputes.open_dispute(escrow.id, "It is broken.", [first]))
    await act(house, shop.actor, disputes.answer(escrow.id, "It was whole.", [second, third]))
    await act(house, buyer.actor, disputes.answer(escrow.id, "It was not."))
    dispute = (await reread(house, escrow.id)).dispute
    said = await read_statements(house.pool, dispute.id)
    assert [(one.role, one.text, one.files) for one in said] == [
        ("buyer", None, (first,)),
        ("seller", "It was whole.", (second, third)),
        ("buyer", "It was not.", ()),
    ]
    await act(house, OPERATOR, disputes.resolve(escrow.id, "buyer"))
    for actor in (shop.actor, buyer.actor):
        late = disputes.answer(escrow.id, "Wait!")
        await refused(house, NoOpenDispute, actor, late, escrow.id)


async def test_nobody_else_speaks_in_it(house: House, shop: Shop, buyer: Buyer):
    escrow = await disputed(house, shop, buyer)
    offer = await offered(house, buyer.actor, escrow)
    stranger = await make_buyer(house)
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    for actor in (stranger.actor, creator, OPERATOR, SYSTEM):
        for command in (
            disputes.answer(escrow.id, "?"),
            disputes.accept_offer(escrow.id, offer),
        ):
            await refused(house, WrongParty, actor, command, escrow.id)


async def test_there_is_a_limit_to_what_a_party_adds(
    house: House, shop: Shop, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(disputes, "ADDITIONS_MAX", 3)
    escrow = await disputed(house, shop, buyer)
    await act(house, shop.actor, disputes.answer(escrow.id, "One.", offer=HALVES))
    await act(house, shop.actor, disputes.answer(escrow.id, "Two."))
    fourth = disputes.answer(escrow.id, "Three.")
    refusal = await refused(house, TooManyStatements, shop.actor, fourth, escrow.id)
    assert refusal.code == "TOO_MANY_STATEMENTS"
    await act(house, buyer.actor, disputes.answer(escrow.id, "I may still."))


# Offers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["seller", "buyer"])
@pytest.mark.parametrize(
    ("split", "net", "status"),
    [
        (Split(100_000, 0), 95_000, "completed"),
        (Split(40_000, 60_000), 38_000, "completed"),
        (Split(1, 99_999), 1, "completed"),
        (Split(0, 100_000), 0, "cancelled"),
    ],
)
async def test_an_accepted_offer_is_the_settlement(
    house: House, shop: Shop, buyer: Buyer, by: str, split: Split, net: int, status: str
):
    escrow = await disputed(house, shop, buyer)
    mine, theirs = (shop, buyer) if by == "seller" else (buyer, shop)
    offer = await offered(house, mine.actor, escrow, split)
    answer = await act(house, theirs.actor, disputes.accept_offer(escrow.id, offer))
    after = await reread(house, escrow.id)
    assert (after.status, after.held_minor) == (status, 0)
    assert after.cancel_reason == ("dispute" if status == "cancelled" else None)
    assert await available(house, shop.user_id) == net
    assert await available(house, buyer.user_id) == 900_000 + split.buyer_minor
    settlement = answer["escrow"]["settlement"]
    assert (settlement["resolvedBy"], settlement["sellerNet"]) == ("offer", net / 1000)
    assert settlement["sellerAmount"] + settlement["buyerAmount"] == 100
    outcome = {0: "seller", 100_000: "buyer"}.get(split.buyer_minor, "split")
    resolved = (await bodies(house, escrow.id))[-1]
    assert resolved["type"] == "escrow.dispute.resolved"
    told = resolved["data"]["dispute"]
    assert (told["outcome"], told["settlement"]) == (outcome, settlement)
    [kept] = await read_offers(house.pool, after.dispute.id)
    assert kept.outcome == rules.ACCEPTED
    assert await clocks(house, escrow.id) == {}


@pytest.mark.parametrize(
    "split", [Split(50_000, 49_999), Split(50_000, 50_001), Split(0, 0), Split(-1, 100_001),
              Split(100, 0)],
)  # fmt: skip
async def test_an_offer_shares_exactly_what_is_held(
    house: House, shop: Shop, buyer: Buyer, split: Split
):
    escrow = await disputed(house, shop, buyer)
    for actor in (shop.actor, buyer.actor):
        offering = disputes.answer(escrow.id, "Take it.", [make_file()], split)
        refusal = await refused(house, SplitMustEqualHeld, actor, offering, escrow.id)
        assert refusal.code == "SPLIT_MUST_EQUAL_HELD"


async def test_an_offer_in_another_currency_is_what_is_held_in_dinars(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="disputed", amount=Decimal(100)
    )
    face_value = disputes.answer(escrow.id, offer=Split(100, 0))
    await refused(house, SplitMustEqualHeld, buyer.actor, face_value, escrow.id)


async def test_nobody_accepts_their_own_offer(house: House, shop: Shop, buyer: Buyer):
    escrow = await disputed(house, shop, buyer)
    for actor in (shop.actor, buyer.actor):
        offer = await offered(house, actor, escrow)
        accepting = disputes.accept_offer(escrow.id, offer)
        refusal = await refused(house, OfferOwn, actor, accepting, escrow.id)
        assert refusal.code == "OFFER_OWN"


async def test_a_newer_offer_takes_the_place_of_ones_own_only(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await disputed(house, shop, buyer)
    first = await offered(house, shop.actor, escrow, Split(90_000, 10_000))
    theirs = await offered(house, buyer.actor, escrow, Split(10_000, 90_000))
    second = await offered(house, shop.actor, escrow, Split(60_000, 40_000))
    replaced = disputes.accept_offer(escrow.id, first)
    refusal = await refused(house, OfferClosed, buyer.actor, replaced, escrow.id)
    assert refusal.code == "OFFER_CLOSED"
    dispute = (await reread(house, escrow.id)).dispute
    found = {one.id: one.outcome for one in await read_offers(house.pool, dispute.id)}
    assert found == {first: rules.REPLACED, theirs: None, second: None}
    await act(house, buyer.actor, disputes.accept_offer(escrow.id, second))
    assert (await reread(house, escrow.id)).dispute.settlement.seller_minor == 60_000


async def test_an_offer_of_a_dispute_that_is_over_is_closed(house: House, shop: Shop, buyer: Buyer):
    escrow = await disputed(house, shop, buyer)
    offer = await offered(house, shop.actor, escrow)
    accepting = disputes.accept_offer(escrow.id, offer)
    await act(house, buyer.actor, disputes.withdraw(escrow.id))
    await refused(house, NoOpenDispute, buyer.actor, accepting, escrow.id)
    await bring_on(house, shop, escrow.id, "buyers_dispute")
    await refused(house, OfferClosed, buyer.actor, accepting, escrow.id)
    other = await disputed(house, shop, await make_buyer(house))
    foreign = await offered(house, shop.actor, other)
    for unknown in (foreign, "0" * 24, "no offer at all"):
        wrong = disputes.accept_offer(escrow.id, unknown)
        await refused(house, OfferClosed, buyer.actor, wrong, escrow.id)


async def test_nothing_is_said_or_settled_while_the_escrow_is_frozen(
    house: House, shop: Shop, buyer: Buyer, owner
):
    escrow = await disputed(house, shop, buyer)
    offer = await offered(house, shop.actor, escrow)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    for command in (disputes.answer(escrow.id, "?"), disputes.accept_offer(escrow.id, offer)):
        await refused(house, EscrowFrozen, buyer.actor, command, escrow.id)


@pytest.mark.parametrize("to", ["seller", "buyer"])
async def test_the_operator_may_still_decide_an_answered_dispute_with_offers(
    house: House, shop: Shop, buyer: Buyer, to: str
):
    escrow = await disputed(house, shop, buyer)
    offer = await offered(house, shop.actor, escrow)
    await act(house, OPERATOR, disputes.resolve(escrow.id, to))
    after = await reread(house, escrow.id)
    assert (after.dispute.outcome, after.dispute.settlement.resolved_by) == (to, "operator")
    [lapsed] = await read_offers(house.pool, after.dispute.id)
    assert (lapsed.id, lapsed.outcome) == (offer, rules.LAPSED)


# Time and mail -----------------------------------------------------------------------------------


async def told_by(house: House, escrow: Escrow, template: str) -> list[str]:
    rows = await house.pool.fetch(
        "SELECT recipient FROM mail WHERE escrow_id = $1 AND template = $2 ORDER BY id",
        escrow.id,
        template,
    )
    return [row["recipient"] for row in rows]


@pytest.mark.parametrize("opener", ["seller", "buyer"])
async def test_the_other_party_is_told_and_then_reminded_a_day_before_the_clock_decides(
    house: House, shop: Shop, buyer: Buyer, opener: str
):
    escrow = await disputed(house, shop, buyer, opener)
    other = buyer.email if opener == "seller" else shop.email
    assert await told_by(house, escrow, "dispute_opened") == [other]
    opened_at = escrow.dispute.opened_at
    facts = await house.pool.fetchval(
        "SELECT facts FROM mail WHERE escrow_id = $1 AND template = 'dispute_opened'", escrow.id
    )
    assert orjson.loads(facts)["times"]["answer_due_at"] == instant(opened_at + 5 * DAY)
    [fired] = await advance(house, opened_at + 4 * DAY)
    assert (fired.kind, fired.due_at) == ("dispute_reminder", opened_at + 4 * DAY)
    assert await told_by(house, escrow, "dispute_reminder") == [other]
    await advance(house, opened_at + 5 * DAY)
    after = await reread(house, escrow.id)
    assert (after.dispute.outcome, after.dispute.settlement.resolved_by) == (opener, "clock")
    assert await told_by(house, escrow, "dispute_reminder") == [other]


async def test_who_has_answered_is_not_reminded_and_the_other_is_told(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await disputed(house, shop, buyer)
    await act(house, shop.actor, disputes.answer(escrow.id, "No."))
    assert await told_by(house, escrow, "dispute_answered") == [buyer.email]
    await act(house, buyer.actor, disputes.answer(escrow.id, "Yes."))
    assert await told_by(house, escrow, "dispute_answered") == [buyer.email, shop.email]
    await advance(house, escrow.dispute.opened_at + 10 * DAY)
    assert await told_by(house, escrow, "dispute_reminder") == []


# The case ----------------------------------------------------------------------------------------


async def test_the_case_shows_everything_with_addresses_of_the_files(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await disputed(house, shop, buyer)
    file = make_file()
    await act(house, shop.actor, disputes.answer(escrow.id, "Here.", [file], HALVES))
    after = await reread(house, escrow.id)
    case = orjson.loads(dump_json(await disputes.read_case(house, after)))["dispute"]
    [statement], [offer] = case["statements"], case["offers"]
    [attachment] = statement["attachments"]
    assert attachment["viewUrl"].startswith(f"{house.policy.public_url}/files/{file.key}?")
    assert (statement["by"], statement["text"]) == ("seller", "Here.")
    assert (offer["by"], offer["sellerAmount"], offer["buyerAmount"]) == ("seller", 50, 50)
    assert (offer["status"], offer["currency"]) == ("open", "TND")
    assert (case["opener"], case["answerBy"]) == ("buyer", None)
    assert case["answeredAt"] == instant(after.dispute.answered_at)
    plain = await make_escrow(house, shop, buyer)
    with pytest.raises(DisputeNotFound):
        await disputes.read_case(house, plain)


# Races -------------------------------------------------------------------------------------------


async def test_an_acceptance_and_the_operator_at_once_settle_it_once(
    house: House, shop: Shop, buyer: Buyer
):
    winners = set()
    for n in range(6):
        escrow = await disputed(house, shop, buyer)
        offer = await offered(house, shop.actor, escrow)
        two = [
            act(house, buyer.actor, disputes.accept_offer(escrow.id, offer)),
            act(house, OPERATOR, disputes.resolve(escrow.id, "buyer")),
        ]
        got = await asyncio.gather(*(two if n % 2 else two[::-1]), return_exceptions=True)
        lost = [one for one in got if isinstance(one, BaseException)]
        assert [type(one) for one in lost] == [NoOpenDispute]
        after = await reread(house, escrow.id)
        by = after.dispute.settlement.resolved_by
        assert after.refunded_minor == (50_000 if by == "offer" else 100_000)
        winners.add(by)
    assert winners <= {"offer", "operator"}


async def test_two_offers_of_one_party_at_once_leave_one_open(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await disputed(house, shop, buyer)
    splits = [Split(n * 1_000, 100_000 - n * 1_000) for n in range(8)]
    await asyncio.gather(
        *(act(house, shop.actor, disputes.answer(escrow.id, offer=one)) for one in splits)
    )
    made = await read_offers(house.pool, escrow.dispute.id)
    assert len(made) == 8
    assert [one.outcome for one in made].count(None) == 1


async def test_both_accepting_the_others_offer_at_once_settles_one_of_them(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await disputed(house, shop, buyer)
    sellers = await offered(house, shop.actor, escrow, Split(70_000, 30_000))
    buyers = await offered(house, buyer.actor, escrow, Split(20_000, 80_000))
    got = await asyncio.gather(
        act(house, buyer.actor, disputes.accept_offer(escrow.id, sellers)),
        act(house, shop.actor, disputes.accept_offer(escrow.id, buyers)),
        return_exceptions=True,
    )
    assert [isinstance(one, NoOpenDispute) for one in got].count(True) == 1
    after = await reread(house, escrow.id)
    assert after.refunded_minor in (30_000, 80_000)


async def test_a_newer_offer_and_the_acceptance_of_the_older_one_at_once(
    house: House, shop: Shop, buyer: Buyer
):
    for _ in range(4):
        escrow = await disputed(house, shop, buyer)
        older = await offered(house, shop.actor, escrow, Split(70_000, 30_000))
        newer = disputes.answer(escrow.id, offer=Split(90_000, 10_000))
        accepting, offering = await asyncio.gather(
            act(house, buyer.actor, disputes.accept_offer(escrow.id, older)),
            act(house, shop.actor, newer),
            return_exceptions=True,
        )
        after = await reread(house, escrow.id)
        if after.status == "disputed":
            assert isinstance(accepting, OfferClosed)
        else:
            assert isinstance(offering, NoOpenDispute)
            assert after.refunded_minor == 30_000


async def test_a_dispute_and_the_completion_deadline_at_once_have_one_winner(
    house: House, shop: Shop, buyer: Buyer
):
    for _ in range(4):
        escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
        await jump(house, 8 * DAY)
        _, got = await asyncio.gather(
            sweep(house),
            act(house, buyer.actor, disputes.open_dispute(escrow.id, "Late.")),
            return_exceptions=True,
        )
        assert isinstance(got, Refused), "the deadline was due before anybody came"
        assert (await reread(house, escrow.id)).status == "completed"


async def test_an_answer_and_the_answers_deadline_at_once_have_one_winner(
    house: House, shop: Shop, buyer: Buyer
):
    for _ in range(4):
        escrow = await disputed(house, shop, buyer)
        await jump(house, 6 * DAY)
        _, got = await asyncio.gather(
            sweep(house), act(house, shop.actor, disputes.answer(escrow.id, "Here I am.")),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(got, NoOpenDispute)
        assert (await reread(house, escrow.id)).refunded_minor == 100_000
