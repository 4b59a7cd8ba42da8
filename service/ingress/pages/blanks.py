"""The blanks of the steps' forms: which there are, and what was filled in, as the step takes it.

Law: what was typed is kept whatever is wrong with it; what is wrong is said beside its blank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from service.ingress.pages.escrow import Look
from service.ingress.pages.figures import AMOUNT_CHARACTERS, amount_of, shown_amount
from service.ingress.pages.forms import FORM_BYTES_MAX, Form
from service.rules.aggregate import Escrow
from service.rules.errors import Refused
from service.rules.files import FORM_BYTES_MAX as FILES_BYTES_MAX
from service.rules.files import StoredFile
from service.rules.money import to_decimal, to_minor
from service.wire.developer import SIGNATURE_BODY_BYTES_MAX

TEXT_CHARACTERS, NAME_CHARACTERS = 2000, 200


@dataclass(frozen=True, slots=True)
class Blank:
    """A field of a form. `kind`: line, area, files, amount or way.

    Of milestone escrows also: sum, hidden, which (one of them), ticks (several), shares (who gets
    how much). `limit` is how much may be typed where that is another than its kind's.
    """

    name: str
    kind: str
    is_required: bool = True
    limit: int | None = None

    @property
    def characters_max(self) -> int:
        """How much may be typed."""
        of_kind = {"line": NAME_CHARACTERS, "amount": AMOUNT_CHARACTERS, "sum": AMOUNT_CHARACTERS}
        return self.limit or of_kind.get(self.kind, TEXT_CHARACTERS)


_WHY = (Blank("reason", "area", is_required=False),)
BLANKS: Mapping[str, Sequence[Blank]] = {
    "sign_contract": (Blank("signature", "line"),),
    "accept_pay": (Blank("way", "way"),),
    "deliver": (),
    "complete": (),
    "submit_proof": (Blank("files", "files"), Blank("note", "area", is_required=False)),
    "review_proof": (Blank("correction", "area", is_required=False),),
    "accept_cancellation": (),
    "reject_cancellation": (),
    "answer_dispute": (
        Blank("text", "area", is_required=False),
        Blank("seller_amount", "amount", is_required=False),
        Blank("files", "files", is_required=False),
    ),
    "withdraw_dispute": (),
    "reject_delivery": _WHY,
    "request_cancellation": _WHY,
    "dispute": (Blank("reason", "area"), Blank("files", "files", is_required=False)),
    "cancel": (),
    "cancel_escrow": (),
}
"""Step -> its blanks, in their order."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A form that came back: what was typed, what is wrong with it, and what the step is given."""

    typed: Mapping[str, str]
    errors: Mapping[str, Markup]
    brings: Mapping[str, Any]
    shown_minor: int | None = None


def fill(
    step: str, form: Form, look: Look, refusal: Refused | None, files: Sequence[StoredFile]
) -> Filled:
    """What was filled in. `refusal` stands against its files."""
    typed = {one.name: form.text(one.name) for one in BLANKS[step] if one.kind != "files"}
    errors, voice = {}, look.voice
    for blank in BLANKS[step]:
        text = typed.get(blank.name, "")
        if blank.kind == "files" and refusal is not None:
            errors[blank.name] = voice.say(f"refusal.{refusal.code}")
        elif blank.kind == "files" and blank.is_required and not files:
            errors[blank.name] = voice.say("field.file_missing")
        elif blank.kind != "files" and blank.is_required and not text:
            key = "field.choice" if blank.kind == "way" else "field.required"
            errors[blank.name] = voice.say(key)
        elif len(text) > blank.characters_max:
            limit = voice.figure(str(blank.characters_max))
            errors[blank.name] = voice.say("field.too_long", limit=limit)
    brings: dict[str, Any] = {name: text for name, text in typed.items() if text}
    match step:
        case "sign_contract":
            brings = _signed(form, brings, errors)
        case "accept_pay":
            return _paid(form, look, typed, errors)
        case "review_proof":
            brings = _reviewed(form, look, brings, errors)
        case "answer_dispute":
            brings = _answered(form, look, brings, errors, files)
    return Filled(typed, errors, brings)


def _paid(form: Form, look: Look, typed: Mapping[str, str], errors: Mapping[str, Markup]) -> Filled:
    """With the amount that the page showed: a changed one is told before it is paid."""
    shown = shown_amount(form.text("amount"))
    minor = to_minor(shown, look.escrow.currency) if shown is not None else None
    brings = {} if shown is None else {"amount": shown}
    return Filled(typed, errors, brings, shown_minor=minor)


def _signed(form: Form, brings: dict[str, Any], errors: dict[str, Markup]) -> dict[str, Any]:
    """Drawn, where there is a script to draw with, else typed; with the version that was read."""
    drawn, version = form.text("drawn"), form.text("version")
    if drawn:
        errors.pop("signature", None)
        brings = {"image": drawn}
    if version.isascii() and version.isdigit() and len(version) <= AMOUNT_CHARACTERS:
        brings["version"] = int(version)
    return brings


def bytes_max(step: str) -> int:
    """How large this step's form may be: with files, with a picture, or with neither."""
    if step == "sign_contract":
        return SIGNATURE_BODY_BYTES_MAX
    has_files = any(one.kind == "files" for one in BLANKS[step])
    return FILES_BYTES_MAX if has_files else FORM_BYTES_MAX


def _reviewed(
    form: Form, look: Look, brings: Mapping[str, Any], errors: dict[str, Markup]
) -> dict[str, Any]:
    """Accepted only where that was pressed, and nothing was typed that accepting would lose."""
    is_told = "correction" in brings
    match form.text("act"):
        case "accept" if not is_told:
            return {"accept": True}
        case "accept":
            errors["correction"] = look.voice.say("step.accepts_and_corrects")
        case "correct" if not is_told:
            errors["correction"] = look.voice.say("field.required")
        case "correct":
            pass
        case _:
            errors["correction"] = look.voice.say("field.choice")
    return dict(brings)


def _answered(
    form: Form,
    look: Look,
    brings: dict[str, Any],
    errors: dict[str, Markup],
    files: Sequence[StoredFile],
) -> dict[str, Any]:
    accepted = form.text("accept_offer")
    if accepted:
        errors.clear()
        return {"acceptOffer": accepted}
    wanted = brings.pop("seller_amount", None)
    if wanted is not None:
        offer = offer_of(amount_of(wanted, look.voice.language.code), look.escrow)
        if offer is None:
            example = format(to_decimal(look.escrow.held_minor, look.escrow.ledger_currency), "f")
            errors["seller_amount"] = look.voice.say(
                "field.amount", example=look.voice.figure(example)
            )
        brings["offer"] = offer
    if not brings and not files and not errors:
        errors["text"] = look.voice.say("field.required")
    return brings


def offer_of(amount: Decimal | None, escrow: Escrow) -> Mapping[str, Decimal] | None:
    """The split that gives the seller so much and the buyer the rest; None if it cannot be."""
    currency = escrow.ledger_currency
    minor = to_minor(amount, currency) if amount is not None else None
    if minor is None or not 0 <= minor <= escrow.held_minor:
        return None
    return {
        "sellerAmount": to_decimal(minor, currency),
        "buyerAmount": to_decimal(escrow.held_minor - minor, currency),
    }
