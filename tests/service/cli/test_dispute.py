"""`amana dispute` and `amana proof`: what waits is shown with what was said, and decided once."""

import pytest

from service.commands import disputes
from service.commands.perform import House
from service.rules.aggregate import Escrow
from service.rules.dispute import Split
from tests.books import assert_sound, read_log
from tests.makers import act, make_buyer, make_escrow, make_file, make_shop, reread
from tests.service.cli.conftest import Amana


@pytest.fixture
async def disputed(house: House) -> Escrow:
    """100 TND, disputed by the buyer, answered by the seller with a file and an offer."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    said = disputes.answer(escrow.id, "It is one.", [make_file()], Split(60_000, 40_000))
    await act(house, shop.actor, said)
    return await reread(house, escrow.id)


@pytest.fixture
async def undecided(house: House) -> Escrow:
    """100 TND, whose purchase proof was corrected once too often."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    return await make_escrow(
        house, shop, buyer, mode="quick_proof", status="paid",
        then=("submit_proof", "request_correction") * 4,
    )  # fmt: skip


async def test_open_disputes_are_listed_and_shown(disputed: Escrow, amana: Amana) -> None:
    listed = await amana("dispute", "list", "--json")
    [one] = listed.facts
    assert (one["escrowId"], one["status"], len(one["offers"])) == (disputed.id, "open", 1)
    line = (await amana("dispute", "list")).stdout
    assert disputed.id in line
    assert "waits for you" in line
    shown = (await amana("dispute", "show", disputed.id)).stdout
    for words in ("It is not a camera.", "seller: It is one.", "/files/", "100.000 TND",
                  "seller offers 60 TND to the seller, 40 to the buyer (open)"):  # fmt: skip
        assert words in shown


@pytest.mark.parametrize(
    ("words", "status", "refunded"),
    [
        (("--to", "seller"), "completed", 0),
        (("--to", "buyer"), "cancelled", 100_000),
        (("--seller", "33.333", "--buyer", "66.667"), "completed", 66_667),
        (("--seller", "0", "--buyer", "100"), "cancelled", 100_000),
    ],
)
async def test_a_dispute_is_decided_once(
    house: House, disputed: Escrow, amana: Amana, words, status, refunded
) -> None:
    said = await amana("dispute", "resolve", disputed.id, *words)
    assert said.exit_code == 0, said.stderr
    after = await reread(house, disputed.id)
    assert (after.status, after.refunded_minor) == (status, refunded)
    assert (await read_log(house, disputed.id))[-1][2] == "operator"
    again = await amana("dispute", "resolve", disputed.id, "--to", "buyer")
    assert (again.exit_code, again.stderr) == (1, "Error: No dispute is open on this escrow.\n")
    assert (await amana("dispute", "list")).stdout == "no dispute is open\n"
    await assert_sound(house)


async def test_a_decision_is_whole_and_sums(house: House, disputed: Escrow, amana: Amana) -> None:
    for words in ((), ("--to", "buyer", "--seller", "1"), ("--seller", "1"), ("--buyer", "1")):
        assert (await amana("dispute", "resolve", disputed.id, *words)).exit_code == 2
    for sellers, buyers in (("1", "1"), ("x", "1"), ("1.0001", "98.9999"), ("101", "-1")):
        said = await amana(
            "dispute", "resolve", disputed.id, f"--seller={sellers}", f"--buyer={buyers}"
        )
        assert said.exit_code == 1
    assert (await reread(house, disputed.id)).status == "disputed"
    assert (await amana("dispute", "show", "0" * 24)).exit_code == 1


@pytest.mark.parametrize(
    ("words", "phase", "status"),
    [
        (("accept",), "accepted", "paid"),
        (("reject",), "rejected", "cancelled"),
        (("decide", "--accept"), "accepted", "paid"),
        (("decide", "--reject"), "rejected", "cancelled"),
    ],
)
async def test_a_proof_is_listed_with_its_files_and_decided_once(
    house: House, undecided: Escrow, amana: Amana, words, phase, status
) -> None:
    [one] = (await amana("proof", "list", "--json")).facts
    assert (one["escrowId"], one["submissionCount"]) == (undecided.id, 4)
    shown = (await amana("proof", "list")).stdout
    assert shown.count("/files/") == 4
    assert shown.count("then asked: Unreadable.") == 4
    verb, *options = words
    said = await amana("proof", verb, undecided.id, *options)
    assert said.stdout == f"the proof of {undecided.id} is {phase}, the escrow {status}\n"
    again = await amana("proof", verb, undecided.id, *options)
    assert again.exit_code == 1
    assert (await amana("proof", "list")).stdout == "none waits for a decision\n"
    assert (await amana("proof", "decide", undecided.id)).exit_code == 2
    await assert_sound(house)
