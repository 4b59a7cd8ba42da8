"""How a page is sent, in which language, and how a person is told what an API's caller would be."""

import asyncio

import html5lib
import pytest
from aiohttp import web

from service.ingress.errors import PAGES_OF_STATUSES, REASONS, FormNotOurs
from service.ingress.pages.page import (
    POLICY,
    html,
    leading_to,
    see_other,
    show,
    spoken,
    voice_of,
    with_scripts,
)
from service.ingress.route import Auth, Route
from service.rules import errors as no
from service.words.catalogue import read_catalogues

ENGLISH = read_catalogues()["en"]
REFUSALS = {
    "400": no.Invalid({"title": "is required"}),
    "403": no.NotParty(),
    "404": no.SessionNotFound(),
    "409": no.EscrowCancelled(),
    "409-plain": no.StepClash(reason="No."),
    "429": no.DailyCapReached(limit=1, count=1, remaining=0),
    "500": RuntimeError("a bug"),
    "503": no.Unavailable("away"),
    "form": FormNotOurs(),
}


async def speak(call):
    """What the request was answered in, as a page."""
    request = call.request
    speech = spoken(request, request.headers.get("X-Stored"))
    voice = voice_of(request, speech)
    return show(
        request,
        "expired",
        voice,
        tab="-",
        back=speech.carry("/x"),
        back_words=speech.carry("/x?a=1"),
    )


async def refuse(call):
    raise REFUSALS[call.path["what"]]


async def refuse_in_french(call):
    spoken(call.request, "fr")
    raise no.EscrowCancelled


ROUTES = (
    Route("GET", "/speak", speak, Auth.NONE, is_page=True, says="A page."),
    Route("GET", "/refuse/{what}", refuse, Auth.NONE, is_page=True, says="A refusal."),
    Route("POST", "/refuse/{what}", refuse, Auth.NONE, is_page=True, says="A refusal."),
    Route("GET", "/french", refuse_in_french, Auth.NONE, is_page=True, says="A refusal."),
    Route("GET", "/json/{what}", refuse, Auth.NONE, says="No page."),
)


def parsed(source):
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(source)


def words(page):
    return " ".join("".join(page.find(".//main").itertext()).split())


async def read(client, path, method="GET", **asked):
    async with client.request(method, path, **asked) as response:
        assert response.content_type == "text/html"
        return response, parsed(await response.text())


async def test_a_page_runs_nothing_and_is_framed_kept_and_told_by_nobody(ingress):
    async with ingress(ROUTES) as client:
        for path in ("/speak", "/refuse/404"):
            response, _ = await read(client, path)
            policy = response.headers["Content-Security-Policy"]
            assert policy == POLICY
            assert "unsafe" not in policy
            assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cache-Control"] == "no-store"
            assert "Set-Cookie" not in response.headers


def test_a_policy_names_one_more_origin_or_our_scripts_and_nothing_else():
    away = leading_to("https://shop.example:8443/back?a=1")
    assert "form-action 'self' https://shop.example:8443;" in away
    assert away.replace(" https://shop.example:8443", "") == POLICY
    assert with_scripts() == POLICY + "; script-src 'self'"
    assert html("x", policy=away).headers.getall("Content-Security-Policy") == [away]


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_form_may_end_at_another_site_only_where_the_policy_names_it(
    ingress, browser, is_named
):
    """Chromium holds form-action against the redirect that follows a form."""

    async def form(call):
        away = leading_to(f"http://localhost:{call.request.url.port}/shop")
        return html(
            "<form method=post action=/form><button>Send</button></form>",
            policy=away if is_named else POLICY,
        )

    async def send_away(call):
        return see_other(f"http://localhost:{call.request.url.port}/shop")

    async def shop(call):
        return web.Response(text="Thank you")

    rows = (
        Route("GET", "/form", form, Auth.NONE, is_page=True, says="A form."),
        Route("POST", "/form", send_away, Auth.NONE, is_page=True, says="Sends away."),
        Route("GET", "/shop", shop, Auth.NONE, says="Another site."),
    )
    context = await browser.new_context()
    page = await context.new_page()
    async with ingress(rows) as client:
        address = f"http://127.0.0.1:{client._base_url.port}/form"
        await page.goto(address)
        if is_named:
            await page.get_by_role("button").click()
            await page.wait_for_url("**/shop")
        else:
            async with page.expect_event("console", lambda said: "form-action 'self'" in said.text):
                await page.get_by_role("button").click(no_wait_after=True)
            assert page.url == address
    await context.close()


@pytest.mark.parametrize(
    ("query", "stored", "accepted", "code", "carried"),
    [
        ("?lang=ar", "fr", "en", "ar", True),
        ("?lang=fr", "fr", "en", "fr", False),
        ("?lang=xx", "fr", "en", "fr", False),
        ("", "fr", "ar", "fr", False),
        ("", None, "de, ar;q=0.5, fr;q=0.4", "ar", False),
        ("", None, "de", "en", False),
    ],
)
async def test_the_language_is_the_chosen_one_else_the_stored_else_the_accepted(
    ingress, query, stored, accepted, code, carried
):
    headers = {"Accept-Language": accepted} | ({"X-Stored": stored} if stored else {})
    async with ingress(ROUTES) as client:
        _, page = await read(client, "/speak" + query, headers=headers)
    assert page.get("lang") == code
    link = page.find(".//a[@class='quiet']")
    assert link.get("href") == ("/x?lang=" + code if carried else "/x")
    assert link.text == ("/x?a=1&lang=" + code if carried else "/x?a=1")


