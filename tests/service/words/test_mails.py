"""Mails as their readers get them, and what hostile text cannot do in them."""

from itertools import product
from typing import Any

import pytest

from service.rules.delivery import DisableReason
from service.rules.lane import Told
from service.words.facts import EndpointFacts, EscrowFacts
from service.words.languages import LANGUAGES
from service.words.mails import SCRIPTS, Words
from service.words.topics import ESCROW

WORDS = Words.read()
ESCROW_MAILS = [name for name, script in SCRIPTS.items() if script.about is ESCROW]
LINKS = {
    "endpoint": "http://amana.test/dashboard/webhooks/0123456789abcdef01234567",
    "escrow": "http://amana.test/dashboard/escrow/0123456789abcdef01234567",
    "register": "http://amana.test/register/" + "t" * 43,
}
HOSTILE = '<script>alert(1)</script><img src="http://evil.test/x"> {title} {{ 7*7 }} %s'


def facts(**changes: Any) -> EscrowFacts:
    told: dict[str, Any] = {
        "escrow_id": "0123456789abcdef01234567",
        "title": "Logo design",
        "amount": "1000.000",
        "currency": "TND",
        "held": "1000.000",
        "net": "950.000",
        "ledger_currency": "TND",
        "mode": "standard",
        "status": "pending",
        "role": "buyer",
        "seller": "Sami Ben Ali",
        "buyer": "buyer@example.org",
        "times": {
            "created_at": "2025-11-20T10:00:00.000Z",
            "expires_at": "2025-12-20T10:00:00.000Z",
            "delivery_due_at": "2025-11-30T10:00:00.000Z",
            "completion_due_at": "2025-12-07T10:00:00.000Z",
            "refund_due_at": None,
            "answer_due_at": "2025-11-25T10:00:00.000Z",
            "request_due_at": "2025-11-26T10:00:00.000Z",
            "proof_due_at": "2025-11-21T10:00:00.000Z",
            "review_due_at": "2025-11-22T10:00:00.000Z",
            "paid_at": None,
        },
        "at": "2025-11-20T10:00:00.000Z",
        "timezone": "Africa/Tunis",
        "reason": None,
    }
    return {**told, **changes}  # type: ignore[typeddict-item,return-value]


def told_of(url: str, reason: DisableReason = DisableReason.GONE) -> EndpointFacts:
    return EndpointFacts(endpoint_id="0" * 24, url=url, reason=reason.name.lower())


def body_of(html: str) -> str:
    """The document without the styles that are ours."""
    return html.partition("<body")[2]


@pytest.mark.parametrize(
    ("template", "role", "code"), list(product(ESCROW_MAILS, ("seller", "buyer"), LANGUAGES))
)
def test_every_mail_is_written_for_both_sides_in_every_language(template, role, code):
    mail = WORDS.render(template, code, facts(role=role), LINKS)
    assert mail.subject.strip()
    assert "\n" not in mail.subject
    assert len(mail.links) == 1
    assert mail.links[0] in mail.text
    assert mail.links[0] in mail.html
    for part in (mail.subject, mail.text, mail.html):
        assert "{" not in part
        assert "None" not in part
    for part in (mail.text, mail.html):
        assert "Logo design" in part
        assert "TND" in part


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("template", ["invitation", "invitation_reminder"])
def test_the_first_link_of_an_invitation_registers(template, code):
    mail = WORDS.render(template, code, facts(), LINKS)
    assert mail.links[0] == LINKS["register"]
    first = mail.text.index("http")
    assert mail.text[first:].startswith(LINKS["register"])


@pytest.mark.parametrize(("code", "direction"), [("en", "ltr"), ("fr", "ltr"), ("ar", "rtl")])
def test_a_mail_names_its_language_and_direction(code, direction):
    html = WORDS.render("escrow_paid", code, facts(), LINKS).html
    assert f'<html lang="{code}" dir="{direction}">' in html


@pytest.mark.parametrize(("template", "code"), list(product(ESCROW_MAILS, LANGUAGES)))
def test_a_mail_loads_nothing_and_is_small(template, code):
    html = WORDS.render(template, code, facts(), LINKS).html
    for loader in ("<img", "<script", "<link", "<iframe", "src=", "url(", "@import", "<style"):
        assert loader not in html
    assert html.count("href=") == 1
    assert len(html.encode()) < 10_000


