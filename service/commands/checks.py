"""The invariants, asked: by the minute of what has changed, in full by night and by `amana check`.

Law: nobody is frozen for what was true a moment ago: the question is asked again under the
escrow's lock, and an escrow is unfrozen only once the answer is clean. An escrow that cannot be
frozen now is left to the next run and keeps nobody else from being frozen. An invariant that did
not hold, or was never asked, is asked in full until it holds. One that cannot be asked does not
hold, and keeps none of the others from being asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from service.commands.milestone_steps import record as record_milestones
from service.commands.perform import Answer, Command, House, perform, tend
from service.commands.steps import lock, record
from service.commands.users import link
from service.rules.aggregate import Escrow
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import EscrowNotFound, StillBreached, Unavailable
from service.rules.escrow import choose, take
from service.rules.invariants import FREEZING, NAMES
from service.rules.machine import SYSTEM, Actor
from service.rules.milestone import MODE
from service.rules.milestone_changes import flagged
from service.store import checks
from service.store.checks import HOUSE, OF_HOUSE, OF_SUBJECTS, SEALS_A_PAGE, Breach, Result
from service.store.db import Reader, Transaction
from service.store.escrows import lock_escrows
from service.store.milestones import read_milestone_escrow
from service.store.users import read_users
from service.wire.assurance import Standing

PAGE = 2000
BY_THE_MINUTE = frozenset({*OF_SUBJECTS, "G", "H", "I"})
"""What can be asked of what has changed. A and J add up all that ever was: in full only."""

Progress = Callable[[int, int], None]
"""Told how much is done, of how much."""

log = structlog.get_logger()


@dataclass(slots=True)
class Findings:
    """The breaches of every invariant that was asked, at most `checks.LIMIT` each.

    `named` is who is to be frozen, with what each breaches: the limit spares nobody.
    """

    of: dict[str, list[Breach]] = field(default_factory=dict)
    unasked: set[str] = field(default_factory=set)
    named: dict[str, set[str]] = field(default_factory=dict)

    def add(self, invariant_id: str, breaches: Sequence[Breach]) -> None:
        """Note that it was asked, and what came of it."""
        known = self.of.setdefault(invariant_id, [])
        known += breaches[: checks.LIMIT - len(known)]
        if invariant_id in FREEZING:
            for breach in breaches:
                if breach.escrow_id is not None:
                    self.named.setdefault(breach.escrow_id, set()).add(invariant_id)

    async def ask(
        self, invariant_id: str, question: Callable[[], Awaitable[Sequence[Breach]]]
    ) -> None:
        """Note what comes of this question; one without an answer is the invariant's last here."""
        if invariant_id in self.unasked:
            return
        try:
            self.add(invariant_id, await question())
        except Exception as failure:
            log.exception("invariant_not_asked", invariant=invariant_id)
            self.unasked.add(invariant_id)
            why = type(failure.__cause__ or failure).__name__
            known = self.of.get(invariant_id, [])
            self.of[invariant_id] = [Breach(HOUSE, None, f"it could not be asked: {why}")]
            self.add(invariant_id, known)

    def to_freeze(self) -> dict[str, set[str]]:
        """The escrows that a breach freezes, in id order, with the invariants that name them."""
        return dict(sorted(self.named.items()))


async def check_changed(house: House) -> list[Result]:
    """Ask of whatever has events since the last run; every invariant's standing after it."""
    known = {result.id: result for result in await checks.read_results(house.pool)}
    doubtful = {i for i in NAMES if i not in known or not known[i].ok}
    since = min((int(known[i].seen_xid) for i in OF_SUBJECTS if i in known), default=0)
    findings = Findings()
    horizon = await _ask_changed(house.pool, set(OF_SUBJECTS) - doubtful, since, findings)
    await _ask_house(house.pool, BY_THE_MINUTE - doubtful, findings)
    if "I" not in doubtful:
        await findings.ask("I", lambda: _read_broken_last(house.pool))
    await _ask_in_full(house.pool, doubtful, findings, _unheard)
    return await _conclude(house, findings, horizon)


async def check_all(house: House, progress: Progress | None = None) -> list[Result]:
    """Ask everything of everybody; every invariant's standing after it, in order of id."""
    horizon = await checks.read_horizon(house.pool)
    findings = Findings()
    await _ask_in_full(house.pool, set(NAMES), findings, progress or _unheard)
    return await _conclude(house, findings, horizon)


async def seal(house: House) -> int:
    """Seal every full thousand of events that is not sealed yet; how many seals were made."""
    made = 0
    while await tend(house, checks.seal_events) is not None:
        made += 1
    return made


