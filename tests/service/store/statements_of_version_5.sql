-- attempts.LIST_DELIVERIES
SELECT d.id, d.endpoint_id, e.developer_id, d.event_id, d.type, d.state, d.attempt,
       d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp() AS is_in_flight,
       CASE WHEN d.state = 'pending'
             AND NOT (d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
            THEN d.visible_at END AS next_attempt_at,
       d.last_status, d.last_fault, d.recorded_at, d.created_at, d.settled_at
FROM (
    (SELECT a.id FROM delivery a
     WHERE coalesce($2, 'delivered') = 'delivered'
       AND a.endpoint_id = $1 AND ($2::text IS NULL OR a.state = $2)
       AND ($3::text IS NULL OR a.type = $3)
       AND a.event_id >= $4 AND ($5::timestamptz IS NULL OR a.created_at >= $5) AND a.event_id < $6
     ORDER BY a.event_id DESC LIMIT $7)
    UNION ALL
    (SELECT s.id FROM delivery s
     WHERE $2 IN ('exhausted', 'cancelled', 'parked') AND s.endpoint_id = $1
       AND s.state IN ('exhausted', 'cancelled', 'parked') AND s.state = $2
       AND ($3::text IS NULL OR s.type = $3)
       AND s.event_id >= $4 AND ($5::timestamptz IS NULL OR s.created_at >= $5) AND s.event_id < $6
     ORDER BY s.event_id DESC LIMIT $7)
    UNION ALL
    (SELECT w.id FROM delivery w
     WHERE $2 = 'pending' AND w.endpoint_id = $1
       AND (w.state = 'pending' AND w.attempt = 0 OR w.state = 'pending' AND w.attempt > 0)
       AND ($3::text IS NULL OR w.type = $3)
       AND w.event_id >= $4 AND ($5::timestamptz IS NULL OR w.created_at >= $5) AND w.event_id < $6
     ORDER BY w.event_id DESC LIMIT $7)) AS page
JOIN delivery d ON d.id = page.id
JOIN webhook_endpoint e ON e.id = d.endpoint_id AND e.deleted_at IS NULL
ORDER BY d.event_id DESC;

-- attempts.READ_DELIVERY
SELECT d.id, d.endpoint_id, e.developer_id, d.event_id, d.type, d.state, d.attempt,
       d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp() AS is_in_flight,
       CASE WHEN d.state = 'pending'
             AND NOT (d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
            THEN d.visible_at END AS next_attempt_at,
       d.last_status, d.last_fault, d.recorded_at, d.created_at, d.settled_at
FROM delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id AND e.deleted_at IS NULL
WHERE d.id = $1;

-- attempts.READ_ATTEMPTS
SELECT n, started_at, status, fault, address, dns_ms, connect_ms, tls_ms,
       first_byte_ms, total_ms, answer
FROM webhook_attempt WHERE delivery_id = $1 ORDER BY n, recorded_at;

-- attempts.READ_BODY
SELECT body FROM webhook_body WHERE event_id = $1 AND recorded_at = $2;

-- attempts.RESEND
UPDATE delivery d
SET state = 'pending', visible_at = clock_timestamp(), claim_token = NULL, settled_at = NULL,
    acknowledges = d.acknowledges AND d.acknowledged_at IS NULL, acknowledged_at = NULL,
    ladder_from = CASE WHEN d.state = 'pending' OR NOT e.fifo THEN d.ladder_from END
FROM webhook_endpoint e
WHERE d.id = $1 AND e.id = d.endpoint_id
  AND NOT (d.state = 'pending' AND d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
  AND NOT (d.state = 'delivered' AND d.acknowledges AND d.acknowledged_at IS NULL)
RETURNING d.id;

-- attempts.HURRY_LANE
UPDATE lane SET next_due_at = least(next_due_at, clock_timestamp()),
    first_due_at = least(first_due_at, clock_timestamp()),
    hold_until = CASE WHEN breaker = 'open' AND hold_until <= breaker_until THEN '-infinity'
                      ELSE hold_until END
WHERE endpoint_id = $1;

-- attempts.MARK_TOLD
UPDATE event SET fanned_at = clock_timestamp() WHERE id = $1 RETURNING recorded_at, position;

-- attempts.INSERT_DELIVERY
INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, visible_at,
                      created_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp());

-- attempts.COUNT_RECENT
SELECT count(*) FILTER (WHERE r.state = 'pending') AS pending,
       count(*) FILTER (WHERE r.state = 'parked') AS parked,
       count(*) FILTER (WHERE r.state = 'delivered') AS delivered,
       count(*) FILTER (WHERE r.state = 'exhausted') AS exhausted,
       count(*) FILTER (WHERE r.state = 'cancelled') AS cancelled
FROM (SELECT d.state FROM delivery d WHERE d.endpoint_id = $1 AND d.event_id >= $2
      ORDER BY d.event_id DESC LIMIT 10000) AS r;

-- canary.MAKE_CANARY
WITH shop AS (
    INSERT INTO developer (id, email, company, created_at) VALUES ($1, $2, 'Canary', $6)
    ON CONFLICT DO NOTHING RETURNING id
), made AS (
    INSERT INTO webhook_endpoint (id, developer_id, url, events, ladder, seq, created_at,
                                  updated_at)
    SELECT $3, id, $4, ARRAY[$5::text], 'brief', 0, $6, $6 FROM shop
    RETURNING id
), cage AS (
    INSERT INTO lane (endpoint_id) SELECT id FROM made
)
INSERT INTO endpoint_secret (endpoint_id, sealed, created_at)
SELECT id, $7, clock_timestamp() FROM made;

-- canary.IS_THERE
SELECT EXISTS (SELECT FROM developer WHERE id = $1);

-- canary.LOCK_CANARY
SELECT seq FROM developer WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED;

-- canary.HAS_EVENT_SINCE
SELECT EXISTS (
    SELECT FROM event v JOIN developer d ON d.id = v.subject_id AND d.seq = v.seq
    WHERE d.id = $1 AND v.recorded_at > clock_timestamp() - make_interval(secs => $2));

-- canary.IS_UNDER_WAY
SELECT EXISTS (
    SELECT FROM event v JOIN developer d ON d.id = v.subject_id AND d.seq = v.seq
    WHERE d.id = $1 AND v.recorded_at > clock_timestamp() - make_interval(secs => $3)
      AND NOT EXISTS (SELECT FROM delivery w WHERE w.endpoint_id = $2 AND w.event_id = v.id
                        AND w.state IN ('delivered', 'exhausted')));

-- canary.SEND_AGAIN
UPDATE delivery d
SET state = 'pending', attempt = 0, visible_at = clock_timestamp(), settled_at = NULL
FROM developer p JOIN event v ON v.subject_id = p.id AND v.seq = p.seq
WHERE p.id = $1 AND d.endpoint_id = $2 AND d.event_id = v.id
  AND d.state IN ('delivered', 'exhausted')
  AND d.settled_at <= clock_timestamp() - make_interval(secs => $3)
RETURNING d.id;

-- checks.READ_UNBALANCED
SELECT total.currency AS subject, NULL AS escrow_id,
       format('the accounts in %s sum to %s', total.currency, total.minor) AS says
FROM (SELECT a.currency, sum(coalesce(a.balance_minor,
          (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
          - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
      )) AS minor
      FROM account a GROUP BY a.currency) AS total
WHERE total.minor <> 0 ORDER BY 1 LIMIT 100;

-- checks.READ_WRONG_BALANCES
SELECT a.owner AS subject, CASE WHEN a.kind = 'held' THEN a.owner END AS escrow_id,
       format('the %s account in %s says %s, its transfers %s',
              a.kind, a.currency, a.balance_minor, moved.minor) AS says
FROM account a CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
         - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
         AS minor) AS moved
WHERE a.kind IN ('available', 'pending', 'held') AND a.owner = ANY ($1::text[])
  AND a.balance_minor <> moved.minor
UNION ALL
SELECT coalesce(a.owner, p.user_id), NULL,
       format('the pending account in %s says %s, the payments under way %s',
              coalesce(a.currency, p.currency), coalesce(a.balance_minor, 0), coalesce(p.minor, 0))
FROM (SELECT owner, currency, balance_minor FROM account
      WHERE kind = 'pending' AND owner = ANY ($1::text[])) AS a
FULL JOIN (SELECT user_id, currency, sum(amount_minor)::bigint AS minor FROM payment
           WHERE user_id = ANY ($1::text[]) AND state IN ('created', 'pending')
             AND kind <> 'refund'
           GROUP BY user_id, currency) AS p ON p.user_id = a.owner AND p.currency = a.currency
WHERE coalesce(a.balance_minor, 0) <> coalesce(p.minor, 0)
ORDER BY 1 LIMIT 100;

-- checks.READ_WRONG_PARTS
SELECT e.id AS subject, e.id AS escrow_id,
       format('funded %s, held %s, released %s, refunded %s, fees %s; '
              'by the ledger %s, %s, %s, %s, %s',
              e.funded_minor, e.held_minor, e.released_minor, e.refunded_minor, e.fees_minor,
              moved.funded, coalesce(a.balance_minor, 0), moved.released, moved.refunded, moved.fees
             ) AS says
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.to_account = a.id), 0) AS funded,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id
                 AND t.reason IN ('release', 'resolution', 'withdrawal')), 0) AS released,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id AND t.reason = 'refund'), 0) AS refunded,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id AND t.reason IN (
                   'escrow_fee', 'developer_fee', 'protocol_fee', 'platform_fee')), 0) AS fees
    FROM transfer t WHERE t.escrow_id = e.id) AS moved
WHERE e.id = ANY ($1::text[])
  AND (e.funded_minor <> e.held_minor + e.released_minor + e.refunded_minor + e.fees_minor
       OR e.funded_minor <> moved.funded OR e.held_minor <> coalesce(a.balance_minor, 0)
       OR e.released_minor <> moved.released OR e.refunded_minor <> moved.refunded
       OR e.fees_minor <> moved.fees OR e.mode = 'milestone' AND (e.funded_minor, true) <> (
           SELECT coalesce(sum(f.amount_minor), 0),
                  coalesce(bool_and(f.is_held = (e.held_minor > 0)), true)
           FROM milestone_funding f WHERE f.escrow_id = e.id))
UNION ALL
SELECT e.id, e.id, format('%s of its %s milestones have amounts, which sum to %s; its own is %s',
                          part.priced, part.whole, part.sum, e.amount_minor)
FROM escrow e JOIN milestone_escrow m ON m.escrow_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*) AS whole, count(p.amount_minor) AS priced, sum(p.amount_minor) AS sum
    FROM milestone p WHERE p.escrow_id = e.id) AS part
WHERE e.id = ANY ($1::text[])
  AND CASE m.release_mode WHEN 'single' THEN part.priced <> 0 OR part.whole = 0
      ELSE part.priced <> part.whole OR part.sum IS DISTINCT FROM e.amount_minor END
ORDER BY 1 LIMIT 100;

-- checks.READ_UNFINISHED
SELECT e.id AS subject, e.id AS escrow_id,
       format('it is %s and holds %s, with %s open deadlines, %s disputes, %s requests, '
              '%s payments',
              e.status, greatest(e.held_minor, a.balance_minor), waiting.deadlines,
              waiting.disputes, waiting.requests, waiting.payments) AS says
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM deadline d WHERE d.escrow_id = e.id
              AND d.fired_at IS NULL AND d.cancelled_at IS NULL) AS deadlines,
           (SELECT count(*) FROM dispute t
            WHERE t.escrow_id = e.id AND t.resolved_at IS NULL) AS disputes,
           (SELECT count(*) FROM cancellation_request q
            WHERE q.escrow_id = e.id AND q.status = 'pending') AS requests,
           (SELECT count(*) FROM payment p WHERE p.escrow_id = e.id AND p.kind = 'accept_pay'
              AND p.state IN ('created', 'pending')) AS payments) AS waiting
WHERE e.id = ANY ($1::text[]) AND e.mode <> 'milestone' AND e.status IN ('completed', 'cancelled')
  AND (e.held_minor <> 0 OR coalesce(a.balance_minor, 0) <> 0
       OR waiting.deadlines + waiting.disputes + waiting.requests + waiting.payments <> 0)
UNION ALL
SELECT e.id, e.id, format('it is %s, its milestones say %s, and %s deadlines are open',
                          e.status, part.status, waiting.deadlines)
FROM escrow e JOIN milestone_escrow m ON m.escrow_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*) AS deadlines FROM deadline d
    WHERE d.escrow_id = e.id AND d.kind <> 'session'
      AND d.fired_at IS NULL AND d.cancelled_at IS NULL) AS waiting
CROSS JOIN LATERAL (
    SELECT CASE WHEN bool_or(s.disputed) THEN 'inDispute'
                WHEN bool_and(s.is_over) AND bool_or(s.released) THEN 'released'
                WHEN bool_and(s.is_over) THEN 'resolved'
                WHEN m.release_mode = 'single' AND bool_and(s.is_payable) THEN 'pendingRelease'
                WHEN m.release_mode = 'multi' AND bool_or(s.is_payable) THEN 'pendingRelease'
                ELSE 'working' END AS status
    FROM (SELECT p.disputed, p.released, p.released OR p.resolved AS is_over,
                 p.approved AND NOT (p.released OR p.resolved OR p.disputed) AS is_payable
          FROM milestone p WHERE p.escrow_id = e.id) AS s) AS part
WHERE e.id = ANY ($1::text[])
  AND (e.status <> part.status OR e.status IN ('released', 'resolved') AND waiting.deadlines <> 0)
ORDER BY 1 LIMIT 100;

