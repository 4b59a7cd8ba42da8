"""What a developer is told about the invariants: its own, and the house as a whole."""

from service.commands.checks import check_all
from service.rules.invariants import NAMES
from tests.makers import make_buyer, make_escrow, make_shop

ASSURANCE = "/api/v1/assurance"
FORGE = "UPDATE escrow SET funded_minor = funded_minor + 1, refunded_minor = 1 WHERE id = $1"
OFF = "UPDATE account SET balance_minor = balance_minor + 1 WHERE kind = 'available' AND owner = $1"


async def ask(client, shop):
    async with client.get(ASSURANCE, headers=shop.headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def failing(answer):
    """The invariants that do not hold, with whom they name."""
    assert [one["id"] for one in answer["invariants"]] == list(NAMES)
    assert answer["ok"] == all(one["ok"] for one in answer["invariants"])
    return {
        one["id"]: [breach["escrowId"] for breach in one["breaches"]]
        for one in answer["invariants"]
        if not one["ok"]
    }


async def test_before_the_first_check_nothing_is_assured(house, ingress):
    shop = await make_shop(house)
    async with ingress(None) as client:
        answer = await ask(client, shop)
    assert (answer["checkedAt"], answer["ok"], answer["totals"]) == (None, False, [])
    assert failing(answer) == {invariant_id: [] for invariant_id in NAMES}


async def test_a_sound_house_is_told_with_ones_own_totals(house, ingress):
    shop, other = await make_shop(house), await make_shop(house)
    buyer = await make_buyer(house)
    await make_escrow(house, shop, buyer, mode="quick", status="completed")
    await make_escrow(house, shop, buyer, status="paid")
    await make_escrow(house, other, buyer, status="paid")
    await check_all(house)
    async with ingress(None) as client:
        answer = await ask(client, shop)
        assert failing(await ask(client, other)) == {}
    assert failing(answer) == {}
    assert answer["totals"] == [{"currency": "TND", "held": 100, "available": 95, "fees": 5}]
    assert answer["invariants"][0] == {
        "id": "A",
        "name": NAMES["A"],
        "ok": True,
        "breaches": [],
        "lastOkAt": answer["checkedAt"],
    }


async def test_a_breach_is_told_to_whom_it_concerns(house, ingress, owner):
    shop, other = await make_shop(house), await make_shop(house)
    forged = await make_escrow(house, shop, status="paid")
    await make_escrow(house, other, status="paid")
    await check_all(house)
    await owner.execute(FORGE, forged.id)
    await check_all(house)
    async with ingress(None) as client:
        mine, theirs = await ask(client, shop), await ask(client, other)
    assert failing(mine) == {"C": [forged.id]}
    assert failing(theirs) == {}
    told = next(one for one in mine["invariants"] if one["id"] == "C")
    assert told["breaches"][0]["message"].startswith("funded 100001, held 100000,")
    assert told["lastOkAt"] < mine["checkedAt"]


async def test_a_house_that_does_not_balance_concerns_everybody(house, ingress, owner):
    shop, other = await make_shop(house), await make_shop(house)
    await make_escrow(house, shop, status="completed")
    await owner.execute(OFF, shop.user_id)
    await check_all(house)
    async with ingress(None) as client:
        assert failing(await ask(client, shop)) == {"A": [], "B": [None]}
        assert failing(await ask(client, other)) == {"A": []}


async def test_what_could_not_be_asked_is_assured_to_nobody(house, ingress, owner):
    shop = await make_shop(house)
    await owner.execute("REVOKE SELECT ON transition FROM amana_app")
    try:
        await check_all(house)
    finally:
        await owner.execute("GRANT SELECT ON transition TO amana_app")
    async with ingress(None) as client:
        answer = await ask(client, shop)
    assert failing(answer) == {"K": [None]}
    told = next(one for one in answer["invariants"] if one["id"] == "K")
    assert told["breaches"][0]["message"] == "it could not be asked: InsufficientPrivilegeError"
    assert told["lastOkAt"] is None


async def test_it_takes_a_key(ingress):
    async with ingress(None) as client, client.get(ASSURANCE) as response:
        assert response.status == 401
