"""Every check of milestones.md 4, in its order: the first that fails answers.

Each test is a ladder: it begins with a request that fails every check, and takes one fault away
at a time. What is refused has changed no row of any table.
"""

import orjson
import pytest

from service.rules.machine import Role
from tests.makers import top_up
from tests.service.ingress.api.milestone_world import PATH, World, make_world

NOBODY = "nobody-yet@example.com"


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def world(house, client) -> World:
    return await make_world(house, client)


def roles(world: World, **changes: str) -> dict[str, str]:
    return {**world.body()["roles"], **changes}


# ---- Create -------------------------------------------------------------------------------------


@pytest.mark.parametrize("amounts", [(), ("0", "0")])
async def test_create_checks_in_order(world: World, amounts):
    resolver_twice = roles(world, disputeResolver=world.crew.email(Role.APPROVER))
    parts = world.body(amounts=amounts)["milestones"]
    flagged = [{**one, "approved": True} for one in parts]
    body = world.body(amounts=amounts, platformFeeBps=9901, title="x" * 201, roles=resolver_twice)
    if not amounts:
        body["amount"] = "0"
    no = world.refused
    body["milestones"] = flagged if amounts else []
    await no("PLATFORM_FEE_TOO_HIGH", 422, "developer", "POST", "", body)
    body["platformFeeBps"] = 9900
    await no("AMOUNT_MUST_BE_POSITIVE", 422, "developer", "POST", "", body)
    if not amounts:
        body["amount"] = 100
    await no("NO_MILESTONE_DEFINED", 422, "developer", "POST", "", {**body, "milestones": []})
    flagged = [{**one, **({"amount": "50"} if amounts else {})} for one in flagged]
    body["milestones"] = flagged * 26
    await no("TOO_MANY_MILESTONES", 422, "developer", "POST", "", body)
    body["milestones"] = flagged
    await no("FLAGS_MUST_BE_FALSE", 422, "developer", "POST", "", body)
    body["milestones"] = [{**one, "approved": False} for one in flagged]
    await no("STRING_TOO_LONG", 422, "developer", "POST", "", body)
    body["title"] = "x" * 200
    body["milestones"][0]["description"] = "x" * 501
    await no("STRING_TOO_LONG", 422, "developer", "POST", "", body)
    body["milestones"][0]["description"] = "x" * 500
    await no("RESOLVER_MUST_BE_INDEPENDENT", 422, "developer", "POST", "", body)
    body["roles"] = roles(world)
    assert (await world.done("developer", "POST", "", body))["status"] == "working"


async def test_the_resolver_receives_no_milestone(world: World):
    body = world.body(amounts=("1", "2"))
    body["milestones"][1]["receiver"] = world.crew.email(Role.DISPUTE_RESOLVER)
    await world.refused("RESOLVER_MUST_BE_INDEPENDENT", 422, "developer", "POST", "", body)


@pytest.mark.parametrize(
    ("field", "limit"),
    [("engagementId", 100), ("title", 200), ("description", 2000), ("receiverMemo", 200)],
)
async def test_every_text_has_its_limit(world: World, field: str, limit: int):
    body = world.body(**{field: "x" * (limit + 1)})
    await world.refused("STRING_TOO_LONG", 422, "developer", "POST", "", body)
    await world.done("developer", "POST", "", {**body, field: "x" * limit})


async def test_an_amount_beyond_the_bound_is_too_large(world: World):
    body = world.body(amount="900000000.000001")
    await world.refused("AMOUNT_TOO_LARGE", 422, "developer", "POST", "", body)
    half = world.body(amounts=("500000000", "400000000.000001"))
    await world.refused("AMOUNT_TOO_LARGE", 422, "developer", "POST", "", half)


async def test_no_amount_of_a_step_is_beyond_the_bound(world: World):
    """Above what the ledger keeps it is the amount that is wrong, whatever the pool has."""
    no, over = world.refused, "900000000.000001"
    single, multi = await world.made(), await world.made(amounts=("60", "40"))
    for path in (single, multi):
        await no("AMOUNT_TOO_LARGE", 422, "payer", "POST", f"{path}/fund", {"amount": over})
        most = {"amount": "900000000"}
        await no("FUNDING_LIMIT_EXCEEDED", 409, "payer", "POST", f"{path}/fund", most)
        body = {"distributions": world.shares((NOBODY, over))}
        await no("AMOUNT_TOO_LARGE", 422, "stranger", "POST", f"{path}/withdraw-remaining", body)
        index = {} if path == single else {"milestoneIndex": 0}
        ask = ("stranger", "POST", f"{path}/resolve-dispute", {**body, **index})
        await no("AMOUNT_TOO_LARGE", 422, *ask)


# ---- Fund ---------------------------------------------------------------------------------------


