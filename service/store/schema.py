"""The schema's life: applied whole to an empty database, by numbered steps to an older one.

Runs as the owner, outside of any request; the application's role gets the least it needs, and
its time-outs. The tables of steps are written here as the rows that events must refer to.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from service.rules.errors import Unavailable
from service.store.db import AWAY, SHUT

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "schema.sql"
MIGRATIONS = ROOT / "migrations"
CURRENT_VERSION = 6

LOCK = "SELECT pg_advisory_lock(hashtextextended('amana/migrate', 0))"
IS_EMPTY = "SELECT to_regclass('schema_version') IS NULL"
READ_VERSION = "SELECT max(version) FROM schema_version"
NOTE_VERSION = "INSERT INTO schema_version (version) VALUES ($1)"
WRITE_TRANSITIONS = """
INSERT INTO transition (family, mode, step, from_state, to_state)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT DO NOTHING
"""
# A row that the rules no longer have goes, unless history refers to it.
DROP_TRANSITIONS = """
DELETE FROM transition t
WHERE (t.family, t.mode, t.step, t.from_state, t.to_state) NOT IN (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]))
  AND NOT EXISTS (SELECT FROM event e WHERE (e.family, e.mode, e.step, e.from_state, e.to_state)
                  = (t.family, t.mode, t.step, t.from_state, t.to_state))
"""
# The cluster: its own number, and its log's timeline, which a restore to a point in time forks.
# Cursors were given out beyond the newest event that was saved; a leap leaves them all behind.
# A physical copy that is put back has both unchanged: that it was, somebody must say.
READ_ORDER = """
WITH here AS (
    SELECT c.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS cluster,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next,
           coalesce((SELECT max(v.xid)::text::bigint FROM event v), 0) AS newest
    FROM pg_control_system() AS c
)
SELECT here.cluster, greatest(here.newest - here.next, o.ahead) AS ahead,
       o.cluster <> here.cluster OR here.newest >= here.next + o.ahead AS was_left,
       (1000 * extract(epoch FROM clock_timestamp()))::bigint AS at_ms
FROM commit_order o, here
"""
# Whoever has written an event with the old `ahead` has committed then, and whoever writes one later
# reads the new one: nothing appears below a horizon that was told after the leap.
HOLD_EVENTS = "LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE"
WRITE_ORDER = "UPDATE commit_order SET cluster = $1, ahead = $2"
MOST_A_MS = 1 << 20
"""A leap goes to the milliseconds of the clock times this: no cluster gives out so many numbers, so
all that were given out before lie behind, also after another restore of the same dump."""
EPOCH = 1 << 40
"""What is leapt where the clock was set back, to before an earlier leap."""
TRIES = 20
"""A migration takes whole tables beside processes that take rows in orders of their own."""
PAUSE_SECONDS = 3.0
"""Between two tries: what has queued behind the last one goes on."""
# After the advisory lock, for which it does wait. A long reader (a dump) holds the tables' locks,
# and whatever comes after a statement that waits for it waits as well.
WAIT_BRIEFLY = "SET lock_timeout = '2s'"
IN_THE_WAY = (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
QUOTE = "SELECT quote_ident($1)"
QUOTE_DATABASE = "SELECT quote_ident(current_database())"

# A role belongs to the whole cluster: another database of it may be migrated at the same time.
MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

# {role} is quoted by the database; everything that is not here is refused to the application.
GRANTS = """
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role};
GRANT INSERT ON event, transfer, escrow, contract, deadline, account, idempotency, fx_rate,
    app_user, developer, operator, api_key, invitation, mail, invariant_result, event_seal,
    webhook_body, webhook_endpoint, endpoint_secret, lane, delivery, webhook_attempt,
    identity_verification, contract_signature, delivery_rejection, cancellation_request, dispute,
    purchase_proof, checkout_session, visit, sign_in_code, payment, sandbox_charge,
    sandbox_refund, file, paper, proof_submission, proof_attachment, dispute_statement,
    dispute_evidence, dispute_offer, signature_image, identity_document, recovery,
    milestone_escrow, escrow_role, milestone, milestone_funding TO {role};
GRANT UPDATE ON escrow, contract, deadline, account, idempotency, app_user, developer, operator,
    api_key, invitation, mail, invariant_result, clock, webhook_endpoint, endpoint_secret, lane,
    delivery, identity_verification, cancellation_request, dispute, purchase_proof,
    checkout_session, visit, sign_in_code, milestone_escrow, escrow_role, milestone,
    milestone_funding TO {role};
