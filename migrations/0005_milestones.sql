-- The milestone family: roles, milestones, single and multi release.
ALTER TABLE escrow ALTER COLUMN seller_email DROP NOT NULL;
ALTER TABLE escrow ALTER COLUMN buyer_email DROP NOT NULL;
ALTER TABLE escrow ALTER COLUMN estimated_delivery_days DROP NOT NULL;
ALTER TABLE escrow DROP CONSTRAINT escrow_status_check;
ALTER TABLE escrow ADD CONSTRAINT escrow_status_check
    CHECK (status IN ('pending', 'paid', 'delivered', 'completed', 'cancelled', 'disputed',
                      'working', 'pendingRelease', 'inDispute', 'released', 'resolved'));
ALTER TABLE escrow ADD CONSTRAINT escrow_family CHECK (CASE WHEN mode = 'milestone' THEN
        num_nonnulls(seller_id, seller_email, buyer_id, buyer_email, estimated_delivery_days) = 0
        AND status IN ('working', 'pendingRelease', 'inDispute', 'released', 'resolved')
        AND currency = ledger_currency AND amount_minor = amount_ledger_minor
    ELSE num_nonnulls(seller_email, buyer_email, estimated_delivery_days) = 3
        AND status NOT IN ('working', 'pendingRelease', 'inDispute', 'released', 'resolved') END);

ALTER TABLE invitation DROP CONSTRAINT invitation_role_check;
ALTER TABLE invitation ADD CONSTRAINT invitation_role_check CHECK (role IN (
    'seller', 'buyer', 'approver', 'service_provider', 'platform', 'release_signer', 'dispute_resolver',
    'receiver', 'milestone_receiver'));
-- An invitation is closed when its person is no longer named; whoever is named again is invited anew.
ALTER TABLE invitation ADD COLUMN closed_at timestamptz;
ALTER TABLE invitation DROP CONSTRAINT invitation_escrow_id_email_key;
CREATE UNIQUE INDEX invitation_stands ON invitation (escrow_id, email) WHERE closed_at IS NULL;
CREATE OR REPLACE VIEW invitation_reading AS
SELECT i.id, i.escrow_id, i.role, i.email, i.token_hash, i.counter, i.reminders, i.created_at,
       i.accepted_at IS NULL AND i.closed_at IS NULL
           AND e.status NOT IN ('completed', 'cancelled') AS is_open
FROM invitation i JOIN escrow e ON e.id = i.escrow_id;

ALTER TABLE checkout_session DROP CONSTRAINT checkout_session_action_check;
ALTER TABLE checkout_session ADD CONSTRAINT checkout_session_action_check CHECK (action IN (
    'sign_contract', 'accept_pay', 'complete', 'submit_proof', 'review_proof', 'dispute',
    'request_cancellation', 'cancel_escrow', 'accept_cancellation', 'reject_cancellation',
    'withdraw_dispute', 'answer_dispute', 'fund', 'approve_milestone', 'change_milestone_status', 'release',
    'resolve_dispute', 'withdraw_remaining'));
-- The body of a milestone family's step, where it was given with the session.
ALTER TABLE checkout_session ADD COLUMN input jsonb CHECK (jsonb_typeof(input) = 'object');
-- The version of the terms for which it was given; null where it means the same under others.
ALTER TABLE checkout_session ADD COLUMN terms_version integer;
ALTER TABLE checkout_session ADD CONSTRAINT checkout_session_terms CHECK (
    terms_version IS NULL OR (terms_version > 0 AND input IS NOT NULL));

-- What happened beyond the states, for as long as the event; the webhook's body goes sooner.
ALTER TABLE event ADD COLUMN said jsonb CHECK (jsonb_typeof(said) = 'object');
DROP TRIGGER event_append_only ON event;
CREATE TRIGGER event_append_only BEFORE UPDATE OF
    subject_id, seq, subject_kind, id, type, family, mode, step, from_state, to_state, actor_kind,
    actor_id, key_id, ip, request_id, at, recorded_at, xid, position, said OR DELETE
    ON event FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- What is sealed of an event: everything but the outbox's mark. Times as microseconds since 1970.