async def test_fund_checks_in_order(world: World):
    no, over = world.refused, "100000.000001"
    final = await world.made(funded="100")
    await world.released(final)
    settled = await world.made(funded="100")
    await world.resolved(settled, "100")
    other = {"from": "someone@example.com", "expectedVersion": 9}
    for path, code in ((final, "ESCROW_ALREADY_RELEASED"), (settled, "ESCROW_ALREADY_RESOLVED")):
        ask = ("payer", "POST", f"{path}/fund")
        await no("AMOUNT_MUST_BE_POSITIVE", 422, *ask, {"amount": "0", **other})
        await no("AMOUNT_MUST_BE_POSITIVE", 422, *ask, {"amount": "-1", **other})
        await no("ESCROW_PROPERTIES_MISMATCH", 409, *ask, {"amount": over, **other})
        await no(code, 409, *ask, {"amount": over, **other, "expectedVersion": 1})
    live = f"{await world.made()}/fund"
    given = {"amount": over, "from": "someone@example.com", "expectedVersion": 1}
    await no("FUNDING_LIMIT_EXCEEDED", 409, "receiver", "POST", live, given)
    given["amount"] = "100000"
    await no("ONLY_OWN_WALLET", 403, "receiver", "POST", live, given)
    await no("INSUFFICIENT_FUNDS", 409, "receiver", "POST", live, {"amount": "100000"})
    await world.done("payer", "POST", live, {"amount": "100000", "expectedVersion": 1})


# ---- Status and approval ------------------------------------------------------------------------


async def test_change_status_checks_in_order(world: World):
    no, path = world.refused, await world.made(amounts=("60", "40"), funded="100")
    far = f"{path}/milestones/9/status"
    ask = ("POST", far)
    await no("ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS", 403, "stranger", *ask, {"status": ""})
    for index in ("x", "-1", "9" * 12, "1.0"):
        odd = ("POST", f"{path}/milestones/{index}/status")
        await no("ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS", 403, "stranger", *odd, {"status": ""})
        await no("EMPTY_MILESTONE_STATUS", 422, "serviceProvider", *odd, {"status": ""})
        await no("MILESTONE_NOT_FOUND", 404, "serviceProvider", *odd, {"status": "done"})
    batch = ("stranger", "POST", f"{path}/milestones/status", {"updates": []})
    await no("ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS", 403, *batch)
    await no("EMPTY_MILESTONE_STATUS", 422, "serviceProvider", *ask, {"status": "  "})
    await no("STRING_TOO_LONG", 422, "serviceProvider", *ask, {"status": "x" * 51})
    long = {"status": "done", "evidence": "x" * 501}
    await no("STRING_TOO_LONG", 422, "serviceProvider", *ask, long)
    await no("MILESTONE_NOT_FOUND", 404, "serviceProvider", *ask, {"status": "done"})
    await world.released(path, 0)
    await world.resolved(path, "40", 1)
    for index, code in ((0, "MILESTONE_ALREADY_RELEASED"), (1, "MILESTONE_ALREADY_RESOLVED")):
        given = (f"{path}/milestones/{index}/status", {"status": "done"})
        await no(code, 409, "serviceProvider", "POST", *given)


async def test_approve_checks_in_order(world: World):
    no = world.refused
    path = await world.made(amounts=("60", "40", "10"), funded="110")
    await no("MILESTONE_NOT_FOUND", 404, "stranger", "POST", f"{path}/milestones/3/approve")
    await no("ONLY_APPROVER_CAN_APPROVE", 403, "stranger", "POST", f"{path}/milestones/0/approve")
    await world.released(path, 0)
    await world.resolved(path, "40", 1)
    await world.approved(path, 2)
    for index, code in enumerate(
        ("MILESTONE_ALREADY_RELEASED", "MILESTONE_ALREADY_RESOLVED", "MILESTONE_ALREADY_APPROVED")
    ):
        await no(code, 409, "approver", "POST", f"{path}/milestones/{index}/approve")
    released, resolved = await world.made(funded="100"), await world.made(funded="100")
    await world.released(released)
    await world.resolved(resolved, "100")
    for single, code in (
        (released, "ESCROW_ALREADY_RELEASED"),
        (resolved, "ESCROW_ALREADY_RESOLVED"),
    ):
        await no(code, 409, "approver", "POST", f"{single}/milestones/0/approve")


# ---- Release ------------------------------------------------------------------------------------


