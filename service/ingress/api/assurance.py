"""How the invariants stand, for a developer: what concerns its own, and the house as a whole."""

from collections.abc import Sequence

from service.ingress.call import Call
from service.rules.invariants import NAMES, OF_EVERYBODY
from service.store.checks import HOUSE, Breach, Result, read_own, read_results, read_totals
from service.wire.assurance import Assurance, BreachShape, InvariantShape, total_shape


async def read(call: Call[None, None]) -> Assurance:
    """The last results, without anybody else's breaches, and the totals of the caller's own."""
    pool = call.house.pool
    results = {result.id: result for result in await read_results(pool)}
    named = [breach.subject for result in results.values() for breach in result.breaches]
    own = await read_own(pool, call.developer_id, named) if named else frozenset()
    invariants = [
        _unasked(invariant_id) if invariant_id not in results else _told(results[invariant_id], own)
        for invariant_id in NAMES
    ]
    totals = await read_totals(pool, call.developer_id)
    return Assurance(
        checked_at=max((result.checked_at for result in results.values()), default=None),
        ok=all(invariant.ok for invariant in invariants),
        invariants=invariants,
        totals=[total_shape(t.currency, t.held, t.available, t.fees) for t in totals],
    )


def _unasked(invariant_id: str) -> InvariantShape:
    return InvariantShape(
        id=invariant_id, name=NAMES[invariant_id], ok=False, breaches=[], last_ok_at=None
    )


def _told(result: Result, own: frozenset[str]) -> InvariantShape:
    breaches: Sequence[Breach] = [b for b in result.breaches if b.subject in own | {HOUSE}]
    is_ok = not result.breaches if result.id in OF_EVERYBODY else not breaches
    return InvariantShape(
        id=result.id,
        name=result.name,
        ok=is_ok,
        breaches=[BreachShape(escrow_id=b.escrow_id, message=b.says) for b in breaches],
        last_ok_at=result.checked_at if is_ok else result.last_ok_at,
    )
