"""`GET /dashboard/escrow/{id}/contract`: what was agreed and who has signed; read and printed."""

from collections.abc import Iterator

from aiohttp import web
from markupsafe import Markup

from service.commands.files import view_url
from service.ingress.call import Call
from service.ingress.pages.escrow import Look, approach
from service.ingress.pages.page import show
from service.ingress.pages.standing import choices, people
from service.rules.errors import ContractNotFound
from service.store.papers import read_papers
from service.store.parts import Paper, Signature, read_paper
from service.wire.base import instant

SIDES = ("seller", "buyer")


async def read(call: Call[None, None]) -> web.Response:
    """The contract as it stands now, and its newest document once that is made.

    Raises:
        EscrowNotFound, ContractNotFound: only a standard escrow of one's own has one to be seen.
    """
    look = await approach(call)
    if isinstance(look, web.Response):
        return look
    contract = look.escrow.contract
    paper = await read_paper(call.house.pool, contract.id) if contract else None
    if contract is None or paper is None:
        raise ContractNotFound
    voice, values = look.voice, look.voice.values(look.facts)
    made = await read_papers(call.house.pool, contract.id)
    document = made[-1] if made else None
    at = voice.moment(instant(paper.updated_at))
    may_sign = any(
        one.step == "sign_contract" and one.obstacle is None
        for one in choices(look.escrow, look.role, voice)
    )
    shown = show(
        call.request,
        "contract",
        voice,
        person=look.email,
        tab=voice.say("contract_page.title"),
        speech=look.speech,
        amount=values["amount"],
        title=voice.say("contract_page.of", title=values["title"]),
        people=people(look.escrow, look.role, voice, look.facts),
        version=voice.say(
            "contract_page.version", version=voice.figure(str(contract.version)), at=at
        ),
        terms=voice.lines(contract.terms),
        signatures=list(_signatures(look, paper)),
        fingerprint=document.fingerprint if document else None,
        sign_url=look.speech.carry(f"{look.path}/sign_contract") if may_sign else None,
        pdf_url=view_url("", call.house.vault, document.file_key, look.clock.real_now)
        if document
        else None,
        back=look.speech.carry(look.path),
    )
    return look.visitor.keep(shown)


def _signatures(look: Look, paper: Paper) -> Iterator[tuple[Markup, Markup | None]]:
    """A line for each side, and how it has signed."""
    voice = look.voice
    for side in SIDES:
        given = paper.signatures.get(side)
        if given is None:
            yield voice.say(f"contract_page.{side}_unsigned"), None
            continue
        name = look.facts["seller"] if side == "seller" else look.facts["buyer"]
        at = voice.moment(instant(given.signed_at))
        yield voice.say(f"contract_page.{side}_signed", name=name, at=at), _mark(look, given)


def _mark(look: Look, given: Signature) -> Markup:
    return look.voice.say(f"contract_page.{given.method}", name=given.name or "")
