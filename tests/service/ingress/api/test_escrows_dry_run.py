"""`?dry_run=true` at the door: where it is taken, what it answers, and that nothing comes of it."""

import pytest

from service.ingress.routes import ROUTES, SANDBOX_ROUTES
from service.wire.base import instant
from tests.books import count_rows
from tests.makers import make_buyer, make_escrow, make_shop, reread

V1 = "/api/v1"
SANDBOX = f"{V1}/sandbox"
SU = "escrow.status.updated"
ONCE = "dry_run must be given once, in these letters: true or false."
ORDER = {
    "title": "A camera",
    "amount": 100,
    "buyerEmail": "new@example.org",
    "mode": "standard",
    "estimatedDeliveryDays": 3,
    "contractTerms": "As described.",
}


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def shop(house):
    return await make_shop(house)


@pytest.fixture
async def buyer(house):
    return await make_buyer(house)


async def asked(client, shop, method, path, body=None, *, dry_run="true", **headers):
    query = {} if dry_run is None else {"dry_run": dry_run}
    async with client.request(
        method, path, params=query, json=body, headers={**shop.headers, **headers}
    ) as response:
        assert "Idempotency-Replayed" not in response.headers
        return response.status, await response.json()


async def test_a_delivery_is_rehearsed_with_the_whole_of_what_would_follow(
    house, client, shop, buyer
):
    escrow = await make_escrow(house, shop, buyer, status="paid", amount=100)
    path = f"{V1}/escrows/{escrow.id}/deliver"
    before = await count_rows(house), await reread(house, escrow.id)
    status, told = await asked(client, shop, "POST", path)
    assert (await count_rows(house), await reread(house, escrow.id)) == before
    moment = told["answer"]["escrow"]["completedAt"]
    assert (status, told) == (
        200,
        {
            "dryRun": True,
            "status": 200,
            "answer": {
                "message": "Delivery recorded",
                "escrow": {
                    "id": escrow.id,
                    "title": "A camera",
                    "amount": 100,
                    "status": "completed",
                    "deliveredAt": moment,
                    "completedAt": moment,
                    "createdAt": instant(escrow.created_at),
                    "updatedAt": moment,
                },
            },
            "steps": [
                {
                    "escrowId": escrow.id,
                    "step": "deliver",
                    "fromStatus": "paid",
                    "toStatus": "completed",
                    "events": [SU],
                    "postings": [
                        {
                            "source": {"account": "held", "owner": escrow.id},
                            "target": {"account": "available", "owner": shop.user_id},
                            "amount": 100,
                            "currency": "TND",
                            "reason": "release",
                        }
                    ],
                }
            ],
            "fees": {"escrowFee": 0, "developerFee": 0},
            "deadlines": [],
        },
    )
    status, done = await asked(client, shop, "POST", path, dry_run=None)
    assert (status, done["escrow"]["status"]) == (200, "completed")


async def test_a_creation_is_rehearsed_with_its_201_and_nothing_is_there(house, client, shop):
    before = await count_rows(house)
    status, told = await asked(client, shop, "POST", f"{V1}/escrows", ORDER)
    assert (status, told["status"]) == (200, 201)
    assert await count_rows(house) == before
    made = told["answer"]["escrow"]
    assert [(one["step"], one["events"]) for one in told["steps"]] == [
        ("create", ["escrow.created"])
    ]
    status, _ = await asked(client, shop, "GET", f"{V1}/escrows/{made['id']}", dry_run=None)
    assert status == 404


STEPS = [
    ("PUT", "", {"amount": 50}, "quick", "pending", "update"),
    ("POST", "/deliver", None, "quick", "paid", "deliver"),
    ("POST", "/cancel", None, "quick", "pending", "cancel"),
]


