"""Every way the rules can say no.

A refusal is a class whose docstring is its sentence (with `{facts}` filled in), with a code.
`service/ingress/errors.py` alone knows which status and which family each one becomes; a refusal
that reaches a job is logged and changes nothing.
"""

from collections.abc import Mapping
from typing import ClassVar


class Refused(Exception):
    """The request cannot be carried out."""

    code: ClassVar[str | None] = None

    def __init__(self, **facts: object) -> None:
        self.facts: Mapping[str, object] = facts
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The docstring's first line with the facts in it: what was wrong, what to do."""
        return (type(self).__doc__ or "").strip().splitlines()[0].format_map(dict(self.facts))


class Invalid(Refused):
    """Validation failed: {summary}"""

    def __init__(self, details: Mapping[str, str]) -> None:
        self.details = dict(details)
        super().__init__(summary="; ".join(f"{k}: {v}" for k, v in self.details.items()))


class Malformed(Refused):
    """{reason}"""


class Forbidden(Refused):
    """{reason}"""


class NotAssociated(Refused):
    """Your developer account is not associated with a user; associate it first."""


class NotParty(Refused):
    """You have no access to this escrow."""


class WrongParty(Refused):
    """Only the {party} can {act} this escrow."""


class EscrowNotFound(Refused):
    """Escrow not found"""


class ContractNotFound(Refused):
    """Contract not found for this escrow"""


class NoProofPolicy(Refused):
    """This escrow has no purchase proof policy."""


class InvalidEscrowId(Refused):
    """Invalid escrow ID"""


class WebhookNotFound(Refused):
    """Webhook not found"""


class DeveloperNotFound(Refused):
    """Developer not found"""


class KeyNotFound(Refused):
    """There is not exactly one active key {key}; `amana key list` shows them all."""


class UserNotFound(Refused):
    """No user has this e-mail; create the user first."""


class InvitationNotFound(Refused):
    """This invitation link is unknown or was used already."""


class WebhookRefused(Refused):
    """{reason}"""


class DeliveryNotFound(Refused):
    """Delivery not found"""


class EndpointDisabled(Refused):
    """This endpoint is disabled; enable it first."""

    code = "ENDPOINT_DISABLED"


class DeliverySettling(Refused):
    """This delivery has just been acknowledged and is being settled; try again in a moment."""

    code = "DELIVERY_SETTLING"


class TooManyAttempts(Refused):
    """This delivery was attempted {count} times; no more of it is sent."""

    code = "TOO_MANY_ATTEMPTS"


class BodyNotKept(Refused):
    """What was to be delivered is not kept any longer."""

    code = "BODY_NOT_KEPT"


class RecoveryUnderWay(Refused):
    """A recovery of this endpoint is under way already; wait for its end."""

    code = "RECOVERY_UNDER_WAY"


class CursorBeyondEnd(Refused):
    """This cursor is beyond the end of the feed: an older copy of it was put back. Begin anew."""

    code = "CURSOR_BEYOND_END"


class WrongStatus(Refused):
    """The escrow is {status}; it must be {needed} to {act}.{hint}"""


class DisputeOpen(Refused):
    """A dispute is open on this escrow; it must be settled before you {act}."""


class StepClash(Refused):
    """{reason}"""

    code: ClassVar[str | None] = None


class ContractNotSigned(StepClash):
    """Both parties must sign the contract before the buyer pays."""

    code = "CONTRACT_NOT_SIGNED"


class PaymentAlreadyDone(StepClash):
    """This escrow was paid already; its status is {status}."""

    code = "PAYMENT_ALREADY_DONE"


class EscrowCancelled(StepClash):
    """This escrow was cancelled."""

    code = "ESCROW_CANCELLED"


class EscrowAlreadyCompleted(StepClash):
    """This escrow is completed already."""

    code = "ESCROW_ALREADY_COMPLETED"


class EscrowNotDelivered(StepClash):
    """The escrow is {status}; it can be completed only once it is delivered."""

    code = "ESCROW_NOT_DELIVERED"


class EscrowFrozen(StepClash):
    """This escrow is frozen while the operator looks into it; nothing can be done with it now."""

    code = "ESCROW_FROZEN"


class StillBreached(StepClash):
    """The escrow stays frozen: {says}."""

    code = "ESCROW_FROZEN"


class ProofNotAccepted(StepClash):
    """The purchase proof must be accepted before this escrow can be delivered."""

    code = "PROOF_NOT_ACCEPTED"


class CancellationPending(StepClash):
    """A cancellation request is pending; answer it before you deliver."""

    code = "CANCELLATION_PENDING"


