"""`amana payment` and `amana payout`: what waits for a person is listed, and decided once."""

import secrets
from dataclasses import replace

import pytest

from service.commands import payments
from service.commands.payments import Wish
from service.commands.perform import House
from service.rules.files import StoredFile
from service.rules.payment import BANK_TRANSFER, SANDBOX, TOPUP, transfer_reference
from service.store.ledger import read_balance
from service.store.payments import read_payment
from tests.makers import Buyer, act, make_buyer
from tests.service.cli.conftest import Amana

PROOF = StoredFile("a" * 64, "image/png", 70, "b" * 64, "receipt.png")


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house, funds="100")


async def transfer(house: House, buyer: Buyer) -> str:
    """A top-up of 20 TND whose proof is here; its id."""
    wish = Wish(TOPUP, BANK_TRANSFER, 20_000, "TND", buyer.user_id)
    payment_id = (await act(house, buyer.actor, payments.begin(wish)))["payment"]["id"]
    proof = replace(PROOF, key=secrets.token_hex(32))
    await act(house, buyer.actor, payments.prove(payment_id, proof))
    return payment_id


async def ask_payout(house: House, buyer: Buyer) -> str:
    command = payments.request_payout(buyer.user_id, BANK_TRANSFER, 40_000, "TND", "Bo Y\nTN59")
    payment_id: str = (await act(house, buyer.actor, command))["payment"]["id"]
    return payment_id


async def money(house: House, buyer: Buyer, currency: str = "TND") -> tuple[int, int]:
    balance = await read_balance(house.pool, buyer.user_id, currency)
    return balance.available, balance.pending


async def test_what_waits_is_listed_with_its_proof(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    assert (await amana("payment", "list")).stdout == "nothing waits for you\n"
    payment_id = await transfer(house, buyer)
    said = (await amana("payment", "list")).stdout
    assert payment_id in said
    assert transfer_reference(payment_id) in said
    found = await read_payment(house.pool, payment_id)
    assert found is not None
    assert f"/files/{found.proof_file}?expires=" in said
    [fact] = (await amana("payment", "list", "--json")).facts
    assert (fact["id"], fact["amount"], fact["state"]) == (payment_id, 20, "pending")


async def test_a_transfer_is_approved_once(house: House, buyer: Buyer, amana: Amana) -> None:
    payment_id = await transfer(house, buyer)
    said = await amana("payment", "approve", payment_id)
    assert (said.exit_code, said.stdout) == (0, f"the topup {payment_id} is succeeded\n")
    assert await money(house, buyer) == (120_000, 0)
    again = await amana("payment", "approve", payment_id)
    assert again.exit_code != 0
    assert "succeeded" in again.stderr


async def test_a_transfer_is_rejected_with_a_reason(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    payment_id = await transfer(house, buyer)
    said = await amana("payment", "reject", payment_id, "--reason", "No such transfer.")
    assert said.exit_code == 0
    found = await read_payment(house.pool, payment_id)
    assert found is not None
    assert (found.state, found.note) == ("failed", "No such transfer.")
    assert await money(house, buyer) == (100_000, 0)


async def test_another_sum_on_the_statement_takes_a_second_word(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    payment_id = await transfer(house, buyer)
    given = ("--received", "7.5", "--currency", "EUR")
    assert "needs_operator" in (await amana("payment", "approve", payment_id, *given)).stdout
    assert "received 7.50 EUR" in (await amana("payment", "list")).stdout
    assert "succeeded" in (await amana("payment", "approve", payment_id)).stdout
    assert await money(house, buyer, "EUR") == (750, 0)


@pytest.mark.parametrize("sum_", ["0", "x", "-1", "1.2345", "9" * 40])
async def test_what_is_no_sum_is_refused(
    house: House, buyer: Buyer, amana: Amana, sum_: str
) -> None:
    payment_id = await transfer(house, buyer)
    assert (await amana("payment", "approve", payment_id, "--received", sum_)).exit_code != 0
    assert await money(house, buyer) == (100_000, 20_000)


async def test_what_was_sent_wrongly_goes_back_through_its_provider(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    refused = await amana("payment", "approve", await transfer(house, buyer), "--through-provider")
    assert refused.exit_code != 0
    wish = Wish(TOPUP, SANDBOX, 20_000, "TND", buyer.user_id)
    card = (await act(house, buyer.actor, payments.begin(wish)))["payment"]["id"]
    assert (await amana("payment", "approve", card)).exit_code != 0


async def test_payouts_are_listed_with_whom_to_pay_and_decided(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    first, second = await ask_payout(house, buyer), await ask_payout(house, buyer)
    said = (await amana("payout", "list")).stdout
    assert [line.split()[0] for line in said.splitlines()] == [first, second]
    assert "to Bo Y, TN59" in said
    early = await amana("payout", "approve", first)
    assert early.exit_code != 0
    assert "is created" in early.stderr
    assert "pending" in (await amana("payout", "take", first)).stdout
    assert first in (await amana("payout", "list")).stdout
    assert "succeeded" in (await amana("payout", "approve", first)).stdout
    rejected = await amana("payout", "reject", second, "--reason", "The account is closed.")
    assert "failed" in rejected.stdout
    assert await money(house, buyer) == (60_000, 0)
    assert (await amana("payout", "list")).stdout == "nothing waits for you\n"
    assert (await amana("payout", "reject", first, "--reason", "x" * 501)).exit_code != 0


async def test_a_payout_that_came_back_is_put_back(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    payout = await ask_payout(house, buyer)
    assert (await amana("payout", "returned", payout)).exit_code != 0
    await amana("payout", "take", payout)
    await amana("payout", "approve", payout)
    said = (await amana("payout", "returned", payout)).stdout
    listed = (await amana("payout", "list")).stdout
    stray = listed.split()[0]
    assert said == (
        f"{payout} is over; what came waits for you: the payout {stray} is needs_operator\n"
    )
    assert "received 40.000 TND" in listed
    assert (await amana("payout", "approve", stray)).exit_code == 0
    assert await money(house, buyer) == (100_000, 0)


async def test_money_for_a_transfer_that_is_over_waits_as_another_payment(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    payment_id = await transfer(house, buyer)
    await amana("payment", "reject", payment_id)
    given = ("--received", "25", "--line", "2026-11-21/7")
    said = (await amana("payment", "approve", payment_id, *given)).stdout
    stray = (await amana("payment", "list")).stdout.split()[0]
    assert f"{payment_id} is over; what came waits for you: the topup {stray}" in said
    again = await amana("payment", "approve", payment_id, *given)
    assert again.exit_code != 0
    assert "booked already" in again.stderr
    assert (await amana("payment", "approve", stray)).exit_code == 0
    assert await money(house, buyer) == (125_000, 0)
    nameless = await amana("payment", "approve", payment_id, "--line", "7")
    assert "--received" in nameless.stderr


async def test_a_long_list_goes_on_after_the_last_one_shown(
    house: House, buyer: Buyer, amana: Amana
) -> None:
    first, second = await transfer(house, buyer), await transfer(house, buyer)
    said = (await amana("payment", "list", "--after", first)).stdout
    assert (first in said, second in said) == (False, True)