def freeze(
    escrow_id: str,
    invariant_ids: Collection[str] = FREEZING,
    proven: Callable[[], object] | None = None,
) -> Command:
    """Freeze the escrow if it is (still) in breach of one of these that freeze.

    Its due deadlines do not come first. `proven` is told once it is found to be, before the step
    is written.

    Raises:
        EscrowNotFound: there is none of this id.
    """

    async def command(tx: Transaction) -> Standing:
        locked = await lock_escrows(tx, [escrow_id])
        if not locked:
            raise EscrowNotFound
        escrow = locked[0].escrow
        if escrow.frozen or not await breaches_of(tx, escrow_id, invariant_ids):
            return Standing(id=escrow_id, frozen=escrow.frozen)
        if proven is not None:
            proven()
        await _flag(tx, escrow, frozen=True)
        return Standing(id=escrow_id, frozen=True)

    return command


async def lift(house: House, actor: Actor, escrow_id: str) -> Answer:
    """Unfreeze the escrow, then link the parties who have registered meanwhile.

    Raises:
        EscrowNotFound: there is none of this id.
        StillBreached: an invariant that freezes does not hold for it yet.
    """
    answer = await perform(house, actor, unfreeze(escrow_id))
    await perform(house, SYSTEM, link_registered(escrow_id))
    return answer


def link_registered(escrow_id: str) -> Command:
    """Link whoever of the escrow's parties is registered, verified and not linked yet."""

    async def command(tx: Transaction) -> Standing:
        escrow = await lock(tx, escrow_id)
        for user in (await read_users(tx, await _awaited(tx, escrow))).values():
            if user.is_email_verified:
                await link(tx, escrow_id, escrow.mode, user.person)
        return Standing(id=escrow_id, frozen=escrow.frozen)

    return command


async def _awaited(reader: Reader, escrow: Escrow) -> list[str]:
    """The e-mails behind which nobody is linked yet."""
    if escrow.mode == MODE:
        holders = (await _whole(reader, escrow.id)).holders()
        return [holder.email for holder in holders if holder.user_id is None]
    sides = ((escrow.seller_email, escrow.seller), (escrow.buyer_email, escrow.buyer))
    return [email for email, person in sides if person is None]


def unfreeze(escrow_id: str) -> Command:
    """Lift the freeze, by the operator; nothing happens where there is none.

    Raises:
        EscrowNotFound: there is none of this id.
        StillBreached: an invariant that freezes does not hold for it yet.
    """

    async def command(tx: Transaction) -> Standing:
        locked = await lock_escrows(tx, [escrow_id])
        if not locked:
            raise EscrowNotFound
        escrow = locked[0].escrow
        if not escrow.frozen:
            return Standing(id=escrow_id, frozen=False)
        if breaches := await breaches_of(tx, escrow_id):
            raise StillBreached(says="; ".join(breaches))
        await _flag(tx, escrow, frozen=False)
        return Standing(id=escrow_id, frozen=False)

    return command


async def _flag(tx: Transaction, escrow: Escrow, *, frozen: bool) -> None:
    """The step that sets the flag or takes it away, by the table of the escrow's family."""
    if escrow.mode == MODE:
        whole = await _whole(tx, escrow.id)
        await record_milestones(tx, flagged(whole, tx.now, frozen=frozen))
        return
    row = choose("freeze", escrow, tx.actor) if frozen else choose("unfreeze", escrow, tx.actor)
    await record(tx, [take(row, escrow, tx.actor, tx.now)])


async def _whole(reader: Reader, escrow_id: str) -> MilestoneEscrow:
    whole = await read_milestone_escrow(reader, escrow_id)
    if whole is None:
        raise AssertionError(f"milestone escrow {escrow_id} has no terms")
    return whole


async def breaches_of(
    reader: Reader, escrow_id: str, invariant_ids: Collection[str] = FREEZING
) -> list[str]:
    """What keeps this escrow frozen, one sentence each with the invariant's letter."""
    return [
        f"{invariant_id}: {breach.says}"
        for invariant_id in sorted(set(invariant_ids) & set(OF_SUBJECTS))
        for breach in await checks.read_breaches_among(reader, invariant_id, [escrow_id])
    ]


async def _ask_changed(
    reader: Reader, invariant_ids: Collection[str], since: int, findings: Findings
) -> str:
    """Ask these of all that has events since that transaction; up to which one all were seen."""
    if not invariant_ids:
        return await checks.read_horizon(reader)
    horizon, has_more = str(since), True
    while has_more:
        changed = await checks.read_changed(reader, horizon, PAGE)
        horizon, has_more = changed.next_xid, changed.has_more
        await _ask_subjects(reader, invariant_ids, changed.subjects, findings)
    return horizon


async def _ask_in_full(
    reader: Reader, invariant_ids: Collection[str], findings: Findings, progress: Progress
) -> None:
    await _ask_house(reader, invariant_ids, findings)
    seals = subjects = 0

    async def count_seals() -> list[Breach]:
        nonlocal seals
        seals = await _read_last_seal(reader)
        return []

    if "I" in invariant_ids:
        await findings.ask("I", count_seals)
    asked = set(invariant_ids) & set(OF_SUBJECTS)
    if asked:
        subjects = await checks.count_subjects(reader)
        await _ask_everybody(reader, asked, findings, lambda n: progress(n, subjects + seals))
    if "I" in invariant_ids:
        await _verify(reader, seals, findings, lambda n: progress(subjects + n, subjects + seals))


