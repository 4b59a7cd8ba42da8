"""What must hold after everything: asked of the database itself, beside the product's own checks.

await assert_sound(house)
"""

from service.commands.perform import House
from service.store.checks import OF_SUBJECTS, read_breaches_among, read_subjects
from service.store.ledger import read_trial_balance

# Each answers with the rows that must not be there.
BREACHES = {
    "a stored balance is the sum of its transfers": """
        SELECT a.id, a.kind, a.owner, a.balance_minor, moved.amount FROM account a
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(CASE WHEN t.to_account = a.id THEN t.amount_minor
                                     ELSE -t.amount_minor END), 0) AS amount
            FROM transfer t WHERE a.id IN (t.from_account, t.to_account)) AS moved
        WHERE a.balance_minor IS NOT NULL AND a.balance_minor <> moved.amount""",
    "what was funded is held, released, refunded or a fee": """
        SELECT id FROM escrow
        WHERE funded_minor <> held_minor + released_minor + refunded_minor + fees_minor""",
    "an escrow's columns are its transfers": """
        SELECT e.id, e.status FROM escrow e
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(amount_minor) FILTER (WHERE reason = 'hold'), 0) AS funded,
                   coalesce(sum(amount_minor) FILTER (
                       WHERE reason IN ('release', 'resolution', 'withdrawal')), 0) AS released,
                   coalesce(sum(amount_minor) FILTER (WHERE reason = 'refund'), 0) AS refunded,
                   coalesce(sum(amount_minor) FILTER (WHERE reason LIKE '%_fee'), 0) AS fees
            FROM transfer t WHERE t.escrow_id = e.id) AS moved
        WHERE (e.funded_minor, e.released_minor, e.refunded_minor, e.fees_minor)
              <> (moved.funded, moved.released, moved.refunded, moved.fees)""",
    "an escrow's account holds what its row says": """
        SELECT e.id FROM escrow e LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id
        WHERE e.held_minor <> coalesce(a.balance_minor, 0)""",
    "a final escrow holds nothing and waits for nothing": """
        SELECT e.id FROM escrow e
        WHERE e.status IN ('completed', 'cancelled') AND (e.held_minor <> 0 OR EXISTS (
            SELECT FROM deadline d
            WHERE d.escrow_id = e.id AND d.fired_at IS NULL AND d.cancelled_at IS NULL)
          OR EXISTS (SELECT FROM dispute t WHERE t.escrow_id = e.id AND t.resolved_at IS NULL)
          OR EXISTS (SELECT FROM cancellation_request q
                     WHERE q.escrow_id = e.id AND q.status = 'pending'))""",
    "an escrow is disputed while a dispute is open, and not longer": """
        SELECT e.id, e.status FROM escrow e
        WHERE (e.status = 'disputed') <> EXISTS (
            SELECT FROM dispute t WHERE t.escrow_id = e.id AND t.resolved_at IS NULL)""",
    "a request to cancel waits only where the escrow is paid or delivered": """
        SELECT e.id, e.status FROM escrow e
        JOIN cancellation_request q ON q.escrow_id = e.id AND q.status = 'pending'
        WHERE e.status NOT IN ('paid', 'delivered')""",
    "a settlement sums to what was held, and its fees to the seller's part": """
        SELECT t.escrow_id FROM dispute t JOIN escrow e ON e.id = t.escrow_id
        WHERE t.resolved_by IS NOT NULL AND (
            t.seller_minor + t.buyer_minor <> e.funded_minor OR t.seller_net_minor < 0
            OR t.escrow_fee_minor + t.developer_fee_minor + t.seller_net_minor <> t.seller_minor
            OR (t.buyer_minor, t.seller_net_minor) <> (e.refunded_minor, e.released_minor))""",
    "time stands still in a dispute, but for its answer": """
        SELECT d.escrow_id, d.kind FROM deadline d JOIN escrow e ON e.id = d.escrow_id
        WHERE e.status = 'disputed' AND d.fired_at IS NULL AND d.cancelled_at IS NULL
          AND d.kind NOT IN ('invitation_reminder', 'session')
          AND (d.remaining IS NULL) <> (d.kind IN ('dispute_answer', 'dispute_reminder'))""",
    "an escrow that is not final has a clock": """
        SELECT e.id, e.status FROM escrow e
        WHERE e.status IN ('pending', 'delivered') AND NOT EXISTS (
            SELECT FROM deadline d
            WHERE d.escrow_id = e.id AND d.fired_at IS NULL AND d.cancelled_at IS NULL)""",
    "a milestone escrow's status follows from its milestones": """
        SELECT e.id, e.status, s.* FROM escrow e JOIN milestone_escrow m ON m.escrow_id = e.id
        CROSS JOIN LATERAL (
            SELECT bool_or(disputed) AS disputed, bool_and(released OR resolved) AS over,
                   bool_or(released) AS released, bool_and(approved) AS approved,
                   bool_or(approved AND NOT released AND NOT resolved) AS payable
            FROM milestone p WHERE p.escrow_id = e.id) AS s
        WHERE e.status <> CASE
            WHEN s.disputed THEN 'inDispute' WHEN s.over AND s.released THEN 'released'
            WHEN s.over THEN 'resolved'
            WHEN m.release_mode = 'single' AND s.approved THEN 'pendingRelease'
            WHEN m.release_mode = 'multi' AND s.payable THEN 'pendingRelease'
            ELSE 'working' END""",
    "in single release the milestones are one": """
        SELECT p.escrow_id FROM milestone p JOIN milestone_escrow m USING (escrow_id)
        WHERE m.release_mode = 'single'
        GROUP BY 1 HAVING count(DISTINCT (disputed, released, resolved)) > 1""",
    "a resolver with a deadline has it while something is disputed, and not longer": """
        SELECT m.escrow_id FROM milestone_escrow m
        WHERE (SELECT count(*) FROM deadline d
               WHERE d.escrow_id = m.escrow_id AND d.kind = 'resolver'
                 AND d.fired_at IS NULL AND d.cancelled_at IS NULL)
           <> CASE WHEN m.resolver_deadline_days IS NULL THEN 0 ELSE (
               SELECT CASE m.release_mode WHEN 'single' THEN bool_or(p.disputed)::int
                                          ELSE count(*) FILTER (WHERE p.disputed) END
               FROM milestone p WHERE p.escrow_id = m.escrow_id) END""",
    "payers' sums are what was funded": """
        SELECT m.escrow_id FROM milestone_escrow m JOIN escrow e ON e.id = m.escrow_id
        WHERE e.funded_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM milestone_funding f
                                 WHERE f.escrow_id = m.escrow_id)""",
    "what is pending is what is under way": """
        SELECT a.owner, a.currency, a.balance_minor FROM account a
        WHERE a.kind = 'pending' AND a.balance_minor <> (
            SELECT coalesce(sum(p.amount_minor), 0) FROM payment p
            WHERE p.user_id = a.owner AND p.currency = a.currency AND p.kind <> 'refund'
              AND p.state IN ('created', 'pending'))""",
    "what lies in clearing waits for the operator": """
        SELECT a.owner, a.currency FROM account a
        WHERE a.kind = 'clearing' AND (
            SELECT coalesce(sum(CASE WHEN t.to_account = a.id THEN t.amount_minor
                                     ELSE -t.amount_minor END), 0)
            FROM transfer t WHERE a.id IN (t.from_account, t.to_account)) <> (
            SELECT coalesce(sum(CASE WHEN p.kind = 'refund' THEN p.amount_minor
                                     ELSE p.received_minor END), 0)
            FROM payment p
            WHERE p.provider = a.owner
              AND (p.kind = 'refund' AND p.currency = a.currency
                   AND p.state IN ('created', 'pending', 'needs_operator')
                   OR p.kind <> 'refund' AND p.received_currency = a.currency
                   AND p.state = 'needs_operator'))""",
    "events are gapless": """
        SELECT subject_id FROM event GROUP BY subject_id
        HAVING min(seq) <> 1 OR max(seq) <> count(*)""",
    "an escrow's counter and status are its last event's": """
        SELECT e.id FROM escrow e
        LEFT JOIN event v ON v.subject_id = e.id AND v.seq = e.seq
        WHERE v.to_state IS DISTINCT FROM e.status
           OR e.seq <> (SELECT max(seq) FROM event m WHERE m.subject_id = e.id)""",
    "each event goes on from where a step left the state": """
        SELECT v.subject_id, v.seq FROM event v
        JOIN event p ON p.subject_id = v.subject_id AND p.seq = v.seq - 1
        WHERE v.subject_kind = 'escrow' AND v.from_state <> p.to_state
          AND (v.step, v.from_state, v.to_state) <> (p.step, p.from_state, p.to_state)""",
    "an event's webhook has its body, and no other event has one": """
        SELECT v.id FROM event v LEFT JOIN webhook_body b ON b.event_id = v.id
        WHERE (v.type IS NULL) <> (b.event_id IS NULL)""",
}
IN_TIME = {
    "an escrow's events follow one another in business time": """
        SELECT v.subject_id, v.seq FROM event v
        JOIN event p ON p.subject_id = v.subject_id AND p.seq = v.seq - 1
        WHERE v.subject_kind = 'escrow' AND v.at < p.at""",
}