async def test_release_of_single_checks_in_order(world: World):
    no = world.refused
    released, resolved = await world.made(funded="100"), await world.made(funded="100")
    await world.released(released)
    await world.resolved(resolved, "100")
    await no("ESCROW_ALREADY_RELEASED", 409, "stranger", "POST", f"{released}/release")
    await no("ESCROW_ALREADY_RESOLVED", 409, "stranger", "POST", f"{resolved}/release")
    path = await world.made(roles=roles(world, receiver=NOBODY))
    ask = ("POST", f"{path}/release")
    await world.approved(path, 0)
    await world.disputed(path)
    await no("ONLY_RELEASE_SIGNER_CAN_RELEASE", 403, "stranger", *ask)
    await no("ESCROW_NOT_COMPLETED", 409, "releaseSigner", *ask)
    await world.approved(path, 1)
    await no("ESCROW_IN_DISPUTE", 409, "releaseSigner", *ask)
    calm = await world.made(roles=roles(world, receiver=NOBODY), funded="99.999999")
    await world.approved(calm, 0, 1)
    ask = ("POST", f"{calm}/release")
    await no("ESCROW_BALANCE_NOT_ENOUGH", 409, "releaseSigner", *ask)
    await world.done("payer", "POST", f"{calm}/fund", {"amount": "0.000001"})
    await no("RECEIVER_NOT_REGISTERED", 409, "releaseSigner", *ask)


async def test_a_platform_with_a_fee_must_be_registered(world: World):
    changed = {"roles": roles(world, platform=NOBODY), "funded": "100"}
    path, free = await world.made(**changed), await world.made(**changed, platformFeeBps=0)
    await world.approved(path, 0, 1)
    await world.approved(free, 0, 1)
    ask = ("releaseSigner", "POST")
    await world.refused("RECEIVER_NOT_REGISTERED", 409, *ask, f"{path}/release")
    assert (await world.done(*ask, f"{free}/release"))["status"] == "released"


async def test_release_of_multi_checks_in_order(world: World):
    no = world.refused
    path = await world.made(amounts=("60", "40", "10", "10"), funded="100")
    ask = ("POST", f"{path}/release")

    def named(*indexes: int):
        return {"milestoneIndexes": list(indexes)}

    for indexes in ((), (0, 0), range(51), (9, 0)):
        await no("ONLY_RELEASE_SIGNER_CAN_RELEASE", 403, "stranger", *ask, named(*indexes))
    await no("MILESTONE_NOT_FOUND", 404, "releaseSigner", *ask, named(0, 9))
    await world.released(path, 0)
    await no("MILESTONE_ALREADY_RELEASED", 409, "releaseSigner", *ask, named(0))
    await world.resolved(path, "40", 1)
    await no("MILESTONE_ALREADY_RESOLVED", 409, "releaseSigner", *ask, named(1))
    await world.disputed(path, 2)
    await no("MILESTONE_NOT_COMPLETED", 409, "releaseSigner", *ask, named(2))
    await world.approved(path, 2, 3)
    await no("MILESTONE_IN_DISPUTE", 409, "releaseSigner", *ask, named(3, 2))
    await no("ESCROW_BALANCE_NOT_ENOUGH", 409, "releaseSigner", *ask, named(3))
    await world.done("payer", "POST", f"{path}/fund", {"amount": "10"})
    assert (await world.done("releaseSigner", *ask, named(3)))["milestones"][3]["released"]


async def test_a_milestones_own_receiver_must_be_registered(world: World):
    body = world.body(amounts=("60", "40"))
    body["milestones"][0]["receiver"] = NOBODY
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    await world.done("payer", "POST", f"{path}/fund", {"amount": "100"})
    await world.approved(path, 0, 1)
    ask = ("releaseSigner", "POST", f"{path}/release")
    no = {"milestoneIndexes": [1, 0]}
    await world.refused("RECEIVER_NOT_REGISTERED", 409, *ask, no)
    await world.done(*ask, {"milestoneIndexes": [1]})


# ---- Dispute ------------------------------------------------------------------------------------


async def test_dispute_of_single_checks_in_order(world: World):
    no, why = world.refused, {"reason": "It is late."}
    disputed, resolved, released = [await world.made(funded="100") for _ in range(3)]
    await world.disputed(disputed)
    await world.resolved(resolved, "100")
    await world.released(released)
    await no("ESCROW_ALREADY_IN_DISPUTE", 409, "stranger", "POST", f"{disputed}/dispute", why)
    await no("ESCROW_ALREADY_RESOLVED", 409, "stranger", "POST", f"{resolved}/dispute", why)
    await no("ESCROW_ALREADY_RELEASED", 409, "stranger", "POST", f"{released}/dispute", why)
    path = f"{await world.made()}/dispute"
    await no("UNAUTHORIZED_TO_DISPUTE", 403, "stranger", "POST", path, why)
    await no("RESOLVER_CANNOT_DISPUTE", 403, "disputeResolver", "POST", path, why)
    await no("STRING_TOO_LONG", 422, "stranger", "POST", path, {"reason": "x" * 501})
    for who in ("approver", "serviceProvider", "platform", "releaseSigner", "receiver"):
        one = f"{await world.made()}/dispute"
        assert (await world.done(who, "POST", one, why))["status"] == "inDispute"


