"""Instants as people read them: in a named zone, with how far away they are."""

from datetime import UTC, datetime, timedelta, tzinfo

from babel.dates import (
    format_datetime,
    format_timedelta,
    get_timezone,
    get_timezone_gmt,
    get_timezone_location,
)

from service.words.catalogue import Catalogue

DAY_AND_TIME = "d MMMM y, HH:mm"
WEEKS_COUNT_FROM_DAYS = 45


def date_text(instant: str, zone: str, catalogue: Catalogue) -> str:
    """`20 December 2025, 14:05 (Tunis time, GMT+01:00)` for an ISO 8601 instant."""
    language, timezone = catalogue.language, get_timezone(zone)
    local = _parsed(instant).astimezone(timezone)
    return catalogue.text("date.in_zone").format(
        moment=format_datetime(local, DAY_AND_TIME, tzinfo=timezone, locale=language.locale),
        city=_city(timezone, catalogue),
        offset=get_timezone_gmt(local, locale="en"),
    )


def distance_text(instant: str, seen_from: str, catalogue: Catalogue) -> str:
    """`in 3 days`, `2 hours ago`: how far the instant is from `seen_from`, both ISO 8601."""
    away = _parsed(instant) - _parsed(seen_from)
    days = abs(away) / timedelta(days=1)
    # Babel takes the first unit of which there are `threshold`: eight days are not "1 week".
    threshold = days * 0.9 if 1 <= days < WEEKS_COUNT_FROM_DAYS else 0.85
    locale = catalogue.language.locale
    return format_timedelta(away, threshold=threshold, add_direction=True, locale=locale)


def _city(timezone: tzinfo, catalogue: Catalogue) -> str:
    return get_timezone_location(timezone, locale=catalogue.language.locale, return_city=True)


def _parsed(instant: str) -> datetime:
    parsed = datetime.fromisoformat(instant)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
