"""Contracts' documents: asked for in the step that made them necessary, kept once they are made."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from service.commands.files import record
from service.commands.perform import House, tend
from service.rules.aggregate import Escrow
from service.rules.contract import ContractFacts, Signed, facts_of, fingerprint
from service.rules.files import StoredFile
from service.store.db import Transaction
from service.store.papers import (
    DuePaper,
    ask_papers,
    claim_papers,
    drop_paper,
    lock_paper,
    settle_paper,
)
from service.store.parts import Signature, read_paper
from service.wire.base import instant

AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Order:
    """A document to be made: what it states, who has signed, its fingerprint.

    `images` are the signatures' data URIs, by role.
    """

    facts: ContractFacts
    terms: str
    signatures: Sequence[Signed]
    images: Mapping[str, str]
    fingerprint: str


async def ask(tx: Transaction, escrows: Sequence[Escrow]) -> None:
    """Have the contracts of these escrows printed as they now stand; most have none."""
    now = instant(tx.now)
    await ask_papers(
        tx,
        [
            facts_of(one, one.contract, now, instant(one.created_at))
            for one in escrows
            if one.contract
        ],
    )


async def ask_again(tx: Transaction, before: Escrow, after: Escrow) -> None:
    """As `ask`, where what is printed is another now than before."""
    if before.contract is None or after.contract is None:
        return
    was, now = facts_of(before, before.contract, "", ""), facts_of(after, after.contract, "", "")
    if was != now or before.contract.terms != after.contract.terms:
        await ask(tx, [after])


async def claim(house: House) -> list[DuePaper]:
    """What is to be made now; what nobody needs any more is dropped."""
    due = await tend(house, lambda tx: claim_papers(tx, AT_ONCE))
    for one in due:
        if not one.is_current:
            await tend(house, partial(drop_paper, facts=one.facts))
    return [one for one in due if one.is_current]


async def drawn_up(house: House, due: DuePaper) -> Order:
    """All that this document is made of, its images opened.

    Raises:
        cryptography.fernet.InvalidToken: the key that sealed an image is gone.
    """
    kept = await read_paper(house.pool, due.facts["contract"])
    given = kept.signatures if kept else {}
    roles = {"unsigned": (), "fully-signed": ("buyer", "seller")}.get(
        due.facts["signing"], (due.facts["signing"].removesuffix("-signed"),)
    )
    sealed = kept.images if kept else {}
    images = {role: house.vault.open(sealed[role].encode()) for role in roles if role in sealed}
    signatures = [_signed(given[role], images.get(role)) for role in roles if role in given]
    return Order(
        due.facts,
        due.terms,
        signatures,
        images,
        fingerprint(due.facts, due.terms, signatures),
    )


def _signed(given: Signature, image: str | None) -> Signed:
    return Signed(
        role=given.role,
        method=given.method,
        name=given.name,
        image_sha256=None if image is None else hashlib.sha256(image.encode()).hexdigest(),
        email=given.email,
        signed_at=instant(given.signed_at),
    )


async def keep(house: House, order: Order, file: StoredFile) -> bool:
    """The document was made and lies in the store; False where another is wanted by now."""

    async def command(tx: Transaction) -> bool:
        if not await lock_paper(tx, order.facts):
            return False
        await record(tx, [file], escrow_id=order.facts["escrow"])
        await settle_paper(tx, order.facts, file.key, order.fingerprint)
        return True

    return await tend(house, command)
