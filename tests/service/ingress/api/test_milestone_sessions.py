"""Sessions of the milestone family: whoever holds a role acts behind a shop's link."""

import json
from datetime import timedelta
from typing import Any, get_args

import pytest

from service.commands.deadlines import sweep
from service.ingress.api.milestones import ACTS
from service.rules.milestone_outlook import TRIES
from service.rules.milestone_session import ACTIONS
from service.wire.sessions import NewMilestoneSession
from tests.books import assert_sound
from tests.house import SECRET_KEY
from tests.makers import jump
from tests.outbox import tokens_of
from tests.service.ingress.api.milestone_world import (
    NAMES,
    PATH,
    World,
    make_world,
    register,
)

BACK = "https://shop.example/back"


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0", AMANA_SECRET_KEY=SECRET_KEY) as opened:
        yield opened


@pytest.fixture
async def world(house, client) -> World:
    made = await make_world(house, client)
    async with client.put(
        "/api/developer/redirect-urls",
        json={"urls": [BACK]},
        headers={"X-API-Key": made.keys["developer"]},
    ) as response:
        assert response.status == 200
    return made


def asked(world: World, action: str, who: str, **more: Any) -> dict[str, Any]:
    email = world.crew.email(NAMES[who]) if who in NAMES else who
    return {"action": action, "targetUserEmail": email, "redirectUrl": BACK, **more}


async def opened(world: World, path: str, action: str, who: str, **more: Any) -> str:
    """The id of a new session."""
    body = asked(world, action, who, **more)
    status, told = await world.ask("developer", "POST", f"{path}/sessions", body)
    assert status == 201, told
    assert told["url"].endswith(f"/checkout/{told['sessionId']}")
    session_id: str = told["sessionId"]
    return session_id


async def finished(world: World, session_id: str, given: Any = None) -> tuple[int, Any]:
    """The sandbox's `complete`."""
    async with world.client.post(
        f"/api/v1/sandbox/sessions/{session_id}/complete",
        json={} if given is None else {"input": given},
        headers={"X-API-Key": world.keys["developer"]},
    ) as response:
        return response.status, await response.json()


async def standing(world: World, session_id: str) -> str:
    async with world.client.get(
        f"/api/v1/sessions/{session_id}", headers={"X-API-Key": world.keys["developer"]}
    ) as response:
        status: str = (await response.json())["session"]["status"]
        return status


async def test_a_whole_life_by_sessions(world: World):
    path = await world.made()
    payer, receiver = world.crew.payer.email, world.crew.email(NAMES["receiver"])
    updates = {"updates": [{"index": 0, "status": "done", "evidence": "Look."}]}
    for action, who, given, status in (
        ("fund", payer, {"amount": "130"}, "working"),
        ("change_milestone_status", "serviceProvider", updates, "working"),
        ("approve_milestone", "approver", {"indexes": [0, 1]}, "pendingRelease"),
        ("release", "releaseSigner", {}, "released"),
        (
            "withdraw_remaining",
            "disputeResolver",
            {"distributions": [{"email": payer, "amount": "30"}]},
            "released",
        ),
    ):
        session = await opened(world, path, action, who, input=given)
        code, told = await finished(world, session)
        assert code == 200, told
        assert told["session"]["status"] == "completed"
        assert told["escrow"]["status"] == status
    assert told["escrow"]["balance"] == "0.000000"
    other = await world.made(funded="10")
    session = await opened(world, other, "dispute", receiver)
    assert (await finished(world, session, {"reason": "It is late."}))[0] == 200
    session = await opened(world, other, "resolve_dispute", "disputeResolver")
    given = {"distributions": [{"email": payer, "amount": "10"}]}
    code, told = await finished(world, session, given)
    assert (code, told["escrow"]["status"]) == (200, "resolved")
    await assert_sound(world.house)


@pytest.mark.parametrize(
    ("action", "who", "code", "status"),
    [
        ("approve_milestone", "receiver", "ONLY_APPROVER_CAN_APPROVE", 403),
        ("change_milestone_status", "approver", "ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS", 403),
        ("release", "approver", "ONLY_RELEASE_SIGNER_CAN_RELEASE", 403),
        ("release", "releaseSigner", "ESCROW_NOT_COMPLETED", 409),
        ("dispute", "disputeResolver", "RESOLVER_CANNOT_DISPUTE", 403),
        ("dispute", "nobody@example.com", "UNAUTHORIZED_TO_DISPUTE", 403),
        ("resolve_dispute", "platform", "ONLY_DISPUTE_RESOLVER", 403),
        ("resolve_dispute", "disputeResolver", "ESCROW_NOT_IN_DISPUTE", 409),
        ("withdraw_remaining", "disputeResolver", "ESCROW_NOT_FULLY_PROCESSED", 409),
    ],
)
async def test_a_session_is_refused_with_the_steps_own_code(
    world: World, action: str, who: str, code: str, status: int
):
    path = await world.made()
    body = asked(world, action, who)
    await world.refused(code, status, "developer", "POST", f"{path}/sessions", body)


