"""`/dashboard/wallet`: what a person has, how it came and went, money in and money out.

The statement is walked by a cursor and may be narrowed to days of the person's zone; as CSV it is
streamed, and no cell of it begins like a formula.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from aiohttp import web
from markupsafe import Markup

from service.commands import payments
from service.commands.payments import Wish
from service.ingress.bodies import ClientGone
from service.ingress.call import Call
from service.ingress.middlewares import VISIT
from service.ingress.pages import paying
from service.ingress.pages.arrival import arrive, to_register, to_sign_in
from service.ingress.pages.figures import amount_of
from service.ingress.pages.forms import Form
from service.ingress.pages.names import wrong_names
from service.ingress.pages.once import carry_out, sending
from service.ingress.pages.page import HEADERS, see_other, show, spoken, voice_of
from service.ingress.pages.paying import spell, words_of
from service.ingress.pages.visitor import Visitor, receive
from service.ingress.route import is_entity_id
from service.rules.errors import (
    BalanceTooLarge,
    InsufficientFunds,
    NotPayable,
    PaymentNotFound,
    PaymentNotOpen,
    TooManyPayments,
)
from service.rules.money import EXPONENTS, LEDGER_CURRENCY, MAX_MINOR, to_decimal, to_minor
from service.rules.payee import NAME_CHARACTERS_MAX, account_of
from service.rules.payment import ACCEPT_PAY, BANK_TRANSFER, CREATED, PAYOUT, TOPUP, page_of
from service.store.ledger import read_balance
from service.store.payments import list_of_user, read_payment
from service.store.statement import NEWEST, Line, Period, read_currencies, read_statement
from service.wire.base import instant
from service.words.pages import Voice

PATH = "/dashboard/wallet"
PURPOSE = "wallet"
LINES = 30
PAYMENTS = 10
CSV_LINES = 500
CURSOR = re.compile(r"[1-9][0-9]{0,17}")
Carry = Callable[[str], str]
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may take for the beginning of a formula."""
MEANINGS: Mapping[str, str] = {
    "created": "waiting",
    "pending": "waiting",
    "needs_operator": "waiting",
    "succeeded": "done",
    "cancelled": "done",
    "failed": "problem",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in and registered; `zone` is theirs, else the house's."""

    user_id: str
    email: str
    language: str | None
    zone: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the statement is wanted: the currency, the days in the person's zone, from where."""

    currency: str
    first: date | None
    last: date | None
    before: int

    def period(self, zone: str) -> Period:
        """The days as instants: both of them wholly in it."""
        midnight = ZoneInfo(zone)
        since = datetime.combine(self.first, time(), midnight) if self.first else None
        until = None
        if self.last:
            until = datetime.combine(self.last + timedelta(days=1), time(), midnight)
        return Period(since, until)

    def query(self, **more: str) -> str:
        """The query that asks for the same."""
        given = {"currency": self.currency if self.currency != LEDGER_CURRENCY else ""}
        given |= {"from": _day(self.first), "to": _day(self.last), **more}
        told = urlencode({name: text for name, text in given.items() if text})
        return f"?{told}" if told else ""


async def read(call: Call[None, None]) -> web.Response:
    """The wallet; whoever is not signed in is led to where they can be."""
    visitor = await arrive(call)
    person = _person(call, visitor)
    return await _shown(call, visitor, person) if person else _elsewhere(call, visitor)


async def take(call: Call[None, None]) -> web.Response:
    """A top-up, a payout, or a payout taken back."""
    visitor = await arrive(call)
    person = _person(call, visitor)
    if person is None:
        return _elsewhere(call, visitor)
    form = await receive(call.request, visitor, PURPOSE)
    voice = voice_of(call.request, spoken(call.request, person.language), person.zone)
    errors: Mapping[str, str] = {}
    try:
        match form.text("act"):
            case "top_up":
                wish = _wish(call, person, form, voice)
                if isinstance(wish, Wish):
                    sent = sending(call, person.user_id, form)
                    return visitor.keep(await paying.start(call, visitor, wish, PATH, sent))
                errors = wish
            case "request_payout":
                errors = await _request_payout(call, person, form, voice)
            case "cancel_payout":
                await _cancel_payout(call, person, form)
    except (
        InsufficientFunds,
        NotPayable,
        BalanceTooLarge,
        PaymentNotOpen,
        TooManyPayments,
    ) as refusal:
        errors = {form.text("act"): words_of(voice, refusal)}
    if errors:
        return await _shown(call, visitor, person, form, errors)
    speech, currency = spoken(call.request, person.language), _currency(form)
    wallet = "" if currency == LEDGER_CURRENCY else f"&currency={currency}"
    return visitor.keep(see_other(speech.carry(f"{PATH}?done=yes{wallet}")))


async def export(call: Call[None, None]) -> web.StreamResponse:
    """The statement as CSV: streamed from the newest entry on, a page of it at a time."""
    visitor = await arrive(call)
    person = _person(call, visitor)
    if person is None:
        return _elsewhere(call, visitor)
    voice = voice_of(call.request, spoken(call.request, person.language), person.zone)
    headers = {
        **HEADERS,
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": 'attachment; filename="wallet.csv"',
        "X-Request-Id": call.request[VISIT].request_id,
    }
    response = web.StreamResponse(headers=headers)
    try:
        await response.prepare(call.request)
        async for text in _rows(call, person, voice):
            await response.write(text.encode())
        await response.write_eof()
    except ConnectionError as gone:
        raise ClientGone from gone
    return response


async def _rows(call: Call[None, None], person: Person, voice: Voice) -> AsyncIterator[str]:
    """The file in pieces; the mark at its beginning tells spreadsheets that it is UTF-8."""
    asked = _asked(call)
    period = asked.period(person.zone)
    names = ("at", "what", "title", "escrow", "amount", "currency")
    yield "\ufeff" + as_csv([[voice.plain(f"wallet.column.{name}") for name in names]])
    before = NEWEST
    while True:
        lines = await read_statement(
            call.house.pool, person.user_id, asked.currency, period, before=before, limit=CSV_LINES
        )
        yield as_csv([_cells(line, voice) for line in lines])
        if len(lines) < CSV_LINES:
            return
        before = lines[-1].id


def _cells(line: Line, voice: Voice) -> list[str]:
    return [
        instant(line.at),
        voice.plain(f"wallet.reason.{_reason(line, voice)}"),
        harmless(line.title or ""),
        line.escrow_id or "",
        format(to_decimal(line.amount_minor, line.currency), "f"),
        line.currency,
    ]


def as_csv(rows: list[list[str]]) -> str:
    """These rows as RFC 4180 has them."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def harmless(cell: str) -> str:
    """What somebody typed, so that no spreadsheet reckons with it."""
    return f"'{cell}" if cell.lstrip().startswith(FORMULA) else cell


def _minor(text: str, voice: Voice, currency: str) -> int | None:
    """What was typed as an amount, in minor units; None where it is none, or too large."""
    amount = amount_of(text, voice.language.code)
    minor = None if amount is None else to_minor(amount, currency)
    return minor if minor is not None and 0 < minor <= MAX_MINOR else None


def _person(call: Call[None, None], visitor: Visitor) -> Person | None:
    session = visitor.session
    if session is None or session.user_id is None:
        return None
    zone = session.timezone or call.house.policy.timezone
    return Person(session.user_id, session.email, session.language, zone)


def _elsewhere(call: Call[None, None], visitor: Visitor) -> web.Response:
    return to_sign_in(call) if visitor.session is None else to_register(call)


def _wish(
    call: Call[None, None], person: Person, form: Form, voice: Voice
) -> Wish | Mapping[str, str]:
    """What is to be paid in, or what is wrong with the form."""
    currency = _currency(form)
    minor = _minor(form.text("amount"), voice, currency)
    errors = {}
    if minor is None:
        errors["amount"] = _no_amount(voice, currency)
    if form.text("method") not in paying.methods(call):
        errors["method"] = voice.say("field.choice")
    if errors or minor is None:
        return errors
    return Wish(TOPUP, form.text("method"), minor, currency, person.user_id)


async def _request_payout(
    call: Call[None, None], person: Person, form: Form, voice: Voice
) -> Mapping[str, str]:
    """Ask for it; or what is wrong with the form, by field."""
    currency = _currency(form)
    minor = _minor(form.text("payout_amount"), voice, currency)
    name, account = form.text("payout_name"), account_of(form.text("payout_account"))
    errors = wrong_names(voice, {"payout_name": name}, NAME_CHARACTERS_MAX)
    if minor is None:
        errors["payout_amount"] = _no_amount(voice, currency)
    if account is None:
        errors["payout_account"] = voice.say("wallet.account_wrong")
    if errors or minor is None:
        return errors
    payee = f"{' '.join(name.split())}\n{account}"
    command = payments.request_payout(person.user_id, BANK_TRANSFER, minor, currency, payee)
    await carry_out(
        call, call.actor.as_user(person.user_id), command, sending(call, person.user_id, form)
    )
    return {}


async def _cancel_payout(call: Call[None, None], person: Person, form: Form) -> None:
    payment_id = form.text("id")
    payout = await read_payment(call.house.pool, payment_id) if is_entity_id(payment_id) else None
    if payout is None or payout.kind != PAYOUT or payout.user_id != person.user_id:
        raise PaymentNotFound
    sent = sending(call, person.user_id, form)
    await carry_out(call, call.actor.as_user(person.user_id), payments.cancel(payout.id), sent)


def _currency(form: Form) -> str:
    """The wallet that the form is about; the ledger's own where it does not say."""
    given = form.text("currency")
    return given if given in EXPONENTS else LEDGER_CURRENCY


def _no_amount(voice: Voice, currency: str) -> Markup:
    example = f"120.{'5'.ljust(EXPONENTS[currency], '0')}"
    return voice.say("field.amount", example=voice.figure(example))


def _asked(call: Call[None, None]) -> Asked:
    """What the query asks for; what was tampered with is not there."""
    query = call.request.query
    before = query.get("before", "")
    currency = query.get("currency", LEDGER_CURRENCY)
    return Asked(
        currency if currency in EXPONENTS else LEDGER_CURRENCY,
        _as_day(query.get("from", "")),
        _as_day(query.get("to", "")),
        int(before) if CURSOR.fullmatch(before) else NEWEST,
    )


def _as_day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 3000 else None


def _day(day: date | None) -> str:
    return day.isoformat() if day else ""


async def _shown(
    call: Call[None, None],
    visitor: Visitor,
    person: Person,
    form: Form | None = None,
    errors: Mapping[str, str] | None = None,
) -> web.Response:
    speech = spoken(call.request, person.language)
    voice = voice_of(call.request, speech, person.zone)
    pool, asked = call.house.pool, _asked(call)
    if form is not None and _currency(form) != asked.currency:
        asked = Asked(_currency(form), None, None, NEWEST)
    lines = await read_statement(
        pool,
        person.user_id,
        asked.currency,
        asked.period(person.zone),
        before=asked.before,
        limit=LINES + 1,
    )
    more, lines = len(lines) > LINES, lines[:LINES]
    given = form or Form({})
    shown = show(
        call.request,
        "wallet",
        voice,
        status=400 if errors else 200,
        policy=paying.policy(call),
        person=person.email,
        tab=voice.say("wallet.title"),
        speech=speech,
        token=visitor.form_token(PURPOSE),
        action=speech.carry(PATH),
        given={name: given.text(name) for name in _FIELDS},
        errors=errors or {},
        is_done=not errors and call.request.query.get("done") == "yes",
        balances=await _balances(call, person, voice, asked.currency),
        others=[(one, f"{PATH}?currency={one}") for one in EXPONENTS if one != asked.currency],
        ways=[(way, voice.say(f"pay.way.{way}")) for way in paying.methods(call)],
        under_way=await _under_way(call, person, voice, speech.carry),
        payouts=await _payouts(call, person, voice),
        lines=[_entry(line, voice, speech.carry) for line in lines],
        asked=asked,
        older=speech.carry(PATH + asked.query(before=str(lines[-1].id))) if more else None,
        newest=speech.carry(PATH + asked.query()) if asked.before != NEWEST else None,
        export=speech.carry(f"{PATH}/statement.csv{asked.query()}"),
    )
    return visitor.keep(shown)


_FIELDS = ("amount", "method", "payout_amount", "payout_name", "payout_account")


async def _balances(
    call: Call[None, None], person: Person, voice: Voice, wanted: str
) -> list[tuple[str, list[tuple[Markup, str]], str]]:
    """(currency, what and how much, the query of its statement), the wanted currency first."""
    pool = call.house.pool
    found = await read_currencies(pool, person.user_id)
    currencies = list(dict.fromkeys((wanted, LEDGER_CURRENCY, *found)))
    shown = []
    for currency in currencies:
        balance = await read_balance(pool, person.user_id, currency)
        parts = (
            ("available", balance.available),
            ("pending", balance.pending),
            ("escrow", balance.escrow),
        )
        rows = [(voice.say(f"wallet.{name}"), spell(voice, n, currency)) for name, n in parts]
        shown.append((currency, rows, f"{PATH}?currency={currency}"))
    return shown


async def _under_way(
    call: Call[None, None], person: Person, voice: Voice, carry: Carry
) -> list[tuple[str, str, Markup]]:
    """(link, amount, when) of what is being paid in."""
    found = await list_of_user(
        call.house.pool, person.user_id, (TOPUP, ACCEPT_PAY), PAYMENTS, is_open=True
    )
    return [
        (
            carry(page_of(one)),
            spell(voice, one.amount_minor, one.currency),
            voice.moment(instant(one.created_at)) if one.created_at else Markup(),
        )
        for one in found
    ]


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout as it is listed; `id` is given where it can still be taken back."""

    amount: str
    payee: Markup
    asked: Markup
    meaning: str
    words: Markup
    note: Markup | None
    id: str | None


async def _payouts(call: Call[None, None], person: Person, voice: Voice) -> list[Payout]:
    found = await list_of_user(call.house.pool, person.user_id, (PAYOUT,), PAYMENTS)
    return [
        Payout(
            spell(voice, one.amount_minor, one.currency),
            voice.typed(", ".join((one.payee or "").splitlines())),
            voice.moment(instant(one.created_at)) if one.created_at else Markup(),
            MEANINGS[one.state],
            voice.say(f"wallet.payout.{one.state}"),
            voice.typed(one.note) if one.note else None,
            one.id if one.state == CREATED else None,
        )
        for one in found
    ]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the statement as it is shown."""

    what: Markup
    amount: str
    at: Markup
    link: str | None


def _entry(line: Line, voice: Voice, carry: Carry) -> Entry:
    title = voice.typed(line.title) if line.title else ""
    reason = _reason(line, voice)
    key = f"wallet.entry.{reason}" if line.title else f"wallet.reason.{reason}"
    return Entry(
        voice.say(key, title=title) if voice.knows(key) else voice.say(f"wallet.reason.{reason}"),
        spell(voice, line.amount_minor, line.currency),
        voice.moment(instant(line.at)),
        carry(f"/dashboard/escrow/{line.escrow_id}") if line.is_theirs else None,
    )


def _reason(line: Line, voice: Voice) -> str:
    return line.reason if voice.knows(f"wallet.reason.{line.reason}") else "other"
