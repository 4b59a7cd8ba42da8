-- Version 2: the direct API. Contract versions and signatures, rejections, cancellation requests,
-- disputes, purchase proofs.
-- aggregate: begin
DROP FUNCTION lock_escrows(text[], boolean, timestamptz);
DROP TYPE locked_escrow;
DROP VIEW escrow_reading;

-- No door has ever signed a contract, so nothing is lost with these columns.
ALTER TABLE contract DROP COLUMN seller_signed_at, DROP COLUMN buyer_signed_at;
ALTER TABLE contract ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0);

-- A signature is given to one version of the contract; a change of terms makes a new version.
-- `image` is sealed: a drawn signature, or the stored one. `name` is a typed one.
CREATE TABLE contract_signature (
    contract_id entity_id NOT NULL REFERENCES contract,
    version     integer NOT NULL,
    role        text NOT NULL CHECK (role IN ('seller', 'buyer')),
    user_id     entity_id NOT NULL REFERENCES app_user,
    email       text NOT NULL,
    method      text NOT NULL CHECK (method IN ('stored', 'drawn', 'typed')),
    image       text,
    name        text CHECK (length(name) BETWEEN 1 AND 200),
    ip          text,
    signed_at   timestamptz NOT NULL,
    PRIMARY KEY (contract_id, version, role),
    CHECK ((method = 'typed') = (name IS NOT NULL) AND (method = 'typed') = (image IS NULL))
);

CREATE TABLE delivery_rejection (
    escrow_id             entity_id NOT NULL REFERENCES escrow,
    n                     integer NOT NULL CHECK (n > 0),
    reason                text CHECK (length(reason) <= 2000),
    rejected_at           timestamptz NOT NULL,
    previous_delivered_at timestamptz NOT NULL,
    PRIMARY KEY (escrow_id, n)
);

CREATE TABLE cancellation_request (
    id           entity_id PRIMARY KEY,
    escrow_id    entity_id NOT NULL REFERENCES escrow,
    requested_by entity_id NOT NULL REFERENCES app_user,
    reason       text CHECK (length(reason) <= 2000),
    status       text NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected', 'closed')),
    requested_at timestamptz NOT NULL,
    answered_at  timestamptz,
    answered_by  entity_id REFERENCES app_user,
    CHECK ((status = 'pending') = (answered_at IS NULL))
);
CREATE INDEX cancellation_request_of_escrow ON cancellation_request (escrow_id, id DESC);
CREATE UNIQUE INDEX cancellation_request_pending ON cancellation_request (escrow_id) WHERE status = 'pending';

-- Tickets count up; a number whose transaction failed is not used again.
CREATE SEQUENCE dispute_ticket;
CREATE TABLE dispute (
    id                  entity_id PRIMARY KEY,
    escrow_id           entity_id NOT NULL REFERENCES escrow,
    ticket_number       bigint NOT NULL UNIQUE,
    opener              text NOT NULL CHECK (opener IN ('seller', 'buyer')),
    opened_by           entity_id NOT NULL REFERENCES app_user,
    reason              text NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    opened_at           timestamptz NOT NULL,
    back_to             text NOT NULL CHECK (back_to IN ('paid', 'delivered')),
    answered_at         timestamptz,
    resolved_at         timestamptz,
    outcome             text CHECK (outcome IN ('seller', 'buyer', 'split', 'withdrawn')),
    resolved_by         text CHECK (resolved_by IN ('operator', 'offer', 'clock')),
    seller_minor        bigint CHECK (seller_minor >= 0),
    buyer_minor         bigint CHECK (buyer_minor >= 0),
    escrow_fee_minor    bigint CHECK (escrow_fee_minor >= 0),
    developer_fee_minor bigint CHECK (developer_fee_minor >= 0),
    seller_net_minor    bigint CHECK (seller_net_minor >= 0),
    CHECK ((resolved_at IS NULL) = (outcome IS NULL)),
    CHECK ((resolved_by IS NULL) = (outcome IS NULL OR outcome = 'withdrawn')),
    CHECK (num_nonnulls(resolved_by, seller_minor, buyer_minor, escrow_fee_minor, developer_fee_minor,
                        seller_net_minor) IN (0, 6)),
    CHECK (seller_minor = escrow_fee_minor + developer_fee_minor + seller_net_minor)
);
CREATE INDEX dispute_of_escrow ON dispute (escrow_id, id DESC);
CREATE UNIQUE INDEX dispute_open ON dispute (escrow_id) WHERE resolved_at IS NULL;

CREATE TABLE purchase_proof (
    escrow_id         entity_id PRIMARY KEY REFERENCES escrow,
    phase             text NOT NULL CHECK (phase IN (
                          'waiting_seller_proof', 'submitted_waiting_buyer_review', 'correction_requested',
                          'needs_dhmad_review', 'accepted', 'accepted_by_timeout', 'expired_no_proof', 'rejected')),
    correction_rounds integer NOT NULL DEFAULT 0 CHECK (correction_rounds >= 0),
    upload_deadline   timestamptz NOT NULL,
    review_deadline   timestamptz
);

