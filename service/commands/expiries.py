"""The mail that says that an escrow which nobody has paid is cancelled soon; once, to both."""

from datetime import timedelta

from service.commands.mails import SIDES, new_mail
from service.commands.perform import House, tend
from service.store.db import Transaction
from service.store.deadlines import lock_expiring
from service.store.escrows import read_escrow
from service.store.mails import insert_mails

TEMPLATE = "expiry_near"
WARNED_BEFORE = timedelta(days=3)
"""Business time; an escrow whose whole life is shorter than twice that is not warned of."""
BATCH = 100


async def warn(house: House) -> int:
    """Write the mails that are due; how many escrows were warned of."""
    warned = 0
    while True:
        count = await tend(house, _warn)
        warned += count
        if count < BATCH:
            return warned


async def _warn(tx: Transaction) -> int:
    expiring = await lock_expiring(tx, WARNED_BEFORE, BATCH)
    for escrow_id in expiring:
        escrow = await read_escrow(tx, escrow_id)
        if escrow is None:
            raise AssertionError(f"the locked escrow {escrow_id} is gone")
        mails = [
            new_mail(tx, TEMPLATE, escrow, role, f"{TEMPLATE}:{escrow.id}:{role}") for role in SIDES
        ]
        await insert_mails(tx, mails)
    return len(expiring)
