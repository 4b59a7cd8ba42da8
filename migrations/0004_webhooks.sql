-- Version 4: webhook delivery in full. Two hands write it, each in its own marked section.

-- developers: begin
-- The secrets of an endpoint by scheme: an HMAC secret, or the private half of an Ed25519 pair whose
-- public half stands beside it.
ALTER TABLE endpoint_secret ADD COLUMN public_key text CHECK (public_key ~ '^whpk_[A-Za-z0-9+/]{43}=$');
COMMENT ON COLUMN webhook_endpoint.max_per_second IS
    'How many attempts a second at most; NULL: as many as the window lets through. Read by the claim.';
COMMENT ON COLUMN webhook_endpoint.fifo IS
    'One at a time, in the order of the events; a failure holds the lane. Read by the claim.';

DROP VIEW endpoint_reading;
CREATE VIEW endpoint_reading AS
SELECT e.id, e.developer_id, e.url, e.events, e.is_active, e.ladder, e.timeout_seconds, e.max_per_second,
       e.fifo, e.headers, e.disabled_reason, e.flag, e.seq, e.created_at, e.updated_at,
       l.failure_count, l.last_attempt_at AS last_triggered_at, l.last_status AS last_response_status,
       (SELECT s.public_key FROM endpoint_secret s
        WHERE s.endpoint_id = e.id AND s.public_key IS NOT NULL AND s.expires_at IS NULL
        ORDER BY s.id DESC LIMIT 1) AS public_key
FROM webhook_endpoint e JOIN lane l ON l.endpoint_id = e.id
WHERE e.deleted_at IS NULL;

-- A developer wants again what an endpoint has missed: worked off by a worker in chunks, first the
-- deliveries that ended badly (`after_event` walks on among them), then the events that were never
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

-- Whose webhooks and whose feed tell of this event; fan_out asks the same.
CREATE FUNCTION hears(developer text, as_user text, kind text, subject text) RETURNS boolean
STABLE LANGUAGE sql
RETURN CASE kind
    WHEN 'escrow' THEN EXISTS (
        SELECT FROM escrow x WHERE x.id = subject
          AND (x.creator_id = developer OR x.seller_id = as_user OR x.buyer_id = as_user))
    WHEN 'developer' THEN subject = developer
    WHEN 'endpoint' THEN EXISTS (
        SELECT FROM webhook_endpoint e WHERE e.id = subject AND e.developer_id = developer)
    WHEN 'identity' THEN EXISTS (
        SELECT FROM identity_verification i WHERE i.id = subject AND i.developer_id = developer)
    ELSE false END;
-- developers: end