async def test_dispute_of_multi_checks_in_order(world: World):
    no = world.refused
    body = world.body(amounts=("60", "40", "10", "10", "10"))
    body["milestones"][3]["receiver"] = world.crew.stranger.email
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    await world.done("payer", "POST", f"{path}/fund", {"amount": "130"})
    await world.disputed(path, 0)
    await world.resolved(path, "40", 1)
    await world.released(path, 2)
    ask = ("POST", f"{path}/dispute")

    def about(*indexes: int):
        return {"reason": "It is late.", "milestoneIndexes": list(indexes)}

    await no("STRING_TOO_LONG", 422, "payer", *ask, {**about(0, 9), "reason": "x" * 501})
    await no("MILESTONE_NOT_FOUND", 404, "payer", *ask, about(0, 9))
    await no("MILESTONE_ALREADY_IN_DISPUTE", 409, "payer", *ask, about(0))
    await no("MILESTONE_ALREADY_RESOLVED", 409, "payer", *ask, about(1))
    await no("MILESTONE_ALREADY_RELEASED", 409, "payer", *ask, about(2))
    await no("UNAUTHORIZED_TO_DISPUTE", 403, "payer", *ask, about(3))
    await no("RESOLVER_CANNOT_DISPUTE", 403, "disputeResolver", *ask, about(3))
    await no("UNAUTHORIZED_TO_DISPUTE", 403, "stranger", *ask, about(3, 4))
    assert (await world.done("stranger", *ask, about(3)))["milestones"][3]["disputed"]
    assert (await world.done("receiver", *ask, about(4)))["milestones"][4]["disputed"]


async def test_a_note_checks_in_order(world: World):
    no = world.refused
    path = await world.made(amounts=("60", "40"))
    ask = ("POST", f"{path}/dispute-notes")
    long = {"text": "x" * 2001, "milestoneIndex": 9}
    await no("STRING_TOO_LONG", 422, "stranger", *ask, long)
    given = {**long, "text": "x" * 2000}
    await no("ONLY_ROLE_HOLDERS_CAN_NOTE", 403, "stranger", *ask, given)
    await no("ONLY_ROLE_HOLDERS_CAN_NOTE", 403, "payer", *ask, given)
    await no("MILESTONE_NOT_FOUND", 404, "receiver", *ask, given)
    about = {"text": "Look.", "milestoneIndex": 1}
    await no("MILESTONE_NOT_IN_DISPUTE", 409, "receiver", *ask, about)
    await no("ESCROW_NOT_IN_DISPUTE", 409, "receiver", *ask, {"text": "Look."})
    await world.disputed(path, 0)
    await no("MILESTONE_NOT_IN_DISPUTE", 409, "receiver", *ask, about)
    for who in ("approver", "platform", "releaseSigner", "disputeResolver", "receiver"):
        await world.done(who, *ask, {"text": "Look."})
    await world.done("receiver", *ask, {"text": "Look.", "milestoneIndex": 0})


# ---- Resolution ---------------------------------------------------------------------------------


async def test_resolve_of_single_checks_in_order(world: World):
    no, path = world.refused, await world.made(funded="100")
    ask = ("POST", f"{path}/resolve-dispute")
    crowd = [{"email": f"p{n}@example.com", "amount": "1"} for n in range(51)]

    def to(*given):
        return {"distributions": world.shares(*given)}

    none = [{**one, "amount": "0"} for one in crowd]
    await no("AMOUNTS_MUST_BE_POSITIVE", 422, "stranger", *ask, {"distributions": none})
    for less in ("-1", -1, "-0.000001"):
        below = to(("receiver", "1"), (NOBODY, less))
        await no("AMOUNTS_MUST_BE_POSITIVE", 422, "stranger", *ask, below)
    await no("TOO_MANY_DISTRIBUTIONS", 422, "stranger", *ask, {"distributions": crowd})
    twice = to((NOBODY, "150"), (NOBODY.upper(), "1"))
    await no("DUPLICATE_RECIPIENT", 422, "stranger", *ask, twice)
    await no("RECIPIENT_NOT_REGISTERED", 422, "stranger", *ask, to((NOBODY, "150")))
    await no("ONLY_DISPUTE_RESOLVER", 403, "stranger", *ask, to(("receiver", "150")))
    by = "disputeResolver"
    await no("ESCROW_NOT_IN_DISPUTE", 409, by, *ask, to(("receiver", "150")))
    await world.disputed(path)
    over = to(("receiver", "50"), (world.crew.payer.email, "50.000001"))
    await no("INSUFFICIENT_FUNDS_FOR_RESOLUTION", 409, by, *ask, over)
    await no("DISTRIBUTIONS_MUST_EQUAL_BALANCE", 422, by, *ask, to(("receiver", "99.999999")))
    await no("DISTRIBUTIONS_MUST_EQUAL_BALANCE", 422, by, *ask, to())
    empty = await world.made()
    await world.disputed(empty)
    await no("TOTAL_MUST_BE_POSITIVE", 422, by, "POST", f"{empty}/resolve-dispute", to())
    half = to(("receiver", "50"), (world.crew.payer.email, "50"))
    after = await world.done(by, *ask, half)
    assert after["flags"] == {"disputed": False, "released": False, "resolved": True}