def test_the_actions_are_the_same_at_the_door_and_in_the_rules():
    asked = get_args(NewMilestoneSession.model_fields["action"].annotation)
    assert set(asked) == set(ACTIONS)
    assert set(ACTS) == set(TRIES) == {*ACTIONS, "note_dispute", "update"}


async def test_a_session_checks_where_it_returns_to_and_what_it_brings(world: World):
    no, path = world.refused, f"{await world.made()}/sessions"
    body = asked(world, "approve_milestone", "receiver", redirectUrl="https://else.example/")
    await no("REDIRECT_URL_NOT_ALLOWED", 409, "developer", "POST", path, body)
    body = asked(world, "approve_milestone", "approver", input={"indexes": "all"})
    await no("INVALID_PAYLOAD", 422, "developer", "POST", path, body)
    body = asked(world, "sign_contract", "approver")
    await no("INVALID_PAYLOAD", 422, "developer", "POST", path, body)
    await no("NO_ACCESS_TO_ESCROW", 403, "stranger", "POST", path, body)


async def test_a_refused_step_leaves_the_session_as_it_was(world: World):
    path = await world.made(amounts=("60", "40"))
    session = await opened(world, path, "approve_milestone", "approver")
    code, told = await finished(world, session, {"indexes": [7]})
    assert (code, told["code"]) == (404, "MILESTONE_NOT_FOUND")
    assert await standing(world, session) == "pending"
    code, told = await finished(world, session, {"indexes": [1]})
    assert (code, told["escrow"]["milestones"][1]["approved"]) == (200, True)
    code, told = await finished(world, session, {"indexes": [0]})
    assert (code, told["code"]) == (409, "SESSION_NOT_PENDING")


# ---- What a session keeps of its input -----------------------------------------------------------

ENTIRE = "1e2", "1E+2", "100", "100.0", '"100"', "0.1e3"


@pytest.mark.parametrize("written", ENTIRE)
async def test_an_amount_is_kept_as_it_was_meant_however_it_was_written(world: World, written: str):
    path = await world.made()
    body = asked(world, "fund", world.crew.payer.email, input={"amount": "AMOUNT"})
    raw = json.dumps(body).replace('"AMOUNT"', written)
    async with world.client.post(
        f"{PATH}{path}/sessions",
        data=raw,
        headers={"X-API-Key": world.keys["developer"], "Content-Type": "application/json"},
    ) as response:
        told = await response.json()
        assert response.status == 201, told
    code, told = await finished(world, told["sessionId"])
    assert (code, told["escrow"]["balance"]) == (200, "100.000000")


HUGE = 100_000_000_000_000_000_000


@pytest.mark.parametrize(
    ("action", "who", "given", "code", "status"),
    [
        ("fund", "payer", {"amount": HUGE}, "AMOUNT_TOO_LARGE", 422),
        (
            "fund",
            "payer",
            {"amount": 1, "expectedVersion": HUGE},
            "ESCROW_PROPERTIES_MISMATCH",
            409,
        ),
        ("approve_milestone", "approver", {"indexes": [HUGE]}, "MILESTONE_NOT_FOUND", 404),
        (
            "change_milestone_status",
            "serviceProvider",
            {"updates": [{"index": -HUGE, "status": "done"}]},
            "MILESTONE_NOT_FOUND",
            404,
        ),
        (
            "dispute",
            "approver",
            {"reason": "-", "milestoneIndexes": [HUGE]},
            "MILESTONE_NOT_FOUND",
            404,
        ),
    ],
)
async def test_a_number_beyond_all_bounds_is_refused_and_nothing_breaks(
    world: World, action: str, who: str, given: Any, code: str, status: int
):
    path = await world.made(amounts=("60", "40"))
    email = world.crew.payer.email if who == "payer" else who
    body = asked(world, action, email, input=given)
    await world.refused(code, status, "developer", "POST", f"{path}/sessions", body)


