"""The browser's cookie and the forms it may send: who is known, what is refused, what is kept."""

import re
import secrets

import aiohttp
import pytest
from aiohttp import web

from service.ingress.pages import static
from service.ingress.pages.page import html, show, spoken, voice_of
from service.ingress.pages.visitor import (
    Session,
    Visitor,
    cookie_name,
    meet,
    receive,
    sign_in,
    sign_out,
)
from service.ingress.route import Auth, Route
from service.rules.policy import Policy
from service.store.vault import Vault, hash_token

KEY = "k" * 32
FORM = "Content-Type", "application/x-www-form-urlencoded"


class Sessions:
    """Sessions in memory, by the hash of their token."""

    def __init__(self):
        self.kept = {}

    async def create(self, token_hash, email):
        self.kept[token_hash] = Session(email)
        return self.kept[token_hash]

    async def find(self, token_hash):
        return self.kept.get(token_hash)

    async def end(self, token_hash):
        self.kept.pop(token_hash, None)


class Site:
    """A page with a form, and what comes of sending it."""

    def __init__(self, files=None):
        self.sessions = Sessions()
        self.forms, self.files = [], files

    async def met(self, call):
        return await meet(call.request, self.sessions, call.house.vault, call.house.policy)

    async def page(self, call):
        visitor = await self.met(call)
        known = visitor.session.email if visitor.session else ""
        text = f"{known}\n{visitor.form_token('sign-in')}\n{visitor.form_token('other')}"
        return visitor.keep(html(text))

    async def take(self, call):
        visitor = await self.met(call)
        form = await receive(call.request, visitor, "sign-in", keep=self.files)
        self.forms.append(form.fields)
        if form.text("email"):
            visitor = await sign_in(visitor, self.sessions, form.text("email"))
        if form.is_ticked("leave"):
            visitor = await sign_out(visitor, self.sessions)
        return visitor.keep(html("taken"))

    @property
    def routes(self):
        return (
            Route("GET", "/page", self.page, Auth.NONE, is_page=True, says="A page."),
            Route("POST", "/page", self.take, Auth.NONE, is_page=True, says="Its form."),
        )


class Browser:
    """What a browser holds and sends: the cookie and the tokens of the page it was given."""

    def __init__(self, client):
        self.client, self.cookie = client, ""

    async def open(self):
        async with self.client.get("/page", headers=self.headers()) as response:
            self.remember(response)
            self.known, self.token, self.other = (await response.text()).split("\n")
        return self

    def headers(self, **more):
        return ({"Cookie": self.cookie} if self.cookie else {}) | more

    def remember(self, response):
        if given := response.headers.get("Set-Cookie"):
            self.cookie = given.partition(";")[0]

    async def send(self, fields, headers=(), token=None):
        body = {"form_token": self.token if token is None else token} | fields
        asked = self.headers(**dict(headers))
        async with self.client.post("/page", data=body, headers=asked) as response:
            self.remember(response)
            return response.status


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def opened(ingress, site):
    """`async with opened() as browser:` a browser that has opened the page."""
    return _Opening(ingress, site)


class _Opening:
    def __init__(self, ingress, site):
        self.ingress, self.site = ingress, site

    def __call__(self, **changed):
        self.within = self.ingress(self.site.routes, **changed)
        return self

    async def __aenter__(self):
        client = await self.within.__aenter__()
        client._cookie_jar = aiohttp.DummyCookieJar()
        return await Browser(client).open()

    async def __aexit__(self, *failure):
        return await self.within.__aexit__(*failure)


async def test_a_stranger_gets_a_cookie_that_no_script_and_no_other_site_reads(opened):
    async with opened() as browser, browser.client.get("/page") as response:
        cookie, *flags = response.headers["Set-Cookie"].split("; ")
    assert set(flags) == {"HttpOnly", "Path=/", "SameSite=Lax"}
    name, _, token = cookie.partition("=")
    assert (name, len(token)) == ("amana_session", 43)


async def test_over_https_it_is_secure_and_no_other_host_can_set_it(opened):
    async with opened(AMANA_PUBLIC_URL="https://amana.example") as browser:
        async with browser.client.get("/page") as response:
            cookie, *flags = response.headers["Set-Cookie"].split("; ")
        assert set(flags) == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"}
        assert cookie.startswith("__Host-amana_session=")
        planted = {"Cookie": f"amana_session={secrets.token_urlsafe(32)}"}
        async with browser.client.get("/page", headers=planted) as response:
            assert "Set-Cookie" in response.headers


@pytest.mark.parametrize("token", ["", "short", "a" * 44, "a" * 42 + "!", "../" * 14 + "a"])
async def test_a_cookie_that_is_not_ours_is_replaced(opened, token):
    async with opened() as browser:
        headers = {"Cookie": f"amana_session={token}"}
        async with browser.client.get("/page", headers=headers) as response:
            assert response.status == 200
            assert "Set-Cookie" in response.headers


async def test_a_browser_that_has_its_cookie_is_not_given_another(opened):
    async with opened() as browser:
        cookie, token = browser.cookie, browser.token
        await browser.open()
        assert (browser.cookie, browser.token) == (cookie, token)


async def test_signing_in_gives_a_new_token_of_which_only_the_hash_is_kept(opened, site):
    async with opened() as browser:
        before = browser.cookie
        assert await browser.send({"email": "bo@example.com"}) == 200
        token = browser.cookie.partition("=")[2]
        assert browser.cookie != before
        assert list(site.sessions.kept) == [hash_token(token)]
        assert (await browser.open()).known == "bo@example.com"
        browser.cookie = before
        assert (await browser.open()).known == ""