-- checks.READ_FORGOTTEN
WITH funded AS (
    SELECT * FROM escrow WHERE id = ANY ($1::text[]) AND held_minor > 0
), needed AS (
    SELECT e.id, c.kind, '' AS subject FROM funded e
    JOIN unnest($2::text[], $3::text[], $4::text[]) AS c (mode, state, kind)
      ON c.mode = e.mode AND c.state = e.status
    UNION ALL
    SELECT e.id, CASE p.phase WHEN 'submitted_waiting_buyer_review' THEN 'proof_review'
                              ELSE 'proof_upload' END, ''
    FROM funded e JOIN purchase_proof p ON p.escrow_id = e.id
    WHERE e.status IN ('paid', 'disputed')
      AND p.phase IN ('waiting_seller_proof', 'submitted_waiting_buyer_review',
                      'correction_requested')
    UNION ALL
    SELECT e.id, 'cancellation_answer', '' FROM funded e
    JOIN cancellation_request q ON q.escrow_id = e.id AND q.status = 'pending'
    UNION ALL
    SELECT e.id, 'dispute_answer', '' FROM funded e
    JOIN dispute t ON t.escrow_id = e.id AND t.resolved_at IS NULL AND t.answered_at IS NULL
    UNION ALL
    SELECT DISTINCT e.id, 'resolver',
           CASE m.release_mode WHEN 'single' THEN '' ELSE p.position::text END
    FROM funded e
    JOIN milestone_escrow m ON m.escrow_id = e.id AND m.resolver_deadline_days IS NOT NULL
    JOIN milestone p ON p.escrow_id = e.id AND p.disputed
)
SELECT e.id AS subject, e.id AS escrow_id,
       format('it is %s, holds %s, and no %s deadline is open%s', e.status, e.held_minor, n.kind,
              CASE WHEN n.subject <> '' THEN ' for milestone ' || n.subject END) AS says
FROM needed n JOIN funded e ON e.id = n.id
WHERE NOT EXISTS (SELECT FROM deadline d
                  WHERE d.escrow_id = e.id AND d.kind = n.kind AND d.subject = n.subject
                    AND d.fired_at IS NULL AND d.cancelled_at IS NULL)
ORDER BY e.id LIMIT 100;

-- checks.READ_LATE
SELECT d.escrow_id AS subject, d.escrow_id AS escrow_id,
       format('its %s deadline is due since %s and has not fired', d.kind, d.due_at) AS says
FROM deadline d JOIN escrow e ON e.id = d.escrow_id AND NOT e.frozen
WHERE d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at < business_now() - interval '5 minutes'
ORDER BY d.due_at, d.id LIMIT 100;

-- checks.READ_BROKEN_LOGS
WITH subject AS (
    SELECT id, seq, status, 'escrow' AS kind FROM escrow WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'user' FROM app_user WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'developer' FROM developer WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'endpoint' FROM webhook_endpoint WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'identity' FROM identity_verification
    WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, state, 'payment' FROM payment WHERE id = ANY ($1::text[])
), walk AS (
    SELECT v.subject_id AS id, v.seq, v.from_state, v.to_state,
           v.subject_kind IN ('escrow', 'payment') AND v.step <> ALL ($2::text[]) AS is_move,
           coalesce(lag(v.to_state) OVER w, '-') AS stood,
           (v.xid, v.step, v.from_state, v.to_state) IS NOT DISTINCT FROM
           (lag(v.xid) OVER w, lag(v.step) OVER w, lag(v.from_state) OVER w, lag(v.to_state) OVER w)
           AS is_same_step
    FROM event v WHERE v.subject_id = ANY ($1::text[])
    WINDOW w AS (PARTITION BY v.subject_id, v.step = ANY ($2::text[]) ORDER BY v.seq)
), log AS (
    SELECT id, count(*) AS events, max(seq) AS highest,
           (array_agg(to_state ORDER BY seq DESC) FILTER (WHERE is_move))[1] AS ended,
           (array_agg(format('event %s starts at %s where it was %s', seq, from_state, stood)
                      ORDER BY seq)
            FILTER (WHERE is_move AND from_state <> stood AND NOT is_same_step))[1] AS jump
    FROM walk GROUP BY id
)
SELECT coalesce(s.id, l.id) AS subject, CASE WHEN s.kind = 'escrow' THEN s.id END AS escrow_id,
       concat_ws('; ',
           CASE WHEN s.id IS NULL THEN 'it has events and is not there' END,
           CASE WHEN s.seq <> coalesce(l.highest, 0) OR l.events <> l.highest
                THEN format('its counter is %s, its log has %s events up to %s', s.seq,
                            coalesce(l.events, 0), coalesce(l.highest, 0)) END,
           CASE WHEN l.ended <> s.status
                THEN format('its log ends at %s, its status is %s', l.ended, s.status) END,
           l.jump) AS says
FROM subject s FULL JOIN log l ON l.id = s.id
WHERE s.id IS NULL OR s.seq <> coalesce(l.highest, 0) OR l.events <> l.highest
   OR l.ended <> s.status OR l.jump IS NOT NULL
ORDER BY 1 LIMIT 100;

-- checks.READ_UNFANNED
SELECT v.subject_id AS subject,
       CASE WHEN v.subject_kind = 'escrow' THEN v.subject_id END AS escrow_id,
       format('event %s (%s) waits since %s', v.seq, v.type, v.recorded_at) AS says
FROM event v
WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
  AND v.recorded_at < clock_timestamp() - interval '5 seconds'
ORDER BY v.recorded_at LIMIT 100;

-- checks.READ_UNASKED
SELECT p.id AS subject, NULL AS escrow_id,
       format('%s by %s is %s, and %s has not said how it stands since %s',
              p.kind, p.provider, p.state, p.provider, coalesce(p.asked_at, p.created_at)) AS says
FROM payment p
WHERE p.state IN ('created', 'pending') AND p.provider <> 'bank_transfer' AND p.kind <> 'payout'
  AND coalesce(p.asked_at, p.created_at) < clock_timestamp() - interval '15 minutes'
ORDER BY p.created_at LIMIT 100;

-- checks.READ_UNCLEARED
SELECT a.owner AS subject, NULL AS escrow_id,
       format('clearing of %s in %s stands at %s since %s',
              a.owner, a.currency, total.minor, since.at) AS says
FROM account a CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
         - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
         AS minor) AS total
CROSS JOIN LATERAL (
    SELECT min(walk.recorded_at) AS at FROM (
        SELECT leg.recorded_at, leg.id, max(leg.id) FILTER (WHERE leg.minor = 0) OVER () AS zero
        FROM (SELECT t.id, t.recorded_at,
                     sum(CASE WHEN t.to_account = a.id THEN t.amount_minor ELSE -t.amount_minor END)
                     OVER (ORDER BY t.id) AS minor
              FROM transfer t WHERE total.minor <> 0 AND a.id IN (t.from_account, t.to_account)
             ) AS leg) AS walk
    WHERE walk.id > coalesce(walk.zero, 0)) AS since
CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(p.received_minor), 0) FROM payment p
            WHERE p.provider = a.owner AND p.received_currency = a.currency
              AND p.state = 'needs_operator' AND p.kind <> 'refund')
         + (SELECT coalesce(sum(p.amount_minor), 0) FROM payment p
            WHERE p.provider = a.owner AND p.currency = a.currency AND p.kind = 'refund'
              AND p.state NOT IN ('succeeded', 'failed', 'cancelled')) AS minor) AS listed
WHERE a.kind = 'clearing' AND total.minor <> listed.minor
ORDER BY a.id LIMIT 100;

-- checks.READ_ILLEGAL_STEPS
SELECT v.subject_id AS subject, e.id AS escrow_id,
       format('event %s: %s %s from %s to %s is not in the table',
              v.seq, v.mode, v.step, v.from_state, v.to_state) AS says
FROM event v
LEFT JOIN escrow e ON e.id = v.subject_id AND e.id = ANY ($1::text[])
LEFT JOIN milestone_escrow m ON m.escrow_id = e.id
LEFT JOIN payment p ON p.id = v.subject_id AND p.id = ANY ($1::text[])
LEFT JOIN transition r ON r.family = v.family AND r.mode = v.mode AND r.step = v.step
                      AND r.from_state = v.from_state AND r.to_state = v.to_state
WHERE v.subject_id = ANY ($1::text[]) AND v.subject_kind IN ('escrow', 'payment')
  AND (r.step IS NULL OR v.mode IS DISTINCT FROM coalesce(m.release_mode, e.mode, p.mode))
ORDER BY v.subject_id, v.seq LIMIT 100;

-- checks.READ_SUBJECTS
SELECT id FROM (
    (SELECT id FROM escrow WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM app_user WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM developer WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM webhook_endpoint WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM identity_verification WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM payment WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT DISTINCT subject_id FROM event WHERE subject_id > $1 ORDER BY subject_id LIMIT $2)
) AS every ORDER BY id LIMIT $2;

-- checks.COUNT_SUBJECTS
SELECT (SELECT count(*) FROM escrow) + (SELECT count(*) FROM app_user)
     + (SELECT count(*) FROM developer) + (SELECT count(*) FROM webhook_endpoint)
     + (SELECT count(*) FROM identity_verification) + (SELECT count(*) FROM payment);

-- checks.READ_CHANGED
WITH fresh AS (
    SELECT v.subject_id, v.xid, v.family FROM event v
    WHERE v.xid >= $1::text::xid8 AND v.xid < commit_horizon()
    ORDER BY v.xid FETCH FIRST $2 ROWS WITH TIES
), around AS (
    SELECT f.subject_id AS id FROM fresh f
    UNION SELECT e.seller_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT e.buyer_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT e.developer_fee_user_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT p.user_id FROM fresh f JOIN payment p ON p.id = f.subject_id
    UNION SELECT a.owner FROM fresh f
    JOIN transfer t ON t.escrow_id = f.subject_id AND f.family = 'milestone'
    JOIN account a ON a.id IN (t.from_account, t.to_account) AND a.kind = 'available'
)
SELECT (SELECT coalesce(array_agg(id::text), '{}') FROM around WHERE id IS NOT NULL) AS subjects,
       CASE WHEN count(*) >= $2 THEN (max(xid)::text::numeric + 1)::text
            ELSE commit_horizon()::text END AS next_xid,
       count(*) >= $2 AS has_more
FROM fresh;

-- checks.READ_HORIZON
SELECT commit_horizon()::text;

-- checks.SEAL_EVENTS
WITH head AS (
    SELECT s.number, s.last_xid, s.last_position, s.digest
    FROM event_seal s ORDER BY s.number DESC LIMIT 1
), start AS (
    SELECT h.number, h.last_xid, h.last_position, h.digest FROM head h
    UNION ALL SELECT 0, '0'::xid8, 0, ''::bytea WHERE NOT EXISTS (SELECT FROM head)
), taken AS (
    SELECT v.xid, v.position, event_text(v) AS line FROM event v
    WHERE (v.xid, v.position) > ((SELECT last_xid FROM start), (SELECT last_position FROM start))
      AND v.xid < commit_horizon()
    ORDER BY v.xid, v.position LIMIT $1
), whole AS (
    SELECT max(xid) AS last_xid,
           (array_agg(position ORDER BY xid DESC, position DESC))[1] AS last_position,
           convert_to(string_agg(line, E'\n' ORDER BY xid, position), 'UTF8') AS lines
    FROM taken HAVING count(*) = $1
)
INSERT INTO event_seal (number, last_xid, last_position, digest)
SELECT start.number + 1, whole.last_xid, whole.last_position, sha256(start.digest || whole.lines)
FROM start, whole
ON CONFLICT (number) DO NOTHING
RETURNING number;

-- checks.READ_HEAD
SELECT number, digest, sealed_at FROM event_seal ORDER BY number DESC LIMIT 1;

-- checks.READ_BROKEN_SEALS
SELECT s.number, CASE WHEN s.number > 1 AND p.number IS NULL THEN 'the seal before it is gone'
                      ELSE 'the events under it are not those that were sealed' END AS says
FROM event_seal s
LEFT JOIN event_seal p ON p.number = s.number - 1
CROSS JOIN LATERAL (
    SELECT string_agg(event_text(v), E'\n' ORDER BY v.xid, v.position) AS lines FROM event v
    WHERE (v.xid, v.position) > (coalesce(p.last_xid, '0'), coalesce(p.last_position, 0))
      AND (v.xid, v.position) <= (s.last_xid, s.last_position)) AS sealed
WHERE s.number > $1 AND s.number <= $2
  AND ((s.number > 1 AND p.number IS NULL)
       OR s.digest <> sha256(coalesce(p.digest, '')
                             || convert_to(coalesce(sealed.lines, ''), 'UTF8')))
ORDER BY s.number;

-- checks.READ_RESULTS
SELECT id, name, ok, breaches, checked_at, last_ok_at, seen_xid::text AS seen_xid
FROM invariant_result ORDER BY id;

-- checks.WRITE_RESULTS
INSERT INTO invariant_result (id, name, ok, breaches, checked_at, last_ok_at, seen_xid)
SELECT g.id, g.name, g.breaches = '[]', g.breaches, $4,
       CASE WHEN g.breaches = '[]' THEN $4::timestamptz END, $5::text::xid8
FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS g (id, name, breaches) ORDER BY g.id
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, ok = excluded.ok, breaches = excluded.breaches,
    checked_at = excluded.checked_at, seen_xid = excluded.seen_xid,
    last_ok_at = coalesce(excluded.last_ok_at, invariant_result.last_ok_at)
RETURNING id;

-- checks.MARK_FROZEN
UPDATE escrow SET frozen = true WHERE id = $1 AND NOT frozen;

-- checks.READ_TOTALS
SELECT part.currency, sum(part.held)::bigint AS held, sum(part.available)::bigint AS available,
       sum(part.fees)::bigint AS fees
FROM (SELECT e.ledger_currency AS currency, e.held_minor AS held, 0 AS available,
             e.fees_minor AS fees
      FROM escrow e WHERE e.creator_id = $1
      UNION ALL
      SELECT a.currency, 0, a.balance_minor, 0
      FROM developer d JOIN account a ON a.kind = 'available' AND a.owner = d.user_id
      WHERE d.id = $1) AS part
GROUP BY part.currency ORDER BY part.currency;

-- checks.READ_OWN
SELECT e.id FROM escrow e WHERE e.creator_id = $1 AND e.id = ANY ($2::text[])
UNION SELECT d.id FROM developer d WHERE d.id = $1
UNION SELECT d.user_id FROM developer d WHERE d.id = $1 AND d.user_id IS NOT NULL
UNION SELECT w.id FROM webhook_endpoint w WHERE w.developer_id = $1 AND w.id = ANY ($2::text[])
UNION SELECT v.id FROM identity_verification v
WHERE v.developer_id = $1 AND v.id = ANY ($2::text[]);

-- clock.READ_CLOCK
SELECT business_now() AS now, statement_timestamp() AS real_now,
       coalesce(lease_until > statement_timestamp(), false) AS is_advancing
FROM clock;

-- clock.OPEN
SELECT business_now(), statement_timestamp(),
       $1::text IS NULL OR pg_try_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0));

