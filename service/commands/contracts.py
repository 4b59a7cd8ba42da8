"""Contracts: who signs, and how a signature is kept."""

from dataclasses import dataclass, replace
from datetime import datetime

from service.commands.files import view_url
from service.commands.papers import ask
from service.commands.perform import Command, House
from service.commands.steps import lock, record
from service.rules.aggregate import Escrow
from service.rules.errors import ContractNotFound, TermsChanged
from service.rules.escrow import choose, roles, take
from service.rules.files import PDF
from service.rules.machine import Actor, Role
from service.store.clock import read_clock
from service.store.db import Transaction
from service.store.papers import read_papers
from service.store.parts import Signature, insert_image, insert_signatures, read_paper
from service.wire.contracts import ContractAnswer, ContractShape, GivenSignature, PdfVersion
from service.wire.escrows import EscrowAnswer, detail

STORED, DRAWN, TYPED = "stored", "drawn", "typed"


@dataclass(frozen=True, slots=True)
class Mark:
    """What somebody signs with: a typed name, or an image that is drawn or stored.

    `image` is a sealed data URI that is kept now, `image_id` one that is kept already.
    """

    method: str
    name: str | None = None
    image: str | None = None
    image_id: int | None = None


def sign(escrow_id: str, mark: Mark, version: int | None = None) -> Command:
    """A party signs the contract as it stands; `version` is the one that was read.

    A drawn image is sealed here.

    Raises:
        TermsChanged: it is another version by now.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("sign_contract", escrow, tx.actor)
        if escrow.contract is not None and version not in (None, escrow.contract.version):
            raise TermsChanged(version=escrow.contract.version)
        role = Role.SELLER if Role.SELLER in roles(tx.actor, escrow) else Role.BUYER
        taken = take(row, escrow, tx.actor, tx.now, changed=signed(escrow, role, tx.now))
        await record(tx, [taken])
        kept = replace(mark, image=tx.vault.seal(mark.image).decode()) if mark.image else mark
        await keep_signature(tx, taken.after, role, kept)
        await ask(tx, [taken.after])
        return detail(taken.after, tx.policy.ticket_prefix)

    return command


def signed(escrow: Escrow, role: Role, now: datetime) -> Escrow:
    """The escrow with this party's signature, given now."""
    if escrow.contract is None:
        raise AssertionError(f"escrow {escrow.id} has no contract to sign")
    if role is Role.SELLER:
        contract = replace(escrow.contract, seller_signed_at=now)
    else:
        contract = replace(escrow.contract, buyer_signed_at=now)
    return replace(escrow, contract=contract)


async def keep_signature(tx: Transaction, escrow: Escrow, role: Role, mark: Mark) -> None:
    """How the transaction's actor signed for this party. An image is sealed already."""
    if mark.image is not None:
        mark = replace(mark, image=None, image_id=await insert_image(tx, mark.image))
    await insert_signatures(tx, [signature(escrow, role, mark, tx.actor, tx.now)])


def signature(escrow: Escrow, role: Role, mark: Mark, actor: Actor, now: datetime) -> Signature:
    """How the party signed: with which mark, whose image is kept already, and from where."""
    person = escrow.seller if role is Role.SELLER else escrow.buyer
    if escrow.contract is None or person is None:
        raise AssertionError(f"the contract of escrow {escrow.id} is signed by nobody")
    return Signature(
        contract_id=escrow.contract.id,
        version=escrow.contract.version,
        role=role.value,
        user_id=person.id,
        email=person.email,
        method=mark.method,
        image_id=mark.image_id,
        name=mark.name,
        ip=actor.ip,
        signed_at=now,
    )


def _opened(house: House, sealed: str | None) -> str | None:
    return house.vault.open(sealed.encode()) if sealed else None


async def read_contract(house: House, escrow: Escrow) -> ContractAnswer:
    """The contract with its signatures, opened for those who may see the escrow.

    Raises:
        ContractNotFound: only a standard escrow has one.
    """
    contract = escrow.contract
    paper = await read_paper(house.pool, contract.id) if contract else None
    if contract is None or paper is None:
        raise ContractNotFound
    given = {
        role: GivenSignature.model_construct(
            signed_at=one.signed_at,
            signature_image=_opened(house, paper.images.get(role)),
            signed_name=one.name,
        )
        for role, one in paper.signatures.items()
    }
    versions = await _versions(house, contract.id)
    return ContractAnswer.model_construct(
        contract=ContractShape.model_construct(
            id=contract.id,
            escrow=escrow.id,
            terms=contract.terms,
            language=escrow.language,
            version=contract.version,
            pdf_url=versions[-1].url if versions else None,
            seller_signature=given.get(Role.SELLER.value),
            buyer_signature=given.get(Role.BUYER.value),
            is_fully_signed=contract.is_fully_signed,
            pdf_versions=versions,
            created_at=paper.created_at,
            updated_at=paper.updated_at,
        )
    )


async def _versions(house: House, contract_id: str) -> list[PdfVersion]:
    """The contract's documents, by links that live 15 minutes; the newest is the last."""
    made = await read_papers(house.pool, contract_id)
    if not made:
        return []
    now = (await read_clock(house.pool)).real_now
    return [
        PdfVersion.model_construct(
            type=one.signing,
            url=view_url(house.policy.public_url, house.vault, one.file_key, now),
            mime_type=PDF,
            created_at=one.created_at,
        )
        for one in made
    ]
