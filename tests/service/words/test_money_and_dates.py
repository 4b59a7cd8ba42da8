"""Amounts and instants in three languages."""

import pytest

from service.words.catalogue import read_catalogues
from service.words.dates import date_text, distance_text
from service.words.languages import language_of
from service.words.money import amount_text

CATALOGUES = read_catalogues()
NOON = "2025-12-20T13:05:00.000Z"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en", "1,234,567.500 TND"),
        ("fr", "1\u202f234\u202f567,500 TND"),
        ("ar", "1.234.567,500 TND"),
    ],
)
def test_an_amount_is_grouped_as_the_language_does_and_keeps_every_decimal(code, expected):
    assert amount_text("1234567.500", "TND", language_of(code)) == expected


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("0.010", "TND", "0.010 TND"),
        ("1000.00", "USD", "1,000.00 USD"),
        ("94.700000", "USDC", "94.700000 USDC"),
        ("900000000000.000", "TND", "900,000,000,000.000 TND"),
        ("1000", "XXX", "1,000 XXX"),
    ],
)
def test_an_amount_shows_exactly_the_decimals_that_it_carries(amount, currency, expected):
    assert amount_text(amount, currency, language_of("en")) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en", "20 December 2025, 14:05 (Tunis time, GMT+01:00)"),
        ("fr", "20 décembre 2025, 14:05 (heure de Tunis, GMT+01:00)"),
        ("ar", "20 ديسمبر 2025, 14:05 (بتوقيت تونس، GMT+01:00)"),
    ],
)
def test_an_instant_is_shown_in_its_named_zone(code, expected):
    assert date_text(NOON, "Africa/Tunis", CATALOGUES[code]) == expected


def test_the_zone_changes_the_hour_and_the_day():
    shown = date_text("2025-12-20T01:05:00Z", "America/New_York", CATALOGUES["en"])
    assert shown == "19 December 2025, 20:05 (New York time, GMT-05:00)"


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2025-12-23T13:05:00Z", "in 3 days"),
        ("2025-12-28T13:05:00Z", "in 8 days"),
        ("2025-12-20T15:05:00Z", "in 2 hours"),
        ("2025-12-18T13:05:00Z", "2 days ago"),
        ("2026-12-20T13:05:00Z", "in 1 year"),
    ],
)
def test_the_distance_is_counted_in_days_up_to_six_weeks(instant, expected):
    assert distance_text(instant, NOON, CATALOGUES["en"]) == expected
