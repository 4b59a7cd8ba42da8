"""escrows.md 3.1: `POST /escrows`, a test a sentence."""

from datetime import datetime
from decimal import Decimal

import pytest

from tests.conformance.shapes import (
    SENTENCE,
    created,
    e1,
    invalid,
    policy,
    saying,
    signing,
)
from tests.conformance.world import (
    ESCROWS,
    KINDS,
    MODES,
    NOTHING,
    POLICY,
    UNPRINTABLE,
    WEBHOOKS,
    Life,
    Partner,
    World,
    new_email,
    order,
)
from tests.outbox import tokens_of
from tests.pictures import PICTURES, data_uri

SIGNATURE = "/api/developer/signature"
PNG = data_uri(PICTURES["png"])


@pytest.fixture
def refused(world: World, partner: Partner):
    """`await refused(mode, *fields, **changes)`: 400 that names just these; nothing is stored."""

    async def asked(of, /, *fields, **changes):
        third = {"sellerEmail": new_email("sells")} if of == "quick" else {}
        async with world.unchanged():
            answer = await partner.post(ESCROWS, order(of, new_email("bo"), **third | changes))
        assert answer.differs(400, invalid(*fields)) == []
        return answer.body

    return asked


# ---- The answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_every_mode_is_created_with_201_and_exactly_this_body(world: World, kind):
    life = await world.life(kind)
    assert (
        life.answer.differs(
            201,
            {
                "message": SENTENCE,
                "escrow": created(life),
                "contract": signing() if kind == "standard" else None,
                "url": f"http://amana.test/dashboard/escrow/{life.id}",
                "trackingId": life.id,
            },
        )
        == []
    )


async def test_omitting_the_seller_email_makes_your_associated_user_sell(world: World):
    for mode in ("standard", "instant"):
        life = await world.life(mode)
        assert life.answer.escrow["seller"] == life.partner.user.id
        assert life.answer.escrow["sellerEmail"] is None


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_seller_and_buyer_are_null_while_not_registered_and_then_the_seller_email_is_set(
    world: World, partner: Partner, mode
):
    seller, buyer = new_email("sells"), new_email("bo")
    answer = await partner.post(ESCROWS, order(mode, buyer, sellerEmail=seller))
    life = Life(partner, mode, None, None, seller, buyer)
    assert answer.status == 201
    shown = created(life, seller=None, sellerEmail=seller, buyer=None, buyerEmail=buyer)
    assert answer.differs(201, {**answer.body, "escrow": shown}) == []


async def test_the_buyer_need_not_be_a_user_and_is_invited_if_not(world: World, partner: Partner):
    buyer = new_email("bo")
    assert (await partner.post(ESCROWS, order("instant", buyer))).status == 201
    [token] = await tokens_of(world.house, buyer)
    assert len(token) == 43


async def test_an_unassociated_developer_may_name_a_seller_who_is_not_registered_and_is_invited(
    world: World,
):
    lone, seller = await world.partner(associated=False), new_email("sells")
    answer = await lone.post(ESCROWS, order("quick", new_email("bo"), sellerEmail=seller))
    assert (answer.status, answer.escrow["seller"]) == (201, None)
    assert answer.escrow["sellerEmail"] == seller
    [token] = await tokens_of(world.house, seller)
    assert len(token) == 43


async def test_the_escrow_expires_one_calendar_month_after_its_creation(world: World):
    shown = (await world.life()).answer.escrow
    born, dies = (datetime.fromisoformat(shown[key]) for key in ("createdAt", "expiresAt"))
    assert (dies.year * 12 + dies.month) - (born.year * 12 + born.month) == 1
    assert dies.time() == born.time()
    assert dies.day == born.day or 28 <= dies.day < born.day


async def test_e_mails_are_trimmed_and_lower_cased_before_they_are_stored(world: World):
    partner, buyer = await world.partner(), await world.person()
    body = order(
        "quick", f" {buyer.email.upper()} ", sellerEmail=f"\t{partner.user.email.title()} "
    )
    answer = await partner.post(ESCROWS, body)
    life = Life(partner, "quick", partner.user, buyer)
    assert answer.differs(201, {**answer.body, "escrow": created(life)}) == []


async def test_the_title_is_1_to_200_characters_after_trimming(world: World, partner: Partner):
    for given, kept in (("  a  ", "a"), (f" {'ü' * 200} ", "ü" * 200)):
        answer = await partner.post(ESCROWS, order("instant", new_email(), title=given))
        assert (answer.status, answer.escrow["title"]) == (201, kept)


