"""Texts and e-mails as we are sent them."""

from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator

MAX_EMAIL_CHARACTERS = 254


def _trimmed(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _email(text: str) -> str:
    """Trimmed, lower-cased, syntactically an address; no look-up, and any domain with a dot."""
    address = text.strip().lower()
    if len(address) > MAX_EMAIL_CHARACTERS:
        raise ValueError("must be a valid e-mail address")
    try:
        checked = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise ValueError("must be a valid e-mail address") from None
    if "." not in checked.ascii_domain:
        raise ValueError("must be a valid e-mail address")
    return checked.normalized.lower()


Text = Annotated[str, BeforeValidator(_trimmed)]
"""A string, trimmed before its length is looked at."""

Email = Annotated[str, AfterValidator(_email)]
"""An e-mail address, trimmed and lower-cased."""
