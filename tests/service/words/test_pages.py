"""Every part of the pages and every skeleton, in three languages: whole, valid, inert, small."""

from pathlib import Path

import html5lib
import pytest
from markupsafe import Markup

from service.ingress.pages.static import FOLDER
from service.rules.escrow import STATUSES
from service.words.languages import LANGUAGES, preferred
from service.words.pages import MEANINGS, Frame, Pages
from tests import previews
from tests.previews import HOSTILE, LARGE, NOW, PAID, ZONE, read_pages, rendered

PAGES = read_pages()
STYLE = FOLDER / "pages.css"
PAGE_BYTES_MAX, STYLE_BYTES_MAX = 50_000, 12_000
EVERY = pytest.mark.parametrize(
    ("name", "code"), [(name, code) for name in sorted(previews.PREVIEWS) for code in LANGUAGES]
)


def parsed(source):
    """The page as a browser's parser reads it; ParseError for what it has to mend."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(source)


def text_of(element):
    return " ".join("".join(element.itertext()).split())


@EVERY
def test_a_page_is_valid_and_small_with_one_heading_and_its_language(name, code):
    source = rendered(PAGES, name, code)
    page = parsed(source)
    assert (page.get("lang"), page.get("dir")) == (code, LANGUAGES[code].direction)
    assert len(page.findall(".//h1")) == 1
    assert len(page.findall(".//main")) == 1
    assert page.find(".//title").text.strip()
    assert len(source.encode()) + STYLE.stat().st_size <= PAGE_BYTES_MAX


@EVERY
def test_nothing_stands_inline_and_nothing_comes_from_elsewhere(name, code):
    for element in parsed(rendered(PAGES, name, code)).iter():
        assert element.tag not in ("script", "style", "iframe", "object", "embed", "img", "base")
        assert not [key for key in element.attrib if key == "style" or key.startswith("on")]
        for key in ("src", "href", "action"):
            address = element.get(key, "/")
            assert address.startswith(("/", "?")), address
            assert not address.startswith("//")


@EVERY
def test_what_is_named_by_another_element_is_there_once(name, code):
    page = parsed(rendered(PAGES, name, code))
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in page.iter():
        for key in ("for", "aria-describedby", "aria-labelledby"):
            assert set((element.get(key) or "").split()) <= set(ids)


@EVERY
def test_every_input_has_its_label(name, code):
    page = parsed(rendered(PAGES, name, code))
    labelled = {label.get("for") for label in page.iter("label")}
    within = {inner for label in page.iter("label") for inner in label.iter("input")}
    for tag in ("input", "textarea", "select"):
        for one in page.iter(tag):
            assert one.get("type") == "hidden" or one.get("id") in labelled or one in within


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_what_people_typed_is_text_and_keeps_to_itself(code):
    page = parsed(rendered(PAGES, "components", code))
    assert not list(page.iter("b"))
    title = page.find(".//h1//span[@class='title']/bdi")
    assert title.text == HOSTILE
    assert page.find(".//input[@id='email']").get("value") == HOSTILE
    assert page.find(".//textarea[@id='reason']").text == HOSTILE + "\nand a second line"
    assert "\u202e" not in page.find(".//title").text


def test_an_error_stands_beside_its_field_and_names_it():
    page = parsed(rendered(PAGES, "components", "en"))
    email = page.find(".//input[@id='email']")
    assert (email.get("aria-invalid"), email.get("aria-describedby")) == ("true", "email-error")
    error = page.find(".//p[@id='email-error']")
    assert text_of(error) == "!Attention: Please write an e-mail address such as name@example.com."
    assert page.find(".//input[@id='code']").get("aria-describedby") == "code-hint"
    assert page.find(".//input[@id='code']").get("aria-invalid") is None


def test_a_form_begins_with_its_token():
    form = parsed(rendered(PAGES, "pay", "en")).find(".//form")
    first = form.find("*")
    assert (first.get("type"), first.get("name"), first.get("value")) == (
        "hidden",
        "form_token",
        "a-token",
    )


@pytest.mark.parametrize(
    ("code", "deadline"),
    [
        ("en", "by 6 April 2026, 10:00 (Tunis time, GMT+01:00), in 28 days"),
        ("fr", "au plus tard le 6 avril 2026, 10:00 (heure de Tunis, GMT+01:00), dans 28 jours"),
        ("ar", "في أجل أقصاه 6 أفريل 2026, 10:00 (بتوقيت تونس، GMT+01:00)، خلال 28 يومًا"),
    ],
)
def test_the_timeline_says_what_is_done_what_is_now_and_by_when(code, deadline):
    page = parsed(rendered(PAGES, "pay", code))
    items = page.findall(".//ol[@class='timeline']/li")
    assert [item.get("class") for item in items] == ["done", "now", "next", "next"]
    [now] = [item for item in items if item.get("aria-current") == "step"]
    assert text_of(now.find("span[@class='when']")) == deadline
    assert now.find(".//time").get("datetime") == PAID["times"]["expires_at"]


def test_while_disputed_that_is_where_it_stands_and_nothing_ahead_has_a_time():
    stops = PAGES.voice("en", ZONE, NOW).timeline(LARGE)
    assert [(stop.what, stop.state, bool(stop.when)) for stop in stops] == [
        ("Created", "done", True),
        ("Payment", "done", True),
        ("Dispute", "now", True),
        ("Delivery", "next", False),
        ("Completion", "next", False),
    ]


def test_a_time_is_shown_in_the_zone_of_the_person():
    shown = PAGES.voice("en", "Asia/Tokyo").moment("2026-03-09T14:05:00.000Z")
    assert "9 March 2026, 23:05 (Tokyo time, GMT+09:00)" in shown
    with pytest.raises(LookupError):
        PAGES.voice("en", "Asia/Tokyo").distance(NOW)


def test_a_sentence_isolates_and_escapes_what_is_typed_and_takes_markup_as_it_is():
    voice = PAGES.voice("en", ZONE)
    said = voice.say("label.seller", seller="<b>\u2069x</b>")
    assert said == Markup("Seller: <bdi>&lt;b&gt;x&lt;/b&gt;</bdi>")
    assert voice.say("page.request_id", id=voice.figure("ab")).endswith('class="figure">ab</bdi>')


def test_a_template_that_names_what_it_is_not_given_fails(tmp_path: Path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "gap.html").write_text("{{ nobody_gave_this }}")
    pages = Pages.read(tmp_path)
    with pytest.raises(Exception, match="nobody_gave_this"):
        pages.render("gap", pages.voice("en", ZONE), Frame({}))


def test_every_status_of_an_escrow_has_a_meaning_and_words():
    voice = PAGES.voice("en", ZONE)
    assert {voice.status(status)[0] for status in STATUSES} == {"done", "waiting", "problem"}
    assert set(MEANINGS) == set(STATUSES)


def test_the_style_is_small_and_mirrors_by_itself():
    style = STYLE.read_text()
    assert len(style.encode()) < STYLE_BYTES_MAX
    for physical in ("margin-left", "margin-right", "padding-left", "padding-right", "border-left"):
        assert physical not in style
    for loaded in ("@import", "url(", "text-align: left", "text-align: right", "float:"):
        assert loaded not in style


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("", None),
        ("fr", "fr"),
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        ("en;q=0.1, ar-TN;q=0.9", "ar"),
        ("de, AR;q=0.2, en;q=0", "ar"),
        ("en;q=0.5,fr;q=0.5", "en"),
        ("de,*", None),
        ("en;q=0", None),
        ("fr;q=nonsense, en", "en"),
        ("e\u0301n, fr;q=1.5", None),
        (",".join(["de"] * 1000) + ",fr", None),
    ],
)
def test_the_language_that_is_liked_best_is_spoken(accepted, code):
    assert preferred(accepted) == code
