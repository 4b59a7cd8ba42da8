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

-- What each payer has funded in all; `n` is the order of their first payments.
CREATE TABLE milestone_funding (
    escrow_id    entity_id NOT NULL REFERENCES milestone_escrow,
    user_id      entity_id NOT NULL REFERENCES app_user,
    n            integer NOT NULL CHECK (n > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (escrow_id, user_id),
    UNIQUE (escrow_id, n)
);
CREATE INDEX milestone_funding_of_user ON milestone_funding (user_id);
-- milestones: end

-- Turns up to `most` events that are not fanned out into deliveries; says how many events.
-- Locks: the events (skipping what another worker has), then the lanes in id order.
CREATE OR REPLACE FUNCTION fan_out(most integer, moment timestamptz DEFAULT clock_timestamp()) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    fanned  integer;
    touched text[];
BEGIN
    WITH taken AS MATERIALIZED (
        SELECT v.subject_id, v.seq, v.subject_kind, v.id, v.type, v.family, v.recorded_at, v.position,
               v.from_state, v.to_state
        FROM event v
        WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
        ORDER BY v.recorded_at
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), made AS (
        INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, acknowledges,
                              visible_at, created_at)
        SELECT ordered_uuid(moment), e.id, t.id, t.recorded_at, t.position, t.type, a.acknowledges,
               least(t.recorded_at, moment), moment
        FROM taken t
        CROSS JOIN LATERAL (
            SELECT x.creator_id,
                   t.type = 'escrow.status.updated' AND t.from_state = 'pending' AND t.to_state = 'paid'
                   AND x.mode = 'instant' AND x.auto_complete = 'on_ack'
            FROM escrow x WHERE t.subject_kind = 'escrow' AND x.id = t.subject_id
            UNION ALL
            SELECT d.id, false
            FROM escrow x JOIN developer d ON d.user_id IN (x.seller_id, x.buyer_id)
            WHERE t.subject_kind = 'escrow' AND x.id = t.subject_id AND d.id <> x.creator_id
            UNION ALL
            SELECT d.id, false
            FROM escrow_role r JOIN developer d ON d.user_id = r.user_id
            WHERE t.family = 'milestone' AND r.escrow_id = t.subject_id
            UNION ALL
            SELECT t.subject_id, false WHERE t.subject_kind = 'developer'
            UNION ALL
            SELECT s.developer_id, false
            FROM webhook_endpoint s WHERE t.subject_kind = 'endpoint' AND s.id = t.subject_id
            UNION ALL
            SELECT i.developer_id, false
            FROM identity_verification i WHERE t.subject_kind = 'identity' AND i.id = t.subject_id
        ) AS a (developer_id, acknowledges)
        JOIN webhook_endpoint e ON e.developer_id = a.developer_id AND e.deleted_at IS NULL
        WHERE e.is_active AND e.id <> t.subject_id
          AND e.events && ARRAY['*', t.type, split_part(t.type, '.', 1) || '.*']
        ORDER BY t.recorded_at, t.seq
        ON CONFLICT (endpoint_id, event_id) DO NOTHING
        RETURNING endpoint_id
    ), marked AS (
        UPDATE event v SET fanned_at = moment
        FROM taken t WHERE v.subject_id = t.subject_id AND v.seq = t.seq
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM marked), (SELECT array_agg(DISTINCT m.endpoint_id::text) FROM made m)
    INTO fanned, touched;

    IF touched IS NOT NULL THEN
        PERFORM FROM lane l WHERE l.endpoint_id = ANY (touched) ORDER BY l.endpoint_id FOR NO KEY UPDATE;
        UPDATE lane l SET next_due_at = least(l.next_due_at, moment), first_due_at = least(l.first_due_at, moment)
        WHERE l.endpoint_id = ANY (touched) AND greatest(l.next_due_at, l.first_due_at) > moment;
    END IF;
    RETURN fanned;
END $$;

-- Whose webhooks and whose feed tell of this event; fan_out asks the same.
CREATE OR REPLACE FUNCTION hears(developer text, as_user text, kind text, subject text) RETURNS boolean
STABLE LANGUAGE sql
RETURN CASE kind
    WHEN 'escrow' THEN EXISTS (
        SELECT FROM escrow x WHERE x.id = subject
          AND (x.creator_id = developer OR x.seller_id = as_user OR x.buyer_id = as_user
               OR EXISTS (SELECT FROM escrow_role r
                          WHERE x.mode = 'milestone' AND r.escrow_id = x.id AND r.user_id = as_user)))
    WHEN 'developer' THEN subject = developer
    WHEN 'endpoint' THEN EXISTS (
        SELECT FROM webhook_endpoint e WHERE e.id = subject AND e.developer_id = developer)
    WHEN 'identity' THEN EXISTS (
        SELECT FROM identity_verification i WHERE i.id = subject AND i.developer_id = developer)
    ELSE false END;

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
        FROM milestone s WHERE s.escrow_id = e.id) AS milestones,
       CASE WHEN e.funded_minor > 0 THEN (
           SELECT jsonb_agg(jsonb_build_array(f.user_id, u.email, f.amount_minor) ORDER BY f.n)
           FROM milestone_funding f JOIN app_user u ON u.id = f.user_id
           WHERE f.escrow_id = e.id) END AS fundings
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