-- clock.LEASE_CLOCK
UPDATE clock SET held_by = $1, lease_until = statement_timestamp() + $2
WHERE coalesce(lease_until <= statement_timestamp(), true)
RETURNING true;

-- clock.RELEASE_CLOCK
UPDATE clock SET lease_until = statement_timestamp() WHERE held_by = $1;

-- clock.MOVE_CLOCK
UPDATE clock SET shift = greatest(shift, $2 - statement_timestamp()),
    lease_until = statement_timestamp() + $3
WHERE held_by = $1 AND lease_until > statement_timestamp()
RETURNING true;

-- consoles.READ_ACCOUNT
SELECT id, company, user_id FROM developer WHERE email = $1;

-- consoles.LIST_KEYS
SELECT prefix, name, is_active AND coalesce(expires_at > now(), true) AS is_good, last_used_at,
       expires_at, created_at
FROM api_key WHERE developer_id = $1 ORDER BY id DESC LIMIT 50;

-- dashboard.LIST_AWAITING
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    (SELECT e.id::text FROM escrow e
     WHERE e.seller_id = ANY (ARRAY[$1::text]) AND e.completed_at IS NULL AND e.cancelled_at IS NULL
       AND e.mode <> 'milestone' AND e.id < $2::text AND ($3::text IS NULL
           OR lower(e.title) LIKE lower($3) OR e.seller_email LIKE lower($3)
           OR e.buyer_email LIKE lower($3) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($3)))
       AND awaits_seller(e)
     ORDER BY e.seller_id, e.id DESC LIMIT $4::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.buyer_id = ANY (ARRAY[$1::text]) AND e.completed_at IS NULL AND e.cancelled_at IS NULL
       AND e.mode <> 'milestone' AND e.id < $2::text AND ($3::text IS NULL
           OR lower(e.title) LIKE lower($3) OR e.seller_email LIKE lower($3)
           OR e.buyer_email LIKE lower($3) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($3)))
       AND awaits_buyer(e)
     ORDER BY e.buyer_id, e.id DESC LIMIT $4::bigint)
    ORDER BY 1 DESC LIMIT $4))
ORDER BY id DESC;

-- dashboard.LIST_OTHERS
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    (SELECT e.id::text FROM escrow e
     WHERE e.seller_id = ANY (ARRAY[$1::text]) AND e.mode <> 'milestone' AND e.id < $2::text
       AND ($3::text IS NULL
           OR lower(e.title) LIKE lower($3) OR e.seller_email LIKE lower($3)
           OR e.buyer_email LIKE lower($3) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($3)))
       AND NOT awaits_seller(e)
     ORDER BY e.seller_id, e.id DESC LIMIT $4::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.buyer_id = ANY (ARRAY[$1::text]) AND e.mode <> 'milestone' AND e.id < $2::text
       AND ($3::text IS NULL
           OR lower(e.title) LIKE lower($3) OR e.seller_email LIKE lower($3)
           OR e.buyer_email LIKE lower($3) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($3)))
       AND NOT awaits_buyer(e)
     ORDER BY e.buyer_id, e.id DESC LIMIT $4::bigint)
    ORDER BY 1 DESC LIMIT $4))
ORDER BY id DESC;

-- dashboard.LIST_NAMINGS
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    SELECT e.id::text FROM escrow e JOIN developer d ON d.id = e.creator_id
    WHERE (e.seller_id = $1 OR e.buyer_id = $1) AND e.completed_at IS NULL
      AND e.cancelled_at IS NULL AND e.status = 'pending' AND e.mode <> 'milestone'
      AND e.created_at >= $2 AND d.user_id IS DISTINCT FROM $1
      AND NOT EXISTS (SELECT FROM contract c JOIN contract_signature s ON s.contract_id = c.id
                      WHERE c.escrow_id = e.id AND s.user_id = $1)
    ORDER BY e.id DESC LIMIT $3))
ORDER BY id DESC;

-- dashboard.LIST_MILESTONES
SELECT * FROM milestone_reading WHERE id = ANY (ARRAY(
    SELECT DISTINCT r.escrow_id FROM escrow_role r JOIN escrow e ON e.id = r.escrow_id
    WHERE r.user_id = $1 AND r.escrow_id < $2 AND ($3::text IS NULL
        OR lower(e.title) LIKE lower($3) OR EXISTS (SELECT FROM escrow_role o
            WHERE o.escrow_id = e.id AND o.email LIKE lower($3)))
    ORDER BY r.escrow_id DESC LIMIT $4))
ORDER BY id DESC;

-- deadlines.STOP_DEADLINES
UPDATE deadline SET cancelled_at = $3
FROM unnest($1::text[], $2::text[]) AS stopped (escrow_id, kind)
WHERE deadline.escrow_id = stopped.escrow_id AND fired_at IS NULL AND cancelled_at IS NULL
  AND stopped.kind IN (deadline.kind, '*');

-- deadlines.PAUSE_DEADLINES
UPDATE deadline SET remaining = greatest(due_at - $3, interval '0')
FROM unnest($1::text[], $2::text[]) AS paused (escrow_id, kind)
WHERE deadline.escrow_id = paused.escrow_id AND deadline.kind = paused.kind
  AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NULL;

-- deadlines.RESUME_DEADLINES
UPDATE deadline SET due_at = $3::timestamptz + remaining, remaining = NULL
FROM unnest($1::text[], $2::text[]) AS resumed (escrow_id, kind)
WHERE deadline.escrow_id = resumed.escrow_id AND deadline.kind = resumed.kind
  AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NOT NULL;

-- deadlines.ARM_DEADLINES
INSERT INTO deadline (escrow_id, kind, subject, due_at, armed_version, remaining)
SELECT escrow_id, kind, subject, due_at, version, CASE WHEN is_paused THEN due_at - $7 END
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::boolean[])
    AS armed (escrow_id, kind, subject, due_at, version, is_paused)
ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL DO NOTHING;

-- deadlines.REARM_DEADLINES
INSERT INTO deadline (escrow_id, kind, due_at, armed_version)
SELECT l.escrow_id, l.kind, greatest(l.due_at, $4), back.version
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS back (escrow_id, kind, version)
CROSS JOIN LATERAL (
    SELECT * FROM deadline d WHERE d.escrow_id = back.escrow_id AND d.kind = back.kind
    ORDER BY d.id DESC LIMIT 1
) AS l
WHERE l.fired_at IS NULL
ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL DO NOTHING;

-- deadlines.STOP_KINDS
UPDATE deadline SET cancelled_at = $3
WHERE escrow_id = $1 AND kind = ANY ($2::text[]) AND fired_at IS NULL AND cancelled_at IS NULL
  AND ($4::text[] IS NULL OR subject = ANY ($4));

-- deadlines.FIRE_DEADLINES
UPDATE deadline SET fired_at = $2
WHERE id = ANY ($1::bigint[]) AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NULL
  AND due_at <= $2
RETURNING id, escrow_id, kind, subject, due_at;

-- deadlines.READ_DUE
SELECT d.id, d.escrow_id, d.kind, d.subject, d.due_at
FROM deadline d JOIN escrow e ON e.id = d.escrow_id AND NOT e.frozen
WHERE d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at <= $1 AND NOT d.id = ANY ($3::bigint[])
ORDER BY d.due_at, d.id LIMIT $2;

-- deadlines.READ_OPEN
SELECT id, escrow_id, kind, subject, due_at, remaining FROM deadline
WHERE escrow_id = ANY ($1::text[]) AND fired_at IS NULL AND cancelled_at IS NULL ORDER BY due_at, id;

-- deadlines.LOCK_EXPIRING
SELECT e.id FROM deadline d JOIN escrow e ON e.id = d.escrow_id
WHERE d.kind = 'expiry' AND d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at > $1::timestamptz AND d.due_at <= $1::timestamptz + $2::interval
  AND e.created_at <= d.due_at - 2 * $2::interval AND e.status = 'pending' AND NOT e.frozen
  AND NOT EXISTS (SELECT FROM mail m WHERE m.dedupe_key = 'expiry_near:' || e.id || ':buyer')
ORDER BY e.id LIMIT $3 FOR NO KEY UPDATE OF e SKIP LOCKED;

-- deliveries.FAN_OUT
SELECT fan_out($1);

-- deliveries.CLAIM_DELIVERIES
SELECT * FROM claim_deliveries($1, $2, $3, $4, $5, make_interval(secs => $6));

-- deliveries.SETTLE_DELIVERIES
SELECT * FROM settle_deliveries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                                $11, $12, $13, $14, $15);

