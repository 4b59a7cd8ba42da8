"""escrows.md 3.10 and 7: the management of webhook endpoints, a test a sentence."""

import pytest

from tests.conformance.shapes import ID, INSTANT, SENTENCE, changed, e1, e2, written
from tests.conformance.world import WEBHOOKS, Partner, World

URL = "http://127.0.0.1:9/hook"
SECRET = written("[0-9a-f]{64}")
STANDARD_SECRET = written("whsec_.+")
NOT_FOUND = e2("Webhook not found")


def made(**changes) -> dict:
    """201 of create; `standardSecret` is ours."""
    webhook = {
        "id": ID,
        "url": URL,
        "secret": SECRET,
        "standardSecret": STANDARD_SECRET,
        "events": ["escrow.status.updated"],
        "isActive": True,
        "createdAt": INSTANT,
    }
    return {"message": SENTENCE, "webhook": changed(webhook, changes)}


def shown(**changes) -> dict:
    """One endpoint; from `ladder` on the keys are ours."""
    webhook = {
        "id": ID,
        "url": URL,
        "events": ["escrow.status.updated"],
        "isActive": True,
        "lastTriggeredAt": None,
        "lastResponseStatus": None,
        "failureCount": 0,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
        "ladder": "standard",
        "timeoutSeconds": 10,
        "maxPerSecond": None,
        "headers": {},
        "fifo": False,
        "ed25519": False,
        "publicKey": None,
        "disabledReason": None,
        "flag": None,
    }
    return changed(webhook, changes)


async def add(partner: Partner, **body) -> dict:
    answer = await partner.post(WEBHOOKS, {"url": URL, **body})
    assert answer.status == 201, answer.raw
    return answer.body["webhook"]


async def test_create_is_201_with_the_secret_and_the_default_subscription(partner: Partner):
    assert (await partner.post(WEBHOOKS, {"url": URL})).differs(201, made()) == []


async def test_the_secret_is_returned_only_by_create_and_regenerate(partner: Partner):
    hook = await add(partner, events=["*"])
    path = f"{WEBHOOKS}/{hook['id']}"
    one = shown(id=hook["id"], events=["*"])
    assert (await partner.get(WEBHOOKS)).differs(200, {"webhooks": [one]}) == []
    assert (await partner.get(path)).differs(200, {"webhook": one}) == []
    answer = await partner.put(path, {"isActive": False})
    stopped = shown(id=hook["id"], events=["*"], isActive=False)
    assert answer.differs(200, {"message": SENTENCE, "webhook": stopped}) == []
    fresh = await partner.post(f"{path}/regenerate-secret")
    told = {"message": SENTENCE, "secret": SECRET, "standardSecret": STANDARD_SECRET}
    assert fresh.differs(200, told) == []
    assert fresh.body["secret"] != hook["secret"]


async def test_update_changes_url_events_and_is_active_each_by_itself(partner: Partner):
    hook = await add(partner)
    now = shown(id=hook["id"])
    for change in ({"url": f"{URL}/2"}, {"events": ["escrow.*"]}, {"isActive": False}, {}):
        now.update(change)
        answer = await partner.put(f"{WEBHOOKS}/{hook['id']}", change)
        assert answer.differs(200, {"message": SENTENCE, "webhook": now}) == []


async def test_delete_answers_with_a_message_and_it_is_gone(partner: Partner):
    hook = await add(partner)
    path = f"{WEBHOOKS}/{hook['id']}"
    assert (await partner.ask("DELETE", path)).differs(200, {"message": SENTENCE}) == []
    assert (await partner.get(path)).differs(404, NOT_FOUND) == []
    assert (await partner.ask("DELETE", path)).differs(404, NOT_FOUND) == []
    assert (await partner.get(WEBHOOKS)).differs(200, {"webhooks": []}) == []


@pytest.mark.parametrize("events", [["*"], ["escrow.*"], ["escrow.updated", "contract.signed"]])
async def test_events_may_be_named_or_a_wildcard_of_ours(partner: Partner, events):
    answer = await partner.post(WEBHOOKS, {"url": URL, "events": events})
    assert answer.differs(201, made(events=events)) == []


