"""`amana check`, `balance` and `unfreeze`: what the operator sees of the books."""

import asyncpg

from service.commands.perform import House
from service.rules.invariants import NAMES
from tests.makers import make_buyer, make_escrow, make_shop, reread
from tests.service.cli.conftest import Amana

FORGE = "UPDATE escrow SET funded_minor = funded_minor + $2, refunded_minor = $3 WHERE id = $1"


async def test_check_says_a_line_for_each_invariant_and_the_head(
    house: House, amana: Amana
) -> None:
    await make_escrow(house, await make_shop(house), status="completed")
    said = await amana("check")
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        *(f"✓ {invariant_id}  {name}" for invariant_id, name in NAMES.items()),
        "chain: no seal yet, the first comes after 1000 events",
    ]
    facts = (await amana("check", "--json")).facts
    assert (facts["ok"], facts["head"]) == (True, None)
    assert [one["id"] for one in facts["invariants"]] == list(NAMES)


async def test_a_breach_is_said_freezes_and_is_mended(
    house: House, owner: asyncpg.Connection, amana: Amana
) -> None:
    paid = await make_escrow(house, await make_shop(house), status="paid")
    await owner.execute(FORGE, paid.id, 1, 1)
    said = await amana("check")
    assert said.exit_code == 1
    parts = "funded 100001, held 100000, released 0, refunded 1, fees 0"
    ledger = "by the ledger 100000, 100000, 0, 0, 0"
    broken = ["✗ C  Every escrow's parts are what its transfers say"]
    broken += [f"     {paid.id}: {parts}; {ledger}"]
    assert [line for line in said.stdout.splitlines() if line[0] not in "✓c"] == broken

    said = await amana("check", "--json")
    assert said.exit_code == 1
    breached = [one for one in said.facts["invariants"] if not one["ok"]]
    assert breached == [
        {
            "id": "C",
            "name": NAMES["C"],
            "ok": False,
            "breaches": [{"subject": paid.id, "escrowId": paid.id, "says": f"{parts}; {ledger}"}],
        }
    ]
    assert "invariant_breached" in said.stderr
    assert (await reread(house, paid.id)).frozen

    refused = await amana("unfreeze", paid.id, "--note", "looked at")
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: The escrow stays frozen: C: {parts}; {ledger}.\n"
    await owner.execute(FORGE, paid.id, -1, 0)
    lifted = await amana("unfreeze", paid.id, "--note", "put right", "--json")
    assert lifted.facts == {"id": paid.id, "frozen": False}
    assert "put right" in lifted.stderr
    assert not (await reread(house, paid.id)).frozen
    assert (await amana("check")).exit_code == 0


async def test_unfreeze_wants_an_escrow_and_a_note(house: House, amana: Amana) -> None:
    assert (await amana("unfreeze", "0" * 24, "--note", "x")).stderr == "Error: Escrow not found\n"
    for arguments in (("unfreeze", "0" * 24), ("unfreeze", "'; DROP", "--note", "x")):
        assert (await amana(*arguments)).exit_code == 2


async def test_balance_sums_every_currency_to_zero(
    house: House, owner: asyncpg.Connection, amana: Amana
) -> None:
    assert (await amana("balance")).stdout == "there are no accounts yet\n"
    buyer = await make_buyer(house, funds="150.5")
    shop = await make_shop(house)
    await make_escrow(house, shop, buyer, mode="quick", status="completed")
    said = await amana("balance")
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "account         how many                balance",
        "available              2                145.500 TND",
        "clearing               1                  0.000 TND",
        "held                   1                  0.000 TND",
        "outside                1               -150.500 TND",
        "pending                1                  0.000 TND",
        "platform_fees          1                  5.000 TND",
        "sum                                       0.000 TND",
    ]
    facts = (await amana("balance", "--json")).facts
    assert facts["sums"] == {"TND": "0.000"}
    assert facts["accounts"][0] == {
        "kind": "available",
        "currency": "TND",
        "accounts": 2,
        "balance": "145.500",
    }
    await owner.execute(
        "UPDATE account SET balance_minor = balance_minor + 1"
        " WHERE owner = $1 AND kind = 'available'",
        buyer.user_id,
    )
    off = await amana("balance", "--json")
    assert (off.exit_code, off.facts["sums"]) == (1, {"TND": "0.001"})