-- deliveries.LOCK_RECEIPTS
WITH receipt AS MATERIALIZED (
    SELECT d.id, v.subject_id FROM delivery d JOIN event v ON v.id = d.event_id
    WHERE d.acknowledges AND d.state = 'delivered' AND d.acknowledged_at IS NULL
    ORDER BY d.settled_at LIMIT $1
), free AS MATERIALIZED (
    SELECT x.id FROM escrow x WHERE x.id IN (SELECT subject_id FROM receipt)
    ORDER BY x.id
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT r.id, free.id IS NOT NULL AS is_free FROM receipt r LEFT JOIN free ON free.id = r.subject_id;

-- deliveries.ACKNOWLEDGE
WITH receipt AS MATERIALIZED (
    SELECT d.id, v.subject_id FROM delivery d JOIN event v ON v.id = d.event_id
    WHERE d.id = ANY ($1::uuid[]) AND d.acknowledged_at IS NULL
), armed AS (
    INSERT INTO deadline (escrow_id, kind, due_at, armed_version, remaining)
    SELECT x.id, 'acknowledged', $2, x.seq,
           CASE WHEN x.status = 'disputed'
                     OR EXISTS (SELECT FROM cancellation_request q
                                WHERE q.escrow_id = x.id AND q.status = 'pending')
                THEN interval '0' END
    FROM escrow x
    WHERE x.id IN (SELECT subject_id FROM receipt) AND x.status IN ('paid', 'disputed')
    ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL
    DO NOTHING
    RETURNING escrow_id
), passed_on AS (
    UPDATE delivery d SET acknowledged_at = clock_timestamp() FROM receipt r WHERE d.id = r.id
)
SELECT count(*) FROM armed;

-- deliveries.PARK_DELIVERIES
UPDATE delivery SET state = 'parked', claim_token = NULL
WHERE endpoint_id = ANY ($1::text[])
  AND (state = 'pending' AND attempt = 0 OR state = 'pending' AND attempt > 0)
  AND (claim_token IS NULL OR visible_at <= clock_timestamp());

-- deliveries.UNPARK_DELIVERIES
UPDATE delivery SET state = 'pending', visible_at = clock_timestamp()
WHERE endpoint_id = ANY ($1::text[]) AND state = 'parked';

-- deliveries.CANCEL_DELIVERIES
UPDATE delivery SET state = 'cancelled', claim_token = NULL, settled_at = clock_timestamp()
WHERE endpoint_id = ANY ($1::text[])
  AND (state = 'parked' OR state = 'pending' AND attempt = 0 OR state = 'pending' AND attempt > 0)
  AND (state = 'parked' OR claim_token IS NULL OR visible_at <= clock_timestamp());

-- deliveries.READ_STRANDED
SELECT e.id FROM webhook_endpoint e
WHERE NOT e.is_active AND (
    EXISTS (SELECT FROM delivery d
            WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempt = 0)
    OR EXISTS (SELECT FROM delivery d
               WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempt > 0
                 AND (d.claim_token IS NULL OR d.visible_at <= clock_timestamp())))
ORDER BY e.id;

-- deliveries.CLEAR_STRANDED
UPDATE delivery d
SET state = CASE WHEN e.deleted_at IS NULL THEN 'parked' ELSE 'cancelled' END,
    settled_at = CASE WHEN e.deleted_at IS NULL THEN NULL ELSE clock_timestamp() END,
    claim_token = NULL
FROM webhook_endpoint e
WHERE e.id = ANY ($1::text[]) AND NOT e.is_active AND d.endpoint_id = e.id
  AND (d.state = 'pending' AND d.attempt = 0 OR d.state = 'pending' AND d.attempt > 0)
  AND (d.claim_token IS NULL OR d.visible_at <= clock_timestamp());

-- deliveries.SKIP_HEAD
UPDATE delivery SET state = 'cancelled', claim_token = NULL, settled_at = clock_timestamp()
WHERE id = fifo_head($1) AND (claim_token IS NULL OR visible_at <= clock_timestamp())
RETURNING id;

-- deliveries.EXHAUST_PARKED
WITH old AS (
    SELECT d.id FROM delivery d
    WHERE d.state = 'parked' AND d.recorded_at < clock_timestamp() - make_interval(days => $1)
    LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE delivery d SET state = 'exhausted', last_fault = 'no_body', settled_at = clock_timestamp()
FROM old WHERE d.id = old.id;

-- deliveries.MAKE_PARTITIONS
SELECT make_webhook_partitions($1);

-- deliveries.DROP_PARTITIONS
SELECT drop_webhook_partitions($1, $2);

-- developers.INSERT_DEVELOPER
INSERT INTO developer (id, email, company, user_id, redirect_urls, created_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- developers.INSERT_KEY
INSERT INTO api_key (id, developer_id, name, prefix, hash, environment, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- developers.ASSOCIATE
UPDATE developer SET user_id = $2, seq = seq + 1 WHERE id = $1 RETURNING seq;

-- developers.NEXT_DEVELOPER_SEQ
UPDATE developer SET seq = seq + 1 WHERE id = $1 RETURNING seq;

-- developers.STORE_SIGNATURE
WITH image AS (INSERT INTO signature_image (sealed) VALUES ($2) RETURNING id)
UPDATE developer SET signature_id = image.id, seq = seq + 1 FROM image
WHERE developer.id = $1 RETURNING seq;

-- developers.READ_HAS_SIGNATURE
SELECT signature_id IS NOT NULL FROM developer WHERE id = $1;

-- developers.STORE_REDIRECT_URLS
UPDATE developer SET redirect_urls = $2, seq = seq + 1 WHERE id = $1 RETURNING seq;

-- developers.READ_REDIRECT_URLS
SELECT redirect_urls FROM developer WHERE id = $1;

-- developers.READ_OWN_KEY
SELECT k.id AS key_id, k.name, k.prefix, k.environment, k.is_active, k.last_used_at, k.expires_at,
       k.rate_limit_per_minute, k.metadata, k.created_at, d.id AS developer_id, d.email, d.company
FROM api_key k JOIN developer d ON d.id = k.developer_id WHERE k.id = $1;

-- developers.READ_DEVELOPERS
SELECT d.id, d.email, d.company, u.email AS user_email, d.created_at, count(k.id) AS keys
FROM developer d LEFT JOIN app_user u ON u.id = d.user_id
LEFT JOIN api_key k ON k.developer_id = d.id AND k.is_active
WHERE d.id <> $1
GROUP BY d.id, u.email ORDER BY d.id;

-- developers.READ_KEYS
SELECT k.id, k.prefix, k.name, d.email, k.is_active, k.expires_at, k.last_used_at
FROM api_key k JOIN developer d ON d.id = k.developer_id ORDER BY d.id, k.id;

-- developers.LOCK_KEYS
SELECT k.id, k.name, k.developer_id, d.user_id
FROM api_key k JOIN developer d ON d.id = k.developer_id
WHERE (k.id = $1 OR k.prefix = $1) AND k.is_active
  AND coalesce(k.expires_at > statement_timestamp(), true)
ORDER BY k.id FOR NO KEY UPDATE;

-- developers.RETIRE_KEY
UPDATE api_key SET is_active = $2 > statement_timestamp(), expires_at = least(expires_at, $2)
WHERE id = $1;

-- developers.READ_OPENINGS
SELECT d.company, d.signature_id,
       o.id AS own_id, o.email AS own_user_email, o.first_name AS own_first_name,
       o.last_name AS own_last_name, o.language AS own_language,
       o.timezone AS own_timezone,
       o.phone_verified_at IS NOT NULL AS own_phone_verified,
       s.id AS seller_id, s.email AS seller_user_email, s.first_name AS seller_first_name,
       s.last_name AS seller_last_name, s.language AS seller_language,
       s.timezone AS seller_timezone,
       s.phone_verified_at IS NOT NULL AS seller_phone_verified,
       s.email_verified_at IS NOT NULL AS is_seller_verified,
       b.id AS buyer_id, b.email AS buyer_user_email, b.first_name AS buyer_first_name,
       b.last_name AS buyer_last_name, b.language AS buyer_language,
       b.timezone AS buyer_timezone,
       b.phone_verified_at IS NOT NULL AS buyer_phone_verified,
       r.rate, r.fetched_at AS rate_at,
       q.wants_acknowledgement AND EXISTS (
           SELECT FROM webhook_endpoint w
           WHERE w.developer_id = d.id AND w.is_active AND w.deleted_at IS NULL
             AND w.events && ARRAY[$6, 'escrow.*', '*']) AS can_acknowledge
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) WITH ORDINALITY
     AS q (developer_id, seller_email, buyer_email, currency, wants_acknowledgement, n)
JOIN developer d ON d.id = q.developer_id
LEFT JOIN app_user o ON o.id = d.user_id
LEFT JOIN app_user s ON s.email = coalesce(q.seller_email, o.email)
LEFT JOIN app_user b ON b.email = q.buyer_email AND b.email_verified_at IS NOT NULL
LEFT JOIN LATERAL (SELECT rate, fetched_at FROM fx_rate WHERE currency = q.currency
                   ORDER BY fetched_at DESC LIMIT 1) r ON true
ORDER BY q.n;

-- developers.READ_COMPANY
SELECT company FROM developer WHERE id = $1;

-- developers.READ_LANGUAGE
SELECT coalesce(u.language, 'en') FROM developer d LEFT JOIN app_user u ON u.id = d.user_id
WHERE d.id = $1;

-- developers.LOCK_CREATIONS
SELECT pg_advisory_xact_lock(hashtextextended('cap/' || $1, 0));

-- developers.COUNT_SINCE
SELECT count(*) FROM escrow WHERE creator_id = $1 AND id >= $2;

-- disputes.INSERT_STATEMENT
INSERT INTO dispute_statement (id, dispute_id, role, user_id, body, stated_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- disputes.INSERT_EVIDENCE
INSERT INTO dispute_evidence (statement_id, position, file_key)
SELECT $1, f.position, f.key FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position);

-- disputes.REPLACE_OFFER
UPDATE dispute_offer SET outcome = 'replaced'
WHERE dispute_id = $1 AND role = $2 AND outcome IS NULL;

-- disputes.INSERT_OFFER
INSERT INTO dispute_offer (id, dispute_id, role, seller_minor, buyer_minor, offered_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- disputes.NOTE_ACCEPTED
UPDATE dispute_offer SET outcome = 'accepted' WHERE id = $1 AND outcome IS NULL;

-- disputes.COUNT_ADDITIONS
SELECT (SELECT count(*) FROM dispute_statement s WHERE s.dispute_id = $1 AND s.role = $2)
     + (SELECT count(*) FROM dispute_offer o WHERE o.dispute_id = $1 AND o.role = $2);

-- disputes.READ_OFFER
SELECT o.id, o.dispute_id, o.role, o.seller_minor, o.buyer_minor, o.offered_at,
       coalesce(o.outcome, CASE WHEN d.resolved_at IS NOT NULL THEN 'lapsed' END) AS outcome
FROM dispute_offer o JOIN dispute d ON d.id = o.dispute_id
WHERE o.id = $1;

-- disputes.READ_OFFERS
SELECT o.id, o.dispute_id, o.role, o.seller_minor, o.buyer_minor, o.offered_at,
       coalesce(o.outcome, CASE WHEN d.resolved_at IS NOT NULL THEN 'lapsed' END) AS outcome
FROM dispute_offer o JOIN dispute d ON d.id = o.dispute_id
WHERE o.dispute_id = $1 ORDER BY o.id;

-- disputes.READ_STATEMENTS
SELECT id, dispute_id, role, user_id, body, stated_at
FROM dispute_statement WHERE dispute_id = $1 ORDER BY stated_at, id;

-- disputes.READ_EVIDENCE
SELECT s.id, f.key, f.mime_type, f.bytes, f.sha256, f.filename
FROM dispute_statement s
JOIN dispute_evidence e ON e.statement_id = s.id JOIN file f ON f.key = e.file_key
WHERE s.dispute_id = $1 ORDER BY s.id, e.position;

-- disputes.READ_OPEN_DISPUTES
SELECT escrow_id FROM dispute WHERE resolved_at IS NULL ORDER BY answered_at NULLS LAST, id LIMIT $1;

-- disputes.READ_PROOFS_TO_DECIDE
SELECT p.escrow_id FROM purchase_proof p JOIN escrow e ON e.id = p.escrow_id
WHERE p.phase = 'needs_dhmad_review' AND e.status = 'paid' ORDER BY p.escrow_id LIMIT $1;

-- endpoints.LOCK_DEVELOPER
SELECT id FROM developer WHERE id = $1 FOR NO KEY UPDATE;

-- endpoints.COUNT_ENDPOINTS
SELECT count(*) FROM webhook_endpoint WHERE developer_id = $1 AND deleted_at IS NULL;

-- endpoints.INSERT_ENDPOINT
WITH made AS (
    INSERT INTO webhook_endpoint (id, developer_id, url, events, ladder, timeout_seconds, headers,
                                  max_per_second, fifo, seq, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
    RETURNING id
)
INSERT INTO lane (endpoint_id) SELECT id FROM made;

-- endpoints.INSERT_SIGNING_KEY
INSERT INTO endpoint_secret (endpoint_id, sealed, public_key, created_at)
VALUES ($1, $2, $3, clock_timestamp());

-- endpoints.DELETE_SIGNING_KEYS
DELETE FROM endpoint_secret
WHERE endpoint_id = $1 AND (public_key IS NOT NULL) = $3 AND id NOT IN (
    SELECT s.id FROM endpoint_secret s
    WHERE s.endpoint_id = $1 AND coalesce(s.expires_at > clock_timestamp(), true)
      AND (s.public_key IS NOT NULL) = $3
    ORDER BY s.id DESC LIMIT $2);

-- endpoints.EXPIRE_SIGNING_KEYS
UPDATE endpoint_secret SET expires_at = clock_timestamp() + make_interval(hours => $2)
WHERE endpoint_id = $1 AND (public_key IS NOT NULL) = $3
  AND (expires_at IS NULL OR expires_at > clock_timestamp() + make_interval(hours => $2));

-- endpoints.DELETE_EXPIRED_KEYS
DELETE FROM endpoint_secret WHERE expires_at <= clock_timestamp();

-- endpoints.READ_ENDPOINTS
SELECT * FROM endpoint_standing WHERE developer_id = $1 ORDER BY id;

-- endpoints.READ_ENDPOINT
SELECT * FROM endpoint_standing WHERE id = $1;

-- endpoints.LOCK_ENDPOINTS
SELECT id FROM webhook_endpoint WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE;

-- endpoints.MOVE_ENDPOINT
UPDATE webhook_endpoint SET
    url = $2, events = $3, is_active = $4, ladder = $5, timeout_seconds = $6, max_per_second = $7,
    fifo = $8, headers = $9,
    flag = CASE WHEN url = $2 THEN flag END,
    disabled_reason = CASE WHEN $4 THEN NULL ELSE disabled_reason END,
    seq = seq + 1, updated_at = $10
WHERE id = $1;

-- endpoints.NEXT_SEQ
UPDATE webhook_endpoint SET seq = seq + 1, updated_at = $2 WHERE id = $1 RETURNING seq;

-- endpoints.DELETE_ENDPOINT
UPDATE webhook_endpoint
SET is_active = false, deleted_at = $2, updated_at = $2, headers = NULL, seq = seq + 1
WHERE id = $1;

-- endpoints.READ_ADDRESSED
SELECT e.id, e.url, d.email AS developer_email,
       coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language
FROM webhook_endpoint e JOIN developer d ON d.id = e.developer_id
WHERE e.id = ANY ($1::text[]) AND e.is_active
ORDER BY e.id;

-- endpoints.DISABLE_ENDPOINTS
UPDATE webhook_endpoint e
SET is_active = false, disabled_reason = given.reason, seq = e.seq + 1, updated_at = $3
FROM unnest($1::text[], $2::text[]) AS given (id, reason), developer d
WHERE e.id = given.id AND e.is_active AND d.id = e.developer_id
RETURNING e.id, e.developer_id, e.url, e.seq, e.disabled_reason, d.email AS developer_email,
          coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language,
          (SELECT l.failure_count FROM lane l WHERE l.endpoint_id = e.id) AS failure_count;

-- endpoints.FLAG_ENDPOINTS
UPDATE webhook_endpoint e SET flag = given.flag
FROM unnest($1::text[], $2::text[]) AS given (id, flag)
WHERE e.id = given.id;

-- escrows.LOCK_ESCROWS
SELECT (reading).*, read_at, due_deadline FROM lock_escrows($1::text[], $2, $3);

-- escrows.READ_ESCROW
SELECT * FROM escrow_reading WHERE id = $1 AND mode <> 'milestone';

-- escrows.INSERT_ESCROWS
INSERT INTO escrow (
    id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
    language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
    escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
    estimated_delivery_days, auto_complete, fulfillment_policy, expires_at, created_at, updated_at)
SELECT id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
       language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
       escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
       estimated_delivery_days, auto_complete, fulfillment_policy::jsonb, expires_at, created_at,
       created_at
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[],
    $15::numeric[], $16::bigint[], $17::bigint[], $18::integer[], $19::bigint[], $20::text[],
    $21::integer[], $22::text[], $23::text[], $24::timestamptz[], $25::timestamptz[]
) AS given (
    id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
    language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
    escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
    estimated_delivery_days, auto_complete, fulfillment_policy, expires_at, created_at);

-- escrows.INSERT_CONTRACTS
INSERT INTO contract (id, escrow_id, terms, created_at, updated_at)
SELECT id, escrow_id, terms, $4, $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS given (id, escrow_id, terms);

-- escrows.MOVE_ESCROWS
UPDATE escrow e SET
    status = m.status, seq = m.seq, frozen = m.frozen, seller_id = m.seller_id,
    buyer_id = m.buyer_id, funded_minor = m.funded, held_minor = m.held,
    released_minor = m.released, refunded_minor = m.refunded, fees_minor = m.fees,
    cancel_reason = m.cancel_reason, paid_at = m.paid_at, delivered_at = m.delivered_at,
    completed_at = m.completed_at, cancelled_at = m.cancelled_at, updated_at = m.updated_at,
    guest_provider = m.guest_provider
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[], $7::text[],
    $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::text[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[], $20::text[]
) AS m (id, was, status, seq_was, seq, frozen, seller_id, buyer_id, funded, held, released,
        refunded, fees, cancel_reason, paid_at, delivered_at, completed_at, cancelled_at,
        updated_at, guest_provider)
WHERE e.id = m.id AND e.status = m.was AND e.seq = m.seq_was;

-- escrows.READ_WAITING_FOR
SELECT id, mode FROM escrow
WHERE (seller_email = $1 AND seller_id IS NULL OR buyer_email = $1 AND buyer_id IS NULL)
  AND status NOT IN ('completed', 'cancelled')
UNION
SELECT e.id, e.mode FROM escrow_role r JOIN escrow e ON e.id = r.escrow_id
WHERE r.email = $1 AND r.user_id IS NULL
ORDER BY id;

-- escrows.LIST_ESCROWS
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    (SELECT e.id::text FROM escrow e
     WHERE e.seller_id = ANY (ARRAY[$1::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.seller_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.buyer_id = ANY (ARRAY[$2::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.buyer_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.creator_id = ANY (ARRAY[$3::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.creator_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    ORDER BY 1 DESC LIMIT $11 OFFSET $12))
ORDER BY id DESC;

-- escrows.COUNT_ESCROWS
SELECT count(*) FROM escrow e
WHERE (e.seller_id = $1 OR e.buyer_id = $2 OR e.creator_id = $3) AND e.mode = ANY ($4::text[])
  AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
  AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
      OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
      OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
          WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)));

-- events.APPEND_EVENTS
WITH given AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bytea[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
        $15::text[], $16::text[], $18::jsonb[]
    ) AS g (id, subject_id, subject_kind, seq, step, type, body, family, mode, from_state, to_state,
            actor_kind, actor_id, key_id, ip, request_id, said)
), written AS (
    INSERT INTO event (id, subject_id, subject_kind, seq, step, type, family, mode, from_state,
                       to_state, actor_kind, actor_id, key_id, ip, request_id, at, said)
    SELECT id, subject_id, subject_kind, seq, step, type, family, mode, from_state, to_state,
           actor_kind, actor_id, key_id, ip, request_id, $17, said
    FROM given
    RETURNING id, recorded_at
)
INSERT INTO webhook_body (event_id, recorded_at, body)
SELECT written.id, written.recorded_at, given.body
FROM written JOIN given USING (id) WHERE given.body IS NOT NULL;

-- feed.READ_FEED
WITH scanned AS MATERIALIZED (
    SELECT v.xid, v.position, v.id, v.type, v.subject_kind, v.subject_id, v.step, v.recorded_at
    FROM event v
    WHERE (v.xid, v.position) > ($2::text::xid8, $3::bigint) AND v.xid < commit_horizon()
    ORDER BY v.xid, v.position
    LIMIT $5
), heard AS MATERIALIZED (
    SELECT s.subject_kind, s.subject_id
    FROM (SELECT DISTINCT subject_kind, subject_id FROM scanned WHERE type IS NOT NULL) AS s
    JOIN developer p ON p.id = $1
    WHERE EXISTS (SELECT FROM audience(s.subject_kind, s.subject_id) a
                  WHERE a.developer_id = p.id OR p.user_id = ANY (a.user_ids))
), told AS (
    SELECT s.xid, s.position, s.id, s.type, s.recorded_at
    FROM scanned s JOIN heard h USING (subject_kind, subject_id)
    WHERE s.type IS NOT NULL AND s.step <> 'test'
      AND ($4::text[] IS NULL
           OR $4 && ARRAY['*', s.type, split_part(s.type, '.', 1) || '.*'])
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = s.id AND b.recorded_at = s.recorded_at)
    ORDER BY s.xid, s.position
    LIMIT $6
)
SELECT t.xid::text, t.position, t.type, b.body, false AS is_end
FROM told t JOIN webhook_body b ON b.event_id = t.id AND b.recorded_at = t.recorded_at
UNION ALL
(SELECT s.xid::text, s.position, NULL, NULL, (SELECT count(*) FROM scanned) < $5
 FROM scanned s ORDER BY s.xid DESC, s.position DESC LIMIT 1);

-- feed.IS_BEYOND_END
SELECT $1::text::xid8 >= commit_horizon()
   AND NOT EXISTS (SELECT FROM event v WHERE v.xid = $1::text::xid8);

-- feed.READ_END
SELECT (commit_horizon()::text::bigint - 1)::text;

-- feed.READ_BEGINNING
SELECT v.xid::text, v.position FROM event v
WHERE v.subject_id = $1 AND v.seq = 1 AND v.step = 'enrol';

-- files.INSERT_FILES
INSERT INTO file (key, mime_type, bytes, sha256, filename, escrow_id, uploaded_by, created_at)
SELECT f.key, f.mime_type, f.bytes, f.sha256, f.filename, $6, $7, $8
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[])
    AS f (key, mime_type, bytes, sha256, filename);

-- files.READ_VIEWABLE
SELECT key, mime_type, bytes, sha256, filename FROM file
WHERE key = $1 AND clock_timestamp() < to_timestamp($2::bigint);

-- files.READ_FILES
SELECT key, mime_type, bytes, sha256, filename FROM file WHERE key = ANY ($1::text[]);

-- files.READ_UNNAMED
SELECT k FROM unnest($1::text[]) AS k WHERE NOT EXISTS (SELECT FROM file f WHERE f.key = k);

-- idempotency.READ_ANSWER
SELECT fingerprint, status, body, is_sealed FROM idempotency
WHERE caller_id = $1 AND key = $2 AND expires_at > statement_timestamp();

-- idempotency.INSERT_ANSWER
INSERT INTO idempotency (caller_id, key, fingerprint, status, body, is_sealed, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (caller_id, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body,
    is_sealed = excluded.is_sealed, expires_at = excluded.expires_at;

-- idempotency.DELETE_EXPIRED
DELETE FROM idempotency WHERE (caller_id, key) IN (
    SELECT caller_id, key FROM idempotency WHERE expires_at <= statement_timestamp()
    LIMIT $1 FOR UPDATE SKIP LOCKED);

-- identity.INSERT_VERIFICATION
INSERT INTO identity_verification (
    id, developer_id, email, external_user_id, redirect_url, metadata, kyc_status, token_hash,
    counter, mails, mailed_at, seq, expires_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- identity.MOVE_VERIFICATION
UPDATE identity_verification SET
    kyc_status = $3, needs_admin_review = $4, superseded = $5, mails = $6, mailed_at = $7,
    linked_user_id = $8, linked_at = $9, seq = $10, updated_at = $11
WHERE id = $1 AND seq = $2
RETURNING true;

-- identity.READ_VERIFICATION
SELECT * FROM identity_verification WHERE id = $1;

-- identity.READ_BEHIND
SELECT v.*, d.company FROM identity_verification v JOIN developer d ON d.id = v.developer_id
WHERE v.token_hash = $1;

-- identity.LOCK_BEHIND
SELECT * FROM identity_verification WHERE token_hash = $1 FOR NO KEY UPDATE;

-- identity.INSERT_DOCUMENTS
INSERT INTO identity_document (verification_id, position, file_key, language, submitted_at)
SELECT $1, f.position, f.key, $3, $4
FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position);

-- identity.READ_DOCUMENTS
SELECT f.key, f.mime_type, f.bytes, f.sha256, f.filename, d.language, d.submitted_at
FROM identity_document d JOIN file f ON f.key = d.file_key
WHERE d.verification_id = $1 ORDER BY d.position;

-- identity.DELETE_DOCUMENTS
WITH gone AS (
    DELETE FROM identity_document d USING identity_verification v
    WHERE v.id = d.verification_id AND CASE
        WHEN v.kyc_status = 'pending' THEN v.expires_at
        ELSE (SELECT max(e.at) FROM event e
              WHERE e.subject_id = v.id AND e.step IN ('approve', 'reject'))
        END <= $1::timestamptz - $2::interval
    RETURNING d.file_key
)
SELECT file_key FROM gone;

-- identity.DELETE_FILES
DELETE FROM file WHERE key = ANY ($1::text[]);

-- identity.LOCK_VERIFICATION
SELECT * FROM identity_verification WHERE id = $1 FOR NO KEY UPDATE;

-- identity.LOCK_PENDING
SELECT * FROM identity_verification
WHERE developer_id = $1 AND email = $2 AND kyc_status = 'pending' AND NOT superseded
FOR NO KEY UPDATE;

-- identity.LOCK_UNLINKED
SELECT * FROM identity_verification
WHERE email = $1 AND linked_user_id IS NULL AND (kyc_status <> 'pending' OR expires_at > $2)
ORDER BY id FOR NO KEY UPDATE;

-- identity.READ_OF_EMAIL
SELECT * FROM identity_verification
WHERE developer_id = $1 AND email = $2
  AND (kyc_status <> 'pending' OR expires_at > business_now())
ORDER BY created_at DESC, id DESC LIMIT $3;

-- identity.READ_IS_APPROVED
SELECT EXISTS (
    SELECT FROM app_user u JOIN identity_verification v ON v.linked_user_id = u.id
    WHERE u.email = $1 AND v.kyc_status = 'approved');

-- identity.READ_ASKER
SELECT company, redirect_urls FROM developer WHERE id = $1;

-- identity.READ_UNDECIDED
SELECT v.id, v.email, d.company, v.needs_admin_review, v.created_at, v.expires_at
FROM identity_verification v JOIN developer d ON d.id = v.developer_id
WHERE v.kyc_status = 'pending' AND NOT v.superseded AND v.expires_at > business_now()
ORDER BY v.id LIMIT $1;

-- invitations.INSERT_INVITATIONS
INSERT INTO invitation (id, escrow_id, role, email, token_hash, counter, created_at)
SELECT id, escrow_id, role, email, token_hash, counter, $7
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::smallint[])
     AS given (id, escrow_id, role, email, token_hash, counter)
ORDER BY escrow_id, email
ON CONFLICT (escrow_id, email) WHERE closed_at IS NULL DO NOTHING
RETURNING id;

-- invitations.READ_INVITATION_BEHIND
SELECT * FROM invitation_reading WHERE token_hash = $1;

-- invitations.READ_INVITATION
SELECT * FROM invitation_reading WHERE id = $1;

-- invitations.DISARM_REMINDERS
UPDATE deadline SET cancelled_at = $3
FROM invitation i
WHERE i.escrow_id = $1 AND i.email = ANY ($2::text[]) AND deadline.escrow_id = i.escrow_id
  AND deadline.kind = 'invitation_reminder' AND deadline.subject = i.id
  AND deadline.fired_at IS NULL AND deadline.cancelled_at IS NULL;

-- invitations.ACCEPT_INVITATION
UPDATE invitation SET user_id = $3, accepted_at = $4
WHERE escrow_id = $1 AND email = $2 AND accepted_at IS NULL AND closed_at IS NULL;

-- invitations.CLOSE_INVITATIONS
UPDATE invitation SET closed_at = $3
WHERE escrow_id = $1 AND email = ANY ($2::text[]) AND closed_at IS NULL;

-- invitations.READ_ACCEPTED
SELECT escrow_id FROM invitation WHERE user_id = $1 ORDER BY escrow_id;

-- invitations.NOTE_REMINDER
UPDATE invitation SET reminders = reminders + 1
WHERE id = $1 AND accepted_at IS NULL AND closed_at IS NULL AND reminders = $2
RETURNING true;

-- keys.READ_KEYS
SELECT k.hash, k.id, k.developer_id, k.operator_id, d.user_id, k.rate_limit_per_minute, k.is_active,
       coalesce(k.expires_at <= now(), false) AS is_expired,
       coalesce(k.last_used_at < now() - interval '1 minute', true) AS is_idle
FROM api_key k LEFT JOIN developer d ON d.id = k.developer_id
WHERE k.hash = ANY ($1::bytea[]);

-- keys.NOTE_KEY_USE
UPDATE api_key SET last_used_at = now()
WHERE id = $1 AND coalesce(last_used_at < now() - interval '1 minute', true);

-- lanes.TURN_LANES
UPDATE lane l
SET send_window = least(t.send_window, l.cap), halved_at = t.halved_at, streak = t.streak,
    failure_count = t.failure_count, failing_since = t.failing_since,
    exhausted_at = t.exhausted_at, last_attempt_at = t.last_attempt_at,
    last_status = t.last_status, mean_ms = t.mean_ms, breaker = t.breaker,
    breaker_until = t.breaker_until, breaker_trips = t.trips, sample_minute = t.sample_minute,
    sample_attempts = t.sample_attempts::integer[], sample_failures = t.sample_failures::integer[],
    hold_until = greatest(l.hold_until, t.hold_until),
    first_due_at = CASE WHEN t.gives_back THEN least(l.first_due_at, $20) ELSE l.first_due_at END,
    next_due_at = least(l.next_due_at, $20 + make_interval(secs => t.retry),
        (SELECT d.visible_at FROM delivery d
         WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt = 0
         ORDER BY d.recorded_at, d.position LIMIT 1),
        (SELECT min(d.visible_at) FROM delivery d
         WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt > 0
           AND d.claim_token IS NULL))
FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::int[], $5::int[], $6::timestamptz[],
            $7::timestamptz[], $8::timestamptz[], $9::int[], $10::int[], $11::text[],
            $12::timestamptz[], $13::int[], $14::int[], $15::text[], $16::text[],
            $17::timestamptz[], $18::float8[], $19::boolean[])
     AS t (endpoint_id, send_window, halved_at, streak, failure_count, failing_since, exhausted_at,
           last_attempt_at, last_status, mean_ms, breaker, breaker_until, trips, sample_minute,
           sample_attempts, sample_failures, hold_until, retry, gives_back)
WHERE l.endpoint_id = t.endpoint_id
RETURNING l.endpoint_id, CASE WHEN l.next_due_at < 'infinity' THEN greatest(0, extract(
    epoch FROM greatest(l.next_due_at, l.hold_until) - $20::timestamptz))::float8 END AS due_seconds;

-- lanes.RECONCILE_LANES
WITH late AS MATERIALIZED (
    SELECT l.endpoint_id FROM lane l
    WHERE EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = l.endpoint_id
                    AND d.state = 'pending' AND d.attempt = 0
                    AND d.visible_at < greatest(l.next_due_at, l.first_due_at))
       OR EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = l.endpoint_id
                    AND d.state = 'pending' AND d.attempt > 0 AND d.visible_at < l.next_due_at)
    ORDER BY l.endpoint_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE lane l
SET next_due_at = least(l.next_due_at, due.first, (
        SELECT min(d.visible_at) FROM delivery d
        WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt > 0)),
    first_due_at = least(l.first_due_at, due.first)
FROM late LEFT JOIN LATERAL (
    SELECT d.visible_at AS first FROM delivery d
    WHERE d.endpoint_id = late.endpoint_id AND d.state = 'pending' AND d.attempt = 0
    ORDER BY d.recorded_at, d.position LIMIT 1) AS due ON true
WHERE l.endpoint_id = late.endpoint_id;

-- lanes.WAKE_LANES
UPDATE lane SET next_due_at = clock_timestamp(), first_due_at = clock_timestamp(),
    hold_until = '-infinity', send_window = cap, halved_at = NULL, streak = 0, failure_count = 0,
    failing_since = NULL, exhausted_at = NULL, told = told & $2, mean_ms = 0,
    breaker = 'closed', breaker_until = NULL, breaker_trips = 0, sample_minute = 0
WHERE endpoint_id = ANY ($1::text[]);

-- lanes.HINT_LANES
UPDATE lane SET next_due_at = least(next_due_at, clock_timestamp()),
    first_due_at = least(first_due_at, clock_timestamp())
WHERE endpoint_id = ANY ($1::text[]);

-- lanes.READ_TROUBLED
SELECT e.id, e.url, d.email AS developer_email,
       coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language,
       l.failing_since, l.exhausted_at, l.last_attempt_at, l.last_status, l.failure_count,
       l.breaker, l.told, l.told_since
FROM lane l
JOIN webhook_endpoint e ON e.id = l.endpoint_id
JOIN developer d ON d.id = e.developer_id
WHERE (l.failing_since IS NOT NULL OR l.told <> 0) AND e.is_active
  AND ($1::text[] IS NULL OR l.endpoint_id = ANY ($1))
ORDER BY e.id;

-- lanes.NOTE_TOLD
UPDATE lane l SET told = given.told, told_since = given.since
FROM unnest($1::text[], $2::int[], $3::timestamptz[]) AS given (id, told, since)
WHERE l.endpoint_id = given.id;

-- lanes.NUMBER_EVENTS
UPDATE webhook_endpoint e SET seq = e.seq + given.n
FROM unnest($1::text[], $2::int[]) AS given (id, n), lane l
WHERE e.id = given.id AND l.endpoint_id = e.id AND e.deleted_at IS NULL
RETURNING e.id, e.url, e.is_active, e.disabled_reason, l.failure_count, e.seq;

-- ledger.POST_TRANSFERS
SELECT post_transfers($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                      $7::text[], $8::text[], $9::text[], $10::bigint[], $11);

-- ledger.LOCK_WALLET
WITH locked AS (
    SELECT kind, balance_minor FROM account
    WHERE kind IN ('available', 'pending') AND owner = $1 AND currency = $2
    ORDER BY id FOR NO KEY UPDATE
)
SELECT balance_minor FROM locked WHERE kind = 'available';

-- ledger.READ_BALANCE
SELECT coalesce(sum(balance_minor) FILTER (WHERE kind = 'available'), 0)::bigint AS available,
       coalesce(sum(balance_minor) FILTER (WHERE kind = 'pending'), 0)::bigint AS pending,
       (SELECT coalesce(sum(held_minor), 0)::bigint FROM escrow
        WHERE buyer_id = $1 AND ledger_currency = $2 AND held_minor > 0)
       + (SELECT coalesce(sum((
              SELECT floor(e.held_minor::numeric * f.amount_minor / e.funded_minor) FROM escrow e
              WHERE e.id = f.escrow_id AND e.ledger_currency = $2)), 0)::bigint
          FROM milestone_funding f WHERE f.user_id = $1 AND f.is_held) AS escrow
FROM account WHERE owner = $1 AND currency = $2 AND kind IN ('available', 'pending');

-- ledger.READ_TRIAL_BALANCE
SELECT a.kind, a.currency, count(*) AS accounts,
       sum(coalesce(a.balance_minor, taken.sum - given.sum))::bigint AS balance_minor
FROM account a
LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS sum FROM transfer
                   WHERE to_account = a.id AND a.balance_minor IS NULL) AS taken ON true
LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS sum FROM transfer
                   WHERE from_account = a.id AND a.balance_minor IS NULL) AS given ON true
