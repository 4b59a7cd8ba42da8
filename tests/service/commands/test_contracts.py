"""Contracts: who signs when, what is kept of it and told, and the seller who signs at creation."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from service.commands import contracts, developers, escrows
from service.commands.contracts import DRAWN, TYPED, Mark, read_contract
from service.commands.perform import House, perform_grouped, rehearse
from service.rules.aggregate import Escrow
from service.rules.errors import (
    ContractAlreadySigned,
    ContractNotFound,
    ContractNotSigned,
    EscrowCancelled,
    EscrowFrozen,
    Invalid,
    PaymentAlreadyDone,
    Refused,
    TermsChanged,
    WrongParty,
    WrongStatus,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.wire.base import dump_json, instant
from tests.books import count_rows, read_log
from tests.makers import (
    Buyer,
    Shop,
    act,
    arrange,
    bring_on,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
    reread,
)
from tests.service.commands.asking import bodies, refused

pytestmark = pytest.mark.usefixtures("sound")
IMAGE = "data:image/png;base64,iVBORw0KGgo="
NAME = Mark(TYPED, name="Bo Y")


@pytest.fixture
async def shop(house: House) -> Shop:
    made = await make_shop(house)
    await arrange(house, lambda tx: developers.keep_signature(tx, made.developer_id, IMAGE))
    return made


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


async def shown(house: House, escrow: Escrow) -> dict[str, Any]:
    """The contract as its route answers it."""
    told = await read_contract(house, await reread(house, escrow.id))
    contract: dict[str, Any] = orjson.loads(dump_json(told))["contract"]
    return contract


# 1. Signing --------------------------------------------------------------------------------------


async def test_each_party_signs_once_and_one_event_tells_of_each(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    assert escrow.contract is not None
    answer = await act(house, buyer.actor, contracts.sign(escrow.id, NAME))
    after = await reread(house, escrow.id)
    first = instant(after.updated_at)
    assert answer["escrow"]["signatures"] == {
        "sellerSigned": False,
        "buyerSigned": True,
        "buyerSignedAt": first,
        "isFullySigned": False,
    }
    told = (await bodies(house, escrow.id))[-1]
    assert told["type"] == "contract.signed"
    assert told["data"]["contract"] == {
        "id": escrow.contract.id,
        "escrowId": escrow.id,
        "signedBy": "buyer",
        "sellerSignature": None,
        "buyerSignature": {"signedAt": first},
        "isFullySigned": False,
        "signedAt": first,
    }
    assert told["data"]["escrow"]["status"] == "pending"
    answer = await act(house, shop.actor, contracts.sign(escrow.id, NAME))
    second = instant((await reread(house, escrow.id)).updated_at)
    assert answer["escrow"]["signatures"] == {
        "sellerSigned": True,
        "sellerSignedAt": second,
        "buyerSigned": True,
        "buyerSignedAt": first,
        "isFullySigned": True,
        "signedAt": second,
    }
    assert (await bodies(house, escrow.id))[-1]["data"]["contract"] == {
        "id": escrow.contract.id,
        "escrowId": escrow.id,
        "signedBy": "seller",
        "sellerSignature": {"signedAt": second},
        "buyerSignature": {"signedAt": first},
        "isFullySigned": True,
        "signedAt": second,
    }
    assert await read_log(house, escrow.id) == [
        ("create", "escrow.created", "developer"),
        ("sign_contract", "contract.signed", "user"),
        ("sign_contract", "contract.signed", "developer"),
    ]
    for actor in (shop.actor, buyer.actor):
        again = contracts.sign(escrow.id, NAME)
        refusal = await refused(house, ContractAlreadySigned, actor, again, escrow.id)
        assert refusal.code == "CONTRACT_ALREADY_SIGNED"


async def test_what_is_kept_of_a_signature(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    actor = replace(buyer.actor, ip="203.0.113.9")
    await act(house, actor, contracts.sign(escrow.id, Mark(DRAWN, image=IMAGE)))
    row = await house.pool.fetchrow(
        "SELECT version, role, user_id, email, method, sealed, name, host(ip::inet) AS ip"
        " FROM contract_signature JOIN signature_image i ON i.id = image_id"
    )
    sealed = row["sealed"]
    assert tuple(row) == (
        1, "buyer", buyer.user_id, buyer.email, "drawn", sealed, None, "203.0.113.9",
    )  # fmt: skip
    assert house.vault.open(sealed.encode()) == IMAGE
    contract = await shown(house, escrow)
    assert contract["buyerSignature"]["signatureImage"] == IMAGE


async def test_only_the_version_that_was_read_is_signed(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    late = contracts.sign(escrow.id, NAME, version=2)
    refusal = await refused(house, TermsChanged, buyer.actor, late, escrow.id)
    assert refusal.facts == {"version": 1}
    await act(house, buyer.actor, contracts.sign(escrow.id, NAME, version=1))


async def test_the_contract_is_read_with_the_signatures_of_its_newest_version(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="standard", then=("buyers_signature",), language="ar"
    )
    assert escrow.contract is not None
    signed = {
        "signedAt": instant(escrow.updated_at), "signatureImage": None, "signedName": "Bo Y",
    }  # fmt: skip
    whole = {
        "id": escrow.contract.id,
        "escrow": escrow.id,
        "terms": "As described.",
        "language": "ar",
        "version": 1,
        "pdfUrl": None,
        "sellerSignature": None,
        "buyerSignature": signed,
        "isFullySigned": False,
        "pdfVersions": [],
        "createdAt": instant(escrow.created_at),
        "updatedAt": instant(escrow.created_at),
    }
    assert await shown(house, escrow) == whole


@pytest.mark.parametrize("mode", ["quick", "quick_proof", "instant"])
async def test_only_a_standard_escrow_has_a_contract(
    house: House, shop: Shop, buyer: Buyer, mode: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode)
    with pytest.raises(ContractNotFound):
        await read_contract(house, escrow)
    for actor in (shop.actor, buyer.actor):
        signing = contracts.sign(escrow.id, NAME)
        with pytest.raises(Refused) as refusal:
            await act(house, actor, signing)
        assert type(refusal.value) in (WrongStatus, WrongParty)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("paid", PaymentAlreadyDone),
        ("delivered", PaymentAlreadyDone),
        ("completed", PaymentAlreadyDone),
        ("disputed", PaymentAlreadyDone),
        ("cancelled", EscrowCancelled),
    ],
)
async def test_a_contract_is_signed_before_the_payment_or_never(
    house: House, shop: Shop, buyer: Buyer, status, kind
):
    escrow = await make_escrow(house, shop, buyer, mode="standard", status=status)
    for actor in (shop.actor, buyer.actor):
        await refused(house, kind, actor, contracts.sign(escrow.id, NAME), escrow.id)


async def test_only_the_parties_sign(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    stranger = await make_shop(house)
    for actor in (creator, stranger.actor, SYSTEM):
        await refused(house, WrongParty, actor, contracts.sign(escrow.id, NAME), escrow.id)


@pytest.mark.parametrize("steps", [(), ("sellers_signature",), ("buyers_signature",)])
async def test_both_signatures_come_before_the_payment(
    house: House, shop: Shop, buyer: Buyer, steps
):
    escrow = await make_escrow(house, shop, buyer, mode="standard", then=steps)
    paying = escrows.pay(escrow.id)
    await refused(house, ContractNotSigned, buyer.actor, paying, escrow.id)


async def test_an_expired_offer_is_not_signed(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    await jump(house, timedelta(days=40))
    with pytest.raises(EscrowCancelled):
        await act(house, buyer.actor, contracts.sign(escrow.id, NAME))
    assert await house.pool.fetchval("SELECT count(*) FROM contract_signature") == 0


async def test_a_frozen_escrow_is_not_signed(
    house: House, shop: Shop, buyer: Buyer, owner: asyncpg.Connection
):
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    await refused(house, EscrowFrozen, buyer.actor, contracts.sign(escrow.id, NAME), escrow.id)


async def test_both_sign_at_once_and_both_signatures_stay(house: House, shop: Shop, buyer: Buyer):
    for _ in range(8):
        escrow = await make_escrow(house, shop, buyer, mode="standard")
        await asyncio.gather(
            act(house, buyer.actor, contracts.sign(escrow.id, NAME)),
            act(house, shop.actor, contracts.sign(escrow.id, NAME)),
        )
        after = (await reread(house, escrow.id)).contract
        assert after is not None
        assert after.is_fully_signed


async def test_one_signature_twice_at_once_is_given_once(house: House, shop: Shop, buyer: Buyer):
    for _ in range(5):
        escrow = await make_escrow(house, shop, buyer, mode="standard")
        ended = await asyncio.gather(
            *(act(house, buyer.actor, contracts.sign(escrow.id, NAME)) for _ in range(4)),
            return_exceptions=True,
        )
        refusals = [one for one in ended if isinstance(one, BaseException)]
        assert [type(one) for one in refusals] == [ContractAlreadySigned] * 3
        assert (await reread(house, escrow.id)).seq == 2


# 2. Signed at creation ---------------------------------------------------------------------------


async def assert_signed_at_creation(house: House, shop: Shop, made: dict[str, Any]) -> None:
    escrow = await reread(house, made["escrow"]["id"])
    assert escrow.contract is not None
    assert made["contract"] == {
        "id": escrow.contract.id,
        "pdfUrl": None,
        "sellerSigned": True,
        "buyerSigned": False,
        "isFullySigned": False,
    }
    assert (escrow.status, escrow.seq) == ("pending", 2)
    assert escrow.contract.seller_signed_at == escrow.created_at
    rows = await house.pool.fetch(
        "SELECT seq, step, type, actor_kind, actor_id FROM event WHERE subject_id = $1"
        " ORDER BY seq",
        escrow.id,
    )
    assert [tuple(row) for row in rows] == [
        (1, "create", "escrow.created", "developer", shop.developer_id),
        (2, "sign_contract", "contract.signed", "developer", shop.developer_id),
    ]
    created, signed = await bodies(house, escrow.id)
    assert created["data"]["escrow"]["id"] == escrow.id
    assert signed["data"]["contract"] == {
        "id": escrow.contract.id,
        "escrowId": escrow.id,
        "signedBy": "seller",
        "sellerSignature": {"signedAt": instant(escrow.created_at)},
        "buyerSignature": None,
        "isFullySigned": False,
        "signedAt": instant(escrow.created_at),
    }
    contract = await shown(house, escrow)
    assert contract["sellerSignature"]["signatureImage"] == IMAGE


async def test_a_seller_with_a_stored_signature_signs_at_creation(
    house: House, shop: Shop, buyer: Buyer
):
    terms = make_terms(shop, buyer.email, "standard", auto_sign=True)
    made = await act(house, shop.actor, escrows.create(shop.developer_id, terms))
    await assert_signed_at_creation(house, shop, made)
    signing = contracts.sign(made["escrow"]["id"], NAME)
    await refused(house, ContractAlreadySigned, shop.actor, signing, made["escrow"]["id"])
    paid = await bring_on(house, shop, made["escrow"]["id"], "buyers_signature", "pay")
    assert paid.status == "paid"


async def test_a_stored_signature_is_kept_once_however_many_contracts_it_signs(
    house: House, shop: Shop, buyer: Buyer
):
    for _ in range(3):
        terms = make_terms(shop, buyer.email, "standard", auto_sign=True)
        await act(house, shop.actor, escrows.create(shop.developer_id, terms))
    kept = "SELECT count(*), count(DISTINCT image_id) FROM contract_signature WHERE role = 'seller'"
    assert tuple(await house.pool.fetchrow(kept)) == (3, 1)
    images = "SELECT count(*) FROM signature_image"
    assert await house.pool.fetchval(images) == 1


async def test_gathered_creations_are_signed_each_for_itself(
    house: House, shop: Shop, buyer: Buyer
):
    other = await make_shop(house)
    await arrange(house, lambda tx: developers.keep_signature(tx, other.developer_id, IMAGE))
    orders = [
        escrows.Order(
            who.actor,
            who.developer_id,
            make_terms(who, buyer.email, "standard", auto_sign=bool(n % 2)),
        )
        for n, who in enumerate((shop, other, other, shop) * 4)
    ]
    answers = await asyncio.gather(
        *(perform_grouped(house, escrows.create_all, order, status=201) for order in orders)
    )
    for order, answer in zip(orders, answers, strict=True):
        made = orjson.loads(answer.body)
        if order.terms.auto_sign:
            who = shop if order.developer_id == shop.developer_id else other
            await assert_signed_at_creation(house, who, made)
        else:
            assert made["contract"]["sellerSigned"] is False
            assert [step for step, *_ in await read_log(house, made["escrow"]["id"])] == ["create"]


async def test_without_a_stored_signature_nothing_is_made(house: House, buyer: Buyer):
    bare = await make_shop(house)
    terms = make_terms(bare, buyer.email, "standard", auto_sign=True)
    before = await count_rows(house)
    with pytest.raises(Invalid) as refusal:
        await act(house, bare.actor, escrows.create(bare.developer_id, terms))
    assert set(refusal.value.details) == {"autoSign"}
    assert await count_rows(house) == before


async def test_a_signed_creation_is_rehearsed_with_both_steps(
    house: House, shop: Shop, buyer: Buyer
):
    terms = make_terms(shop, buyer.email, "standard", auto_sign=True)
    before = await count_rows(house)
    answer = await rehearse(house, shop.actor, escrows.create(shop.developer_id, terms), 201)
    told = orjson.loads(answer.body)
    assert [(one["step"], one["events"]) for one in told["steps"]] == [
        ("create", ["escrow.created"]),
        ("sign_contract", ["contract.signed"]),
    ]
    assert told["answer"]["contract"]["sellerSigned"] is True
    assert [one["kind"] for one in told["deadlines"]] == ["expiry"]
    assert await count_rows(house) == before
