-- Version 3: checkout sessions, people's visits to the pages, sign-in codes, files, papers, payments.
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
-- signatures: begin
-- What a signature looks like, sealed: a data URI. Never changed; signatures refer to it.
CREATE TABLE signature_image (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sealed text NOT NULL
);
INSERT INTO signature_image (sealed)
SELECT signature FROM developer WHERE signature IS NOT NULL
UNION SELECT image FROM contract_signature WHERE image IS NOT NULL;

ALTER TABLE developer ADD COLUMN signature_id bigint REFERENCES signature_image;
ALTER TABLE contract_signature ADD COLUMN image_id bigint REFERENCES signature_image;
UPDATE developer d SET signature_id = i.id FROM signature_image i WHERE i.sealed = d.signature;
UPDATE contract_signature s SET image_id = i.id FROM signature_image i WHERE i.sealed = s.image;

ALTER TABLE developer DROP COLUMN signature;
ALTER TABLE contract_signature DROP COLUMN image;
ALTER TABLE contract_signature ADD CONSTRAINT contract_signature_check
    CHECK ((method = 'typed') = (name IS NOT NULL) AND (method = 'typed') = (image_id IS NULL));
-- signatures: end
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

-- A six-digit code, mailed or sent to a phone: ten minutes, five tries, only in the browser that has
-- asked for it (`browser`: the hash of its token). A mailed one comes with a link that works for an
-- hour in any. Code and link are HMACs of the row's id under the secret key, so that nothing of them
-- is kept. `network`: where `ip` is, as far as one household or office shares it. Real time.
CREATE TABLE sign_in_code (
    id         entity_id PRIMARY KEY,
    purpose    text NOT NULL CHECK (purpose IN ('sign_in', 'phone')),
    email      text NOT NULL CHECK (email = lower(btrim(email))),
    phone      text CHECK (phone ~ '^\+[1-9][0-9]{6,14}$'),
    ip         text,
    network    text,
    browser    bytea CHECK (length(browser) = 32),
    tries      smallint NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 5),
    used_at    timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CHECK ((purpose = 'phone') = (phone IS NOT NULL))
);
CREATE INDEX sign_in_code_of ON sign_in_code (email, purpose, created_at DESC);
CREATE INDEX sign_in_code_from ON sign_in_code (ip, created_at DESC) WHERE ip IS NOT NULL;
CREATE INDEX sign_in_code_to ON sign_in_code (phone, created_at DESC) WHERE phone IS NOT NULL;
CREATE INDEX sign_in_code_expiry ON sign_in_code (expires_at);

-- A person's form is answered once, as a developer's request is.
ALTER TABLE idempotency DROP CONSTRAINT idempotency_developer_id_fkey,
    DROP CONSTRAINT idempotency_pkey;
ALTER TABLE idempotency ALTER COLUMN developer_id DROP NOT NULL;  -- newer servers name it
ALTER TABLE idempotency RENAME COLUMN developer_id TO caller_id;
ALTER TABLE idempotency ALTER COLUMN caller_id SET NOT NULL, ADD PRIMARY KEY (caller_id, key);