class CancellationAlreadyRequested(StepClash):
    """A cancellation request waits for the seller's answer already."""

    code = "CANCELLATION_ALREADY_REQUESTED"


class NoPendingCancellation(StepClash):
    """No cancellation request waits for an answer."""

    code = "NO_PENDING_CANCELLATION"


class CancellationRequestInvalidStatus(StepClash):
    """The escrow is {status}; a cancellation can be requested while it is paid or delivered."""

    code = "CANCELLATION_REQUEST_INVALID_STATUS"


class CancelEscrowInvalidStatus(StepClash):
    """The escrow is {status}; the seller can cancel it while it is paid or delivered."""

    code = "CANCEL_ESCROW_INVALID_STATUS"


class DisputeAlreadyOpened(StepClash):
    """A dispute is open on this escrow already."""

    code = "DISPUTE_ALREADY_OPENED"


class DisputeInvalidStatus(StepClash):
    """The escrow is {status}; it can be disputed while it is paid or delivered."""

    code = "DISPUTE_INVALID_STATUS"


class NoOpenDispute(StepClash):
    """No dispute is open on this escrow."""

    code = "NO_OPEN_DISPUTE"


class SplitMustEqualHeld(Refused):
    """The parts must be 0 or more and sum to what is held: {held} {currency}."""

    code = "SPLIT_MUST_EQUAL_HELD"


class OfferClosed(StepClash):
    """This offer no longer stands: it was replaced, accepted, or its dispute is over."""

    code = "OFFER_CLOSED"


class OfferOwn(StepClash):
    """This offer is your own; the other party accepts it, or makes another."""

    code = "OFFER_OWN"


class TooManyStatements(StepClash):
    """You have added to this dispute {limit} times; the operator decides on what is there."""

    code = "TOO_MANY_STATEMENTS"


class DisputeNotFound(Refused):
    """Dispute not found for this escrow"""


class ContractAlreadySigned(StepClash):
    """This party has signed the contract already."""

    code = "CONTRACT_ALREADY_SIGNED"


class ProofNotEnabled(StepClash):
    """This escrow has no purchase proof policy."""

    code = "PROOF_NOT_ENABLED"


class ProofWrongPhase(StepClash):
    """The purchase proof does not allow this now; its phase is {phase}."""

    code = "PROOF_WRONG_PHASE"


class AmountChanged(StepClash):
    """The amount was changed meanwhile; it is {amount} {currency} now."""

    code = "AMOUNT_CHANGED"


class TermsChanged(StepClash):
    """The contract was changed meanwhile; its version is {version} now."""

    code = "TERMS_CHANGED"


class QuickEscrowNoContract(StepClash):
    """A quick escrow has no contract to sign."""

    code = "QUICK_ESCROW_NO_CONTRACT"


class InstantEscrowNoContract(StepClash):
    """An instant escrow has no contract to sign."""

    code = "INSTANT_ESCROW_NO_CONTRACT"


class InstantEscrowNoCompleteStep(StepClash):
    """An instant escrow is completed by its delivery; there is nothing to confirm."""

    code = "INSTANT_ESCROW_NO_COMPLETE_STEP"


class CancellationRequestBuyerOnly(StepClash):
    """Only the buyer can ask to cancel; the seller cancels with cancel_escrow."""

    code = "CANCELLATION_REQUEST_BUYER_ONLY"


class CancelEscrowSellerOnly(StepClash):
    """Only the seller can cancel a paid escrow; the buyer asks with request_cancellation."""

    code = "CANCEL_ESCROW_SELLER_ONLY"


class CheckoutTargetNotBuyer(StepClash):
    """targetUserEmail is not the buyer's e-mail, and this action is the buyer's."""

    code = "CHECKOUT_TARGET_NOT_BUYER"


class CheckoutTargetNotSeller(StepClash):
    """targetUserEmail is not the seller's e-mail, and this action is the seller's."""

    code = "CHECKOUT_TARGET_NOT_SELLER"


class SessionNotPending(StepClash):
    """This checkout session is {status}; create a new one."""

    code = "SESSION_NOT_PENDING"


class SessionNotFound(Refused):
    """Checkout session not found"""


class SellerNotReady(StepClash):
    """The seller has not registered yet or must still show who they are: it cannot be paid yet."""

    code = "SELLER_NOT_READY"


class InsufficientFunds(StepClash):
    """The wallet does not hold enough for this payment; top it up first."""

    code = "INSUFFICIENT_FUNDS"


class BalanceTooLarge(StepClash):
    """The balance would pass the largest that the ledger keeps."""

    code = "AMOUNT_TOO_LARGE"