GROUP BY a.kind, a.currency ORDER BY a.currency, a.kind;

-- mails.INSERT_MAILS
INSERT INTO mail (id, recipient, template, language, facts, dedupe_key, message_id, escrow_id,
                  invitation_id, identity_id, visible_at, created_at)
SELECT id, recipient, template, language, facts::jsonb, dedupe_key, message_id, escrow_id,
       invitation_id, identity_id, statement_timestamp(), statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[])
     AS given (id, recipient, template, language, facts, dedupe_key, message_id, escrow_id,
               invitation_id, identity_id)
ORDER BY dedupe_key
ON CONFLICT (dedupe_key) DO NOTHING
RETURNING id;

-- mails.CLAIM_MAILS
WITH due AS (
    SELECT id FROM mail WHERE state = 'pending' AND visible_at <= statement_timestamp()
    ORDER BY visible_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE mail SET visible_at = statement_timestamp() + $2, claim_token = $3, attempt = attempt + 1
    FROM due WHERE mail.id = due.id
    RETURNING mail.*
)
SELECT m.id, m.recipient, m.template, m.language, m.facts::text, m.escrow_id, m.message_id,
       m.attempt, m.created_at, m.sent_at, i.id AS invitation_id, v.id AS identity_id,
       coalesce(i.counter, v.counter) AS counter,
       coalesce(i.token_hash, v.token_hash) AS token_hash,
       coalesce(i.accepted_at IS NOT NULL OR i.closed_at IS NOT NULL
                OR e.status IN ('completed', 'cancelled'), false)
           OR coalesce(m.template = 'identity_verification'
               AND (v.kyc_status <> 'pending' OR v.superseded OR v.needs_admin_review), false)
           AS is_moot
