"""What stands against a step's body before anybody takes the step: the step's own rules, tried.

Moves nothing. Law: the rules decide, in their order; a payer's wallet is not looked at, since it
may be filled until the step is taken.
"""

from service.commands.milestones import disputed, released, resolved, shares_of
from service.rules import milestone_progress, milestone_resolution
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import OnlyOwnWallet
from service.rules.machine import Actor
from service.store.db import Transaction
from service.wire.base import OwnBody
from service.wire.milestones import (
    ApproveBatch,
    DisputeGiven,
    Fund,
    Release,
    Resolve,
    StatusBatch,
    Withdraw,
    changes_of,
    minor_of,
)


async def check_input(
    tx: Transaction, escrow: MilestoneEscrow, given: OwnBody, actor: Actor, email: str
) -> None:
    """Whether the actor, whose e-mail this is, could take the step with this body now.

    Raises:
        InvalidPayload: a field that this escrow's release mode, or its currency, does not take.
        OfMilestones: the first of the step's checks that fails.
    """
    match given:
        case Fund():
            amount = minor_of(given.amount, escrow.currency, "amount")
            milestone_progress.check_fund(escrow, amount, given.expected_version)
            if given.payer not in (None, email):
                raise OnlyOwnWallet
        case StatusBatch():
            milestone_progress.change_status(escrow, changes_of(given.updates), actor, tx.now)
        case ApproveBatch():
            milestone_progress.approve(escrow, given.indexes, actor, tx.now)
        case Release():
            released(escrow, given.milestone_indexes, actor, tx.now)
        case DisputeGiven():
            disputed(escrow, given.reason, given.milestone_indexes, actor, tx.now)
        case Resolve():
            await resolved(tx, escrow, given.distributions, given.milestone_index, actor)
        case Withdraw():
            shares = await shares_of(tx, escrow, given.distributions)
            milestone_resolution.withdraw_remaining(escrow, shares, actor, tx.now)
        case _:
            raise AssertionError(f"no session brings a {type(given).__name__}")
