"""The mailed page on which a person shows who they are: once, by the link, and to nobody else."""

import re
import secrets
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from service.commands import identity
from service.commands.mails import open_mailbox
from service.commands.perform import House, perform
from service.ingress.pages import identity as page_of_identity
from service.ingress.pages import static
from service.ingress.route import Auth, Route
from service.rules.errors import VerificationUnderReview
from service.rules.files import FILE_BYTES_MAX
from service.rules.identity import UPDATED
from service.rules.machine import Actor, ActorKind
from service.store.identity import read_documents, read_verification
from service.wire.identity import NewVerification
from tests.attachments import JPEG, PDF, PNG, WEBP, grown
from tests.books import count_rows, read_log
from tests.browser import overflow, serious
from tests.makers import jump, make_file, make_shop
from tests.outbox import WORDS, send_all
from tests.service.ingress.pages.people import Browser
from workers import retention

OPERATOR = Actor(ActorKind.OPERATOR)
EMAIL = "nour@example.org"
BACK = "https://shop.example/back?order=7"
LIVE = {"AMANA_ENV": "live"}
ROUTES = (
    Route("GET", "/identity/{token}", page_of_identity.show_asked, Auth.NONE, is_page=True,
          says="Own."),
    Route("POST", "/identity/{token}", page_of_identity.take_documents, Auth.NONE, is_page=True,
          says="Own."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)  # fmt: skip


@pytest.fixture
def live(house: House) -> House:
    return House(house.pool, replace(house.policy, environment="live"), house.vault, house.bell)


@pytest.fixture
async def asked(live):
    """Id and path of a verification that a shop asked for, as the mail has it."""
    return await ask(live)


async def ask(live, **fields):
    shop = await make_shop(live, company="Shop <b>&")
    wanted = NewVerification.model_validate({"email": EMAIL, "redirect_url": BACK, **fields})
    answer = await perform(live, shop.actor, identity.request(shop.developer_id, wanted))
    await send_all(live)
    mails = await open_mailbox(live.pool, WORDS, live.policy, live.vault, EMAIL)
    return orjson.loads(answer.body)["id"], urlsplit(mails[0].links[0]).path


def person(client):
    """Somebody's browser: it has our cookie, and no session stands behind it."""
    return Browser(client, secrets.token_urlsafe(32))


def stored(environ):
    """The keys of every file that the store holds."""
    folder = Path(urlsplit(environ["STORAGE_URL"]).path)
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_the_page_says_who_asks_what_is_wanted_and_keeps_what_is_sent(
    ingress, live, asked, environ
):
    verification_id, path = asked
    async with ingress(ROUTES, **LIVE) as client:
        nour = person(client)
        page = await nour.get(path)
        assert page.status == 200
        assert "Shop <b>& asks Amana to verify who you are." in page.words.replace("\u2068", "")
        assert "<b>&" not in page.text
        assert EMAIL in page.words
        assert page.headers["Referrer-Policy"] == "no-referrer"
        sent = await nour.post_files(path, [("front.png", PNG), ("back.jpg", JPEG)])
        assert (sent.status, sent.location) == (303, path)
        page = await nour.get(path)
        assert page.status == 200
        assert "We look at it" in page.words
        assert f'href="{BACK}"' in page.text
        assert "<form" not in page.text
    documents = await read_documents(live.pool, verification_id)
    assert documents is not None
    assert [file.filename for file in documents.files] == ["front.png", "back.jpg"]
    assert {file.key for file in documents.files} <= stored(environ)
    assert documents.language == "en"
    after = await read_verification(live.pool, verification_id)
    assert (after.kyc_status, after.needs_admin_review) == ("pending", True)
    assert (await read_log(live, verification_id))[-1] == ("submit", UPDATED, "user")
    body = await live.pool.fetchval(
        "SELECT b.body FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " WHERE v.subject_id = $1 AND v.step = 'submit'",
        verification_id,
    )
    told = orjson.loads(body)["data"]
    assert (told["kyc_status"], told["needs_admin_review"]) == ("pending", True)
    assert (told["previous_kyc_status"], told["status_source"]) == ("pending", "admin_review")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "Please fill this in."),
        ([("a.png", b"")], "This file is empty."),
        ([("a.png", b"GIF89a" + b"\0" * 40)], "not a PNG, JPEG, WEBP or PDF"),
        ([("a.png", BytesIO(grown(PNG, FILE_BYTES_MAX + 1)))], "larger than 10 MB"),
        ([("a.png", PNG), ("b.png", PNG), ("c.pdf", PDF), ("d.webp", WEBP)], "too many files"),
        ([("a.png", PNG), ("b.exe", b"MZ" + b"\0" * 40)], "not a PNG, JPEG, WEBP or PDF"),
    ],
)
async def test_what_cannot_be_taken_is_said_beside_it_and_nothing_is_kept(
    ingress, live, asked, environ, files, says
):
    rows, held = await count_rows(live), stored(environ)
    async with ingress(ROUTES, **LIVE) as client:
        page = await person(client).post_files(asked[1], files)
    assert page.status == 400
    assert says in page.words
    assert 'aria-invalid="true"' in page.text
    assert await count_rows(live) == rows
    assert stored(environ) == held


