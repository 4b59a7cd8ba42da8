"""Ids sort by their time, are written as the contract says, and do not repeat."""

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.store.ids import entity_id, event_id

moments = st.datetimes(
    datetime.fromtimestamp(0, UTC).replace(tzinfo=None),
    datetime.fromtimestamp(8_000_000_000, UTC).replace(tzinfo=None),
    timezones=st.just(UTC),
)
MILLISECOND = timedelta(milliseconds=1)


@given(moments)
def test_an_entity_id_is_24_lower_case_hex_characters_that_begin_with_the_time(now):
    made = entity_id(now)
    assert re.fullmatch(r"[0-9a-f]{24}", made)
    assert int(made[:12], 16) == int(now.timestamp() * 1000)


@given(moments)
def test_an_event_id_is_a_uuid_of_version_7_that_begins_with_the_time(now):
    made = event_id(now)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(now.timestamp() * 1000)


@given(moments)
def test_what_is_made_later_sorts_later(now):
    later = now + 2 * MILLISECOND
    assert entity_id(now) < entity_id(later)
    assert event_id(now) < event_id(later)


def test_ids_of_the_same_moment_differ():
    now = datetime.fromtimestamp(1_700_000_000, UTC)
    assert len({entity_id(now) for _ in range(5_000)}) == 5_000
    assert len({event_id(now) for _ in range(5_000)}) == 5_000