class UserNotRegistered(StepClash):
    """Nobody is registered with this e-mail; register first."""

    code = "USER_NOT_REGISTERED"


class PhoneNotVerified(StepClash):
    """The buyer's phone number must be verified before paying."""

    code = "PHONE_NOT_VERIFIED"


class EmailTaken(StepClash):
    """This e-mail is registered already."""

    code = "EMAIL_TAKEN"


class UserTaken(StepClash):
    """This user is associated with another developer already."""

    code = "USER_ALREADY_ASSOCIATED"


class NoRedirectUrlsConfigured(StepClash):
    """You have no redirect URLs; set them with PUT /api/developer/redirect-urls first."""

    code = "NO_REDIRECT_URLS_CONFIGURED"


class RedirectUrlMustBeHttps(StepClash):
    """redirectUrl must begin with https:// (http:// only for localhost)."""

    code = "REDIRECT_URL_MUST_BE_HTTPS"


class RedirectUrlNotAllowed(StepClash):
    """redirectUrl is not on your list of redirect URLs."""

    code = "REDIRECT_URL_NOT_ALLOWED"


class VerificationNotFound(Refused):
    """You have no identity verification with this id."""


class InvalidVerificationId(Refused):
    """The id of an identity verification is 24 lower-case hex characters."""


class IdentityApproved(Refused):
    """The user with this e-mail is registered, and their identity is approved already."""


class VerificationDecided(StepClash):
    """This identity verification is {status} already."""

    code = "VERIFICATION_DECIDED"


class VerificationExpired(StepClash):
    """This identity verification has expired; the developer has to ask for another."""

    code = "VERIFICATION_EXPIRED"


class VerificationUnderReview(StepClash):
    """The documents of this identity verification have come already, and are being looked at."""

    code = "VERIFICATION_UNDER_REVIEW"


class PaymentNotFound(Refused):
    """Payment not found"""


class PaymentNotOpen(StepClash):
    """The payment is {state}; this step ({act}) is not to be had from there."""

    code = "PAYMENT_NOT_OPEN"


class PaymentUnderWay(StepClash):
    """A payment for this escrow is under way; wait for it, or cancel it first."""

    code = "PAYMENT_UNDER_WAY"


class TooManyPayments(StepClash):
    """{limit} of your payments are under way; finish or cancel one of them first."""

    code = "TOO_MANY_PAYMENTS"


class ChargeBooked(StepClash):
    """This line of the statement was booked already; another line for {payment} needs a name."""

    code = "CHARGE_BOOKED"


class DepositUnderReview(Refused):
    """A guest's payment proof is under review; the amount can be changed once that is decided."""

    code = "DEPOSIT_UNDER_REVIEW"


class NotPayable(StepClash):
    """This cannot be paid by {provider}: {reason}."""

    code = "PAYMENT_METHOD_NOT_POSSIBLE"


class NotificationRefused(Refused):
    """The notification is not {provider}'s: {reason}."""


class FileTooLarge(Refused):
    """A file must be at most {limit} bytes."""

    code = "FILE_TOO_LARGE"


class FileEmpty(Refused):
    """A file must not be empty."""

    code = "FILE_EMPTY"


class FileTypeUnknown(Refused):
    """A file must be a whole PNG, JPEG, WEBP or PDF, whatever its name says."""

    code = "FILE_TYPE_UNKNOWN"


class TooManyFiles(Refused):
    """There may be at most {limit} files."""

    code = "TOO_MANY_FILES"


class IdempotencyKeyReused(Refused):
    """This Idempotency-Key was used for another request; use a new key for a new request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyInFlight(Refused):
    """A request with this Idempotency-Key is still under way; try again in a moment."""

    code = "IDEMPOTENCY_IN_FLIGHT"


class FxRateUnavailable(Refused):
    """No exchange rate for {currency} is younger than {max_age_hours} hours; try again later."""

    code = "FX_RATE_UNAVAILABLE"


class DailyCapReached(Refused):
    """You have created {count} escrows today; the limit is {limit}."""


class TooManyCodes(Refused):
    """Codes were asked for too often; wait half a minute, or an hour if that does not help."""

    code = "TOO_MANY_CODES"


class ClockAdvancing(Refused):
    """The sandbox clock is being advanced by another call; try again in a moment."""

    code = "CLOCK_ADVANCING"


# ---- The milestone family: milestones.md 3 and 4 -------------------------------------------------


class InvalidPayload(Invalid):
    """Validation failed: {summary}"""

    code = "INVALID_PAYLOAD"


class OfMilestones(StepClash):
    """{reason}"""


class OnlyServiceProviderCanChangeStatus(OfMilestones):
    """Only the service provider can change a milestone's status."""

    code = "ONLY_SERVICE_PROVIDER_CAN_CHANGE_STATUS"


