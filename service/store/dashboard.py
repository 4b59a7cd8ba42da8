"""What a person sees of their escrows, as seller and as buyer: what waits for them, the rest."""

from collections.abc import Sequence
from datetime import datetime

from service.rules.aggregate import Escrow
from service.rules.engagement import MilestoneEscrow
from service.store.db import Reader
from service.store.escrows import BEYOND_IDS, anywhere, as_escrow
from service.store.milestones import as_milestone_escrow

# Newest first by id, each arm along its own index of what is open (schema.sql, people); the outer
# array keeps the view's joins away from all but what is shown.
LIST_AWAITING = """
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
ORDER BY id DESC
"""
# As above, along the indexes of all that is theirs.
LIST_OTHERS = """
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
ORDER BY id DESC
"""


async def list_awaiting(
    reader: Reader, user_id: str, *, before: str | None, text: str | None, limit: int
) -> list[Escrow]:
    """At most `limit` escrows that wait for this person, newest first, after `before`.

    `text` stands anywhere in the title or in a party's e-mail, in capitals or not.
    """
    return await _list(reader, LIST_AWAITING, user_id, before, text, limit)


async def list_others(
    reader: Reader, user_id: str, *, before: str | None, text: str | None, limit: int
) -> list[Escrow]:
    """At most `limit` of this person's escrows that do not wait for them; as `list_awaiting`."""
    return await _list(reader, LIST_OTHERS, user_id, before, text, limit)


async def _list(
    reader: Reader, statement: str, user_id: str, before: str | None, text: str | None, limit: int
) -> list[Escrow]:
    sought = None if text is None else anywhere(text)
    rows = await reader.fetch(statement, user_id, before or BEYOND_IDS, sought, limit)
    return [as_escrow(row) for row in rows]


# New to the person: somebody else's app has named them not long ago, and they have neither signed
# nor paid. Along the indexes of what is open.
LIST_NAMINGS = """
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    SELECT e.id::text FROM escrow e JOIN developer d ON d.id = e.creator_id
    WHERE (e.seller_id = $1 OR e.buyer_id = $1) AND e.completed_at IS NULL
      AND e.cancelled_at IS NULL AND e.status = 'pending' AND e.mode <> 'milestone'
      AND e.created_at >= $2 AND d.user_id IS DISTINCT FROM $1
      AND NOT EXISTS (SELECT FROM contract c JOIN contract_signature s ON s.contract_id = c.id
                      WHERE c.escrow_id = e.id AND s.user_id = $1)
    ORDER BY e.id DESC LIMIT $3))
ORDER BY id DESC
"""


async def list_namings(
    reader: Reader, user_id: str, *, since: datetime, limit: int
) -> Sequence[Escrow]:
    """The newest escrows in which an app that is not the person's own has named them since then."""
    return [as_escrow(row) for row in await reader.fetch(LIST_NAMINGS, user_id, since, limit)]


# Newest first along escrow_role_of_user; somebody may hold several roles of one escrow.
LIST_MILESTONES = """
SELECT * FROM milestone_reading WHERE id = ANY (ARRAY(
    SELECT DISTINCT r.escrow_id FROM escrow_role r JOIN escrow e ON e.id = r.escrow_id
    WHERE r.user_id = $1 AND r.escrow_id < $2 AND ($3::text IS NULL
        OR lower(e.title) LIKE lower($3) OR EXISTS (SELECT FROM escrow_role o
            WHERE o.escrow_id = e.id AND o.email LIKE lower($3)))
    ORDER BY r.escrow_id DESC LIMIT $4))
ORDER BY id DESC
"""


async def list_milestones(
    reader: Reader, user_id: str, *, before: str | None, text: str | None, limit: int
) -> list[MilestoneEscrow]:
    """At most `limit` milestone escrows in which this person holds a role, newest first.

    `text` stands anywhere in the title or in a role's e-mail, in capitals or not.
    """
    sought = None if text is None else anywhere(text)
    rows = await reader.fetch(LIST_MILESTONES, user_id, before or BEYOND_IDS, sought, limit)
    return [as_milestone_escrow(row) for row in rows]