FROM claimed m
LEFT JOIN invitation i ON i.id = m.invitation_id
LEFT JOIN escrow e ON e.id = i.escrow_id
LEFT JOIN identity_verification v ON v.id = m.identity_id
ORDER BY m.created_at, m.id;

-- mails.SETTLE_MAILS
UPDATE mail SET state = s.state, claim_token = NULL, last_error = s.error,
    visible_at = coalesce(statement_timestamp() + s.wait, mail.visible_at),
    sent_at = CASE WHEN s.state = 'sent' THEN statement_timestamp() END
FROM unnest($2::text[], $3::text[], $4::interval[], $5::text[]) AS s (id, state, wait, error)
WHERE mail.id = s.id AND mail.claim_token = $1 AND mail.state = 'pending'
RETURNING mail.id;

-- mails.READ_SENT_MAILS
SELECT m.id, m.recipient, m.template, m.language, m.facts::text, m.escrow_id, m.message_id,
       m.attempt, m.created_at, m.sent_at, i.id AS invitation_id, v.id AS identity_id,
       coalesce(i.counter, v.counter) AS counter,
       coalesce(i.token_hash, v.token_hash) AS token_hash,
       false AS is_moot
FROM mail m LEFT JOIN invitation i ON i.id = m.invitation_id
LEFT JOIN identity_verification v ON v.id = m.identity_id
WHERE m.state = 'sent' AND ($1::text IS NULL OR m.recipient = $1)
ORDER BY m.sent_at DESC, m.id DESC LIMIT $2;

-- mails.READ_MAIL_TROUBLES
SELECT recipient, template, state, attempt, coalesce(last_error, ''),
       CASE WHEN state = 'pending' THEN visible_at END
FROM mail
WHERE escrow_id = $1 AND (state = 'failed' OR state = 'pending' AND last_error IS NOT NULL)
ORDER BY created_at, id;

-- mails.READ_MAIL_BACKLOG
SELECT count(*) FILTER (WHERE state = 'pending'),
       coalesce(extract(epoch FROM statement_timestamp() - min(visible_at)
                FILTER (WHERE state = 'pending')), 0)::float8,
       count(*) FILTER (WHERE state = 'failed')
FROM mail
WHERE state = 'pending' AND visible_at <= statement_timestamp()
   OR state = 'failed' AND created_at > statement_timestamp() - interval '1 day';

-- milestone_lists.READ_BALANCES
SELECT e.id, coalesce(a.balance_minor, 0)::bigint AS balance_minor, e.currency
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
WHERE e.id = ANY ($1::text[]) AND e.mode = 'milestone';

-- milestone_lists.LIST_MILESTONE_ESCROWS
SELECT (reading).*, sort_key FROM list_milestone_escrows(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);

-- milestone_lists.READ_EVENTS
SELECT v.seq, v.id::text AS id, v.type, v.at, v.actor_kind, v.subject_id AS escrow_id, v.from_state,
       v.to_state, e.currency, v.said
FROM event v JOIN escrow e ON e.id = v.subject_id
WHERE v.subject_id = $1 AND v.seq > $2 AND v.type IS NOT NULL
ORDER BY v.seq LIMIT $3;