@pytest.mark.parametrize(("method", "path", "body", "mode", "state", "step"), STEPS)
async def test_each_step_of_the_api_is_rehearsed(
    house, client, shop, buyer, method, path, body, mode, state, step
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state)
    at = f"{V1}/escrows/{escrow.id}{path}"
    before = await count_rows(house), await reread(house, escrow.id)
    status, told = await asked(client, shop, method, at, body)
    assert (status, told["dryRun"]) == (200, True)
    assert [one["step"] for one in told["steps"]] == [step]
    assert (await count_rows(house), await reread(house, escrow.id)) == before
    _, done = await asked(client, shop, method, at, body, dry_run="false")
    assert list(told["answer"]["escrow"]) == list(done["escrow"])
    assert await reread(house, escrow.id) != before[1]


@pytest.mark.parametrize(
    ("mode", "state", "email_of", "step", "given"),
    [
        ("quick", "pending", "buyer", "accept_pay", None),
        ("standard", "pending", "buyer", "sign_contract", {"signature": "Bo Y"}),
        ("quick", "delivered", "buyer", "complete", None),
        ("quick", "delivered", "buyer", "reject_delivery", {"reason": "?"}),
        ("quick", "delivered", "seller", "cancel_escrow", None),
        ("quick", "paid", "buyer", "request_cancellation", None),
        ("instant", "paid", "seller", "dispute", {"reason": "?"}),
    ],
)
async def test_each_step_of_a_person_is_rehearsed(
    house, client, shop, buyer, mode, state, email_of, step, given
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state)
    who = buyer.email if email_of == "buyer" else shop.email
    body = {"email": who, "step": step, **({"input": given} if given else {})}
    before = await count_rows(house), await reread(house, escrow.id)
    path = f"{SANDBOX}/escrows/{escrow.id}/act"
    status, told = await asked(client, shop, "POST", path, body)
    assert (status, [one["step"] for one in told["steps"]]) == (200, [step])
    assert (await count_rows(house), await reread(house, escrow.id)) == before
    assert told["answer"]["escrow"]["id"] == escrow.id


