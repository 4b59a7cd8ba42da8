"""What each step of a milestone escrow can be refused with."""

from collections.abc import Mapping

from service.rules import errors as no
from service.rules.errors import Refused

_OF_BATCH = (no.BatchEmpty, no.BatchTooLarge, no.DuplicateMilestoneIndex)


_OF_TERMS = (
    no.PlatformFeeTooHigh, no.AmountMustBePositive, no.AmountTooLarge, no.NoMilestoneDefined,
    no.TooManyMilestones, no.FlagsMustBeFalse, no.StringTooLong, no.ResolverMustBeIndependent,
)  # fmt: skip


_OF_SHARES = (
    no.AmountsMustBePositive, no.AmountTooLarge, no.TooManyDistributions, no.DuplicateRecipient,
    no.RecipientNotRegistered, no.OnlyDisputeResolver,
)  # fmt: skip


_OVER = (no.EscrowAlreadyReleased, no.EscrowAlreadyResolved)


_ONE_OVER = (no.MilestoneAlreadyReleased, no.MilestoneAlreadyResolved)


REFUSALS: Mapping[str, tuple[type[Refused], ...]] = {
    "create": (*_OF_TERMS, no.DailyCapReached),
    "fund": (
        no.EscrowFrozen, no.AmountMustBePositive, no.AmountTooLarge, no.EscrowPropertiesMismatch,
        *_OVER, no.FundingLimitExceeded, no.OnlyOwnWallet, no.InsufficientFunds,
        no.BalanceTooLarge,
    ),
    "change_milestone_status": (
        no.EscrowFrozen, *_OF_BATCH, no.OnlyServiceProviderCanChangeStatus,
        no.EmptyMilestoneStatus, no.StringTooLong, no.MilestoneNotFound, *_ONE_OVER,
    ),
    "approve_milestone": (
        no.EscrowFrozen, *_OF_BATCH, no.MilestoneNotFound, no.OnlyApproverCanApprove, *_OVER,
        *_ONE_OVER, no.MilestoneAlreadyApproved,
    ),
    "release": (
        no.EscrowFrozen, *_OVER, no.OnlyReleaseSignerCanRelease, no.EscrowNotCompleted,
        no.EscrowInDispute, *_OF_BATCH, no.MilestoneNotFound, *_ONE_OVER,
        no.MilestoneNotCompleted, no.MilestoneInDispute, no.EscrowBalanceNotEnough,
        no.ReceiverNotRegistered, no.BalanceTooLarge,
    ),
    "dispute": (
        no.EscrowFrozen, *_OF_BATCH, no.StringTooLong, no.MilestoneNotFound,
        no.EscrowAlreadyInDispute, no.MilestoneAlreadyInDispute, *_OVER, *_ONE_OVER,
        no.UnauthorizedToDispute, no.ResolverCannotDispute,
    ),
    "note_dispute": (
        no.EscrowFrozen, no.StringTooLong, no.OnlyRoleHoldersCanNote, no.MilestoneNotFound,
        no.MilestoneNotInDispute, no.EscrowNotInDispute,
    ),
    "resolve_dispute": (
        no.EscrowFrozen, no.MilestoneNotFound, *_OF_SHARES, *_ONE_OVER, no.EscrowNotInDispute,
        no.MilestoneNotInDispute, no.DistributionsExceedMilestone,
        no.InsufficientFundsForResolution, no.DistributionsMustEqualBalance,
        no.TotalMustBePositive, no.ReceiverNotRegistered, no.BalanceTooLarge,
    ),
    "withdraw_remaining": (
        no.EscrowFrozen, *_OF_SHARES, no.EscrowNotFullyProcessed, no.TotalMustBePositive,
        no.InsufficientFundsForResolution, no.BalanceTooLarge,
    ),
    "update": (
        no.EscrowFrozen, *_OF_TERMS, no.OnlyPlatformCanUpdate, no.PlatformCannotBeChanged,
        no.EscrowInDispute, *_OVER, no.EscrowPropertiesMismatch, no.MilestoneApprovedCannotChange,
    ),
}  # fmt: skip
"""Step -> what may stand against it, about in the order of its checks."""
