"""Every sentence exists in every language, with the same places."""

from string import Formatter

import pytest

from service.rules.delivery import DisableReason
from service.words.catalogue import read_catalogues
from service.words.languages import LANGUAGES
from service.words.mails import SCRIPTS
from service.words.timeline import STATIONS
from service.words.topics import ESCROW

CATALOGUES = read_catalogues()
ENGLISH = CATALOGUES["en"].sentences


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_no_sentence_is_missing_or_left_over(code: str):
    assert set(CATALOGUES[code].sentences) == set(ENGLISH)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_a_sentence_has_the_same_places_in_every_language(code: str):
    differing = {
        key: (places(sentence), places(ENGLISH[key]))
        for key, sentence in CATALOGUES[code].sentences.items()
        if places(sentence) != places(ENGLISH[key])
    }
    assert differing == {}


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_no_sentence_is_empty_or_the_english_one(code: str):
    for key, sentence in CATALOGUES[code].sentences.items():
        assert sentence.strip()
        assert code == "en" or sentence != ENGLISH[key], key


@pytest.mark.parametrize(
    "template", sorted(name for name, script in SCRIPTS.items() if script.about is ESCROW)
)
def test_every_mail_has_its_subject_and_action_for_both_sides(template: str):
    for role in ("seller", "buyer"):
        for key in ("subject", "opening", "action"):
            assert f"mail.{template}.{role}.{key}" in ENGLISH


def test_every_reason_to_cancel_has_its_sentence():
    reasons = {
        "expired",
        "undelivered",
        "proof_expired",
        "proof_rejected",
        "seller",
        "buyer",
        "creator",
        "request_accepted",
        "dispute",
    }
    assert {key.removeprefix("reason.") for key in ENGLISH if key.startswith("reason.")} == reasons


def test_every_reason_to_disable_an_endpoint_has_its_sentence():
    told = {key.removeprefix("disabled.") for key in ENGLISH if key.startswith("disabled.")}
    assert told == {reason.name.lower() for reason in DisableReason}


def test_every_station_has_its_name():
    stations = {name for names in STATIONS.values() for name in names} | {"cancelled", "disputed"}
    assert {k.removeprefix("station.") for k in ENGLISH if k.startswith("station.")} == stations
