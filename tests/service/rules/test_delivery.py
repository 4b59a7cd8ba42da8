"""The outcome table of webhooks.md 5, row by row, and the ladders."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.delivery import (
    BRIEF,
    LADDERS,
    STANDARD,
    Fault,
    Ladder,
    Outcome,
    Reply,
    State,
    header_fault,
    judge,
    retry_after_seconds,
)

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MIDDLE = 0.5
"""The chance that spreads a wait by nothing on the standard ladder."""


def judged(reply: Reply, attempt: int = 1, ladder: Ladder = STANDARD) -> Outcome:
    return judge(reply, attempt, ladder, NOW, MIDDLE)


def test_the_standard_ladder_has_ten_attempts_over_75_hours() -> None:
    waits = [STANDARD.wait_seconds(n) for n in range(1, 11)]
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None]
    assert STANDARD.attempts == 10
    assert 75 <= sum(wait for wait in waits if wait) / 3600 < 76


def test_the_brief_ladder_has_three_attempts_one_and_two_seconds_apart() -> None:
    assert [BRIEF.wait_seconds(n) for n in (1, 2, 3)] == [1, 2, None]
    outcomes = [judge(Reply(status=500), n, BRIEF, NOW, chance=0.9) for n in (1, 2, 3)]
    assert [o.retry_seconds for o in outcomes] == [1, 2, None]
    assert [o.state for o in outcomes] == [State.PENDING, State.PENDING, State.EXHAUSTED]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_any_2xx_delivers(status: int) -> None:
    assert judged(Reply(status=status)) == Outcome(State.DELIVERED, is_success=True)


@pytest.mark.parametrize("status", [301, 302, 308, 400, 401, 404, 408, 500, 501, 503])
def test_another_status_climbs_the_ladder_and_counts_on_the_streak(status: int) -> None:
    assert judged(Reply(status=status)) == Outcome(State.PENDING, retry_seconds=5, streak=1)


@pytest.mark.parametrize("status", [502, 504])
def test_a_broken_gateway_also_halves_the_window(status: int) -> None:
    expected = Outcome(State.PENDING, retry_seconds=5, streak=1, halves=True)
    assert judged(Reply(status=status)) == expected


@pytest.mark.parametrize(
    "fault", [Fault.TIMEOUT, Fault.RESET, Fault.REFUSED, Fault.DNS, Fault.TLS, Fault.PROTOCOL]
)
def test_no_answer_climbs_the_ladder_and_halves_the_window(fault: Fault) -> None:
    expected = Outcome(State.PENDING, retry_seconds=300, streak=1, halves=True)
    assert judged(Reply(fault=fault), attempt=2) == expected


def test_429_without_a_wait_halves_and_leaves_the_streak() -> None:
    expected = Outcome(State.PENDING, retry_seconds=5, halves=True)
    assert judged(Reply(status=429)) == expected
    assert judged(Reply(status=429, retry_after="soon")) == expected


@pytest.mark.parametrize("status", [429, 503])
def test_a_usable_retry_after_holds_the_lane_and_sets_the_retry(status: int) -> None:
    outcome = judged(Reply(status=status, retry_after="120"))
    assert outcome == Outcome(
        State.PENDING,
        retry_seconds=pytest.approx(132),
        halves=True,
        hold_seconds=pytest.approx(132),
    )


def test_a_shorter_retry_after_does_not_shorten_the_ladder() -> None:
    outcome = judged(Reply(status=503, retry_after="10"), attempt=3)
    assert outcome.retry_seconds == pytest.approx(1800 * 1.1)
    assert outcome.hold_seconds == pytest.approx(11)


def test_retry_after_is_capped_at_an_hour() -> None:
    assert judged(Reply(status=429, retry_after="999999")).hold_seconds == pytest.approx(3960)


def test_retry_after_of_another_status_says_nothing() -> None:
    assert judged(Reply(status=500, retry_after="120")).hold_seconds == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30.0),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (None, None),
        ("next tuesday", None),
        ("Sat, 99 Jan 2026 12:00:30 GMT", None),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), None),
        ("9" * 60, 3600.0),
        ("9" * 5000, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(text: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(text, NOW) == seconds


@given(st.text(max_size=80))
def test_no_retry_after_breaks_the_reader(text: str) -> None:
    wait = retry_after_seconds(text, NOW)
    assert wait is None or 0 < wait <= 3600


def test_gone_disables_the_endpoint_and_cancels() -> None:
    outcome = judged(Reply(status=410))
    assert outcome.state is State.CANCELLED
    assert outcome.disable_reason == "the receiver answered 410 Gone"


def test_the_header_disables_whatever_the_status_but_a_success_stays_one() -> None:
    failed, done = (judged(Reply(status=s, asks_disable=True)) for s in (500, 200))
    assert failed.state is State.CANCELLED
    assert done.state is State.DELIVERED
    assert failed.disable_reason == done.disable_reason is not None


def test_a_body_that_retention_took_is_exhausted_and_nobodys_fault() -> None:
    assert judged(Reply(fault=Fault.NO_BODY)) == Outcome(State.EXHAUSTED)


@pytest.mark.parametrize("fault", [Fault.BLOCKED, Fault.BAD_URL])
def test_an_unusable_address_is_exhausted_at_once_and_flagged(fault: Fault) -> None:
    assert judged(Reply(fault=fault)) == Outcome(State.EXHAUSTED, streak=1, flag=fault.value)


def test_our_own_fault_gives_the_attempt_back() -> None:
    assert judged(Reply(fault=Fault.OURS), attempt=10) == Outcome(
        State.PENDING, retry_seconds=1, gives_back=True
    )


@pytest.mark.parametrize(
    "reply", [Reply(status=500), Reply(fault=Fault.TIMEOUT), Reply(status=429)]
)
@pytest.mark.parametrize("ladder", LADDERS.values(), ids=str)
def test_the_last_attempt_exhausts(reply: Reply, ladder: Ladder) -> None:
    outcome = judged(reply, attempt=ladder.attempts, ladder=ladder)
    assert outcome.state is State.EXHAUSTED
    assert outcome.retry_seconds is None


@pytest.mark.parametrize("status", [400, 404, 429])
def test_a_4xx_is_final_on_the_brief_ladder_only(status: int) -> None:
    assert judged(Reply(status=status), ladder=BRIEF).state is State.EXHAUSTED
    assert judged(Reply(status=status)).state is State.PENDING


@given(st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_fifth(attempt: int, chance: float) -> None:
    nominal = STANDARD.wait_seconds(attempt)
    wait = judge(Reply(status=500), attempt, STANDARD, NOW, chance).retry_seconds
    assert nominal is not None
    assert wait is not None
    assert nominal * 0.8 - 0.001 <= wait <= nominal * 1.2 + 0.001


@given(st.integers(100, 599), st.integers(1, 10), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_retry_is_set_exactly_while_pending(
    status: int, attempt: int, asks: bool, chance: float
) -> None:
    outcome = judge(Reply(status=status, asks_disable=asks), attempt, STANDARD, NOW, chance)
    assert (outcome.retry_seconds is not None) == (outcome.state is State.PENDING)
    assert outcome.is_success == (200 <= status <= 299)


@pytest.mark.parametrize(
    "headers", [{}, {"X-Tenant": "a b"}, {"Authorization": "Bearer x"}, {"a" * 100: ""}]
)
def test_harmless_headers_are_taken(headers: dict[str, str]) -> None:
    assert header_fault(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {f"x-{n}": "" for n in range(11)},
        {"x": "y" * 4097},
        {"Host": "a"},
        {"Webhook-Id": "a"},
        {"X-WEBHOOK-Signature": "a"},
        {"X_Webhook_Signature": "a"},
        {"x.webhook-signature": "a"},
        {"Webhook_Id": "a"},
        {"content_type": "a"},
        {"Transfer_Encoding": "chunked"},
        {"content-type": "a"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"x y": "a"},
        {"": "a"},
        {"x": "a\r\nb: c"},
        {"x": "é"},
    ],
)
def test_headers_that_are_ours_or_broken_are_refused(headers: dict[str, str]) -> None:
    assert header_fault(headers) is not None
