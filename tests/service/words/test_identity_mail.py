"""The mail that asks a person to show who they are."""

import pytest

from service.words.facts import IdentityFacts
from service.words.languages import LANGUAGES
from service.words.mails import Words

WORDS = Words.read()
LINKS = {"identity": "http://amana.test/identity/" + "t" * 43}
HOSTILE = '<script>alert(1)</script><a href="http://evil.test"> {company} {{ 7*7 }}\r\nBcc: x@y.z'


def facts(company: str = "Shop & Sons") -> IdentityFacts:
    return IdentityFacts(
        verification_id="0123456789abcdef01234567",
        company=company,
        expires_at="2026-02-18T10:00:00.000Z",
        timezone="Africa/Tunis",
    )


@pytest.mark.parametrize("code", LANGUAGES)
def test_it_says_who_asks_and_until_when_in_every_language(code: str) -> None:
    mail = WORDS.render("identity_verification", code, facts(), LINKS)
    assert mail.links == (LINKS["identity"],)
    assert "Shop & Sons" in mail.subject
    assert "\n" not in mail.subject
    for part in (mail.text, mail.html):
        assert LINKS["identity"] in part
        assert "0123456789abcdef01234567" in part
        assert "2026" in part
        assert "{" not in part
        assert "None" not in part
        assert "TND" not in part
    assert "Shop &amp; Sons" in mail.html
    assert "\n\n\n" not in mail.text
    assert mail.html.count("href=") == 1
    assert f'<html lang="{code}" dir="{LANGUAGES[code].direction}">' in mail.html
    assert len(mail.html.encode()) < 10_000


def test_the_english_one_reads_well() -> None:
    mail = WORDS.render("identity_verification", "en", facts("Shop"), LINKS)
    assert mail.subject == "Shop asks you to show who you are"
    assert mail.text.splitlines()[:2] == ["Show who you are", "Shop"]
    assert "The link works until 18 February 2026, 11:00 (Tunis time, GMT+01:00)." in mail.text
    assert "Verify your identity\nhttp://amana.test/identity/ttt" in mail.text


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_companys_name_is_inert_and_cut(code: str) -> None:
    mail = WORDS.render("identity_verification", code, facts(HOSTILE + "x" * 300), LINKS)
    assert "<script" not in mail.html
    assert "49" not in mail.html
    assert mail.html.count("<a ") == 1
    assert len(mail.subject) < 160
    assert not any(line.startswith("Bcc:") for line in mail.text.splitlines())


def test_it_is_not_written_without_its_link() -> None:
    with pytest.raises(KeyError, match="identity"):
        WORDS.render("identity_verification", "en", facts(), {})