GRANT UPDATE (facts, fingerprint, file_key, tries, due_at, created_at) ON paper TO {role};
GRANT UPDATE (last_number) ON dispute_counter TO {role};
GRANT UPDATE (fanned_at) ON event TO {role};
GRANT UPDATE (correction) ON proof_submission TO {role};
GRANT UPDATE (outcome) ON dispute_offer TO {role};
GRANT UPDATE (state, is_missing, after_event, count, recovered, due_at, finished_at)
    ON recovery TO {role};
GRANT UPDATE (state, received_minor, received_currency, charge_reference, provider_reference,
    page_url, proof_file, note, seq, expires_at, asked_at, ask_at, decided_by, settled_at)
    ON payment TO {role};
GRANT UPDATE (paid, pressed_at, told, is_told) ON sandbox_charge TO {role};
GRANT DELETE ON paper, idempotency, endpoint_secret, visit, sign_in_code, identity_document, file,
    escrow_role, milestone TO {role};
ALTER ROLE {role} IN DATABASE {database} SET statement_timeout = '30s';
ALTER ROLE {role} IN DATABASE {database} SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE {role} IN DATABASE {database} SET lock_timeout = '3s';
"""

Transition = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Migrated:
    """From which version to which; 0 is an empty database. `same_role`: nothing was separated."""

    before: int
    after: int
    same_role: bool


async def migrate(
    admin_url: str,
    application_role: str,
    transitions: Iterable[Transition],
    *,
    is_restored: bool = False,
) -> Migrated:
    """Bring the database to the current version; safe to run twice, and by two at once.

    `is_restored`: an older state of this very cluster was put back, which cannot be seen from
    within; the numbers of new events leap beyond all that may have been given out.

    Raises:
        Unavailable: the database is away, or somebody else holds its tables for minutes.
    """
    try:
        connection = await asyncpg.connect(admin_url)
    except (*AWAY, *SHUT) as away:
        raise Unavailable(f"{type(away).__name__}: {away}") from away
    rows = list(transitions)
    try:
        await connection.execute(LOCK)
        await connection.execute(WAIT_BRIEFLY)
        for _ in range(TRIES - 1):
            with contextlib.suppress(*IN_THE_WAY):
                return await _migrate(connection, application_role, rows, is_restored)
            await asyncio.sleep(PAUSE_SECONDS)
        return await _migrate(connection, application_role, rows, is_restored)
    except IN_THE_WAY as busy:
        raise Unavailable(f"its tables stay in use, by a dump perhaps: {busy}") from busy
    finally:
        await connection.close()


async def _migrate(
    connection: Any,
    application_role: str,
    transitions: list[Transition],
    is_restored: bool,  # noqa: FBT001 - passed through
) -> Migrated:
    async with connection.transaction():
        done = await _bring_up(connection, application_role, transitions)
        await _keep_order(connection, is_restored=is_restored)
        return done


async def _bring_up(
    connection: Any, application_role: str, transitions: list[Transition]
) -> Migrated:
    before = 0
    if await connection.fetchval(IS_EMPTY):
        await connection.execute(SCHEMA.read_text())
        await connection.execute(NOTE_VERSION, CURRENT_VERSION)
    else:
        before = await connection.fetchval(READ_VERSION)
        for version in range(before + 1, CURRENT_VERSION + 1):
            script = next(MIGRATIONS.glob(f"{version:04d}_*.sql"))
            await connection.execute(script.read_text())
            await connection.execute(NOTE_VERSION, version)
    columns = [list(column) for column in zip(*transitions, strict=True)]
    await connection.execute(WRITE_TRANSITIONS, *columns)
    await connection.execute(DROP_TRANSITIONS, *columns)
    owner = await connection.fetchval("SELECT current_user")
    if application_role != owner:
        await _grant(connection, application_role)
    return Migrated(before, CURRENT_VERSION, application_role == owner)


async def _keep_order(connection: Any, *, is_restored: bool) -> None:
    order = await connection.fetchrow(READ_ORDER)
    if is_restored or order["was_left"]:
        await connection.execute(HOLD_EVENTS)
        order = await connection.fetchrow(READ_ORDER)
        by_clock, ahead = order["at_ms"] * MOST_A_MS, order["ahead"]
        leapt = by_clock if by_clock > ahead else ahead + EPOCH
        await connection.execute(WRITE_ORDER, order["cluster"], leapt)
    else:
        await connection.execute(WRITE_ORDER, order["cluster"], order["ahead"])


async def _grant(connection: Any, application_role: str) -> None:
    role = await connection.fetchval(QUOTE, application_role)
    database = await connection.fetchval(QUOTE_DATABASE)
    await connection.execute(MAKE_ROLE.format(role=role))
    await connection.execute(GRANTS.format(role=role, database=database))


async def read_version(pool: Any) -> int | None:
    """The version that the database is at; None where it was never migrated."""
    if await pool.fetchval(IS_EMPTY):
        return None
    version: int | None = await pool.fetchval(READ_VERSION)
    return version