-- milestone_lists.READ_EVENTS_WHOLE
WITH next AS (
    SELECT * FROM event v
    WHERE v.subject_id = $1 AND v.seq > $2 AND v.type IS NOT NULL
    ORDER BY v.seq LIMIT $3::integer + 1
), sized AS (
    SELECT n.*, b.body, count(*) OVER (ORDER BY n.seq) AS place, count(*) OVER () AS found,
           sum(octet_length(b.body)) OVER (
               ORDER BY n.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM next n
    LEFT JOIN webhook_body b ON b.event_id = n.id AND b.recorded_at = n.recorded_at
)
SELECT s.seq, s.id::text AS id, s.type, s.at, s.actor_kind, s.subject_id AS escrow_id, s.from_state,
       s.to_state, e.currency, s.said, s.body, s.found > s.place AS has_more
FROM sized s JOIN escrow e ON e.id = s.subject_id
WHERE s.place <= $3 AND coalesce(s.bytes_before, 0) < $4
ORDER BY s.seq;

-- milestones.LOCK_MILESTONE_ESCROWS
SELECT (reading).*, read_at, due_deadline FROM lock_milestone_escrows($1::text[], $2, $3);

-- milestones.READ_MILESTONE_ESCROW
SELECT * FROM milestone_reading WHERE id = $1;

-- milestones.IS_MILESTONE_ESCROW
SELECT count(*) FROM escrow WHERE id = $1 AND mode = 'milestone';

-- milestones.INSERT_MILESTONE_ESCROW
WITH made AS (
    INSERT INTO escrow (id, mode, status, seq, creator_id, title, description, currency,
                        ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
                        escrow_fee_minor, created_at, updated_at)
    VALUES ($1, 'milestone', $2, $3, $4, $5, $6, $7, $7, $8, 1, $8, 0, $9, $9)
), terms AS (
    INSERT INTO milestone_escrow (escrow_id, release_mode, engagement_id, platform_fee_bps,
                                  protocol_fee_bps, receiver_memo, resolver_deadline_days)
    VALUES ($1, $10, $11, $12, $13, $14, $15)
), roles AS (
    INSERT INTO escrow_role (escrow_id, role, position, email, user_id)
    SELECT $1, r.role, r.position, r.email, r.user_id
    FROM unnest($16::text[], $17::smallint[], $18::text[], $19::text[])
        AS r (role, position, email, user_id)
)
INSERT INTO milestone (escrow_id, position, description, status, amount_minor)
SELECT $1, m.n - 1, m.description, m.status, m.amount_minor
FROM unnest($20::text[], $21::text[], $22::bigint[]) WITH ORDINALITY
    AS m (description, status, amount_minor, n);

-- milestones.MOVE_MILESTONE_ESCROW
UPDATE escrow SET
    status = $4, seq = $5, frozen = $6, funded_minor = $7, held_minor = $8, released_minor = $9,
    refunded_minor = $10, fees_minor = $11, updated_at = $12
WHERE id = $1 AND status = $2 AND seq = $3;

-- milestones.SAVE_TERMS
WITH common AS (
    UPDATE escrow SET title = $2, description = $3, currency = $4, ledger_currency = $4,
                      amount_minor = $5, amount_ledger_minor = $5
    WHERE id = $1
)
UPDATE milestone_escrow SET engagement_id = $6, platform_fee_bps = $7, receiver_memo = $8,
                            resolver_deadline_days = $9, version = $10
WHERE escrow_id = $1;

-- milestones.DROP_ROLES
DELETE FROM escrow_role
WHERE escrow_id = $1
  AND (role, position) NOT IN (SELECT * FROM unnest($2::text[], $3::smallint[]));

-- milestones.SAVE_ROLES
INSERT INTO escrow_role (escrow_id, role, position, email, user_id)
SELECT $1, r.role, r.position, r.email, r.user_id
FROM unnest($2::text[], $3::smallint[], $4::text[], $5::text[])
    AS r (role, position, email, user_id)
ON CONFLICT (escrow_id, role, position)
DO UPDATE SET email = excluded.email, user_id = excluded.user_id;

-- milestones.DROP_MILESTONES
DELETE FROM milestone WHERE escrow_id = $1 AND position >= $2;

-- milestones.SAVE_MILESTONES
INSERT INTO milestone (escrow_id, position, description, status, evidence, amount_minor, approved,
                       disputed, released, resolved, dispute_reason, disputed_at)
SELECT $1, m.* FROM unnest(
    $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::boolean[],
    $9::boolean[], $10::boolean[], $11::text[], $12::timestamptz[]) AS m
ON CONFLICT (escrow_id, position) DO UPDATE SET
    description = excluded.description, status = excluded.status, evidence = excluded.evidence,
    amount_minor = excluded.amount_minor, approved = excluded.approved,
    disputed = excluded.disputed, released = excluded.released, resolved = excluded.resolved,
    dispute_reason = excluded.dispute_reason, disputed_at = excluded.disputed_at;

-- milestones.ADD_FUNDING
INSERT INTO milestone_funding (escrow_id, user_id, n, amount_minor)
SELECT $1::text, $2, coalesce(max(f.n), 0) + 1, $3
FROM milestone_funding f WHERE f.escrow_id = $1::text
ON CONFLICT (escrow_id, user_id)
DO UPDATE SET amount_minor = milestone_funding.amount_minor + excluded.amount_minor, is_held = true;

-- milestones.MARK_FUNDINGS
UPDATE milestone_funding SET is_held = $2 WHERE escrow_id = $1 AND is_held <> $2;

-- milestones.READ_FUNDINGS
SELECT f.user_id, u.email, f.amount_minor
FROM milestone_funding f JOIN app_user u ON u.id = f.user_id
WHERE f.escrow_id = $1 ORDER BY f.n LIMIT $2;

-- milestones.READ_EMAIL
SELECT email FROM app_user WHERE id = $1;

-- outbox.READ_OUTBOX
SELECT coalesce(extract(epoch FROM t.moment - (
           SELECT min(v.recorded_at) FROM event v
           WHERE v.fanned_at IS NULL AND v.type IS NOT NULL)), 0)::float8,
       coalesce(extract(epoch FROM t.moment - (
           SELECT min(l.next_due_at) FROM lane l
           WHERE l.next_due_at <= t.moment AND l.hold_until <= t.moment)), 0)::float8,
       (SELECT count(*) FROM lane l WHERE l.next_due_at <= t.moment AND l.hold_until > t.moment),
       coalesce(extract(epoch FROM t.moment - (
           SELECT min(l.next_due_at) FROM lane l
           WHERE l.next_due_at <= t.moment AND l.hold_until > t.moment)), 0)::float8,
       (SELECT count(*) FROM delivery d
        WHERE d.state = 'pending' AND d.claim_token IS NOT NULL AND d.visible_at <= t.moment),
       (SELECT count(*) FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
        WHERE l.breaker = 'open' AND e.is_active),
       (SELECT count(*) FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
        WHERE l.breaker = 'half_open' AND e.is_active),
       coalesce(extract(epoch FROM t.moment - (
           SELECT l.last_attempt_at FROM lane l
           WHERE l.endpoint_id = $1 AND l.last_status = 204)), 'NaN')::float8
FROM (SELECT clock_timestamp() AS moment) AS t;

-- papers.ASK_PAPERS
WITH asked AS (
    SELECT f.facts->>'contract' AS contract_id, (f.facts->>'version')::integer AS version,
           f.facts->>'signing' AS signing, f.facts
    FROM unnest($1::jsonb[]) AS f (facts)
), former AS MATERIALIZED (
    SELECT p.file_key
    FROM paper p JOIN asked a ON (p.contract_id, p.version, p.signing)
                               = (a.contract_id, a.version, a.signing)
    FOR NO KEY UPDATE OF p
), put AS (
    INSERT INTO paper (contract_id, version, signing, facts, created_at)
    SELECT a.contract_id, a.version, a.signing, a.facts, $2
    FROM asked a, (SELECT count(*) FROM former) AS locked
    ON CONFLICT (contract_id, version, signing) DO UPDATE SET
        facts = excluded.facts, fingerprint = NULL, file_key = NULL, tries = 0,
        due_at = clock_timestamp(), created_at = excluded.created_at
)
SELECT file_key FROM former WHERE file_key IS NOT NULL;

-- papers.DELETE_FORMER
DELETE FROM file WHERE key = ANY ($1::text[]);

-- papers.CLAIM_PAPERS
WITH due AS (
    SELECT contract_id, version, signing FROM paper
    WHERE file_key IS NULL AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE paper p
SET tries = least(p.tries + 1, 1000),
    due_at = clock_timestamp() + interval '1 minute' * least(power(2, least(p.tries, 6)), 60)
FROM due JOIN contract c ON c.id = due.contract_id
WHERE (p.contract_id, p.version, p.signing) = (due.contract_id, due.version, due.signing)
RETURNING p.facts::text, c.terms, c.version = p.version AS is_current;

-- papers.LOCK_PAPER
SELECT true FROM paper
WHERE contract_id = $1 AND version = $2 AND signing = $3 AND file_key IS NULL AND facts = $4::jsonb
FOR NO KEY UPDATE;

-- papers.SETTLE_PAPER
UPDATE paper SET file_key = $4, fingerprint = $5
WHERE contract_id = $1 AND version = $2 AND signing = $3;

-- papers.DROP_PAPER
DELETE FROM paper
WHERE contract_id = $1 AND version = $2 AND signing = $3 AND file_key IS NULL;

-- papers.READ_PAPERS
SELECT p.signing, p.file_key, p.fingerprint, p.created_at
FROM paper p JOIN contract c ON c.id = p.contract_id AND c.version = p.version
WHERE p.contract_id = $1 AND p.file_key IS NOT NULL
ORDER BY p.created_at, p.signing = 'fully-signed';

-- parts.AMEND_ESCROW
UPDATE escrow SET title = $2, description = $3, estimated_delivery_days = $4, amount_minor = $5,
    fx_rate = $6, amount_ledger_minor = $7, escrow_fee_minor = $8, developer_fee_minor = $9
WHERE id = $1;

-- parts.UPDATE_CONTRACT
UPDATE contract SET terms = $2, version = $3, updated_at = $4
WHERE id = $1 AND (terms, version) IS DISTINCT FROM ($2, $3);

-- parts.INSERT_REJECTION
INSERT INTO delivery_rejection (escrow_id, n, reason, rejected_at, previous_delivered_at)
VALUES ($1, $2, $3, $4, $5);

-- parts.WRITE_CANCELLATION
INSERT INTO cancellation_request (id, escrow_id, requested_by, reason, status, requested_at,
                                  answered_at, answered_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, answered_at = excluded.answered_at,
                               answered_by = excluded.answered_by;

-- parts.WRITE_DISPUTE
INSERT INTO dispute (id, escrow_id, ticket_number, opener, opened_by, reason, opened_at, back_to,
                     answered_at, resolved_at, outcome, resolved_by, seller_minor, buyer_minor,
                     escrow_fee_minor, developer_fee_minor, seller_net_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (id) DO UPDATE SET
    answered_at = excluded.answered_at, resolved_at = excluded.resolved_at,
    outcome = excluded.outcome, resolved_by = excluded.resolved_by,
    seller_minor = excluded.seller_minor, buyer_minor = excluded.buyer_minor,
    escrow_fee_minor = excluded.escrow_fee_minor,
    developer_fee_minor = excluded.developer_fee_minor,
    seller_net_minor = excluded.seller_net_minor;

-- parts.WRITE_PROOF
INSERT INTO purchase_proof (escrow_id, phase, correction_rounds, upload_deadline, review_deadline)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (escrow_id) DO UPDATE SET
    phase = excluded.phase, correction_rounds = excluded.correction_rounds,
    upload_deadline = excluded.upload_deadline, review_deadline = excluded.review_deadline;

-- parts.INSERT_SUBMISSION
INSERT INTO proof_submission (id, escrow_id, n, note, submitted_at) VALUES ($1, $2, $3, $4, $5);

-- parts.INSERT_ATTACHMENTS
INSERT INTO proof_attachment (submission_id, position, file_key)
SELECT $1, f.position, f.key FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position);

-- parts.NOTE_CORRECTION
UPDATE proof_submission SET correction = $2 WHERE id = $1;

-- parts.NEXT_TICKET
UPDATE dispute_counter SET last_number = last_number + 1 RETURNING last_number;

-- parts.INSERT_IMAGE
INSERT INTO signature_image (sealed) VALUES ($1) RETURNING id;

-- parts.INSERT_SIGNATURES
INSERT INTO contract_signature (contract_id, version, role, user_id, email, method, image_id, name,
                                ip, signed_at)
SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::bigint[], $8::text[], $9::text[], $10::timestamptz[]);

-- parts.READ_PAPER
SELECT created_at, updated_at FROM contract WHERE id = $1;

-- parts.READ_SIGNATURES
SELECT s.contract_id, s.version, s.role, s.user_id, s.email, s.method, s.image_id, s.name, s.ip,
       s.signed_at, i.sealed
FROM contract_signature s JOIN contract c ON c.id = s.contract_id
LEFT JOIN signature_image i ON i.id = s.image_id
WHERE c.id = $1 AND s.version = c.version;

-- payments.READ_PAYMENT
SELECT * FROM payment WHERE id = $1;

-- payments.READ_PAYMENT_BY_REFERENCE
SELECT * FROM payment
WHERE provider = $1 AND provider_reference = $2 AND kind <> 'refund';

-- payments.LOCK_PAYMENTS
SELECT * FROM payment WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE;

-- payments.LOCK_OPEN_OF_ESCROWS
SELECT * FROM payment
WHERE escrow_id = ANY ($1::text[]) AND state IN ('created', 'pending') AND kind = 'accept_pay'
ORDER BY id FOR NO KEY UPDATE;

-- payments.READ_OPEN_OF_ESCROW
SELECT * FROM payment
WHERE escrow_id = $1 AND state IN ('created', 'pending') AND kind = 'accept_pay' ORDER BY id;

-- payments.READ_BOOKED
SELECT charge_reference FROM payment
WHERE (id = $1 OR origin_id = $1) AND charge_reference IS NOT NULL AND received_minor > 0
UNION
SELECT charge_reference FROM payment
WHERE provider = $2 AND charge_reference = $3 AND received_minor > 0;

-- payments.INSERT_PAYMENT
INSERT INTO payment (
    id, kind, state, provider, amount_minor, currency, user_id, escrow_id, provider_reference,
    charge_reference, received_minor, received_currency, origin_id, session_id, expected_minor,
    payer_email, page_url, proof_file, payee, note, seq, expires_at, created_at, asked_at, ask_at,
    decided_by, settled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27);

-- payments.MOVE_PAYMENT
UPDATE payment SET state = $4, seq = $5, received_minor = $6, received_currency = $7,
    charge_reference = $8, provider_reference = $9, page_url = $10, proof_file = $11, note = $12,
    expires_at = $13, ask_at = $14, decided_by = $15, settled_at = $16
WHERE id = $1 AND state = $2 AND seq = $3
  AND (received_minor = 0 OR (received_minor, received_currency, charge_reference)
       IS NOT DISTINCT FROM ($6::bigint, $7::text, $8::text));

-- payments.NOTE_ASKED
UPDATE payment SET asked_at = $2, ask_at = $3 WHERE id = $1;

-- payments.NOTE_PLACED
UPDATE payment SET provider_reference = coalesce(provider_reference, $2), page_url = $3,
    ask_at = CASE WHEN state = 'cancelled' THEN $4 ELSE ask_at END
WHERE id = $1 AND page_url IS NULL;

-- payments.NOTE_CLOSED
UPDATE payment SET ask_at = NULL, asked_at = $2 WHERE id = $1 AND state = 'cancelled';

-- payments.LEASE_ASKABLE
UPDATE payment SET ask_at = statement_timestamp() + interval '60 seconds'
WHERE id IN (
    SELECT id FROM payment
    WHERE state IN ('created', 'pending') AND provider <> 'bank_transfer' AND kind <> 'payout'
      AND ask_at <= statement_timestamp()
    ORDER BY ask_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING *;

-- payments.LEASE_CLOSABLE
UPDATE payment SET ask_at = statement_timestamp() + interval '60 seconds'
WHERE id IN (
    SELECT id FROM payment WHERE state = 'cancelled' AND ask_at <= statement_timestamp()
    ORDER BY ask_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING *;

-- payments.READ_LAPSED
SELECT * FROM payment
WHERE state = 'created' AND provider = 'bank_transfer' AND kind IN ('topup', 'accept_pay')
  AND expires_at <= clock_timestamp()
ORDER BY expires_at LIMIT $1;

-- payments.LIST_PAYMENTS
SELECT * FROM payment
WHERE ($1::text IS NULL OR state = $1) AND kind = ANY ($2::text[])
  AND ($1::text IS NOT NULL OR state = 'needs_operator' OR kind = 'payout' AND state = 'created'
       OR provider = 'bank_transfer' AND state = 'pending')
  AND ($4::text IS NULL
       OR (created_at, id) > (SELECT p.created_at, p.id FROM payment p WHERE p.id = $4))
ORDER BY created_at, id LIMIT $3;

-- payments.COUNT_OPEN
SELECT count(*) FROM payment
WHERE user_id = $1 AND state IN ('created', 'pending') AND kind IN ('topup', 'accept_pay');

-- payments.LIST_OF_USER
SELECT * FROM payment
WHERE user_id = $1 AND kind = ANY ($2::text[])
  AND (NOT $3 OR state IN ('created', 'pending', 'needs_operator'))
ORDER BY created_at DESC, id DESC LIMIT $4;

-- profiles.READ_PROFILE
SELECT first_name, last_name, language, timezone FROM app_user WHERE id = $1;

-- profiles.WRITE_PROFILE
UPDATE app_user SET first_name = $2, last_name = $3, language = $4, timezone = $5 WHERE id = $1;

-- profiles.END_VISITS
DELETE FROM visit WHERE email = $1;

-- rates.INSERT_RATES
INSERT INTO fx_rate (currency, rate, source)
SELECT currency, rate, $3 FROM unnest($1::text[], $2::numeric[]) AS given (currency, rate);

-- rates.READ_AGES
SELECT c.currency, extract(epoch FROM clock_timestamp() - r.fetched_at)::float8 AS seconds
FROM unnest($1::text[]) AS c (currency)
LEFT JOIN LATERAL (SELECT fetched_at FROM fx_rate WHERE currency = c.currency
                   ORDER BY fetched_at DESC LIMIT 1) r ON true;

-- rates.LOCK_SOURCE
SELECT pg_advisory_xact_lock(hashtextextended('rates/' || $1, 0));

-- rates.READ_SOURCE_AGE
SELECT clock_timestamp() - max(r.fetched_at)
FROM unnest($1::text[]) AS c (currency)
CROSS JOIN LATERAL (SELECT fetched_at FROM fx_rate WHERE currency = c.currency AND source = $2
                    ORDER BY fetched_at DESC LIMIT 1) r;

-- rates.READ_RATE
SELECT rate, fetched_at FROM fx_rate WHERE currency = $1 ORDER BY fetched_at DESC, id DESC LIMIT 1;

-- recoveries.HAS_OPEN
SELECT EXISTS (SELECT FROM recovery WHERE endpoint_id = $1 AND finished_at IS NULL);

-- recoveries.COUNT_FAILED
SELECT (SELECT count(*) FROM delivery d
        WHERE d.endpoint_id = $1 AND d.event_id >= $2 AND d.recorded_at >= $3
          AND d.recorded_at < $4 AND d.state IN ('exhausted', 'cancelled') AND d.attempt < $5)
     + (SELECT count(*) FROM delivery d
        WHERE d.endpoint_id = $1 AND d.event_id >= $2 AND d.recorded_at >= $3
          AND d.recorded_at < $4 AND d.state = 'pending' AND d.attempt > 0 AND d.attempt < $5
          AND d.claim_token IS NULL AND d.visible_at > statement_timestamp());

-- recoveries.INSERT_RECOVERY
INSERT INTO recovery (id, endpoint_id, since, until, count, due_at, created_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
RETURNING id, endpoint_id, since, until, state, is_missing, after_event, count, recovered,
          created_at, finished_at;

-- recoveries.LIST_RECOVERIES
SELECT id, endpoint_id, since, until, state, is_missing, after_event, count, recovered, created_at,
       finished_at
FROM recovery WHERE endpoint_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2;

-- recoveries.LOCK_RECOVERY
SELECT id, endpoint_id, since, until, state, is_missing, after_event, count, recovered, created_at,
       finished_at
FROM recovery WHERE finished_at IS NULL
ORDER BY due_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;

-- recoveries.RESEND_FAILED
WITH chunk AS MATERIALIZED (
    SELECT d.id, d.event_id FROM delivery d
    WHERE d.endpoint_id = $1 AND d.event_id > $2 AND d.event_id < $3
      AND d.recorded_at >= $4 AND d.recorded_at < $5 AND d.attempt < $7
      AND (d.state IN ('exhausted', 'cancelled')
           OR d.state = 'pending' AND d.claim_token IS NULL AND d.visible_at > clock_timestamp())
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = d.event_id AND b.recorded_at = d.recorded_at)
    ORDER BY d.event_id LIMIT $6
    FOR NO KEY UPDATE
), sent AS (
    UPDATE delivery d SET state = 'pending', visible_at = clock_timestamp(), settled_at = NULL,
        ladder_from = d.attempt
    FROM chunk c WHERE d.id = c.id
    RETURNING d.id
)
SELECT (SELECT count(*) FROM sent) AS sent, (SELECT count(*) FROM chunk) AS seen,
       (SELECT c.event_id FROM chunk c ORDER BY c.event_id DESC LIMIT 1) AS last;

-- recoveries.LOOK_FOR_MISSING
WITH scanned AS MATERIALIZED (
    SELECT v.id, v.subject_kind, v.subject_id, v.type, v.step, v.recorded_at
    FROM event v
    WHERE v.id > greatest($2, (
              SELECT o.id FROM webhook_endpoint e
              JOIN event o ON o.subject_id = e.developer_id AND o.seq = 1 AND o.step = 'enrol'
              WHERE e.id = $1))
      AND v.id < $3
    ORDER BY v.id LIMIT $6
), heard AS MATERIALIZED (
    SELECT s.subject_kind, s.subject_id
    FROM (SELECT DISTINCT subject_kind, subject_id FROM scanned WHERE type IS NOT NULL) AS s
    JOIN webhook_endpoint e ON e.id = $1
    JOIN developer p ON p.id = e.developer_id
    WHERE EXISTS (SELECT FROM audience(s.subject_kind, s.subject_id) a
                  WHERE a.developer_id = p.id OR p.user_id = ANY (a.user_ids))
)
SELECT ARRAY(SELECT s.id FROM scanned s JOIN heard h USING (subject_kind, subject_id)
             WHERE s.type IS NOT NULL AND s.step <> 'test'
               AND s.recorded_at >= $4 AND s.recorded_at < $5) AS ids,
       (SELECT s.id FROM scanned s ORDER BY s.id DESC LIMIT 1) AS last;

-- recoveries.DELIVER_MISSING
WITH chunk AS MATERIALIZED (
    SELECT v.id FROM event v JOIN webhook_endpoint e ON e.id = $1
    WHERE v.id = ANY ($2::uuid[]) AND v.fanned_at IS NOT NULL AND v.subject_id <> e.id
      AND e.events && ARRAY['*', v.type, split_part(v.type, '.', 1) || '.*']
      AND NOT EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = e.id AND d.event_id = v.id)
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = v.id AND b.recorded_at = v.recorded_at)
    ORDER BY v.id LIMIT $3
), made AS (
    INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, acknowledges,
                          visible_at, created_at)
    SELECT ordered_uuid(clock_timestamp()), e.id, v.id, v.recorded_at, v.position, v.type,
           v.type = 'escrow.status.updated' AND v.from_state = 'pending' AND v.to_state = 'paid'
           AND EXISTS (SELECT FROM audience(v.subject_kind, v.subject_id) a
                       WHERE a.on_ack AND a.developer_id = e.developer_id),
           clock_timestamp(), clock_timestamp()
    FROM chunk c JOIN event v ON v.id = c.id JOIN webhook_endpoint e ON e.id = $1
    ORDER BY v.id
    ON CONFLICT (endpoint_id, event_id) DO NOTHING
    RETURNING id
)
SELECT (SELECT count(*) FROM made) AS sent, (SELECT count(*) FROM chunk) AS seen,
       (SELECT c.id FROM chunk c ORDER BY c.id DESC LIMIT 1) AS last;

-- recoveries.MOVE_RECOVERY
UPDATE recovery SET state = $2, is_missing = $3, after_event = $4, count = greatest(count, $5),
    recovered = $5, due_at = clock_timestamp(),
    finished_at = CASE WHEN $2 IN ('done', 'cancelled') THEN clock_timestamp() END
WHERE id = $1;

-- sandbox_charges.READ_CHARGE
SELECT c.reference, c.payment_id, c.amount_minor, c.currency, c.description, c.return_url,
       c.expires_at, c.paid, c.pressed_at,
       ARRAY(SELECT r.refund_id::text FROM sandbox_refund r WHERE r.reference = c.reference
             ORDER BY r.position) AS refund_ids,
       ARRAY(SELECT r.amount_minor FROM sandbox_refund r WHERE r.reference = c.reference
             ORDER BY r.position) AS refund_amounts
FROM sandbox_charge c WHERE c.reference = $1;

-- sandbox_charges.OPEN_CHARGE
INSERT INTO sandbox_charge (reference, payment_id, amount_minor, currency, description, return_url,
                            expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (reference) DO NOTHING;

-- sandbox_charges.PRESS_CHARGE
UPDATE sandbox_charge SET paid = $2, pressed_at = $3 WHERE reference = $1 AND pressed_at IS NULL;

-- sandbox_charges.INSERT_REFUND
INSERT INTO sandbox_refund (reference, refund_id, amount_minor)
SELECT reference, $2, $3 FROM sandbox_charge WHERE reference = $1
ON CONFLICT (reference, refund_id) DO NOTHING;

-- sandbox_charges.READ_UNTOLD
SELECT reference, told FROM sandbox_charge
WHERE pressed_at IS NOT NULL AND NOT is_told AND reference > $2 ORDER BY reference LIMIT $1;

-- sandbox_charges.NOTE_TOLD
UPDATE sandbox_charge SET told = greatest(told, $2), is_told = is_told OR $3 WHERE reference = $1;

-- sessions.INSERT_SESSION
INSERT INTO checkout_session (id, escrow_id, developer_id, action, email, redirect_url, metadata,
                              expires_at, created_at, input, terms_version)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10::jsonb, $11);

-- sessions.READ_SESSION
SELECT id, escrow_id, developer_id, action, email, redirect_url, metadata::text,
       CASE WHEN status = 'pending' AND expires_at <= business_now() THEN 'expired'
            ELSE status END AS status,
       expires_at, completed_at, created_at, input::text, terms_version,
       (SELECT e.mode = 'milestone' FROM escrow e WHERE e.id = escrow_id) AS of_milestones
FROM checkout_session WHERE id = $1;

-- sessions.END_SESSION
WITH over AS (
    UPDATE checkout_session
    SET status = $2, completed_at = CASE WHEN $2 = 'completed' THEN $3::timestamptz END
    WHERE id = $1 AND status = 'pending' AND ($2 = 'expired' OR expires_at > $3)
    RETURNING id, escrow_id, developer_id, action, email, redirect_url, metadata::text, status,
              expires_at, completed_at, created_at, input::text, terms_version,
              (SELECT e.mode = 'milestone' FROM escrow e WHERE e.id = escrow_id) AS of_milestones
), stopped AS (
    UPDATE deadline d SET cancelled_at = $3 FROM over
    WHERE d.escrow_id = over.escrow_id AND d.kind = 'session' AND d.subject = over.id::text
      AND d.fired_at IS NULL AND d.cancelled_at IS NULL
)
SELECT * FROM over;

-- sessions.MOVE_EXPIRY
WITH moved AS (
    UPDATE checkout_session SET expires_at = $2
    WHERE id = $1 AND status = 'pending' AND expires_at > $3
    RETURNING id, escrow_id
)
UPDATE deadline d SET due_at = $2
FROM moved m WHERE d.escrow_id = m.escrow_id AND d.kind = 'session' AND d.subject = m.id::text
  AND d.fired_at IS NULL AND d.cancelled_at IS NULL;

-- sessions.CANCEL_SESSIONS
WITH over AS (
    UPDATE checkout_session s SET status = 'cancelled'
    FROM unnest($1::text[], $2::text[], $3::text[], $5::text[])
         AS ended (escrow_id, action, email, naming)
    WHERE s.escrow_id = ended.escrow_id AND s.status = 'pending'
      AND ended.action IN (s.action, '*') AND ended.email IN (s.email, '*')
      AND (ended.naming IS NULL OR s.input @> ended.naming::jsonb)
    RETURNING s.id, s.escrow_id
)
UPDATE deadline d SET cancelled_at = $4
FROM over WHERE d.escrow_id = over.escrow_id AND d.kind = 'session' AND d.subject = over.id::text
  AND d.fired_at IS NULL AND d.cancelled_at IS NULL;

-- statement.READ_STATEMENT
WITH own AS (
    SELECT id FROM account WHERE kind = 'available' AND owner = $1 AND currency = $2
), lines AS (
    (SELECT t.id, t.at, t.reason, -t.amount_minor AS amount_minor, t.currency, t.escrow_id,
            t.subject_id
     FROM own JOIN transfer t ON t.from_account = own.id
     WHERE t.id < $3 AND ($4::timestamptz IS NULL OR t.at >= $4)
       AND ($5::timestamptz IS NULL OR t.at < $5)
     ORDER BY t.id DESC LIMIT $6)
    UNION ALL
    (SELECT t.id, t.at, t.reason, t.amount_minor, t.currency, t.escrow_id, t.subject_id
     FROM own JOIN transfer t ON t.to_account = own.id
     WHERE t.id < $3 AND ($4::timestamptz IS NULL OR t.at >= $4)
       AND ($5::timestamptz IS NULL OR t.at < $5)
     ORDER BY t.id DESC LIMIT $6)
)
SELECT l.*, e.title, e.id IS NOT NULL AND (
           $1 IN (e.seller_id, e.buyer_id) IS TRUE
           OR EXISTS (SELECT FROM escrow_role r WHERE r.escrow_id = e.id AND r.user_id = $1)
       ) AS is_theirs
FROM lines l LEFT JOIN escrow e ON e.id = l.escrow_id
ORDER BY l.id DESC LIMIT $6;

-- statement.READ_CURRENCIES
SELECT currency FROM account WHERE kind IN ('available', 'pending') AND owner = $1
ORDER BY currency;

-- users.READ_USERS
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified,
       email_verified_at IS NOT NULL AS is_email_verified
FROM app_user WHERE email = ANY ($1::text[]);

-- users.READ_BOUND
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified,
       email_verified_at IS NOT NULL AS is_email_verified
FROM app_user WHERE id = coalesce(
    (SELECT r.user_id FROM escrow_role r
     WHERE r.escrow_id = $1 AND r.email = $2 AND r.user_id IS NOT NULL LIMIT 1),
    (SELECT u.id FROM app_user u WHERE u.email = $2));

-- users.READ_PEOPLE
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified
FROM app_user WHERE id = ANY ($1::text[]);

-- users.INSERT_USER
INSERT INTO app_user (id, email, first_name, last_name, email_verified_at, phone_verified_at,
                      language, created_at)
VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN $8::timestamptz END,
        CASE WHEN $6 THEN $8::timestamptz END, $7, $8);

