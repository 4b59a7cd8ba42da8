"""Payments, path by path: the money is always in one named place, and the books balance."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.rules import payment as rules
from service.rules import postings
from service.rules.errors import PaymentNotOpen
from service.rules.machine import NOWHERE, Movement, Role, Step
from service.rules.payment import Outcome, Payment, Report
from service.rules.postings import Account

ASKED, CURRENCY = 1_000, "TND"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CHARGE = "ch_1"
FLOORED = {"available", "pending", "held"}
MONEY = Report(Outcome.SUCCEEDED, ASKED, CURRENCY, CHARGE)
WRONG = {
    "less": replace(MONEY, amount_minor=999),
    "more": replace(MONEY, amount_minor=1_001),
    "other currency": replace(MONEY, currency="EUR"),
}


def payment(mode: str, state: str = NOWHERE, **fields) -> Payment:
    guest = mode == rules.GUEST
    return Payment(
        id="p",
        kind=rules.ACCEPT_PAY if guest else mode,
        state=state,
        provider=fields.pop("provider", rules.SANDBOX),
        amount_minor=ASKED,
        currency=CURRENCY,
        user_id=None if guest or mode == rules.REFUND else "u",
        escrow_id="e" if guest else None,
        **fields,
    )


class Books:
    """Accounts and what is in them; a step that would break a floor fails at once."""

    def __init__(self, **opening: int) -> None:
        self.balances: Counter[tuple[Account, str]] = Counter()
        for kind, minor in opening.items():
            owner = "u" if kind in ("available", "pending") else rules.SANDBOX
            self.balances[Account(kind, owner), CURRENCY] += minor
            self.balances[Account("outside", rules.SANDBOX), CURRENCY] -= minor

    def post(self, legs: list[postings.Posting]) -> None:
        for leg in legs:
            assert leg.amount_minor > 0
            assert leg.source != leg.target
            self.balances[leg.source, leg.currency] -= leg.amount_minor
            self.balances[leg.target, leg.currency] += leg.amount_minor
            for account in (leg.source, leg.target):
                assert account.kind not in FLOORED or self.balances[account, leg.currency] >= 0

    def standing(self) -> dict[tuple[str, str], int]:
        """(kind, currency) -> balance, what is outside and what is empty left out."""
        return {
            (account.kind, currency): minor
            for (account, currency), minor in self.balances.items()
            if minor and account.kind != "outside"
        }


OPENING = {rules.PAYOUT: {"available": ASKED}, rules.REFUND: {"clearing": ASKED}}


def opening(mode: str, row: Step) -> dict[str, int]:
    """What there is before the first step; a stray payout is long gone from the wallet."""
    return {} if row.name == "receive_stray" else OPENING.get(mode, {})


def walks(mode: str) -> Iterator[list[Step]]:
    """Every way from nowhere to an end that goes through no row twice."""

    def onward(state: str, way: list[Step]) -> Iterator[list[Step]]:
        if state in rules.FINAL:
            yield way
            return
        for row in rules.TABLE.legal(state, mode):
            if row not in way:
                yield from onward(row.target, [*way, row])

    return onward(NOWHERE, [])


def take(before: Payment, row: Step, report: Report | None) -> Payment:
    """The payment after the step, as the command would write it."""
    after = replace(before, state=row.target)
    if row.moves in (Movement.RECEIVE, Movement.DIVERT, Movement.SETTLE) and report:
        after = replace(
            after,
            received_minor=report.amount_minor,
            received_currency=report.currency,
            charge_reference=report.charge_reference,
        )
    if row.name == "receive_stray" and report and before.mode == rules.REFUND:
        # It is asked for again for as much as came back.
        after = replace(after, amount_minor=report.amount_minor, currency=report.currency)
    return after


def follow_up(standing: Payment, row: Step) -> Payment:
    """What the commands change beside the step: a provider is asked to send a refund."""
    return replace(standing, ask_at=NOW) if row.name == "send" else standing


def is_passable(mode: str, way: list[Step], came: Report) -> bool:
    """Whether the guards let the whole way through, with this money."""
    if mode == rules.GUEST and way[-1].name == "approve" and came is not MONEY:
        return False  # the operator approves what was asked; anything else is received as wrong
    standing = payment(mode, provider=rules.BANK_TRANSFER)
    for row in way:
        if rules.GUARDS.get(row.name, lambda _: False)(standing):
            return False
        standing = follow_up(take(standing, row, came), row)
    return True


CASES = [
    pytest.param(mode, way, came, id=f"{mode}:{'-'.join(row.name for row in way)}:{name}")
    for mode in rules.MODES
    for way in walks(mode)
    for name, came in {"as asked": MONEY, **WRONG}.items()
    if is_passable(mode, way, came)
    and (name == "as asked" or any(r.moves in (Movement.RECEIVE, Movement.DIVERT) for r in way))
]


@pytest.mark.parametrize(("mode", "way", "came"), CASES)
def test_the_money_is_where_the_state_says_and_every_way_ends_with_balanced_books(mode, way, came):
    books = Books(**opening(mode, way[0]))
    wealth = sum(books.standing().values())
    standing = payment(mode)
    for row in way:
        books.post(rules.legs(row, standing, came))
        standing = take(standing, row, came)
        if mode == rules.GUEST and standing.state == rules.SUCCEEDED:
            payer = postings.clearing(standing.provider)
            books.post(postings.hold("e", payer, standing.amount_minor, CURRENCY))
        assert all(
            sum(m for (_, c), m in books.balances.items() if c == currency) == 0
            for currency in (CURRENCY, "EUR")
        )
        if row.name != "send_back" and not is_taken_over(standing):
            assert books.standing() == expected(standing, opening(mode, way[0]))
    if way[-1].name == "send_back" or is_taken_over(standing):
        assert [kind for kind, _ in books.standing()] == ["clearing"]
        refund_it(books, standing)
        assert books.standing() == {}
        return
    assert "clearing" not in {kind for kind, _ in books.standing()}
    assert "pending" not in {kind for kind, _ in books.standing()}
    if standing.received_minor == 0 and standing.state != rules.SUCCEEDED:
        assert sum(books.standing().values()) == wealth


def is_taken_over(standing: Payment) -> bool:
    """A refund that failed leaves its money to the one that takes it over."""
    return (standing.mode, standing.state) == (rules.REFUND, rules.FAILED)


def expected(standing: Payment, at_first: dict[str, int]) -> dict[tuple[str, str], int]:
    kind = rules.holder(standing).kind
    if kind == "outside":
        return {}
    if kind == "clearing" and (standing.mode != rules.REFUND or standing.received_minor):
        came = standing.received_minor
        return {("clearing", standing.received_currency): came} if came else {}
    if standing.received_minor and kind == "available":
        return {(kind, standing.received_currency): standing.received_minor}
    return {(kind, CURRENCY): ASKED} if at_first or kind != "clearing" else {}


def refund_it(books: Books, origin: Payment) -> None:
    """The refund that takes over what was sent back, on its shortest way."""
    refund = replace(
        payment(rules.REFUND, rules.NEEDS_OPERATOR),
        amount_minor=origin.received_minor or origin.amount_minor,
        currency=origin.received_currency or origin.currency,
    )
    row = rules.choose(refund, "approve", Role.OPERATOR)
    books.post(rules.legs(row, refund))


def test_the_walks_are_not_empty():
    seen = {row for way in (case.values[1] for case in CASES) for row in way}
    assert seen == set(rules.STEPS)


@pytest.mark.parametrize("mode", rules.MODES)
def test_every_state_that_is_not_final_has_a_way_out_and_no_other_has(mode):
    reached = {NOWHERE} | {row.target for row in rules.STEPS if mode in row.modes}
    for state in reached:
        leaving = [r for r in rules.TABLE.legal(state, mode) if r.target != state]
        assert bool(leaving) == (state not in rules.FINAL), state
        assert state in rules.HOLDERS[mode]
    assert set(rules.HOLDERS[mode]) == reached


@pytest.mark.parametrize("mode", rules.MODES)
@pytest.mark.parametrize("received", [0, ASKED, 999])
@pytest.mark.parametrize("provider", rules.PROVIDERS)
def test_no_guard_locks_a_payment_in(mode, received, provider):
    """Somebody, sooner or later the operator, can end whatever is not final."""
    if mode in (rules.PAYOUT, rules.GUEST) and not received:
        return  # these need the operator because of money that has come
    held = rules.HOLDERS[mode]
    for state in set(held) - rules.FINAL - {NOWHERE}:
        standing = payment(
            mode,
            state,
            provider=provider,
            received_minor=received if state == rules.NEEDS_OPERATOR else 0,
            received_currency=CURRENCY,
        )
        names = {row.name for row in rules.TABLE.legal(state, mode)}
        passable = [n for n in names if not rules.GUARDS.get(n, lambda _: False)(standing)]
        assert any(rules.TABLE.find(n, state, mode).target != state for n in passable)


def test_a_promise_cannot_be_spent_and_a_payout_under_way_has_left():
    books = Books()
    books.post(rules.legs(rules.TABLE.find("begin", NOWHERE, "topup"), payment("topup")))
    assert books.standing() == {("pending", CURRENCY): ASKED}
    books = Books(available=ASKED)
    books.post(rules.legs(rules.TABLE.find("begin", NOWHERE, "payout"), payment("payout")))
    assert books.standing() == {("pending", CURRENCY): ASKED}


def test_what_a_provider_reports_on_nobody_approves_by_hand():
    for name in ("approve", "reject"):
        with pytest.raises(PaymentNotOpen, match=f"is pending; this step \\({name}\\)"):
            rules.choose(payment("topup", rules.PENDING), name, Role.OPERATOR)
        by_hand = payment("topup", rules.PENDING, provider=rules.BANK_TRANSFER)
        assert rules.choose(by_hand, name, Role.OPERATOR).name == name


def test_only_the_operator_ends_what_needs_the_operator():
    stray = payment("topup", rules.NEEDS_OPERATOR, received_minor=5, received_currency="EUR")
    for name in ("credit", "send_back"):
        assert rules.choose(stray, name, Role.OPERATOR).source == rules.NEEDS_OPERATOR
        with pytest.raises(PaymentNotOpen):
            rules.choose(stray, name, Role.SYSTEM)


def test_a_final_payment_takes_no_step():
    for mode in rules.MODES:
        for name in {row.name for row in rules.STEPS}:
            for state in set(rules.HOLDERS[mode]) & rules.FINAL:
                for who in Role:
                    with pytest.raises(PaymentNotOpen):
                        rules.choose(payment(mode, state), name, who)


@pytest.mark.parametrize(
    ("received", "name", "is_legal"),
    [
        (0, "credit", False),
        (0, "send_back", False),
        (0, "write_off", True),
        (0, "receive_late", True),
        (999, "credit", True),
        (999, "send_back", True),
        (999, "write_off", False),
        (999, "receive_late", False),
    ],
)
def test_what_came_is_given_or_sent_back_and_nothing_is_written_off(received, name, is_legal):
    standing = payment(
        "topup", rules.NEEDS_OPERATOR, received_minor=received, received_currency=CURRENCY
    )
    if is_legal:
        assert rules.choose(standing, name, Role.OPERATOR).name == name
    else:
        with pytest.raises(PaymentNotOpen):
            rules.choose(standing, name, Role.OPERATOR)


@pytest.mark.parametrize(
    ("received", "currency", "is_legal"),
    [(ASKED, CURRENCY, True), (999, CURRENCY, False), (ASKED, "EUR", False), (0, None, False)],
)
def test_an_escrow_takes_from_a_guest_exactly_what_was_asked(received, currency, is_legal):
    standing = payment(
        rules.GUEST, rules.NEEDS_OPERATOR, received_minor=received, received_currency=currency
    )
    assert rules.GUARDS["credit"](standing) is not is_legal


PENDING = replace(MONEY, outcome=Outcome.PENDING)
FAILED = replace(MONEY, outcome=Outcome.FAILED)
CANCELLED = replace(MONEY, outcome=Outcome.CANCELLED)
AGAIN = replace(MONEY, charge_reference="ch_2")


@pytest.mark.parametrize(
    ("state", "report", "booked", "step"),
    [
        ("created", PENDING, (), "hand_over"),
        ("pending", PENDING, (), None),
        ("created", MONEY, (), "settle"),
        ("pending", MONEY, (), "settle"),
        ("pending", FAILED, (), "decline"),
        ("pending", CANCELLED, (), "cancel"),
        *(("pending", report, (), "receive_wrong") for report in WRONG.values()),
        ("needs_operator", MONEY, (), "receive_late"),
        ("needs_operator", FAILED, (), None),
        # twice
        ("succeeded", MONEY, (CHARGE,), None),
        ("needs_operator", MONEY, (CHARGE,), None),
        ("succeeded", AGAIN, (CHARGE,), "receive_stray"),
        # late, and once only
        ("failed", MONEY, (), "receive_stray"),
        ("cancelled", MONEY, (), "receive_stray"),
        ("cancelled", MONEY, (CHARGE,), None),
        # in another order
        ("succeeded", PENDING, (CHARGE,), None),
        ("succeeded", FAILED, (CHARGE,), None),
        ("failed", CANCELLED, (), None),
        ("cancelled", PENDING, (), None),
    ],
)
@pytest.mark.parametrize("mode", [rules.TOPUP, rules.ACCEPT_PAY])
def test_a_report_leads_to_one_step_however_late_or_often_it_comes(
    mode, state, report, booked, step
):
    received = ASKED if CHARGE in booked and state == "needs_operator" else 0
    standing = payment(mode, state, received_minor=received)
    assert rules.judge(standing, report, booked) == step
    if step not in (None, "receive_stray"):
        assert rules.choose(standing, step, Role.SYSTEM).name == step


def test_a_second_charge_does_not_displace_the_first_that_the_operator_has():
    standing = payment("topup", rules.NEEDS_OPERATOR, received_minor=999)
    assert rules.judge(standing, AGAIN, (CHARGE,)) == "receive_stray"


@pytest.mark.parametrize(
    ("state", "report", "step"),
    [
        ("created", PENDING, "hand_over"),
        ("pending", MONEY, "settle"),
        ("needs_operator", MONEY, "settle"),
        ("pending", FAILED, "decline"),
        ("created", CANCELLED, "decline"),
        ("needs_operator", FAILED, "decline"),
        ("succeeded", MONEY, None),
        ("succeeded", FAILED, "receive_stray"),
        ("failed", FAILED, None),
        ("failed", MONEY, None),
    ],
)
def test_a_refund_that_fails_is_over_and_another_takes_its_money(state, report, step):
    assert rules.judge(payment(rules.REFUND, state), report, ()) == step


def test_a_refund_that_came_back_comes_back_once():
    assert rules.judge(payment(rules.REFUND, "succeeded"), FAILED, (CHARGE,)) is None


@pytest.mark.parametrize("state", ["failed", "succeeded", "pending", "needs_operator"])
def test_a_refund_that_was_over_as_failed_and_left_all_the_same_is_an_alarm(state):
    refund = payment(rules.REFUND, state)
    assert rules.is_sent_after_all(refund, MONEY) is (state == "failed")
    assert not rules.is_sent_after_all(refund, FAILED)
    assert not rules.is_sent_after_all(payment(rules.TOPUP, "failed"), MONEY)


def test_a_refund_that_was_asked_for_is_not_asked_for_twice_nor_rejected_unasked():
    waiting = payment(rules.REFUND, rules.NEEDS_OPERATOR)
    sent = replace(waiting, ask_at=NOW)
    for standing, name in ((sent, "send"), (waiting, "reject")):
        with pytest.raises(PaymentNotOpen):
            rules.choose(standing, name, Role.OPERATOR)
    assert rules.choose(waiting, "send", Role.OPERATOR).target == rules.CREATED
    assert rules.choose(sent, "reject", Role.OPERATOR).target == rules.FAILED


@pytest.mark.parametrize("state", ["created", "pending"])
def test_a_payout_is_taken_up_before_it_is_made_and_not_taken_back_after(state):
    payout = payment(rules.PAYOUT, state)
    is_taken = state == rules.PENDING
    for name, who, is_legal in (
        ("take_up", Role.OPERATOR, not is_taken),
        ("cancel", Role.SELLER, not is_taken),
        ("approve", Role.OPERATOR, is_taken),
        ("reject", Role.OPERATOR, True),
    ):
        if is_legal:
            assert rules.choose(payout, name, who).name == name
        else:
            with pytest.raises(PaymentNotOpen):
                rules.choose(payout, name, who)


def test_a_guests_money_waits_for_the_operator_wherever_it_comes_from():
    assert rules.judge(payment(rules.GUEST, "pending"), MONEY, ()) == "receive_wrong"


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("state", rules.STATES)
@pytest.mark.parametrize("mode", [rules.TOPUP, rules.ACCEPT_PAY, rules.GUEST, rules.REFUND])
def test_whatever_is_reported_the_step_is_legal(mode, state, outcome):
    if state not in rules.HOLDERS[mode]:
        return
    standing = payment(mode, state)
    step = rules.judge(standing, replace(MONEY, outcome=outcome), ())
    if step is not None:
        source = NOWHERE if step == "receive_stray" else state
        row = rules.TABLE.find(step, source, mode)
        assert row is not None
        assert Role.SYSTEM in row.who


def test_nobody_reports_a_payout():
    with pytest.raises(AssertionError, match="nobody reports a payout"):
        rules.judge(payment(rules.PAYOUT, "created"), MONEY, ())


@pytest.mark.parametrize(
    ("minor", "currency"), [(0, "TND"), (-1, "TND"), (10**15, "TND"), (1, "GBP")]
)
def test_a_report_of_what_the_ledger_cannot_keep_is_none(minor, currency):
    with pytest.raises(ValueError, match="cannot be kept"):
        Report(Outcome.SUCCEEDED, minor, currency, CHARGE)


PAYMENT_ID = "6a5f3c0d9b8e7f6a5b4c3d2e"


def test_a_bank_transfer_is_found_by_the_reference_that_its_payer_wrote():
    written = rules.transfer_reference(PAYMENT_ID)
    assert written == "6A5F-3C0D-9B8E-7F6A-5B4C-3D2E"
    for line in (written, written.lower(), written.replace("-", " "), f"PMT/{written}/TND"):
        assert rules.payment_of_transfer(line) == PAYMENT_ID


@pytest.mark.parametrize(
    "line",
    [
        "",
        "6A5F-3C0D",
        "rent for march",
        f"{PAYMENT_ID}2026",
        f"2026 {rules.transfer_reference(PAYMENT_ID).replace('-', ' ')}",
        f"{PAYMENT_ID} {PAYMENT_ID[::-1]}",
    ],
)
def test_a_line_that_names_no_payment_is_nobodys(line):
    assert rules.payment_of_transfer(line) is None
