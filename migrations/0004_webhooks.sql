-- Version 4: webhook delivery in full. Two hands write it, each in its own marked section. A process
-- of version 3 that still runs finds what it asks for: see the last section.

-- Deliveries first: whoever settles has them already and is waited for, so that a deadlock takes back
-- a claim or a fan-out, and nothing is sent twice.
LOCK TABLE delivery, lane, webhook_endpoint, event IN ACCESS EXCLUSIVE MODE;

-- order: begin
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
ALTER TABLE event ALTER COLUMN xid SET DEFAULT commit_number();
-- order: end

-- developers: begin
-- The secrets of an endpoint by scheme: an HMAC secret, or the private half of an Ed25519 pair whose
-- public half stands beside it.
ALTER TABLE endpoint_secret ADD COLUMN public_key text CHECK (public_key ~ '^whpk_[A-Za-z0-9+/]{43}=$');
COMMENT ON COLUMN webhook_endpoint.max_per_second IS
    'How many attempts a second at most; NULL: as many as the window lets through. Read by the claim.';
COMMENT ON COLUMN webhook_endpoint.fifo IS
    'One at a time, in the order of the events; a failure holds the lane. Read by the claim.';

CREATE VIEW endpoint_standing AS
SELECT e.id, e.developer_id, e.url, e.events, e.is_active, e.ladder, e.timeout_seconds, e.max_per_second,
       e.fifo, e.headers, e.disabled_reason, e.flag, e.seq, e.created_at, e.updated_at,
       l.failure_count, l.last_attempt_at AS last_triggered_at, l.last_status AS last_response_status,
       (SELECT s.public_key FROM endpoint_secret s
        WHERE s.endpoint_id = e.id AND s.public_key IS NOT NULL AND s.expires_at IS NULL
        ORDER BY s.id DESC LIMIT 1) AS public_key
FROM webhook_endpoint e JOIN lane l ON l.endpoint_id = e.id
WHERE e.deleted_at IS NULL;

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

-- Who hears of what happens to a subject: the developer whose it is, and those who act as one of the
-- users. Fan-out, feed and recovery ask here alone, so this is the place for another kind. Inlined
-- where it is called. `on_ack`: the developer's receipt of its payment lets it complete.
CREATE FUNCTION audience(kind text, subject text)
RETURNS TABLE (developer_id text, user_ids text[], on_ack boolean) STABLE LANGUAGE sql
BEGIN ATOMIC
    SELECT x.creator_id::text, ARRAY[x.seller_id::text, x.buyer_id::text],
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
-- developers: end

-- delivery: begin
-- What a lane remembers now has another shape; nothing of it was used before.
ALTER TABLE lane DROP COLUMN sample_since, DROP COLUMN sample_attempts, DROP COLUMN sample_failures;
ALTER TABLE lane
    ADD COLUMN first_due_at timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN halved_at timestamptz,
    ADD COLUMN exhausted_at timestamptz,
    ADD COLUMN told smallint NOT NULL DEFAULT 0,
    ADD COLUMN sample_minute integer NOT NULL DEFAULT 0,
    ADD COLUMN sample_attempts integer[] NOT NULL DEFAULT '{0,0,0,0,0}' CHECK (cardinality(sample_attempts) = 5),
    ADD COLUMN sample_failures integer[] NOT NULL DEFAULT '{0,0,0,0,0}' CHECK (cardinality(sample_failures) = 5),
    ADD COLUMN told_since timestamptz,
    ADD CHECK ((breaker = 'closed') = (breaker_until IS NULL));
UPDATE lane SET first_due_at = next_due_at;
CREATE INDEX lane_tripped ON lane (breaker) WHERE breaker <> 'closed';
CREATE INDEX lane_troubled ON lane (endpoint_id) WHERE failing_since IS NOT NULL OR told <> 0;

ALTER TABLE delivery ADD COLUMN position bigint NOT NULL DEFAULT 0, ADD COLUMN ladder_from smallint DEFAULT 0;
UPDATE delivery d SET position = v.position FROM event v
WHERE v.id = d.event_id AND d.state IN ('pending', 'parked');
CREATE INDEX delivery_first ON delivery (endpoint_id, recorded_at, position)
    WHERE state = 'pending' AND attempt = 0;
