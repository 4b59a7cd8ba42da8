"""What a milestone escrow is asked for, and the checks of its fields.

Source: milestones.md 1 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.rules import errors as no
from service.rules.engagement import SINGLE, MilestoneEscrow
from service.rules.machine import Role
from service.rules.money import MAX_MINOR, to_decimal

PLATFORM_FEE_BPS_MAX = 9_900
MILESTONES_MAX = 50
RECIPIENTS_MAX = 50
BALANCES_MAX = 20
FUNDING_TIMES_MAX = 1_000
TEXTS_MAX: Mapping[str, int] = {
    "engagementId": 100,
    "title": 200,
    "description": 2_000,
    "receiverMemo": 200,
}
MILESTONE_TEXT_MAX = 500
STATUS_MAX, EVIDENCE_MAX, REASON_MAX, NOTE_MAX = 50, 500, 500, 2_000


@dataclass(frozen=True, slots=True)
class MilestoneTerms:
    """One milestone as it is asked for; `is_flagged` where any of its flags is true."""

    description: str
    amount_minor: int | None = None
    receiver: str | None = None
    is_flagged: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """The whole as it is asked for, e-mails in lower case; `amount_minor` of single release only.

    Amounts may be 0 or less: that is for the checks to say.
    """

    release_mode: str
    engagement_id: str
    title: str
    description: str
    currency: str
    amount_minor: int | None
    platform_fee_bps: int
    roles: Mapping[Role, str]
    milestones: tuple[MilestoneTerms, ...]
    receiver_memo: str | None = None
    resolver_deadline_days: int | None = None

    @property
    def total_minor(self) -> int:
        """The escrow's amount: as given, or the milestones' sum."""
        if self.release_mode == SINGLE:
            return self.amount_minor or 0
        return sum(one.amount_minor or 0 for one in self.milestones)

    @property
    def emails(self) -> tuple[str, ...]:
        """Everybody who is named, each once, roles before milestones."""
        receivers = [one.receiver for one in self.milestones if one.receiver is not None]
        return tuple(dict.fromkeys((*self.roles.values(), *receivers)))


def standing_terms(escrow: MilestoneEscrow) -> Terms:
    """The terms as they stand."""
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
            MilestoneTerms(
                one.description, one.amount_minor, one.receiver.email if one.receiver else None
            )
            for one in escrow.milestones
        ),
        receiver_memo=escrow.receiver_memo,
        resolver_deadline_days=escrow.resolver_deadline_days,
    )


def check_terms(terms: Terms, *, standing: int = 0) -> None:
    """Every check of the fields, in the spec's order.

    The first `standing` milestones are there already: their flags are not looked at.

    Raises:
        OfMilestones: the first check that fails.
    """
    if terms.platform_fee_bps > PLATFORM_FEE_BPS_MAX:
        raise no.PlatformFeeTooHigh(limit=PLATFORM_FEE_BPS_MAX)
    _check_amounts(terms)
    if not terms.milestones:
        raise no.NoMilestoneDefined
    if len(terms.milestones) > MILESTONES_MAX:
        raise no.TooManyMilestones(limit=MILESTONES_MAX)
    if any(one.is_flagged for one in terms.milestones[standing:]):
        raise no.FlagsMustBeFalse
    _check_texts(terms)
    _check_resolver(terms)


def check_text(field: str, text: str, limit: int) -> None:
    """`StringTooLong` where the text is longer than that."""
    if len(text) > limit:
        raise no.StringTooLong(field=field, limit=limit)


def check_batch(indexes: Sequence[int]) -> None:
    """A batch names 1 to 50 milestones, each once.

    Raises:
        BatchEmpty, BatchTooLarge, DuplicateMilestoneIndex: the list itself.
    """
    if not indexes:
        raise no.BatchEmpty
    if len(indexes) > MILESTONES_MAX:
        raise no.BatchTooLarge(limit=MILESTONES_MAX)
    twice = next((i for n, i in enumerate(indexes) if i in indexes[:n]), None)
    if twice is not None:
        raise no.DuplicateMilestoneIndex(index=twice)


def shown(minor: int, currency: str) -> str:
    """An amount as a sentence has it: with all of the currency's decimals."""
    return format(to_decimal(minor, currency), "f")


def _check_amounts(terms: Terms) -> None:
    amounts = (
        [terms.amount_minor or 0]
        if terms.release_mode == SINGLE
        else [one.amount_minor or 0 for one in terms.milestones]
    )
    if any(amount <= 0 for amount in amounts):
        raise no.AmountMustBePositive
    if sum(amounts) > MAX_MINOR:
        raise too_large(terms.currency)


def too_large(currency: str) -> no.AmountTooLarge:
    """The amount is beyond what the ledger keeps."""
    return no.AmountTooLarge(most=shown(MAX_MINOR, currency), currency=currency)


def _check_texts(terms: Terms) -> None:
    check_text("engagementId", terms.engagement_id, TEXTS_MAX["engagementId"])
    check_text("title", terms.title, TEXTS_MAX["title"])
    check_text("description", terms.description, TEXTS_MAX["description"])
    check_text("receiverMemo", terms.receiver_memo or "", TEXTS_MAX["receiverMemo"])
    for index, one in enumerate(terms.milestones):
        check_text(f"milestones.{index}.description", one.description, MILESTONE_TEXT_MAX)


def _check_resolver(terms: Terms) -> None:
    resolver = terms.roles[Role.DISPUTE_RESOLVER]
    others = [email for role, email in terms.roles.items() if role is not Role.DISPUTE_RESOLVER]
    others += [one.receiver for one in terms.milestones if one.receiver is not None]
    if resolver in others:
        raise no.ResolverMustBeIndependent