# (action, whose, multi's amounts, what is given, code, status): what could never be finished
HOPELESS = [
    ("fund", "payer", (), {"amount": "0"}, "AMOUNT_MUST_BE_POSITIVE", 422),
    ("fund", "payer", (), {"amount": "0.0000001"}, "INVALID_PAYLOAD", 422),
    ("fund", "payer", (), {"amount": "1", "from": "else@example.com"}, "ONLY_OWN_WALLET", 403),
    ("approve_milestone", "approver", (), {"indexes": [99]}, "MILESTONE_NOT_FOUND", 404),
    ("approve_milestone", "approver", (), {"indexes": []}, "BATCH_EMPTY", 422),
    ("approve_milestone", "receiver", (), {"indexes": [0]}, "ONLY_APPROVER_CAN_APPROVE", 403),
    ("change_milestone_status", "serviceProvider", (), {"updates": [{"index": 0, "status": ""}]},
     "EMPTY_MILESTONE_STATUS", 422),
    ("release", "releaseSigner", ("60", "40"), {}, "INVALID_PAYLOAD", 422),
    ("release", "releaseSigner", (), {"milestoneIndexes": [0]}, "INVALID_PAYLOAD", 422),
    ("release", "releaseSigner", ("60", "40"), {"milestoneIndexes": [1]},
     "MILESTONE_NOT_COMPLETED", 409),
    ("dispute", "approver", ("60", "40"), {"reason": "No."}, "INVALID_PAYLOAD", 422),
    ("dispute", "approver", (), {"reason": "x" * 501}, "STRING_TOO_LONG", 422),
    ("resolve_dispute", "disputeResolver", ("60", "40"),
     {"milestoneIndex": 0, "distributions": [{"email": "receiver", "amount": "60.5"}]},
     "DISTRIBUTIONS_EXCEED_MILESTONE", 422),
    ("resolve_dispute", "disputeResolver", ("60", "40"),
     {"milestoneIndex": 0, "distributions": [{"email": "new@example.com", "amount": "1"}]},
     "RECIPIENT_NOT_REGISTERED", 422),
    ("withdraw_remaining", "disputeResolver", (), {"distributions": []},
     "ESCROW_NOT_FULLY_PROCESSED", 409),
]  # fmt: skip


@pytest.mark.parametrize(("action", "who", "amounts", "given", "code", "status"), HOPELESS)
async def test_an_input_that_cannot_work_is_refused_when_the_session_is_made(
    world: World,
    action: str,
    who: str,
    amounts: tuple[str, ...],
    given: dict[str, Any],
    code: str,
    status: int,
):
    path = await world.made(funded="100", amounts=amounts)
    if action == "resolve_dispute":
        await world.disputed(path, 0)
    for part in given.get("distributions", ()):
        if part["email"] in NAMES:
            part["email"] = world.crew.email(NAMES[part["email"]])
    email = world.crew.payer.email if who == "payer" else who
    body = asked(world, action, email, input=given)
    await world.refused(code, status, "developer", "POST", f"{path}/sessions", body)


async def test_a_short_wallet_is_no_reason_to_refuse_a_session(world: World):
    path = await world.made()
    await opened(world, path, "fund", world.crew.stranger.email, input={"amount": "50"})
    await opened(world, path, "fund", "nobody-yet@example.com", input={"amount": "50"})


# ---- Who is bound -------------------------------------------------------------------------------


async def test_who_is_not_registered_is_looked_at_as_if_they_were(world: World):
    body = world.body()
    body["roles"]["approver"] = "one@example.com"
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    given = {"indexes": [0]}
    session = await opened(world, path, "approve_milestone", "one@example.com", input=given)
    await opened(world, path, "approve_milestone", "one@example.com")
    code, told = await finished(world, session)
    assert (code, told["code"]) == (409, "USER_NOT_REGISTERED")
    await world.refused(
        "ONLY_RELEASE_SIGNER_CAN_RELEASE", 403, "developer", "POST", f"{path}/sessions",
        asked(world, "release", "one@example.com", input={}),
    )  # fmt: skip


@pytest.mark.parametrize("email", ["one@example.com", "two@example.com"])
async def test_who_registered_with_another_e_mail_than_the_invited_one_acts_by_either(
    world: World, email: str
):
    body = world.body()
    body["roles"]["approver"] = "one@example.com"
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    [token] = await tokens_of(world.house, "one@example.com")
    await register(world, token, email="two@example.com")
    session = await opened(world, path, "approve_milestone", email)
    code, told = await finished(world, session, {"indexes": [0]})
    assert (code, told["escrow"]["milestones"][0]["approved"]) == (200, True), told
    session = await opened(world, path, "approve_milestone", email, input={"indexes": [1]})
    assert (await finished(world, session))[0] == 200
    for query in (f"participant={email}", f"role=approver&roleEmail={email}"):
        for order in ("", "&orderBy=amount"):
            _, told = await world.ask("developer", "GET", f"?{query}{order}")
            assert [f"/{one['id']}" for one in told["escrows"]] == [path], (query, order)
    _, told = await world.ask("developer", "GET", f"?role=platform&roleEmail={email}")
    assert told["escrows"] == []