CREATE INDEX delivery_retry ON delivery (endpoint_id, visible_at) WHERE state = 'pending' AND attempt > 0;
CREATE INDEX delivery_stopped ON delivery (endpoint_id, event_id)
    WHERE state IN ('exhausted', 'cancelled', 'parked');
ALTER TABLE webhook_attempt ADD COLUMN tls_ms integer;

CREATE OR REPLACE FUNCTION make_webhook_partitions(ahead integer) RETURNS integer
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

CREATE OR REPLACE FUNCTION fan_out(most integer, moment timestamptz DEFAULT clock_timestamp()) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    fanned  integer;
    touched text[];
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

-- Takes up to `slots` due deliveries in rounds: each takes <= `rows_a_lane` from every due lane, the
-- least recently served first. A round is two statements on purpose: the count of what is in flight
-- needs a snapshot that is younger than the lanes' locks, else the cap is breached. Never waits for
-- a lock. `moment` is real time everywhere: leases and retries do not follow the sandbox's clock.
-- At most `retry_slots` are no first attempts, and `slow_slots` of lanes that take `slow_ms` or more
-- on average. A lane whose breaker is not closed has room for one probe; a fifo lane for its head,
-- once no older event waits for its fan-out. `hold_seconds`: how long the delivery's lane takes no
-- further claim, so that somebody comes then.
CREATE FUNCTION claim_deliveries(
    slots integer, retry_slots integer, slow_slots integer, rows_a_lane integer, slow_ms integer,
    margin interval, moment timestamptz DEFAULT clock_timestamp()
)
RETURNS TABLE (
    id uuid, claim_token uuid, attempt smallint, endpoint_id text, event_id uuid, type text,
    acknowledges boolean, body bytea, url text, ladder text, timeout_seconds smallint, headers bytea,
    secrets bytea[], hold_seconds float8, is_slow boolean, recorded_at timestamptz, rung smallint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    lanes   text[];
    taken   uuid[];
    mine    uuid[] := '{}';
    retries integer;
    slow    integer;
BEGIN
    FOR round IN 1..ceil(slots::numeric / rows_a_lane) LOOP
        SELECT array_agg(due.endpoint_id) INTO lanes FROM (
            SELECT l.endpoint_id::text FROM lane l
            WHERE l.next_due_at <= moment AND l.hold_until <= moment
              AND (retry_slots > 0 OR l.first_due_at <= moment)
              AND (slow_slots > 0 OR l.mean_ms < slow_ms)
            ORDER BY l.turn_at
            LIMIT slots - cardinality(mine)
            FOR NO KEY UPDATE SKIP LOCKED) AS due;
        EXIT WHEN lanes IS NULL;

        WITH room AS (
            SELECT l.endpoint_id, l.turn_at, l.mean_ms >= slow_ms AS is_slow, e.fifo, e.timeout_seconds,
                   CASE WHEN e.is_active THEN greatest(0, least(
                       rows_a_lane, e.max_per_second,
                       CASE WHEN e.fifo OR l.breaker <> 'closed' THEN 1 ELSE least(l.send_window, l.cap) END - (
                           SELECT count(*) FROM delivery f
                           WHERE f.endpoint_id = l.endpoint_id AND f.state = 'pending'
                             AND f.claim_token IS NOT NULL AND f.visible_at > moment))) ELSE 0 END AS free
            FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
            WHERE l.endpoint_id = ANY (lanes)
        ), due AS (
            SELECT r.*, d.id, d.visible_at, d.is_retry
            FROM room r CROSS JOIN LATERAL (
                SELECT f.id, f.visible_at, false AS is_retry FROM (
                    SELECT p.id, p.visible_at FROM delivery p
                    WHERE NOT r.fifo AND p.endpoint_id = r.endpoint_id AND p.state = 'pending'
                      AND p.attempt = 0 AND p.visible_at <= moment
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
            SELECT o.id, o.timeout_seconds, o.is_retry, o.is_slow FROM of_pace o
            WHERE NOT o.is_slow OR o.slow_place <= slow_slots
            ORDER BY o.turn, o.turn_at
            LIMIT slots - cardinality(mine)
        ), claimed AS (
            UPDATE delivery d
            SET claim_token = gen_random_uuid(), attempt = least(d.attempt + 1, 32767),
                visible_at = moment + make_interval(secs => c.timeout_seconds) + margin
            FROM chosen c WHERE d.id = c.id
            RETURNING d.id, c.is_retry, c.is_slow
        )
        SELECT array_agg(t.id), count(*) FILTER (WHERE t.is_retry), count(*) FILTER (WHERE t.is_slow)
        INTO taken, retries, slow FROM claimed t;
        mine := mine || taken;
        retry_slots := retry_slots - retries;
        slow_slots := slow_slots - slow;

        -- The lanes are locked already. Full: due when the first lease ends (or a settle says sooner).
        UPDATE lane l
        SET turn_at = moment,
            breaker = CASE WHEN l.breaker = 'open' AND w.taken > 0 THEN 'half_open' ELSE l.breaker END,
            hold_until = CASE WHEN w.max_per_second IS NULL THEN l.hold_until
                              ELSE moment + make_interval(secs => w.taken::float8 / w.max_per_second) END,
            first_due_at = coalesce(w.first_due, 'infinity'),
            next_due_at = coalesce(
                CASE WHEN NOT w.is_active OR w.in_flight >= CASE
                              WHEN w.fifo OR l.breaker <> 'closed' THEN 1 ELSE least(l.send_window, l.cap) END
                          THEN w.first_lease
                     WHEN w.fifo THEN w.head_due
                     ELSE least(w.first_due, w.first_retry) END, 'infinity')
        FROM (
            SELECT e.id, e.is_active, e.fifo, e.max_per_second,
                   (SELECT count(*) FROM delivery f WHERE f.endpoint_id = e.id AND f.state = 'pending'
                      AND f.claim_token IS NOT NULL AND f.visible_at > moment) AS in_flight,
                   (SELECT min(f.visible_at) FROM delivery f WHERE f.endpoint_id = e.id
                      AND f.state = 'pending' AND f.claim_token IS NOT NULL) AS first_lease,
                   -- In the events' order: those that are not due yet are few, and given back.
                   coalesce((SELECT f.visible_at FROM delivery f WHERE f.endpoint_id = e.id
                               AND f.state = 'pending' AND f.attempt = 0 AND f.visible_at <= moment
                             ORDER BY f.recorded_at, f.position LIMIT 1),
                            (SELECT min(f.visible_at) FROM delivery f WHERE f.endpoint_id = e.id
                               AND f.state = 'pending' AND f.attempt = 0)) AS first_due,
                   (SELECT min(f.visible_at) FROM delivery f WHERE f.endpoint_id = e.id
                      AND f.state = 'pending' AND f.attempt > 0) AS first_retry,
                   CASE WHEN e.fifo THEN (
                       SELECT f.visible_at FROM delivery f WHERE f.id = fifo_head(e.id)) END AS head_due,
                   (SELECT count(*) FROM delivery f
                    WHERE f.id = ANY (taken) AND f.endpoint_id = e.id) AS taken
            FROM webhook_endpoint e WHERE e.id = ANY (lanes)
        ) AS w
        WHERE l.endpoint_id = w.id;
        EXIT WHEN cardinality(mine) >= slots;
    END LOOP;

    RETURN QUERY
    SELECT d.id, d.claim_token, d.attempt, d.endpoint_id::text, d.event_id, d.type, d.acknowledges, b.body,
           e.url, e.ladder, e.timeout_seconds, e.headers,
           ARRAY(SELECT s.sealed FROM endpoint_secret s
                 WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > moment)
                 ORDER BY s.id DESC),
           CASE WHEN l.hold_until > moment THEN extract(epoch FROM l.hold_until - moment)::float8 END,
           l.mean_ms >= slow_ms, d.recorded_at, d.attempt - d.ladder_from
    FROM delivery d
    JOIN webhook_endpoint e ON e.id = d.endpoint_id
    JOIN lane l ON l.endpoint_id = d.endpoint_id
    LEFT JOIN webhook_body b ON b.event_id = d.event_id AND b.recorded_at = d.recorded_at
    WHERE d.id = ANY (mine)
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
) RETURNS TABLE (settled uuid[], settled_at timestamptz, held lane) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ours  uuid[];
    lanes text[];
BEGIN
    WITH outcome AS (
        SELECT * FROM unnest(ids, tokens, states, retries, gives_back, started, statuses, faults, addresses,
                             dns, connects, tls, first_bytes, totals, answers)
            AS o (id, token, state, retry, given_back, started_at, status, fault, address,
                  dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms, answer)
    ), changed AS (
        UPDATE delivery d
        SET state = o.state, claim_token = NULL,
            attempt = CASE WHEN o.given_back THEN d.attempt - 1 ELSE d.attempt END,
            visible_at = coalesce(moment + make_interval(secs => o.retry), d.visible_at),
            last_status = CASE WHEN o.given_back THEN d.last_status ELSE o.status END,
            last_fault = CASE WHEN o.given_back THEN d.last_fault ELSE o.fault END,
            settled_at = CASE WHEN o.state = 'pending' THEN NULL ELSE moment END
        FROM outcome o
        WHERE d.id = o.id AND d.claim_token = o.token AND d.state = 'pending'
        RETURNING d.id, d.endpoint_id, d.attempt
    ), told AS (
        INSERT INTO webhook_attempt (delivery_id, n, recorded_at, started_at, status, fault, address, dns_ms,
                                     connect_ms, tls_ms, first_byte_ms, total_ms, answer)
        SELECT o.id, c.attempt, moment, o.started_at, o.status, o.fault, o.address, o.dns_ms, o.connect_ms,
               o.tls_ms, o.first_byte_ms, o.total_ms, o.answer
        FROM outcome o JOIN changed c ON c.id = o.id
        WHERE NOT o.given_back
    )
    SELECT array_agg(c.id), array_agg(c.endpoint_id::text) INTO ours, lanes FROM changed c;

    RETURN QUERY
    WITH mine AS (
        SELECT l.endpoint_id, l FROM lane l WHERE l.endpoint_id = ANY (lanes)
        ORDER BY l.endpoint_id FOR NO KEY UPDATE
    )
    SELECT ARRAY(SELECT s.id FROM unnest(ours, lanes) AS s (id, lane) WHERE s.lane = m.endpoint_id), moment, m.l
    FROM mine m;
END $$;
-- delivery: end
-- version 3: begin
-- What processes of version 3 ask for until they are restarted; migration 0006 drops it, and with it
-- the index delivery_due (it stands since version 1): what they ask of the pending, whatever its
-- attempt, has no other. The claim gives no private halves of pairs, of which they know nothing.
CREATE OR REPLACE FUNCTION claim_deliveries(
    slots integer, rows_a_lane integer, margin interval, moment timestamptz DEFAULT clock_timestamp()
)
RETURNS TABLE (
    id uuid, claim_token uuid, attempt smallint, endpoint_id text, event_id uuid, type text,
    acknowledges boolean, body bytea, url text, ladder text, timeout_seconds smallint, headers bytea,
    secrets bytea[], hold_seconds float8
) LANGUAGE sql AS $$
    SELECT c.id, c.claim_token, c.attempt, c.endpoint_id, c.event_id, c.type, c.acknowledges, c.body,
           c.url, c.ladder, c.timeout_seconds, c.headers,
           ARRAY(SELECT s.sealed FROM endpoint_secret s
                 WHERE s.endpoint_id = c.endpoint_id AND s.public_key IS NULL
                   AND (s.expires_at IS NULL OR s.expires_at > moment)
                 ORDER BY s.id DESC),
           c.hold_seconds
    FROM claim_deliveries(slots, slots, slots, rows_a_lane, 2000, margin, moment) c;
$$;

-- Failures count where no success of this batch came after them, in the answers' order.
CREATE OR REPLACE FUNCTION settle_deliveries(
    ids uuid[], tokens uuid[], states text[], retries float8[], gives_back boolean[], successes boolean[],
    streaks integer[], halvings boolean[], holds float8[], started timestamptz[], statuses integer[],
    faults text[], addresses text[], dns integer[], connects integer[], first_bytes integer[],
    totals integer[], answers bytea[], moment timestamptz DEFAULT clock_timestamp()
) RETURNS TABLE (id uuid, lane_due_seconds float8) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    settled uuid[];
    lanes   text[];
BEGIN
    SELECT array_agg(g.id), array_agg((s.held).endpoint_id::text) INTO settled, lanes
    FROM settle_deliveries(ids, tokens, states, retries, gives_back, started, statuses, faults, addresses,
                           dns, connects, array_fill(NULL::integer, ARRAY[cardinality(ids)]), first_bytes,
                           totals, answers, moment) AS s, unnest(s.settled) AS g (id);

    RETURN QUERY
    WITH outcome AS (
        SELECT s.endpoint_id, o.*,
               max(o.n) FILTER (WHERE o.success) OVER (PARTITION BY s.endpoint_id) AS last_success
        FROM unnest(ids, retries, gives_back, successes, streaks, halvings, holds, started, statuses)
             WITH ORDINALITY AS o (id, retry, given_back, success, streak, halved, hold, started_at, status, n)
        JOIN unnest(settled, lanes) AS s (id, endpoint_id) ON s.id = o.id
    ), tally AS (
        SELECT o.endpoint_id,
               min(o.retry) AS first_retry,
               count(*) FILTER (WHERE o.success) AS successes,
               coalesce(sum(o.streak) FILTER (WHERE o.n > coalesce(o.last_success, 0)), 0) AS streak,
               count(*) FILTER (WHERE NOT o.success AND NOT o.given_back
                                  AND o.n > coalesce(o.last_success, 0)) AS failures,
               bool_or(o.halved) AS halved,
               bool_or(o.given_back) AS given_back,
               max(o.hold) AS hold,
               (array_agg(o.started_at ORDER BY o.n DESC) FILTER (WHERE NOT o.given_back))[1] AS last_at,
               (array_agg(o.status ORDER BY o.n DESC) FILTER (WHERE NOT o.given_back))[1] AS last_status
        FROM outcome o
        GROUP BY o.endpoint_id
    ), turned AS (
        UPDATE lane l
        SET send_window = CASE WHEN t.halved THEN greatest(1, l.send_window / 2)
                               ELSE least(l.cap, l.send_window + t.successes) END,
            streak = CASE WHEN t.successes > 0 THEN 0 ELSE l.streak END + t.streak,
            failure_count = CASE WHEN t.successes > 0 THEN 0 ELSE l.failure_count END + t.failures,
            hold_until = greatest(l.hold_until, moment + make_interval(secs => nullif(t.hold, 0))),
            last_attempt_at = coalesce(t.last_at, l.last_attempt_at),
            last_status = coalesce(t.last_status, l.last_status),
            first_due_at = CASE WHEN t.given_back THEN least(l.first_due_at, moment) ELSE l.first_due_at END,
            next_due_at = least(l.next_due_at, moment + make_interval(secs => t.first_retry),
                (SELECT d.visible_at FROM delivery d
                 WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt = 0
                 ORDER BY d.recorded_at, d.position LIMIT 1),
                (SELECT min(d.visible_at) FROM delivery d
                 WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt > 0
                   AND d.claim_token IS NULL))
        FROM tally t
        WHERE l.endpoint_id = t.endpoint_id
        RETURNING l.endpoint_id, CASE WHEN l.next_due_at < 'infinity' THEN greatest(0, extract(
            epoch FROM greatest(l.next_due_at, l.hold_until) - moment))::float8 END AS due_seconds
    )
    SELECT s.id, t.due_seconds
    FROM unnest(settled, lanes) AS s (id, endpoint_id) JOIN turned t ON t.endpoint_id = s.endpoint_id;
END $$;
-- version 3: end