async def test_a_settlement_is_rehearsed(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    path = f"{SANDBOX}/disputes/{escrow.id}/resolve"
    body = {"sellerAmount": 40, "buyerAmount": "60.000"}
    status, told = await asked(client, shop, "POST", path, body)
    assert status == 200
    [step] = told["steps"]
    assert [(one["reason"], one["amount"]) for one in step["postings"]] == [
        ("refund", 60),
        ("escrow_fee", 2),
        ("release", 38),
    ]
    assert step["events"] == [SU, "escrow.dispute.resolved"]
    assert told["answer"]["escrow"]["settlement"]["sellerNet"] == 38
    assert (await reread(house, escrow.id)).status == "disputed"


# ---- Where it is not taken ----------------------------------------------------------------------

STEPLESS = [
    row
    for row in ROUTES + SANDBOX_ROUTES
    if row.method != "GET" and not row.steps and "{" not in row.path and not row.is_page
]


@pytest.mark.parametrize("row", STEPLESS, ids=lambda row: f"{row.method} {row.path}")
@pytest.mark.parametrize("said", ["true", "false", "maybe"])
async def test_on_a_route_without_steps_it_is_400(house, client, shop, row, said):
    before = await count_rows(house)
    status, told = await asked(client, shop, row.method, row.path, {}, dry_run=said)
    assert (status, told) == (
        400,
        {
            "error": "Bad Request",
            "message": "dry_run is for the steps of an escrow; leave it out here.",
        },
    )
    assert await count_rows(house) == before


async def test_a_page_takes_no_rehearsal_and_no_form_then(house, client):
    before = await count_rows(house)
    for path in ("/sign-in", "/register", "/dashboard/settings", "/dashboard/wallet"):
        async with client.post(
            path, data={"email": "a@b.example"}, params={"dry_run": "true"}
        ) as no:
            assert no.status == 400
    assert await count_rows(house) == before


@pytest.mark.parametrize("said", ["maybe", "", "1", "True", "yes"])
async def test_it_is_true_or_false(house, client, shop, buyer, said):
    escrow = await make_escrow(house, shop, buyer, status="paid")
    path = f"{V1}/escrows/{escrow.id}/deliver"
    status, told = await asked(client, shop, "POST", path, dry_run=said)
    assert (status, told) == (
        400,
        {"error": "Bad Request", "message": ONCE},
    )
    assert (await reread(house, escrow.id)).status == "paid"


async def test_a_read_is_not_rehearsed(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer)
    status, told = await asked(client, shop, "GET", f"{V1}/escrows/{escrow.id}")
    assert (status, told["escrow"]["id"]) == (200, escrow.id)


# ---- Refusals, and keys -------------------------------------------------------------------------


async def test_a_rehearsal_is_refused_as_the_step_is(house, client, shop, buyer):
    stranger = await make_shop(house)
    pending = await make_escrow(house, shop, buyer, mode="quick")
    paid = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    proof = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    for who, method, path, body, status in (
        (shop, "POST", f"{pending.id}/deliver", None, 400),
        (shop, "POST", f"{paid.id}/cancel", None, 400),
        (shop, "POST", f"{paid.id}/reject-delivery", None, 403),
        (shop, "POST", f"{proof.id}/deliver", None, 409),
        (stranger, "POST", f"{paid.id}/deliver", None, 403),
        (shop, "PUT", pending.id, {}, 400),
        (shop, "PUT", pending.id, {"amount": 0, "title": ""}, 400),
        (shop, "PUT", pending.id, {"amount": 1}, 400),
        (shop, "PUT", "0" * 24, {"amount": 1}, 404),
    ):
        answers = [
            await asked(client, who, method, f"{V1}/escrows/{path}", body, dry_run=said)
            for said in ("true", None)
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == status, path


async def test_a_rehearsal_neither_stores_an_answer_under_its_key_nor_gives_a_stored_one(
    house, client, shop, buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    path = f"{V1}/escrows/{escrow.id}/deliver"
    key = {"Idempotency-Key": "the-key"}
    status, told = await asked(client, shop, "POST", path, **key)
    assert (status, told["dryRun"]) == (200, True)
    status, told = await asked(client, shop, "POST", path, dry_run=None, **key)
    assert (status, told["escrow"]["status"]) == (200, "delivered")
    status, told = await asked(client, shop, "POST", path, **key)
    assert (status, told["error"]) == (400, "Bad Request")


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
async def test_a_key_that_is_none_is_refused_beside_a_rehearsal_too(
    house, client, shop, buyer, key
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    path = f"{V1}/escrows/{escrow.id}/deliver"
    sent = {"Idempotency-Key": key}
    answers = [
        await asked(client, shop, "POST", path, dry_run=said, **sent) for said in ("true", None)
    ]
    assert answers[0] == answers[1]
    assert (answers[0][0], answers[0][1]["message"]) == (
        400,
        "Idempotency-Key must be 1 to 255 printable ASCII characters.",
    )
    assert (await reread(house, escrow.id)).status == "paid"


@pytest.mark.parametrize(
    "query", ["dryRun=true", "DRY_RUN=true", "dry-run=true", "dry_run=false&dry_run=true", "dryrun"]
)
async def test_a_name_that_is_meant_for_it_never_carries_the_step_out(
    house, client, shop, buyer, query
):
    escrow = await make_escrow(house, shop, buyer, status="paid", amount=100)
    path = f"{V1}/escrows/{escrow.id}/deliver?{query}"
    async with client.post(path, headers=shop.headers) as response:
        told = response.status, (await response.json())["message"]
    assert told == (400, ONCE)
    assert (await reread(house, escrow.id)).status == "paid"


async def test_a_rehearsed_dispute_takes_no_ticket(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, status="paid", amount=100)
    path = f"{SANDBOX}/escrows/{escrow.id}/act"
    body = {"email": buyer.email, "step": "dispute", "input": {"reason": "Nothing came."}}
    _, first = await asked(client, shop, "POST", path, body)
    _, second = await asked(client, shop, "POST", path, body)
    _, real = await asked(client, shop, "POST", path, body, dry_run=None)
    tickets = [told["answer"]["escrow"]["disputeTicket"] for told in (first, second)]
    tickets.append(real["escrow"]["disputeTicket"])
    assert [ticket["ticketNumber"] for ticket in tickets] == ["DHM-00001"] * 3
