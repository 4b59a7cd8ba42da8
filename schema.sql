-- Amana's database, whole. PostgreSQL >= 16, no extension.
--
-- Applied by `amana migrate` as the owner; the application's role gets only the grants that
-- service/store/schema.py lists. The rules live in service/rules/; what stands here would stop us
-- anyway: money that does not balance, a step outside the table, a changed past.

-- 1. Ground ---------------------------------------------------------------------------------------

-- 24 hex digits. Each row has several: '{24}' in an expression costs six times as much to check.
CREATE DOMAIN entity_id AS text COLLATE "C"
    CHECK (octet_length(VALUE) = 24 AND VALUE !~ '[^0-9a-f]');

CREATE TABLE schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The sandbox's movable clock: one row; business time = real time + shift. In live it stays 0.
CREATE TABLE clock (
    id              boolean PRIMARY KEY DEFAULT true CHECK (id),
    shift           interval NOT NULL DEFAULT '0',
    held_by         uuid,
    lease_until     timestamptz
);
INSERT INTO clock DEFAULT VALUES;

CREATE FUNCTION business_now() RETURNS timestamptz STABLE LANGUAGE sql
RETURN statement_timestamp() + (SELECT shift FROM clock);

-- Where the order of commits stands beside this cluster's counter of transactions: one row. A dump
-- brings the numbers of the cluster that it was taken from along: where `cluster` is another one,
-- `amana migrate` sets `ahead` so that all that is written here comes after all that was.
CREATE TABLE commit_order (
    id      boolean PRIMARY KEY DEFAULT true CHECK (id),
    ahead   bigint NOT NULL DEFAULT 0 CHECK (ahead >= 0),
    cluster text
);
INSERT INTO commit_order DEFAULT VALUES;

-- This transaction's number in the order of commits, and the horizon: below it nothing can appear.
CREATE FUNCTION commit_number() RETURNS xid8 VOLATILE LANGUAGE sql
RETURN (pg_current_xact_id()::text::bigint + (SELECT ahead FROM commit_order))::text::xid8;
CREATE FUNCTION commit_horizon() RETURNS xid8 STABLE LANGUAGE sql
RETURN (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT ahead FROM commit_order))::text::xid8;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = '55000';
END $$;

CREATE TABLE currency (
    code     text PRIMARY KEY,
    exponent smallint NOT NULL CHECK (exponent BETWEEN 0 AND 8)
);
INSERT INTO currency VALUES ('TND', 3), ('USD', 2), ('EUR', 2), ('USDC', 6);

-- Rates to TND, by the operator or the fetch job; only the newest of a currency is used.
CREATE TABLE fx_rate (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    currency   text NOT NULL REFERENCES currency,
    rate       numeric NOT NULL CHECK (rate > 0),
    source     text NOT NULL,
    fetched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fx_rate_newest ON fx_rate (currency, fetched_at DESC);

-- 2. Who ------------------------------------------------------------------------------------------

CREATE TABLE app_user (
    id                entity_id PRIMARY KEY,
    email             text NOT NULL UNIQUE CHECK (email = lower(btrim(email))),
    first_name        text NOT NULL,
    last_name         text NOT NULL,
    email_verified_at timestamptz,
    phone_verified_at timestamptz,
    language          text NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'fr', 'ar')),
    timezone          text,
    seq               bigint NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    phone             text CHECK (phone ~ '^\+[1-9][0-9]{6,14}$')
);

-- What a signature looks like, sealed: a data URI. Never changed; signatures refer to it.
CREATE TABLE signature_image (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sealed text NOT NULL
);

-- A developer is associated with at most one user, a user with at most one developer.
CREATE TABLE developer (
    id            entity_id PRIMARY KEY,
    email         text NOT NULL UNIQUE CHECK (email = lower(btrim(email))),
    company       text NOT NULL,
    user_id       entity_id UNIQUE REFERENCES app_user,
    redirect_urls text[] NOT NULL DEFAULT '{}',
    signature_id  bigint REFERENCES signature_image,
    seq           bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL
);

CREATE TABLE operator (
    id         entity_id PRIMARY KEY,
    email      text NOT NULL UNIQUE CHECK (email = lower(btrim(email))),
    created_at timestamptz NOT NULL
);

-- The key itself is shown once; only its SHA-256 is kept.
CREATE TABLE api_key (
    id                    entity_id PRIMARY KEY,
    developer_id          entity_id REFERENCES developer,
    operator_id           entity_id REFERENCES operator,
    name                  text NOT NULL,
    prefix                text NOT NULL,
    hash                  bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    environment           text NOT NULL CHECK (environment IN ('sandbox', 'live')),
    is_active             boolean NOT NULL DEFAULT true,
    expires_at            timestamptz,
    rate_limit_per_minute integer CHECK (rate_limit_per_minute > 0),
    metadata              jsonb NOT NULL DEFAULT '{}',
    last_used_at          timestamptz,
    created_at            timestamptz NOT NULL,
    CHECK (num_nonnulls(developer_id, operator_id) = 1)
);
CREATE INDEX api_key_developer ON api_key (developer_id);

-- 3. Escrows and their life -----------------------------------------------------------------------

-- The tables of steps (service/rules), written here by `amana migrate`; an event outside fails.
CREATE TABLE transition (
    family     text NOT NULL,
    mode       text NOT NULL,
    step       text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (family, mode, step, from_state, to_state)
);

