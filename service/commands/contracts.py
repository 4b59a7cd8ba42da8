"""Contracts: who signs, and how a signature is kept."""

from dataclasses import dataclass, replace
from datetime import datetime

from service.commands.perform import Command, House
from service.commands.steps import lock, record
from service.rules.aggregate import Escrow
from service.rules.errors import ContractNotFound
from service.rules.escrow import choose, roles, take
from service.rules.machine import Actor, Role
from service.store.db import Transaction
from service.store.parts import Signature, insert_signature, read_paper
from service.wire.contracts import ContractAnswer, ContractShape, GivenSignature
from service.wire.escrows import EscrowAnswer, detail

STORED, DRAWN, TYPED = "stored", "drawn", "typed"


@dataclass(frozen=True, slots=True)
class Mark:
    """What somebody signs with: a typed name, or an image (a data URI) that is drawn or stored."""

    method: str
    name: str | None = None
    image: str | None = None


def sign(escrow_id: str, mark: Mark) -> Command:
    """A party signs the contract as it stands."""

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("sign_contract", escrow, tx.actor)
        role = Role.SELLER if Role.SELLER in roles(tx.actor, escrow) else Role.BUYER
        taken = take(row, escrow, tx.actor, tx.now, changed=signed(escrow, role, tx.now))
        await record(tx, [taken])
        await keep_signature(tx, taken.after, role, mark, tx.actor)
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


async def keep_signature(
    tx: Transaction, escrow: Escrow, role: Role, mark: Mark, actor: Actor
) -> None:
    """How the party signed: with which mark, from where. An image is sealed already."""
    person = escrow.seller if role is Role.SELLER else escrow.buyer
    if escrow.contract is None or person is None:
        raise AssertionError(f"the contract of escrow {escrow.id} is signed by nobody")
    await insert_signature(
        tx,
        Signature(
            contract_id=escrow.contract.id,
            version=escrow.contract.version,
            role=role.value,
            user_id=person.id,
            email=person.email,
            method=mark.method,
            image=mark.image,
            name=mark.name,
            ip=actor.ip,
            signed_at=tx.now,
        ),
    )


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
            signature_image=house.vault.open(one.image.encode()) if one.image else None,
            signed_name=one.name,
        )
        for role, one in paper.signatures.items()
    }
    return ContractAnswer.model_construct(
        contract=ContractShape.model_construct(
            id=contract.id,
            escrow=escrow.id,
            terms=contract.terms,
            language=escrow.language,
            version=contract.version,
            pdf_url=None,
            seller_signature=given.get(Role.SELLER.value),
            buyer_signature=given.get(Role.BUYER.value),
            is_fully_signed=contract.is_fully_signed,
            pdf_versions=[],
            created_at=paper.created_at,
            updated_at=paper.updated_at,
        )
    )
