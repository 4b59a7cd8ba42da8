"""Signing in: codes that prove an e-mail or a phone, and the sessions of those who have.

Law: asking for a code tells nobody whether the address is registered. A wrong try is counted even
though nothing else happens. Whoever owns the mailbox comes in, whatever others ask for or try: what
is asked for is counted by network, tries are the asking browser's alone, and each mail has a link
that works for as long as its code is counted.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from ipaddress import ip_address, ip_network

import structlog

from service.commands.mails import CODE_MINUTES, SIGN_IN_LINK, code_mail
from service.commands.perform import House, tend
from service.rules.errors import TooManyCodes
from service.store.db import Transaction
from service.store.ids import entity_id
from service.store.mails import insert_mails
from service.store.users import read_user
from service.store.vault import Vault, hash_token
from service.store.visits import (
    Asked,
    Asker,
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
"""A mailed link works LATELY: where codes are refused, there is one in the mailbox that does."""
PER_EMAIL_MAX, PER_NETWORK_MAX, PER_PHONE_MAX, PER_IP_MAX = 20, 5, 5, 30
"""Codes an hour; PER_NETWORK: of those for one e-mail. With five tries each a guess comes true once
in 40 000 hours from one network, once in 10 000 from all of them."""
NETWORK_BITS = {4: 24, 6: 48}
"""IP version -> how much of an address a household or an office shares, at least."""

log = structlog.get_logger()


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


async def ask_code(
    house: House, email: str, ip: str | None, language: str, browser: bytes | None
) -> str:
    """Mail a code to this e-mail, whoever it belongs to; the id of its row.

    In the language of whoever has registered with it, else in the page's: nobody but the mailbox's
    owner is told which. `browser` (the hash of its token) alone may give the code back. A browser
    that asks twice at once is led to the one code that it was sent.

    Raises:
        TooManyCodes: one was sent just now, or too many lately.
    """

    async def command(tx: Transaction) -> str:
        asker = Asker(ip, network_of(ip), browser)
        asked = await count_codes(tx, SIGN_IN, email, None, asker, JUST_NOW, LATELY, TRIES_MAX)
        if asked.own is not None:
            return asked.own
        code_id = await _inserted(tx, SIGN_IN, email, None, asker, asked)
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
        asker = Asker(ip, network_of(ip), None)
        asked = await count_codes(tx, PHONE, email, phone, asker, JUST_NOW, LATELY, TRIES_MAX)
        code_id = await _inserted(tx, PHONE, email, phone, asker, asked)
        if tx.policy.is_sandbox:
            await insert_mails(tx, [code_mail(tx, "phone_code", code_id, email, language)])
        return code_id

    return await tend(house, command)


def network_of(ip: str | None) -> str | None:
    """The network that an address is in; what is no address is its own."""
    if ip is None:
        return None
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    return str(ip_network((address, NETWORK_BITS[address.version]), strict=False))


async def _inserted(
    tx: Transaction, purpose: str, email: str, phone: str | None, asker: Asker, asked: Asked
) -> str:
    if asked.of_ip >= PER_IP_MAX:
        hint = "a proxy of yours, whose address TRUSTED_PROXIES must name?"
        log.warning("codes_refused_to_address", ip=asker.ip, hint=hint)
    lately = (
        (asked.of_email, PER_EMAIL_MAX),
        (asked.of_both, PER_NETWORK_MAX),
        (asked.of_phone, PER_PHONE_MAX),
        (asked.of_ip, PER_IP_MAX),
    )
    if asked.just_now or any(count >= most for count, most in lately):
        raise TooManyCodes
    code_id = entity_id(tx.now)
    lifetime = timedelta(minutes=CODE_MINUTES)
    await insert_code(tx, code_id, purpose, email, phone, asker, lifetime)
    return code_id


class Proof(Enum):
    """What became of a try."""

    RIGHT = "right"
    WRONG = "wrong"
    OVER = "over"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a try, and whose code it was."""

    proof: Proof
    code: Code | None = None


async def try_code(
    house: House, purpose: str, code_id: str, given: str, browser: bytes | None
) -> Tried:
    """Whether these digits are the code's; right but once, and only within its time and tries.

    From another browser than the one that asked nothing is right, nor counted.
    """

    async def command(tx: Transaction) -> Tried:
        code = await lock_code(tx, code_id)
        if code is None or code.purpose != purpose or code.is_over or code.tries >= TRIES_MAX:
            return Tried(Proof.OVER, code)
        if not is_askers(code, browser):
            return Tried(Proof.ELSEWHERE, code)
        if not tx.vault.is_code(given, purpose, code_id):
            await count_try(tx, code_id)
            is_last = code.tries + 1 >= TRIES_MAX
            return Tried(Proof.OVER if is_last else Proof.WRONG, code)
        await use_code(tx, code_id)
        if code.phone is not None:
            await verify_phone(tx, code.email, code.phone)
        return Tried(Proof.RIGHT, code)

    return await tend(house, command)


def is_askers(code: Code, browser: bytes | None) -> bool:
    """Whether this browser may give the code: it has asked for it, or anybody may."""
    return code.browser is None or code.browser == browser


async def follow_link(house: House, code_id: str, token: str) -> Tried:
    """Whether this is the link that was mailed with the code; right but once, and for an hour."""

    async def command(tx: Transaction) -> Tried:
        code = await lock_code(tx, code_id)
        if code is None or not is_link(tx.vault, code, token):
            return Tried(Proof.WRONG)
        if code.is_link_over:
            return Tried(Proof.OVER, code)
        await use_code(tx, code_id)
        return Tried(Proof.RIGHT, code)

    return await tend(house, command)


def is_link(vault: Vault, code: Code, token: str) -> bool:
    """Whether the token is the mailed link's, under any of our keys; constant time."""
    return (
        code.purpose == SIGN_IN
        and vault.link_token_for(hash_token(token), SIGN_IN_LINK, code.id) is not None
    )