async def test_resolve_of_multi_checks_in_order(world: World):
    no = world.refused
    path = await world.made(amounts=("60", "40", "10", "10"), funded="105")
    ask, by = ("POST", f"{path}/resolve-dispute"), "disputeResolver"

    def to(index, *given):
        return {"milestoneIndex": index, "distributions": world.shares(*given)}

    await world.released(path, 0)
    await world.resolved(path, "40", 1)
    crowd = [{"email": f"p{n}@example.com", "amount": "1"} for n in range(51)]
    await no("MILESTONE_NOT_FOUND", 404, "stranger", *ask, to(4, ("receiver", "0")))
    await no("MILESTONE_NOT_FOUND", 404, "stranger", *ask, to("-1", ("receiver", "0")))
    for less in ("0", "-1", -1, "-0.000001"):
        below = to(0, ("receiver", "1"), (NOBODY, less))
        await no("AMOUNTS_MUST_BE_POSITIVE", 422, "stranger", *ask, below)
    many = {"milestoneIndex": 0, "distributions": crowd}
    await no("TOO_MANY_DISTRIBUTIONS", 422, "stranger", *ask, many)
    twice = to(0, (NOBODY, "1"), (NOBODY.upper(), "1"))
    await no("DUPLICATE_RECIPIENT", 422, "stranger", *ask, twice)
    await no("RECIPIENT_NOT_REGISTERED", 422, "stranger", *ask, to(0, (NOBODY, "1")))
    await no("ONLY_DISPUTE_RESOLVER", 403, "stranger", *ask, to(0, ("receiver", "99")))
    await no("MILESTONE_ALREADY_RELEASED", 409, by, *ask, to(0, ("receiver", "99")))
    await no("MILESTONE_ALREADY_RESOLVED", 409, by, *ask, to(1, ("receiver", "99")))
    await no("MILESTONE_NOT_IN_DISPUTE", 409, by, *ask, to(2, ("receiver", "99")))
    await world.disputed(path, 2, 3)
    await no("DISTRIBUTIONS_EXCEED_MILESTONE", 422, by, *ask, to(2, ("receiver", "10.000001")))
    await no("INSUFFICIENT_FUNDS_FOR_RESOLUTION", 409, by, *ask, to(2, ("receiver", "10")))
    await no("TOTAL_MUST_BE_POSITIVE", 422, by, *ask, to(2))
    after = await world.done(by, *ask, to("2", ("receiver", "4")))
    assert (after["milestones"][2]["status"], after["balance"]) == ("resolved", "1.000000")
    assert after["status"] == "inDispute"


async def test_withdraw_remaining_checks_in_order(world: World):
    no, path = world.refused, await world.made(amounts=("60", "40"), funded="120")
    ask, by = ("POST", f"{path}/withdraw-remaining"), "disputeResolver"

    def to(*given):
        return {"distributions": world.shares(*given)}

    crowd = [{"email": f"p{n}@example.com", "amount": "1"} for n in range(51)]
    for less in ("0", "-1", -1, "-0.000001"):
        below = to(("receiver", "1"), (NOBODY, less))
        await no("AMOUNTS_MUST_BE_POSITIVE", 422, "stranger", *ask, below)
    await no("TOO_MANY_DISTRIBUTIONS", 422, "stranger", *ask, {"distributions": crowd})
    twice = to((NOBODY, "1"), (NOBODY.upper(), "1"))
    await no("DUPLICATE_RECIPIENT", 422, "stranger", *ask, twice)
    await no("RECIPIENT_NOT_REGISTERED", 422, "stranger", *ask, to((NOBODY, "1")))
    await no("ONLY_DISPUTE_RESOLVER", 403, "stranger", *ask, to(("receiver", "1")))
    await no("ESCROW_NOT_FULLY_PROCESSED", 409, by, *ask, to())
    await world.released(path, 0)
    await world.disputed(path, 1)
    await no("ESCROW_NOT_FULLY_PROCESSED", 409, by, *ask, to(("receiver", "1")))
    body = {"milestoneIndex": 1, "distributions": world.shares(("receiver", "30"))}
    await world.done(by, "POST", f"{path}/resolve-dispute", body)
    await no("TOTAL_MUST_BE_POSITIVE", 422, by, *ask, to())
    await no("INSUFFICIENT_FUNDS_FOR_RESOLUTION", 409, by, *ask, to(("receiver", "30.000001")))
    payer = world.crew.payer.email
    assert (await world.done(by, *ask, to((payer, "10"))))["balance"] == "20.000000"
    assert (await world.done(by, *ask, to((payer, "20"))))["balance"] == "0.000000"
    await no("INSUFFICIENT_FUNDS_FOR_RESOLUTION", 409, by, *ask, to((payer, "0.000001")))