-- Both families. Money in minor units: amount in the face currency, all else in the ledger's.
-- `seq` counts this escrow's events: gapless, single writer (the holder of the row's lock).
CREATE TABLE escrow (
    id                      entity_id PRIMARY KEY,
    mode                    text NOT NULL
                            CHECK (mode IN ('standard', 'quick', 'quick_proof', 'instant', 'milestone')),
    status                  text NOT NULL
                            CHECK (status IN ('pending', 'paid', 'delivered', 'completed', 'cancelled', 'disputed',
                                              'working', 'pendingRelease', 'inDispute', 'released', 'resolved')),
    seq                     bigint NOT NULL DEFAULT 0,
    frozen                  boolean NOT NULL DEFAULT false,
    creator_id              entity_id NOT NULL REFERENCES developer,
    seller_id               entity_id REFERENCES app_user,
    seller_email            text,
    buyer_id                entity_id REFERENCES app_user,
    buyer_email             text,
    title                   text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    description             text CHECK (length(description) <= 2000),
    language                text NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'fr', 'ar')),
    currency                text NOT NULL REFERENCES currency,
    ledger_currency         text NOT NULL REFERENCES currency,
    amount_minor            bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 900000000000000),
    fx_rate                 numeric NOT NULL CHECK (fx_rate > 0),
    amount_ledger_minor     bigint NOT NULL CHECK (amount_ledger_minor BETWEEN 1 AND 900000000000000),
    escrow_fee_minor        bigint NOT NULL CHECK (escrow_fee_minor >= 0),
    developer_fee_bps       integer NOT NULL DEFAULT 0 CHECK (developer_fee_bps BETWEEN 0 AND 2500),
    developer_fee_minor     bigint NOT NULL DEFAULT 0 CHECK (developer_fee_minor >= 0),
    developer_fee_user_id   entity_id REFERENCES app_user,
    estimated_delivery_days integer CHECK (estimated_delivery_days BETWEEN 1 AND 3650),
    auto_complete           text NOT NULL DEFAULT 'manual' CHECK (auto_complete IN ('manual', 'on_ack')),
    fulfillment_policy      jsonb,
    funded_minor            bigint NOT NULL DEFAULT 0 CHECK (funded_minor >= 0),
    held_minor              bigint NOT NULL DEFAULT 0 CHECK (held_minor >= 0),
    released_minor          bigint NOT NULL DEFAULT 0 CHECK (released_minor >= 0),
    refunded_minor          bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    fees_minor              bigint NOT NULL DEFAULT 0 CHECK (fees_minor >= 0),
    cancel_reason           text CHECK (cancel_reason IN (
                                'expired', 'undelivered', 'proof_expired', 'proof_rejected', 'seller',
                                'buyer', 'creator', 'request_accepted', 'dispute')),
    expires_at              timestamptz,
    paid_at                 timestamptz,
    delivered_at            timestamptz,
    completed_at            timestamptz,
    cancelled_at            timestamptz,
    created_at              timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL,
    -- A guest's payment came by this provider, and a refund goes back by it.
    guest_provider          text CONSTRAINT escrow_guest_is_instant CHECK (guest_provider IS NULL OR mode = 'instant'),
    CONSTRAINT escrow_books CHECK (funded_minor = held_minor + released_minor + refunded_minor + fees_minor),
    CONSTRAINT escrow_final_holds_nothing CHECK (
        mode = 'milestone' OR status NOT IN ('completed', 'cancelled') OR held_minor = 0),
    CONSTRAINT escrow_unpaid_holds_nothing CHECK (
        mode = 'milestone' OR status <> 'pending' OR funded_minor = 0),
    CONSTRAINT escrow_paid_holds_all CHECK (
        mode = 'milestone' OR status NOT IN ('paid', 'delivered', 'disputed') OR held_minor = amount_ledger_minor),
    CONSTRAINT escrow_moments CHECK (
        mode = 'milestone' OR (status = 'completed') = (completed_at IS NOT NULL)
        AND (status = 'cancelled') = (cancelled_at IS NOT NULL AND cancel_reason IS NOT NULL)
        AND (status IN ('pending', 'cancelled') OR paid_at IS NOT NULL)),
    CONSTRAINT escrow_fees_fit CHECK (escrow_fee_minor + developer_fee_minor <= amount_ledger_minor),
    CONSTRAINT escrow_proof_has_policy CHECK ((mode = 'quick_proof') = (fulfillment_policy IS NOT NULL)),
    CONSTRAINT escrow_fee_has_receiver CHECK (developer_fee_minor = 0 OR developer_fee_user_id IS NOT NULL),
    CONSTRAINT escrow_two_parties CHECK (mode = 'milestone' OR seller_email <> buyer_email),
    -- What one family has and the other has not: parties and a delivery, or roles and milestones.
    CONSTRAINT escrow_family CHECK (CASE WHEN mode = 'milestone' THEN
        num_nonnulls(seller_id, seller_email, buyer_id, buyer_email, estimated_delivery_days) = 0
        AND status IN ('working', 'pendingRelease', 'inDispute', 'released', 'resolved')
        AND currency = ledger_currency AND amount_minor = amount_ledger_minor
    ELSE num_nonnulls(seller_email, buyer_email, estimated_delivery_days) = 3
        AND status NOT IN ('working', 'pendingRelease', 'inDispute', 'released', 'resolved') END)
) WITH (fillfactor = 70);
CREATE INDEX escrow_of_creator ON escrow (creator_id, id DESC);
CREATE INDEX escrow_of_seller ON escrow (seller_id, id DESC) WHERE seller_id IS NOT NULL;
CREATE INDEX escrow_of_buyer ON escrow (buyer_id, id DESC) WHERE buyer_id IS NOT NULL;
-- What a buyer has in escrow, without a look at what is long over.
CREATE INDEX escrow_held_for ON escrow (buyer_id, ledger_currency) INCLUDE (held_minor)
    WHERE held_minor > 0;
-- A party who has not registered yet is found by e-mail.
CREATE INDEX escrow_awaits_seller ON escrow (seller_email) WHERE seller_id IS NULL;
CREATE INDEX escrow_awaits_buyer ON escrow (buyer_email) WHERE buyer_id IS NULL;

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