async def test_a_form_from_elsewhere_or_of_another_person_is_refused(ingress, live, asked):
    rows = await count_rows(live)
    async with ingress(ROUTES, **LIVE) as client:
        nour, other = person(client), person(client)
        token = (await nour.get(asked[1])).token
        assert (await other.post(asked[1], {"form_token": token})).status == 403
        assert (await nour.post(asked[1], {})).status == 403
        site = {"Sec-Fetch-Site": "cross-site"}
        assert (await nour.post(asked[1], {"form_token": token}, **site)).status == 403
        _, another = await ask(live, email="other@example.org"), "/identity/" + "x" * 43
        assert (await nour.post(another, {"form_token": token})).status == 403
    assert (await count_rows(live))["file"] == rows["file"]


async def test_a_link_that_is_no_link_or_has_expired_says_the_same_of_nobody(ingress, live, asked):
    async with ingress(ROUTES, **LIVE) as client:
        nour = person(client)
        unknown = await nour.get("/identity/" + "A" * 43)
        assert (await nour.get("/identity/nonsense")).status == 404
        before = await nour.get(asked[1])
        await jump(live, timedelta(days=91))
        expired = await nour.get(asked[1])
        assert (unknown.status, expired.status) == (404, 404)
        assert unknown.words == expired.words
        assert "Shop" not in expired.words
        late = await nour.post(asked[1], form_of(before.token, PNG))
        assert (late.status, late.location) == (303, asked[1])
    assert await read_documents(live.pool, asked[0]) is None


def form_of(token, content):
    form = aiohttp.FormData()
    form.add_field("form_token", token)
    form.add_field("files", content, filename="a.png")
    return form


async def test_a_link_is_spent_by_the_documents(ingress, live, asked, environ):
    async with ingress(ROUTES, **LIVE) as client:
        nour = person(client)
        token = (await nour.get(asked[1])).token
        assert (await nour.post(asked[1], form_of(token, PNG))).status == 303
        held, rows = stored(environ), await count_rows(live)
        again = await nour.post(asked[1], form_of(token, PNG))
        assert (again.status, again.location) == (303, asked[1])
        assert (stored(environ), await count_rows(live)) == (held, rows)
    again = identity.submit(asked[1].removeprefix("/identity/"), [make_file()], "en")
    with pytest.raises(VerificationUnderReview):
        await perform(live, Actor(ActorKind.USER), again)


@pytest.mark.parametrize(
    ("approves", "says", "subject"),
    [
        (True, "Your identity is verified", "Your identity is verified"),
        (False, "We could not verify your identity", "We could not verify your identity"),
    ],
)
async def test_a_decision_is_told_by_mail_and_on_the_page(
    ingress, live, asked, approves, says, subject
):
    verification_id, path = asked
    async with ingress(ROUTES, **LIVE) as client:
        nour = person(client)
        await nour.post_files(f"{path}?lang=fr", [("a.pdf", PDF)])
        why = "Le nom est <illisible>." if not approves else None
        deciding = identity.decide(verification_id, approves=approves, reason=why)
        await perform(live, OPERATOR, deciding)
        page = await nour.get(path)
    assert page.status == 200
    assert says in page.words
    assert f'href="{BACK}"' in page.text
    await send_all(live)
    mails = await open_mailbox(live.pool, WORDS, live.policy, live.vault, EMAIL)
    assert len(mails) == 2
    assert '<html lang="fr"' in mails[0].html
    assert urlsplit(mails[0].links[0]).path == path
    assert ("Le nom est <illisible>." in mails[0].text) is not approves
    assert "<illisible>" not in mails[0].html


