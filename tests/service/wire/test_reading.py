"""The one reader of JSON: what it takes, what it refuses, and that it never falls over."""

import contextlib
import json
import math
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.errors import Malformed
from service.wire.base import dump_json
from service.wire.reading import read_json, read_object

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**29), 10**29) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_back(value, escaped):
    assert read_json(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(st.decimals(-(10**12), 10**12, places=6))
def test_a_fraction_goes_through_no_float(amount):
    token = format(amount, "f")
    read = read_json(token.encode())
    assert type(read) is Decimal
    assert read == amount
    assert Decimal(dump_json([read])[1:-1].decode()) == amount


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw):
    with contextlib.suppress(Malformed):
        read_json(raw)


@given(st.text('{}[]",:0123456789eE+-.\\u d8NaInfty', max_size=60))
def test_anything_that_looks_like_json_is_read_or_refused(text):
    try:
        value = read_json(text.encode())
    except Malformed:
        return
    json.dumps(value, ensure_ascii=False, default=str).encode()


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1e3", 1000),
        (b"1E+3", 1000),
        (b"-0.0", 0),
        (b"0e5", 0),
        (b"1e30", 10**30),
        (b"1e-30", Decimal("1e-30")),
        (b"1000000000000000000000000000000", 10**30),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        ('"é\\u00e9"'.encode(), "éé"),
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b'"' + b"[" * 500 + b'"', "[" * 500),
        (b'  {"a" : null}\n', {"a": None}),
    ],
)
def test_unusual_but_sound_json_is_read(raw, value):
    assert read_json(raw) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":1}x', "not valid JSON"),
        (b"01", "not valid JSON"),
        (b"\xff", "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b'{"a":1,"a":2}', 'the key "a" appears twice'),
        (b'[{"x":{"a":1,"\\u0061":1}}]', "appears twice"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "-Infinity"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'"\\ude00\\ud83d"', "surrogate"),
        (b'"\\u0000"', "NUL"),
        (b'{"a":{"b\\u0000":1}}', "NUL"),
        (b'"\x00"', "not valid JSON"),
        (b"1e31", "10^30"),
        (b"-1e31", "10^30"),
        (b"1e-31", "10^-30"),
        (b"1000000000000000000000000000001", "10^30"),
        (b"1e400", "10^30"),
        (b"1e10000000", "10^30"),
        (b"1e99999999999999999999999999", "cannot be read"),
        (b"1" * 41, "40 characters"),
        (b"1" * 5000, "40 characters"),
        (b"0." + b"1" * 39, "40 characters"),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64 levels"),
        (b"[" * 10_000 + b"]" * 10_000, "64 levels"),
        (b"[" * 100_000, "64 levels"),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused(raw, reason):
    with pytest.raises(Malformed, match=reason.replace("^", r"\^").replace("[", r"\[")):
        read_json(raw)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(raw):
    with pytest.raises(Malformed, match="must be a JSON object"):
        read_object(raw)


def test_the_largest_hostile_body_is_refused_at_once():
    bodies = [
        b"[" + b"1e30," * 50_000 + b"1]",
        b'["' + b"\\u0041" * 43_000 + b'"]',
        b"[" + b"[]," * 85_000 + b"1]",
    ]
    began = time.process_time()
    for body in bodies:
        read_json(body)
    assert time.process_time() - began < 2


def test_an_ordinary_body_is_read_in_microseconds():
    raw = b'{"title":"A site","amount":1500.5,"buyerEmail":"b@example.com","mode":"instant"}'
    took = math.inf
    for _ in range(200):
        began = time.perf_counter()
        read_object(raw)
        took = min(took, time.perf_counter() - began)
    assert took < 100e-6