# ---- Update -------------------------------------------------------------------------------------


async def test_update_checks_in_order(world: World):
    no = world.refused
    disputed, released, resolved, live = [await world.made(funded="100") for _ in range(4)]
    await world.disputed(disputed)
    await world.released(released)
    await world.resolved(resolved, "100")
    other_platform = roles(world, platform="other@example.com")
    body = world.body(platformFeeBps=9901, title="Another", roles=other_platform)
    ask = ("stranger", "PUT", disputed)
    await no("PLATFORM_FEE_TOO_HIGH", 422, *ask, body)
    body["platformFeeBps"] = 600
    await no("ONLY_PLATFORM_CAN_UPDATE", 403, *ask, body)
    await no("PLATFORM_CANNOT_BE_CHANGED", 409, "platform", "PUT", disputed, body)
    body = {**body, "roles": roles(world), "expectedVersion": 7}
    for path, code in (
        (disputed, "ESCROW_IN_DISPUTE"),
        (released, "ESCROW_ALREADY_RELEASED"),
        (resolved, "ESCROW_ALREADY_RESOLVED"),
        (live, "ESCROW_PROPERTIES_MISMATCH"),
    ):
        await no(code, 409, "platform", "PUT", path, body)
    for change in ({"title": "Another"}, {"platformFeeBps": 499}, {"amount": "101"}):
        changed = world.body(**change)
        await no("ESCROW_PROPERTIES_MISMATCH", 409, "platform", "PUT", live, changed)
    for path, code in (
        (disputed, "ESCROW_IN_DISPUTE"),
        (released, "ESCROW_ALREADY_RELEASED"),
        (resolved, "ESCROW_ALREADY_RESOLVED"),
    ):  # also with what stands already
        await no(code, 409, "platform", "PUT", path, world.body())


@pytest.mark.parametrize("amounts", [(), ("60", "40")])
async def test_an_update_checks_every_field_before_the_role(world: World, amounts):
    """And before anything that the escrow's standing says: this one is disputed."""
    path = await world.made(amounts=amounts, funded="100")
    await world.disputed(path, *([0] if amounts else []))
    resolver_twice = roles(world, disputeResolver=world.crew.email(Role.APPROVER))
    body = world.body(amounts=amounts, platformFeeBps=9901, title="x" * 201, roles=resolver_twice)
    first, second = body["milestones"]
    flagged = {**first, "released": True}
    ask = ("stranger", "PUT", path)

    async def no(code: str, status: int = 422) -> None:
        await world.refused(code, status, *ask, body)

    body["milestones"] = [first, {**second, "amount": "0"}, flagged] if amounts else []
    if not amounts:
        body["amount"] = "0"
    await no("PLATFORM_FEE_TOO_HIGH")
    body["platformFeeBps"] = 9900
    await no("AMOUNT_MUST_BE_POSITIVE")
    if not amounts:
        body["amount"] = "900000000.000001"
        await no("AMOUNT_TOO_LARGE")
        body["amount"] = "100"
    body["milestones"] = []
    await no("NO_MILESTONE_DEFINED")
    body["milestones"] = [first, second, flagged] * 17
    await no("TOO_MANY_MILESTONES")
    body["milestones"] = [{**first, "approved": True}, {**second, "disputed": True}, flagged]
    await no("FLAGS_MUST_BE_FALSE")
    body["milestones"][2] = {**first, "description": "x" * 501}
    await no("STRING_TOO_LONG")
    body["title"] = "x" * 200
    await no("STRING_TOO_LONG")
    body["milestones"][2] = {**first, "description": "x" * 500}
    await no("RESOLVER_MUST_BE_INDEPENDENT")
    body["roles"] = roles(world)
    await no("ONLY_PLATFORM_CAN_UPDATE", 403)


async def test_an_approved_milestone_of_an_unfunded_escrow_keeps_the_terms(world: World):
    path = await world.made()
    await world.approved(path, 1)
    body = world.body(title="Another")
    await world.refused("MILESTONE_APPROVED_CANNOT_CHANGE", 409, "platform", "PUT", path, body)
    assert (await world.done("platform", "PUT", path, world.body()))["version"] == 1


async def test_once_funded_only_open_descriptions_and_more_milestones_are_taken(world: World):
    no = world.refused
    path = await world.made(amounts=("60", "40"), funded="60")
    await world.approved(path, 0)
    body = world.body(amounts=("60", "40"))
    first, second = body["milestones"]
    mismatch = ("ESCROW_PROPERTIES_MISMATCH", 409, "platform", "PUT", path)
    for parts in (
        [first],
        [{**first, "description": "Else"}, second],
        [first, {**second, "amount": "41"}],
        [first, {**second, "receiver": world.crew.payer.email}],
        [second, first],
    ):
        await no(*mismatch, {**body, "milestones": parts})
    third = {"description": "More", "amount": "5"}
    taken = [first, {**second, "description": "Else"}, third]
    after = await world.done("platform", "PUT", path, {**body, "milestones": taken})
    assert (after["version"], after["amount"], after["status"]) == (
        2,
        "105.000000",
        "pendingRelease",
    )
    assert after["milestones"][0]["approved"]


