"""The small table of an identity verification, and what is asked of an e-mail. escrows.md 10.

A developer asks who is behind an e-mail. In the sandbox the answer comes at once; live, the person
is mailed a link and the operator decides. Whoever registers with the e-mail is linked to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.rules.errors import VerificationDecided, VerificationExpired, VerificationUnderReview
from service.rules.machine import NOWHERE, Movement, Role, Step, Table

SANDBOX, LIVE = "sandbox", "live"
PENDING, APPROVED, REJECTED = "pending", "approved", "rejected"
STATUSES = (PENDING, APPROVED, REJECTED)

UPDATED = "identity.verification.updated"
LINKED = "identity.verification.linked"

EXPIRES_AFTER = timedelta(days=90)
MAILED_AGAIN_AFTER = timedelta(minutes=5)
"""Real time: a person's mailbox does not follow the sandbox's clock."""

DOCUMENTS_MAX = 3
"""The two sides of a card and a picture with it, or a passport's one page."""
DOCUMENTS_KEPT = timedelta(days=30)
"""After the decision, or after a verification expired: so long somebody may ask why."""

BLOCKED_DOMAINS = frozenset(
    {
        "10minutemail.com",
        "dispostable.com",
        "getnada.com",
        "guerrillamail.com",
        "maildrop.cc",
        "mailinator.com",
        "sharklasers.com",
        "temp-mail.org",
        "throwawaymail.com",
        "trashmail.com",
        "yopmail.com",
    }
)
"""Where anybody reads anybody's mail: an address there says nothing about a person."""

_S, _L = frozenset({SANDBOX}), frozenset({LIVE})
_NO = Movement.NONE


def _row(
    name: str, who: Role, source: str, target: str, modes: frozenset[str], event: str, says: str
) -> Step:
    events = (event,) if event else ()
    return Step(name, frozenset({who}), source, target, modes, _NO, events, says)


# fmt: off
STEPS = (
    #    step       who             from      to        where    webhook  sentence
    _row("create",  Role.DEVELOPER, NOWHERE,  PENDING,  _S | _L, "",      "Somebody asks."),
    _row("remind",  Role.DEVELOPER, PENDING,  PENDING,  _L,      "",      "The link again."),
    _row("replace", Role.DEVELOPER, PENDING,  PENDING,  _L,      "",      "Expired; asked anew."),
    _row("submit",  Role.SYSTEM,    PENDING,  PENDING,  _L,      UPDATED, "Documents have come."),
    _row("approve", Role.SYSTEM,    PENDING,  APPROVED, _S,      UPDATED, "At once."),
    _row("approve", Role.OPERATOR,  PENDING,  APPROVED, _L,      UPDATED, "It is this person."),
    _row("reject",  Role.OPERATOR,  PENDING,  REJECTED, _L,      UPDATED, "It is not."),
    _row("link",    Role.SYSTEM,    PENDING,  PENDING,  _S | _L, LINKED,  "The person registers."),
    _row("link",    Role.SYSTEM,    APPROVED, APPROVED, _S | _L, LINKED,  "The person registers."),
    _row("link",    Role.SYSTEM,    REJECTED, REJECTED, _S | _L, LINKED,  "The person registers."),
)
# fmt: on
TABLE = Table("identity", STEPS, {APPROVED, REJECTED})


@dataclass(frozen=True, slots=True)
class Verification:
    """One verification. Times are business times, but for `mailed_at`, which is real.

    `superseded`: it expired while pending, and another has taken its place. `needs_admin_review`:
    the documents are here and wait for the operator. `token_hash` and `counter` belong to the
    mailed link; `mails` counts how often that was sent.
    """

    id: str
    developer_id: str
    email: str
    external_user_id: str | None
    redirect_url: str | None
    metadata: Mapping[str, str]
    kyc_status: str
    needs_admin_review: bool
    superseded: bool
    token_hash: bytes | None = field(repr=False)
    counter: int
    mails: int
    mailed_at: datetime | None
    linked_user_id: str | None
    linked_at: datetime | None
    seq: int
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    def is_expired(self, now: datetime) -> bool:
        """Whether it waited too long; what was decided stays decided."""
        return self.kyc_status == PENDING and now >= self.expires_at

    def may_be_mailed(self, real_now: datetime) -> bool:
        """Whether the link was not sent within the last MAILED_AGAIN_AFTER."""
        return self.mailed_at is None or real_now - self.mailed_at >= MAILED_AGAIN_AFTER


def choose(verification: Verification, name: str, mode: str, now: datetime) -> Step:
    """The row of this step.

    Raises:
        VerificationDecided: it is approved or rejected already.
        VerificationExpired: nobody decided in time.
        VerificationUnderReview: its documents have come already.
    """
    row = TABLE.find(name, verification.kyc_status, mode)
    if row is None:
        raise VerificationDecided(status=verification.kyc_status)
    if verification.superseded or (name != "replace" and verification.is_expired(now)):
        raise VerificationExpired
    if name == "submit" and verification.needs_admin_review:
        raise VerificationUnderReview
    return row


def is_blocked(domain: str, blocked: Collection[str]) -> bool:
    """Whether the domain is one of these, or below one; all in ASCII, in lower case."""
    labels = domain.split(".")
    return any(".".join(labels[n:]) in blocked for n in range(len(labels)))