@pytest.mark.parametrize(("template", "code"), list(product(ESCROW_MAILS, LANGUAGES)))
def test_what_people_typed_is_inert(template, code):
    told = facts(title=HOSTILE, seller=HOSTILE, buyer=HOSTILE, status="cancelled", reason="seller")
    mail = WORDS.render(template, code, told, LINKS)
    assert "<script" not in mail.html
    assert "<img" not in mail.html
    assert "49" not in mail.subject
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;" in body_of(mail.html)
    assert mail.links == (mail.links[0],)


def test_user_text_is_isolated_wherever_it_stands():
    html = WORDS.render("invitation", "ar", facts(title="Logo", seller="Sami"), LINKS).html
    body = body_of(html)
    assert body.count("Logo") == body.count("<bdi>Logo</bdi>") > 0
    assert body.count("Sami") == body.count("<bdi>Sami</bdi>") > 0
    assert body.count("1.000,000 TND") == body.count(">1.000,000 TND</bdi>") > 0


def test_a_direction_override_cannot_leave_its_place():
    title = "abc\u202edcba\u2069\u2066 x\u2028y\r\nBcc: evil@evil.test"
    mail = WORDS.render("invitation", "en", facts(title=title), LINKS)
    for part in (mail.subject, mail.text):
        assert not set(part) & set("\u202e\u2066\u2028\r")
        assert "abcdcba x y Bcc: evil@evil.test" in part
    assert "\u2069" not in mail.html.replace(mail.subject, "")
    assert "<bdi>abc\u202edcba x y Bcc: evil@evil.test</bdi>" in mail.html


def test_a_right_to_left_name_is_isolated_in_an_english_subject():
    mail = WORDS.render("invitation", "en", facts(seller="نور"), LINKS)
    assert mail.subject.startswith("\u2068نور\u2069 sells you")


def test_a_long_title_is_shortened_in_the_subject_and_the_amount_never():
    mail = WORDS.render("invitation", "en", facts(title="x" * 200), LINKS)
    assert len(mail.subject) < 130
    assert mail.subject.endswith("… (1,000.000 TND)")
    assert "x" * 200 in mail.text


def test_a_cancellation_says_why_and_what_became_of_the_money():
    unpaid = facts(status="cancelled", reason="expired")
    assert "it was not paid in time" in WORDS.render("escrow_cancelled", "en", unpaid, LINKS).text
    assert "no money moved" in WORDS.render("escrow_cancelled", "en", unpaid, LINKS).text
    paid = facts(times={**unpaid["times"], "paid_at": "2025-11-21T10:00:00.000Z"})
    assert "returned to you in full" in WORDS.render("escrow_cancelled", "en", paid, LINKS).text


def test_an_overdue_instant_escrow_says_when_the_money_goes_back():
    times = {**facts()["times"], "refund_due_at": "2025-12-03T10:00:00.000Z"}
    text = WORDS.render("delivery_overdue", "en", facts(mode="instant", times=times), LINKS).text
    assert "If it is not delivered by 3 December 2025, 11:00" in text


@pytest.mark.parametrize(("role", "code"), list(product(("seller", "buyer"), LANGUAGES)))
def test_a_clock_that_stands_still_has_words_in_place_of_a_date(role, code):
    times = {
        **facts()["times"],
        "paid_at": "2025-11-21T10:00:00.000Z",
        "delivered_at": "2025-11-22T10:00:00.000Z",
    }
    running = facts(role=role, status="delivered", times=times)
    still = facts(
        role=role,
        status="delivered",
        times=times | {"completion_due_at": None},
        paused=["completion_due_at"],
    )
    assert "2025" in WORDS.render("escrow_delivered", code, running, LINKS).text
    mail = WORDS.render("escrow_delivered", code, still, LINKS)
    told = [line for line in mail.text.splitlines() if not line.startswith("[x]")]
    assert "2025" not in "".join(told)
    assert WORDS._catalogues[code].text("label.paused") in mail.text.split("[>]")[1]


