"""Recoveries: what endpoints have missed, put on its way again chunk by chunk.

Law: found by looking at the rows; a lost bell costs a second, a lost Redis nothing.
"""

import structlog

from service.commands.perform import House, tend
from service.commands.recoveries import run_chunk

EVERY_SECONDS = 1.0
CHUNKS_A_TURN = 200
"""Then a turn ends and is counted; what is left is met in the next one."""

log = structlog.get_logger()


async def turn(house: House) -> None:
    """Chunks, one transaction each, until nothing is left to recover; recoveries take turns."""
    chunks = 0
    while chunks < CHUNKS_A_TURN and await tend(house, run_chunk):
        chunks += 1
    if chunks:
        log.info("recoveries_went_on", chunks=chunks)
