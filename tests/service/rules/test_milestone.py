"""The milestone family's tables: the coupling, and every step from every standing."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

import pytest

from service.rules.engagement import (
    FINAL,
    MULTI,
    RELEASE_MODES,
    ROLES,
    SINGLE,
    STATUSES,
    Funding,
    Holder,
    Milestone,
    MilestoneEscrow,
)
from service.rules.errors import OfMilestones, Refused, UnauthorizedToDispute
from service.rules.machine import NOWHERE, Actor, ActorKind, Role
from service.rules.milestone import (
    APPROVED,
    COUPLING,
    DISPUTED,
    MILESTONE_STATES,
    MILESTONE_TABLE,
    OPEN,
    RELEASED,
    RESOLVED,
    STEPS,
    TABLE,
    WHO,
    Done,
    coupled,
    state_of,
    status_of,
)
from service.rules.milestone_changes import update
from service.rules.milestone_disputes import dispute, dispute_milestones, note
from service.rules.milestone_ground import roles_of
from service.rules.milestone_outlook import (
    OF_THE_WHOLE,
    TRIES,
    outlook,
    outlook_of_receiver,
)
from service.rules.milestone_progress import (
    approve,
    change_status,
    check_fund,
    fund,
    release,
    release_milestones,
)
from service.rules.milestone_refusals import REFUSALS
from service.rules.milestone_resolution import (
    expire,
    resolve,
    resolve_milestone,
    withdraw_remaining,
)
from service.rules.milestone_said import Share, StatusChange
from service.rules.milestone_terms import MILESTONES_MAX, MilestoneTerms, Terms, standing_terms
from service.rules.postings import held

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOBODY = Role.PAYER
"""Who holds no role."""
HOLDERS = (*ROLES, Role.MILESTONE_RECEIVER)
USERS = {role: f"{n:024x}" for n, role in enumerate((*HOLDERS, NOBODY), 1)}
PAYER = Holder("payer@example.com", "f" * 24)
FLAGS = {
    OPEN: {},
    APPROVED: {"approved": True},
    DISPUTED: {"disputed": True, "dispute_reason": "-", "disputed_at": NOW},
    RELEASED: {"approved": True, "released": True},
    RESOLVED: {"resolved": True, "dispute_reason": "-", "disputed_at": NOW},
}


def as_holder(role: Role) -> Actor:
    return Actor(ActorKind.USER, user_id=USERS[role])


def an_escrow(mode: str, *states: str, held_minor: int = 0) -> MilestoneEscrow:
    """One in these states of its milestones, each worth 100, with so much in its pool.

    In multi the first has a receiver of its own.
    """
    own = Holder("own@example.com", USERS[Role.MILESTONE_RECEIVER])
    milestones = tuple(
        Milestone(
            f"Part {n}",
            amount_minor=100 if mode == MULTI else None,
            receiver=own if mode == MULTI and n == 0 else None,
            **FLAGS[state],
        )
        for n, state in enumerate(states)
    )
    bare = MilestoneEscrow(
        id="a" * 24,
        release_mode=mode,
        status="",
        creator_id="b" * 24,
        engagement_id="job",
        title="A website",
        description="",
        currency="USDC",
        amount_minor=100 * len(states),
        platform_fee_bps=500,
        protocol_fee_bps=30,
        roles={role: Holder(f"{role}@example.com", USERS[role]) for role in ROLES},
        milestones=milestones,
        created_at=NOW,
        updated_at=NOW,
        seq=1,
    )
    ready = replace(bare, status=status_of(bare))
    if not held_minor or ready.status in FINAL:
        return replace(ready, funded_minor=held_minor, held_minor=held_minor)
    return fund(ready, PAYER, held_minor, NOW).after


def standings(mode: str) -> list[tuple[str, ...]]:
    """Every combination of states that three milestones of this mode can have."""
    whole = [(DISPUTED,) * 3, (RELEASED,) * 3, (RESOLVED,) * 3]
    if mode == SINGLE:
        return [*product((OPEN, APPROVED), repeat=3), *whole]
    return list(product(MILESTONE_STATES, repeat=3))


# ---- The coupling -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "states", "status"),
    [
        (SINGLE, (OPEN, APPROVED), "working"),
        (SINGLE, (APPROVED, APPROVED), "pendingRelease"),
        (SINGLE, (DISPUTED, DISPUTED), "inDispute"),
        (SINGLE, (RELEASED, RELEASED), "released"),
        (SINGLE, (RESOLVED, RESOLVED), "resolved"),
        (MULTI, (OPEN, OPEN), "working"),
        (MULTI, (OPEN, APPROVED), "pendingRelease"),
        (MULTI, (DISPUTED, APPROVED), "inDispute"),
        (MULTI, (RELEASED, OPEN), "working"),
        (MULTI, (RELEASED, APPROVED), "pendingRelease"),
        (MULTI, (RELEASED, RESOLVED), "released"),
        (MULTI, (RESOLVED, RESOLVED), "resolved"),
        (MULTI, (RESOLVED, DISPUTED), "inDispute"),
    ],
)
def test_the_status_is_the_first_that_fits(mode: str, states: tuple[str, ...], status: str):
    assert coupled(mode, states) == status


def test_every_status_is_one_of_the_five_and_each_is_reached():
    for mode in RELEASE_MODES:
        reached = {coupled(mode, states) for states in standings(mode)}
        assert reached == set(STATUSES) == {row.status for row in COUPLING}


def test_a_milestones_state_is_read_off_its_flags():
    for state, flags in FLAGS.items():
        assert state_of(Milestone("-", **flags)) == state
    assert state_of(Milestone("-", approved=True, disputed=True)) == DISPUTED


# ---- The tables ---------------------------------------------------------------------------------


def test_each_pair_of_states_has_at_most_one_row_of_a_step():
    keys = [(row.name, row.source, row.target, m) for row in STEPS for m in row.modes]
    assert len(keys) == len(set(keys))
    assert {row.source for row in STEPS} | {row.target for row in STEPS} == {NOWHERE, *STATUSES}


def test_nothing_leads_out_of_a_final_status():
    assert all(row.target == row.source for row in STEPS if row.source in FINAL)


@dataclass(frozen=True)
class Attempt:
    """A step that is tried, in whose role, and how."""

    step: str
    role: Role
    take: Callable[[], Done | None]


def step_of(escrow: MilestoneEscrow, step: str, index: int, role: Role) -> Attempt:
    """This step, on this milestone where it is about one, by whoever holds the role."""
    actor, single = as_holder(role), escrow.is_single
    pool = escrow.held_minor
    part = [Share(Holder("receiver@example.com", USERS[Role.RECEIVER]), min(pool, 100) or 1)]
    whole = [replace(part[0], amount_minor=pool or 1)]
    takes: dict[str, Callable[[], Done | None]] = {
        "change_milestone_status": lambda: change_status(
            escrow, [StatusChange(index, "done")], actor, NOW
        ),
        "approve_milestone": lambda: approve(escrow, [index], actor, NOW),
        "note_dispute": lambda: note(escrow, "-", index, actor, NOW),
        "release": lambda: (
            release(escrow, actor, NOW)
            if single
            else release_milestones(escrow, [index], actor, NOW)
        ),
        "dispute": lambda: (
            dispute(escrow, "-", actor, NOW)
            if single
            else dispute_milestones(escrow, [index], "-", actor, NOW)
        ),
        "resolve_dispute": lambda: (
            resolve(escrow, whole, actor, NOW)
            if single
            else resolve_milestone(escrow, index, part, actor, NOW)
        ),
        "withdraw_remaining": lambda: withdraw_remaining(escrow, part, actor, NOW),
        "update": lambda: update(escrow, _more(escrow), _holders(escrow), actor, NOW),
    }
    return Attempt(step, role, takes[step])


TAKEN_BY_PEOPLE = (
    "change_milestone_status",
    "approve_milestone",
    "note_dispute",
    "release",
    "dispute",
    "resolve_dispute",
    "withdraw_remaining",
    "update",
)


def attempts(escrow: MilestoneEscrow) -> list[Attempt]:
    """Every step that can be tried on an escrow, with whoever takes it."""
    tries = [Attempt("fund", Role.PAYER, lambda: _funded(escrow))]
    tries += [
        step_of(escrow, step, index, role)
        for role in HOLDERS
        for step in TAKEN_BY_PEOPLE
        for index in range(1 if step in OF_THE_WHOLE else len(escrow.milestones))
    ]
    if escrow.is_disputed:
        index = (
            None
            if escrow.is_single
            else next(i for i, one in enumerate(escrow.milestones) if one.disputed)
        )
        paid = [Funding(PAYER.user_id or "", PAYER.email, escrow.funded_minor)]
        clocks = Attempt(
            "resolve_dispute", Role.CLOCK, lambda: expire(escrow, paid, index, NOW, NOW)
        )
        tries.append(clocks)
    return tries


def _funded(escrow: MilestoneEscrow) -> Done:
    check_fund(escrow, 50, None)
    return fund(escrow, PAYER, 50, NOW)


def _more(escrow: MilestoneEscrow) -> Terms:
    terms = standing_terms(escrow)
    added = MilestoneTerms("One more", None if escrow.is_single else 100)
    return replace(terms, milestones=(*terms.milestones, added))


def _holders(escrow: MilestoneEscrow) -> dict[str, Holder]:
    return {holder.email: holder for holder in escrow.holders()}


@pytest.mark.parametrize("held_minor", [0, 60, 300, 1_000])
@pytest.mark.parametrize("mode", RELEASE_MODES)
def test_every_step_from_every_standing_is_a_row_or_a_refusal(mode: str, held_minor: int):
    """And its money balances: nothing is made, nothing is lost, the sums follow the postings."""
    taken: set[tuple[str, bool]] = set()
    for states in standings(mode):
        escrow = an_escrow(mode, *states, held_minor=held_minor)
        for one in attempts(escrow):
            try:
                done = one.take()
            except OfMilestones:
                continue
            if done is None:
                continue
            taken.add((one.step, one.role is Role.CLOCK))
            check_done(done, one.role)
    expected = {"fund", "change_milestone_status", "approve_milestone", "dispute", "note_dispute",
                "update"}  # fmt: skip
    if held_minor >= 300:
        expected |= {"release", "resolve_dispute", "withdraw_remaining"}
    assert taken >= {(step, False) for step in expected} | {("resolve_dispute", True)}


def check_done(done: Done, role: Role) -> None:
    before, after = done.before, done.after
    assert role in done.row.who, (done.row.name, role)
    assert TABLE.find(done.row.name, before.status, before.release_mode, after.status) == done.row
    assert after.status == status_of(after)
    assert after.seq == before.seq + len(done.events)
    pool = held(after.id)
    came = sum(p.amount_minor for p in done.postings if p.target == pool)
    left = sum(p.amount_minor for p in done.postings if p.source == pool)
    assert after.held_minor == before.held_minor + came - left >= 0
    assert after.funded_minor == (
        after.held_minor + after.released_minor + after.refunded_minor + after.fees_minor
    )
    assert all(p.amount_minor > 0 and p.currency == after.currency for p in done.postings)
    for old, new in zip(before.milestones, after.milestones, strict=False):
        was, now = state_of(old), state_of(new)
        assert was == now or any(
            row.source == was and row.target == now for row in MILESTONE_TABLE.rows
        ), (done.row.name, was, now)


def test_any_way_through_the_table_keeps_the_money():
    """A few hundred random lives, step after step."""
    chance = random.Random(20260301)
    for life in range(200):
        mode = RELEASE_MODES[life % 2]
        escrow = an_escrow(mode, OPEN, OPEN, OPEN)
        for _ in range(25):
            one = chance.choice(attempts(escrow))
            try:
                done = one.take()
            except OfMilestones:
                continue
            if done is not None:
                check_done(done, one.role)
                escrow = done.after


# ---- Who may ------------------------------------------------------------------------------------

# Of milestones.md 2; `own` is the receiver of the first milestone, `none` is nobody of the escrow.
WHO_MAY = """
                         appr prov plat sign reso rece own  none
