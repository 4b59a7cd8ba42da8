"""The parts of the pages in a real browser, on a phone: whole, readable, and nothing refused."""

import contextlib

import pytest

from tests import previews
from tests.browser import overflow, photograph, serious

NAMES = sorted(previews.PREVIEWS)
NARROW = {"width": 320, "height": 640}
TARGET_PIXELS = 44
# Links within a sentence may be as low as their line (WCAG 2.5.8); ours stand alone.
SMALL_TARGETS = """
    least => [...document.querySelectorAll("a, button, input:not([type=hidden]), textarea")]
        .map(e => e.closest(".choice") ?? e)
        .filter(e => Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width)
            < least)
        .map(e => e.outerHTML)
"""
FONT_SIZES = """
    () => [...new Set([...document.body.querySelectorAll("*")]
        .map(e => getComputedStyle(e).fontSize))].sort()
"""
LARGEST = """
    () => {
        const size = e => parseFloat(getComputedStyle(e).fontSize);
        const all = [...document.body.querySelectorAll("*")].filter(e => e.innerText?.trim());
        return all.sort((a, b) => size(b) - size(a))[0].innerText;
    }
"""


@pytest.fixture
def previewing(ingress):
    """`async with previewing() as url:` the address of the previews, with a slash at its end."""

    @contextlib.asynccontextmanager
    async def opened():
        async with ingress(previews.ROUTES) as client:
            yield f"{client._base_url}/preview/"

    return opened


@pytest.mark.parametrize("language", ["en", "ar"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_page_keeps_nobody_out(previewing, phone, tmp_path, name, language):
    page = await phone(language)
    async with previewing() as url:
        await page.goto(url + name)
        await photograph(page, tmp_path / f"{name}-{language}.png")
        assert await page.get_attribute("html", "lang") == language
        assert await page.get_attribute("html", "dir") == ("rtl" if language == "ar" else "ltr")
        assert await serious(page) == []
        assert await overflow(page) <= 0


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_a_page_keeps_nobody_out_in_the_dark(previewing, phone, language):
    page = await phone(language, dark=True)
    async with previewing() as url:
        await page.goto(url + "components")
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(21, 24, 28)"
        assert await serious(page) == []


async def test_the_check_finds_what_keeps_people_out(phone):
    page = await phone()
    await page.set_content("<html lang=en><title>A page</title><input><p style='color:#ccc'>Hi")
    assert {rule for rule, _ in await serious(page)} >= {"label", "color-contrast"}


@pytest.mark.parametrize("name", NAMES)
async def test_the_narrowest_phone_shows_the_whole_page_with_room_for_a_finger(
    previewing, phone, name
):
    page = await phone("fr", screen=NARROW)
    async with previewing() as url:
        await page.goto(url + name)
        assert await overflow(page) <= 0
        assert await page.evaluate(SMALL_TARGETS, TARGET_PIXELS) == []


async def test_the_amount_is_largest_and_there_are_three_sizes(previewing, phone):
    page = await phone()
    async with previewing() as url:
        await page.goto(url + "components")
        assert await page.evaluate(FONT_SIZES) == ["14px", "16px", "28px"]
        assert await page.evaluate(LARGEST) == "1,250.000 TND"


async def test_the_language_is_changed_by_a_link_without_a_script(previewing, phone):
    page = await phone("en", scripts=False)
    async with previewing() as url:
        await page.goto(url + "pay")
        await page.get_by_role("link", name="العربية").click()
        assert page.url == url + "pay?lang=ar"
        assert await page.locator("html").get_attribute("dir") == "rtl"


async def test_what_has_the_focus_is_seen(previewing, phone):
    page = await phone()
    async with previewing() as url:
        await page.goto(url + "components")
        await page.locator("#email").focus()
        await page.keyboard.press("Tab")
        drawn = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert drawn == "3px"
