"""Sessions of the milestone family: whoever holds a role acts behind a shop's link."""

from datetime import timedelta
from typing import Any, get_args

import pytest

from service.commands.deadlines import sweep
from service.ingress.api.milestones import ACTS
from service.rules.milestone_outlook import TRIES
from service.rules.milestone_session import ACTIONS
from service.wire.sessions import NewMilestoneSession
from tests.books import assert_sound
from tests.makers import jump
from tests.service.ingress.api.milestone_world import NAMES, World, make_world

BACK = "https://shop.example/back"


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
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


async def test_an_input_that_was_given_is_not_given_again(world: World):
    path = await world.made()
    session = await opened(world, path, "fund", world.crew.payer.email, input={"amount": "1"})
    code, told = await finished(world, session, {"amount": "1000"})
    assert (code, told["code"]) == (422, "INVALID_PAYLOAD")
    code, told = await finished(world, session)
    assert (code, told["escrow"]["balance"]) == (200, "1.000000")


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
