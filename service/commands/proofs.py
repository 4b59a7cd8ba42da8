"""The purchase proof of a quick escrow: shown by the seller, judged by the buyer or the operator.

The clock's steps (no proof in time, not looked at in time, no correction in time) are the same
rows; `commands/deadlines.py` takes them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from service.commands.files import record as record_files
from service.commands.files import view_url
from service.commands.perform import Command, House
from service.commands.steps import lock, record, reread, step
from service.rules.aggregate import Escrow, PurchaseProof, Submission
from service.rules.errors import Invalid, WrongParty
from service.rules.escrow import choose, roles, take
from service.rules.files import StoredFile
from service.rules.machine import Role
from service.store.clock import read_clock
from service.store.db import Transaction
from service.store.ids import entity_id
from service.wire.escrows import EscrowAnswer, detail
from service.wire.proofs import ProofAnswer, proof_answer


def submit(escrow_id: str, files: Sequence[StoredFile], note: str | None = None) -> Command:
    """The seller shows the purchase, for the first time or corrected; the buyer reviews it.

    The files are in the store already, and are recorded here.

    Raises:
        Invalid: there is no file.
        ProofWrongPhase: no proof is awaited now.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        if not files:
            raise Invalid({"files": "must not be empty"})
        escrow = await lock(tx, escrow_id)
        row = choose("submit_proof", escrow, tx.actor)
        standing = _standing(escrow)
        given = Submission(entity_id(tx.now), tx.now, tuple(files), note)
        shown = replace(standing, submissions=(*standing.submissions, given))
        taken = take(row, escrow, tx.actor, tx.now, changed=replace(escrow, proof=shown))
        await record_files(tx, files, escrow_id=escrow_id, uploaded_by=escrow.seller_id)
        await record(tx, [taken])
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


def accept(escrow_id: str) -> Command:
    """The buyer accepts the proof: the seller may deliver.

    Raises:
        ProofWrongPhase: there is nothing to review now.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        await step(tx, escrow_id, "accept_proof")
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


def request_correction(escrow_id: str, why: str) -> Command:
    """The buyer asks for a better proof, in words; one request too many and the operator decides.

    Raises:
        ProofWrongPhase: there is nothing to review now.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("request_correction", escrow, tx.actor)
        standing = _standing(escrow)
        if standing.correction_rounds >= tx.policy.proof_max_rounds:
            row = choose("escalate_proof", escrow, tx.actor)
        *earlier, last = standing.submissions
        asked = replace(standing, submissions=(*earlier, replace(last, correction=why)))
        taken = take(row, escrow, tx.actor, tx.now, changed=replace(escrow, proof=asked))
        await record(tx, [taken])
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


def decide(escrow_id: str, *, accepts: bool) -> Command:
    """The operator decides a proof that the parties could not agree on; rejected is refunded.

    Raises:
        ProofWrongPhase: it does not wait for the operator.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        if Role.OPERATOR not in roles(tx.actor, escrow):
            raise WrongParty(party=Role.OPERATOR, act="decide the purchase proof of")
        if accepts:
            row = choose("accept_proof", escrow, tx.actor)
        else:
            row = choose("reject_proof", escrow, tx.actor)
        await record(tx, [take(row, escrow, tx.actor, tx.now)])
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


async def read_proof(house: House, escrow: Escrow) -> ProofAnswer:
    """Where the proof stands, with addresses of its files that live for 15 minutes."""
    real_now = (await read_clock(house.pool)).real_now
    url = partial(view_url, house.policy.public_url, house.vault, real_now=real_now)
    return proof_answer(escrow, url)


def _standing(escrow: Escrow) -> PurchaseProof:
    if escrow.proof is None:
        raise AssertionError(f"escrow {escrow.id} is paid and has no purchase proof")
    return escrow.proof
