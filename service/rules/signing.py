"""The signatures of a webhook: bytes in, header values out. Sources: webhooks.md 4, escrows.md 7.

Law: the same stored body bytes are signed on every attempt; a secret is text whose UTF-8 bytes are
the key (it looks like hex and is never decoded).
"""

import base64
import hmac
from collections.abc import Sequence


def body_signature(secret: str, body: bytes) -> str:
    """Lower-case hex HMAC-SHA256 of exactly the body: the value of `X-Webhook-Signature`."""
    return hmac.digest(secret.encode(), body, "sha256").hex()


def standard_signature(key: bytes, event_id: str, timestamp_seconds: int, body: bytes) -> str:
    """One `v1,` token of Standard Webhooks over `id.timestamp.body`; time in Unix seconds."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp_seconds, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def standard_signatures(
    secrets: Sequence[str], event_id: str, timestamp_seconds: int, body: bytes
) -> str:
    """The value of `webhook-signature`: one token per live secret, in the order given."""
    return " ".join(
        standard_signature(secret.encode(), event_id, timestamp_seconds, body) for secret in secrets
    )


def standard_secret(secret: str) -> str:
    """The secret in the text form that Standard Webhooks libraries take."""
    return "whsec_" + base64.b64encode(secret.encode()).decode()