class OnlyApproverCanApprove(OfMilestones):
    """Only the approver can approve a milestone."""

    code = "ONLY_APPROVER_CAN_APPROVE"


class OnlyReleaseSignerCanRelease(OfMilestones):
    """Only the release signer can release."""

    code = "ONLY_RELEASE_SIGNER_CAN_RELEASE"


class OnlyDisputeResolver(OfMilestones):
    """Only the dispute resolver can do this."""

    code = "ONLY_DISPUTE_RESOLVER"


class OnlyPlatformCanUpdate(OfMilestones):
    """Only the platform can change the terms."""

    code = "ONLY_PLATFORM_CAN_UPDATE"


class OnlyOwnWallet(OfMilestones):
    """Only the acting user's own wallet can pay."""

    code = "ONLY_OWN_WALLET"


class OnlyRoleHoldersCanNote(OfMilestones):
    """Only somebody who holds a role can add a note to a dispute."""

    code = "ONLY_ROLE_HOLDERS_CAN_NOTE"


class UnauthorizedToDispute(OfMilestones):
    """Only a role's holder can dispute; a milestone's own receiver, that milestone alone."""

    code = "UNAUTHORIZED_TO_DISPUTE"


class ResolverCannotDispute(OfMilestones):
    """The dispute resolver decides disputes and cannot open one."""

    code = "RESOLVER_CANNOT_DISPUTE"


class NoAccessToEscrow(OfMilestones):
    """You have no access to this escrow."""

    code = "NO_ACCESS_TO_ESCROW"


class MilestoneEscrowNotFound(OfMilestones):
    """There is no milestone escrow of this id."""

    code = "ESCROW_NOT_FOUND"


class MilestoneNotFound(OfMilestones):
    """There is no milestone {index}; they count from 0 to {last}."""

    code = "MILESTONE_NOT_FOUND"


class EscrowPropertiesMismatch(OfMilestones):
    """{reason}"""

    code = "ESCROW_PROPERTIES_MISMATCH"


class EscrowAlreadyReleased(OfMilestones):
    """This escrow is released already."""

    code = "ESCROW_ALREADY_RELEASED"


class EscrowAlreadyResolved(OfMilestones):
    """This escrow's dispute is resolved already."""

    code = "ESCROW_ALREADY_RESOLVED"


class EscrowAlreadyInDispute(OfMilestones):
    """This escrow is in dispute already."""

    code = "ESCROW_ALREADY_IN_DISPUTE"


class EscrowInDispute(OfMilestones):
    """This escrow is in dispute; it must be resolved first."""

    code = "ESCROW_IN_DISPUTE"


class EscrowNotInDispute(OfMilestones):
    """This escrow is not in dispute."""

    code = "ESCROW_NOT_IN_DISPUTE"


class EscrowNotCompleted(OfMilestones):
    """Milestone {index} is not approved yet; all of them must be."""

    code = "ESCROW_NOT_COMPLETED"


class EscrowBalanceNotEnough(OfMilestones):
    """The escrow holds {balance} {currency} and needs {needed}; fund it first."""

    code = "ESCROW_BALANCE_NOT_ENOUGH"


class EscrowNotFullyProcessed(OfMilestones):
    """Not every milestone is released or resolved yet."""

    code = "ESCROW_NOT_FULLY_PROCESSED"


class FundingLimitExceeded(OfMilestones):
    """The escrow would hold more than {times} times its amount."""

    code = "FUNDING_LIMIT_EXCEEDED"


class MilestoneAlreadyReleased(OfMilestones):
    """Milestone {index} is released already."""

    code = "MILESTONE_ALREADY_RELEASED"


class MilestoneAlreadyResolved(OfMilestones):
    """Milestone {index} is resolved already."""

    code = "MILESTONE_ALREADY_RESOLVED"


class MilestoneAlreadyApproved(OfMilestones):
    """Milestone {index} is approved already."""

    code = "MILESTONE_ALREADY_APPROVED"


class MilestoneAlreadyInDispute(OfMilestones):
    """Milestone {index} is in dispute already."""

    code = "MILESTONE_ALREADY_IN_DISPUTE"


class MilestoneInDispute(OfMilestones):
    """Milestone {index} is in dispute; that must be resolved first."""

    code = "MILESTONE_IN_DISPUTE"


