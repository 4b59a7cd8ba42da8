"""The payment providers of a deployment, opened by its mains."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from service.gateways.payments.provider import PaymentProvider
from service.gateways.payments.sandbox import ChargeBook, SandboxProvider
from service.gateways.payments.stripe import StripeProvider
from service.rules.payment import SANDBOX, STRIPE


def open_providers(
    names: Sequence[str],
    *,
    book: ChargeBook,
    secret_keys: Sequence[str],
    public_url: str,
    stripe_secret_key: str | None,
    stripe_webhook_secrets: Sequence[str],
    stripe_api_base: str | None,
) -> Mapping[str, PaymentProvider]:
    """Those of these names that are asked by machine; each is closed by whoever opened it."""
    opened: dict[str, PaymentProvider] = {}
    if SANDBOX in names:
        opened[SANDBOX] = SandboxProvider(book, secret_keys, public_url, lambda: datetime.now(UTC))
    if STRIPE in names and stripe_secret_key:
        opened[STRIPE] = StripeProvider(
            stripe_secret_key, stripe_webhook_secrets, api_base=stripe_api_base
        )
    return opened