CREATE TABLE contract (
    id         entity_id PRIMARY KEY,
    escrow_id  entity_id NOT NULL UNIQUE REFERENCES escrow,
    terms      text NOT NULL CHECK (length(terms) BETWEEN 1 AND 10000),
    version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- A signature is given to one version of the contract; a change of terms makes a new version.
-- Its image is a drawn one, or the one that is stored. `name` is a typed one.
CREATE TABLE contract_signature (
    contract_id entity_id NOT NULL REFERENCES contract,
    version     integer NOT NULL,
    role        text NOT NULL CHECK (role IN ('seller', 'buyer')),
    user_id     entity_id NOT NULL REFERENCES app_user,
    email       text NOT NULL,
    method      text NOT NULL CHECK (method IN ('stored', 'drawn', 'typed')),
    image_id    bigint REFERENCES signature_image,
    name        text CHECK (length(name) BETWEEN 1 AND 200),
    ip          text,
    signed_at   timestamptz NOT NULL,
    PRIMARY KEY (contract_id, version, role),
    CHECK ((method = 'typed') = (name IS NOT NULL) AND (method = 'typed') = (image_id IS NULL))
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

-- Tickets count up without a gap: a sequence would lose the numbers of what is rolled back.
CREATE TABLE dispute_counter (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    last_number bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0)
);
INSERT INTO dispute_counter DEFAULT VALUES;

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

-- The audit trail, the webhook outbox and the source of replay at once. Key: (subject, seq).
-- `xid` makes (xid, position) a commit-safe order: below the horizon nothing can appear.
CREATE TABLE event (
    subject_id   entity_id NOT NULL,
    seq          bigint NOT NULL CHECK (seq > 0),
    subject_kind text NOT NULL CHECK (subject_kind IN (
                     'escrow', 'user', 'developer', 'endpoint', 'identity', 'payment')),
    id           uuid NOT NULL UNIQUE,
    type         text,
    family       text,
    mode         text,
    step         text NOT NULL,
    from_state   text,
    to_state     text,
    actor_kind   text NOT NULL CHECK (actor_kind IN ('developer', 'user', 'operator', 'clock', 'system')),
    actor_id     entity_id,
    key_id       entity_id,
    ip           text,
    request_id   text,
    at           timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid          xid8 NOT NULL DEFAULT commit_number(),
    position     bigint GENERATED ALWAYS AS IDENTITY,
    fanned_at    timestamptz,
    -- What happened beyond the states, for as long as the event; the webhook's body goes sooner.
    said         jsonb CHECK (jsonb_typeof(said) = 'object'),
    PRIMARY KEY (subject_id, seq),
    FOREIGN KEY (family, mode, step, from_state, to_state) REFERENCES transition,
    CHECK (subject_kind <> 'escrow' OR num_nonnulls(family, mode, from_state, to_state) = 4)
);
CREATE INDEX event_unfanned ON event (recorded_at) WHERE fanned_at IS NULL AND type IS NOT NULL;
CREATE INDEX event_commit_order ON event (xid, position);

-- `fanned_at` alone may change: the outbox's mark.
CREATE TRIGGER event_append_only BEFORE UPDATE OF
    subject_id, seq, subject_kind, id, type, family, mode, step, from_state, to_state, actor_kind,
    actor_id, key_id, ip, request_id, at, recorded_at, xid, position, said OR DELETE
    ON event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every 1 000 events are sealed: SHA-256 over the previous seal and the rows, in commit order.
CREATE TABLE event_seal (
    number        bigint PRIMARY KEY,
    last_xid      xid8 NOT NULL,
    last_position bigint NOT NULL,
    digest        bytea NOT NULL CHECK (length(digest) = 32),
    sealed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What is sealed of an event: everything but the outbox's mark. Times as microseconds since 1970.
CREATE FUNCTION event_text(v event) RETURNS text STABLE LANGUAGE sql
RETURN (jsonb_build_array(
    v.subject_id, v.seq, v.subject_kind, v.id, v.type, v.family, v.mode, v.step, v.from_state,
    v.to_state, v.actor_kind, v.actor_id, v.key_id, v.ip, v.request_id,
    (extract(epoch FROM v.at) * 1000000)::bigint,
    (extract(epoch FROM v.recorded_at) * 1000000)::bigint, v.xid::text, v.position)
    || CASE WHEN v.said IS NULL THEN '[]' ELSE jsonb_build_array(v.said) END)::text;

-- Timers. Open ones are those that neither fired nor were cancelled; `remaining` = frozen.
CREATE TABLE deadline (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    escrow_id     entity_id NOT NULL REFERENCES escrow,
    kind          text NOT NULL CHECK (kind IN (
                      'expiry', 'acknowledged', 'completion', 'proof_upload', 'proof_review',
                      'delivery_overdue', 'overdue_refund', 'cancellation_answer', 'dispute_answer',
                      'dispute_reminder', 'resolver', 'invitation_reminder', 'session')),
    subject       text NOT NULL DEFAULT '',
    due_at        timestamptz NOT NULL,
    armed_version bigint NOT NULL,
    remaining     interval,
    fired_at      timestamptz,
    cancelled_at  timestamptz,
    CHECK (num_nonnulls(fired_at, cancelled_at) <= 1)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX deadline_open ON deadline (escrow_id, kind, subject)
    WHERE fired_at IS NULL AND cancelled_at IS NULL;
CREATE INDEX deadline_due ON deadline (due_at, id)
    WHERE fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NULL;

-- 4. Ledger ---------------------------------------------------------------------------------------

-- Users' and escrows' accounts have a floor and keep their balance on the row; the operator's
-- (fees, clearing, the outside) keep none: one hot row would serialize every payment.
CREATE TABLE account (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN (
                      'available', 'pending', 'held', 'platform_fees', 'protocol_fees', 'clearing', 'outside')),
    owner         text NOT NULL DEFAULT '' COLLATE "C",
    currency      text NOT NULL REFERENCES currency,
    balance_minor bigint,
    UNIQUE (kind, owner, currency),
    UNIQUE (id, currency),
    CONSTRAINT account_floor CHECK (balance_minor >= 0),
    CONSTRAINT account_bound CHECK (balance_minor <= 900000000000000),
    CONSTRAINT account_keeps_balance CHECK (
        (kind IN ('available', 'pending', 'held')) = (balance_minor IS NOT NULL))
) WITH (fillfactor = 70);

CREATE TABLE transfer (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_account bigint NOT NULL,
    to_account   bigint NOT NULL,
    currency     text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    reason       text NOT NULL,
    escrow_id    entity_id REFERENCES escrow,
    subject_id   entity_id NOT NULL,
    seq          bigint NOT NULL,
    corrects     bigint REFERENCES transfer,
    at           timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (from_account <> to_account),
    FOREIGN KEY (from_account, currency) REFERENCES account (id, currency),
    FOREIGN KEY (to_account, currency) REFERENCES account (id, currency),
    FOREIGN KEY (subject_id, seq) REFERENCES event DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX transfer_from ON transfer (from_account, id);
CREATE INDEX transfer_to ON transfer (to_account, id);
CREATE INDEX transfer_of_escrow ON transfer (escrow_id) WHERE escrow_id IS NOT NULL;
CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE ON transfer
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfer_no_truncate BEFORE TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Posts transfers, given as parallel arrays, in one call: opens missing accounts, locks those with
-- a floor in id order, moves their balances, then writes the immutable rows.
CREATE FUNCTION post_transfers(
    from_kinds text[], from_owners text[], to_kinds text[], to_owners text[], currencies text[],
    amounts bigint[], reasons text[], escrows text[], subjects text[], seqs bigint[], business_at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account (kind, owner, currency, balance_minor)
    SELECT DISTINCT side.kind, side.owner, side.currency,
           CASE WHEN side.kind IN ('available', 'pending', 'held') THEN 0 END
    FROM (SELECT unnest(from_kinds) AS kind, unnest(from_owners) AS owner, unnest(currencies) AS currency
          UNION SELECT unnest(to_kinds), unnest(to_owners), unnest(currencies)) AS side
    WHERE NOT EXISTS (SELECT FROM account a
                      WHERE a.kind = side.kind AND a.owner = side.owner AND a.currency = side.currency)
    ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;

    PERFORM FROM account a
    JOIN (SELECT unnest(from_kinds) AS kind, unnest(from_owners) AS owner, unnest(currencies) AS currency
          UNION SELECT unnest(to_kinds), unnest(to_owners), unnest(currencies)) AS side
      ON a.kind = side.kind AND a.owner = side.owner AND a.currency = side.currency
    WHERE a.balance_minor IS NOT NULL
    ORDER BY a.id
    FOR NO KEY UPDATE OF a;

    UPDATE account a SET balance_minor = a.balance_minor + change.amount
    FROM (SELECT kind, owner, currency, sum(amount)::bigint AS amount
          FROM (SELECT unnest(to_kinds) AS kind, unnest(to_owners) AS owner,
                       unnest(currencies) AS currency, unnest(amounts) AS amount
                UNION ALL
                SELECT unnest(from_kinds), unnest(from_owners), unnest(currencies), -unnest(amounts)) AS leg
          GROUP BY kind, owner, currency) AS change
    WHERE a.kind = change.kind AND a.owner = change.owner AND a.currency = change.currency
      AND a.balance_minor IS NOT NULL AND change.amount <> 0;

    INSERT INTO transfer (from_account, to_account, currency, amount_minor, reason, escrow_id, subject_id, seq, at)
    SELECT source.id, target.id, leg.currency, leg.amount, leg.reason, leg.escrow, leg.subject, leg.seq, business_at
    FROM unnest(from_kinds, from_owners, to_kinds, to_owners, currencies, amounts, reasons, escrows, subjects, seqs)
         WITH ORDINALITY AS leg (from_kind, from_owner, to_kind, to_owner, currency, amount, reason, escrow,
                                 subject, seq, n)
    JOIN account source ON source.kind = leg.from_kind AND source.owner = leg.from_owner
                       AND source.currency = leg.currency
    JOIN account target ON target.kind = leg.to_kind AND target.owner = leg.to_owner
                       AND target.currency = leg.currency
    ORDER BY leg.n;
END $$;

-- 5. Answers, checks ------------------------------------------------------------------------------

-- 2xx answers only; `sealed` bodies show a secret and live 24 h, the others 30 days. The caller is a
-- developer, or a user whose browser has sent a form: ids of both are never the same.
CREATE TABLE idempotency (
    caller_id    entity_id NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint  bytea NOT NULL CHECK (length(fingerprint) = 32),
    status       smallint NOT NULL CHECK (status BETWEEN 200 AND 299),
    body         bytea NOT NULL,
    is_sealed    boolean NOT NULL DEFAULT false,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (caller_id, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- `seen_xid`: the events of all transactions before it were looked at.
CREATE TABLE invariant_result (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    ok         boolean NOT NULL,
    breaches   jsonb NOT NULL DEFAULT '[]',
    checked_at timestamptz NOT NULL,
    last_ok_at timestamptz,
    seen_xid   xid8 NOT NULL DEFAULT '0'
);

-- 6. Identities, invitations and mails --------------------------------------------------------------
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
-- identity: end
-- mail: begin
-- One standing invitation per person and escrow. The link's token is an HMAC over this row's id and
-- `counter`: only its hash is kept. Spent once accepted, void once the escrow is final, or the person
-- no longer named in it.
CREATE TABLE invitation (
    id          entity_id PRIMARY KEY,
    escrow_id   entity_id NOT NULL REFERENCES escrow,
    role        text NOT NULL CHECK (role IN (
                    'seller', 'buyer', 'approver', 'service_provider', 'platform', 'release_signer',
                    'dispute_resolver', 'receiver', 'milestone_receiver')),
    email       text NOT NULL CHECK (email = lower(btrim(email))),
    token_hash  bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    counter     smallint NOT NULL DEFAULT 0 CHECK (counter >= 0),
    reminders   smallint NOT NULL DEFAULT 0 CHECK (reminders >= 0),
    user_id     entity_id REFERENCES app_user,
    accepted_at timestamptz,
    created_at  timestamptz NOT NULL,
    closed_at   timestamptz,
    CHECK ((user_id IS NULL) = (accepted_at IS NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX invitation_stands ON invitation (escrow_id, email) WHERE closed_at IS NULL;
CREATE INDEX invitation_of_user ON invitation (user_id) WHERE user_id IS NOT NULL;

-- A mail is a row: what is told to whom, never a token. The row is the job: due while pending and
-- `visible_at` (real time) has come; a claim moves it by the lease, a token fences the settling.
CREATE TABLE mail (
    id            entity_id PRIMARY KEY,
    recipient     text NOT NULL,
    template      text NOT NULL,
    language      text NOT NULL CHECK (language IN ('en', 'fr', 'ar')),
    facts         jsonb NOT NULL,
    escrow_id     entity_id REFERENCES escrow,
    invitation_id entity_id REFERENCES invitation,
    dedupe_key    text NOT NULL UNIQUE,
    message_id    text NOT NULL UNIQUE,
    state         text NOT NULL DEFAULT 'pending'
                  CHECK (state IN ('pending', 'sent', 'failed', 'cancelled')),
    attempt       smallint NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    visible_at    timestamptz NOT NULL,
    claim_token   uuid,
    sent_at       timestamptz,
    last_error    text CHECK (length(last_error) <= 500),
    created_at    timestamptz NOT NULL,
    identity_id   entity_id REFERENCES identity_verification,
    CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
    CHECK (state = 'pending' OR claim_token IS NULL)
) WITH (fillfactor = 70);
CREATE INDEX mail_due ON mail (visible_at) WHERE state = 'pending';
CREATE INDEX mail_sent_to ON mail (recipient, sent_at DESC) WHERE state = 'sent';
CREATE INDEX mail_sent ON mail (sent_at DESC) WHERE state = 'sent';
CREATE INDEX mail_of_escrow ON mail (escrow_id) WHERE escrow_id IS NOT NULL;
-- mail: end

-- 7. Webhooks: bodies, endpoints, lanes, deliveries, attempts --------------------------------------
-- delivery: begin
-- The exact bytes of each envelope, signed and sent alike on every attempt. Weekly partitions.
CREATE TABLE webhook_body (
    event_id    uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (event_id, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE TABLE webhook_body_default PARTITION OF webhook_body DEFAULT;

-- `headers` is sealed JSON; `flag` says what was wrong with the address when it was last refused.
-- `max_per_second` and `fifo` are read by the claim.
CREATE TABLE webhook_endpoint (
    id              entity_id PRIMARY KEY,
    developer_id    entity_id NOT NULL REFERENCES developer,
    url             text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    events          text[] NOT NULL CHECK (cardinality(events) > 0),
    is_active       boolean NOT NULL DEFAULT true,
    ladder          text NOT NULL DEFAULT 'standard' CHECK (ladder IN ('standard', 'brief')),
    timeout_seconds smallint NOT NULL DEFAULT 10 CHECK (timeout_seconds BETWEEN 1 AND 30),
    headers         bytea,
    max_per_second  smallint CHECK (max_per_second BETWEEN 1 AND 1000),
    fifo            boolean NOT NULL DEFAULT false,
    disabled_reason text,
    flag            text,
    seq             bigint NOT NULL DEFAULT 0,
    deleted_at      timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CHECK (deleted_at IS NULL OR NOT is_active)
);
CREATE INDEX webhook_endpoint_of_developer ON webhook_endpoint (developer_id, id)
    WHERE deleted_at IS NULL;
COMMENT ON COLUMN webhook_endpoint.max_per_second IS
    'How many attempts a second at most; NULL: as many as the window lets through. Read by the claim.';
COMMENT ON COLUMN webhook_endpoint.fifo IS
    'One at a time, in the order of the events; a failure holds the lane. Read by the claim.';

-- Every live secret signs, newest first; real time, since receivers check against theirs. By scheme:
-- an HMAC secret, or the private half of an Ed25519 pair whose public half stands beside it.
CREATE TABLE endpoint_secret (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id entity_id NOT NULL REFERENCES webhook_endpoint,
    sealed      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    public_key  text CHECK (public_key ~ '^whpk_[A-Za-z0-9+/]{43}=$')
);
CREATE INDEX endpoint_secret_of_endpoint ON endpoint_secret (endpoint_id, id DESC);

-- One an endpoint: endpoints are scheduled, not deliveries. `next_due_at` is a hint that errs early
-- and is never infinite while something is in flight. `first_due_at` errs early as well: of what was
-- never tried, nothing was recorded before it, so that a claim does not walk over what went before.
-- What else stands here is what service/rules/lane.py remembers of a lane. All times are real.
CREATE TABLE lane (
    endpoint_id     entity_id PRIMARY KEY REFERENCES webhook_endpoint,
    cap             smallint NOT NULL DEFAULT 16 CHECK (cap > 0),
    send_window     smallint NOT NULL DEFAULT 16 CHECK (send_window BETWEEN 1 AND cap),
    next_due_at     timestamptz NOT NULL DEFAULT 'infinity',
    hold_until      timestamptz NOT NULL DEFAULT '-infinity',
    turn_at         timestamptz NOT NULL DEFAULT '-infinity',
    streak          integer NOT NULL DEFAULT 0,
    failure_count   integer NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_status     smallint,
    breaker         text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
    breaker_until   timestamptz,
    breaker_trips   integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    mean_ms         integer NOT NULL DEFAULT 0,
    first_due_at    timestamptz NOT NULL DEFAULT 'infinity',
    halved_at       timestamptz,
    exhausted_at    timestamptz,
    told            smallint NOT NULL DEFAULT 0,
    sample_minute   integer NOT NULL DEFAULT 0,
    sample_attempts integer[] NOT NULL DEFAULT '{0,0,0,0,0}' CHECK (cardinality(sample_attempts) = 5),
    sample_failures integer[] NOT NULL DEFAULT '{0,0,0,0,0}' CHECK (cardinality(sample_failures) = 5),
    told_since      timestamptz,
    CHECK ((breaker = 'closed') = (breaker_until IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 200);
CREATE INDEX lane_due ON lane (next_due_at) WHERE next_due_at < 'infinity';
CREATE INDEX lane_tripped ON lane (breaker) WHERE breaker <> 'closed';
CREATE INDEX lane_troubled ON lane (endpoint_id) WHERE failing_since IS NOT NULL OR told <> 0;

-- An endpoint as its developer sees it.
CREATE VIEW endpoint_standing AS
SELECT e.id, e.developer_id, e.url, e.events, e.is_active, e.ladder, e.timeout_seconds, e.max_per_second,
       e.fifo, e.headers, e.disabled_reason, e.flag, e.seq, e.created_at, e.updated_at,
       l.failure_count, l.last_attempt_at AS last_triggered_at, l.last_status AS last_response_status,
       (SELECT s.public_key FROM endpoint_secret s
        WHERE s.endpoint_id = e.id AND s.public_key IS NOT NULL AND s.expires_at IS NULL
        ORDER BY s.id DESC LIMIT 1) AS public_key
FROM webhook_endpoint e JOIN lane l ON l.endpoint_id = e.id
WHERE e.deleted_at IS NULL;

-- The delivery row is the job. `visible_at` is both the time of the next attempt and the lease's
-- end: a claimed row simply falls due again. `recorded_at` is the event's, to find its body.
-- `acknowledges`: a 2xx to it lets an `on_ack` escrow complete, once it was passed on to the escrow
-- (`acknowledged_at`) in a transaction of its own: a busy escrow stops no lane. `position` is the
-- event's, of two that were recorded at once. What was never tried and what was have an index each:
-- a backlog of the one never stands before the other. `ladder_from`: after which attempt its ladder
-- began; NULL where it has one attempt alone.
CREATE TABLE delivery (
    id           uuid PRIMARY KEY,
    endpoint_id  entity_id NOT NULL REFERENCES webhook_endpoint,
    event_id     uuid NOT NULL REFERENCES event (id),
    recorded_at  timestamptz NOT NULL,
    type         text NOT NULL,
    state        text NOT NULL DEFAULT 'pending'
                 CHECK (state IN ('pending', 'parked', 'delivered', 'exhausted', 'cancelled')),
    attempt      smallint NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    visible_at   timestamptz NOT NULL,
    claim_token  uuid,
    last_status  smallint,
    last_fault   text,
    acknowledges boolean NOT NULL DEFAULT false,
    acknowledged_at timestamptz,
    created_at   timestamptz NOT NULL,
    settled_at   timestamptz,
    position     bigint NOT NULL DEFAULT 0,
    ladder_from  smallint DEFAULT 0,
    UNIQUE (endpoint_id, event_id),
    CHECK (state = 'pending' OR claim_token IS NULL),
    CHECK ((state IN ('pending', 'parked')) = (settled_at IS NULL)),
    CHECK (acknowledged_at IS NULL OR (acknowledges AND state = 'delivered'))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX delivery_first ON delivery (endpoint_id, recorded_at, position)
    WHERE state = 'pending' AND attempt = 0;
CREATE INDEX delivery_retry ON delivery (endpoint_id, visible_at) WHERE state = 'pending' AND attempt > 0;
CREATE INDEX delivery_in_flight ON delivery (endpoint_id, visible_at)
    WHERE state = 'pending' AND claim_token IS NOT NULL;
CREATE INDEX delivery_parked ON delivery (endpoint_id) WHERE state = 'parked';
CREATE INDEX delivery_stopped ON delivery (endpoint_id, event_id)
    WHERE state IN ('exhausted', 'cancelled', 'parked');
CREATE INDEX delivery_receipt ON delivery (settled_at)
    WHERE acknowledges AND state = 'delivered' AND acknowledged_at IS NULL;

CREATE TABLE webhook_attempt (
    delivery_id   uuid NOT NULL,
    n             smallint NOT NULL,
    recorded_at   timestamptz NOT NULL,
    started_at    timestamptz NOT NULL,
    status        smallint NOT NULL,
    fault         text,
    address       text,
    dns_ms        integer,
    connect_ms    integer,
    first_byte_ms integer,
    total_ms      integer NOT NULL,
    answer        bytea NOT NULL CHECK (length(answer) <= 8192),
    tls_ms        integer,
    PRIMARY KEY (delivery_id, n, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE TABLE webhook_attempt_default PARTITION OF webhook_attempt DEFAULT;

-- Makes the weekly partitions of this week and of the `ahead` after it, and of every other week of
-- which the default partition caught something; takes that over. The application's role has no DDL,
-- so it runs as the owner.
CREATE FUNCTION make_webhook_partitions(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    parent text;
    part   text;
    week   timestamp;
    bounds text;
    made   integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('make_webhook_partitions'));
    FOREACH parent IN ARRAY ARRAY['webhook_body', 'webhook_attempt'] LOOP
        FOR week IN EXECUTE format(
            'SELECT date_trunc(''week'', clock_timestamp() AT TIME ZONE ''UTC'') + n * interval ''7 days'' '
            'FROM generate_series(0, %s) AS n '
            'UNION SELECT date_trunc(''week'', recorded_at AT TIME ZONE ''UTC'') FROM %I',
            least(greatest(ahead, 0), 12), parent || '_default') LOOP
            part := parent || to_char(week, '_IYYY"w"IW');
            CONTINUE WHEN to_regclass(part) IS NOT NULL;
            bounds := format('%L AND recorded_at < %L', week AT TIME ZONE 'UTC',
                             (week + interval '7 days') AT TIME ZONE 'UTC');
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
            EXECUTE format('WITH moved AS (DELETE FROM %I WHERE recorded_at >= %s RETURNING *) '
                           'INSERT INTO %I SELECT * FROM moved', parent || '_default', bounds, part);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part,
                           week AT TIME ZONE 'UTC', (week + interval '7 days') AT TIME ZONE 'UTC');
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drops the weekly partitions that are older in whole than so many days, and says how many. Bodies
-- stay while an open delivery points into their week. Runs as the owner, as above.
CREATE FUNCTION drop_webhook_partitions(body_days integer, attempt_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part    record;
    begins  timestamptz;
    ends    timestamptz;
    dropped integer := 0;
BEGIN
    IF body_days < 1 OR attempt_days < 1 THEN
        RAISE EXCEPTION 'a partition is kept for a day at least';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('make_webhook_partitions'));
    FOR part IN
        SELECT c.relname AS name, p.relname AS parent, to_date(right(c.relname, 7), 'IYYY"w"IW')::timestamp AS week
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.oid IN ('webhook_body'::regclass, 'webhook_attempt'::regclass)
          AND c.relname ~ '_[0-9]{4}w[0-9]{2}$'
        ORDER BY week
    LOOP
        begins := part.week AT TIME ZONE 'UTC';
        ends := (part.week + interval '7 days') AT TIME ZONE 'UTC';
        CONTINUE WHEN ends > clock_timestamp() - make_interval(
            days => CASE part.parent WHEN 'webhook_body' THEN body_days ELSE attempt_days END);
        CONTINUE WHEN part.parent = 'webhook_body' AND (
            EXISTS (SELECT FROM delivery d WHERE d.state = 'pending' AND d.attempt = 0
                      AND d.recorded_at >= begins AND d.recorded_at < ends)
            OR EXISTS (SELECT FROM delivery d WHERE d.state = 'pending' AND d.attempt > 0
                         AND d.recorded_at >= begins AND d.recorded_at < ends)
            OR EXISTS (SELECT FROM delivery d WHERE d.state = 'parked'
                         AND d.recorded_at >= begins AND d.recorded_at < ends)
            OR EXISTS (SELECT FROM event v WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
                         AND v.recorded_at >= begins AND v.recorded_at < ends));
        EXECUTE format('DROP TABLE %I', part.name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
SELECT make_webhook_partitions(4);

-- A version 7 UUID: its first 48 bits are the time in milliseconds, so that inserts stay local.
CREATE FUNCTION ordered_uuid(moment timestamptz) RETURNS uuid VOLATILE LANGUAGE sql
RETURN encode(set_bit(set_bit(overlay(
    uuid_send(gen_random_uuid())
    PLACING substring(int8send((extract(epoch FROM moment) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
    52, 1), 53, 1), 'hex')::uuid;

-- Who hears of what happens to a subject: the developer whose it is, and those who act as one of the
-- users. Fan-out, feed and recovery ask here alone, so this is the place for another kind. Inlined
-- where it is called. `on_ack`: the developer's receipt of its payment lets it complete.
CREATE FUNCTION audience(kind text, subject text)
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

-- What these three plan before the tables were ever analysed, and keep for as long as their session
-- lives, must hold when they are full: along the indexes, row by row.

-- Turns up to `most` events that are not fanned out into deliveries; says how many events.
-- Locks: the events (skipping what another worker has), then the lanes in id order.
CREATE FUNCTION fan_out(most integer, moment timestamptz DEFAULT clock_timestamp()) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    fanned  integer;
    touched text[];
    oldest  timestamptz[];
BEGIN
    WITH taken AS MATERIALIZED (
        SELECT v.subject_id, v.seq, v.subject_kind, v.id, v.type, v.recorded_at, v.position, v.from_state,
               v.to_state
        FROM event v
        WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
        ORDER BY v.recorded_at
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), made AS (
        INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, acknowledges,
                              visible_at, created_at)
        SELECT ordered_uuid(moment), e.id, t.id, t.recorded_at, t.position, t.type,
               a.on_ack AND p.id = a.developer_id AND t.type = 'escrow.status.updated'
               AND t.from_state = 'pending' AND t.to_state = 'paid',
               least(t.recorded_at, moment), moment
        FROM taken t
        CROSS JOIN LATERAL audience(t.subject_kind, t.subject_id) AS a
        CROSS JOIN LATERAL (
            SELECT a.developer_id AS id
            UNION ALL
            SELECT d.id FROM developer d
            WHERE d.user_id = ANY (a.user_ids) AND d.id IS DISTINCT FROM a.developer_id) AS p
        CROSS JOIN LATERAL (
            -- OFFSET: by the developer's index, however many events there are; never all endpoints.
            SELECT w.id FROM webhook_endpoint w
            WHERE w.developer_id = p.id AND w.deleted_at IS NULL AND w.is_active AND w.id <> t.subject_id
              AND w.events && ARRAY['*', t.type, split_part(t.type, '.', 1) || '.*']
            OFFSET 0) AS e
        ORDER BY t.recorded_at, t.seq
        ON CONFLICT (endpoint_id, event_id) DO NOTHING
        RETURNING endpoint_id, recorded_at
    ), marked AS (
        UPDATE event v SET fanned_at = moment
        FROM taken t WHERE v.subject_id = t.subject_id AND v.seq = t.seq
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM marked), array_agg(m.endpoint_id), array_agg(m.oldest)
    INTO fanned, touched, oldest
    FROM (SELECT made.endpoint_id::text, min(made.recorded_at) AS oldest FROM made GROUP BY 1) AS m;

    IF touched IS NOT NULL THEN
        PERFORM FROM lane l WHERE l.endpoint_id = ANY (touched) ORDER BY l.endpoint_id FOR NO KEY UPDATE;
        UPDATE lane l
        SET next_due_at = least(l.next_due_at, moment), first_due_at = least(l.first_due_at, t.oldest)
        FROM unnest(touched, oldest) AS t (endpoint_id, oldest)
        WHERE l.endpoint_id = t.endpoint_id AND (l.next_due_at > moment OR l.first_due_at > t.oldest);
    END IF;
    RETURN fanned;
END $$;

-- The first of a lane in the events' order that has not ended: of those never tried, and the others.
CREATE FUNCTION fifo_head(lane text) RETURNS uuid STABLE LANGUAGE sql
RETURN (
    SELECT h.id FROM (
        (SELECT d.id, d.recorded_at, d.position FROM delivery d
         WHERE d.endpoint_id = lane AND d.state = 'pending' AND d.attempt = 0
         ORDER BY d.recorded_at, d.position LIMIT 1)
        UNION ALL
        (SELECT d.id, d.recorded_at, d.position FROM delivery d
         WHERE d.endpoint_id = lane AND d.state = 'pending' AND d.attempt > 0
         ORDER BY d.recorded_at, d.position LIMIT 1)) AS h
    ORDER BY h.recorded_at, h.position LIMIT 1);

-- Takes up to `slots` due deliveries in rounds: each takes an equal share from every due lane, but
-- `rows_a_lane` where that is more, the least recently served first. A round is two statements on
-- purpose: the count of what is in flight needs a snapshot that is younger than the lanes' locks, else
-- the cap is breached. Never waits for a lock. `moment` is real time everywhere: leases and retries do
-- not follow the sandbox's clock. At most `retry_slots` are no first attempts, and `slow_slots` of
-- lanes that take `slow_ms` or more on average. A lane whose breaker is not closed has room for one
-- probe; a fifo lane for its head, once no older event waits for its fan-out; one with a pace for
-- `rows_a_lane`. `hold_seconds`: how long the delivery's lane takes no further claim, so that somebody
-- comes then. A lane that gave nothing is looked at once: it may be due by a hint that errs.
CREATE FUNCTION claim_deliveries(
    slots integer, retry_slots integer, slow_slots integer, rows_a_lane integer, slow_ms integer,
    margin interval, moment timestamptz DEFAULT clock_timestamp()
)
RETURNS TABLE (
    id uuid, claim_token uuid, attempt smallint, endpoint_id text, event_id uuid, type text,
    acknowledges boolean, body bytea, url text, ladder text, timeout_seconds smallint, headers bytea,
    secrets bytea[], hold_seconds float8, is_slow boolean, recorded_at timestamptz, rung smallint
) LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_bitmapscan = off SET enable_sort = off SET enable_incremental_sort = off AS $$
#variable_conflict use_column
DECLARE
    lanes   text[];
    share   integer;
    flights bigint[];
    leases  timestamptz[];
    takings bigint[];
    taken   uuid[];
    mine    uuid[] := '{}';
    served  text[] := '{}';
    empty   text[] := '{}';
    retries integer;
    slow    integer;
BEGIN
    FOR round IN 1..100 LOOP  -- ends sooner: a lane is full, or empty, or the slots are
        SELECT array_agg(due.endpoint_id) INTO lanes FROM (
            SELECT l.endpoint_id::text FROM lane l
            WHERE l.next_due_at <= moment AND l.hold_until <= moment AND l.endpoint_id <> ALL (empty)
              AND (retry_slots > 0 OR l.first_due_at <= moment)
              AND (slow_slots > 0 OR l.mean_ms < slow_ms)
            ORDER BY l.turn_at
            LIMIT slots - cardinality(mine)
            FOR NO KEY UPDATE SKIP LOCKED) AS due;
        EXIT WHEN lanes IS NULL;
        share := greatest(rows_a_lane, ceil((slots - cardinality(mine))::numeric / cardinality(lanes)));

        WITH room AS MATERIALIZED (
            SELECT l.endpoint_id, l.turn_at, l.first_due_at, l.mean_ms >= slow_ms AS is_slow, e.fifo,
                   e.timeout_seconds, f.in_flight, f.first_lease,
                   CASE WHEN e.is_active THEN greatest(0, least(
                       CASE WHEN e.max_per_second IS NULL THEN share ELSE least(rows_a_lane, e.max_per_second) END,
                       CASE WHEN e.fifo OR l.breaker <> 'closed' THEN 1 ELSE least(l.send_window, l.cap) END
                       - f.in_flight)) ELSE 0 END AS free
            FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
            CROSS JOIN LATERAL (
                SELECT count(*) AS in_flight, min(s.visible_at) AS first_lease FROM (
                    SELECT d.visible_at FROM delivery d
                    WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending'
                      AND d.claim_token IS NOT NULL AND d.visible_at > moment
                    ORDER BY d.visible_at OFFSET 0) AS s  -- the order is that of one index alone
            ) AS f
            WHERE l.endpoint_id = ANY (lanes)
        ), due AS (
            SELECT r.*, d.id, d.visible_at, d.is_retry
            FROM room r CROSS JOIN LATERAL (
                SELECT f.id, f.visible_at, false AS is_retry FROM (
                    SELECT p.id, p.visible_at FROM delivery p
                    WHERE NOT r.fifo AND p.endpoint_id = r.endpoint_id AND p.state = 'pending'
                      AND p.attempt = 0 AND p.recorded_at >= r.first_due_at AND p.visible_at <= moment
                    ORDER BY p.recorded_at, p.position
                    LIMIT r.free
                    FOR NO KEY UPDATE SKIP LOCKED) AS f
                UNION ALL
                SELECT a.id, a.visible_at, true FROM (
                    SELECT p.id, p.visible_at FROM delivery p
                    WHERE NOT r.fifo AND p.endpoint_id = r.endpoint_id AND p.state = 'pending'
                      AND p.attempt > 0 AND p.visible_at <= moment
                    ORDER BY p.visible_at
                    LIMIT least(r.free, retry_slots)
                    FOR NO KEY UPDATE SKIP LOCKED) AS a
                UNION ALL
                SELECT h.id, h.visible_at, h.attempt > 0 FROM (
                    SELECT p.id, p.visible_at, p.attempt FROM delivery p
                    WHERE r.fifo AND p.id = fifo_head(r.endpoint_id) AND p.visible_at <= moment
                      AND (p.attempt = 0 OR retry_slots > 0)
                      AND NOT EXISTS (
                          SELECT FROM event v WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
                            AND (v.recorded_at, v.position) < (p.recorded_at, p.position))
                    LIMIT r.free
                    FOR NO KEY UPDATE SKIP LOCKED) AS h) AS d
        ), of_kind AS (
            SELECT due.*, row_number() OVER (
                       PARTITION BY due.endpoint_id, due.is_retry ORDER BY due.visible_at) AS nth
            FROM due
        ), placed AS (
            SELECT k.*, row_number() OVER (PARTITION BY k.is_retry ORDER BY k.nth, k.turn_at) AS place
            FROM of_kind k
        ), of_lane AS (
            SELECT p.*, row_number() OVER (PARTITION BY p.endpoint_id ORDER BY p.visible_at) AS turn
            FROM placed p WHERE NOT p.is_retry OR p.place <= retry_slots
        ), of_pace AS (
            SELECT o.*, row_number() OVER (PARTITION BY o.is_slow ORDER BY o.turn, o.turn_at) AS slow_place
            FROM of_lane o WHERE o.turn <= o.free
        ), chosen AS (
            SELECT o.id, o.endpoint_id, o.timeout_seconds, o.is_retry, o.is_slow FROM of_pace o
            WHERE NOT o.is_slow OR o.slow_place <= slow_slots
            ORDER BY o.turn, o.turn_at
            LIMIT slots - cardinality(mine)
        ), claimed AS (
            UPDATE delivery d
            SET claim_token = gen_random_uuid(), attempt = least(d.attempt + 1, 32767),
                visible_at = moment + make_interval(secs => c.timeout_seconds) + margin
            FROM chosen c WHERE d.id = c.id
            RETURNING d.id, d.endpoint_id, d.visible_at, c.is_retry, c.is_slow
        ), by_lane AS (
            SELECT r.endpoint_id::text, r.in_flight, r.first_lease, count(c.id) AS taken,
                   min(c.visible_at) AS lease,
                   count(*) FILTER (WHERE c.is_retry) AS retries, count(*) FILTER (WHERE c.is_slow) AS slow
            FROM room r LEFT JOIN claimed c ON c.endpoint_id = r.endpoint_id
            GROUP BY 1, 2, 3
        )
        SELECT (SELECT array_agg(c.id) FROM claimed c), sum(b.retries), sum(b.slow),
               array_agg(b.endpoint_id), array_agg(b.in_flight + b.taken), array_agg(b.taken),
               array_agg(least(b.first_lease, b.lease))
        INTO taken, retries, slow, lanes, flights, takings, leases FROM by_lane b;
        mine := mine || taken;
        served := served || lanes;
        empty := empty || ARRAY(SELECT t.lane FROM unnest(lanes, takings) AS t (lane, taken) WHERE t.taken = 0);
        retry_slots := retry_slots - retries;
        slow_slots := slow_slots - slow;

        -- The lanes are locked already. Full: due when the first lease ends (or a settle says sooner).
        UPDATE lane l
        SET turn_at = moment,
            breaker = CASE WHEN l.breaker = 'open' AND w.taken > 0 THEN 'half_open' ELSE l.breaker END,
            hold_until = CASE WHEN w.max_per_second IS NULL THEN l.hold_until
                              ELSE moment + make_interval(secs => w.taken::float8 / w.max_per_second) END,
            first_due_at = coalesce(w.first_at, 'infinity'),
            next_due_at = coalesce(
                CASE WHEN NOT w.is_active OR w.in_flight >= CASE
                              WHEN w.fifo OR l.breaker <> 'closed' THEN 1 ELSE least(l.send_window, l.cap) END
                          THEN w.first_lease
                     WHEN w.fifo THEN (SELECT f.visible_at FROM delivery f WHERE f.id = fifo_head(l.endpoint_id))
                     ELSE least(
                         CASE WHEN w.first_due <= moment THEN w.first_due ELSE (
                             -- Given back, and not due yet; what is behind it may be.
                             SELECT min(n.visible_at) FROM (
                                 SELECT f.visible_at FROM delivery f
                                 WHERE f.endpoint_id = l.endpoint_id AND f.state = 'pending' AND f.attempt = 0
                                   AND f.recorded_at >= w.first_at
                                 ORDER BY f.recorded_at, f.position LIMIT 1000) AS n) END,
                         (SELECT f.visible_at FROM delivery f
                          WHERE f.endpoint_id = l.endpoint_id AND f.state = 'pending' AND f.attempt > 0
                          ORDER BY f.visible_at LIMIT 1))
                END, 'infinity')
        FROM (
            SELECT e.id, e.is_active, e.fifo, e.max_per_second, t.in_flight, t.taken, t.first_lease,
                   first.recorded_at AS first_at, first.visible_at AS first_due
            FROM unnest(lanes, flights, takings, leases) AS t (endpoint_id, in_flight, taken, first_lease)
            JOIN webhook_endpoint e ON e.id = t.endpoint_id
            JOIN lane k ON k.endpoint_id = t.endpoint_id
            LEFT JOIN LATERAL (
                SELECT f.recorded_at, f.visible_at FROM delivery f
                WHERE f.endpoint_id = e.id AND f.state = 'pending' AND f.attempt = 0
                  -- Whoever finds nothing looks whether the bound hides something: a hint may be lost.
                  AND f.recorded_at >= CASE WHEN t.taken > 0 THEN k.first_due_at ELSE '-infinity' END
                ORDER BY f.recorded_at, f.position LIMIT 1) AS first ON true
        ) AS w
        WHERE l.endpoint_id = w.id;
        EXIT WHEN cardinality(mine) >= slots;
    END LOOP;

    RETURN QUERY
    WITH home AS MATERIALIZED (
        SELECT e.id, e.url, e.ladder, e.timeout_seconds, e.headers, l.hold_until, l.mean_ms,
               ARRAY(SELECT s.sealed FROM endpoint_secret s
                     WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > moment)
                     ORDER BY s.id DESC) AS secrets
        FROM webhook_endpoint e JOIN lane l ON l.endpoint_id = e.id
        WHERE e.id = ANY (served)
    ), got AS MATERIALIZED (  -- by their ids, never by their endpoints: those have more of them
        SELECT d.* FROM delivery d WHERE d.id = ANY (mine)
    )
    SELECT d.id, d.claim_token, d.attempt, d.endpoint_id::text, d.event_id, d.type, d.acknowledges, b.body,
           h.url, h.ladder, h.timeout_seconds, h.headers, h.secrets,
           CASE WHEN h.hold_until > moment THEN extract(epoch FROM h.hold_until - moment)::float8 END,
           h.mean_ms >= slow_ms, d.recorded_at, d.attempt - d.ladder_from
    FROM got d
    JOIN home h ON h.id = d.endpoint_id
    LEFT JOIN webhook_body b ON b.event_id = d.event_id AND b.recorded_at = d.recorded_at
    ORDER BY d.recorded_at, d.position;
END $$;

-- Writes what came of attempts: one attempt row and the delivery's new state, or nothing where the
-- claim was lost meanwhile. Gives the lanes of those that were settled, locked until the commit:
-- TURN_LANES (service/store/lanes.py) writes them as service/rules/lane.py has turned them. Parallel arrays. Locks: the
-- deliveries, then (last, since a locked lane is passed over by claims) the lanes in id order.
CREATE FUNCTION settle_deliveries(
    ids uuid[], tokens uuid[], states text[], retries float8[], gives_back boolean[], started timestamptz[],
    statuses integer[], faults text[], addresses text[], dns integer[], connects integer[], tls integer[],
    first_bytes integer[], totals integer[], answers bytea[], moment timestamptz DEFAULT clock_timestamp()
) RETURNS TABLE (settled uuid[], settled_at timestamptz, held lane)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    ours  uuid[];
    lanes text[];
BEGIN
    WITH changed AS (
        UPDATE delivery d
        SET state = o.state, claim_token = NULL,
            attempt = CASE WHEN o.given_back THEN d.attempt - 1 ELSE d.attempt END,
            visible_at = coalesce(moment + make_interval(secs => o.retry), d.visible_at),
            last_status = CASE WHEN o.given_back THEN d.last_status ELSE o.status END,
            last_fault = CASE WHEN o.given_back THEN d.last_fault ELSE o.fault END,
            settled_at = CASE WHEN o.state = 'pending' THEN NULL ELSE moment END
        FROM unnest(ids, tokens, states, retries, gives_back, started, statuses, faults, addresses,
                    dns, connects, tls, first_bytes, totals, answers)
            AS o (id, token, state, retry, given_back, started_at, status, fault, address,
                  dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, answer)
        WHERE d.id = o.id AND d.claim_token = o.token AND d.state = 'pending'
        RETURNING d.id, d.endpoint_id, d.attempt, o.given_back, o.started_at, o.status, o.fault, o.address,
                  o.dns_ms, o.connect_ms, o.tls_ms, o.first_byte_ms, o.total_ms, o.answer
    ), told AS (
        INSERT INTO webhook_attempt (delivery_id, n, recorded_at, started_at, status, fault, address, dns_ms,
                                     connect_ms, tls_ms, first_byte_ms, total_ms, answer)
        SELECT c.id, c.attempt, moment, c.started_at, c.status, c.fault, c.address, c.dns_ms, c.connect_ms,
               c.tls_ms, c.first_byte_ms, c.total_ms, c.answer
        FROM changed c
        WHERE NOT c.given_back
    )
    SELECT array_agg(c.id), array_agg(c.endpoint_id::text) INTO ours, lanes FROM changed c;

    RETURN QUERY
    WITH mine AS (
        SELECT l.endpoint_id, l FROM lane l WHERE l.endpoint_id = ANY (lanes)
        ORDER BY l.endpoint_id FOR NO KEY UPDATE
    ), by_lane AS (
        SELECT s.lane, array_agg(s.id) AS ids FROM unnest(ours, lanes) AS s (id, lane) GROUP BY 1
    )
    SELECT b.ids, moment, m.l FROM mine m JOIN by_lane b ON b.lane = m.endpoint_id;
END $$;
-- delivery: end
-- developers: begin
-- A developer wants again what an endpoint has missed: worked off by a worker in chunks, first the
-- deliveries that have failed (`after_event` walks on among them), then the events that were never
-- turned into a delivery there (`is_missing`). `since` and `until` are of the events, in real time;
-- `due_at` says who is next. `count` is what was found to be sent, `recovered` what is on its way.
CREATE TABLE recovery (
    id           uuid PRIMARY KEY,
    endpoint_id  entity_id NOT NULL REFERENCES webhook_endpoint,
    since        timestamptz NOT NULL,
    until        timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'pending'
                 CHECK (state IN ('pending', 'running', 'done', 'cancelled')),
    is_missing   boolean NOT NULL DEFAULT false,
    after_event  uuid,
    count        integer NOT NULL DEFAULT 0 CHECK (count >= 0),
    recovered    integer NOT NULL DEFAULT 0 CHECK (recovered >= 0),
    due_at       timestamptz NOT NULL,
    created_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    CHECK (since < until),
    CHECK ((state IN ('done', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX recovery_due ON recovery (due_at) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX recovery_open ON recovery (endpoint_id) WHERE finished_at IS NULL;
CREATE INDEX recovery_of_endpoint ON recovery (endpoint_id, created_at DESC);
-- developers: end

-- Registrations and new escrows that name the same e-mail do not pass each other: a create waits for
-- a registration under way (and sees its user), a registration for creates (and sees their escrows).
CREATE FUNCTION await_registrations(emails text[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('register/' || e.email, 0))
    FROM (SELECT unnest(emails) AS email ORDER BY 1) AS e;
    RETURN EXISTS (SELECT FROM app_user u WHERE u.email = ANY (emails) AND u.email_verified_at IS NOT NULL);
END $$;

-- 8. Checkout sessions, and the people on the pages ------------------------------------------------
-- sessions: begin
-- A promise of one step to one e-mail; the step's own rules decide again when it is taken.
CREATE TABLE checkout_session (
    id           uuid PRIMARY KEY,
    escrow_id    entity_id NOT NULL REFERENCES escrow,
    developer_id entity_id NOT NULL REFERENCES developer,
    action       text NOT NULL CHECK (action IN (
                     'sign_contract', 'accept_pay', 'complete', 'submit_proof', 'review_proof', 'dispute',
                     'request_cancellation', 'cancel_escrow', 'accept_cancellation', 'reject_cancellation',
                     'withdraw_dispute', 'answer_dispute', 'fund', 'approve_milestone',
                     'change_milestone_status', 'release', 'resolve_dispute', 'withdraw_remaining')),
    email        text NOT NULL CHECK (email = lower(btrim(email))),
    redirect_url text NOT NULL CHECK (length(redirect_url) <= 2048),
    metadata     jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'completed', 'expired', 'cancelled')),
    expires_at   timestamptz NOT NULL,
    completed_at timestamptz,
    created_at   timestamptz NOT NULL,
    -- The body of a milestone family's step, where it was given with the session.
    input        jsonb CHECK (jsonb_typeof(input) = 'object'),
    -- The version of the terms for which it was given; null where it means the same under others.
    terms_version integer,
    CONSTRAINT checkout_session_terms CHECK (
        terms_version IS NULL OR (terms_version > 0 AND input IS NOT NULL)),
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
-- visits: end
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
-- files: end
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
-- payments: end

-- 9. Reading and locking an escrow ----------------------------------------------------------------

-- An invitation, open until it is accepted or closed, or its escrow is final.
CREATE VIEW invitation_reading AS
SELECT i.id, i.escrow_id, i.role, i.email, i.token_hash, i.counter, i.reminders, i.created_at,
       i.accepted_at IS NULL AND i.closed_at IS NULL
           AND e.status NOT IN ('completed', 'cancelled') AS is_open
FROM invitation i JOIN escrow e ON e.id = i.escrow_id;

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
