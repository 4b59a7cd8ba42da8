"""A real browser for the tests of pages: the system's Chromium, driven by Playwright.

    async def test_it_looks_well(phone):
        page = await phone("ar")
        await page.goto(url)
        assert await serious(page) == []

Without a Chromium on the PATH these tests are skipped (`make chromium` installs it on Debian).
Nothing but loopback can be reached from it.
"""

import contextlib
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright

CHROMIUMS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # root has no user namespace; it opens our own pages only
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # /dev/shm is small in a container
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
PHONE = {"width": 360, "height": 740}
SERIOUS = frozenset({"serious", "critical"})
LOCALES = {"en": "en-GB", "fr": "fr-FR", "ar": "ar-TN"}


def chromium() -> str | None:
    """Where the browser is, or None."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
async def browser():
    """The browser of this worker, started once; the test is skipped where there is none."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on the PATH: `make chromium` installs it on Debian")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        await started.close()


@pytest.fixture
async def phone(browser):
    """`await phone("ar")`: a page on a phone's screen whose browser asks for that language.

    `dark`, `scripts` and the screen may be chosen. What the page's console complains about fails
    the test: a refused style or script is a hole in the page or in its policy.
    """
    complaints = []
    async with contextlib.AsyncExitStack() as stack:

        async def opened(language="en", *, dark=False, scripts=True, screen=PHONE):
            context = await browser.new_context(
                viewport=screen,
                locale=LOCALES[language],
                color_scheme="dark" if dark else "light",
                java_script_enabled=scripts,
            )
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.on("console", lambda said: complaints.append(said.text) if loud(said) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            return page

        yield opened
    assert complaints == []


def loud(said):
    """Whether the console complains; that a page's own status was an error is no news."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text


async def serious(page):
    """What axe finds on the page that keeps people out: (rule, where), serious and critical."""
    results = await Axe().run(page)
    return [
        (violation["id"], [node["target"] for node in violation["nodes"]])
        for violation in results.response["violations"]
        if violation["impact"] in SERIOUS
    ]


async def overflow(page):
    """How many pixels of the page stand beyond its screen."""
    return await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


async def photograph(page, path: Path):
    """The whole page as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=path, full_page=True)
