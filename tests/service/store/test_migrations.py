"""An older database comes to the same schema as a new one, with its rows in their places.

The rows of version 1 are written by hand: no command of this version can make them. What was
granted then stands here too, so that nothing is left of it that a new database would not have.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.cli.embedded import Urls
from service.health import NotReady, require_schema
from service.rules import escrow, identity, proof
from service.rules.aggregate import Contract, PurchaseProof
from service.rules.clocks import running
from service.rules.errors import Unavailable
from service.settings import Settings
from service.store import schema
from service.store.db import Pool, open_pool
from service.store.deadlines import read_open
from service.store.escrows import read_escrow
from service.store.schema import CURRENT_VERSION, MIGRATIONS, Migrated, migrate
from tests.conftest import as_owner

TRANSITIONS = [
    *escrow.TABLE.transitions(),
    *proof.TABLE.transitions(),
    *identity.TABLE.transitions(),
]
GRANTED_AT_1 = """
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role};
GRANT INSERT ON event, transfer, escrow, contract, deadline, account, idempotency, fx_rate,
    app_user, developer, operator, api_key, invitation, mail, invariant_result, event_seal,
    webhook_body, webhook_endpoint, endpoint_secret, lane, delivery, webhook_attempt TO {role};
GRANT UPDATE ON escrow, contract, deadline, account, idempotency, app_user, developer, operator,
    api_key, invitation, mail, invariant_result, clock, webhook_endpoint, endpoint_secret, lane,
    delivery TO {role};
GRANT UPDATE (fanned_at) ON event TO {role};
GRANT DELETE ON idempotency, endpoint_secret TO {role};
"""
CREATED = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
PAID = CREATED + timedelta(hours=5)
SELLER, BUYER, SHOP = "a" * 24, "b" * 24, "c" * 24
WAITING, EXPIRED, UNPAID, STANDARD = "1" * 24, "2" * 24, "3" * 24, "4" * 24
CONTRACT = "5" * 24
PEOPLE = f"""
INSERT INTO app_user (id, email, first_name, last_name, email_verified_at, created_at) VALUES
    ('{SELLER}', 'seller@example.com', 'Sana', 'Seller', now(), now()),
    ('{BUYER}', 'buyer@example.com', 'Bilel', 'Buyer', now(), now());
INSERT INTO developer (id, email, company, user_id, created_at)
VALUES ('{SHOP}', 'shop@example.com', 'Shop', '{SELLER}', now());
INSERT INTO account (kind, owner, currency, balance_minor) VALUES
    ('outside', 'sandbox', 'TND', NULL), ('available', '{BUYER}', 'TND', 900000),
    ('held', '{WAITING}', 'TND', 100000);
"""
# Funded escrows hold 100 TND; what was cancelled after payment was given back.
OPEN_ESCROW = """
INSERT INTO escrow (id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id,
    buyer_email, title, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
    escrow_fee_minor, estimated_delivery_days, fulfillment_policy, funded_minor, held_minor,
    refunded_minor, cancel_reason, expires_at, paid_at, cancelled_at, created_at, updated_at)
SELECT $1, $2, $3, 1, $4, $5, 'seller@example.com', $6, 'buyer@example.com', 'A camera', 'TND',
    'TND', 100000, 1, 100000, 5000, 3, $7::jsonb,
    CASE WHEN $8::timestamptz IS NOT NULL THEN 100000 ELSE 0 END,
    CASE WHEN $3 = 'paid' THEN 100000 ELSE 0 END,
    CASE WHEN $3 = 'cancelled' THEN 100000 ELSE 0 END,
    CASE WHEN $3 = 'cancelled' THEN 'proof_expired' END,
    $9::timestamptz + interval '1 month', $8, CASE WHEN $3 = 'cancelled' THEN $8 END, $9, $9