async def _ask_house(reader: Reader, invariant_ids: Collection[str], findings: Findings) -> None:
    for invariant_id in sorted(set(invariant_ids) & set(OF_HOUSE)):
        await findings.ask(invariant_id, partial(checks.read_breaches, reader, invariant_id))


async def _ask_everybody(
    reader: Reader,
    invariant_ids: Collection[str],
    findings: Findings,
    done: Callable[[int], None],
) -> None:
    """Page after page, so that no statement is long and no snapshot old."""
    count, page = 0, await checks.read_subjects(reader, "", PAGE)
    while page:
        await _ask_subjects(reader, invariant_ids, page, findings)
        count += len(page)
        done(count)
        page = await checks.read_subjects(reader, page[-1], PAGE)
    for invariant_id in invariant_ids:
        findings.add(invariant_id, [])


async def _ask_subjects(
    reader: Reader, invariant_ids: Collection[str], subjects: Sequence[str], findings: Findings
) -> None:
    for invariant_id in sorted(invariant_ids):
        findings.add(invariant_id, [])
        if subjects:
            await findings.ask(invariant_id, partial(_every, reader, invariant_id, subjects))


async def _every(reader: Reader, invariant_id: str, subjects: Sequence[str]) -> list[Breach]:
    """All the breaches among these subjects: asked again of the others, up to a short answer."""
    found: list[Breach] = []
    others = list(subjects)
    while others:
        some = await checks.read_breaches_among(reader, invariant_id, others)
        found += some
        named = {breach.subject for breach in some}
        others = [one for one in others if one not in named] if len(some) >= checks.LIMIT else []
    return found


async def _read_broken_last(reader: Reader) -> list[Breach]:
    """The last seal, if it no longer verifies."""
    last = await _read_last_seal(reader)
    return await checks.read_broken_seals(reader, last - 1, last)


async def _read_last_seal(reader: Reader) -> int:
    head = await checks.read_head(reader)
    return head.number if head else 0


async def _verify(
    reader: Reader, seals: int, findings: Findings, done: Callable[[int], None]
) -> None:
    """Recompute the whole chain up to the head."""
    for after in range(0, seals, SEALS_A_PAGE):
        up_to = min(after + SEALS_A_PAGE, seals)
        await findings.ask("I", partial(checks.read_broken_seals, reader, after, up_to))
        done(up_to)


async def _conclude(house: House, findings: Findings, horizon: str) -> list[Result]:
    """Raise the alarm, freeze whom a breach names, keep what was found."""
    found: Mapping[str, Sequence[Breach]] = dict(sorted(findings.of.items()))
    for invariant_id, breaches in found.items():
        if breaches:
            log.error(
                "invariant_breached",
                invariant=invariant_id,
                count=len(breaches),
                first=breaches[0].subject,
            )
    for escrow_id, invariant_ids in findings.to_freeze().items():
        await _freeze(house, escrow_id, invariant_ids)
    await tend(house, lambda tx: checks.write_results(tx, found, NAMES, horizon))
    return await checks.read_results(house.pool)


async def _freeze(house: House, escrow_id: str, invariant_ids: Collection[str]) -> None:
    """Freeze it, or leave it to the next run: its breach is kept, so it is asked about again.

    Raises:
        Unavailable: the database is away, not just this escrow held or slow.
    """
    try:
        await _freeze_or_mark(house, escrow_id, invariant_ids)
    except Unavailable as reason:
        log.warning("freeze_put_off", escrow_id=escrow_id, reason=str(reason))
        await checks.read_horizon(house.pool)
    except Exception:
        log.exception("freeze_failed", escrow_id=escrow_id)


async def _freeze_or_mark(house: House, escrow_id: str, invariant_ids: Collection[str]) -> None:
    proven = asyncio.Event()
    try:
        await perform(house, SYSTEM, freeze(escrow_id, invariant_ids, proven.set))
    except Unavailable:
        raise
    except Exception:
        if not proven.is_set():
            raise
        # Its log is so broken that the step cannot be written: the flag alone must do.
        log.exception("freeze_not_told", escrow_id=escrow_id)
        await perform(house, SYSTEM, _mark(escrow_id, invariant_ids))


def _mark(escrow_id: str, invariant_ids: Collection[str]) -> Command:
    """The flag without the step, if the escrow is still in breach."""

    async def command(tx: Transaction) -> Standing:
        await lock_escrows(tx, [escrow_id])
        is_breached = bool(await breaches_of(tx, escrow_id, invariant_ids))
        if is_breached:
            await checks.mark_frozen(tx, escrow_id)
        return Standing(id=escrow_id, frozen=is_breached)

    return command


def _unheard(_done: int, _of: int) -> None:
    """Nobody watches."""
