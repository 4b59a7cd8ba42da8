"""Checkout sessions: made and read by a developer; in the sandbox finished without a browser."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from aiohttp import web

from service.commands import cancellations, contracts, disputes, escrows, proofs, sessions
from service.commands.amendments import update
from service.commands.contracts import DRAWN, TYPED, Mark
from service.commands.perform import Answer, Command
from service.ingress.api import milestones
from service.ingress.api.escrows import changes_of
from service.ingress.bodies import as_model
from service.ingress.call import Call, Caller
from service.ingress.route import Subject
from service.ingress.uploads import STORAGE, keep_file
from service.rules.dispute import Split
from service.rules.errors import Invalid, InvalidPayload, SessionNotFound, UserNotRegistered
from service.rules.files import StoredFile
from service.rules.money import EXPONENTS, LEDGER_CURRENCY, to_minor
from service.rules.payment import BANK_TRANSFER, SANDBOX
from service.store.db import Reader
from service.store.sessions import Session, read_session
from service.wire.base import Body
from service.wire.sessions import (
    AnswerInput,
    CorrectionInput,
    InlineFiles,
    NewSession,
    NothingInput,
    OfferInput,
    OtherPayment,
    ProofInput,
    ReasonInput,
    ReviewInput,
    SessionAnswer,
    SessionEnd,
    SignatureInput,
    UpdateInput,
    WalletPayment,
    WhyInput,
)

CHUNK_BYTES = 64 * 1024


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its one form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _read(reader: Reader, session_id: str) -> Session | None:
    return await read_session(reader, UUID(session_id))


def _is_its_developer(caller: Caller, session: Session) -> bool:
    return caller.developer_id == session.developer_id


def _anybody(_: Caller, __: Session) -> bool:
    return True


# Another developer's session is told from none at all by nothing.
SESSION = Subject(
    "id", is_uuid, SessionNotFound, _read, SessionNotFound, _is_its_developer, SessionNotFound
)
ANY_SESSION = Subject(
    "id", is_uuid, SessionNotFound, _read, SessionNotFound, _anybody, SessionNotFound
)


async def create(call: Call[NewSession, None]) -> Answer:
    """A hosted page for one step of one person."""
    return await call.perform(sessions.create(call.developer_id, call.subject.id, call.body))


async def read_one(call: Call[None, None]) -> SessionAnswer:
    """How the session stands."""
    return SessionAnswer.model_construct(session=sessions.shape(call.subject))


Files = Sequence[StoredFile]
Acting = Callable[[str], Command]
Taking = Callable[[str, Any, Files], Command]


class Act(NamedTuple):
    """A person's step: what they fill in, the command, and whether files come along.

    `taking` is given the escrow's id, the filled-in `brings` and the files, which are stored
    already. `files_min` is None where the step takes no files.
    """

    brings: type[Body]
    taking: Taking
    files_min: int | None = None


def _plainly(command: Callable[[str], Command]) -> Taking:
    return lambda escrow_id, _, __: command(escrow_id)


def _signed(escrow_id: str, given: SignatureInput, _: Files) -> Command:
    if given.image is not None and given.signature is None:
        return contracts.sign(escrow_id, Mark(DRAWN, image=given.image), given.version)
    if given.image is None and given.signature is not None:
        return contracts.sign(escrow_id, Mark(TYPED, name=given.signature), given.version)
    one = "give either signature or image"
    raise Invalid({"signature": one, "image": one})


def _reviewed(escrow_id: str, given: ReviewInput, _: Files) -> Command:
    if given.correction is not None and given.accept is None:
        return proofs.request_correction(escrow_id, given.correction)
    if given.correction is None and given.accept is not None:
        return proofs.accept(escrow_id)
    one = "give either accept or correction"
    raise Invalid({"accept": one, "correction": one})


def _answered(escrow_id: str, given: AnswerInput, files: Files) -> Command:
    if given.accept_offer is not None:
        beside = {"text": given.text, "files": files or None, "offer": given.offer}
        bad = {name: "must be absent beside acceptOffer" for name, it in beside.items() if it}
        if bad:
            raise Invalid(bad)
        return disputes.accept_offer(escrow_id, given.accept_offer)
    return disputes.answer(escrow_id, given.text, files, _split(given.offer))


def _split(offer: OfferInput | None) -> Split | None:
    if offer is None:
        return None
    minors = {
        "sellerAmount": to_minor(offer.seller_amount, LEDGER_CURRENCY),
        "buyerAmount": to_minor(offer.buyer_amount, LEDGER_CURRENCY),
    }
    places = f"must have at most {EXPONENTS[LEDGER_CURRENCY]} decimals in {LEDGER_CURRENCY}"
    bad = {f"offer.{name}": places for name, minor in minors.items() if minor is None}
    if bad:
        raise Invalid(bad)
    return Split(minors["sellerAmount"] or 0, minors["buyerAmount"] or 0)


ACTS: Mapping[str, Act] = {
    "update": Act(UpdateInput, lambda escrow_id, given, _: update(escrow_id, changes_of(given))),
    "sign_contract": Act(SignatureInput, _signed),
    "accept_pay": Act(
        WalletPayment, lambda escrow_id, given, _: escrows.pay(escrow_id, given.amount)
    ),
    "deliver": Act(NothingInput, _plainly(escrows.deliver)),
    "complete": Act(NothingInput, _plainly(escrows.complete)),
    "reject_delivery": Act(
        WhyInput,
        lambda escrow_id, given, _: escrows.reject_delivery(escrow_id, given.reason),
    ),
    "cancel": Act(NothingInput, _plainly(escrows.cancel)),
    "cancel_escrow": Act(NothingInput, _plainly(cancellations.cancel_paid)),
    "request_cancellation": Act(
        WhyInput,
        lambda escrow_id, given, _: cancellations.request(escrow_id, given.reason),
    ),
    "accept_cancellation": Act(NothingInput, _plainly(cancellations.accept)),
    "reject_cancellation": Act(NothingInput, _plainly(cancellations.reject)),
    "submit_proof": Act(
        ProofInput,
        lambda escrow_id, given, files: proofs.submit(escrow_id, files, given.note),
        files_min=1,
    ),
    "review_proof": Act(ReviewInput, _reviewed),
    "accept_proof": Act(NothingInput, _plainly(proofs.accept)),
    "request_correction": Act(
        CorrectionInput,
        lambda escrow_id, given, _: proofs.request_correction(escrow_id, given.correction),
    ),
    "dispute": Act(
        ReasonInput,
        lambda escrow_id, given, files: disputes.open_dispute(escrow_id, given.reason, files),
        files_min=0,
    ),
    "answer_dispute": Act(AnswerInput, _answered, files_min=0),
    "withdraw_dispute": Act(NothingInput, _plainly(disputes.withdraw)),
}
"""Step or action -> how a person takes it. For pages and the sandbox alike.

