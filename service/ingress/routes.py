"""The one table of routes: what may be asked, by whom, with what, and what is answered."""

from service.ingress.api import account, assurance, escrows, mailbox, sandbox, webhooks
from service.ingress.api.escrows import ESCROW
from service.ingress.api.sandbox import ANY_ESCROW, USER
from service.ingress.api.webhooks import ENDPOINT
from service.ingress.pages import mailbox as mailbox_page
from service.ingress.pages import static
from service.ingress.route import Auth, Route
from service.rules.policy import Policy
from service.wire.account import BalanceAnswer, BalanceQuery, Me
from service.wire.assurance import Assurance
from service.wire.escrows import (
    Creation,
    EscrowAnswer,
    EscrowPage,
    EscrowQuery,
    NewEscrow,
    StepAnswer,
)
from service.wire.mailbox import Mailbox
from service.wire.sandbox import (
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
    RateAnswer,
    Registration,
    RegistrationAnswer,
    TopUp,
    UserAnswer,
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

_KEY, _USER = Auth.KEY, Auth.ASSOCIATED
_V1 = "/api/v1"
_SANDBOX = "/api/v1/sandbox"
_WEBHOOKS = "/api/developer/webhooks"

# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("GET", f"{_V1}/me", account.me, _KEY,
          gives=Me, says="Your key and your account."),
    Route("GET", f"{_V1}/balance", account.read_wallet, _USER,
          asks=BalanceQuery, gives=BalanceAnswer, says="The wallet of your user."),
    Route("GET", f"{_V1}/assurance", assurance.read, _KEY,
          gives=Assurance, says="How the invariants stand, for what is yours."),

    Route("POST", f"{_V1}/escrows", escrows.create, _KEY, screen=escrows.screen,
          takes=NewEscrow, gives=Creation, status=201, says="Open an escrow."),
    Route("GET", f"{_V1}/escrows", escrows.read_list, _USER,
          asks=EscrowQuery, gives=EscrowPage, says="List your escrows, newest first."),
    Route("GET", f"{_V1}/escrows/{{id}}", escrows.read_one, _KEY, ESCROW,
          gives=EscrowAnswer, says="Read an escrow."),
    Route("POST", f"{_V1}/escrows/{{id}}/deliver", escrows.deliver, _USER, ESCROW,
          gives=StepAnswer, says="Deliver, as the seller."),
    Route("POST", f"{_V1}/escrows/{{id}}/cancel", escrows.cancel, _KEY, ESCROW,
          gives=StepAnswer, says="Cancel before payment."),

    Route("POST", _WEBHOOKS, webhooks.create, _KEY,
          takes=WebhookCreate, gives=WebhookCreated, status=201, says="Add a webhook endpoint."),
    Route("GET", _WEBHOOKS, webhooks.read_list, _KEY,
          gives=WebhookList, says="List your webhook endpoints."),
    Route("GET", f"{_WEBHOOKS}/{{id}}", webhooks.read_one, _KEY, ENDPOINT,
          gives=WebhookAnswer, says="Read a webhook endpoint."),
    Route("PUT", f"{_WEBHOOKS}/{{id}}", webhooks.update, _KEY, ENDPOINT,
          takes=WebhookUpdate, gives=WebhookUpdated, says="Change a webhook endpoint."),
    Route("POST", f"{_WEBHOOKS}/{{id}}/regenerate-secret", webhooks.regenerate_secret, _KEY,
          ENDPOINT, takes=Regenerate, gives=SecretAnswer, says="Give it a new secret."),
    Route("DELETE", f"{_WEBHOOKS}/{{id}}", webhooks.delete, _KEY, ENDPOINT,
          gives=Gone, says="Delete a webhook endpoint."),
)

# Mounted in the sandbox only.
SANDBOX_ROUTES: tuple[Route, ...] = (
    Route("POST", f"{_SANDBOX}/developers", sandbox.make_developer, _KEY,
          takes=NewDeveloper, gives=DeveloperAnswer, status=201, says="Make another developer."),
    Route("POST", f"{_SANDBOX}/users", sandbox.make_user, _KEY,
          takes=NewUser, gives=UserAnswer, status=201, says="Make a user."),
    Route("POST", f"{_SANDBOX}/users/{{email}}/topup", sandbox.top_up, _KEY, USER,
          takes=TopUp, gives=BalanceAnswer, says="Credit a wallet."),
    Route("GET", f"{_SANDBOX}/users/{{email}}/balance", sandbox.read_wallet, _KEY, USER,
          asks=BalanceQuery, gives=BalanceAnswer, says="Read a wallet."),
    Route("PUT", f"{_SANDBOX}/association", sandbox.associate, _KEY,
          takes=ByEmail, gives=AssociationAnswer, says="Act as this user."),
    Route("DELETE", f"{_SANDBOX}/association", sandbox.dissociate, _KEY,
          gives=AssociationAnswer, says="Act as nobody."),
    Route("POST", f"{_SANDBOX}/escrows/{{id}}/pay", sandbox.pay, _KEY, ANY_ESCROW,
          takes=ByEmail, gives=EscrowAnswer, says="Pay from this user's wallet."),
    Route("POST", f"{_SANDBOX}/register", sandbox.register, _KEY,
          takes=Registration, gives=RegistrationAnswer, status=201,
          says="Follow an invitation's link."),
    Route("GET", f"{_SANDBOX}/mailbox", mailbox.read_mailbox, _KEY,
          asks=MailboxQuery, gives=Mailbox, says="The mails that were sent, newest first."),
    Route("GET", f"{_SANDBOX}/clock", sandbox.read_time, _KEY,
          gives=ClockAnswer, says="Business time."),
    Route("POST", f"{_SANDBOX}/clock/advance", sandbox.advance_clock, _KEY,
          takes=Advance, gives=AdvanceAnswer, says="Move the clock forward."),
    Route("PUT", f"{_SANDBOX}/fx", sandbox.set_rate, _KEY,
          takes=NewRate, gives=RateAnswer, says="Set an exchange rate."),

    Route("GET", "/mailbox", mailbox_page.show, Auth.NONE,
          asks=MailboxQuery, says="The mailbox as a page, for this machine."),
    Route("GET", "/static/{name}", static.send, Auth.NONE,
          says="A file of the pages."),
)
# fmt: on


def routes(policy: Policy) -> tuple[Route, ...]:
    """The rows that this deployment serves."""
    return ROUTES + SANDBOX_ROUTES if policy.is_sandbox else ROUTES