async def test_the_description_of_what_was_never_approved_can_be_edited_after_its_resolution(
    world: World,
):
    path = await world.made(amounts=("60", "40"), funded="60")
    await world.resolved(path, "50", 0)
    body = world.body(amounts=("60", "40"))
    body["milestones"][0]["description"] = "Else"
    after = await world.done("platform", "PUT", path, body)
    assert (after["version"], after["milestones"][0]["description"]) == (2, "Else")
    body["milestones"][0]["amount"] = "61"
    await world.refused("ESCROW_PROPERTIES_MISMATCH", 409, "platform", "PUT", path, body)


async def test_the_sum_that_get_adds_in_multi_is_ignored_by_put(world: World):
    """Whoever appends a milestone to what GET returned sends the old sum back."""
    path = await world.made(amounts=("60", "40"))
    _, got = await world.ask("developer", "GET", path)
    more = [*got["escrow"]["milestones"], {"description": "More", "amount": "5"}]
    body = {**got["escrow"], "milestones": more}
    assert body["amount"] == "100.000000"
    assert (await world.done("platform", "PUT", path, body))["amount"] == "105.000000"


async def test_what_was_funded_and_has_left_again_counts_as_funded(world: World):
    path = await world.made(amounts=("60", "40"), funded="60")
    await world.released(path, 0)
    body = world.body(amounts=("60", "40"), title="Another")
    await world.refused("ESCROW_PROPERTIES_MISMATCH", 409, "platform", "PUT", path, body)


# ---- The payload --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount",
    ["1.0000001", 0.0000001, "1e2", "abc", "", " 1", "1,5", None, True, [], {}, "\u0661", "NaN"],
)
async def test_what_is_no_amount_is_an_invalid_payload(world: World, amount):
    body = world.body(amount=amount)
    told = await world.refused("INVALID_PAYLOAD", 422, "developer", "POST", "", body)
    assert set(told["details"]) == {"amount"}
    live = f"{await world.made()}/fund"
    told = await world.refused("INVALID_PAYLOAD", 422, "payer", "POST", live, {"amount": amount})
    assert set(told["details"]) == {"amount"}


@pytest.mark.parametrize("amount", ["7.25", 7.25, "7.250000"])
async def test_an_exact_amount_is_taken_however_it_is_written(world: World, amount):
    escrow = await world.done("developer", "POST", "", world.body(amount=amount))
    assert escrow["amount"] == "7.250000"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"currency": "XYZ"}, "currency"),
        ({"releaseMode": "both"}, "releaseMode"),
        ({"colour": "red"}, "colour"),
        ({"platformFeeBps": -1}, "platformFeeBps"),
        ({"platformFeeBps": "500"}, "platformFeeBps"),
        ({"milestones": "two"}, "milestones"),
        ({"milestones": [{"description": ""}]}, "milestones.0.description"),
        ({"milestones": [{"description": "-", "amount": "1"}]}, "milestones.0.amount"),
        ({"roles": {}}, "roles.approver"),
        ({"engagementId": " "}, "engagementId"),
        ({"resolverDeadlineDays": 0}, "resolverDeadlineDays"),
    ],
)
async def test_a_bad_field_is_named(world: World, changes, field: str):
    body = world.body(**changes)
    told = await world.refused("INVALID_PAYLOAD", 422, "developer", "POST", "", body)
    assert field in told["details"]


async def test_multi_needs_each_amount_and_no_whole(world: World):
    body = world.body(amounts=("1", "2"), amount="3")
    del body["milestones"][1]["amount"]
    told = await world.refused("INVALID_PAYLOAD", 422, "developer", "POST", "", body)
    assert set(told["details"]) == {"amount", "milestones.1.amount"}


async def test_a_batch_has_its_own_codes(world: World):
    no, path = world.refused, await world.made(amounts=("1", "2"))
    many = list(range(51))
    for code, indexes in (
        ("BATCH_EMPTY", []),
        ("BATCH_TOO_LARGE", many),
        ("DUPLICATE_MILESTONE_INDEX", [0, "0"]),
    ):
        updates = [{"index": index, "status": "done"} for index in indexes]
        for who, tail, body in (
            ("approver", "/milestones/approve", {"indexes": indexes}),
            ("serviceProvider", "/milestones/status", {"updates": updates}),
            ("releaseSigner", "/release", {"milestoneIndexes": indexes}),
            ("platform", "/dispute", {"reason": "-", "milestoneIndexes": indexes}),
        ):
            await no(code, 422, who, "POST", path + tail, body)