CREATE OR REPLACE FUNCTION event_text(v event) RETURNS text STABLE LANGUAGE sql
RETURN (jsonb_build_array(
    v.subject_id, v.seq, v.subject_kind, v.id, v.type, v.family, v.mode, v.step, v.from_state,
    v.to_state, v.actor_kind, v.actor_id, v.key_id, v.ip, v.request_id,
    (extract(epoch FROM v.at) * 1000000)::bigint,
    (extract(epoch FROM v.recorded_at) * 1000000)::bigint, v.xid::text, v.position)
    || CASE WHEN v.said IS NULL THEN '[]' ELSE jsonb_build_array(v.said) END)::text;

-- milestones: begin
-- The milestone family's own terms. `version` counts their changes.
CREATE TABLE milestone_escrow (
    escrow_id              entity_id PRIMARY KEY REFERENCES escrow,
    release_mode           text NOT NULL CHECK (release_mode IN ('single', 'multi')),
    engagement_id          text NOT NULL CHECK (length(engagement_id) BETWEEN 1 AND 100),
    platform_fee_bps       integer NOT NULL CHECK (platform_fee_bps BETWEEN 0 AND 9900),
    protocol_fee_bps       integer NOT NULL CHECK (protocol_fee_bps BETWEEN 0 AND 100),
    receiver_memo          text CHECK (length(receiver_memo) BETWEEN 1 AND 200),
    resolver_deadline_days integer CHECK (resolver_deadline_days BETWEEN 1 AND 3650),
    version                integer NOT NULL DEFAULT 1 CHECK (version > 0)
) WITH (fillfactor = 70);
CREATE INDEX escrow_milestones_of_creator ON escrow (creator_id, id DESC) WHERE mode = 'milestone';
CREATE INDEX milestone_escrow_engagement ON milestone_escrow (engagement_id, escrow_id DESC);

-- Who holds a role: the e-mail that was named, and the user once registered. `position` is the
-- milestone of which somebody is the own receiver, -1 for the escrow's roles.
CREATE TABLE escrow_role (
    escrow_id entity_id NOT NULL REFERENCES milestone_escrow,
    role      text NOT NULL CHECK (role IN (
                  'approver', 'service_provider', 'platform', 'release_signer', 'dispute_resolver',
                  'receiver', 'milestone_receiver')),
    position  smallint NOT NULL,
    email     text NOT NULL CHECK (email = lower(btrim(email))),
    user_id   entity_id REFERENCES app_user,
    PRIMARY KEY (escrow_id, role, position),
    CONSTRAINT escrow_role_position CHECK (
        CASE WHEN role = 'milestone_receiver' THEN position BETWEEN 0 AND 49 ELSE position = -1 END)
);
CREATE INDEX escrow_role_of_user ON escrow_role (user_id, escrow_id DESC) WHERE user_id IS NOT NULL;
CREATE INDEX escrow_role_of_email ON escrow_role (email, escrow_id DESC);
CREATE INDEX escrow_role_awaited ON escrow_role (email) WHERE user_id IS NULL;

-- One milestone; amount (and perhaps a receiver, in escrow_role) in multi release only. The flags
-- restate a milestone's table: nothing is paid unapproved, nor twice, and what is over is not disputed.
CREATE TABLE milestone (
    escrow_id      entity_id NOT NULL REFERENCES milestone_escrow,
    position       smallint NOT NULL CHECK (position BETWEEN 0 AND 49),
    description    text NOT NULL CHECK (length(description) BETWEEN 1 AND 500),
    status         text NOT NULL CHECK (length(status) BETWEEN 1 AND 50),
    evidence       text NOT NULL DEFAULT '' CHECK (length(evidence) <= 500),
    amount_minor   bigint CHECK (amount_minor BETWEEN 1 AND 900000000000000),
    approved       boolean NOT NULL DEFAULT false,
    disputed       boolean NOT NULL DEFAULT false,
    released       boolean NOT NULL DEFAULT false,
    resolved       boolean NOT NULL DEFAULT false,
    dispute_reason text CHECK (length(dispute_reason) BETWEEN 1 AND 500),
    disputed_at    timestamptz,
    PRIMARY KEY (escrow_id, position),
    CONSTRAINT milestone_released_was_approved CHECK (approved OR NOT released),
    CONSTRAINT milestone_ends_once CHECK (disputed::int + released::int + resolved::int <= 1),
    CONSTRAINT milestone_resolved_was_disputed CHECK (disputed_at IS NOT NULL OR NOT (disputed OR resolved)),
    CONSTRAINT milestone_dispute_has_reason CHECK ((disputed_at IS NULL) = (dispute_reason IS NULL))
) WITH (fillfactor = 70);

