"""The explorer: served whole by us, and drawn by a real browser under its policy."""

import asyncio
import os
import re
import shutil

import pytest

from service.ingress.openapi import operation_id
from service.ingress.route import Auth
from service.ingress.routes import routes
from service.rules.events import CATALOGUE
from service.rules.policy import Policy
from tests.service.ingress.pages.test_mailbox import Page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--dump-dom",
)


async def test_the_page_loads_nothing_but_our_own_files(ingress):
    async with ingress(None) as client:
        async with client.get("/docs") as response:
            assert (response.status, response.content_type) == (200, "text/html")
            page = Page(await response.text())
        loaded = [attrs["src"] for name, attrs in page.tags if name == "script"]
        loaded += [a["href"] for name, a in page.tags if name == "link" and a["rel"] != "icon"]
        assert len(loaded) == 4
        for path in loaded:
            async with client.get(path) as response:
                assert response.status == 200, path
                assert await response.read()


async def test_its_policy_lets_our_scripts_run_and_talk_to_us_only(ingress):
    async with ingress(None) as client, client.get("/docs") as response:
        policy = set(response.headers["Content-Security-Policy"].split("; "))
        assert {
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        } <= policy
        assert not re.search("unsafe|https?:", " ".join(policy))
        assert "<script>" not in await response.text()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("there is no Chromium here, so nobody has looked at the page")
    return BROWSER


async def drawn(browser, url, folder):
    """The page as a browser ends up with it, and what it had to complain about."""
    process = await asyncio.create_subprocess_exec(
        browser,
        *FLAGS,
        *(["--no-sandbox"] if os.getuid() == 0 else []),
        f"--user-data-dir={folder}",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 50)
    return Page(out.decode()), [line for line in err.decode().splitlines() if "CONSOLE" in line]


async def test_a_browser_draws_every_operation_and_every_webhook(ingress, browser, tmp_path):
    async with ingress(None) as client:
        page, complaints = await drawn(browser, str(client._base_url / "docs"), tmp_path)
    shown = {
        attrs["id"]
        for _, attrs in page.tags
        if "opblock" in (attrs.get("class") or "") and "id" in attrs
    }
    rows = [r for r in routes(Policy(environment="sandbox")) if r.auth is not Auth.NONE]
    assert {operation_id(route) for route in rows} <= {name.rpartition("-")[2] for name in shown}
    for event in CATALOGUE:
        assert event in page.text
    assert complaints == []


async def test_an_operation_shows_its_example_in_three_languages(ingress, browser, tmp_path):
    async with ingress(None) as client:
        url = f"{client._base_url}/docs#/Escrows/postEscrows"
        page, complaints = await drawn(browser, url, tmp_path)
    tabs = [attrs for _, attrs in page.tags if attrs.get("role") == "tab" and "class" not in attrs]
    assert [attrs["aria-selected"] for attrs in tabs] == ["true", "false", "false"]
    for label in ("curl", "JavaScript", "Python", "Idempotency-Key: order-1042"):
        assert label in page.text
    assert complaints == []