def test_the_timeline_shows_done_now_and_next_with_times():
    times = {**facts()["times"], "paid_at": "2025-11-21T10:00:00.000Z"}
    text = WORDS.render("escrow_paid", "en", facts(status="paid", times=times), LINKS).text
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert lines == [
        "[x] Created (done): 20 November 2025, 11:00 (Tunis time, GMT+01:00)",
        "[x] Payment (done): 21 November 2025, 11:00 (Tunis time, GMT+01:00)",
        "[>] Delivery (now): by 30 November 2025, 11:00 (Tunis time, GMT+01:00), in 10 days",
        "[ ] Completion (next)",
    ]


def test_an_instant_timeline_skips_delivery_and_a_cancelled_one_ends():
    instant = WORDS.render("escrow_notice", "en", facts(mode="instant"), LINKS).text
    assert "Delivery (" not in instant
    times = {**facts()["times"], "cancelled_at": "2025-11-22T10:00:00.000Z"}
    told = facts(status="cancelled", reason="buyer", times=times)
    lines = WORDS.render("escrow_cancelled", "en", told, LINKS).text.splitlines()
    assert [line[:13] for line in lines if line.startswith("[")] == [
        "[x] Created (",
        "[x] Cancelled",
    ]


def test_the_same_facts_give_the_same_mail():
    assert WORDS.render("invitation", "fr", facts(), LINKS) == WORDS.render(
        "invitation", "fr", facts(), LINKS
    )


def test_an_unknown_template_or_a_missing_fact_is_a_bug_and_says_so():
    with pytest.raises(KeyError):
        WORDS.render("no_such_mail", "en", facts(), LINKS)
    with pytest.raises(KeyError):
        WORDS.render("invitation", "en", facts(times={}), LINKS)


def test_a_language_that_we_do_not_speak_is_english():
    assert WORDS.render("invitation", "xx", facts(), LINKS).html.startswith(
        '<!doctype html>\n<html lang="en"'
    )


FIVE = {"en": "five days", "fr": "cinq jours", "ar": "خمسة أيام"}


@pytest.mark.parametrize(
    ("why", "code"), list(product((Told.EXHAUSTED, Told.DAY, Told.THREE_DAYS), LANGUAGES))
)
def test_a_developer_is_told_what_has_failed_by_now_and_when_it_ends(why: Told, code: str):
    told = EndpointFacts(
        endpoint_id="0" * 24, url="https://shop.example/hook", reason=(why.name or "").lower()
    )
    mail = WORDS.render("endpoint_failing", code, told, LINKS)
    assert mail.links == (LINKS["endpoint"],)
    assert "https://shop.example/hook" in mail.subject
    for part in (mail.text, mail.html):
        assert "https://shop.example/hook" in part
        assert FIVE[code] in part
        assert "{" not in part
    others = {
        WORDS.render("endpoint_failing", code, {**told, "reason": other}, LINKS).text
        for other in ("exhausted", "day", "three_days")
    }
    assert len(others) == 3


@pytest.mark.parametrize(("reason", "code"), list(product(DisableReason, LANGUAGES)))
def test_a_developer_is_told_which_endpoint_was_disabled_why_and_how_to_enable_it(reason, code):
    told = told_of("https://shop.example/hook", reason)
    mail = WORDS.render("endpoint_disabled", code, told, LINKS)
    assert mail.links == (LINKS["endpoint"],)
    for part in (mail.text, mail.html):
        assert "https://shop.example/hook" in part
        assert f"PUT /api/developer/webhooks/{'0' * 24}" in part
        said = {"GONE": "410 Gone", "ASKED": "webhook-delivery: disable"}
        assert said.get(reason.name, FIVE[code]) in part
        assert "{" not in part
        assert "None" not in part
    assert "TND" not in mail.text
    assert "\n\n\n" not in mail.text
    assert mail.html.count("href=") == 1


@pytest.mark.parametrize("code", LANGUAGES)
def test_an_endpoints_address_is_inert_and_cut(code):
    told = told_of("https://evil.test/<script>alert(1)</script>?" + "x" * 2000)
    mail = WORDS.render("endpoint_disabled", code, told, LINKS)
    assert "<script" not in mail.html
    assert len(mail.subject) < 120
    assert len(mail.html.encode()) < 10_000


def test_a_mail_about_an_escrow_shows_no_gap_before_its_timeline():
    text = WORDS.render("escrow_paid", "en", facts(), LINKS).text
    assert "\nBuyer: buyer@example.org\n\nWhere it stands\n[x] Created" in text
    assert "\n\n\n" not in text
