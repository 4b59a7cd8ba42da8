"""The demo's browser does what a person without scripts could do at these pages, and no more."""

import contextlib

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from service.cli.moment import Unexpected
from service.cli.visitor import RECEIPT, Page, Visitor

FORMS = """<html lang="en"><body><a href="https://shop.example/shop">Elsewhere</a><main>
<h1><span class="amount">100.000&nbsp;TND</span> <span>A lamp</span></h1>
<a class="primary" href="/next?a=1&amp;b=2">Go <bdi>on</bdi></a>
<form method="get" action="/find"><input name="q"><button class="primary">Find</button></form>
<form method="post" action="/one" enctype="multipart/form-data">
<input type="hidden" name="form_token" value="t&quot;1"><input name="name" value="kept">
<input type="radio" name="way" value="card" checked><input type="radio" name="way" value="bank">
<input type="checkbox" name="more" value="yes">
<textarea name="note">
 two
lines</textarea>
<select name="zone"><option value="a">A</option><option value="b" selected>B</option></select>
<input type="file" name="files" multiple><button type="button">Wipe</button>
<button class="primary" name="act" value="send">Send <b>it</b></button>
<button class="quiet" name="act" value="leave">Leave</button></form>
<form method="post" action="/two"><input type="hidden" name="form_token" value="t2">
<button class="quiet">The other</button></form></main></body></html>"""


def test_a_page_is_read_as_it_is_seen() -> None:
    page = Page(URL("http://localhost/here"), FORMS)
    assert page.language == "en"
    assert page.words.startswith("100.000 TND A lamp Go on")
    assert "Elsewhere" not in page.words
    assert [(link.words, link.is_primary, link.target) for link in page.links] == [
        ("Elsewhere", False, "https://shop.example/shop"), ("Go on", True, "/next?a=1&b=2")
    ]  # fmt: skip
    assert [(one.words, one.is_primary, one.name, one.value) for one in page.buttons] == [
        ("Send it", True, "act", "send"), ("Leave", False, "act", "leave"),
        ("The other", False, "", ""),
    ]  # fmt: skip
    form = page.buttons[0].form
    assert (form.action, form.is_multipart) == ("/one", True)
    assert form.fields == {
        "form_token": 't"1', "name": "kept", "way": "card", "note": " two\nlines", "zone": "b"
    }  # fmt: skip
    assert form.blanks == {"name", "way", "more", "note", "zone", "files"}
    assert form.files == ["files"]
    assert page.buttons[2].form.fields == {"form_token": "t2"}


class Site:
    """A site of three pages that keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, object], str | None]] = []

    async def answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        sent = {k: v.file.read() if isinstance(v, web.FileField) else v for k, v in form.items()}
        self.got.append((request.path, sent, request.cookies.get("seen")))
        match request.path:
            case "/one" | "/loop":
                to = "https://shop.example/back?x=1" if "leave" in sent.values() else "/done"
                to = "/loop" if request.path == "/loop" else to
                return web.Response(status=303, headers={"Location": to})
            case "/gone":
                return web.Response(status=409, text="<main>Not now</main>")
        response = web.Response(text=FORMS, content_type="text/html")
        response.set_cookie("seen", "yes")
        return response


@pytest.fixture
async def visited():
    """(the site, its address, somebody who has nothing open yet)."""
    site = Site()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", site.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        session = await stack.enter_async_context(client)

        async def read_mail(address, is_it):
            raise AssertionError(address)

        url = f"http://localhost:{runner.addresses[0][1]}"
        yield site, url, Visitor(session, "rim@people.example", "en", read_mail)


async def test_what_was_filled_in_goes_along_with_what_stood_there(visited) -> None:
    site, url, rim = visited
    await rim.open(f"{url}/here")
    await rim.press(files={"files": RECEIPT}, name="Rim", way="bank")
    assert rim.page.url.path == "/done"
    assert site.got == [
        ("/here", {}, None),
        ("/one", {
            "form_token": 't"1', "name": "Rim", "way": "bank", "note": " two\nlines", "zone": "b",
            "act": "send", "files": RECEIPT[1],
        }, "yes"),
        ("/done", {}, "yes"),
    ]  # fmt: skip
    await rim.follow()
    assert site.got[-1] == ("/next", {}, "yes")
    await rim.press("The other")
    assert site.got[-1] == ("/two", {"form_token": "t2"}, "yes")


async def test_a_visit_ends_where_another_site_begins_and_nothing_is_asked_there(visited) -> None:
    site, url, rim = visited
    await rim.open(f"{url}/here")
    await rim.press("Leave")
    assert rim.left_for == "https://shop.example/back?x=1"
    with pytest.raises(Unexpected, match="looks at no page, but at https://shop"):
        await rim.press()
    await rim.open(f"{url}/here")
    assert rim.left_for == ""
    await rim.follow("Elsewhere")
    assert rim.left_for == "https://shop.example/shop"
    with pytest.raises(Unexpected, match=r"was sent a link to shop\.example"):
        await rim.open("https://shop.example/shop")
    assert [path for path, *_ in site.got] == ["/here", "/one", "/here"]


@pytest.mark.parametrize(
    ("words", "typed", "says"),
    [
        ("Pay", {}, "/here has no button Pay: 100.000 TND A lamp"),
        ("", {"amount": "1"}, "/here has no amount to fill in"),
        ("", {"form_token": "mine"}, "/here has no form_token to fill in"),
    ],
)
async def test_nothing_is_pressed_or_filled_in_that_is_not_there(
    visited, words, typed, says
) -> None:
    site, url, rim = visited
    await rim.open(f"{url}/here")
    with pytest.raises(Unexpected, match=says):
        await rim.press(words, **typed)
    assert len(site.got) == 1


async def test_a_page_that_says_no_or_another_language_or_leads_in_circles_is_told(visited) -> None:
    _, url, rim = visited
    with pytest.raises(Unexpected, match="GET /gone answered 409: Not now"):
        await rim.open(f"{url}/gone")
    with pytest.raises(Unexpected, match="leads on and on"):
        await rim.open(f"{url}/loop")
    rim.language = "ar"
    with pytest.raises(Unexpected, match="/here is in en instead of ar"):
        await rim.open(f"{url}/here")
