-- Version 3: checkout sessions, people's visits to the pages, sign-in codes.
-- sessions: begin
-- A promise of one step to one e-mail; the step's own rules decide again when it is taken.
CREATE TABLE checkout_session (
    id           uuid PRIMARY KEY,
    escrow_id    entity_id NOT NULL REFERENCES escrow,
    developer_id entity_id NOT NULL REFERENCES developer,
    action       text NOT NULL CHECK (action IN (
                     'sign_contract', 'accept_pay', 'complete', 'submit_proof', 'review_proof', 'dispute',
                     'request_cancellation', 'cancel_escrow', 'accept_cancellation', 'reject_cancellation',
                     'withdraw_dispute', 'answer_dispute')),
    email        text NOT NULL CHECK (email = lower(btrim(email))),
    redirect_url text NOT NULL CHECK (length(redirect_url) <= 2048),
    metadata     jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'completed', 'expired', 'cancelled')),
    expires_at   timestamptz NOT NULL,
    completed_at timestamptz,
    created_at   timestamptz NOT NULL,
    CHECK ((status = 'completed') = (completed_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX checkout_session_pending ON checkout_session (escrow_id) WHERE status = 'pending';
-- sessions: end
-- visits: begin
-- A browser that is signed in: only the token's hash is kept. Real time.
CREATE TABLE visit (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    email      text NOT NULL CHECK (email = lower(btrim(email))),
    language   text CHECK (language IN ('en', 'fr', 'ar')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX visit_expiry ON visit (expires_at);

-- A six-digit code, mailed or sent to a phone: ten minutes, five tries. Only an HMAC of it is kept.
CREATE TABLE sign_in_code (
    id         entity_id PRIMARY KEY,
    purpose    text NOT NULL CHECK (purpose IN ('sign_in', 'phone')),
    email      text NOT NULL CHECK (email = lower(btrim(email))),
    code_hash  bytea NOT NULL CHECK (length(code_hash) = 32),
    tries      smallint NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 5),
    used_at    timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_code_of ON sign_in_code (email, purpose, created_at DESC);
-- visits: end

-- tickets: begin
-- Tickets count up without a gap: a sequence would lose the numbers of what is rolled back.
CREATE TABLE dispute_counter (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    last_number bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0)
);
INSERT INTO dispute_counter (last_number) SELECT coalesce(max(ticket_number), 0) FROM dispute;
DROP SEQUENCE dispute_ticket;
-- tickets: end
-- payments: begin
ALTER TABLE event DROP CONSTRAINT event_subject_kind_check;
ALTER TABLE event ADD CONSTRAINT event_subject_kind_check CHECK (subject_kind IN (
    'escrow', 'user', 'developer', 'endpoint', 'identity', 'payment'));

-- A guest's payment came by this provider, and a refund goes back by it.
DROP FUNCTION lock_escrows(text[], boolean, timestamptz);
DROP TYPE locked_escrow;
DROP VIEW escrow_reading;
ALTER TABLE escrow ADD COLUMN guest_provider text
    CONSTRAINT escrow_guest_is_instant CHECK (guest_provider IS NULL OR mode = 'instant');

-- Money from the outside and to it; rules/payment.py is its table. `received` is what has come, 0
-- while nothing has; a charge of a provider's is booked once, whichever payment it is found in.
-- All times are real.
CREATE TABLE payment (
    id                 entity_id PRIMARY KEY,
    kind               text NOT NULL CHECK (kind IN ('topup', 'accept_pay', 'payout', 'refund')),
    mode               text NOT NULL GENERATED ALWAYS AS (
                           CASE WHEN kind = 'accept_pay' AND user_id IS NULL THEN 'guest_pay' ELSE kind END) STORED,
    state              text NOT NULL CHECK (state IN (
                           'created', 'pending', 'succeeded', 'failed', 'cancelled', 'needs_operator')),
    provider           text NOT NULL CHECK (provider IN ('sandbox', 'bank_transfer', 'stripe')),
    user_id            entity_id REFERENCES app_user,
    escrow_id          entity_id REFERENCES escrow,
    session_id         uuid REFERENCES checkout_session,
    origin_id          entity_id REFERENCES payment,
    amount_minor       bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 900000000000000),
    currency           text NOT NULL REFERENCES currency,
    expected_minor     bigint CHECK (expected_minor > 0),
    received_minor     bigint NOT NULL DEFAULT 0 CHECK (received_minor BETWEEN 0 AND 900000000000000),
    received_currency  text REFERENCES currency,
    charge_reference   text CHECK (length(charge_reference) <= 300),
    provider_reference text CHECK (length(provider_reference) <= 300),
    page_url           text CHECK (length(page_url) <= 2048),
    payer_email        text,
    proof_file         text,
    reason             text CHECK (length(reason) <= 500),
    note               text CHECK (length(note) <= 500),
    seq                bigint NOT NULL CHECK (seq > 0),
    expires_at         timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    asked_at           timestamptz,
    ask_at             timestamptz,
    decided_by         text CHECK (decided_by IN ('operator', 'user', 'clock', 'system', 'developer')),
    settled_at         timestamptz,
    CONSTRAINT payment_received CHECK ((received_minor = 0) = (received_currency IS NULL)),
    CONSTRAINT payment_charge_is_named CHECK (
        received_minor = 0 OR kind = 'payout' OR provider = 'bank_transfer' OR charge_reference IS NOT NULL),
    CONSTRAINT payment_has_owner CHECK (CASE kind
        WHEN 'refund' THEN origin_id IS NOT NULL OR escrow_id IS NOT NULL
        WHEN 'accept_pay' THEN escrow_id IS NOT NULL AND (user_id IS NOT NULL OR payer_email IS NOT NULL)
        ELSE user_id IS NOT NULL END),
    CONSTRAINT payment_final_has_moment CHECK (
        (state IN ('succeeded', 'failed', 'cancelled')) = (settled_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX payment_charge ON payment (provider, charge_reference)
    WHERE charge_reference IS NOT NULL AND received_minor > 0;
CREATE UNIQUE INDEX payment_reference ON payment (provider, provider_reference)
    WHERE provider_reference IS NOT NULL AND kind <> 'refund';
CREATE UNIQUE INDEX payment_of_guest ON payment (escrow_id)
    WHERE mode = 'guest_pay' AND state IN ('created', 'pending');
CREATE INDEX payment_askable ON payment (ask_at)
    WHERE state IN ('created', 'pending') AND provider <> 'bank_transfer' AND kind <> 'payout';
CREATE INDEX payment_unfinished ON payment (created_at)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX payment_of_escrow ON payment (escrow_id) WHERE escrow_id IS NOT NULL;
CREATE INDEX payment_of_user ON payment (user_id, created_at DESC) WHERE user_id IS NOT NULL;
CREATE INDEX payment_of_origin ON payment (origin_id) WHERE origin_id IS NOT NULL;

-- What the sandbox's provider knows: an outside of its own, which never looks at `payment`. `told`
-- counts the notifications that went out after a button was pressed.
CREATE TABLE sandbox_charge (
    reference    text PRIMARY KEY CHECK (length(reference) <= 300),
    payment_id   entity_id NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL REFERENCES currency,
    description  text NOT NULL,
    return_url   text NOT NULL,
    expires_at   timestamptz NOT NULL,
    paid         boolean,
    pressed_at   timestamptz,
    told         smallint NOT NULL DEFAULT 0 CHECK (told >= 0),
    is_told      boolean NOT NULL DEFAULT false,
    CHECK ((paid IS NULL) = (pressed_at IS NULL))
);
CREATE INDEX sandbox_charge_untold ON sandbox_charge (pressed_at) WHERE pressed_at IS NOT NULL AND NOT is_told;

CREATE TABLE sandbox_refund (
    reference    text NOT NULL REFERENCES sandbox_charge,
    refund_id    entity_id NOT NULL,
    position     bigint GENERATED ALWAYS AS IDENTITY,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (reference, refund_id)
);

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
-- payments: end
