"""What the tests of commands ask of the house: refusals that change nothing, and what was told."""

from typing import Any

import orjson
import pytest

from service.commands.perform import Command, House
from service.rules.errors import Refused
from service.rules.machine import Actor
from service.store.deadlines import Deadline, read_open
from service.store.ledger import read_balance
from tests.books import count_rows
from tests.makers import act, reread


async def refused(
    house: House, kind: type[Refused], actor: Actor, command: Command, escrow_id: str
) -> Refused:
    """The refusal; nothing may have been written, and the escrow stands as before."""
    before = await count_rows(house), await reread(house, escrow_id)
    with pytest.raises(Refused) as refusal:
        await act(house, actor, command)
    assert type(refusal.value) is kind
    assert (await count_rows(house), await reread(house, escrow_id)) == before
    return refusal.value


async def bodies(house: House, subject_id: str) -> list[dict[str, Any]]:
    """The webhooks of the subject, parsed, in their order: `{id, type, timestamp, data}`."""
    rows = await house.pool.fetch(
        "SELECT b.body FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " WHERE v.subject_id = $1 ORDER BY v.seq",
        subject_id,
    )
    return [orjson.loads(row["body"]) for row in rows]


async def clocks(house: House, escrow_id: str) -> dict[str, Deadline]:
    """The open deadlines of the escrow, by kind."""
    return {one.kind: one for one in await read_open(house.pool, escrow_id)}


async def available(house: House, user_id: str) -> int:
    """What the user can spend, in millimes."""
    return (await read_balance(house.pool, user_id, "TND")).available