async def test_an_input_that_was_given_is_not_given_again(world: World):
    path = await world.made()
    session = await opened(world, path, "fund", world.crew.payer.email, input={"amount": "1"})
    code, told = await finished(world, session, {"amount": "1000"})
    assert (code, told["code"]) == (422, "INVALID_PAYLOAD")
    code, told = await finished(world, session)
    assert (code, told["escrow"]["balance"]) == (200, "1.000000")


@pytest.mark.parametrize(
    ("action", "who", "given"),
    [
        ("fund", "payer", {"amount": "10"}),
        ("approve_milestone", "approver", {"indexes": [0]}),
        ("change_milestone_status", "serviceProvider", {"updates": [{"index": 0, "status": "ok"}]}),
        ("dispute", "receiver", {"reason": "-", "milestoneIndexes": [0]}),
    ],
)
async def test_an_input_stands_for_the_terms_that_it_was_given_for(
    world: World, action: str, who: str, given: Any
):
    """Which milestone an index names is another's choice until the step is taken."""
    path = await world.made(amounts=("60", "40"))
    email = world.crew.payer.email if who == "payer" else who
    bound = await opened(world, path, action, email, input=given)
    asking = await opened(world, path, action, email)
    body = world.body(amounts=("60", "40"))
    body["milestones"].reverse()
    before = (await world.done("platform", "PUT", path, body))["version"]
    for _ in range(2):
        code, told = await finished(world, bound)
        assert (code, told["code"]) == (409, "ESCROW_PROPERTIES_MISMATCH")
    assert await standing(world, bound) == "pending"
    assert before == 2
    other = await opened(world, path, action, email, input=given)
    assert (await finished(world, other))[0] == 200
    if action == "fund":
        assert (await finished(world, asking, given))[0] == 200


async def test_the_end_of_an_escrow_ends_its_sessions_but_for_the_remainder(world: World):
    path = await world.made(funded="120")
    payer = world.crew.payer.email
    funding = await opened(world, path, "fund", payer, input={"amount": "1"})
    await world.released(path)
    assert await standing(world, funding) == "cancelled"
    left = await opened(world, path, "withdraw_remaining", "disputeResolver")
    await assert_sound(world.house)
    await jump(world.house, timedelta(minutes=31))
    await sweep(world.house)
    assert await standing(world, left) == "expired"
    await assert_sound(world.house)


async def test_a_step_that_was_taken_by_another_way_ends_its_sessions(world: World):
    path = await world.made(amounts=("60", "40"), funded="100")
    approving = await opened(world, path, "approve_milestone", "approver")
    disputing = await opened(world, path, "dispute", "receiver")
    await world.approved(path, 0)
    assert await standing(world, approving) == "pending"
    releasing = await opened(world, path, "release", "releaseSigner")
    await world.approved(path, 1)
    assert await standing(world, approving) == "cancelled"
    await world.disputed(path, 0)
    assert [await standing(world, one) for one in (releasing, disputing)] == ["pending"] * 2
    await world.disputed(path, 1)
    assert [await standing(world, one) for one in (releasing, disputing)] == ["cancelled"] * 2
    resolving = await opened(world, path, "resolve_dispute", "disputeResolver")
    body = {"milestoneIndex": 0, "distributions": world.shares(("receiver", "60"))}
    await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", body)
    assert await standing(world, resolving) == "pending"
    await assert_sound(world.house)


