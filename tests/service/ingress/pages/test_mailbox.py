"""The mailbox as a page: what it shows, to whom, and what hostile text cannot do on it."""

import secrets
from html.parser import HTMLParser

import pytest

from service.ingress.middlewares import HOUSE
from tests.outbox import send_all

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }}'


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text between them."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def hrefs(self, tag="a"):
        return [attrs.get("href") for name, attrs in self.tags if name == tag]


@pytest.fixture
def written(enrolled):
    """`await written(client, app)`: a mail to a new buyer about a hostile title; their address."""

    async def write(client, app):
        shop, buyer = await enrolled(), f"{secrets.token_hex(6)}@new.example"
        body = {"title": HOSTILE, "amount": 100, "buyerEmail": buyer, "mode": "instant"}
        async with client.post("/api/v1/escrows", json=body, headers=shop.headers) as response:
            assert response.status == 201
        await send_all(app[HOUSE])
        return buyer

    return write


async def test_it_shows_each_mails_text_and_its_links(ingress, written):
    async with ingress(None) as client:
        buyer = await written(client, ingress.app)
        async with client.get("/mailbox", params={"to": buyer}) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            page = Page(await response.text())
    assert "You pay into escrow, not to the seller." in page.text
    assert [href for href in page.hrefs() if "/register/" in href]
    assert f"to {buyer}" in page.text


async def test_what_people_typed_stays_text(ingress, written):
    async with ingress(None) as client:
        buyer = await written(client, ingress.app)
        for asked in ({"to": buyer}, {"to": HOSTILE}, {}):
            async with client.get("/mailbox", params=asked) as response:
                page = Page(await response.text())
            names = {name for name, _ in page.tags}
            assert not names & {"script", "img", "iframe", "style"}
            assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
            assert not any("style" in attrs for _, attrs in page.tags)
            assert HOSTILE in page.text or {"value": HOSTILE} in [
                {"value": attrs.get("value")} for _, attrs in page.tags
            ]


async def test_it_lets_nothing_run_and_nobody_frame_it(ingress):
    async with ingress(None) as client, client.get("/mailbox") as response:
        policy = response.headers["Content-Security-Policy"]
        assert "unsafe-inline" not in policy
        assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-store"


async def test_its_stylesheet_is_served_and_no_other_file_is(ingress):
    async with ingress(None) as client:
        async with client.get("/mailbox") as response:
            [sheet] = Page(await response.text()).hrefs("link")
        async with client.get(sheet) as response:
            assert (response.status, response.content_type) == (200, "text/css")
            seen = {"If-None-Match": response.headers["ETag"]}
        async with client.get(sheet, headers=seen) as response:
            assert response.status == 304
        for name in ("static.py", "..%2fstatic.py", "%2e%2e/page.py", "mailbox.css%00"):
            async with client.get(f"/static/{name}") as response:
                assert response.status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.1"},
        {"Forwarded": "for=203.0.113.1"},
        {"Host": "rebound.example"},
        {"Host": "[::1"},
    ],
)
async def test_from_elsewhere_it_shows_no_mail_and_says_how_to_get_there(ingress, written, headers):
    async with ingress(None) as client:
        buyer = await written(client, ingress.app)
        async with client.get("/mailbox", headers=headers) as response:
            page = Page(await response.text())
            assert (response.status, response.content_type) == (403, "text/html")
    assert buyer not in page.text
    assert "not shown here" in page.text
    assert "/api/v1/sandbox/mailbox" in page.text


async def test_a_live_deployment_has_no_such_page(ingress):
    async with ingress(None, AMANA_ENV="live") as client, client.get("/mailbox") as response:
        assert response.status == 404