async def test_a_batch_is_all_or_nothing(world: World):
    """The first of each is sound, the second is not: `refused` sees that no row has changed."""
    no = world.refused
    path = await world.made(amounts=("60", "40", "10"), funded="110")
    await world.released(path, 1)
    updates = [{"index": index, "status": "done"} for index in (0, 1)]
    for who, tail, body, code, status in (
        ("approver", "/milestones/approve", {"indexes": [0, 1]}, "MILESTONE_ALREADY_RELEASED", 409),
        ("approver", "/milestones/approve", {"indexes": [0, 3]}, "MILESTONE_NOT_FOUND", 404),
        ("serviceProvider", "/milestones/status", {"updates": updates},
         "MILESTONE_ALREADY_RELEASED", 409),
        ("serviceProvider", "/milestones/status",
         {"updates": [updates[0], {"index": 2, "status": " "}]}, "EMPTY_MILESTONE_STATUS", 422),
        ("platform", "/dispute", {"reason": "-", "milestoneIndexes": [0, 1]},
         "MILESTONE_ALREADY_RELEASED", 409),
    ):  # fmt: skip
        await no(code, status, who, "POST", path + tail, body)
    await world.approved(path, 0)
    body = {"milestoneIndexes": [0, 2]}
    await no("MILESTONE_NOT_COMPLETED", 409, "releaseSigner", "POST", f"{path}/release", body)


async def test_nobody_is_paid_beyond_what_a_wallet_may_hold(world: World):
    path = await world.made(funded="100", platformFeeBps=0)
    await top_up(world.house, world.crew.email(Role.RECEIVER), "899999950", "USDC")
    await world.approved(path, 0, 1)
    ask = ("POST", f"{path}/release")
    await world.refused("AMOUNT_TOO_LARGE", 422, "releaseSigner", *ask)
    await world.disputed(path)
    body = {"distributions": world.shares(("receiver", "100"))}
    ask = ("POST", f"{path}/resolve-dispute", body)
    await world.refused("AMOUNT_TOO_LARGE", 422, "disputeResolver", *ask)
    payer = world.crew.payer.email
    body["distributions"] = world.shares(("receiver", "50"), (payer, "50"))
    await world.done("disputeResolver", *ask)


@pytest.mark.parametrize(("amount", "told"), [("1e2", "100.000000"), ("12.5E-1", "1.250000")])
async def test_an_exponent_form_of_a_number_is_the_number_that_it_says(
    world: World, amount: str, told: str
):
    headers = {"X-API-Key": world.keys["developer"], "Content-Type": "application/json"}
    raw = orjson.dumps(world.body(amount="AMOUNT")).replace(b'"AMOUNT"', amount.encode())
    async with world.client.post(PATH, data=raw, headers=headers) as response:
        assert (response.status, (await response.json())["escrow"]["amount"]) == (201, told)


async def test_a_mode_has_its_own_fields(world: World):
    no = world.refused
    single, multi = await world.made(), await world.made(amounts=("1", "2"))
    for path, body in ((single, {"milestoneIndexes": [0]}), (multi, {})):
        await no("INVALID_PAYLOAD", 422, "releaseSigner", "POST", f"{path}/release", body)
        why = {"reason": "-", **body}
        await no("INVALID_PAYLOAD", 422, "platform", "POST", f"{path}/dispute", why)
    for path, index in ((single, {"milestoneIndex": 0}), (multi, {})):
        body = {"distributions": [], **index}
        await no("INVALID_PAYLOAD", 422, "disputeResolver", "POST", f"{path}/resolve-dispute", body)


@pytest.mark.parametrize("index", ["x", "-1", "-0", "1.0", "99", "9" * 30])
async def test_a_path_that_names_no_milestone_is_not_found(world: World, index: str):
    path = await world.made()
    ask = ("approver", "POST", f"{path}/milestones/{index}/approve")
    await world.refused("MILESTONE_NOT_FOUND", 404, *ask)


async def test_minus_nought_is_no_index(world: World):
    path = await world.made()
    ask = ("approver", "POST", f"{path}/milestones/approve", {"indexes": ["-0"]})
    told = await world.refused("INVALID_PAYLOAD", 422, *ask)
    assert set(told["details"]) == {"indexes.0"}


async def test_what_is_no_milestone_escrow_is_not_found(world: World):
    for path in ("/nonsense", f"/{'0' * 24}", f"/{'A' * 24}"):
        await world.refused("ESCROW_NOT_FOUND", 404, "developer", "GET", path)
        await world.refused("ESCROW_NOT_FOUND", 404, "payer", "POST", f"{path}/fund", {})


async def test_only_malformed_json_is_400(world: World):
    headers = {"X-API-Key": world.keys["developer"], "Content-Type": "application/json"}
    async with world.client.post(
        "/api/v1/milestone-escrows", data=b"{", headers=headers
    ) as response:
        assert response.status == 400