-- What each payer has funded in all; `n` is the order of their first payments. `is_held`: the pool
-- holds something, of which they are shown a share.
CREATE TABLE milestone_funding (
    escrow_id    entity_id NOT NULL REFERENCES milestone_escrow,
    user_id      entity_id NOT NULL REFERENCES app_user,
    n            integer NOT NULL CHECK (n > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    is_held      boolean NOT NULL DEFAULT true,
    PRIMARY KEY (escrow_id, user_id),
    UNIQUE (escrow_id, n)
) WITH (fillfactor = 70);
CREATE INDEX milestone_funding_held ON milestone_funding (user_id) WHERE is_held;
-- milestones: end

-- Who hears of what happens to a subject: the developer whose it is, and those who act as one of the
-- users. Fan-out, feed and recovery ask here alone, so this is the place for another kind. Inlined
-- where it is called. `on_ack`: the developer's receipt of its payment lets it complete.
CREATE OR REPLACE FUNCTION audience(kind text, subject text)
RETURNS TABLE (developer_id text, user_ids text[], on_ack boolean) STABLE LANGUAGE sql
BEGIN ATOMIC
    SELECT x.creator_id::text,
           CASE WHEN x.mode = 'milestone'
                THEN ARRAY(SELECT r.user_id::text FROM escrow_role r WHERE r.escrow_id = x.id)
                ELSE ARRAY[x.seller_id::text, x.buyer_id::text] END,
           x.mode = 'instant' AND x.auto_complete = 'on_ack'
    FROM escrow x WHERE kind = 'escrow' AND x.id = subject
    UNION ALL
    SELECT subject, NULL, false WHERE kind = 'developer'
    UNION ALL
    SELECT e.developer_id, NULL, false
    FROM webhook_endpoint e WHERE kind = 'endpoint' AND e.id = subject
    UNION ALL
    SELECT i.developer_id, NULL, false
    FROM identity_verification i WHERE kind = 'identity' AND i.id = subject;
END;

-- milestone reading: begin
-- What a door or a command sees of a milestone escrow. Its balance is the ledger account's.
CREATE VIEW milestone_reading AS
SELECT e.id, e.status, e.seq, e.frozen, e.creator_id, e.title, e.description, e.language, e.currency,
       e.amount_minor, e.funded_minor, e.released_minor, e.refunded_minor, e.fees_minor,
       e.created_at, e.updated_at, d.company AS creator_company,
       m.release_mode, m.engagement_id, m.platform_fee_bps, m.protocol_fee_bps, m.receiver_memo,
       m.resolver_deadline_days, m.version,
       coalesce((SELECT a.balance_minor FROM account a
                 WHERE a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency), 0)
           AS held_minor,
       (SELECT jsonb_agg(jsonb_build_array(r.role, r.position, r.email, r.user_id))
        FROM escrow_role r WHERE r.escrow_id = e.id) AS roles,
       (SELECT jsonb_agg(jsonb_build_array(
            s.description, s.status, s.evidence, s.amount_minor, s.approved, s.disputed, s.released,
            s.resolved, s.dispute_reason, s.disputed_at) ORDER BY s.position)
        FROM milestone s WHERE s.escrow_id = e.id) AS milestones
FROM escrow e
JOIN milestone_escrow m ON m.escrow_id = e.id
JOIN developer d ON d.id = e.creator_id;

CREATE TYPE locked_milestone AS (reading milestone_reading, read_at timestamptz, due_deadline bigint);

-- As lock_escrows, of the milestone family.
CREATE FUNCTION lock_milestone_escrows(wanted text[], skip_locked boolean, as_of timestamptz)
RETURNS SETOF locked_milestone LANGUAGE plpgsql AS $$
DECLARE
    got text[];
    read_at timestamptz;
BEGIN
    IF skip_locked THEN
        SELECT array_agg(l.id) INTO got FROM (
            SELECT id FROM escrow WHERE id = ANY (wanted) AND mode = 'milestone' ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED) AS l;
    ELSE
        SELECT array_agg(l.id) INTO got FROM (
            SELECT id FROM escrow WHERE id = ANY (wanted) AND mode = 'milestone' ORDER BY id
            FOR NO KEY UPDATE) AS l;
    END IF;
    read_at := coalesce(as_of, clock_timestamp() + (SELECT shift FROM clock));
    RETURN QUERY
    SELECT r, read_at,
           CASE WHEN NOT r.frozen THEN
               (SELECT l.id FROM deadline l
                WHERE l.escrow_id = r.id AND l.kind = 'resolver' AND l.fired_at IS NULL
                  AND l.cancelled_at IS NULL AND l.remaining IS NULL AND l.due_at <= read_at
                ORDER BY l.due_at, l.id LIMIT 1) END
    FROM milestone_reading r WHERE r.id = ANY (got) ORDER BY r.id;
END $$;
-- milestone reading: end

-- milestone lists: begin
-- What a list of milestone escrows is sifted by; NULL sifts nothing. A row where the escrow passes,
-- with its amount in hundred-millionths, which is finer than any currency: numeric, never floating
-- point. Somebody's e-mail is the one that was named, or their own. Written so that the planner takes
-- it apart (one SELECT, stable) and may start at any filter.
CREATE FUNCTION milestones_sifted(
    e escrow, engagement text, title_like text, in_status text, in_mode text, in_role text,
    role_email text, participant text, since timestamptz, before timestamptz, at_least numeric,
    at_most numeric
) RETURNS TABLE (amount numeric) STABLE LANGUAGE sql AS $$
    SELECT e.amount_minor * 10::numeric ^ (8 - c.exponent)::numeric
    FROM milestone_escrow m JOIN currency c ON c.code = e.currency
    WHERE m.escrow_id = e.id
      AND (engagement IS NULL OR m.engagement_id = engagement)
      AND (title_like IS NULL OR lower(e.title) LIKE lower(title_like))
      AND (in_status IS NULL OR e.status = in_status)
      AND (in_mode IS NULL OR m.release_mode = in_mode)
      AND (in_role IS NULL OR EXISTS (
          SELECT FROM escrow_role r WHERE r.escrow_id = e.id AND r.role = in_role
            AND (r.email = role_email
                 OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = role_email))))
      AND (participant IS NULL OR EXISTS (
          SELECT FROM escrow_role r WHERE r.escrow_id = e.id
            AND (r.email = participant
                 OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = participant))))
      AND (since IS NULL OR e.created_at >= since)
      AND (before IS NULL OR e.created_at < before)
      AND (at_least IS NULL OR e.amount_minor >= at_least * 10::numeric ^ c.exponent::numeric)
      AND (at_most IS NULL OR e.amount_minor <= at_most * 10::numeric ^ c.exponent::numeric)