-- Those that were paid before have the phase that their state says.
INSERT INTO purchase_proof (escrow_id, phase, upload_deadline)
SELECT id, CASE WHEN status = 'cancelled' THEN 'expired_no_proof' ELSE 'waiting_seller_proof' END,
       paid_at + make_interval(hours => (fulfillment_policy ->> 'proofUploadDeadlineHours')::integer)
FROM escrow WHERE mode = 'quick_proof' AND paid_at IS NOT NULL;

-- What a door or a command sees of an escrow: the row, its people, its parts, its clocks. Most have
-- none of the parts: what can exist only once it is paid is not looked for before.
CREATE VIEW escrow_reading AS
SELECT e.*,
       s.email AS seller_user_email, s.first_name AS seller_first_name,
       s.last_name AS seller_last_name, s.language AS seller_language,
       s.phone_verified_at IS NOT NULL AS seller_phone_verified,
       b.email AS buyer_user_email, b.first_name AS buyer_first_name,
       b.last_name AS buyer_last_name, b.language AS buyer_language,
       b.phone_verified_at IS NOT NULL AS buyer_phone_verified,
       d.company AS creator_company,
       c.id AS contract_id, c.terms AS contract_terms, c.version AS contract_version,
       cs.signed_at AS contract_seller_signed_at, cb.signed_at AS contract_buyer_signed_at,
       CASE WHEN e.paid_at IS NOT NULL THEN (
           SELECT jsonb_agg(jsonb_build_array(r.rejected_at, r.previous_delivered_at, r.reason) ORDER BY r.n)
           FROM delivery_rejection r WHERE r.escrow_id = e.id) END AS rejections,
       q.id AS cancellation_id, q.requested_by AS cancellation_by, q.reason AS cancellation_reason,
       q.status AS cancellation_status, q.requested_at AS cancellation_at,
       q.answered_at AS cancellation_answered_at, q.answered_by AS cancellation_answered_by,
       t.id AS dispute_id, t.ticket_number, t.opener AS dispute_opener, t.opened_by AS dispute_by,
       t.reason AS dispute_reason, t.opened_at AS dispute_at, t.back_to AS dispute_back_to,
       t.answered_at AS dispute_answered_at, t.resolved_at AS dispute_resolved_at,
       t.outcome AS dispute_outcome, t.resolved_by AS dispute_resolved_by,
       t.seller_minor, t.buyer_minor, t.escrow_fee_minor AS settled_escrow_fee_minor,
       t.developer_fee_minor AS settled_developer_fee_minor, t.seller_net_minor,
       p.phase AS proof_phase, p.correction_rounds, p.upload_deadline, p.review_deadline,
       (SELECT l.due_at FROM deadline l
        WHERE l.escrow_id = e.id AND l.kind = 'completion' AND l.fired_at IS NULL
          AND l.cancelled_at IS NULL AND l.remaining IS NULL) AS completion_deadline
FROM escrow e
JOIN developer d ON d.id = e.creator_id
LEFT JOIN app_user s ON s.id = e.seller_id
LEFT JOIN app_user b ON b.id = e.buyer_id
LEFT JOIN contract c ON c.escrow_id = e.id AND e.mode = 'standard'
LEFT JOIN contract_signature cs ON cs.contract_id = c.id AND cs.version = c.version AND cs.role = 'seller'
LEFT JOIN contract_signature cb ON cb.contract_id = c.id AND cb.version = c.version AND cb.role = 'buyer'
LEFT JOIN LATERAL (
    SELECT * FROM cancellation_request n WHERE n.escrow_id = e.id AND e.paid_at IS NOT NULL
    ORDER BY n.id DESC LIMIT 1
) AS q ON true
LEFT JOIN LATERAL (
    SELECT * FROM dispute n WHERE n.escrow_id = e.id AND e.paid_at IS NOT NULL
    ORDER BY n.id DESC LIMIT 1
) AS t ON true
LEFT JOIN purchase_proof p ON p.escrow_id = e.id AND e.mode = 'quick_proof';

CREATE TYPE locked_escrow AS (reading escrow_reading, read_at timestamptz, due_deadline bigint);

-- Locks escrows in id order, waiting, and reads them with a snapshot taken after the wait; a join
-- inside the locking statement would show the people and deadlines of before it. `due_deadline` is
-- the earliest open deadline that is due: the clock's step comes first. `as_of` stands in for the
-- clock while the sandbox's is being advanced.
CREATE FUNCTION lock_escrows(wanted text[], skip_locked boolean, as_of timestamptz)
RETURNS SETOF locked_escrow LANGUAGE plpgsql AS $$
DECLARE
    got text[];
    read_at timestamptz;