async def test_a_session_ends_when_its_own_milestones_are_done_with(world: World):
    """It could only ever be refused; those that ask, or name others, stand."""
    path = await world.made(amounts=("60", "40", "20"), funded="120")
    status = {"status": "done"}
    kept: dict[str, list[str]] = {}
    over: dict[str, list[str]] = {}

    async def open_of(action: str, who: str, gone: Any, left: Any) -> None:
        over[action] = [await opened(world, path, action, who, input=one) for one in gone]
        kept[action] = [await opened(world, path, action, who, input=one) for one in left]
        kept[action].append(await opened(world, path, action, who))

    async def check(action: str) -> None:
        assert {await standing(world, one) for one in over[action]} == {"cancelled"}, action
        assert {await standing(world, one) for one in kept[action]} == {"pending"}, action

    def named(*groups: list[int]) -> list[dict[str, Any]]:
        return [{"reason": "-", "milestoneIndexes": group} for group in groups]

    gone = [{"indexes": [0]}, {"indexes": [1, 0]}]
    await open_of("approve_milestone", "approver", gone, [{"indexes": [1]}])
    await world.approved(path, 0)
    await check("approve_milestone")
    await open_of("dispute", "receiver", named([1], [0, 1]), named([0], [2, 0]))
    await world.disputed(path, 1)
    await check("dispute")
    updates = [{"updates": [{"index": n, **status}]} for n in range(3)]
    await open_of("change_milestone_status", "serviceProvider", [updates[0]], updates[1:])
    await world.approved(path, 2)
    pair = [{"milestoneIndexes": [0]}, {"milestoneIndexes": [2, 0]}]
    await open_of("release", "releaseSigner", pair, [{"milestoneIndexes": [2]}])
    await world.done("releaseSigner", "POST", f"{path}/release", {"milestoneIndexes": [0]})
    await check("release")
    await check("change_milestone_status")
    await world.disputed(path, 2)
    to = {"distributions": world.shares(("receiver", "1"))}
    parts = [{"milestoneIndex": index, **to} for index in (1, 2)]
    await open_of("resolve_dispute", "disputeResolver", parts[:1], parts[1:])
    await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", parts[0])
    await check("resolve_dispute")
    await assert_sound(world.house)


async def test_the_last_release_of_what_is_approved_ends_the_sessions_to_release(world: World):
    path = await world.made(amounts=("60", "40"), funded="100")
    await world.approved(path, 0)
    releasing = await opened(world, path, "release", "releaseSigner")
    body = {"milestoneIndexes": [0]}
    await world.done("releaseSigner", "POST", f"{path}/release", body)
    assert await standing(world, releasing) == "cancelled"


async def test_a_role_that_was_given_to_another_ends_its_sessions(world: World):
    path = await world.made()
    was, others = "approver", ("serviceProvider", "receiver")
    sessions = [
        await opened(world, path, "approve_milestone", was),
        await opened(world, path, "dispute", was),
        await opened(world, path, "change_milestone_status", others[0]),
        await opened(world, path, "dispute", others[1]),
    ]
    body = world.body()
    body["roles"]["approver"] = world.crew.stranger.email
    await world.done("platform", "PUT", path, body)
    left = [await standing(world, one) for one in sessions]
    assert left == ["cancelled", "cancelled", "pending", "pending"]


async def test_a_step_done_by_another_way_ends_its_sessions_once_nothing_of_it_is_left(
    world: World,
):
    path = await world.made(amounts=("60", "40"), funded="130")
    approving = await opened(world, path, "approve_milestone", "approver")
    disputing = await opened(world, path, "dispute", "receiver")
    await world.approved(path, 0)
    assert await standing(world, approving) == "pending"
    await world.approved(path, 1)
    assert await standing(world, approving) == "cancelled"
    await world.disputed(path, 0)
    assert await standing(world, disputing) == "pending"
    resolving = await opened(world, path, "resolve_dispute", "disputeResolver")
    await world.disputed(path, 1)
    assert await standing(world, disputing) == "cancelled"
    to_receiver = world.shares(("receiver", "1"))
    for index, status in ((0, "pending"), (1, "cancelled")):
        given = {"milestoneIndex": index, "distributions": to_receiver}
        await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", given)
        assert await standing(world, resolving) == status
    left = await opened(world, path, "withdraw_remaining", "disputeResolver")
    for amount, status in (("100", "pending"), ("28", "cancelled")):
        given = {"distributions": world.shares(("receiver", amount))}
        await world.done("disputeResolver", "POST", f"{path}/withdraw-remaining", given)
        assert await standing(world, left) == status
    await assert_sound(world.house)


async def test_anybody_acts_in_the_sandbox(world: World):
    path = await world.made()

    async def act(who: str, step: str, given: Any) -> tuple[int, Any]:
        async with world.client.post(
            f"/api/v1/sandbox/milestone-escrows{path}/act",
            json={"email": who, "step": step, "input": given},
            headers={"X-API-Key": world.keys["stranger"]},
        ) as response:
            return response.status, await response.json()

    payer = world.crew.payer.email
    status, told = await act(payer, "fund", {"amount": "2.5"})
    assert (status, told["escrow"]["balance"]) == (200, "2.500000")
    status, told = await act(payer, "release", {})
    assert (status, told["code"]) == (403, "ONLY_RELEASE_SIGNER_CAN_RELEASE")
    status, told = await act(payer, "deliver", {})
    assert (status, "step" in told["details"]) == (400, True)