async def test_currency_is_tnd_by_default_and_mode_is_standard_by_default(partner: Partner):
    body = order("standard", new_email(), mode=NOTHING)
    answer = await partner.post(ESCROWS, body)
    assert (answer.status, answer.escrow["mode"]) == (201, "standard")
    assert answer.escrow["currency"] == "TND"


async def test_estimated_delivery_days_are_1_by_default_for_instant(partner: Partner):
    answer = await partner.post(
        ESCROWS, order("instant", new_email(), estimatedDeliveryDays=NOTHING)
    )
    assert (answer.status, answer.escrow["estimatedDeliveryDays"]) == (201, 1)


async def test_null_for_every_optional_field_means_absent(partner: Partner):
    optional = (
        "currency", "sellerEmail", "contractTerms", "autoSign", "developerFeePercentage",
        "fulfillmentPolicy", "language", "autoComplete", "estimatedDeliveryDays",
    )  # fmt: skip
    answer = await partner.post(ESCROWS, order("instant", new_email(), **dict.fromkeys(optional)))
    assert (answer.status, answer.escrow["estimatedDeliveryDays"]) == (201, 1)
    answer = await partner.post(ESCROWS, order("standard", new_email(), mode=None))
    assert (answer.status, answer.escrow["mode"]) == (201, "standard")


# ---- What is accepted, at its bounds ------------------------------------------------------------

GOOD = [
    ("instant", {"amount": Decimal("0.01")}),
    ("instant", {"amount": 1_000_000_000}),
    ("instant", {"amount": Decimal("999999999.999")}),
    ("standard", {"amount": 5}),
    ("standard", {"estimatedDeliveryDays": 1}),
    ("quick", {"estimatedDeliveryDays": 3650}),
    ("standard", {"contractTerms": "ب" * 10_000}),
    ("standard", {"language": "en"}),
    ("standard", {"language": "fr"}),
    ("standard", {"language": "ar"}),
    ("quick", {"developerFeePercentage": 25}),
    ("quick", {"developerFeePercentage": Decimal("0.01")}),
    ("quick", {"developerFeePercentage": 0}),
    ("instant", {"developerFeePercentage": 0}),
    ("standard", {"currency": "TND"}),
    ("quick", {"autoSign": False}),
    ("instant", {"autoSign": False}),
    ("instant", {"autoComplete": "manual"}),
]


@pytest.mark.parametrize(("mode", "changes"), GOOD, ids=lambda v: str(v)[:40])
async def test_a_value_at_its_bound_is_accepted(partner: Partner, mode, changes):
    third = {"sellerEmail": new_email("sells")} if mode == "quick" else {}
    answer = await partner.post(ESCROWS, order(mode, new_email(), **third, **changes))
    assert answer.status == 201, answer.raw
    for name in changes.keys() & answer.escrow.keys():
        assert answer.escrow[name] == changes[name]


LONGEST = {
    "en": ("The seller delivers <b>one</b> camera.\r\n\tWith its box; {{ 7*7 }} #eval(1).\n" * 200),
    "fr": ("Le vendeur livre l'appareil « tel quel »,\n\tsous 7 jours à Béja. <i>é</i>\n" * 200),
    "ar": ("يلتزم البائع بتسليم الكاميرا Canon EOS R5\n\t خلال أسبوع. 📷 &amp;\n" * 200),
}


@pytest.mark.parametrize("language", LONGEST)
async def test_terms_of_just_10_000_characters_are_kept_letter_for_letter(world: World, language):
    terms = LONGEST[language].replace("\r\n", "\n")[:9_995] + "\n\tend"
    sent = terms.replace("\n", "\r\n")  # a line break counts as one
    life = await world.life("standard", contractTerms=f"  {sent}\r\n", language=language)
    contract = (await life.partner.get(f"{life.path}/contract")).body["contract"]
    assert (len(terms), contract["terms"], contract["language"]) == (10_000, terms, language)
    answer = await life.partner.put(life.path, {"contractTerms": f"{sent}."})
    assert answer.differs(400, invalid("contractTerms")) == []


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ({}, {}),
        ({"proofUploadDeadlineHours": 6}, {"proofUploadDeadlineHours": 6}),
        ({"buyerReviewDeadlineHours": 72}, {"buyerReviewDeadlineHours": 72}),
        (
            {"allowedProofTypes": ["receipt", "order_confirmation", "product_photo"]},
            {"allowedProofTypes": ["receipt", "order_confirmation", "product_photo"]},
        ),
        (
            {"allowedProofTypes": ["tracking_proof", "other"], "buyerReviewDeadlineHours": None},
            {"allowedProofTypes": ["tracking_proof", "other"]},
        ),
    ],
)
async def test_a_quick_escrow_may_have_a_policy_whose_hours_are_24_by_default(
    world: World, given, filled
):
    life = await world.life("quick_proof", fulfillmentPolicy={**POLICY, **given})
    shown = created(life, fulfillmentPolicy=policy(**filled))
    assert life.answer.differs(201, {**life.answer.body, "escrow": shown}) == []