async def assert_sound(house: House, *, in_time: bool = True) -> None:
    """The books balance, the columns agree with them, and the log is whole.

    `in_time` is False where the test let the clock's steps happen ahead of everybody else's.
    """
    sums: dict[str, int] = {}
    for line in await read_trial_balance(house.pool):
        sums[line.currency] = sums.get(line.currency, 0) + line.balance_minor
    assert set(sums.values()) <= {0}, sums
    laws = BREACHES | (IN_TIME if in_time else {})
    for law, query in laws.items():
        found = [dict(row) for row in await house.pool.fetch(query)]
        assert found == [], law
    after = ""
    while page := await read_subjects(house.pool, after, 500):
        for invariant in OF_SUBJECTS:
            assert await read_breaches_among(house.pool, invariant, page) == [], invariant
        after = page[-1]


async def read_log(house: House, subject_id: str) -> list[tuple[str, str | None, str]]:
    """The subject's events in order: step, webhook type, kind of actor."""
    rows = await house.pool.fetch(
        "SELECT step, type, actor_kind FROM event WHERE subject_id = $1 ORDER BY seq", subject_id
    )
    return [(row["step"], row["type"], row["actor_kind"]) for row in rows]


async def count_rows(house: House) -> dict[str, int]:
    """How many rows each table that a command may write has: equal before and after a refusal."""
    tables = (
        "account", "app_user", "cancellation_request", "checkout_session", "contract",
        "contract_signature", "deadline", "delivery_rejection", "developer", "dispute",
        "dispute_evidence", "dispute_offer", "dispute_statement", "escrow",
        "escrow_role",
        "event", "file", "idempotency", "identity_document", "identity_verification", "invitation",
        "mail", "milestone", "milestone_escrow", "milestone_funding",
        "paper", "payment", "proof_attachment", "proof_submission", "purchase_proof", "recovery",
        "transfer", "webhook_body",
    )  # fmt: skip
    return {table: await house.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def digest_tables(house: House) -> dict[str, str]:
    """A digest of every row of every table: equal before and after whatever changed nothing."""
    tables = await house.pool.fetch(
        "SELECT c.relname::text AS name FROM pg_class c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition ORDER BY 1"
    )
    return {
        row["name"]: await house.pool.fetchval(
            f"SELECT md5(coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '')) "
            f"FROM {row['name']} t"
        )
        for row in tables
    }
