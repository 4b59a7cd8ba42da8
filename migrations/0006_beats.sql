-- Version 6: a claim walks over nothing that was claimed before, and its plans hold in an empty table
-- as in a full one. What version 3 asked for is dropped. A process of version 5 that still runs asks
-- for nothing that is not here; see docs/decisions/delivery.md.

-- Deliveries first, as in version 4: whoever settles has them already and is waited for.
LOCK TABLE delivery, lane IN ACCESS EXCLUSIVE MODE;

DROP INDEX delivery_due;
DROP VIEW endpoint_reading;
DROP FUNCTION claim_deliveries(integer, integer, interval, timestamptz);
DROP FUNCTION settle_deliveries(
    uuid[], uuid[], text[], float8[], boolean[], boolean[], integer[], boolean[], float8[], timestamptz[],
    integer[], text[], text[], integer[], integer[], integer[], integer[], bytea[], timestamptz
);

-- From here on nothing that was never tried was recorded before it: the first claim finds out.
UPDATE lane SET first_due_at = '-infinity';

CREATE OR REPLACE FUNCTION fan_out(most integer, moment timestamptz DEFAULT clock_timestamp()) RETURNS integer
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

CREATE OR REPLACE FUNCTION claim_deliveries(
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

CREATE OR REPLACE FUNCTION settle_deliveries(
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