# ---- 400: any field rule ------------------------------------------------------------------------

BAD = {
    "title": [NOTHING, None, "", "   ", "x" * 201, 5, True, ["x"], {}],
    "amount": [
        NOTHING, None, 0, -1, Decimal("-0.001"), Decimal("1.0001"), 1_000_000_001,
        Decimal("1000000000.001"), "100", "", True, [100], {},
    ],
    "currency": ["GBP", "tnd", "", 5, ["TND"]],
    "buyerEmail": [
        NOTHING, None, "", "nobody", "a@b", "a b@example.org", "a@example.org,b@example.org",
        f"{'x' * 250}@example.org", 5, ["a@example.org"],
    ],
    "mode": ["milestone", "quick_proof", "Instant", "", 5],
    "estimatedDeliveryDays": [0, -1, 3651, Decimal("1.5"), "3", True, [3]],
    "contractTerms": ["", "   ", "x" * 10_001, "ب" * 10_001, 5, ["x"], *UNPRINTABLE],
    "autoSign": ["true", 1, 0, [True]],
    "developerFeePercentage": [-1, Decimal("-0.01"), 26, Decimal("25.01"), Decimal("1.001"), "5",
                               True],
    "fulfillmentPolicy": ["purchase_proof_required", 5, [POLICY]],
    "language": ["de", "EN", "", 5],
    "autoComplete": ["on_pay", "", True],
    "sellerEmail": ["", "nobody", "a@b", 5, ["a@example.org"]],
}  # fmt: skip
IN = {
    "sellerEmail": "quick",
    "fulfillmentPolicy": "quick",
    "developerFeePercentage": "quick",
    "autoComplete": "instant",
}
"""The mode in which a field may stand, where standard is not it."""


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD.items() for value in values],
    ids=lambda v: "left out" if v is NOTHING else str(v)[:24],
)
async def test_a_field_out_of_its_bounds_is_400_and_nothing_is_stored(refused, field, value):
    await refused(IN.get(field, "standard"), field, **{field: value})


@pytest.mark.parametrize(
    ("policy", "bad"),
    [
        ({}, "type"),
        ({"type": "none"}, "type"),
        ({"type": None}, "type"),
        *[
            ({**POLICY, name: value}, name)
            for name in ("proofUploadDeadlineHours", "buyerReviewDeadlineHours")
            for value in (5, 73, 0, -6, Decimal("6.5"), "24", True)
        ],
        ({**POLICY, "allowedProofTypes": "receipt"}, "allowedProofTypes"),
        ({**POLICY, "allowedProofTypes": ["receipt", "video"]}, "allowedProofTypes.1"),
        ({**POLICY, "allowedProofTypes": [5]}, "allowedProofTypes.0"),
    ],
)
async def test_a_policy_out_of_bounds_is_400(refused, policy, bad):
    await refused("quick", f"fulfillmentPolicy.{bad}", fulfillmentPolicy=policy)


@pytest.mark.parametrize(
    ("currency", "amount"), [("USD", "1.001"), ("EUR", "1.001"), ("TND", "1.0001")]
)
async def test_an_amount_has_at_most_the_currencys_decimals(
    world: World, refused, currency, amount
):
    for foreign in ("USD", "EUR"):
        await world.set_rate(foreign, "3")
    await refused("instant", "amount", currency=currency, amount=Decimal(amount))


async def test_all_bad_fields_are_named_at_once(refused):
    bad = {name: values[-1] for name, values in BAD.items() if name not in ("mode", "sellerEmail")}
    bad["title"], bad["buyerEmail"] = "", "nobody"
    del bad["autoComplete"], bad["fulfillmentPolicy"], bad["contractTerms"]
    await refused("standard", *bad, **bad)


# ---- 400: the table's sentences ------------------------------------------------------------------


async def test_instant_with_any_seller_email_even_your_own_is_400(
    world: World, partner: Partner, refused
):
    known = await world.person()
    for email in (new_email(), known.email, partner.user.email, partner.user.email.upper()):
        await refused("instant", "sellerEmail", sellerEmail=email)


