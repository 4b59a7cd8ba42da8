"""What has happened beside an escrow's states, in words: dispute, requests, rejections, proof.

Law: pure. What people typed goes through the Voice; files are links that live for a while.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from service.ingress.pages.standing import ledger_money
from service.rules.aggregate import Dispute, Escrow
from service.rules.dispute import Offer, Statement
from service.rules.files import StoredFile
from service.wire.base import instant
from service.wire.parts import ticket_number
from service.words.pages import Voice

ViewUrl = Callable[[str], str]
"""A file's key -> where it can be looked at for a while."""


@dataclass(frozen=True, slots=True)
class Tale:
    """Something that is told, under a heading of its own where it has one.

    `quote` is what somebody typed; `files` are (name, link) pairs.
    """

    says: Sequence[Markup]
    heading: Markup | None = None
    quote: Markup | None = None
    files: Sequence[tuple[Markup, str]] = ()


@dataclass(frozen=True, slots=True)
class Hearing:
    """What was said and offered in the escrow's last dispute."""

    statements: Sequence[Statement] = ()
    offers: Sequence[Offer] = ()


def tales(
    escrow: Escrow, hearing: Hearing, voice: Voice, ticket_prefix: str, view_url: ViewUrl
) -> list[Tale]:
    """Dispute, request to cancel, rejected deliveries and purchase proof, as far as there are."""
    return [
        *_dispute(escrow, hearing, voice, ticket_prefix, view_url),
        *_request(escrow, voice),
        *_rejections(escrow, voice),
        *_proof(escrow, voice, view_url),
    ]


def _dispute(
    escrow: Escrow, hearing: Hearing, voice: Voice, ticket_prefix: str, view_url: ViewUrl
) -> Iterator[Tale]:
    dispute = escrow.dispute
    if dispute is None:
        return
    ticket = voice.figure(ticket_number(dispute, ticket_prefix))
    yield Tale(
        [_by(voice, "dispute_by", dispute.opener, at=voice.moment(instant(dispute.opened_at)))],
        heading=voice.say("escrow_page.dispute", ticket=ticket),
        quote=voice.lines(dispute.reason),
    )
    said = [(one.stated_at, one.id, _statement(one, voice, view_url)) for one in hearing.statements]
    said += [(one.offered_at, one.id, _offer(one, escrow, voice)) for one in hearing.offers]
    yield from (tale for _, __, tale in sorted(said, key=lambda one: one[:2]))
    if dispute.outcome is not None:
        yield Tale([_outcome(dispute, dispute.outcome, escrow, voice)])


def _by(voice: Voice, key: str, side: str, **values: Markup) -> Markup:
    return voice.say(f"escrow_page.{key}_{side}", **values)


def _statement(given: Statement, voice: Voice, view_url: ViewUrl) -> Tale:
    at = voice.moment(instant(given.stated_at))
    return Tale(
        [_by(voice, "said_by", given.role, at=at)],
        quote=voice.lines(given.text) if given.text else None,
        files=_links(given.files, voice, view_url),
    )


def _offer(made: Offer, escrow: Escrow, voice: Voice) -> Tale:
    says = _by(
        voice,
        "offered_by",
        made.role,
        at=voice.moment(instant(made.offered_at)),
        for_seller=ledger_money(voice, escrow, made.split.seller_minor),
        for_buyer=ledger_money(voice, escrow, made.split.buyer_minor),
    )
    return Tale([says, voice.say(f"escrow_page.offer.{made.outcome or 'open'}")])


def _outcome(dispute: Dispute, outcome: str, escrow: Escrow, voice: Voice) -> Markup:
    parts = dispute.settlement
    return voice.say(
        f"escrow_page.outcome.{outcome}",
        seller=ledger_money(voice, escrow, parts.seller_minor if parts else 0),
        buyer=ledger_money(voice, escrow, parts.buyer_minor if parts else 0),
    )


def _request(escrow: Escrow, voice: Voice) -> Iterator[Tale]:
    request = escrow.cancellation
    if request is None:
        return
    says = [
        voice.say("escrow_page.request_made", at=voice.moment(instant(request.requested_at))),
        voice.say(f"escrow_page.request_status.{request.status}"),
    ]
    if request.reason:
        says.append(voice.say("escrow_page.request_why"))
    yield Tale(
        says,
        heading=voice.say("escrow_page.request"),
        quote=voice.lines(request.reason) if request.reason else None,
    )


def _rejections(escrow: Escrow, voice: Voice) -> Iterator[Tale]:
    for place, rejection in enumerate(reversed(escrow.rejections)):
        says = voice.say(
            "escrow_page.rejected",
            delivered=voice.moment(instant(rejection.previous_delivered_at)),
            at=voice.moment(instant(rejection.rejected_at)),
        )
        yield Tale(
            [says],
            heading=None if place else voice.say("escrow_page.rejections"),
            quote=voice.lines(rejection.reason) if rejection.reason else None,
        )


def _proof(escrow: Escrow, voice: Voice, view_url: ViewUrl) -> Iterator[Tale]:
    proof = escrow.proof
    if proof is None:
        return
    says = [voice.say(f"escrow_page.phase.{proof.phase}")]
    if proof.correction_rounds:
        count = voice.figure(str(proof.correction_rounds))
        says.append(voice.say("escrow_page.proof_rounds", count=count))
    yield Tale(says, heading=voice.say("escrow_page.proof"))
    for given in reversed(proof.submissions):
        at = voice.moment(instant(given.submitted_at))
        yield Tale(
            [voice.say("escrow_page.proof_sent", at=at)],
            quote=voice.lines(given.note) if given.note else None,
            files=_links(given.files, voice, view_url),
        )
        if given.correction:
            asked = voice.say("escrow_page.correction_asked")
            yield Tale([asked], quote=voice.lines(given.correction))


def _links(
    files: Sequence[StoredFile], voice: Voice, view_url: ViewUrl
) -> Sequence[tuple[Markup, str]]:
    return [(voice.typed(file.filename), view_url(file.key)) for file in files]
