"""To whom a payout goes: a name, and an account as a bank reads it. Source of IBANs: ISO 13616."""

import re

NAME_CHARACTERS_MAX = 100
ACCOUNT_CHARACTERS = (5, 100)
IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
LIKE_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}[A-Za-z0-9 ]+")


def account_of(text: str) -> str | None:
    """The account as it is kept, an IBAN in groups of four; None where it cannot be one.

    What begins like an IBAN must be a whole one, check digits and all; anything else is taken as
    it is written, within bounds, if it can be shown as it is.
    """
    written = " ".join(text.split())
    if not written.isprintable():
        return None
    if LIKE_IBAN.fullmatch(written) and len(written.replace(" ", "")) > len("TN59") + 10:
        iban = written.replace(" ", "").upper()
        return _grouped(iban) if is_iban(iban) else None
    least, most = ACCOUNT_CHARACTERS
    return written if least <= len(written) <= most else None


def is_iban(text: str) -> bool:
    """Whether the check digits are right: 1 modulo 97."""
    if IBAN.fullmatch(text) is None:
        return False
    return int("".join(str(int(mark, 36)) for mark in text[4:] + text[:4])) % 97 == 1


def _grouped(iban: str) -> str:
    return " ".join(iban[n : n + 4] for n in range(0, len(iban), 4))