async def test_quick_without_seller_email_is_400(refused):
    await refused("quick", "sellerEmail", sellerEmail=NOTHING)
    await refused("quick", "sellerEmail", sellerEmail=None)


@pytest.mark.parametrize("mode", ["quick", "instant"])
async def test_contract_terms_with_quick_or_instant_are_400_and_the_message_names_the_mode(
    refused, mode
):
    body = await refused(mode, "contractTerms", contractTerms="As described.")
    assert mode in body["message"]
    assert mode in body["details"]["contractTerms"]


async def test_standard_without_contract_terms_is_400(refused):
    await refused("standard", "contractTerms", contractTerms=NOTHING)


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_standard_and_quick_need_estimated_delivery_days(refused, mode):
    await refused(mode, "estimatedDeliveryDays", estimatedDeliveryDays=NOTHING)


async def test_a_developer_fee_with_your_associated_user_as_seller_is_400_omitted_or_named(
    partner: Partner, refused
):
    field, own = "developerFeePercentage", partner.user.email
    for mode in ("standard", "instant"):
        await refused(mode, field, **{field: 1})
    for mode in ("standard", "quick"):
        for email in (own, own.upper()):
            await refused(mode, field, **{field: Decimal("0.01"), "sellerEmail": email})


async def test_auto_sign_with_a_seller_email_is_400(partner: Partner, refused):
    await partner.put(SIGNATURE, {"signatureImage": PNG})
    for email in (new_email(), partner.user.email):
        await refused("standard", "autoSign", autoSign=True, sellerEmail=email)


@pytest.mark.parametrize("mode", ["quick", "instant"])
async def test_auto_sign_outside_standard_is_400(partner: Partner, refused, mode):
    await partner.put(SIGNATURE, {"signatureImage": PNG})
    await refused(mode, "autoSign", autoSign=True)


async def test_auto_sign_without_a_stored_signature_is_400(refused):
    await refused("standard", "autoSign", autoSign=True)


async def test_auto_sign_with_a_stored_signature_signs_for_the_seller(world: World):
    partner = await world.partner()
    assert (await partner.put(SIGNATURE, {"signatureImage": PNG})).status == 200
    life = await world.life("standard", partner=partner, autoSign=True)
    assert life.answer.differs(201, {**life.answer.body, "contract": signing(seller=True)}) == []
    shown = (await life.read())["signatures"]
    assert (shown["sellerSigned"], shown["buyerSigned"]) == (True, False)


async def test_buyer_and_seller_with_the_same_e_mail_are_400(partner: Partner, refused):
    other = new_email()
    for mode in ("standard", "quick"):
        await refused(mode, "buyerEmail", buyerEmail=other, sellerEmail=f" {other.upper()}")
    for mode in ("standard", "instant"):
        await refused(mode, "buyerEmail", buyerEmail=partner.user.email.upper())
    await refused(
        "quick", "buyerEmail", buyerEmail=partner.user.email, sellerEmail=partner.user.email
    )


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_a_seller_who_is_a_user_whose_e_mail_is_not_verified_is_400(
    world: World, refused, mode
):
    seller = await world.person(funds=0, is_verified=False)
    await refused(mode, "sellerEmail", sellerEmail=seller.email)


@pytest.mark.parametrize(
    ("mode", "currency", "amount"),
    [
        ("standard", "TND", "4.999"),
        ("quick", "TND", "4.999"),
        ("instant", "TND", "0.009"),
        ("standard", "USD", "1.66"),  # 4.98 at 3
        ("quick", "EUR", "1.66"),
    ],
)
async def test_an_amount_tnd_below_the_floor_is_400(world: World, refused, mode, currency, amount):
    for foreign in ("USD", "EUR"):
        await world.set_rate(foreign, "3")
    await refused(mode, "amount", amount=Decimal(amount), currency=currency)


@pytest.mark.parametrize("mode", ["standard", "instant"])
async def test_a_policy_outside_quick_is_400(refused, mode):
    await refused(mode, "fulfillmentPolicy", fulfillmentPolicy=POLICY)


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_auto_complete_on_ack_is_for_instant_only(refused, mode):
    await refused(mode, "autoComplete", autoComplete="on_ack")


