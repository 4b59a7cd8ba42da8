"""What is kept no longer: answers past their time, secrets past their overlap, nobody's files.

And identity documents some time after the decision: their rows first, then what they held. What
webhooks carried and what was answered goes by weeks, whole partitions at once.
"""

from datetime import datetime

import structlog

from service.commands.deliveries import (
    PARKED_BATCH,
    drop_partitions,
    exhaust_parked,
    prepare_partitions,
)
from service.commands.perform import House, tend
from service.gateways.files import Storage
from service.rules.errors import Busy, GatewayFailure
from service.rules.files import ORPHAN_AFTER
from service.rules.identity import DOCUMENTS_KEPT
from service.store.clock import read_clock
from service.store.db import Transaction
from service.store.endpoints import delete_expired_secrets
from service.store.files import read_unnamed
from service.store.idempotency import delete_expired
from service.store.identity import delete_old_documents
from service.store.visits import delete_expired_visits

BATCH = 1000

log = structlog.get_logger()


async def tidy(house: House) -> None:
    """Delete expired secrets, sessions, codes, identity documents; expired answers by batches."""
    secrets = await tend(house, delete_expired_secrets)
    if secrets:
        log.info("secrets_expired", count=secrets)
    visits = await tend(house, delete_expired_visits)
    if visits:
        log.info("visits_expired", count=visits)
    documents = await tend(house, _delete_documents)
    if documents:
        log.info("identity_documents_expired", count=documents)
    gone = 0
    while True:
        deleted = await tend(house, _delete)
        gone += deleted
        if deleted < BATCH:
            break
    if gone:
        log.info("answers_expired", count=gone)


async def turn_partitions(house: House) -> None:
    """Make the weeks ahead, give up what was parked for too long, drop the weeks that are over.

    To make or drop one takes a moment without anybody else in the table: where that does not come,
    the next round tries again.
    """
    try:
        made = await tend(house, prepare_partitions)
        parked = 0
        while (ended := await tend(house, exhaust_parked)) >= PARKED_BATCH:
            parked += ended
        dropped = await tend(house, drop_partitions)
    except Busy as busy:
        log.warning("partitions_postponed", reason=str(busy))
        return
    if made or parked or ended or dropped:
        log.info("partitions_turned", made=made, parked=parked + ended, dropped=dropped)


async def _delete(tx: Transaction) -> int:
    return await delete_expired(tx, BATCH)


async def _delete_documents(tx: Transaction) -> int:
    return await delete_old_documents(tx, DOCUMENTS_KEPT)


async def remove_orphans(house: House, storage: Storage) -> None:
    """Delete the files that no row names and that have lain for a day: their form was refused.

    A row is written within minutes of its file, so that no step under way loses one. The store
    being away is logged; the next round looks again.
    """
    before = (await read_clock(house.pool)).real_now - ORPHAN_AFTER
    try:
        gone = await _remove_orphans(house, storage, before)
    except GatewayFailure as failure:
        log.warning("orphans_not_removed", reason=str(failure))
        return
    if gone:
        log.info("orphans_removed", count=gone)


async def _remove_orphans(house: House, storage: Storage, before: datetime) -> int:
    gone = await storage.sweep(before)
    async for page in storage.list():
        keys = await read_unnamed(house.pool, [file.key for file in page if file.since < before])
        await storage.delete(keys)
        gone += len(keys)
    return gone
