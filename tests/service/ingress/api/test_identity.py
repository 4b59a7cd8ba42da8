"""Identity verifications over HTTP: whole answers, every refusal, in the sandbox and live."""

import re
import secrets

import pytest

from service.cli.house import open_house
from service.commands.developers import enrol
from service.ingress.routes import ROUTES, routes
from service.rules.policy import Policy
from service.settings import load_settings
from tests.makers import arrange
from tests.service.ingress.conftest import Developer

PATH = "/api/v1/identity-verifications"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN = "0" * 24
NOT_FOUND = (
    404,
    {"error": "Not Found", "message": "You have no identity verification with this id."},
)


@pytest.fixture
async def client(ingress):
    async with ingress(routes(Policy()), RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


def calling(client):
    async def made(developer, method, tail="", json=None, **headers):
        sent = {**developer.headers, **headers}
        async with client.request(method, PATH + tail, json=json, headers=sent) as response:
            return response.status, await response.json()

    return made


@pytest.fixture
def call(client):
    """`await call(developer, method, tail, json)` gives (status, body)."""
    return calling(client)


@pytest.fixture
async def developer(enrolled):
    return await enrolled(associated=False)


def an_email():
    return f"{secrets.token_hex(6)}@example.org"


async def test_a_record_is_flat_and_reads_the_same_later_without_its_message(call, developer):
    email = an_email()
    asked = {
        "email": f" {email.upper()} ",
        "external_user_id": " u-1 ",
        "redirect_url": "https://shop.example/done",
        "metadata": {"order": "7", "note": ""},
        "unknown": 1,
    }
    status, made = await call(developer, "POST", json=asked)
    assert status == 201
    message = made.pop("message")
    assert message == "The sandbox approves at once; no e-mail was sent"
    assert made == {
        "id": made["id"],
        "email": email,
        "external_user_id": "u-1",
        "kyc_status": "approved",
        "didit_session_status": "completed",
        "needs_admin_review": False,
        "claim_status": "pending",
        "linked_user_id": None,
        "linked_at": None,
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
        "expires_at": made["expires_at"],
        "verification_email_sent": False,
        "verification_email_sent_at": None,
    }
    for name in ("created_at", "updated_at", "expires_at"):
        assert INSTANT.fullmatch(made[name])
    assert await call(developer, "GET", f"/{made['id']}") == (200, made)
    for written in (email, f" {email.upper()} "):
        listed = await call(developer, "GET", f"?email={written.replace(' ', '%20')}")
        assert listed == (200, {"verifications": [made]})


async def test_a_user_registered_in_the_sandbox_is_linked_and_then_conflicts(
    client, call, developer
):
    email = an_email()
    _, made = await call(developer, "POST", json={"email": email})
    person = {"email": email, "firstName": "Nour", "lastName": "Z"}
    async with client.post(
        "/api/v1/sandbox/users", json=person, headers=developer.headers
    ) as response:
        user = (await response.json())["user"]
    _, linked = await call(developer, "GET", f"/{made['id']}")
    assert (linked["claim_status"], linked["linked_user_id"]) == ("linked", user["id"])
    assert INSTANT.fullmatch(linked["linked_at"])
    status, answer = await call(developer, "POST", json={"email": email})
    assert (status, answer) == (
        409,
        {
            "error": "Conflict",
            "message": "The user with this e-mail is registered, and their identity is approved"
            " already.",
            "kyc_status": "approved",
            "user_exists": True,
        },
    )


async def test_another_developers_record_is_none(call, developer, enrolled):
    email = an_email()
    _, made = await call(developer, "POST", json={"email": email})
    stranger = await enrolled()
    assert await call(stranger, "GET", f"/{made['id']}") == NOT_FOUND
    assert await call(stranger, "GET", f"?email={email}") == (200, {"verifications": []})
    assert await call(developer, "GET", f"/{UNKNOWN}") == NOT_FOUND


@pytest.mark.parametrize("tail", ["/nonsense", f"/{UNKNOWN}0", "/" + "A" * 24])
async def test_an_id_of_another_form_is_400(call, developer, tail):
    assert await call(developer, "GET", tail) == (
        400,
        {
            "error": "Bad Request",
            "message": "The id of an identity verification is 24 lower-case hex characters.",
        },
    )


EMAIL = "must be a valid e-mail address"
HTTPS = "must begin with https:// (http:// only for localhost)"


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({"email": None}, {"email": "is required"}),
        ({"email": ""}, {"email": EMAIL}),
        ({"email": "nobody"}, {"email": EMAIL}),
        ({"email": 5}, {"email": "must be a string"}),
        ({"external_user_id": " "}, {"external_user_id": "must not be empty"}),
        ({"external_user_id": 7}, {"external_user_id": "must be a string"}),
        (
            {"external_user_id": "x" * 256},
            {"external_user_id": "must be at most 255 characters"},
        ),
        ({"redirect_url": "http://shop.example/"}, {"redirect_url": HTTPS}),
        ({"redirect_url": "javascript:alert(1)"}, {"redirect_url": HTTPS}),
        ({"redirect_url": "nowhere"}, {"redirect_url": HTTPS}),
        (
            {"redirect_url": "https://u:p@shop.example/"},
            {"redirect_url": "must name no user or password"},
        ),
        ({"metadata": []}, {"metadata": "must be an object"}),
        ({"metadata": {"a": 1}}, {"metadata.a": "must be a string"}),
        ({"metadata": {"a": "x" * 501}}, {"metadata.a": "must be at most 500 characters"}),
        (
            {"metadata": {str(n): "" for n in range(21)}},
            {"metadata": "must have at most 20 entries"},
        ),
        ({"metadata": {"": "x"}}, {"metadata": "must have keys of 1 to 100 characters"}),
        (
            {"email": "nobody", "redirect_url": "nowhere", "metadata": "x"},
            {"email": EMAIL, "redirect_url": HTTPS, "metadata": "must be an object"},
        ),
    ],
)
async def test_every_bad_field_is_named_at_once_and_nothing_is_stored(
    call, developer, owner, fields, details
):
    status, answer = await call(developer, "POST", json={"email": an_email(), **fields})
    assert (status, answer["error"], answer["details"]) == (400, "Bad Request", details)
    assert set(answer) == {"error", "message", "details"}
    count = "SELECT count(*) FROM identity_verification WHERE developer_id = $1"
    assert await owner.fetchval(count, developer.developer_id) == 0


