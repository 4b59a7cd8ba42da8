"""What a refusal is on the wire: its status, its family, its body.

Law: the only place that knows both refusals and statuses. A refusal of the rules that is missing
from REFUSALS fails a test. Whatever is no refusal is a bug: 500, with the request id in it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from service.rules import errors as no
from service.rules.errors import GatewayFailure, Refused, Unavailable
from service.wire.base import dump_json

REASONS: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Payload Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
PAGES_OF_STATUSES: Mapping[int, str] = {
    400: "unclear",
    401: "not_yours",
    403: "not_yours",
    404: "not_found",
    405: "not_found",
    408: "unclear",
    409: "not_now",
    413: "too_large",
    422: "unclear",
    429: "too_many",
    500: "failed",
    502: "away",
    503: "away",
}
"""What a person is told instead: the sentences under `page.error` in the catalogues."""
UNAVAILABLE_RETRY_SECONDS = 2
COMPATIBLE = re.compile(r"/api/v1/(?!sandbox/|milestone-escrows)")
"""The paths that others had before us, whose statuses stay as their integrators know them."""


class Family(StrEnum):
    """The four shapes of an error body."""

    E1 = "{error, message}"
    E2 = "{error}"
    E3 = "{error: {code, type, message, user_message}}"
    E4 = "{error, message, …extras}"


class Unauthorized(Refused):
    """{reason}"""


class RateLimited(Refused):
    """Too many requests: at most {limit} a minute. Try again in {retry_after} seconds."""


class BodyTooLarge(Refused):
    """The body must be at most {limit} bytes."""


class BodyTooSlow(Refused):
    """The body did not arrive within {seconds} seconds."""


class BodyBroken(Refused):
    """The body is not what its headers announce: its encoding or its length is broken."""


class EncodingUnknown(Refused):
    """Content-Encoding must be gzip or deflate, or be left out."""


class Unreadable(Refused):
    """This is not a request that can be read: its first line, a header or its length is broken."""


class FormNotOurs(Refused):
    """This form was not sent from our page, or the page was made for another visitor."""

    code = "FORM_NOT_OURS"


class PathUnknown(Refused):
    """Not found"""


class MethodNotAllowed(Refused):
    """{method} is not allowed here; try {allowed}."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a refusal is told. `extras` gives the further keys of an E4 body.

    `compatible_status` is its status on the paths of COMPATIBLE, where that is another one.
    """

    status: int
    family: Family = Family.E1
    error: str | None = None
    extras: Callable[[Any], Mapping[str, object]] | None = None
    compatible_status: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An error as it is sent. `closes`: the rest of the body is not worth waiting for."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False


def _each(shape: Shape, refusals: Iterable[type[Refused]]) -> dict[type[Refused], Shape]:
    return dict.fromkeys(refusals, shape)


REFUSALS: Mapping[type[Refused], Shape] = {
    Unauthorized: Shape(401),
    RateLimited: Shape(429, Family.E4, extras=lambda no: {"retryAfter": no.facts["retry_after"]}),
    BodyTooLarge: Shape(413),
    BodyTooSlow: Shape(408),
    BodyBroken: Shape(400),
    EncodingUnknown: Shape(400),
    Unreadable: Shape(400),
    FormNotOurs: Shape(403),
    PathUnknown: Shape(404, Family.E2),
    MethodNotAllowed: Shape(405),
    no.Refused: Shape(400),
    no.Invalid: Shape(400, Family.E4, extras=lambda no: {"details": no.details}),
    no.Malformed: Shape(400),
    no.Forbidden: Shape(403),
    no.NotAssociated: Shape(403),
    no.NotParty: Shape(403),
    no.WrongParty: Shape(403),
    no.EscrowNotFound: Shape(404, Family.E2),
    no.InvalidEscrowId: Shape(400, Family.E2),
    no.ContractNotFound: Shape(404, Family.E2),
    no.DisputeNotFound: Shape(404, Family.E2),
    no.SessionNotFound: Shape(404, Family.E2),
    no.NoProofPolicy: Shape(400),
    no.WebhookNotFound: Shape(404, Family.E2),
    no.DeveloperNotFound: Shape(404, Family.E2),
    no.KeyNotFound: Shape(404),
    no.UserNotFound: Shape(404),
    no.InvitationNotFound: Shape(404),
    no.WebhookRefused: Shape(400, Family.E2),
    no.DeliveryNotFound: Shape(404, Family.E2),
    no.VerificationNotFound: Shape(404),
    no.PaymentNotFound: Shape(404, Family.E2),
    no.NotificationRefused: Shape(400),
    no.FileTooLarge: Shape(413),
    no.FileEmpty: Shape(400),
    no.FileTypeUnknown: Shape(400),
    no.TooManyFiles: Shape(400),
    no.InvalidVerificationId: Shape(400),
    no.IdentityApproved: Shape(
        409, Family.E4, extras=lambda _: {"kyc_status": "approved", "user_exists": True}
    ),
    no.WrongStatus: Shape(400),
    no.DepositUnderReview: Shape(400),
    no.DisputeOpen: Shape(400),
    no.SplitMustEqualHeld: Shape(400),
    **_each(
        Shape(409),
        (
            no.StepClash,
            no.ContractNotSigned,
            no.PaymentAlreadyDone,
            no.EscrowCancelled,
            no.EscrowAlreadyCompleted,
            no.EscrowNotDelivered,
            no.EscrowFrozen,
            no.StillBreached,
            no.ProofNotAccepted,
            no.CancellationPending,
            no.CancellationAlreadyRequested,
            no.NoPendingCancellation,
            no.CancellationRequestInvalidStatus,
            no.CancelEscrowInvalidStatus,
            no.DisputeAlreadyOpened,
            no.DisputeInvalidStatus,
            no.NoOpenDispute,
            no.OfferClosed,
            no.OfferOwn,
            no.TooManyStatements,
            no.ContractAlreadySigned,
            no.ProofNotEnabled,
            no.ProofWrongPhase,
            no.AmountChanged,
            no.TermsChanged,
            no.QuickEscrowNoContract,
            no.InstantEscrowNoContract,
            no.InstantEscrowNoCompleteStep,
            no.CancellationRequestBuyerOnly,
            no.CancelEscrowSellerOnly,
            no.CheckoutTargetNotBuyer,
            no.CheckoutTargetNotSeller,
            no.SessionNotPending,
            no.SellerNotReady,
            no.InsufficientFunds,
            no.PhoneNotVerified,
            no.EmailTaken,
            no.UserTaken,
            no.UserNotRegistered,
            no.NoRedirectUrlsConfigured,
            no.RedirectUrlMustBeHttps,
            no.RedirectUrlNotAllowed,
            no.VerificationDecided,
            no.VerificationExpired,
            no.VerificationUnderReview,
            no.PaymentNotOpen,
            no.PaymentUnderWay,
            no.TooManyPayments,
            no.ChargeBooked,
            no.NotPayable,
            no.IdempotencyInFlight,
            no.ClockAdvancing,
            no.EndpointDisabled,
            no.DeliverySettling,
            no.BodyNotKept,
            no.TooManyAttempts,
            no.RecoveryUnderWay,
            no.CursorBeyondEnd,
        ),
    ),
    no.InvalidPayload: Shape(422, Family.E4, extras=lambda no: {"details": no.details}),
    no.OfMilestones: Shape(409),
    **_each(
        Shape(403),
        (
            no.OnlyServiceProviderCanChangeStatus,
            no.OnlyApproverCanApprove,
            no.OnlyReleaseSignerCanRelease,
            no.OnlyDisputeResolver,
            no.OnlyPlatformCanUpdate,
            no.OnlyOwnWallet,
            no.OnlyRoleHoldersCanNote,
            no.UnauthorizedToDispute,
            no.ResolverCannotDispute,
            no.NoAccessToEscrow,
        ),
    ),
    **_each(
        Shape(404),
        (
            no.MilestoneEscrowNotFound,
            no.MilestoneNotFound,
        ),
    ),
    **_each(
        Shape(409),
        (
            no.EscrowPropertiesMismatch,
            no.EscrowAlreadyReleased,
            no.EscrowAlreadyResolved,
            no.EscrowAlreadyInDispute,
            no.EscrowInDispute,
            no.EscrowNotInDispute,
            no.EscrowNotCompleted,
            no.EscrowBalanceNotEnough,
            no.EscrowNotFullyProcessed,
            no.FundingLimitExceeded,
            no.MilestoneAlreadyReleased,
            no.MilestoneAlreadyResolved,
            no.MilestoneAlreadyApproved,
            no.MilestoneAlreadyInDispute,
            no.MilestoneInDispute,
            no.MilestoneNotInDispute,
            no.MilestoneNotCompleted,
            no.MilestoneApprovedCannotChange,
            no.PlatformCannotBeChanged,
            no.ReceiverNotRegistered,
            no.InsufficientFundsForResolution,
        ),
    ),
    **_each(
        Shape(422),
        (
            no.AmountMustBePositive,
            no.AmountsMustBePositive,
            no.AmountTooLarge,
            no.BatchEmpty,
            no.BatchTooLarge,
            no.DistributionsExceedMilestone,
            no.DistributionsMustEqualBalance,
            no.DuplicateMilestoneIndex,
            no.DuplicateRecipient,
            no.EmptyMilestoneStatus,
            no.FlagsMustBeFalse,
            no.NoMilestoneDefined,
            no.PlatformFeeTooHigh,
            no.RecipientNotRegistered,
            no.ResolverMustBeIndependent,
            no.StringTooLong,
            no.TooManyDistributions,
            no.TooManyEscrowsRequested,
            no.TooManyMilestones,
            no.TotalMustBePositive,
        ),
    ),
    no.BalanceTooLarge: Shape(422, compatible_status=400),
    no.IdempotencyKeyReused: Shape(422),
    no.FxRateUnavailable: Shape(503),
    no.TooManyCodes: Shape(429),
    no.DailyCapReached: Shape(
        429,
        Family.E4,
        error="Rate Limit Exceeded",
        extras=lambda no: {key: no.facts[key] for key in ("limit", "count", "remaining")},
    ),
}


UNREAD = (BodyTooLarge, BodyTooSlow, BodyBroken, EncodingUnknown, Unreadable)
"""After these the rest of the body is still on its way, and not worth waiting for."""


def reply_to(
    error: Exception, request_id: str, clashes: Family = Family.E1, path: str = ""
) -> Reply:
    """What the caller who asked for this path is told about this error.

    `clashes` is E3 on the one path (checkout sessions) that tells a clash of steps that way, as
    400.
    """
    if isinstance(error, Refused):
        if clashes is Family.E3 and isinstance(error, no.StepClash):
            return Reply(400, _business_rule(error))
        shape = shape_of(type(error))
        if shape.compatible_status and COMPATIBLE.match(path):
            shape = replace(shape, status=shape.compatible_status)
        return _told(error, shape)
    if isinstance(error, Unavailable):
        return _plain(
            503,
            "The service is away for a moment. Try again, with the same Idempotency-Key where you"
            " sent one: the request may have been carried out.",
            {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)},
        )
    if isinstance(error, GatewayFailure):
        return _plain(502, "A service that we depend on failed; nothing was changed. Try again.")
    return _plain(500, f"Something went wrong on our side. Its request id is {request_id}.")


def shape_of(refusal: type[Refused]) -> Shape:
    """The shape of this class of refusal, or of the nearest one that it is a kind of."""
    return next(REFUSALS[kind] for kind in refusal.__mro__ if kind in REFUSALS)


def _told(refusal: Refused, shape: Shape) -> Reply:
    closes = isinstance(refusal, UNREAD)
    return Reply(shape.status, dump_json(_body(refusal, shape)), _headers(refusal), closes)


def _body(refusal: Refused, shape: Shape) -> Mapping[str, object]:
    if shape.family is Family.E2:
        return {"error": str(refusal)}
    body: dict[str, object] = {
        "error": shape.error or REASONS[shape.status],
        "message": str(refusal),
    }
    if refusal.code is not None:
        body["code"] = refusal.code
    return {**body, **shape.extras(refusal)} if shape.extras else body


def _business_rule(refusal: Refused) -> bytes:
    told = str(refusal)
    rule = {
        "code": refusal.code,
        "type": "business_rule_violation",
        "message": told,
        "user_message": told,
    }
    return dump_json({"error": rule})


def _headers(refusal: Refused) -> Mapping[str, str]:
    match refusal:
        case Unauthorized():
            return {"WWW-Authenticate": "Bearer"}
        case RateLimited(facts=facts):
            return {"Retry-After": str(facts["retry_after"])}
        case MethodNotAllowed(facts=facts):
            return {"Allow": str(facts["allowed"])}
    return {}


def _plain(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, dump_json({"error": REASONS[status], "message": message}), headers or {})
