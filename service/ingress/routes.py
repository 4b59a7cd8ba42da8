"""The one table of routes: what may be asked, by whom, with what, and what is answered."""

from service.ingress.api import (
    account,
    assurance,
    deliveries,
    developer,
    escrows,
    feed,
    identity,
    mailbox,
    payments,
    sandbox,
    sessions,
    webhooks,
)
from service.ingress.api.deliveries import DELIVERY
from service.ingress.api.escrows import ESCROW, escrow_for
from service.ingress.api.identity import VERIFICATION
from service.ingress.api.payments import ANY_PAYMENT
from service.ingress.api.sandbox import ANY_ESCROW, USER
from service.ingress.api.sessions import ANY_SESSION, SESSION
from service.ingress.api.webhooks import ENDPOINT
from service.ingress.errors import Family
from service.ingress.pages import (
    checkout,
    dashboard,
    developers,
    explorer,
    files,
    paying,
    phone,
    registration,
    sandbox_pay,
    sign_in,
    static,
    wallet,
)
from service.ingress.pages import contract as contract_page
from service.ingress.pages import escrow as escrow_page
from service.ingress.pages import identity as identity_page
from service.ingress.pages import mailbox as mailbox_page
from service.ingress.pages import settings as person_settings
from service.ingress.pages import step as step_page
from service.ingress.route import Auth, Route
from service.rules import errors as no
from service.rules.files import FORM_BYTES_MAX
from service.rules.policy import Policy
from service.rules.session import OF_SESSIONS, OF_STEPS
from service.wire.account import BalanceAnswer, BalanceQuery, Me
from service.wire.assurance import Assurance
from service.wire.contracts import ContractAnswer
from service.wire.deliveries import (
    DeliveryAnswer,
    DeliveryInFullAnswer,
    DeliveryList,
    DeliveryQuery,
    Feed,
    FeedQuery,
    Recover,
    RecoveryAnswer,
    RecoveryList,
    TestEvent,
)
from service.wire.developer import (
    SIGNATURE_BODY_BYTES_MAX,
    NewSignature,
    RedirectUrls,
    RedirectUrlsAnswer,
    RedirectUrlsStored,
    SignatureAnswer,
    SignatureStored,
)
from service.wire.disputes import CaseAnswer
from service.wire.escrows import (
    Changes,
    Creation,
    DeliverAnswer,
    EscrowAnswer,
    EscrowPage,
    EscrowQuery,
    NewEscrow,
    Reasoned,
    RejectAnswer,
    StepAnswer,
    UpdateAnswer,
)
from service.wire.event_types import EventTypes
from service.wire.identity import (
    NewVerification,
    VerificationAnswer,
    VerificationList,
    VerificationMade,
    VerificationQuery,
    VerificationRecord,
)
from service.wire.mailbox import Mailbox
from service.wire.next import NextAnswer
from service.wire.payments import Decision, PaymentAnswer
from service.wire.proofs import ProofAnswer
from service.wire.sandbox import (
    Act,
    Advance,
    AdvanceAnswer,
    AssociationAnswer,
    ByEmail,
    ClockAnswer,
    DeveloperAnswer,
    MailboxQuery,
    NewDeveloper,
    NewRate,
    NewUser,
    ProofDecision,
    RateAnswer,
    Registration,
    RegistrationAnswer,
    Resolution,
    TopUp,
    UserAnswer,
)
from service.wire.sessions import (
    NewSession,
    SessionAnswer,
    SessionCreated,
    SessionEnd,
    SessionEnded,
)
from service.wire.webhooks import (
    Gone,
    Regenerate,
    SecretAnswer,
    WebhookAnswer,
    WebhookCreate,
    WebhookCreated,
    WebhookList,
    WebhookUpdate,
    WebhookUpdated,
)

SESSION_BODY_BYTES_MAX = 16 * 1024 * 1024
OF_DOORS = (no.FileEmpty, no.FileTooLarge, no.FileTypeUnknown, no.OfferClosed, no.OfferOwn,
            no.SplitMustEqualHeld, no.TooManyStatements)  # fmt: skip
"""What may stand against the files and offers that a person brings along."""
_KEY, _USER = Auth.KEY, Auth.ASSOCIATED
_V1 = "/api/v1"
_SANDBOX = "/api/v1/sandbox"
_WEBHOOKS = "/api/developer/webhooks"

# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("GET", f"{_V1}/me", account.me, _KEY,
          gives=Me, refuses=(no.DeveloperNotFound,), says="Your key and your account."),
    Route("GET", f"{_V1}/balance", account.read_wallet, _USER,
          asks=BalanceQuery, gives=BalanceAnswer, says="The wallet of your user."),
    Route("GET", f"{_V1}/assurance", assurance.read, _KEY,
          gives=Assurance, says="How the invariants stand, for what is yours."),

    Route("POST", f"{_V1}/escrows", escrows.create, _KEY, screen=escrows.screen,
          takes=NewEscrow, gives=Creation, status=201, steps=("create",),
          refuses=(no.Forbidden, no.DailyCapReached, no.FxRateUnavailable),
          says="Open an escrow."),
    Route("GET", f"{_V1}/escrows", escrows.read_list, _USER,
          asks=EscrowQuery, gives=EscrowPage, says="List your escrows, newest first."),
    Route("GET", f"{_V1}/escrows/{{id}}", escrows.read_one, _KEY, ESCROW,
          gives=EscrowAnswer, says="Read an escrow."),
    Route("GET", f"{_V1}/escrows/{{id}}/next", escrows.read_next, _KEY, ESCROW,
          gives=NextAnswer, says="What may happen next, and what time does."),
    Route("GET", f"{_V1}/escrows/{{id}}/contract", escrows.read_contract, _KEY, ESCROW,
          gives=ContractAnswer, refuses=(no.ContractNotFound,), says="Read its contract."),
    Route("GET", f"{_V1}/escrows/{{id}}/proof", escrows.read_proof, _KEY, ESCROW,
          gives=ProofAnswer, refuses=(no.NoProofPolicy,), says="Read its purchase proof."),
    Route("GET", f"{_V1}/escrows/{{id}}/dispute", escrows.read_dispute, _KEY, ESCROW,
          gives=CaseAnswer, refuses=(no.DisputeNotFound,),
          says="Read what was said and offered in its dispute."),
    Route("PUT", f"{_V1}/escrows/{{id}}", escrows.update, _KEY, escrow_for("update"),
          takes=Changes, gives=UpdateAnswer, steps=("update",),
          refuses=(no.FxRateUnavailable, no.DepositUnderReview),
          says="Change the terms before payment."),
    Route("POST", f"{_V1}/escrows/{{id}}/deliver", escrows.deliver, _USER, escrow_for("deliver"),
          gives=DeliverAnswer, steps=("deliver",), refuses=(no.BalanceTooLarge,),
          says="Deliver, as the seller."),
    Route("POST", f"{_V1}/escrows/{{id}}/reject-delivery", escrows.reject_delivery, _USER,
          escrow_for("reject_delivery"), takes=Reasoned, gives=RejectAnswer,
          steps=("reject_delivery",), says="Send a delivery back, as the buyer."),
    Route("POST", f"{_V1}/escrows/{{id}}/cancel", escrows.cancel, _KEY, escrow_for("cancel"),
          gives=StepAnswer, steps=("cancel",), says="Cancel before payment."),

    Route("POST", f"{_V1}/escrows/{{id}}/sessions", sessions.create, _KEY, ESCROW,
          takes=NewSession, gives=SessionCreated, status=201, clashes=Family.E3,
          refuses=OF_SESSIONS, says="Make a hosted page for one step of one person."),
    Route("GET", f"{_V1}/sessions/{{id}}", sessions.read_one, _KEY, SESSION,
          gives=SessionAnswer, says="Read a checkout session."),

    Route("POST", f"{_V1}/identity-verifications", identity.request, _KEY,
          takes=NewVerification, gives=VerificationMade, status=201,
          also=((200, VerificationAnswer),), refuses=(no.Forbidden, no.IdentityApproved),
          says="Ask who is behind an e-mail."),
    Route("GET", f"{_V1}/identity-verifications", identity.read_list, _KEY,
          asks=VerificationQuery, gives=VerificationList,
          says="Your verifications of an e-mail, newest first."),
    Route("GET", f"{_V1}/identity-verifications/{{id}}", identity.read_one, _KEY, VERIFICATION,
          gives=VerificationRecord, says="Read a verification."),

    *(
        row
        for path in ("/api/developer/signature", "/developer/signature")
        for row in (
            Route("PUT", path, developer.store_signature, _KEY,
                  takes=NewSignature, gives=SignatureStored,
                  body_bytes_max=SIGNATURE_BODY_BYTES_MAX, says="Store your signature."),
            Route("GET", path, developer.read_signature, _KEY,
                  gives=SignatureAnswer, says="Whether a signature is stored."),
        )
    ),
    Route("PUT", "/api/developer/redirect-urls", developer.store_redirect_urls, _KEY,
          takes=RedirectUrls, gives=RedirectUrlsStored,
          says="Set where people may be sent back to."),
    Route("GET", "/api/developer/redirect-urls", developer.read_redirects, _KEY,
          gives=RedirectUrlsAnswer, says="Where people may be sent back to."),

    Route("POST", _WEBHOOKS, webhooks.create, _KEY,
          takes=WebhookCreate, gives=WebhookCreated, status=201, unfit=no.WebhookRefused,
          says="Add a webhook endpoint."),
    Route("GET", _WEBHOOKS, webhooks.read_list, _KEY,
          gives=WebhookList, says="List your webhook endpoints."),
    Route("GET", f"{_WEBHOOKS}/{{id}}", webhooks.read_one, _KEY, ENDPOINT,
          gives=WebhookAnswer, says="Read a webhook endpoint."),
    Route("PUT", f"{_WEBHOOKS}/{{id}}", webhooks.update, _KEY, ENDPOINT,
          takes=WebhookUpdate, gives=WebhookUpdated, unfit=no.WebhookRefused,
          says="Change a webhook endpoint."),
    Route("POST", f"{_WEBHOOKS}/{{id}}/regenerate-secret", webhooks.regenerate_secret, _KEY,
          ENDPOINT, takes=Regenerate, gives=SecretAnswer, unfit=no.WebhookRefused,
          says="Give it a new secret."),
    Route("DELETE", f"{_WEBHOOKS}/{{id}}", webhooks.delete, _KEY, ENDPOINT,
          gives=Gone, says="Delete a webhook endpoint."),

    Route("POST", f"{_WEBHOOKS}/{{id}}/enable", webhooks.enable, _KEY, ENDPOINT,
          gives=WebhookAnswer, says="Send there again, and what was kept for it."),
    Route("POST", f"{_WEBHOOKS}/{{id}}/test", deliveries.send_test, _KEY, ENDPOINT,
          takes=TestEvent, gives=DeliveryAnswer, status=202, unfit=no.WebhookRefused,
          refuses=(no.EndpointDisabled,), says="Send a test event there."),
    Route("GET", f"{_WEBHOOKS}/{{id}}/deliveries", deliveries.read_list, _KEY, ENDPOINT,
          asks=DeliveryQuery, gives=DeliveryList, says="List what was to be delivered there."),
    Route("GET", f"{_WEBHOOKS}/{{id}}/deliveries/{{delivery}}", deliveries.read_one, _KEY,
          DELIVERY, gives=DeliveryInFullAnswer, says="Read a delivery with its attempts."),
    Route("POST", f"{_WEBHOOKS}/{{id}}/deliveries/{{delivery}}/resend", deliveries.resend, _KEY,
          DELIVERY, gives=DeliveryAnswer, status=202,
          refuses=(no.EndpointDisabled, no.BodyNotKept, no.TooManyAttempts,
                   no.DeliverySettling),
          says="Send it once more, now."),
    Route("POST", f"{_WEBHOOKS}/{{id}}/recover", deliveries.recover, _KEY, ENDPOINT,
          takes=Recover, gives=RecoveryAnswer, status=202, unfit=no.WebhookRefused,
          refuses=(no.EndpointDisabled, no.RecoveryUnderWay),
          says="Send in the background what was missed there."),
    Route("GET", f"{_WEBHOOKS}/{{id}}/recoveries", deliveries.read_recoveries, _KEY, ENDPOINT,
          gives=RecoveryList, says="How far recoveries have come."),
    Route("GET", f"{_V1}/events", feed.read_events, _KEY,
          asks=FeedQuery, gives=Feed, refuses=(no.CursorBeyondEnd,),
          says="Pull events, in an order that never changes."),
    Route("GET", f"{_V1}/event-types", feed.read_types, _KEY,
          gives=EventTypes, says="Every type of event with its JSON Schema."),

    Route("GET", "/openapi.json", explorer.read_document, Auth.NONE,
          says="What is served here, as an OpenAPI document."),
    Route("GET", "/docs", explorer.show, Auth.NONE,
          says="The API to look at and to try out."),
    Route("POST", "/payments/notifications/{provider}", payments.notify, Auth.NONE, is_raw=True,
          body_bytes_max=payments.NOTIFICATION_BYTES_MAX,
          refuses=(no.NotificationRefused, no.PaymentNotFound),
          says="What a payment provider tells."),
    *(
        row
        for path in ("/pay/{id}", "/pay/{id}/{session}")
        for row in (
            Route("GET", path, paying.read_one, Auth.NONE, is_page=True,
                  says="How a payment stands, for who pays."),
            Route("POST", path, paying.take, Auth.NONE, is_page=True,
                  body_bytes_max=FORM_BYTES_MAX, says="Prove it, turn away or try again."),
        )
    ),
    Route("GET", "/checkout/{id}", checkout.read, Auth.NONE, is_page=True,
          says="A step that was promised to one person, behind a shop's link."),
    Route("POST", "/checkout/{id}", checkout.take, Auth.NONE, is_page=True,
          body_bytes_max=FORM_BYTES_MAX,
          says="Take the step, or turn away."),
    Route("GET", "/dashboard", dashboard.read_list, Auth.NONE, is_page=True,
          says="A person's escrows, what waits for them first."),
    Route("GET", "/developers", developers.read_home, Auth.NONE, is_page=True,
          says="A developer's endpoints and keys."),
    Route("GET", "/developers/webhooks/{id}", developers.read_endpoint_page, Auth.NONE,
          is_page=True, says="An endpoint, for its developer."),
    Route("POST", "/developers/webhooks/{id}", developers.take_endpoint, Auth.NONE, is_page=True,
          says="What a developer does about an endpoint."),
    Route("GET", "/developers/webhooks/{id}/deliveries/{delivery}",
          developers.read_delivery_page, Auth.NONE, is_page=True,
          says="A delivery, for its developer."),
    Route("POST", "/developers/webhooks/{id}/deliveries/{delivery}", developers.take_delivery,
          Auth.NONE, is_page=True, says="Send a delivery once more."),
    Route("GET", "/dashboard/settings", person_settings.read, Auth.NONE, is_page=True,
          says="What a person has set about themselves."),
    Route("POST", "/dashboard/settings", person_settings.change, Auth.NONE, is_page=True,
          says="Change it, or sign out everywhere."),
    Route("GET", "/dashboard/escrow/{id}", escrow_page.read, Auth.NONE, is_page=True,
          says="An escrow, for its parties."),
    Route("GET", "/dashboard/escrow/{id}/contract", contract_page.read, Auth.NONE, is_page=True,
          says="Its contract, to read and to print."),
    Route("GET", "/dashboard/escrow/{id}/{step}", step_page.read, Auth.NONE, is_page=True,
          says="One step of a party, and what it does."),
    Route("POST", "/dashboard/escrow/{id}/{step}", step_page.take, Auth.NONE, is_page=True,
          body_bytes_max=FORM_BYTES_MAX, says="Take it."),
    Route("GET", "/dashboard/wallet", wallet.read, Auth.NONE, is_page=True,
          says="A person's wallet."),
    Route("POST", "/dashboard/wallet", wallet.take, Auth.NONE, is_page=True,
          says="Put money in, ask for a payout or take it back."),
    Route("GET", "/dashboard/wallet/statement.csv", wallet.export, Auth.NONE, is_page=True,
          says="The wallet's statement as CSV."),
    Route("GET", "/files/{key}", files.show, Auth.NONE, is_page=True,
          says="A file, by a signed link that lives for 15 minutes."),
    Route("GET", "/sign-in", sign_in.show_address, Auth.NONE, is_page=True,
          says="Sign in: the address that a code goes to."),
    Route("POST", "/sign-in", sign_in.take_address, Auth.NONE, is_page=True,
          says="Have a code mailed."),
    Route("GET", "/sign-in/{code}", sign_in.show_code, Auth.NONE, is_page=True,
          says="Sign in: the code."),
    Route("POST", "/sign-in/{code}", sign_in.take_code, Auth.NONE, is_page=True,
          says="Sign in with a code."),
    Route("GET", "/sign-in/{code}/{token}", sign_in.show_link, Auth.NONE, is_page=True,
          says="Sign in: the link of the mail."),
    Route("POST", "/sign-in/{code}/{token}", sign_in.take_link, Auth.NONE, is_page=True,
          says="Sign in by the link."),
    Route("GET", "/sign-out", sign_in.show_out, Auth.NONE, is_page=True,
          says="Ask before signing out."),
    Route("POST", "/sign-out", sign_in.take_out, Auth.NONE, is_page=True, says="Sign out."),
    Route("GET", "/register", registration.show_own, Auth.NONE, is_page=True,
          says="Register whoever has signed in by a code."),
    Route("POST", "/register", registration.take_own, Auth.NONE, is_page=True,
          says="Register, then go on."),
    Route("GET", "/register/{token}", registration.show_invited, Auth.NONE, is_page=True,
          says="What an invitation's link leads to."),
    Route("POST", "/register/{token}", registration.take_invited, Auth.NONE, is_page=True,
          says="Register by an invitation's link."),
    Route("GET", "/identity/{token}", identity_page.show_asked, Auth.NONE, is_page=True,
          says="What the link of an identity verification leads to."),
    Route("POST", "/identity/{token}", identity_page.take_documents, Auth.NONE, is_page=True,
          says="Upload an identity document."),
    Route("GET", "/phone", phone.show_number, Auth.NONE, is_page=True,
          says="Verify a phone: the number."),
    Route("POST", "/phone", phone.take_number, Auth.NONE, is_page=True,
          says="Have a code sent to a phone."),
    Route("GET", "/phone/{code}", phone.show_code, Auth.NONE, is_page=True,
          says="Verify a phone: the code."),
    Route("POST", "/phone/{code}", phone.take_code, Auth.NONE, is_page=True,
          says="Verify a phone with a code."),
    Route("GET", "/static/{name}", static.send, Auth.NONE,
          says="A file of the pages."),
)