change_milestone_status  -    yes  -    -    -    -    -    -
approve_milestone        yes  -    -    -    -    -    -    -
release                  -    -    -    yes  -    -    -    -
dispute                  yes  yes  yes  yes  -    yes  yes  -
note_dispute             yes  yes  yes  yes  yes  yes  yes  -
resolve_dispute          -    -    -    -    yes  -    -    -
withdraw_remaining       -    -    -    -    yes  -    -    -
update                   -    -    yes  -    -    -    -    -
"""
TOLD = {
    "change_milestone_status": "ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS",
    "approve_milestone": "ONLY_APPROVER_CAN_APPROVE",
    "release": "ONLY_RELEASE_SIGNER_CAN_RELEASE",
    "dispute": "UNAUTHORIZED_TO_DISPUTE",
    "note_dispute": "ONLY_ROLE_HOLDERS_CAN_NOTE",
    "resolve_dispute": "ONLY_DISPUTE_RESOLVER",
    "withdraw_remaining": "ONLY_DISPUTE_RESOLVER",
    "update": "ONLY_PLATFORM_CAN_UPDATE",
}
READY = {
    "release": (APPROVED, APPROVED),
    "note_dispute": (DISPUTED, DISPUTED),
    "resolve_dispute": (DISPUTED, DISPUTED),
    "withdraw_remaining": (RELEASED, RESOLVED),
}
"""The standing in which a step can be taken, where that is not the first one."""
COLUMNS = (*ROLES, Role.MILESTONE_RECEIVER, NOBODY)


def cells() -> list[tuple[str, Role, bool]]:
    """Each step and single role of the matrix, and whether it may."""
    rows = [line.split() for line in WHO_MAY.strip().splitlines()[1:]]
    return [
        (step, role, may == "yes")
        for step, *ticks in rows
        for role, may in zip(COLUMNS, ticks, strict=True)
    ]


@pytest.mark.parametrize("mode", RELEASE_MODES)
@pytest.mark.parametrize(("step", "role", "may"), cells())
def test_each_single_role_takes_its_own_steps_and_no_other(
    mode: str, step: str, role: Role, may: bool
):
    states = READY.get(step, (OPEN, OPEN))
    if mode == SINGLE and step == "withdraw_remaining":
        states = (RELEASED, RELEASED)
    escrow = an_escrow(mode, *states, held_minor=200)
    if mode == SINGLE and role is Role.MILESTONE_RECEIVER:
        may = False  # single release has no receivers but the one
    attempt = step_of(escrow, step, 0, role)
    if may:
        done = attempt.take()
        assert done is not None
        check_done(done, role)
        return
    with pytest.raises(OfMilestones) as refused:
        attempt.take()
    is_judge = (step, role) == ("dispute", Role.DISPUTE_RESOLVER)
    assert refused.value.code == ("RESOLVER_CANNOT_DISPUTE" if is_judge else TOLD[step])


def test_the_table_says_the_same():
    for step, role, may in cells():
        assert may == any(role in row.who for row in STEPS if row.name == step), (step, role)
    for row in MILESTONE_TABLE.rows:
        assert row.who == WHO[row.name]
    named = {step for step, _, _ in cells()}
    others = {"create", "fund", "link_role", "freeze", "unfreeze"}
    assert named | others == {row.name for row in STEPS}
    assert named == set(TAKEN_BY_PEOPLE) == set(TOLD)


def test_a_milestones_own_receiver_disputes_no_other_milestone():
    escrow = an_escrow(MULTI, OPEN, OPEN)
    with pytest.raises(UnauthorizedToDispute):
        step_of(escrow, "dispute", 1, Role.MILESTONE_RECEIVER).take()


# ---- What comes next ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", RELEASE_MODES)
def test_what_the_outlook_calls_legal_is_what_the_rules_take(mode: str):
    for states in standings(mode):
        escrow = an_escrow(mode, *states, held_minor=300)
        shown = {one.step: one for role in ROLES for one in outlook(escrow, role, NOW)}
        approvable = tuple(i for i, s in enumerate(states) if s in (OPEN, DISPUTED))
        one = shown["approve_milestone"]
        assert one.indexes == (() if escrow.status in FINAL else approvable)
        assert (one.obstacle is None) == bool(one.indexes)
        assert (shown["withdraw_remaining"].obstacle is None) == (escrow.status in FINAL)
        if mode == SINGLE:
            assert (shown["release"].obstacle is None) == (escrow.status == "pendingRelease")


def test_every_role_is_shown_the_steps_that_the_table_gives_it():
    escrow = an_escrow(MULTI, OPEN, OPEN)
    [own, _] = [one.receiver for one in escrow.milestones]
    assert own is not None
    shown = {role: [one.step for one in outlook(escrow, role, NOW)] for role in (*ROLES, NOBODY)}
    shown[Role.MILESTONE_RECEIVER] = [one.step for one in outlook_of_receiver(escrow, own, NOW)]
    for role, steps in shown.items():
        assert steps == [name for name, who in WHO.items() if role in who], role
    assert set(TRIES) == {name for name, who in WHO.items() if who & {*HOLDERS, NOBODY}}
    assert shown[Role.PLATFORM] == ["dispute", "note_dispute", "update"]
    assert shown[NOBODY] == ["fund"]


def test_a_milestones_own_receiver_is_shown_their_own_even_before_they_register():
    escrow = an_escrow(MULTI, OPEN, OPEN)
    waiting = Holder("later@example.com")
    parts = tuple(replace(one, receiver=waiting) for one in escrow.milestones[:1])
    escrow = replace(escrow, milestones=(*parts, escrow.milestones[1]))
    legal = {one.step: one.indexes for one in outlook_of_receiver(escrow, waiting, NOW)}
    assert legal["dispute"] == (0,)


@pytest.mark.parametrize("mode", RELEASE_MODES)
def test_an_update_is_shown_where_something_can_be_changed(mode: str):
    def seen(*states: str, held_minor: int = 0) -> tuple[bool, str | None]:
        escrow = an_escrow(mode, *states, held_minor=held_minor)
        one = next(p for p in outlook(escrow, Role.PLATFORM, NOW) if p.step == "update")
        return one.obstacle is None, one.obstacle.code if one.obstacle else None

    assert seen(OPEN, OPEN) == seen(OPEN, APPROVED, held_minor=50) == (True, None)
    assert seen(OPEN, APPROVED) == (False, "MILESTONE_APPROVED_CANNOT_CHANGE")
    assert seen(DISPUTED, DISPUTED) == (False, "ESCROW_IN_DISPUTE")
    assert seen(RELEASED, RELEASED) == (False, "ESCROW_ALREADY_RELEASED")
    full = [OPEN] * MILESTONES_MAX
    assert seen(*full) == seen(*full, held_minor=50) == (True, None)
    assert seen(*full[:-1], APPROVED, held_minor=50) == (False, "ESCROW_PROPERTIES_MISMATCH")


def test_every_refusal_of_a_step_is_listed_once_and_is_one_of_this_family_or_shared():
    for step, refusals in REFUSALS.items():
        assert len(refusals) == len(set(refusals)), step
        assert all(issubclass(one, Refused) for one in refusals)
    assert set(REFUSALS) == {row.name for row in STEPS} - {"link_role", "freeze", "unfreeze"}


def test_a_stranger_holds_no_role():
    escrow = an_escrow(SINGLE, OPEN)
    assert roles_of(escrow, "9" * 24) == roles_of(escrow, None) == frozenset()
    assert roles_of(escrow, USERS[Role.APPROVER]) == {Role.APPROVER}