async def test_signing_in_anew_and_signing_out_end_the_session(opened, site):
    async with opened() as browser:
        await browser.send({"email": "bo@example.com"})
        await browser.open()
        await browser.send({"email": "al@example.com"})
        assert [session.email for session in site.sessions.kept.values()] == ["al@example.com"]
        signed_in = browser.cookie
        await browser.open()
        assert await browser.send({"leave": "yes"}) == 200
        assert site.sessions.kept == {}
        browser.cookie = signed_in
        assert (await browser.open()).known == ""


async def test_a_form_of_another_purpose_visitor_or_time_is_refused_and_nothing_is_taken(
    opened, site
):
    async with opened() as browser:
        stranger = await Browser(browser.client).open()
        for token in (browser.other, stranger.token, "", "x" * 43, browser.token[:-1]):
            assert await browser.send({"email": "x@example.com"}, token=token) == 403
        await browser.send({"email": "bo@example.com"})
        assert await browser.send({"leave": "yes"}) == 403  # the token of before signing in
        assert len(site.forms) == 1


async def test_a_form_without_its_token_first_is_refused(opened, site):
    async with opened() as browser:
        for body in (f"email=x&form_token={browser.token}", "email=x", ""):
            headers = browser.headers(**dict([FORM]))
            async with browser.client.post("/page", data=body, headers=headers) as response:
                assert response.status == 403
    assert site.forms == []


async def test_a_form_without_the_cookie_is_refused(opened, site):
    async with opened() as browser:
        browser.cookie = ""
        assert await browser.send({"email": "x@example.com"}) == 403
    assert site.forms == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://amana.example"}, 403),
        ({"Origin": "https://amana.example"}, 200),
        ({"Origin": "https://amana.example.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://[broken"}, 403),
        ({"Origin": "null"}, 200),
    ],
)
async def test_a_form_that_a_browser_says_is_from_elsewhere_is_refused(
    ingress, site, headers, status
):
    async with _Opening(ingress, site)(AMANA_PUBLIC_URL="https://amana.example") as browser:
        assert await browser.send({}, headers.items()) == status


async def test_a_form_made_under_the_last_secret_key_is_taken_under_the_next(ingress, site):
    async with _Opening(ingress, site)() as browser:
        cookie, token = browser.cookie, browser.token
    async with _Opening(ingress, site)(AMANA_SECRET_KEY=f"{'n' * 32},{KEY}") as browser:
        browser.cookie = cookie
        assert await browser.send({}, token=token) == 200
    async with _Opening(ingress, site)(AMANA_SECRET_KEY="n" * 32) as browser:
        browser.cookie = cookie
        assert await browser.send({}, token=token) == 403


async def test_a_visitor_shows_no_secret_when_printed(site):
    token = secrets.token_urlsafe(32)
    stranger = Visitor(token, None, is_new=True, vault=Vault([KEY]), policy=Policy())
    signed_in = await sign_in(stranger, site.sessions, "bo@example.com")
    assert signed_in.token != token
    assert not {token, signed_in.token} & set(re.findall(r"[\w-]+", f"{stranger} {signed_in}"))


async def test_a_real_browser_sends_our_forms_and_no_other_sites(opened, site, phone, ingress):
    """Chromium, without scripts: our form comes with an Origin of `null` and is taken."""

    async def ours(call):
        visitor = await site.met(call)
        voice = voice_of(call.request, spoken(call.request))
        fields = show(
            call.request,
            "told",
            voice,
            tab="-",
            state="done",
            title="-",
            sentences=[],
            link=None,
            link_words=None,
        )
        token = visitor.form_token("sign-in")
        fields.text = fields.text.replace("</main>", _FORM.format(action="/page", token=token))
        return visitor.keep(fields)

    async def theirs(call):
        action = f"http://127.0.0.1:{call.request.url.port}/page"
        return web.Response(text=_FORM.format(action=action, token="x"), content_type="text/html")

    rows = (
        *site.routes,
        Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file."),
        Route("GET", "/ours", ours, Auth.NONE, is_page=True, says="Ours."),
        Route("GET", "/theirs", theirs, Auth.NONE, says="Another site's."),
    )
    page = await phone(scripts=False)
    async with ingress(rows) as client:
        port = client._base_url.port
        await page.goto(f"http://127.0.0.1:{port}/ours")
        async with page.expect_request("**/page") as sent:
            await page.get_by_role("button", name="Send").click()
        request = await sent.value
        headers = await request.all_headers()
        assert (headers["origin"], headers["sec-fetch-site"]) == ("null", "same-origin")
        assert (await request.response()).status == 200
        await page.goto(f"http://localhost:{port}/theirs")
        async with page.expect_response("**/page") as answered:
            await page.get_by_role("button", name="Send").click()
        assert (await answered.value).status == 403
    assert len(site.forms) == 1


_FORM = """<form method="post" action="{action}">
<input type="hidden" name="form_token" value="{token}"><button>Send</button></form></main>"""


def test_the_cookies_name_says_whether_it_is_safe():
    assert cookie_name(Policy(public_url="https://amana.example")) == "__Host-amana_session"
    assert cookie_name(Policy(public_url="http://localhost:8080")) == "amana_session"
