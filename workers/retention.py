"""What is kept no longer: stored answers past their time, secrets past their overlap."""

import structlog

from service.commands.perform import House, tend
from service.store.db import Transaction
from service.store.endpoints import delete_expired_secrets
from service.store.idempotency import delete_expired

BATCH = 1000

log = structlog.get_logger()


async def tidy(house: House) -> None:
    """Delete expired secrets, and expired answers, batch by batch."""
    secrets = await tend(house, delete_expired_secrets)
    if secrets:
        log.info("secrets_expired", count=secrets)
    gone = 0
    while True:
        deleted = await tend(house, _delete)
        gone += deleted
        if deleted < BATCH:
            break
    if gone:
        log.info("answers_expired", count=gone)


async def _delete(tx: Transaction) -> int:
    return await delete_expired(tx, BATCH)
