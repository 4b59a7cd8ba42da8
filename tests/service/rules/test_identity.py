"""The table of identity verifications, cell by cell; blocked domains."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from service.rules.errors import VerificationDecided, VerificationExpired
from service.rules.events import CATALOGUE
from service.rules.identity import (
    APPROVED,
    BLOCKED_DOMAINS,
    EXPIRES_AFTER,
    LINKED,
    LIVE,
    PENDING,
    REJECTED,
    SANDBOX,
    STATUSES,
    STEPS,
    TABLE,
    UPDATED,
    Verification,
    choose,
    is_blocked,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHERE_TO = {
    ("remind", PENDING, LIVE): PENDING,
    ("replace", PENDING, LIVE): PENDING,
    ("submit", PENDING, LIVE): PENDING,
    ("approve", PENDING, LIVE): APPROVED,
    ("reject", PENDING, LIVE): REJECTED,
    ("approve", PENDING, SANDBOX): APPROVED,
    **{("link", status, mode): status for status in STATUSES for mode in (SANDBOX, LIVE)},
}
NAMES = sorted({row.name for row in STEPS} - {"create"})


def verification(**changes: Any) -> Verification:
    sound: dict[str, Any] = {
        "id": "0" * 24,
        "developer_id": "1" * 24,
        "email": "a@b.example",
        "external_user_id": None,
        "redirect_url": None,
        "metadata": {},
        "kyc_status": PENDING,
        "needs_admin_review": False,
        "superseded": False,
        "token_hash": None,
        "counter": 0,
        "mails": 1,
        "mailed_at": NOW,
        "linked_user_id": None,
        "linked_at": None,
        "seq": 1,
        "expires_at": NOW + EXPIRES_AFTER,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Verification(**{**sound, **changes})


@pytest.mark.parametrize(
    ("name", "status", "mode"), list(product(NAMES, STATUSES, (SANDBOX, LIVE)))
)
def test_every_cell_leads_where_it_should_or_is_refused(name, status, mode):
    given = verification(kyc_status=status)
    target = WHERE_TO.get((name, status, mode))
    if target is None:
        with pytest.raises(VerificationDecided, match=status):
            choose(given, name, mode, NOW)
    else:
        assert choose(given, name, mode, NOW).target == target


@pytest.mark.parametrize("name", ["remind", "submit", "approve", "reject", "link"])
def test_a_pending_one_that_has_expired_takes_no_step_but_its_replacement(name):
    given = verification()
    last = given.expires_at - timedelta(microseconds=1)
    assert choose(given, name, LIVE, last)
    with pytest.raises(VerificationExpired):
        choose(given, name, LIVE, given.expires_at)
    assert choose(given, "replace", LIVE, given.expires_at)


def test_one_that_was_superseded_takes_no_step_at_all():
    for name in ("remind", "replace", "submit", "approve", "reject", "link"):
        with pytest.raises(VerificationExpired):
            choose(verification(superseded=True), name, LIVE, NOW)


@pytest.mark.parametrize("status", [APPROVED, REJECTED])
def test_what_was_decided_does_not_expire(status):
    given = verification(kyc_status=status)
    assert not given.is_expired(given.expires_at + EXPIRES_AFTER)
    assert choose(given, "link", LIVE, given.expires_at + EXPIRES_AFTER).target == status


def test_the_webhooks_are_those_of_the_catalogue():
    told = {(row.name, event) for row in STEPS for event in row.events}
    assert told == {
        ("submit", UPDATED), ("approve", UPDATED), ("reject", UPDATED), ("link", LINKED),
    }  # fmt: skip
    assert {UPDATED, LINKED} <= CATALOGUE


def test_each_step_from_a_state_leads_to_one_state_in_each_mode():
    cells = [(row.name, row.source, mode) for row in STEPS for mode in row.modes]
    assert len(cells) == len(set(cells))
    assert TABLE.final == {APPROVED, REJECTED}


def test_a_person_is_mailed_again_after_five_minutes():
    for seconds, may in ((0, False), (299, False), (300, True)):
        assert verification().may_be_mailed(NOW + timedelta(seconds=seconds)) is may
    assert verification(mailed_at=None).may_be_mailed(NOW)


@pytest.mark.parametrize(
    ("domain", "blocked"),
    [
        ("mailinator.com", True),
        ("my.mailinator.com", True),
        ("a.b.mailinator.com", True),
        ("notmailinator.com", False),
        ("mailinator.com.example", False),
        ("com", False),
    ],
)
def test_a_blocked_domain_blocks_what_is_below_it_and_nothing_beside(domain, blocked):
    assert is_blocked(domain, BLOCKED_DOMAINS) is blocked