"""
OPEN_CONTRACT = """
INSERT INTO contract (id, escrow_id, terms, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
"""
TELL = """
INSERT INTO event (subject_id, seq, subject_kind, id, type, family, mode, step, from_state,
    to_state, actor_kind, at)
VALUES ($1, 1, 'escrow', $2, 'escrow.created', 'escrow', $3, 'create', '-', 'pending',
    'developer', $4)
"""
PAY = """
INSERT INTO transfer (from_account, to_account, currency, amount_minor, reason, escrow_id,
    subject_id, seq, at)
SELECT b.id, h.id, 'TND', 100000, 'hold', h.owner, h.owner, 1, $1
FROM account b, account h WHERE b.kind = 'available' AND h.kind = 'held'
"""
ARM = """
INSERT INTO deadline (escrow_id, kind, due_at, armed_version) VALUES ($1, $2, $3, 1)
"""
HOURS = (
    '{"type": "purchase_proof_required", "proofUploadDeadlineHours": 48,'
    ' "buyerReviewDeadlineHours": 24}'
)


@dataclass(frozen=True)
class Database:
    """An own database of the cluster, and an application's role of its own."""

    name: str
    owner_url: str
    application_url: str
    role: str

    async def migrate(self) -> Migrated:
        return await migrate(self.owner_url, self.role, TRANSITIONS)

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.owner_url)

    async def pool(self) -> Pool:
        return await open_pool(self.application_url, size=2)