async def test_on_ack_without_an_active_endpoint_subscribed_to_that_event_is_400(
    partner: Partner, refused
):
    await refused("instant", "autoComplete", autoComplete="on_ack")
    hook = {"url": "http://127.0.0.1:9/hook", "events": ["escrow.created"]}
    made = (await partner.post(WEBHOOKS, hook)).body["webhook"]
    await refused("instant", "autoComplete", autoComplete="on_ack")
    await partner.put(f"{WEBHOOKS}/{made['id']}", {"events": ["escrow.*"], "isActive": False})
    await refused("instant", "autoComplete", autoComplete="on_ack")
    await partner.put(f"{WEBHOOKS}/{made['id']}", {"isActive": True})
    answer = await partner.post(ESCROWS, order("instant", new_email(), autoComplete="on_ack"))
    assert answer.status == 201


async def test_auto_sign_false_counts_as_absent(world: World):
    for kind in KINDS:
        assert (await world.life(kind, autoSign=False)).answer.status == 201
    life = await world.life("standard", seller=await world.person(), autoSign=False)
    assert life.answer.body["contract"]["sellerSigned"] is False


@pytest.mark.parametrize("fee", [NOTHING, 0])
async def test_quick_with_your_own_e_mail_as_seller_is_accepted_with_no_developer_fee(
    world: World, fee
):
    life = await world.life("quick", developerFeePercentage=fee)
    assert life.answer.escrow["seller"] == life.partner.user.id
    assert life.answer.escrow["developerFee"] == 0


# ---- 403 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["standard", "instant"])
async def test_no_seller_email_and_no_associated_user_is_403(world: World, mode):
    lone = await world.partner(associated=False)
    async with world.unchanged():
        answer = await lone.post(ESCROWS, order(mode, new_email()))
    assert answer.differs(403, e1(403, saying("sellerEmail"))) == []


async def test_a_developer_fee_and_no_associated_user_is_403_even_with_a_third_party_seller(
    world: World,
):
    lone = await world.partner(associated=False)
    third = {"sellerEmail": new_email("sells")}
    async with world.unchanged():
        for mode in ("standard", "quick"):
            body = order(mode, new_email(), developerFeePercentage=Decimal("0.5"), **third)
            answer = await lone.post(ESCROWS, body)
            assert answer.differs(403, e1(403, saying("developer fee"))) == []
    free = await lone.post(ESCROWS, order("quick", new_email(), developerFeePercentage=0, **third))
    assert free.status == 201


async def test_the_403s_come_once_the_body_is_an_object_before_the_field_rules(world: World):
    lone = await world.partner(associated=False)
    for raw in (b"{", b"[]", b"null", b'"x"', b"5", b""):
        assert (await lone.post(ESCROWS, raw=raw)).differs(400, e1(400)) == []
    for body in ({}, {"title": 5, "amount": "x"}, {"sellerEmail": None, "mode": "what"}):
        assert (await lone.post(ESCROWS, body)).differs(403, e1(403)) == []
    named = {"sellerEmail": "not an address", "developerFeePercentage": 99}
    assert (await lone.post(ESCROWS, named)).differs(403, e1(403)) == []


# ---- 503 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("currency", ["USD", "EUR"])
async def test_503_when_no_rate_for_the_currency_is_younger_than_its_limit(
    world: World, partner: Partner, owner, currency
):
    body = order("instant", new_email(), currency=currency)
    missing = e1(503, saying(currency), code="FX_RATE_UNAVAILABLE")
    async with world.unchanged():
        assert (await partner.post(ESCROWS, body)).differs(503, missing) == []
    await world.set_rate("EUR" if currency == "USD" else "USD", "3")
    assert (await partner.post(ESCROWS, body)).differs(503, missing) == []
    await world.set_rate(currency, "3")
    await owner.execute("UPDATE fx_rate SET fetched_at = now() - interval '47 hours 59 minutes'")
    assert (await partner.post(ESCROWS, body)).status == 201
    await owner.execute("UPDATE fx_rate SET fetched_at = now() - interval '48 hours 1 minute'")
    assert (await partner.post(ESCROWS, body)).differs(503, missing) == []


async def test_a_bad_field_is_told_before_the_missing_rate(refused):
    await refused("instant", "title", currency="USD", title="")


# ---- Facts that are shown -----------------------------------------------------------------------


async def test_every_mode_says_who_sells_and_who_buys_by_id(world: World):
    seller = await world.person(funds=0)
    for mode in MODES:
        named = None if mode == "instant" else seller
        life = await world.life(mode, seller=named)
        assert life.answer.escrow["seller"] == (named or life.partner.user).id
        assert life.answer.escrow["buyer"] == life.buyer.id
