"""What stands in the database would stop us anyway: the tables' rows, the past, the role."""

import asyncpg
import pytest

from service.commands.perform import House
from service.rules import engagement, escrow, identity, milestone, payment, proof
from service.rules.clocks import KINDS
from service.rules.machine import ActorKind, Role
from service.rules.money import EXPONENTS, MAX_MINOR
from tests.makers import make_buyer, make_escrow, make_shop

APPEND_ONLY = ("event", "transfer")


@pytest.fixture
async def past(house: House) -> House:
    """A house in which something has happened."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    await make_escrow(house, shop, buyer, status="completed")
    return house


# 1. The rules' tables ----------------------------------------------------------------------------


async def test_the_transitions_are_the_tables(house: House) -> None:
    rows = await house.pool.fetch("SELECT family, mode, step, from_state, to_state FROM transition")
    found = [tuple(row) for row in rows]
    assert set(found) == {
        *escrow.TABLE.transitions(),
        *proof.TABLE.transitions(),
        *identity.TABLE.transitions(),
        *payment.TABLE.transitions(),
        *milestone.TABLE.transitions(),
    }
    assert len(found) == len(set(found))


async def test_a_step_outside_the_table_fails_at_the_event(
    past: House, owner: asyncpg.Connection
) -> None:
    escrow_id = await past.pool.fetchval("SELECT id FROM escrow")
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="transition"):
        await owner.execute(
            "INSERT INTO event (subject_id, seq, subject_kind, id, family, mode, step, from_state,"
            " to_state, actor_kind, at) VALUES ($1, 99, 'escrow', gen_random_uuid(), 'escrow',"
            " 'instant', 'deliver', 'cancelled', 'completed', 'system', now())",
            escrow_id,
        )
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(
            "INSERT INTO event (subject_id, seq, subject_kind, id, step, actor_kind, at)"
            " VALUES ($1, 99, 'escrow', gen_random_uuid(), 'deliver', 'system', now())",
            escrow_id,
        )


async def test_the_currencies_and_the_bound_are_the_rules(house: House) -> None:
    rows = await house.pool.fetch("SELECT code, exponent FROM currency")
    assert {row["code"]: row["exponent"] for row in rows} == EXPONENTS
    bounds = await house.pool.fetch(
        "SELECT pg_get_constraintdef(oid) AS said FROM pg_constraint"
        " WHERE conname IN ('account_bound', 'escrow_amount_minor_check',"
        " 'escrow_amount_ledger_minor_check')"
    )
    assert len(bounds) == 3
    assert all(str(MAX_MINOR) in row["said"] for row in bounds)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("escrow_mode_check", {*escrow.MODES, "milestone"}),
        ("escrow_status_check", {*escrow.STATUSES, *engagement.STATUSES}),
        ("escrow_role_role_check", {*engagement.ROLES, Role.MILESTONE_RECEIVER}),
        ("milestone_escrow_release_mode_check", set(engagement.RELEASE_MODES)),
        ("event_actor_kind_check", set(ActorKind)),
    ],
)
async def test_the_words_of_a_check_are_the_rules_words(
    house: House, constraint: str, words: set[str]
) -> None:
    listed = await house.pool.fetch(
        "SELECT (regexp_matches(pg_get_constraintdef(oid), '''(\\w+)''', 'g'))[1] AS word"
        " FROM pg_constraint WHERE conname = $1",
        constraint,
    )
    assert {row["word"] for row in listed} == set(map(str, words))


async def test_every_clock_and_reason_of_the_rules_has_its_word(house: House) -> None:
    said = await house.pool.fetchval(
        "SELECT string_agg(pg_get_constraintdef(oid), ' ') FROM pg_constraint"
        " WHERE conname IN ('deadline_kind_check', 'escrow_cancel_reason_check')"
    )
    for kind in KINDS:
        assert f"'{kind}'" in said
    reasons = ("expired", "undelivered", "proof_expired", "proof_rejected", "seller", "buyer",
               "creator", "request_accepted", "dispute")  # fmt: skip
    for reason in reasons:
        assert f"'{reason}'" in said


# 2. The past -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_the_application_can_only_add_to_the_past(past: House, table: str) -> None:
    for statement in (
        f"UPDATE {table} SET seq = seq + 1",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await past.pool.fetch(statement)


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_not_even_the_owner_changes_the_past_by_accident(
    past: House, owner: asyncpg.Connection, table: str
) -> None:
    for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="append-only"):
            await owner.execute(statement)


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_no_column_of_the_past_can_be_changed_but_the_outboxs_mark(
    past: House, owner: asyncpg.Connection, table: str
) -> None:
    columns = await owner.fetch(
        "SELECT column_name AS name, is_identity = 'YES' AS is_identity"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1",
        table,
    )
    changeable = set()
    for column in columns:
        name = column["name"]
        value = "DEFAULT" if column["is_identity"] else name
        async with owner.transaction():
            try:
                async with owner.transaction():
                    await owner.execute(f"UPDATE {table} SET {name} = {value}")
            except asyncpg.ObjectNotInPrerequisiteStateError:
                continue
        changeable.add(name)
    assert changeable == ({"fanned_at"} if table == "event" else set())


# 3. The role -------------------------------------------------------------------------------------

# What the application may change beside adding rows; all else it may read at most.
MAY_UPDATE = {
    "account", "api_key", "app_user", "cancellation_request", "checkout_session", "clock",
    "contract", "deadline", "delivery", "developer", "dispute", "endpoint_secret", "escrow",
    "escrow_role", "milestone", "milestone_escrow", "milestone_funding",
    "idempotency", "identity_verification", "invariant_result", "invitation", "lane", "mail",
    "operator", "purchase_proof", "sign_in_code", "visit", "webhook_endpoint",
}  # fmt: skip
MAY_DELETE = {
    "endpoint_secret", "escrow_role", "file", "idempotency", "identity_document", "milestone",
    "paper", "sign_in_code", "visit",
}  # fmt: skip
READ_ONLY = {
    "schema_version", "currency", "transition", "clock", "dispute_counter", "commit_order",
}  # fmt: skip


async def test_the_application_makes_and_drops_nothing(house: House) -> None:
    for statement in (
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "ALTER TABLE escrow ADD COLUMN mine int",
        "DROP TABLE escrow",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "CREATE INDEX mine ON escrow (title)",
        "CREATE OR REPLACE FUNCTION business_now() RETURNS timestamptz LANGUAGE sql RETURN now()",
        "COPY escrow TO PROGRAM 'true'",
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await house.pool.fetch(statement)
        assert refused.value.sqlstate == "42501", statement


async def test_the_application_is_an_ordinary_role_that_owns_nothing(house: House) -> None:
    role = await house.pool.fetchrow(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication"
        " FROM pg_roles WHERE rolname = current_user"
    )
    assert not any(role)
    owned = await house.pool.fetchval(
        "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole"
    )
    assert owned == 0
    member_of = await house.pool.fetchval(
        "SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole"
    )
    assert member_of == 0


async def test_the_application_has_the_least_that_it_needs(house: House) -> None:
    rows = await house.pool.fetch(
        "SELECT relname AS name, has_table_privilege(oid, 'INSERT') AS adds,"
        " has_table_privilege(oid, 'UPDATE') AS changes,"
        " has_table_privilege(oid, 'DELETE') AS deletes,"
        " has_table_privilege(oid, 'TRUNCATE, TRIGGER, REFERENCES') AS more"
        " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    )
    assert {row["name"] for row in rows if row["changes"]} == MAY_UPDATE
    assert {row["name"] for row in rows if row["deletes"]} == MAY_DELETE
    assert {row["name"] for row in rows if not row["adds"]} == READ_ONLY
    assert not any(row["more"] for row in rows)
    columns = await house.pool.fetch(
        "SELECT column_name FROM information_schema.column_privileges"
        " WHERE table_name = 'event' AND privilege_type = 'UPDATE' AND grantee = current_user"
    )
    assert [row["column_name"] for row in columns] == ["fanned_at"]


async def test_the_applications_sessions_are_bounded(house: House) -> None:
    for setting, value in (
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("lock_timeout", "3s"),
        ("TimeZone", "UTC"),
    ):
        assert await house.pool.fetchval("SELECT current_setting($1)", setting) == value


# 4. What a constraint would stop -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("held_minor = held_minor + 1", "escrow_books"),
        ("released_minor = released_minor - 1, held_minor = held_minor + 1",
         "escrow_final_holds_nothing"),
        ("status = 'pending', completed_at = NULL", "escrow_unpaid_holds_nothing"),
        ("status = 'delivered', completed_at = NULL", "escrow_paid_holds_all"),
        ("completed_at = NULL", "escrow_moments"),
        ("cancelled_at = now(), cancel_reason = 'seller'", "escrow_moments"),
        ("paid_at = NULL", "escrow_moments"),
        ("escrow_fee_minor = amount_ledger_minor + 1", "escrow_fees_fit"),
        ("fulfillment_policy = '{}'", "escrow_proof_has_policy"),
        ("developer_fee_minor = 1", "escrow_fee_has_receiver"),
        ("buyer_email = seller_email", "escrow_two_parties"),
        ("amount_minor = 0", "escrow_amount_minor_check"),
        ("status = 'elsewhere', completed_at = NULL", "escrow_status_check"),
    ],
)  # fmt: skip
async def test_a_row_that_the_rules_would_never_write_is_refused(
    past: House, change: str, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await past.pool.fetch(f"UPDATE escrow SET {change}")
    assert refused.value.constraint_name == constraint


async def test_an_account_with_a_floor_never_sinks_below_it(past: House) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await past.pool.fetch(
            "UPDATE account SET balance_minor = -1 WHERE balance_minor IS NOT NULL"
        )
    assert refused.value.constraint_name == "account_floor"
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await past.pool.fetch("UPDATE account SET balance_minor = NULL WHERE kind = 'held'")
    assert refused.value.constraint_name == "account_keeps_balance"


async def test_an_event_of_the_same_number_is_refused(past: House) -> None:
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await past.pool.fetch(
            "INSERT INTO event (subject_id, seq, subject_kind, id, type, family, mode, step,"
            " from_state, to_state, actor_kind, at) SELECT subject_id, seq, subject_kind,"
            " gen_random_uuid(), type, family, mode, step, from_state, to_state, actor_kind, at"
            " FROM event"
        )
    assert refused.value.constraint_name == "event_pkey"
