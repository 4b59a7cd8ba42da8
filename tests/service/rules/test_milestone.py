"""The milestone family's tables: the coupling, and every step from every standing."""

import random
from dataclasses import replace
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
from service.rules.errors import OfMilestones, Refused
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
    Done,
    coupled,
    state_of,
    status_of,
)
from service.rules.milestone_outlook import outlook
from service.rules.milestone_steps import (
    REFUSALS,
    Share,
    StatusChange,
    approve,
    change_status,
    check_fund,
    dispute,
    dispute_milestones,
    expire,
    fund,
    note,
    release,
    release_milestones,
    resolve,
    resolve_milestone,
    roles_of,
    update,
    withdraw_remaining,
)
from service.rules.milestone_terms import MilestoneTerms, Terms
from service.rules.postings import held

NOW = datetime(2026, 3, 1, tzinfo=UTC)
USERS = {role: f"{n:024x}" for n, role in enumerate(ROLES, 1)}
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
    """One in these states of its milestones, each worth 100, with so much in its pool."""
    milestones = tuple(
        Milestone(f"Part {n}", amount_minor=100 if mode == MULTI else None, **FLAGS[state])
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


def attempts(escrow: MilestoneEscrow) -> list[tuple[str, object]]:
    """Every step that can be tried on an escrow, with whoever takes it."""
    everybody = [as_holder(role) for role in ROLES]
    to = Holder("receiver@example.com", USERS[Role.RECEIVER])
    part = [Share(to, min(escrow.held_minor, 100) or 1)]
    tries: list[tuple[str, object]] = [("fund", lambda: _funded(escrow))]
    for actor in everybody:
        for index in range(len(escrow.milestones)):
            tries += [
                (
                    "change",
                    lambda a=actor, i=index: change_status(
                        escrow, [StatusChange(i, "done")], a, NOW
                    ),
                ),
                ("approve", lambda a=actor, i=index: approve(escrow, [i], a, NOW)),
                ("note", lambda a=actor, i=index: note(escrow, "-", i, a, NOW)),
            ]
            if escrow.release_mode == MULTI:
                tries += [
                    ("release", lambda a=actor, i=index: release_milestones(escrow, [i], a, NOW)),
                    (
                        "dispute",
                        lambda a=actor, i=index: dispute_milestones(escrow, [i], "-", a, NOW),
                    ),
                    (
                        "resolve",
                        lambda a=actor, i=index: resolve_milestone(escrow, i, part, a, NOW),
                    ),
                ]
        tries.append(("withdraw", lambda a=actor: withdraw_remaining(escrow, part, a, NOW)))
        tries.append(
            ("update", lambda a=actor: update(escrow, _more(escrow), _holders(escrow), a, NOW))
        )
        if escrow.release_mode == SINGLE:
            whole = [Share(to, escrow.held_minor or 1)]
            tries += [
                ("release", lambda a=actor: release(escrow, a, NOW)),
                ("dispute", lambda a=actor: dispute(escrow, "-", a, NOW)),
                ("resolve", lambda a=actor, w=whole: resolve(escrow, w, a, NOW)),
            ]
    if escrow.is_disputed:
        index = (
            None
            if escrow.is_single
            else next(i for i, one in enumerate(escrow.milestones) if one.disputed)
        )
        paid = [Funding(PAYER.user_id or "", PAYER.email, escrow.funded_minor)]
        tries.append(("expire", lambda: expire(escrow, paid, index, NOW, NOW)))
    return tries  # fmt: skip


def _funded(escrow: MilestoneEscrow) -> Done:
    check_fund(escrow, 50, None)
    return fund(escrow, PAYER, 50, NOW)


def terms_of(escrow: MilestoneEscrow) -> Terms:
    """The terms that stand."""
    return Terms(
        release_mode=escrow.release_mode,
        engagement_id=escrow.engagement_id,
        title=escrow.title,
        description=escrow.description,
        currency=escrow.currency,
        amount_minor=escrow.amount_minor if escrow.is_single else None,
        platform_fee_bps=escrow.platform_fee_bps,
        roles={role: holder.email for role, holder in escrow.roles.items()},
        milestones=tuple(
            MilestoneTerms(one.description, one.amount_minor) for one in escrow.milestones
        ),
    )


def _more(escrow: MilestoneEscrow) -> Terms:
    terms = terms_of(escrow)
    added = MilestoneTerms("One more", None if escrow.is_single else 100)
    return replace(terms, milestones=(*terms.milestones, added))


def _holders(escrow: MilestoneEscrow) -> dict[str, Holder]:
    return {holder.email: holder for holder in escrow.holders()}


@pytest.mark.parametrize("held_minor", [0, 60, 300, 1_000])
@pytest.mark.parametrize("mode", RELEASE_MODES)
def test_every_step_from_every_standing_is_a_row_or_a_refusal(mode: str, held_minor: int):
    """And its money balances: nothing is made, nothing is lost, the sums follow the postings."""
    taken: set[str] = set()
    for states in standings(mode):
        escrow = an_escrow(mode, *states, held_minor=held_minor)
        for name, attempt in attempts(escrow):
            try:
                done = attempt()  # type: ignore[operator]  # a closure of the list above
            except OfMilestones:
                continue
            if done is None:
                continue
            taken.add(name)
            check_done(done)
    expected = {"fund", "change", "approve", "dispute", "note", "expire", "update"}
    if held_minor >= 300:
        expected |= {"release", "resolve", "withdraw"}
    assert taken >= expected


def check_done(done: Done) -> None:
    before, after = done.before, done.after
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
            _, attempt = chance.choice(attempts(escrow))
            try:
                done = attempt()  # type: ignore[operator]  # as above
            except OfMilestones:
                continue
            if done is not None:
                check_done(done)
                escrow = done.after


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


def test_every_refusal_of_a_step_is_listed_once_and_is_one_of_this_family_or_shared():
    for step, refusals in REFUSALS.items():
        assert len(refusals) == len(set(refusals)), step
        assert all(issubclass(one, Refused) for one in refusals)
    assert set(REFUSALS) == {row.name for row in STEPS} - {"link_role", "freeze", "unfreeze"}


def test_a_stranger_holds_no_role():
    escrow = an_escrow(SINGLE, OPEN)
    assert roles_of(escrow, "9" * 24) == roles_of(escrow, None) == frozenset()
    assert roles_of(escrow, USERS[Role.APPROVER]) == {Role.APPROVER}