@pytest.mark.parametrize(
    "url",
    ["http://localhost/", "http://localhost:3000/done?x=1", "https://shop.example:8443/a%20b"],
)
async def test_a_good_redirect_url_is_taken_in_its_one_form(call, developer, owner, url):
    status, made = await call(developer, "POST", json={"email": an_email(), "redirect_url": url})
    assert status == 201
    kept = "SELECT redirect_url FROM identity_verification WHERE id = $1"
    assert await owner.fetchval(kept, made["id"]) == url


@pytest.mark.parametrize(
    ("query", "told"),
    [("", "is required"), ("?email=", EMAIL), ("?email=nobody", EMAIL), ("?mail=a", "is required")],
)  # fmt: skip
async def test_the_list_is_of_one_e_mail(call, developer, query, told):
    status, answer = await call(developer, "GET", query)
    assert (status, answer["details"]) == (400, {"email": told})


async def test_a_blocked_domain_is_403(call, developer):
    assert await call(developer, "POST", json={"email": "a@sub.mailinator.com"}) == (
        403,
        {
            "error": "Forbidden",
            "message": "E-mail addresses of this domain are not accepted.",
        },
    )


async def test_a_key_is_needed_and_no_association(call, developer, client):
    async with client.post(PATH, json={"email": an_email()}) as response:
        assert response.status == 401
    assert (await call(developer, "POST", json={"email": an_email()}))[0] == 201


async def test_the_same_key_makes_one_record(call, developer):
    body = {"email": an_email()}
    answers = [await call(developer, "POST", json=body, **{"Idempotency-Key": "i"}) for _ in "ab"]
    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    _, listed = await call(developer, "GET", f"?email={body['email']}")
    assert len(listed["verifications"]) == 1


# ---- Live ---------------------------------------------------------------------------------------

LIVE = {"AMANA_ENV": "live", "AMANA_PUBLIC_URL": "https://pay.example"}


async def test_live_a_pending_record_is_201_then_200_and_its_operator_is_a_person(ingress, environ):
    name = secrets.token_hex(6)
    async with open_house(load_settings(environ | LIVE)) as house:
        made = await arrange(house, lambda tx: enrol(tx, f"{name}@dev.example", "Company"))
    developer = Developer(made.api_key, made.developer_id, None)
    async with ingress(ROUTES, **LIVE, RATE_LIMIT_PER_MINUTE="1000") as client:
        call = calling(client)
        body = {"email": an_email()}
        status, first = await call(developer, "POST", json=body)
        assert status == 201
        assert first.pop("message") == "Verification requested; the link was sent by e-mail"
        assert (first["kyc_status"], first["didit_session_status"]) == ("pending", "in_progress")
        assert first["verification_email_sent"] is True
        assert INSTANT.fullmatch(first["verification_email_sent_at"])
        status, again = await call(developer, "POST", json=body)
        assert status == 200
        assert again.pop("message").startswith("Verification is pending; the link was sent less")
        assert again == first
        assert await call(developer, "GET", f"/{first['id']}") == (200, first)
        assert await call(developer, "GET", f"?email={body['email']}") == (
            200,
            {"verifications": [first]},
        )
