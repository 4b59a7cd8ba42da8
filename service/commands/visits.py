"""Signing in: codes that prove an e-mail or a phone, and the sessions of those who have.

Law: asking for a code tells nobody whether the address is registered. A wrong try is counted even
though nothing else happens.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from service.commands.mails import CODE_MINUTES, code_mail
from service.commands.perform import House, tend
from service.rules.errors import TooManyCodes
from service.store.db import Transaction
from service.store.ids import entity_id
from service.store.mails import insert_mails
from service.store.users import read_user
from service.store.visits import (
    Code,
    Visit,
    count_codes,
    count_try,
    delete_visit,
    insert_code,
    insert_visit,
    lock_code,
    read_visit,
    use_code,
    verify_phone,
)

SIGN_IN, PHONE = "sign_in", "phone"
SIGNED_IN = timedelta(hours=12)
TRIES_MAX = 5
JUST_NOW, LATELY = timedelta(seconds=30), timedelta(hours=1)
PER_EMAIL_MAX, PER_PHONE_MAX, PER_IP_MAX = 5, 5, 30
"""Codes an hour: with five tries each, a guess comes true once in 40 000 hours."""


class HouseSessions:
    """The browser's sessions, where every process sees them."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def create(self, token_hash: bytes, email: str) -> Visit:
        """A session for whoever has just proven this e-mail to be theirs."""
        await tend(self._house, lambda tx: insert_visit(tx, token_hash, email, SIGNED_IN))
        return await self.find(token_hash) or Visit(email)

    async def find(self, token_hash: bytes) -> Visit | None:
        """The session, unless it has ended or expired."""
        return await read_visit(self._house.pool, token_hash)

    async def end(self, token_hash: bytes) -> None:
        """The session is over; nothing happens where there is none."""
        await tend(self._house, lambda tx: delete_visit(tx, token_hash))


async def ask_code(house: House, email: str, ip: str | None, language: str) -> str:
    """Mail a code to this e-mail, whoever it belongs to; the id of its row.

    In the language of whoever has registered with it, else in the page's: nobody but the mailbox's
    owner is told which.

    Raises:
        TooManyCodes: one was sent just now, or too many lately.
    """

    async def command(tx: Transaction) -> str:
        code_id = await _inserted(tx, SIGN_IN, email, None, ip)
        user = await read_user(tx, email)
        spoken = language if user is None else user.person.language
        await insert_mails(tx, [code_mail(tx, "sign_in_code", code_id, email, spoken)])
        return code_id

    return await tend(house, command)


async def ask_phone_code(
    house: House, email: str, phone: str, ip: str | None, language: str
) -> str:
    """A code for this phone of the person's; the id of its row.

    In the sandbox it is mailed, so that it is found in the mailbox; else the door sends it.

    Raises:
        TooManyCodes: one was sent just now, or too many lately.
    """

    async def command(tx: Transaction) -> str:
        code_id = await _inserted(tx, PHONE, email, phone, ip)
        if tx.policy.is_sandbox:
            await insert_mails(tx, [code_mail(tx, "phone_code", code_id, email, language)])
        return code_id

    return await tend(house, command)


async def _inserted(
    tx: Transaction, purpose: str, email: str, phone: str | None, ip: str | None
) -> str:
    asked = await count_codes(tx, purpose, email, ip, phone, JUST_NOW, LATELY)
    lately = (
        (asked.of_email, PER_EMAIL_MAX),
        (asked.of_phone, PER_PHONE_MAX),
        (asked.of_ip, PER_IP_MAX),
    )
    if asked.just_now or any(count >= most for count, most in lately):
        raise TooManyCodes
    code_id = entity_id(tx.now)
    await insert_code(tx, code_id, purpose, email, phone, ip, timedelta(minutes=CODE_MINUTES))
    return code_id


class Proof(Enum):
    """What became of a try."""

    RIGHT = "right"
    WRONG = "wrong"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a try, and whose code it was."""

    proof: Proof
    code: Code | None = None


async def try_code(house: House, purpose: str, code_id: str, given: str) -> Tried:
    """Whether these digits are the code's; right but once, and only within its time and tries."""

    async def command(tx: Transaction) -> Tried:
        code = await lock_code(tx, code_id)
        if code is None or code.purpose != purpose or code.is_over or code.tries >= TRIES_MAX:
            return Tried(Proof.OVER, code)
        if not tx.vault.is_code(given, purpose, code_id):
            await count_try(tx, code_id)
            is_last = code.tries + 1 >= TRIES_MAX
            return Tried(Proof.OVER if is_last else Proof.WRONG, code)
        await use_code(tx, code_id)
        if code.phone is not None:
            await verify_phone(tx, code.email, code.phone)
        return Tried(Proof.RIGHT, code)

    return await tend(house, command)
