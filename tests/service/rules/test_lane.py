"""A lane's window, breaker and run of failures, row by row of webhooks.md 5."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.delivery import STANDARD, Fault, Reply, State, judge
from service.rules.lane import (
    CAP,
    Breaker,
    Ended,
    Lane,
    Run,
    Told,
    notices,
    open_seconds,
    retry_slots,
    slow_slots,
    turn,
)

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
OK, BROKEN = Reply(status=200), Reply(status=500)
TIMEOUT, BUSY = Reply(fault=Fault.TIMEOUT), Reply(status=429)
HELD = Reply(status=429, retry_after="60")
LOST = Reply(fault=Fault.OURS)


def ended(reply: Reply, at: datetime = NOW, attempt: int = 1) -> Ended:
    return Ended(judge(reply, attempt, STANDARD, at, 0.0), reply, at)


def after(lane: Lane, *replies: Reply, at: datetime = NOW) -> Lane:
    return turn(lane, [ended(reply, at) for reply in replies], at)


def one_by_one(lane: Lane, *replies: Reply, at: datetime = NOW) -> Lane:
    """Each sent after the one before has ended."""
    for reply in replies:
        at += timedelta(milliseconds=10)
        lane = turn(lane, [ended(reply, at)], at + timedelta(milliseconds=5))
    return lane


def opened(trips: int = 1) -> Lane:
    lane = Lane(trips=trips - 1)
    return after(lane, *[BROKEN] * 10)


def probing(trips: int = 1) -> Lane:
    lane = opened(trips)
    lane.breaker = Breaker.HALF_OPEN
    lane.hold_until = None
    return lane


# 1. The window -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "window"),
    [
        (OK, 9),
        (BUSY, 4),
        (HELD, 4),
        (Reply(status=503, retry_after="60"), 4),
        (Reply(status=502), 4),
        (Reply(status=504), 4),
        *[
            (Reply(fault=fault), 4)
            for fault in (Fault.TIMEOUT, Fault.RESET, Fault.REFUSED, Fault.DNS, Fault.TLS)
        ],
        (Reply(status=301), 8),
        (Reply(status=404), 8),
        (BROKEN, 8),
        (Reply(status=503), 8),
        (LOST, 8),
        (Reply(fault=Fault.NO_BODY), 8),
    ],
    ids=lambda value: f"{value.status or value.fault}" if isinstance(value, Reply) else str(value),
)
def test_the_window_after_one_answer_is_as_the_table_says(reply: Reply, window: int) -> None:
    assert after(Lane(window=8), reply).window == window


def test_a_new_lane_starts_at_the_cap_and_never_passes_it() -> None:
    assert Lane().window == Lane().cap == CAP == 16
    assert after(Lane(), OK, OK).window == CAP


def test_the_window_never_falls_below_one() -> None:
    assert one_by_one(Lane(), *[BUSY] * 9).window == 1


def test_failures_that_were_in_flight_together_narrow_it_once() -> None:
    lane = after(Lane(), TIMEOUT, TIMEOUT)
    assert lane.window == 8
    late = [ended(TIMEOUT, NOW - timedelta(seconds=1))]
    assert turn(lane, late, NOW + timedelta(seconds=5)).window == 8
    assert one_by_one(lane, TIMEOUT).window == 4


# 2. Streak and run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "streak"),
    [(BROKEN, 4), (TIMEOUT, 4), (Reply(status=404), 4), (BUSY, 3), (HELD, 3), (LOST, 3), (OK, 0)],
)
def test_the_streak_counts_what_is_the_receivers_fault(reply: Reply, streak: int) -> None:
    assert after(Lane(streak=3), reply).streak == streak


def test_a_run_of_failures_begins_with_the_first_and_ends_with_a_success() -> None:
    lane = one_by_one(Lane(), OK, BROKEN, BUSY, TIMEOUT)
    assert lane.failure_count == 3
    assert lane.failing_since == NOW + timedelta(milliseconds=20)
    assert (lane.last_status, lane.exhausted_at) == (0, None)
    lane = turn(lane, [ended(BROKEN, attempt=10)], NOW + timedelta(hours=1))
    assert lane.exhausted_at == NOW + timedelta(hours=1)
    lane = after(lane, OK)
    assert (lane.failure_count, lane.failing_since, lane.exhausted_at) == (0, None, None)


def test_the_mean_moves_by_an_eighth() -> None:
    slow = Reply(status=200, total_ms=8000)
    assert after(Lane(), slow).mean_ms == 1000
    assert after(Lane(), *[slow] * 3).mean_ms > 2000
    assert after(Lane(mean_ms=3000), *[Reply(status=200, total_ms=40)] * 8).mean_ms < 2000
    assert after(Lane(mean_ms=3000), LOST).mean_ms == 3000


def test_a_retry_after_holds_the_lane_until_then() -> None:
    assert after(Lane(), HELD).hold_until == NOW + timedelta(seconds=60)
    assert after(Lane(), BUSY, OK, BROKEN).hold_until is None


# 3. The breaker ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "breaker"),
    [
        (0, 9, Breaker.CLOSED),
        (0, 10, Breaker.OPEN),
        (3, 7, Breaker.OPEN),
        (4, 9, Breaker.CLOSED),
        (4, 10, Breaker.OPEN),
        (30, 69, Breaker.CLOSED),
        (30, 70, Breaker.OPEN),
    ],
)
def test_it_opens_at_ten_attempts_of_which_seventy_percent_failed(
    good: int, bad: int, breaker: Breaker
) -> None:
    assert after(Lane(), *[OK] * good, *[BROKEN] * bad).breaker is breaker


def test_what_is_older_than_five_minutes_does_not_count() -> None:
    lane = after(Lane(), *[BROKEN] * 9)
    assert after(lane, BROKEN, at=NOW + timedelta(minutes=4)).breaker is Breaker.OPEN
    assert after(lane, BROKEN, at=NOW + timedelta(minutes=5)).breaker is Breaker.CLOSED
    assert after(lane, BROKEN, at=NOW + timedelta(days=5)).breaker is Breaker.CLOSED


def test_a_clock_that_goes_back_forgets_nothing_and_breaks_nothing() -> None:
    lane = after(Lane(), *[BROKEN] * 9)
    assert after(lane, BROKEN, at=NOW - timedelta(hours=1)).breaker is Breaker.OPEN


@pytest.mark.parametrize("reply", [BUSY, HELD, LOST, Reply(fault=Fault.NO_BODY)])
def test_whoever_says_when_to_come_back_is_not_broken(reply: Reply) -> None:
    assert one_by_one(Lane(), *[reply] * 40).breaker is Breaker.CLOSED


def test_open_holds_the_lane_for_30_seconds_doubling_to_15_minutes() -> None:
    assert [open_seconds(n) for n in range(8)] == [30, 60, 120, 240, 480, 900, 900, 900]
    assert open_seconds(10_000) == 900
    lane = opened()
    assert lane.breaker_until == lane.hold_until == NOW + timedelta(seconds=30)
    assert opened(trips=3).breaker_until == NOW + timedelta(seconds=120)


def test_what_was_in_flight_when_it_opened_opens_it_no_further() -> None:
    lane = after(opened(), *[BROKEN] * 30)
    assert (lane.breaker, lane.trips) == (Breaker.OPEN, 1)
    assert lane.breaker_until == NOW + timedelta(seconds=30)


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    later = NOW + timedelta(seconds=31)
    lane = after(probing(), BROKEN, at=later)
    assert (lane.breaker, lane.trips) == (Breaker.OPEN, 2)
    assert lane.hold_until == later + timedelta(seconds=60)


def test_a_probe_that_is_given_back_or_put_off_leaves_room_for_another() -> None:
    for reply in (LOST, BUSY, HELD):
        assert after(probing(), reply).breaker is Breaker.HALF_OPEN


@pytest.mark.parametrize("lane", [opened(), probing()])
def test_any_2xx_closes_it_and_from_there_it_goes_slowly_1_2_4(lane: Lane) -> None:
    lane = after(lane, OK)
    assert (lane.breaker, lane.breaker_until, lane.window) == (Breaker.CLOSED, None, 1)
    windows = []
    while lane.window < lane.cap:
        lane = after(lane, *[OK] * lane.window)
        windows.append(lane.window)
    assert windows == [2, 4, 8, 16]
    assert lane.trips == 0


def test_one_that_falls_again_before_it_is_well_stays_open_for_longer() -> None:
    lane = after(probing(trips=2), OK, *[BROKEN] * 10)
    assert (lane.breaker, lane.trips) == (Breaker.OPEN, 3)
    assert lane.breaker_until == NOW + timedelta(seconds=120)


REPLIES = st.sampled_from([OK, BROKEN, TIMEOUT, BUSY, HELD, LOST, Reply(status=404)])


@given(st.lists(st.lists(REPLIES, min_size=1, max_size=20), max_size=20))
def test_whatever_comes_a_lane_is_one_that_the_table_allows(batches: list[list[Reply]]) -> None:
    lane, at = Lane(), NOW
    for batch in batches:
        at += timedelta(seconds=20)
        before, lane = lane, after(lane, *batch, at=at)
        assert 1 <= lane.window <= lane.cap
        assert (lane.breaker is Breaker.CLOSED) == (lane.breaker_until is None)
        assert len(lane.sample.attempts) == len(lane.sample.failures) == 5
        assert (lane.failing_since is None) == (lane.failure_count == 0)
        assert lane.failure_count >= lane.streak
        assert before.sample is not lane.sample


# 4. Shares ---------------------------------------------------------------------------------------


def test_first_attempts_have_sixty_percent_and_slow_lanes_a_quarter() -> None:
    assert (retry_slots(192), slow_slots(192)) == (76, 48)
    assert (retry_slots(1), slow_slots(1)) == (1, 1)
    assert all(retry_slots(n) <= 0.4 * n for n in range(3, 400))


# 5. What is told ---------------------------------------------------------------------------------

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def run(
    lasted: timedelta | None,
    *,
    told: Told = Told.NOTHING,
    exhausted: bool = False,
    count: int = 5,
    breaker: Breaker = Breaker.CLOSED,
    over: timedelta | None = None,
) -> Run:
    """Failures since so long ago, the last of them now, or so long after the first."""
    since = None if lasted is None else NOW - lasted
    last = NOW if since is None or over is None else since + over
    given_up = NOW if exhausted else None
    status = 200 if lasted is None else 500
    return Run(since, given_up, last, status, count, breaker, told, since)


def told_over(spans: Sequence[tuple[timedelta, bool]]) -> list[Told]:
    """The mails as the run goes on: (how long it has lasted, whether something was given up)."""
    mails, told = [], Told.NOTHING
    for lasted, exhausted in spans:
        said = notices(run(lasted, told=told, exhausted=exhausted), NOW)
        mails.append(said.mail)
        told = said.told
    return mails


def test_a_few_failures_are_not_worth_a_word() -> None:
    said = notices(run(HOUR), NOW)
    assert (said.fails, said.mail, said.disables, said.told) == (False, 0, False, 0)


def test_mails_go_out_after_a_day_and_after_three() -> None:
    run_on = [(HOUR, True), (DAY, True), (2 * DAY, True), (3 * DAY, True), (4 * DAY, True)]
    assert told_over(run_on) == [0, Told.DAY, 0, Told.THREE_DAYS, 0]
    assert told_over([(4 * DAY, True)]) == [Told.THREE_DAYS]


def test_an_exhausted_delivery_is_told_as_an_event() -> None:
    assert notices(run(HOUR, exhausted=True), NOW).fails


def test_a_run_that_began_unseen_is_mailed_as_any_other() -> None:
    everything = Told.FAILING | Told.EXHAUSTED | Told.DAY | Told.THREE_DAYS
    of_another = replace(run(DAY, told=everything), told_since=NOW - 9 * DAY)
    said = notices(of_another, NOW)
    assert (said.fails, said.mail, said.told) == (False, Told.DAY, Told.FAILING | Told.DAY)


@pytest.mark.parametrize("breaker", [Breaker.OPEN, Breaker.HALF_OPEN])
def test_an_open_breaker_is_told_as_an_event_and_not_mailed(breaker: Breaker) -> None:
    said = notices(run(HOUR, breaker=breaker), NOW)
    assert (said.fails, said.mail, said.told) == (True, 0, Told.FAILING)
    again = notices(run(HOUR, breaker=breaker, told=said.told), NOW)
    assert (again.fails, again.told) == (False, said.told)


def test_recovery_is_told_where_the_failing_was() -> None:
    assert notices(run(None, told=Told.FAILING | Told.DAY), NOW).recovers
    assert notices(run(None, told=Told.FAILING), NOW).told == 0
    assert not notices(run(None), NOW).recovers


def test_who_was_enabled_again_has_recovered_only_once_something_arrived() -> None:
    enabled = replace(run(None, told=Told.FAILING), last_status=500)
    said = notices(enabled, NOW)
    assert (said.recovers, said.told) == (False, Told.FAILING)


@pytest.mark.parametrize(
    ("lasted", "count", "over", "is_disabled"),
    [
        (5 * DAY, 20, 3 * DAY, True),
        (5 * DAY - HOUR, 20, 3 * DAY, False),
        (5 * DAY, 19, 3 * DAY, False),
        (5 * DAY, 20, 3 * DAY - HOUR, False),
        (50 * DAY, 2000, HOUR, False),
        (None, 0, None, False),
    ],
)
def test_it_is_disabled_after_five_days_twenty_attempts_and_three_days_of_them(
    lasted: timedelta | None, count: int, over: timedelta | None, is_disabled: bool
) -> None:
    assert notices(run(lasted, count=count, over=over), NOW).disables is is_disabled


def test_an_exhausted_delivery_is_noted_by_the_state_of_it() -> None:
    last = judge(BROKEN, 10, STANDARD, NOW, 0.5)
    assert last.state is State.EXHAUSTED
    assert turn(Lane(), [Ended(last, BROKEN, NOW)], NOW).exhausted_at == NOW


def test_the_first_of_a_run_that_is_given_up_is_said_whatever_follows_in_the_batch() -> None:
    last = Ended(judge(BROKEN, 10, STANDARD, NOW, 0.5), BROKEN, NOW)
    well = Ended(judge(OK, 1, STANDARD, NOW, 0.5), OK, NOW)
    assert turn(Lane(), [last, well], NOW).gives_up
    failing = Lane(failing_since=NOW, exhausted_at=NOW)
    assert not turn(failing, [last], NOW).gives_up
    assert turn(failing, [well, last], NOW).gives_up