@pytest.mark.parametrize("events", [["escrow.exploded"], ["*", "nonsense"], [""], ["escrow"]])
async def test_unknown_event_names_are_400(world: World, partner: Partner, events):
    async with world.unchanged():
        answer = await partner.post(WEBHOOKS, {"url": URL, "events": events})
        assert answer.differs(400, {"error": SENTENCE}) == []
    hook = await add(partner)
    answer = await partner.put(f"{WEBHOOKS}/{hook['id']}", {"events": events})
    assert answer.differs(400, {"error": SENTENCE}) == []


async def test_at_most_2_per_developer_and_the_number_is_configurable(
    partner: Partner, another_door
):
    for _ in range(2):
        await add(partner)
    full = e2("Maximum 2 webhooks allowed per developer")
    assert (await partner.post(WEBHOOKS, {"url": URL})).differs(400, full) == []
    async with another_door(max_webhooks_per_developer=3) as session:
        assert (await partner.by(session).post(WEBHOOKS, {"url": URL})).status == 201
        full = e2("Maximum 3 webhooks allowed per developer")
        answer = await partner.by(session).post(WEBHOOKS, {"url": URL})
        assert answer.differs(400, full) == []


BAD_URLS = ["", "nowhere", "ftp://example.org/", "http://", "https://u:p@example.org/", 5, None,
            "javascript:alert(1)", "http://example.org:99999/", "http://exa mple.org/"]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
async def test_a_bad_url_is_400_invalid_url_format(partner: Partner, url):
    answer = await partner.post(WEBHOOKS, {"url": url})
    assert answer.differs(400, e2("Invalid URL format")) == []
    assert (await partner.get(WEBHOOKS)).body == {"webhooks": []}


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/"]
)
async def test_an_address_that_the_guard_refuses_is_400_invalid_url_format(live, live_door, url):
    async with live_door() as session:
        answer = await live.by(session).post(WEBHOOKS, {"url": url})
        assert answer.differs(400, e2("Invalid URL format")) == []


async def test_only_https_is_allowed_in_production_and_the_sandbox_allows_http(
    live, live_door, partner: Partner
):
    plain = {"url": "http://example.org/hook"}
    only = e2("Only HTTPS URLs are allowed in production")
    async with live_door() as session:
        who = live.by(session)
        assert (await who.post(WEBHOOKS, plain)).differs(400, only) == []
        hook = (await who.post(WEBHOOKS, {"url": "https://example.org/hook"})).body["webhook"]
        answer = await who.put(f"{WEBHOOKS}/{hook['id']}", plain)
        assert answer.differs(400, only) == []
    assert (await partner.post(WEBHOOKS, plain)).status == 201


@pytest.mark.parametrize("hours", [0, 169, -1, "1", True])
async def test_an_overlap_is_1_to_168_hours(partner: Partner, hours):
    hook = await add(partner)
    answer = await partner.post(
        f"{WEBHOOKS}/{hook['id']}/regenerate-secret", {"overlapHours": hours}
    )
    assert answer.differs(400, {"error": SENTENCE}) == []


@pytest.mark.parametrize(
    ("method", "tail"),
    [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/regenerate-secret")],
)
async def test_anothers_endpoint_is_404_like_none(world: World, partner: Partner, method, tail):
    hook = await add(partner)
    stranger = await world.partner()
    for who, hook_id in ((stranger, hook["id"]), (partner, "0" * 24), (partner, "x")):
        answer = await who.ask(method, f"{WEBHOOKS}/{hook_id}{tail}", {})
        assert answer.differs(404, NOT_FOUND) == []
    assert (await partner.get(WEBHOOKS)).body["webhooks"][0]["isActive"] is True


async def test_malformed_json_is_400_e1(partner: Partner):
    for raw in (b"{", b"[]", b""):
        assert (await partner.post(WEBHOOKS, raw=raw)).differs(400, e1(400)) == []