$$;

CREATE TYPE listed_milestone AS (reading milestone_reading, sort_key numeric);

-- What a developer has created or its user holds a role in, sifted; each way along an index that has
-- no others. It is planned anew for what is asked: one plan for every question would walk all of the
-- caller's escrows for an engagement id, which has an index. Ids are time-ordered: `low` and `below`
-- hold the cursor and a range of times alike, the times themselves decide.
-- By creation each way stops at what is shown; it asks for an array of one and orders by it first,
-- which means nothing but to the planner: only that index has this order. What the sieve drops is
-- walked past: a rare title or participant costs a look at each of the caller's own escrows.
-- By amount or by the last change all of the caller's that the sieve leaves are sorted: no index has
-- them by what changes, nor by an amount across currencies. `sign` is -1 for descending; `after_key`
-- and `after_id` say after which one it goes on.
-- The arrays keep the view's subqueries away from all but what is shown. Locks nothing.
CREATE FUNCTION list_milestone_escrows(
    developer text, as_user text, engagement text, title_like text, in_status text, in_mode text,
    in_role text, role_email text, participant text, since timestamptz, before timestamptz,
    at_least numeric, at_most numeric, low text, below text, shown integer, sorted_by text, sign integer,
    after_key numeric, after_id text
) RETURNS SETOF listed_milestone STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF sorted_by = 'createdAt' AND sign < 0 THEN
        RETURN QUERY SELECT r, 0::numeric FROM milestone_reading r WHERE r.id = ANY (ARRAY(
            (SELECT e.id::text FROM escrow e
             CROSS JOIN LATERAL milestones_sifted(
                 e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                 before, at_least, at_most)
             WHERE e.creator_id = ANY (ARRAY[developer]) AND e.mode = 'milestone'
               AND e.id >= low AND e.id < below
             ORDER BY e.creator_id, e.id DESC LIMIT shown)
            UNION
            (SELECT DISTINCT ON (h.user_id, h.escrow_id) e.id::text
             FROM escrow_role h JOIN escrow e ON e.id = h.escrow_id
             CROSS JOIN LATERAL milestones_sifted(
                 e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                 before, at_least, at_most)
             WHERE h.user_id = ANY (ARRAY[as_user]) AND h.escrow_id >= low AND h.escrow_id < below
             ORDER BY h.user_id, h.escrow_id DESC LIMIT shown)
            ORDER BY 1 DESC LIMIT shown))
        ORDER BY r.id DESC;
    ELSIF sorted_by = 'createdAt' THEN
        RETURN QUERY SELECT r, 0::numeric FROM milestone_reading r WHERE r.id = ANY (ARRAY(
            (SELECT e.id::text FROM escrow e
             CROSS JOIN LATERAL milestones_sifted(
                 e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                 before, at_least, at_most)
             WHERE e.creator_id = ANY (ARRAY[developer]) AND e.mode = 'milestone'
               AND e.id >= low AND e.id < below
             ORDER BY e.creator_id DESC, e.id LIMIT shown)
            UNION
            (SELECT DISTINCT ON (h.user_id, h.escrow_id) e.id::text
             FROM escrow_role h JOIN escrow e ON e.id = h.escrow_id
             CROSS JOIN LATERAL milestones_sifted(
                 e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                 before, at_least, at_most)
             WHERE h.user_id = ANY (ARRAY[as_user]) AND h.escrow_id >= low AND h.escrow_id < below
             ORDER BY h.user_id DESC, h.escrow_id LIMIT shown)
            ORDER BY 1 LIMIT shown))
        ORDER BY r.id;
    ELSE
        RETURN QUERY WITH own AS (
            SELECT e.id, e.updated_at, s.amount FROM escrow e
            CROSS JOIN LATERAL milestones_sifted(
                e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                before, at_least, at_most) AS s
            WHERE e.creator_id = ANY (ARRAY[developer]) AND e.mode = 'milestone'
              AND e.id >= low AND e.id < below
            UNION
            SELECT e.id, e.updated_at, s.amount FROM escrow_role h JOIN escrow e ON e.id = h.escrow_id
            CROSS JOIN LATERAL milestones_sifted(
                e, engagement, title_like, in_status, in_mode, in_role, role_email, participant, since,
                before, at_least, at_most) AS s
            WHERE h.user_id = ANY (ARRAY[as_user]) AND h.escrow_id >= low AND h.escrow_id < below
        ), keyed AS (
            SELECT o.id, round(sign * CASE WHEN sorted_by = 'amount' THEN o.amount
                               ELSE extract(epoch FROM o.updated_at) * 1000000 END) AS key
            FROM own o
        ), page AS (
            SELECT k.id, k.key FROM keyed k
            WHERE after_key IS NULL OR k.key > after_key OR k.key = after_key AND k.id < after_id
            ORDER BY k.key, k.id DESC LIMIT shown
        )
        SELECT r, p.key FROM page p JOIN milestone_reading r ON r.id = p.id ORDER BY p.key, r.id DESC;
    END IF;
END $$;
-- milestone lists: end