async def test_the_switch_leads_to_the_same_page_whatever_its_address_is(ingress):
    async with ingress(ROUTES) as client:
        _, page = await read(client, "/speak?a=%3Cb%3E&lang=ar&a=2")
        links = [a.get("href") for a in page.find(".//ul[@class='languages']").iter("a")]
        assert links == [f"?a=%3Cb%3E&a=2&lang={code}" for code in ("en", "fr", "ar")]
        page = await _asked_plainly(client, "//evil.example/")
        assert [a.get("href") for a in page.iter("a")] == ["?lang=en", "?lang=fr", "?lang=ar"]


async def _asked_plainly(client, target):
    """The page at this request target, which no client would send as it is."""
    reader, writer = await asyncio.open_connection(client._base_url.host, client._base_url.port)
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return parsed(answer.partition(b"\r\n\r\n")[2].decode())


@pytest.mark.parametrize(
    ("what", "status", "kind", "reason"),
    [
        ("400", 400, "unclear", None),
        ("403", 403, "not_yours", None),
        ("404", 404, "not_found", None),
        ("409", 409, "not_now", "refusal.ESCROW_CANCELLED"),
        ("409-plain", 409, "not_now", None),
        ("429", 429, "too_many", None),
        ("500", 500, "failed", None),
        ("503", 503, "away", None),
        ("form", 403, "not_yours", "refusal.FORM_NOT_OURS"),
    ],
)
@pytest.mark.parametrize("code", ["en", "fr", "ar"])
async def test_a_refusal_on_a_page_is_a_page_with_its_request_id(
    ingress, what, status, kind, reason, code
):
    catalogue = read_catalogues()[code]
    async with ingress(ROUTES) as client:
        asked = {"Accept-Language": code, "X-Request-Id": "this-one"}
        response, page = await read(client, f"/refuse/{what}", headers=asked)
    assert response.status == status
    assert page.get("lang") == code
    assert page.find(".//h1").text == catalogue.text(f"page.error.{kind}.title")
    said = words(page)
    assert catalogue.text(reason or f"page.error.{kind}.text") in said
    assert "this-one" in said
    assert response.headers.get("Retry-After") == ("2" if status == 503 else None)


async def test_only_what_may_work_later_is_offered_again_and_only_where_it_was_read(ingress):
    async with ingress(ROUTES) as client:
        offered = {}
        for what, method in (("503", "GET"), ("503", "POST"), ("409", "GET"), ("500", "GET")):
            _, page = await read(client, f"/refuse/{what}?a=1", method)
            link = page.find(".//main//a[@class='primary']")
            offered[what, method] = None if link is None else link.get("href")
    assert offered == {
        ("503", "GET"): "?a=1&lang=en",
        ("503", "POST"): None,
        ("409", "GET"): None,
        ("500", "GET"): "?a=1&lang=en",
    }


async def test_a_refusal_is_told_in_the_language_of_who_is_signed_in(ingress):
    async with ingress(ROUTES) as client:
        _, page = await read(client, "/french", headers={"Accept-Language": "ar"})
    assert page.get("lang") == "fr"


async def test_a_redirect_that_was_raised_is_sent_like_one_that_was_returned(ingress):
    async def raise_it(call):
        raise web.HTTPSeeOther("/speak")

    async def return_it(call):
        return see_other("/speak")

    rows = (
        Route("GET", "/raised", raise_it, Auth.NONE, is_page=True, says="A redirect."),
        Route("GET", "/returned", return_it, Auth.NONE, is_page=True, says="A redirect."),
    )
    async with ingress(rows) as client:
        for path in ("/raised", "/returned"):
            async with client.get(path, allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (303, "/speak")
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["X-Request-Id"]


async def test_what_a_page_is_not_is_told_to_a_browser_as_a_page_and_else_as_json(ingress):
    async with ingress(ROUTES) as client:
        _, page = await read(client, "/nowhere", headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.find(".//h1").text == ENGLISH.text("page.error.not_found.title")
        response, _ = await read(client, "/speak", "POST", headers={"Accept": "text/html"})
        assert (response.status, response.headers["Allow"]) == (405, "GET")
        for path, accept in (
            ("/nowhere", "*/*"),
            ("/api/v1/nowhere", "text/html"),
            ("/json/409", "text/html"),
        ):
            async with client.get(path, headers={"Accept": accept}) as response:
                assert response.content_type == "application/json"


async def test_a_page_that_is_sent_a_form_is_not_read_as_json(ingress):
    async with ingress(ROUTES) as client:
        response, _ = await read(client, "/refuse/409", "POST", data={"a": "1"})
    assert response.status == 409


def test_every_status_has_its_page_and_every_page_its_sentences():
    assert set(PAGES_OF_STATUSES) == set(REASONS)
    kinds = {key.split(".")[2] for key in ENGLISH.sentences if key.startswith("page.error.")}
    assert kinds == set(PAGES_OF_STATUSES.values())


def test_a_sentence_for_a_refusal_has_a_refusal():
    codes = {kind.code for kind in _kinds(no.Refused)}
    told = {key.removeprefix("refusal.") for key in ENGLISH.sentences if key.startswith("refusal.")}
    assert told <= codes


def _kinds(kind):
    return {kind, *(inner for child in kind.__subclasses__() for inner in _kinds(child))}