-- users.AWAIT_REGISTRATIONS
SELECT await_registrations($1::text[]);

-- users.LOCK_EMAIL
SELECT pg_advisory_xact_lock(hashtextextended('register/' || $1, 0));

-- users.VERIFY_EMAIL
UPDATE app_user SET email_verified_at = $2 WHERE id = $1 AND email_verified_at IS NULL;

-- users.NEXT_USER_SEQ
UPDATE app_user SET seq = seq + 1 WHERE id = $1 RETURNING seq;

-- visits.INSERT_VISIT
INSERT INTO visit (token_hash, email, expires_at) VALUES ($1, $2, clock_timestamp() + $3);

-- visits.READ_VISIT
SELECT v.email, u.id AS user_id, u.language, u.timezone
FROM visit v LEFT JOIN app_user u ON u.email = v.email AND u.email_verified_at IS NOT NULL
WHERE v.token_hash = $1 AND v.expires_at > clock_timestamp();

-- visits.DELETE_VISIT
DELETE FROM visit WHERE token_hash = $1;

-- visits.LOCK_ASKING
SELECT pg_advisory_xact_lock(hashtextextended('code/' || $1, 0));

-- visits.LOCK_IP
SELECT pg_advisory_xact_lock(hashtextextended('code-from/' || $1, 0));

-- visits.LOCK_PHONE
SELECT pg_advisory_xact_lock(hashtextextended('code-to/' || $1, 0));

-- visits.COUNT_CODES
SELECT count(*) FILTER (WHERE email = $1 AND purpose = $2) AS of_email,
       count(*) FILTER (WHERE email = $1 AND purpose = $2
                           AND network IS NOT DISTINCT FROM $7) AS of_both,
       count(*) FILTER (WHERE email = $1 AND purpose = $2
                           AND network IS NOT DISTINCT FROM $7
                           AND created_at > now() - $5::interval) AS just_now,
       count(*) FILTER (WHERE ip = $3) AS of_ip,
       count(*) FILTER (WHERE phone = $4) AS of_phone,
       max(id) FILTER (WHERE email = $1 AND purpose = $2 AND browser = $8
                           AND phone IS NOT DISTINCT FROM $4 AND used_at IS NULL AND tries < $9
                           AND expires_at > clock_timestamp()
                           AND created_at > now() - $5::interval) AS own
FROM sign_in_code
WHERE created_at > now() - $6::interval
    AND (email = $1 AND purpose = $2 OR ip = $3 OR phone = $4);

-- visits.INSERT_CODE
INSERT INTO sign_in_code (id, purpose, email, phone, ip, network, browser, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8);

-- visits.READ_CODE
SELECT id, purpose, email, phone, browser, tries,
       used_at IS NOT NULL OR expires_at <= clock_timestamp() AS is_over,
       used_at IS NOT NULL AS is_used,
       used_at IS NOT NULL OR created_at <= clock_timestamp() - interval '1 hour' AS is_link_over
FROM sign_in_code WHERE id = $1;

-- visits.LOCK_CODE
SELECT id, purpose, email, phone, browser, tries,
       used_at IS NOT NULL OR expires_at <= clock_timestamp() AS is_over,
       used_at IS NOT NULL AS is_used,
       used_at IS NOT NULL OR created_at <= clock_timestamp() - interval '1 hour' AS is_link_over
FROM sign_in_code WHERE id = $1
 FOR NO KEY UPDATE;

-- visits.COUNT_TRY
UPDATE sign_in_code SET tries = tries + 1 WHERE id = $1;

-- visits.USE_CODE
UPDATE sign_in_code SET used_at = clock_timestamp() WHERE id = $1;

-- visits.VERIFY_PHONE
UPDATE app_user SET phone = $2, phone_verified_at = $3 WHERE email = $1;

-- visits.DELETE_EXPIRED_VISITS
DELETE FROM visit WHERE expires_at <= clock_timestamp();

-- visits.DELETE_EXPIRED_CODES
DELETE FROM sign_in_code WHERE expires_at <= clock_timestamp() - interval '1 hour';
