"""The demo developer of a sandbox, made once; `amana up` prints its key at every start."""

import orjson

from service.cli.var import Var, write_whole
from service.commands.developers import add_key, enrol
from service.commands.perform import House, perform, tend
from service.rules.machine import SYSTEM
from service.store.db import Transaction
from service.store.developers import read_developers
from service.store.keys import read_key
from service.store.vault import hash_token
from service.wire.sandbox import DeveloperAnswer

EMAIL = "demo@amana.example"
COMPANY = "Demo shop"
SELLER = "seller@amana.example"


async def seed(house: House, var: Var) -> str:
    """Return the demo developer's key: the kept one while the database knows it, else a new one."""
    kept = var.sandbox_key.read_text(encoding="utf-8").strip() if var.sandbox_key.exists() else ""
    found = await read_key(house.pool, hash_token(kept)) if kept else None
    if found is not None and found.is_active and not found.is_expired:
        return kept
    key = await make_key(house)
    write_whole(var.sandbox_key, f"{key}\n")
    return key


async def make_key(house: House) -> str:
    """Return a new key of the demo developer, who is made with a user of its own if missing."""
    made = [row["id"] for row in await read_developers(house.pool) if row["email"] == EMAIL]
    if made:
        return await tend(house, lambda tx: add_key(tx, made[0], "amana up"))
    answer = await perform(house, SYSTEM, _enrol)
    api_key: str = orjson.loads(answer.body)["apiKey"]
    return api_key


async def _enrol(tx: Transaction) -> DeveloperAnswer:
    made = await enrol(tx, EMAIL, COMPANY, user_email=SELLER)
    return DeveloperAnswer(
        developer_id=made.developer_id, api_key=made.api_key, user_id=made.user_id
    )
