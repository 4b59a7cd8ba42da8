"""`amana webhook`: a delivery sent again, an endpoint's misses recovered, by the operator."""

from uuid import UUID

from service.commands import attempts
from service.commands.perform import House
from service.store.recoveries import list_recoveries
from tests.makers import act, make_shop
from tests.receiver import make_endpoint
from tests.service.cli.conftest import Amana

NONE = "00000000-0000-7000-8000-000000000000"


async def test_a_delivery_is_sent_again(house: House, amana: Amana) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook")
    told = await act(house, shop.actor, attempts.send_test(shop.developer_id, made["id"]))
    delivery = told["delivery"]["id"]
    said = await amana("webhook", "resend", delivery, "--json")
    assert said.exit_code == 0
    assert (said.facts["delivery"]["id"], said.facts["delivery"]["state"]) == (delivery, "pending")
    actor = "SELECT actor_kind FROM event WHERE step = 'resend'"
    assert await house.pool.fetchval(actor) == "operator"
    assert UUID(delivery)


async def test_what_an_endpoint_has_missed_is_recovered(house: House, amana: Amana) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook")
    said = await amana("webhook", "recover", made["id"], "--since", "2026-01-01")
    assert (said.exit_code, "0 deliveries" in said.stdout) == (0, True)
    assert len(await list_recoveries(house.pool, made["id"], 9)) == 1
    again = await amana("webhook", "recover", made["id"], "--since", "2026-01-01")
    assert again.exit_code == 1
    assert "under way already" in again.stderr


async def test_the_head_of_a_fifo_lane_is_skipped(house: House, amana: Amana) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook", fifo=True)
    told = await act(house, shop.actor, attempts.send_test(shop.developer_id, made["id"]))
    said = await amana("webhook", "skip-head", made["id"], "--json")
    assert (said.exit_code, said.facts["message"]) == (0, "Delivery skipped")
    state = "SELECT state FROM delivery WHERE id = $1"
    assert await house.pool.fetchval(state, UUID(told["delivery"]["id"])) == "cancelled"
    again = await amana("webhook", "skip-head", made["id"])
    assert (again.exit_code, again.stderr.strip()) == (1, "Error: Delivery not found")


async def test_what_is_not_there_or_makes_no_sense_is_one_line(house: House, amana: Amana) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook")
    for arguments, said in (
        (("skip-head", "0" * 24), "Webhook not found"),
        (("skip-head", made["id"]), "fifo"),
        (("resend", NONE), "Delivery not found"),
        (("recover", "0" * 24, "--since", "2026-01-01"), "Webhook not found"),
        (("recover", "x", "--since", "2026-01-01"), "has the wrong format"),
        (("recover", "0" * 24, "--since", "soon"), "must be an ISO 8601 instant"),
    ):
        told = await amana("webhook", *arguments)
        assert told.exit_code != 0
        assert said in told.stderr