BEGIN
    IF skip_locked THEN
        SELECT array_agg(l.id) INTO got FROM (
            SELECT id FROM escrow WHERE id = ANY (wanted) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS l;
    ELSE
        SELECT array_agg(l.id) INTO got FROM (
            SELECT id FROM escrow WHERE id = ANY (wanted) ORDER BY id FOR NO KEY UPDATE) AS l;
    END IF;
    read_at := coalesce(as_of, clock_timestamp() + (SELECT shift FROM clock));
    RETURN QUERY
    SELECT r, read_at,
           CASE WHEN NOT r.frozen THEN
               (SELECT l.id FROM deadline l
                WHERE l.escrow_id = r.id AND l.fired_at IS NULL AND l.cancelled_at IS NULL
                  AND l.remaining IS NULL AND l.kind NOT IN ('invitation_reminder', 'session')
                  AND l.due_at <= read_at
                ORDER BY l.due_at, l.id LIMIT 1) END
    FROM escrow_reading r WHERE r.id = ANY (got) ORDER BY r.id;
END $$;
-- aggregate: end

-- identity: begin
-- Who somebody is, asked by a developer. `expires_at` is business time: past it a pending one is
-- found by its id alone, and is superseded by the next. `mailed_at` is real time. The mailed link's
-- token is an HMAC over this row's id and `counter`: only its hash is kept; none in the sandbox.
CREATE TABLE identity_verification (
    id                 entity_id PRIMARY KEY,
    developer_id       entity_id NOT NULL REFERENCES developer,
    email              text NOT NULL CHECK (email = lower(btrim(email))),
    external_user_id   text CHECK (length(external_user_id) BETWEEN 1 AND 255),
    redirect_url       text CHECK (length(redirect_url) <= 2048),
    metadata           jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    kyc_status         text NOT NULL CHECK (kyc_status IN ('pending', 'approved', 'rejected')),
    needs_admin_review boolean NOT NULL DEFAULT false,
    superseded         boolean NOT NULL DEFAULT false,
    token_hash         bytea UNIQUE CHECK (length(token_hash) = 32),
    counter            smallint NOT NULL DEFAULT 0 CHECK (counter >= 0),
    mails              integer NOT NULL DEFAULT 0 CHECK (mails >= 0),
    mailed_at          timestamptz,
    linked_user_id     entity_id REFERENCES app_user,
    linked_at          timestamptz,
    seq                bigint NOT NULL CHECK (seq > 0),
    expires_at         timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT identity_link_has_moment CHECK ((linked_user_id IS NULL) = (linked_at IS NULL)),
    CONSTRAINT identity_mails_have_moment CHECK ((mails = 0) = (mailed_at IS NULL)),
    CONSTRAINT identity_mails_have_link CHECK (mails = 0 OR token_hash IS NOT NULL),
    CONSTRAINT identity_decided_is_done CHECK (
        kyc_status = 'pending' OR NOT needs_admin_review AND NOT superseded),
    CONSTRAINT identity_expires_later CHECK (expires_at > created_at)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX identity_pending ON identity_verification (developer_id, email)
    WHERE kyc_status = 'pending' AND NOT superseded;
CREATE INDEX identity_of_email ON identity_verification (developer_id, email, created_at DESC);
CREATE INDEX identity_unlinked ON identity_verification (email) WHERE linked_user_id IS NULL;
CREATE INDEX identity_of_user ON identity_verification (linked_user_id) WHERE linked_user_id IS NOT NULL;
CREATE INDEX identity_undecided ON identity_verification (id) WHERE kyc_status = 'pending' AND NOT superseded;

ALTER TABLE mail ADD COLUMN identity_id entity_id REFERENCES identity_verification;

-- Turns up to `most` events that are not fanned out into deliveries; says how many events.
-- Locks: the events (skipping what another worker has), then the lanes in id order.
CREATE OR REPLACE FUNCTION fan_out(most integer, moment timestamptz DEFAULT clock_timestamp()) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    fanned  integer;
    touched text[];
BEGIN
    WITH taken AS MATERIALIZED (
        SELECT v.subject_id, v.seq, v.subject_kind, v.id, v.type, v.recorded_at, v.from_state, v.to_state
        FROM event v
        WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
        ORDER BY v.recorded_at
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), made AS (
        INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, type, acknowledges, visible_at,
                              created_at)
        SELECT ordered_uuid(moment), e.id, t.id, t.recorded_at, t.type, a.acknowledges,
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
        UPDATE lane l SET next_due_at = moment WHERE l.endpoint_id = ANY (touched) AND l.next_due_at > moment;
    END IF;
    RETURN fanned;
END $$;
-- identity: end

-- speed: begin
-- The same ids as before, checked at a sixth of the price: no automaton is built for each of them.
ALTER DOMAIN entity_id DROP CONSTRAINT entity_id_check;
ALTER DOMAIN entity_id ADD CONSTRAINT entity_id_check
    CHECK (octet_length(VALUE) = 24 AND VALUE !~ '[^0-9a-f]');
-- speed: end