@asynccontextmanager
async def databases(urls: Urls, settings: Settings, *names: str) -> AsyncIterator[list[Database]]:
    """Empty databases, dropped at the end; the application's role is that of the tests."""
    role = urlsplit(settings.database_url or "").username or ""
    for name in names:
        await as_owner(urls, f"CREATE DATABASE {name}")
    yield [Database(name, urls.owner(name), urls.application(name), role) for name in names]
    for name in names:
        await as_owner(urls, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture(loop_scope="session")
async def empty(urls: Urls, worker_id: str, migrated: Settings) -> AsyncIterator[Database]:
    """A database for one test."""
    async with databases(urls, migrated, f"script_{worker_id}") as [one]:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(urls: Urls, worker_id: str, migrated: Settings) -> AsyncIterator[list[Database]]:
    """The database that has come from version 1, and one that is new; only looked at."""
    async with databases(urls, migrated, f"older_{worker_id}", f"newer_{worker_id}") as two:
        older, newer = two
        await make_version_1(older)
        assert await older.migrate() == Migrated(1, CURRENT_VERSION, same_role=False)
        assert await newer.migrate() == Migrated(0, CURRENT_VERSION, same_role=False)
        yield two


async def make_version_1(database: Database) -> None:
    """As the release of version 1 has left it, in use."""
    connection = await database.connect()
    await connection.execute((MIGRATIONS / "0001_ground.sql").read_text())
    await connection.execute("INSERT INTO schema_version (version) VALUES (1)")
    await connection.execute(
        GRANTED_AT_1.format(database=f'"{database.name}"', role=f'"{database.role}"')
    )
    of_then = [row for row in TRANSITIONS if row[0] != "identity"]
    await connection.executemany("INSERT INTO transition VALUES ($1, $2, $3, $4, $5)", of_then)
    async with connection.transaction():
        await connection.execute(PEOPLE)
        for escrow_id, mode, status, paid_at in (
            (WAITING, "quick_proof", "paid", PAID),
            (EXPIRED, "quick_proof", "cancelled", PAID),
            (UNPAID, "quick_proof", "pending", None),
            (STANDARD, "standard", "pending", None),
        ):
            policy = HOURS if mode == "quick_proof" else None
            given = (escrow_id, mode, status, SHOP, SELLER, BUYER, policy, paid_at, CREATED)
            await connection.execute(OPEN_ESCROW, *given)
            await connection.execute(TELL, escrow_id, uuid4(), mode, CREATED)
        await connection.execute(OPEN_CONTRACT, CONTRACT, STANDARD, "As described.", CREATED)
        await connection.execute(PAY, PAID)
        await connection.execute(ARM, WAITING, "proof_upload", PAID + timedelta(hours=48))
        await connection.execute(ARM, WAITING, "delivery_overdue", PAID + timedelta(days=3))
        for unpaid in (UNPAID, STANDARD):
            await connection.execute(ARM, unpaid, "expiry", CREATED + timedelta(days=31))
    await connection.close()


# 1. The schema -----------------------------------------------------------------------------------

HERE = "n.nspname = 'public'"
# What the catalogues say of a schema; columns may stand in another order, all else is compared.
# The weekly partitions are named after today, alike in both.
CATALOGUES = {
    "relations": f"""
        SELECT c.relname, c.relkind, c.relpersistence, c.relispartition, c.reloptions,
               pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), c.relrowsecurity,
               c.relreplident, pg_get_userbyid(c.relowner)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {HERE}""",
    "columns": f"""
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), l.collname,
               a.attstorage, a.attcompression, a.attoptions
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE {HERE} AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraints": f"""
        SELECT coalesce(c.relname, t.typname), o.conname, o.contype, o.condeferrable,
               o.condeferred, o.convalidated, pg_get_constraintdef(o.oid)
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
        LEFT JOIN pg_class c ON c.oid = o.conrelid LEFT JOIN pg_type t ON t.oid = o.contypid
        WHERE {HERE}""",
    "indexes": f"""
        SELECT c.relname, pg_get_indexdef(c.oid), i.indisunique, i.indisvalid, c.reloptions
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {HERE}""",
    "functions": f"""
        SELECT p.proname, pg_get_functiondef(p.oid), p.proconfig, pg_get_userbyid(p.proowner)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {HERE}""",
    "views": f"""
        SELECT c.relname, pg_get_viewdef(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {HERE} AND c.relkind IN ('v', 'm')""",
    "triggers": f"""
        SELECT c.relname, g.tgname, pg_get_triggerdef(g.oid), g.tgenabled
        FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {HERE} AND NOT g.tgisinternal""",
    "types": f"""
        SELECT t.typname, t.typtype, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
               t.typdefault, l.collname
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        LEFT JOIN pg_collation l ON l.oid = t.typcollation WHERE {HERE}""",
    "sequences": f"""
        SELECT c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmax,
               s.seqmin, s.seqcache, s.seqcycle, d.refobjid::regclass::text
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        WHERE {HERE}""",
    "grants": f"""
        SELECT what, name, pg_get_userbyid(grantor),
               coalesce(nullif(grantee, 0)::regrole::text, '-'), privilege_type, is_grantable
        FROM (
            SELECT 'relation' AS what, c.relname AS name,
                   coalesce(c.relacl, acldefault(
                       CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {HERE}
            UNION ALL
            SELECT 'column', c.relname || '.' || a.attname, a.attacl
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {HERE} AND a.attacl IS NOT NULL
            UNION ALL
            SELECT 'function', p.oid::regprocedure::text,
                   coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {HERE}
            UNION ALL
            SELECT 'type', t.typname, coalesce(t.typacl, acldefault('T', t.typowner))
            FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {HERE}
            UNION ALL
            SELECT 'schema', n.nspname, n.nspacl FROM pg_namespace n WHERE {HERE}
            UNION ALL
            SELECT 'database', '', datacl FROM pg_database WHERE datname = current_database()
        ) AS held, LATERAL aclexplode(held.acl)""",
    "settings": """
        SELECT s.setrole::regrole::text, s.setconfig FROM pg_db_role_setting s
        JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()""",
    "schemas and extensions": """
        SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'
        UNION ALL SELECT extname FROM pg_extension""",
    "fixed rows": """
        SELECT 'currency', code, exponent::text, '', '', '' FROM currency
        UNION ALL SELECT 'transition', family, mode, step, from_state, to_state FROM transition
        UNION ALL SELECT 'clock', id::text, shift::text, '', '', '' FROM clock
        UNION ALL SELECT 'order', id::text, ahead::text, cluster, '', '' FROM commit_order""",
}


async def catalogue(database: Database, query: str) -> list[tuple[Any, ...]]:
    connection = await database.connect()
    try:
        return sorted((tuple(row) for row in await connection.fetch(query)), key=repr)
    finally:
        await connection.close()


async def test_a_database_of_version_1_comes_to_the_schema_of_a_new_one(
    both: list[Database],
):
    for what, query in CATALOGUES.items():
        older, newer = await asyncio.gather(*(catalogue(one, query) for one in both))
        assert [row for row in older if row not in newer] == [], f"{what}: only in the older"
        assert [row for row in newer if row not in older] == [], f"{what}: only in the newer"
        assert older == newer, what
        assert newer, what


DIFFERENCES = [
    ("relations", "ALTER TABLE identity_verification RESET (fillfactor)"),
    ("columns", "ALTER TABLE purchase_proof ALTER correction_rounds DROP DEFAULT"),
    ("columns", "ALTER TABLE dispute ALTER reason DROP NOT NULL"),
    ("constraints", "ALTER TABLE contract DROP CONSTRAINT contract_version_check"),
    ("indexes", "DROP INDEX dispute_open"),
    ("functions", "ALTER FUNCTION business_now() VOLATILE"),
    ("views", "ALTER VIEW escrow_reading RENAME COLUMN rejections TO rejected"),
    ("triggers", "DROP TRIGGER transfer_no_truncate ON transfer"),
    ("types", "ALTER DOMAIN entity_id SET NOT NULL"),
    ("sequences", "ALTER SEQUENCE event_position_seq CACHE 7"),
    ("grants", 'REVOKE UPDATE ON dispute FROM "{role}"'),
    ("settings", 'ALTER ROLE "{role}" IN DATABASE {name} RESET lock_timeout'),
    ("schemas and extensions", "CREATE SCHEMA mine"),
    ("fixed rows", "DELETE FROM transition WHERE step = 'update'"),
]


async def test_the_comparison_would_show_a_difference(empty: Database):
    assert {what for what, _ in DIFFERENCES} == set(CATALOGUES)
    await empty.migrate()
    connection = await empty.connect()
    for what, statement in DIFFERENCES:
        before = await catalogue(empty, CATALOGUES[what])
        await connection.execute(statement.format(role=empty.role, name=empty.name))
        assert await catalogue(empty, CATALOGUES[what]) != before, statement
    await connection.close()


# 2. The rows -------------------------------------------------------------------------------------


async def test_what_was_paid_for_a_proof_has_the_phase_that_its_state_says(
    both: list[Database],
):
    pool = await both[0].pool()
    found = {one: await read_escrow(pool, one) for one in (WAITING, EXPIRED, UNPAID)}
    due = PAID + timedelta(hours=48)
    assert {one.id: one.proof for one in found.values() if one} == {
        WAITING: PurchaseProof(proof.WAITING, due),
        EXPIRED: PurchaseProof(proof.EXPIRED, due),
        UNPAID: None,
    }
    await pool.close()


async def test_the_open_clocks_are_those_that_the_rules_have_for_the_escrow(
    both: list[Database],
):
    pool = await both[0].pool()
    for escrow_id in (WAITING, UNPAID, STANDARD):
        one = await read_escrow(pool, escrow_id)
        assert one is not None
        assert {timer.kind for timer in await read_open(pool, escrow_id)} == set(running(one))
    [upload] = [one for one in await read_open(pool, WAITING) if one.kind == "proof_upload"]
    assert upload.due_at == PAID + timedelta(hours=48)
    await pool.close()


async def test_a_contract_is_at_its_first_version_and_unsigned(both: list[Database]):
    pool = await both[0].pool()
    one = await read_escrow(pool, STANDARD)
    assert one is not None
    assert one.contract == Contract(CONTRACT, "As described.", 1)
    assert (one.rejections, one.cancellation, one.dispute) == ((), None, None)
    await pool.close()


# 3. Who may start --------------------------------------------------------------------------------


async def test_this_version_refuses_a_database_of_version_1_until_it_is_migrated(
    empty: Database,
):
    await make_version_1(empty)
    pool = await empty.pool()
    said = rf"^the schema is at version 1 and {CURRENT_VERSION} is needed; run `amana migrate`$"
    with pytest.raises(NotReady, match=said):
        await require_schema(pool)
    await empty.migrate()
    await require_schema(pool)
    await pool.close()


def test_what_a_release_has_applied_is_never_written_anew():
    """Version 1 as it went out; a change of it belongs into a new script."""
    ground = (MIGRATIONS / "0001_ground.sql").read_bytes()
    digest = hashlib.sha256(ground).hexdigest()
    assert digest == "2979f0a149f96008baa3eeea6c9d7a5107c82caa5fbf310b5f907821d4eebf03"


async def test_a_migration_that_was_made_is_not_made_again(both: list[Database]):
    older = both[0]
    assert await older.migrate() == Migrated(CURRENT_VERSION, CURRENT_VERSION, same_role=False)
    connection = await older.connect()
    versions = await connection.fetch("SELECT version FROM schema_version ORDER BY version")
    assert [row["version"] for row in versions] == list(range(1, CURRENT_VERSION + 1))
    await connection.close()


async def make_version_3(database: Database) -> None:
    """Version 1 brought to version 3, without its roles."""
    await make_version_1(database)
    connection = await database.connect()
    for version in (2, 3):
        script = next(MIGRATIONS.glob(f"{version:04d}_*.sql"))
        await connection.execute(script.read_text())
        await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", version)
    await connection.close()


async def test_a_migration_lets_traffic_by_while_a_dump_is_in_its_way(
    empty: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schema, "TRIES", 2)
    monkeypatch.setattr(schema, "PAUSE_SECONDS", 0.5)
    await make_version_3(empty)
    dump, worker = await empty.connect(), await empty.connect()
    look = "SELECT count(*) FROM delivery"
    async with dump.transaction():
        await dump.execute("LOCK TABLE delivery IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(empty.migrate())
        waits = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
        async with asyncio.timeout(10):
            while not await worker.fetchval(waits):  # noqa: ASYNC110 - the server
                await asyncio.sleep(0.01)
        async with asyncio.timeout(3):
            assert await worker.fetchval(look) == 0
        with pytest.raises(Unavailable, match="its tables stay in use"):
            await migrating
        assert await worker.fetchval("SELECT max(version) FROM schema_version") == 3
        migrating = asyncio.create_task(empty.migrate())
        await asyncio.sleep(0.2)
    assert await migrating == Migrated(3, CURRENT_VERSION, same_role=False)
    await dump.close()
    await worker.close()


async def test_a_migration_that_stood_in_a_deadlock_is_made_once_more(
    empty: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schema, "PAUSE_SECONDS", 0.1)
    await make_version_3(empty)
    worker = await empty.connect()
    async with worker.transaction():
        await worker.execute("LOCK TABLE lane IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(empty.migrate())
        waits = "SELECT count(*) FROM pg_locks WHERE relation = 'lane'::regclass AND NOT granted"
        async with asyncio.timeout(10):
            while not await worker.fetchval(waits):  # noqa: ASYNC110 - the server
                await asyncio.sleep(0.01)
        await worker.execute("LOCK TABLE delivery IN ROW EXCLUSIVE MODE")  # the other way round
    assert await migrating == Migrated(3, CURRENT_VERSION, same_role=False)
    await worker.close()


async def test_the_images_of_signatures_come_along_each_once(empty: Database):
    await make_version_1(empty)
    connection = await empty.connect()
    await connection.execute((MIGRATIONS / "0002_direct_api.sql").read_text())
    await connection.execute("INSERT INTO schema_version (version) VALUES (2)")
    await connection.execute(
        "UPDATE developer SET signature = 'stored'",
    )
    await connection.executemany(
        "INSERT INTO contract_signature VALUES ($1, $2, $3, $4, 's@x.org', $5, $6, $7, NULL, $8)",
        [
            (CONTRACT, 1, "seller", SELLER, "stored", "stored", None, PAID),
            (CONTRACT, 1, "buyer", BUYER, "drawn", "drawn", None, PAID),
            (CONTRACT, 2, "seller", SELLER, "stored", "stored", None, PAID),
            (CONTRACT, 2, "buyer", BUYER, "typed", None, "Bo", PAID),
        ],
    )
    assert await empty.migrate() == Migrated(2, CURRENT_VERSION, same_role=False)
    kept = await connection.fetch(
        "SELECT s.version, s.role, s.name, i.sealed FROM contract_signature s"
        " LEFT JOIN signature_image i ON i.id = s.image_id ORDER BY 1, 2"
    )
    assert [tuple(row) for row in kept] == [
        (1, "buyer", None, "drawn"),
        (1, "seller", None, "stored"),
        (2, "buyer", "Bo", None),
        (2, "seller", None, "stored"),
    ]
    assert await connection.fetchval("SELECT count(*) FROM signature_image") == 2
    stored = "SELECT sealed FROM developer d JOIN signature_image i ON i.id = d.signature_id"
    assert await connection.fetchval(stored) == "stored"
    await connection.close()


async def test_a_migration_that_fails_leaves_version_1_in_use(empty: Database):
    await make_version_1(empty)
    connection = await empty.connect()
    await connection.execute("CREATE TABLE dispute (mine integer)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await empty.migrate()
    assert await connection.fetchval("SELECT max(version) FROM schema_version") == 1
    assert await connection.fetchval("SELECT count(*) FROM contract WHERE buyer_signed_at IS NULL")
    await connection.close()
