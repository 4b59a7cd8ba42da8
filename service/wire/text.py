"""Texts and e-mails as we are sent them."""

import re
import unicodedata
from typing import Annotated

import idna
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, Field

MAX_EMAIL_CHARACTERS = 254
TERMS_CHARACTERS_MAX = 10_000
# What nearly every address looks like: plain letters and digits, in a domain that may have mail.
# The library says the same of them, a hundred times slower; all others are its to judge.
PLAIN_EMAIL = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z0-9](?:-?[a-z0-9]){0,31}\.)+"
    r"(?!(?:arpa|invalid|local|localhost|onion)\Z)[a-z]{2,63}"
)


def _trimmed(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _sayable(text: object) -> object:
    if not isinstance(text, str):
        return text
    text = text.replace("\r\n", "\n")
    if any(unicodedata.category(one) == "Cc" and one not in "\t\n" for one in text):
        raise ValueError("must hold no control characters but tabs and line breaks")
    return text.strip()


def an_email(text: str) -> str:
    """Trimmed, lower-cased, syntactically an address; no look-up, and any domain with a dot."""
    address = text.strip().lower()
    if len(address) > MAX_EMAIL_CHARACTERS:
        raise ValueError("must be a valid e-mail address")
    if PLAIN_EMAIL.fullmatch(address):
        return address
    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise ValueError("must be a valid e-mail address") from None
    if "." not in checked.ascii_domain:
        raise ValueError("must be a valid e-mail address")
    return checked.normalized.lower()


def read_email(text: str) -> str | None:
    """The address as it is stored, or None where it is none."""
    try:
        return an_email(text)
    except ValueError:
        return None


def ascii_domain(domain: str) -> str:
    """The domain as mail is sent to it: lower case, punycode, no dot at its end. IDNA 2008.

    The codec of the standard library is of 2003: it sends what is for straße.de to strasse.de.

    Raises:
        ValueError: it is no domain.
    """
    return idna.encode(domain, uts46=True).decode().removesuffix(".")


Text = Annotated[str, BeforeValidator(_trimmed)]
"""A string, trimmed before its length is looked at."""

ContractTerms = Annotated[
    str, BeforeValidator(_sayable), Field(min_length=1, max_length=TERMS_CHARACTERS_MAX)
]
"""What both sides sign: trimmed, a line break is LF; what could not be seen on paper is refused."""

Email = Annotated[str, AfterValidator(an_email)]
"""An e-mail address, trimmed and lower-cased."""
