"""Ed25519, the asymmetric scheme of Standard Webhooks: keys as text, and the `v1a,` token.

A private key is `whsk_` and base64 of its 32-byte seed, a public one `whpk_` and base64 of its 32
bytes. A receiver that has only the public half can verify and never sign. Source: webhooks.md 4.
"""

import base64
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE, PUBLIC = "whsk_", "whpk_"
KEYS_KEPT = 256


def new_private_key() -> str:
    """A new private key, as text."""
    return PRIVATE + base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def is_private_key(secret: str) -> bool:
    """Whether this secret signs by this scheme; a secret of ours for HMAC is hex."""
    return secret.startswith(PRIVATE)


def public_key(private_key: str) -> str:
    """The half that the receiver is given, as text."""
    return PUBLIC + base64.b64encode(_key(private_key).public_key().public_bytes_raw()).decode()


def ed25519_signature(private_key: str, event_id: str, timestamp_seconds: int, body: bytes) -> str:
    """One `v1a,` token over `id.timestamp.body`; time in Unix seconds."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp_seconds, body)
    return "v1a," + base64.b64encode(_key(private_key).sign(signed)).decode()


@lru_cache(
    maxsize=KEYS_KEPT
)  # reading a seed derives the public half, which costs as much as signing
def _key(private_key: str) -> Ed25519PrivateKey:
    seed = base64.b64decode(private_key.removeprefix(PRIVATE), validate=True)
    return Ed25519PrivateKey.from_private_bytes(seed)