class MilestoneNotInDispute(OfMilestones):
    """Milestone {index} is not in dispute."""

    code = "MILESTONE_NOT_IN_DISPUTE"


class MilestoneNotCompleted(OfMilestones):
    """Milestone {index} is not approved yet."""

    code = "MILESTONE_NOT_COMPLETED"


class MilestoneApprovedCannotChange(OfMilestones):
    """Milestone {index} is approved; the terms can no longer be changed."""

    code = "MILESTONE_APPROVED_CANNOT_CHANGE"


class PlatformCannotBeChanged(OfMilestones):
    """The platform of an escrow cannot be changed."""

    code = "PLATFORM_CANNOT_BE_CHANGED"


class ReceiverNotRegistered(OfMilestones):
    """Nobody is registered as {email}, who is to be paid; they must register first."""

    code = "RECEIVER_NOT_REGISTERED"


class InsufficientFundsForResolution(OfMilestones):
    """The escrow holds {balance} {currency}; the distributions need {needed}."""

    code = "INSUFFICIENT_FUNDS_FOR_RESOLUTION"


class AmountMustBePositive(OfMilestones):
    """The amount must be more than 0."""

    code = "AMOUNT_MUST_BE_POSITIVE"


class AmountsMustBePositive(OfMilestones):
    """Every distribution's amount must be more than 0."""

    code = "AMOUNTS_MUST_BE_POSITIVE"


class AmountTooLarge(OfMilestones):
    """An amount must be at most {most} {currency}."""

    code = "AMOUNT_TOO_LARGE"


class BatchEmpty(OfMilestones):
    """Name at least one milestone."""

    code = "BATCH_EMPTY"


class BatchTooLarge(OfMilestones):
    """At most {limit} milestones can be named at once."""

    code = "BATCH_TOO_LARGE"


class DistributionsExceedMilestone(OfMilestones):
    """They sum to {needed} {currency}, more than the milestone's {balance}."""

    code = "DISTRIBUTIONS_EXCEED_MILESTONE"


class DistributionsMustEqualBalance(OfMilestones):
    """They sum to {needed} {currency} and must sum to the balance of {balance}."""

    code = "DISTRIBUTIONS_MUST_EQUAL_BALANCE"


class DuplicateMilestoneIndex(OfMilestones):
    """Milestone {index} is named twice."""

    code = "DUPLICATE_MILESTONE_INDEX"


class DuplicateRecipient(OfMilestones):
    """{email} is named twice; name each recipient once."""

    code = "DUPLICATE_RECIPIENT"


class EmptyMilestoneStatus(OfMilestones):
    """The new status must not be empty."""

    code = "EMPTY_MILESTONE_STATUS"


class FlagsMustBeFalse(OfMilestones):
    """A new milestone is neither approved, disputed, released nor resolved."""

    code = "FLAGS_MUST_BE_FALSE"


class NoMilestoneDefined(OfMilestones):
    """There must be at least one milestone."""

    code = "NO_MILESTONE_DEFINED"


class PlatformFeeTooHigh(OfMilestones):
    """platformFeeBps must be at most {limit}."""

    code = "PLATFORM_FEE_TOO_HIGH"


class RecipientNotRegistered(OfMilestones):
    """Nobody is registered as {email}; a recipient must have an account."""

    code = "RECIPIENT_NOT_REGISTERED"


class ResolverMustBeIndependent(OfMilestones):
    """The dispute resolver must hold no other role and receive no milestone."""

    code = "RESOLVER_MUST_BE_INDEPENDENT"


class StringTooLong(OfMilestones):
    """{field} must be at most {limit} characters."""

    code = "STRING_TOO_LONG"


class TooManyDistributions(OfMilestones):
    """There can be at most {limit} recipients."""

    code = "TOO_MANY_DISTRIBUTIONS"


class TooManyEscrowsRequested(OfMilestones):
    """At most {limit} escrows can be asked for at once."""

    code = "TOO_MANY_ESCROWS_REQUESTED"


class TooManyMilestones(OfMilestones):
    """There can be at most {limit} milestones."""

    code = "TOO_MANY_MILESTONES"


class TotalMustBePositive(OfMilestones):
    """There must be something to distribute."""

    code = "TOTAL_MUST_BE_POSITIVE"


class Unavailable(Exception):
    """The database is away: nothing was changed, unless it went away during the COMMIT itself."""


class Busy(Unavailable):
    """Somebody held a lock for too long: this was rolled back for certain."""


class GatewayFailure(Exception):
    """The outside failed; `permanent` says that trying again will not help."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        self.permanent = permanent
        super().__init__(reason)