# Mounted in the sandbox only.
SANDBOX_ROUTES: tuple[Route, ...] = (
    Route("POST", f"{_SANDBOX}/developers", sandbox.make_developer, _KEY,
          takes=NewDeveloper, gives=DeveloperAnswer, status=201,
          refuses=(no.EmailTaken, no.UserTaken), says="Make another developer."),
    Route("POST", f"{_SANDBOX}/users", sandbox.make_user, _KEY,
          takes=NewUser, gives=UserAnswer, status=201,
          refuses=(no.EmailTaken,), says="Make a user."),
    Route("POST", f"{_SANDBOX}/users/{{email}}/topup", sandbox.top_up, _KEY, USER,
          takes=TopUp, gives=BalanceAnswer, refuses=(no.BalanceTooLarge,),
          says="Credit a wallet."),
    Route("GET", f"{_SANDBOX}/users/{{email}}/balance", sandbox.read_wallet, _KEY, USER,
          asks=BalanceQuery, gives=BalanceAnswer, says="Read a wallet."),
    Route("PUT", f"{_SANDBOX}/association", sandbox.associate, _KEY,
          takes=ByEmail, gives=AssociationAnswer, refuses=(no.UserNotFound, no.UserTaken),
          says="Act as this user."),
    Route("DELETE", f"{_SANDBOX}/association", sandbox.dissociate, _KEY,
          gives=AssociationAnswer, says="Act as nobody."),
    Route("POST", f"{_SANDBOX}/escrows/{{id}}/pay", sandbox.pay, _KEY, ANY_ESCROW,
          takes=ByEmail, gives=EscrowAnswer, steps=("accept_pay",),
          refuses=(no.UserNotRegistered, no.WrongParty, no.PhoneNotVerified,
                   no.InsufficientFunds, no.BalanceTooLarge),
          says="Pay from this user's wallet."),
    Route("POST", f"{_SANDBOX}/escrows/{{id}}/act", sandbox.act, _KEY, ANY_ESCROW,
          takes=Act, gives=EscrowAnswer, steps=tuple(sessions.ACTS),
          refuses=(*OF_DOORS, no.UserNotRegistered, no.FxRateUnavailable, no.InsufficientFunds,
                   no.PhoneNotVerified, no.BalanceTooLarge, no.TermsChanged),
          says="Take a step as this person."),
    Route("POST", f"{_SANDBOX}/sessions/{{id}}/complete", sessions.complete, _KEY, ANY_SESSION,
          takes=SessionEnd, gives=SessionEnded, body_bytes_max=SESSION_BODY_BYTES_MAX,
          refuses=(*OF_DOORS, no.SessionNotPending, no.UserNotRegistered, *OF_STEPS,
                   no.InsufficientFunds, no.PhoneNotVerified, no.AmountChanged,
                   no.TermsChanged,
                   no.BalanceTooLarge, no.NotPayable, no.PaymentUnderWay),
          says="Finish a checkout session without a browser."),
    Route("POST", f"{_SANDBOX}/sessions/{{id}}/cancel", sessions.turn_away, _KEY, ANY_SESSION,
          gives=SessionEnded, refuses=(no.SessionNotPending, no.EscrowFrozen),
          says="Turn away from a checkout session."),
    Route("POST", f"{_SANDBOX}/payments/{{id}}/decide", payments.decide, _KEY, ANY_PAYMENT,
          takes=Decision, gives=PaymentAnswer,
          refuses=(no.PaymentNotOpen, no.EscrowFrozen, no.EscrowCancelled, no.PaymentAlreadyDone,
                   no.NotPayable, no.BalanceTooLarge),
          says="Decide a payment, as the operator."),
    Route("GET", "/sandbox/pay/{reference}", sandbox_pay.show, Auth.NONE, is_page=True,
          says="The page of the sandbox's payment provider."),
    Route("POST", "/sandbox/pay/{reference}", sandbox_pay.press, Auth.NONE, is_page=True,
          says="Press one of its buttons."),
    Route("POST", f"{_SANDBOX}/disputes/{{id}}/resolve", sandbox.resolve_dispute, _KEY, ANY_ESCROW,
          takes=Resolution, gives=EscrowAnswer, steps=("resolve_dispute",),
          refuses=(no.SplitMustEqualHeld, no.BalanceTooLarge),
          says="Settle a dispute, as the operator."),
    Route("POST", f"{_SANDBOX}/proofs/{{id}}/decide", sandbox.decide_proof, _KEY, ANY_ESCROW,
          takes=ProofDecision, gives=EscrowAnswer, steps=("accept_proof", "reject_proof"),
          refuses=(no.BalanceTooLarge,),
          says="Decide a purchase proof, as the operator."),
    Route("POST", f"{_SANDBOX}/register", sandbox.register, _KEY,
          takes=Registration, gives=RegistrationAnswer, status=201,
          refuses=(no.InvitationNotFound, no.EmailTaken),
          says="Follow an invitation's link."),
    Route("GET", f"{_SANDBOX}/mailbox", mailbox.read_mailbox, _KEY,
          asks=MailboxQuery, gives=Mailbox, says="The mails that were sent, newest first."),
    Route("GET", f"{_SANDBOX}/clock", sandbox.read_time, _KEY,
          gives=ClockAnswer, says="Business time."),
    Route("POST", f"{_SANDBOX}/clock/advance", sandbox.advance_clock, _KEY,
          takes=Advance, gives=AdvanceAnswer, refuses=(no.ClockAdvancing,),
          says="Move the clock forward."),
    Route("PUT", f"{_SANDBOX}/fx", sandbox.set_rate, _KEY,
          takes=NewRate, gives=RateAnswer, says="Set an exchange rate."),

    Route("GET", "/mailbox", mailbox_page.show, Auth.NONE,
          asks=MailboxQuery, says="The mailbox as a page, for this machine."),
)
# fmt: on


def routes(policy: Policy) -> tuple[Route, ...]:
    """The rows that this deployment serves."""
    return ROUTES + SANDBOX_ROUTES if policy.is_sandbox else ROUTES