`review_proof` is what a session calls the two steps `accept_proof` and `request_correction`.
"""


async def acted(request: web.Request, name: str, given: Mapping[str, Any]) -> Acting:
    """The sandbox's `input` for this step, its inline files stored; what takes it on an escrow.

    Raises:
        Invalid: with every bad field at once.
        FileEmpty, FileTooLarge, FileTypeUnknown: of the first file that cannot be taken.
    """
    act = ACTS[name]
    inline: Mapping[str, Any] = {}
    if act.files_min is not None:
        inline = {key: value for key, value in given.items() if key == "files"}
    bad: dict[str, str] = {}
    files = _whole(InlineFiles, inline, bad)
    brought = _whole(act.brings, {k: v for k, v in given.items() if k not in inline}, bad)
    if act.files_min and files is not None and len(files.files) < act.files_min:
        bad["files"] = "must not be empty"
    if bad or files is None or brought is None:
        raise Invalid(bad)
    storage = request.app[STORAGE]
    stored = [
        await keep_file(storage, one.name, _in_chunks(one.content_base64)) for one in files.files
    ]
    return lambda escrow_id: act.taking(escrow_id, brought, stored)


ModelT = TypeVar("ModelT", bound=Body)


def _whole(model: type[ModelT], given: Mapping[str, Any], bad: dict[str, str]) -> ModelT | None:
    try:
        return as_model(model, given)
    except Invalid as invalid:
        bad.update(invalid.details)
        return None


async def _in_chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


async def complete(call: Call[SessionEnd, None]) -> Answer:
    """Finish the session as the person to whom it is bound, through the page's own commands."""
    session, given = call.subject, call.body.input or {}
    if session.of_milestones:
        taking = _of_milestones(session, given)
    elif session.action == "accept_pay" and given.get("method", "wallet") != "wallet":
        return await _paid_otherwise(call, as_model(OtherPayment, given))
    else:
        acting = await acted(call.request, session.action, given)
        taking = acting(session.escrow_id)
    person = await sessions.bound_person(call.house.pool, session, call.actor)
    return await call.perform(sessions.complete(session.id, taking), person)


def _of_milestones(session: Session, given: Mapping[str, Any]) -> Command:
    """The step's body is the session's own, or what is given now."""
    if session.input is not None and given:
        raise InvalidPayload({"input": "must be absent: it was given with the session"})
    return milestones.acted(session.escrow_id, session.action, session.input or given)


async def _paid_otherwise(call: Call[SessionEnd, None], given: OtherPayment) -> Answer:
    """Whoever has not registered is a guest."""
    session = call.subject
    try:
        person = await sessions.bound_person(call.house.pool, session, call.actor)
    except UserNotRegistered:
        person = call.actor.as_user(None)
    provider = SANDBOX if given.method == "card" else BANK_TRANSFER
    command = sessions.pay_otherwise(
        session.id, provider, is_proven=given.proof, shown=given.amount
    )
    return await call.perform(command, person)


async def turn_away(call: Call[None, None]) -> Answer:
    """The person leaves without taking the step."""
    return await call.perform(sessions.turn_away(call.subject.id))