ALTER TABLE app_user ADD COLUMN phone text CHECK (phone ~ '^\+[1-9][0-9]{6,14}$');
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
-- files: begin
-- What a step has named; the bytes lie in the object store under the key, which is random. A file of
-- the store that has no row here a day later is nobody's.
CREATE TABLE file (
    key         text COLLATE "C" PRIMARY KEY CHECK (key ~ '^[0-9a-f]{64}$'),
    mime_type   text NOT NULL CHECK (mime_type IN ('image/png', 'image/jpeg', 'image/webp', 'application/pdf')),
    bytes       integer NOT NULL CHECK (bytes BETWEEN 1 AND 10485760),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    filename    text NOT NULL CHECK (length(filename) BETWEEN 1 AND 120),
    escrow_id   entity_id REFERENCES escrow,
    uploaded_by entity_id REFERENCES app_user,
    created_at  timestamptz NOT NULL
);
CREATE INDEX file_of_escrow ON file (escrow_id) WHERE escrow_id IS NOT NULL;
-- files: end
-- papers: begin
-- A contract's document in one state of its signatures: asked for in the step that made it
-- necessary, made by a worker. `due_at` is real time and doubles as a lease; `created_at` is business
-- time.
CREATE TABLE paper (
    contract_id entity_id NOT NULL REFERENCES contract,
    version     integer NOT NULL CHECK (version > 0),
    signing     text NOT NULL CHECK (signing IN ('unsigned', 'buyer-signed', 'seller-signed', 'fully-signed')),
    facts       jsonb NOT NULL,
    fingerprint text CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
    file_key    text COLLATE "C" REFERENCES file,
    tries       smallint NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (contract_id, version, signing),
    CONSTRAINT paper_is_made CHECK ((file_key IS NULL) = (fingerprint IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX paper_due ON paper (due_at) WHERE file_key IS NULL;
-- papers: end
-- people: begin
-- Whether the escrow waits for its seller, or for its buyer: what `rules.outlook.awaits` says, once
-- more, so that a dashboard finds it along the indexes below.
CREATE FUNCTION awaits_seller(e escrow) RETURNS boolean STABLE LANGUAGE sql
RETURN NOT e.frozen AND CASE e.status
    WHEN 'pending' THEN e.mode = 'standard' AND NOT EXISTS (
        SELECT FROM contract c JOIN contract_signature s ON s.contract_id = c.id AND s.version = c.version
        WHERE c.escrow_id = e.id AND s.role = 'seller')
    WHEN 'paid' THEN EXISTS (
            SELECT FROM cancellation_request q WHERE q.escrow_id = e.id AND q.status = 'pending')
        OR NOT EXISTS (
            SELECT FROM purchase_proof p WHERE p.escrow_id = e.id
              AND p.phase IN ('submitted_waiting_buyer_review', 'needs_dhmad_review'))
    WHEN 'delivered' THEN EXISTS (
        SELECT FROM cancellation_request q WHERE q.escrow_id = e.id AND q.status = 'pending')
    WHEN 'disputed' THEN EXISTS (
        SELECT FROM dispute d WHERE d.escrow_id = e.id AND d.resolved_at IS NULL
          AND d.answered_at IS NULL AND d.opener = 'buyer')
    ELSE false END;

CREATE FUNCTION awaits_buyer(e escrow) RETURNS boolean STABLE LANGUAGE sql
RETURN NOT e.frozen AND CASE e.status
    WHEN 'pending' THEN CASE e.mode WHEN 'standard' THEN (
            SELECT NOT coalesce(bool_or(s.role = 'buyer'), false)
                   OR e.seller_id IS NOT NULL AND coalesce(bool_or(s.role = 'seller'), false)
            FROM contract c JOIN contract_signature s ON s.contract_id = c.id AND s.version = c.version
            WHERE c.escrow_id = e.id)
        ELSE e.seller_id IS NOT NULL END
    WHEN 'paid' THEN EXISTS (
            SELECT FROM purchase_proof p WHERE p.escrow_id = e.id
              AND p.phase = 'submitted_waiting_buyer_review')
        AND NOT EXISTS (
            SELECT FROM cancellation_request q WHERE q.escrow_id = e.id AND q.status = 'pending')
    WHEN 'delivered' THEN NOT EXISTS (
        SELECT FROM cancellation_request q WHERE q.escrow_id = e.id AND q.status = 'pending')
    WHEN 'disputed' THEN EXISTS (
        SELECT FROM dispute d WHERE d.escrow_id = e.id AND d.resolved_at IS NULL
          AND d.answered_at IS NULL AND d.opener = 'seller')
    ELSE false END;

-- A person's open escrows. Of these columns only the end of an escrow changes any.
CREATE INDEX escrow_open_of_seller ON escrow (seller_id, id DESC)
    WHERE seller_id IS NOT NULL AND completed_at IS NULL AND cancelled_at IS NULL;
CREATE INDEX escrow_open_of_buyer ON escrow (buyer_id, id DESC)
    WHERE buyer_id IS NOT NULL AND completed_at IS NULL AND cancelled_at IS NULL;
-- people: end
-- proofs: begin
ALTER TABLE deadline DROP CONSTRAINT deadline_kind_check;
ALTER TABLE deadline ADD CONSTRAINT deadline_kind_check CHECK (kind IN (
    'expiry', 'acknowledged', 'completion', 'proof_upload', 'proof_review', 'delivery_overdue',
    'overdue_refund', 'cancellation_answer', 'dispute_answer', 'dispute_reminder', 'resolver',
    'invitation_reminder', 'session'));

-- What a seller has handed in as a purchase proof, at once; `correction` is what the buyer asked for
-- after looking at it.
CREATE TABLE proof_submission (
    id           entity_id PRIMARY KEY,
    escrow_id    entity_id NOT NULL REFERENCES purchase_proof,
    n            integer NOT NULL CHECK (n > 0),
    note         text CHECK (length(note) BETWEEN 1 AND 2000),
    correction   text CHECK (length(correction) BETWEEN 1 AND 2000),
    submitted_at timestamptz NOT NULL,
    UNIQUE (escrow_id, n)
);
CREATE TABLE proof_attachment (
    submission_id entity_id NOT NULL REFERENCES proof_submission,
    position      smallint NOT NULL CHECK (position BETWEEN 1 AND 10),
    file_key      text COLLATE "C" NOT NULL UNIQUE REFERENCES file,
    PRIMARY KEY (submission_id, position)
);
CREATE INDEX purchase_proof_undecided ON purchase_proof (escrow_id) WHERE phase = 'needs_dhmad_review';

-- What a party has said in a dispute, with its evidence, and what it has offered. An offer whose
-- dispute is over has lapsed, unless it was accepted.
CREATE TABLE dispute_statement (
    id         entity_id PRIMARY KEY,
    dispute_id entity_id NOT NULL REFERENCES dispute,
    role       text NOT NULL CHECK (role IN ('seller', 'buyer')),
    user_id    entity_id NOT NULL REFERENCES app_user,
    body       text CHECK (length(body) BETWEEN 1 AND 2000),
    stated_at  timestamptz NOT NULL
);
CREATE INDEX dispute_statement_of_dispute ON dispute_statement (dispute_id, stated_at);
CREATE TABLE dispute_evidence (
    statement_id entity_id NOT NULL REFERENCES dispute_statement,
    position     smallint NOT NULL CHECK (position BETWEEN 1 AND 10),
    file_key     text COLLATE "C" NOT NULL UNIQUE REFERENCES file,
    PRIMARY KEY (statement_id, position)
);
CREATE TABLE dispute_offer (
    id           entity_id PRIMARY KEY,
    dispute_id   entity_id NOT NULL REFERENCES dispute,
    role         text NOT NULL CHECK (role IN ('seller', 'buyer')),
    seller_minor bigint NOT NULL CHECK (seller_minor >= 0),
    buyer_minor  bigint NOT NULL CHECK (buyer_minor >= 0),
    outcome      text CHECK (outcome IN ('replaced', 'accepted')),
    offered_at   timestamptz NOT NULL
);
CREATE INDEX dispute_offer_of_dispute ON dispute_offer (dispute_id, id);
CREATE UNIQUE INDEX dispute_offer_open ON dispute_offer (dispute_id, role) WHERE outcome IS NULL;
-- proofs: end
-- identity documents: begin
-- What a person has uploaded to show who they are, in its order; `language` is the page's. The files
-- go some time after the decision: `store/identity.py`.
CREATE TABLE identity_document (
    verification_id entity_id NOT NULL REFERENCES identity_verification,
    position        smallint NOT NULL CHECK (position BETWEEN 1 AND 3),
    file_key        text COLLATE "C" NOT NULL UNIQUE REFERENCES file,
    language        text NOT NULL CHECK (language IN ('en', 'fr', 'ar')),
    submitted_at    timestamptz NOT NULL,
    PRIMARY KEY (verification_id, position)
);
-- identity documents: end
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
    proof_file         text COLLATE "C" REFERENCES file,
    payee              text CHECK (length(payee) <= 500),
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
CREATE INDEX payment_closable ON payment (ask_at) WHERE state = 'cancelled' AND ask_at IS NOT NULL;
CREATE INDEX payment_open_of_user ON payment (user_id)
    WHERE state IN ('created', 'pending') AND user_id IS NOT NULL;
CREATE UNIQUE INDEX payment_of_proof ON payment (proof_file) WHERE proof_file IS NOT NULL;
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
       s.last_name AS seller_last_name, s.language AS seller_language, s.timezone AS seller_timezone,
       s.phone_verified_at IS NOT NULL AS seller_phone_verified,
       b.email AS buyer_user_email, b.first_name AS buyer_first_name,
       b.last_name AS buyer_last_name, b.language AS buyer_language, b.timezone AS buyer_timezone,
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
       CASE WHEN e.mode = 'quick_proof' AND e.paid_at IS NOT NULL THEN (
           SELECT jsonb_agg(jsonb_build_array(u.id, u.submitted_at, u.note, u.correction, (
               SELECT jsonb_agg(jsonb_build_array(f.key, f.mime_type, f.bytes, f.sha256, f.filename)
                                ORDER BY a.position)
               FROM proof_attachment a JOIN file f ON f.key = a.file_key
               WHERE a.submission_id = u.id)) ORDER BY u.n)
           FROM proof_submission u WHERE u.escrow_id = e.id) END AS submissions,
       e.status = 'pending' AND EXISTS (
           SELECT FROM identity_verification i
           WHERE i.linked_user_id = e.seller_id AND i.developer_id = e.creator_id
             AND i.kyc_status = 'pending' AND NOT i.superseded AND i.expires_at > business_now())
           AS seller_awaits_identity,
       CASE WHEN e.status = 'pending' AND e.mode = 'instant' THEN (
           SELECT jsonb_build_array(y.id, y.payer_email, y.amount_minor, y.currency, y.provider)
           FROM payment y WHERE y.escrow_id = e.id AND y.mode = 'guest_pay' AND y.state = 'pending') END
           AS deposit,
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