async def test_who_has_sent_documents_is_not_asked_again(live, asked):
    verification_id, path = asked
    link = path.removeprefix("/identity/")
    await perform(live, Actor(ActorKind.USER), identity.submit(link, [make_file()], "en"))
    row = await live.pool.fetchrow(
        "SELECT developer_id, company FROM identity_verification v JOIN developer d"
        " ON d.id = v.developer_id WHERE v.id = $1",
        verification_id,
    )
    shop = Actor(ActorKind.DEVELOPER, developer_id=row["developer_id"])
    wanted = NewVerification(email=EMAIL)
    answer = await perform(live, shop, identity.request(row["developer_id"], wanted))
    told = orjson.loads(answer.body)
    assert (told["message"], told["needs_admin_review"]) == (identity.UNDER_REVIEW, True)
    assert told["didit_session_status"] == "completed"
    assert await live.pool.fetchval("SELECT count(*) FROM mail") == 1


async def test_no_page_is_there_for_what_the_sandbox_approved(ingress, house):
    shop = await make_shop(house)
    wanted = NewVerification(email=EMAIL)
    await perform(house, shop.actor, identity.request(shop.developer_id, wanted))
    async with ingress(ROUTES) as client:
        assert (await person(client).get("/identity/" + "A" * 43)).status == 404


async def test_on_a_phone_in_arabic_a_document_is_sent_without_scripts(
    ingress, live, asked, phone, tmp_path
):
    verification_id, path = asked
    picture = tmp_path / "card.png"
    picture.write_bytes(PNG)
    async with ingress(ROUTES, **LIVE) as client:
        page = await phone("ar", scripts=False)
        await page.goto(str(client._base_url.with_path(path)))
        assert await page.get_attribute("html", "dir") == "rtl"
        await page.set_input_files("#files", picture)
        await page.click("button.primary")
        assert await page.inner_text("h1") == "وصلت وثيقتك"
        spoken = await phone("ar")
        await spoken.goto(page.url)
        assert (await serious(spoken), await overflow(spoken)) == ([], 0)
        _, other = await ask(live, email=EMAIL)
        await spoken.goto(str(client._base_url.with_path(other)))
        assert await spoken.inner_text("h1") == "أثبت هويتك"
        assert (await serious(spoken), await overflow(spoken)) == ([], 0)
    documents = await read_documents(live.pool, verification_id)
    assert (documents.language, len(documents.files)) == ("ar", 1)
    assert re.fullmatch(r"[0-9a-f]{64}", documents.files[0].key)


async def test_documents_go_some_time_after_the_decision(live, asked):
    verification_id, path = asked
    link = path.removeprefix("/identity/")
    file = make_file()
    await perform(live, Actor(ActorKind.USER), identity.submit(link, [file], "en"))
    await perform(live, OPERATOR, identity.decide(verification_id, approves=True))
    await jump(live, timedelta(days=29, hours=23))
    await retention.tidy(live)
    assert await read_documents(live.pool, verification_id) is not None
    await jump(live, timedelta(hours=2))
    await retention.tidy(live)
    assert await read_documents(live.pool, verification_id) is None
    assert await live.pool.fetchval("SELECT count(*) FROM file") == 0
    after = await read_verification(live.pool, verification_id)
    assert after.kyc_status == "approved"


async def test_documents_of_what_expired_undecided_go_as_well(live, asked):
    link = asked[1].removeprefix("/identity/")
    await perform(live, Actor(ActorKind.USER), identity.submit(link, [make_file()], "en"))
    for days, is_kept in ((90 + 29, True), (2, False)):
        await jump(live, timedelta(days=days))
        await retention.tidy(live)
        assert (await read_documents(live.pool, asked[0]) is not None) is is_kept
