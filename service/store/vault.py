"""What is sealed before it is stored, and the tokens that are never stored at all.

`AMANA_SECRET_KEY` is `new[,old]`: the first seals and signs, every one of them opens.
Fernet (AES-128-CBC with HMAC-SHA256, from `cryptography`) seals; link tokens are
HMAC-SHA256 over purpose, row and counter, so that a retried mail carries the same link and only
the token's hash is kept.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, MultiFernet

CODE_DIGITS = 6


class Vault:
    """Seals, opens and derives with the operator's keys."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("a vault needs at least one key")
        self._roots = [key.encode() for key in keys]
        self._fernet = MultiFernet([Fernet(_derived(root, "seal")) for root in self._roots])

    def seal(self, secret: str) -> bytes:
        """The secret, encrypted for a `bytea` column."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """The secret that was sealed, under any of the keys."""
        return self._fernet.decrypt(sealed).decode()

    def link_token(self, purpose: str, row_id: str, counter: int = 0) -> str:
        """43 base64url characters (256 bits) that stand for this row in a mailed link."""
        return _token(self._roots[0], purpose, row_id, counter)

    def link_token_for(
        self, token_hash: bytes, purpose: str, row_id: str, counter: int = 0
    ) -> str | None:
        """The token whose hash was stored, under whichever key made it; None if none did."""
        for root in self._roots:
            token = _token(root, purpose, row_id, counter)
            if hmac.compare_digest(hash_token(token), token_hash):
                return token
        return None

    def code(self, purpose: str, row_id: str) -> str:
        """Six digits that stand for this row in a mail or a text message."""
        return _code(self._roots[0], purpose, row_id)

    def is_code(self, given: str, purpose: str, row_id: str) -> bool:
        """Whether these are the row's six digits, under any of the keys; constant time."""
        found = [
            hmac.compare_digest(given.encode(), _code(root, purpose, row_id).encode())
            for root in self._roots
        ]
        return any(found)


def hash_token(token: str) -> bytes:
    """What is stored in place of a token or key: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def _derived(root: bytes, purpose: str) -> bytes:
    digest = hmac.new(root, f"amana/{purpose}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)


def _token(root: bytes, purpose: str, row_id: str, counter: int) -> str:
    digest = hmac.new(
        _derived(root, "link"), f"{purpose}\n{row_id}\n{counter}".encode(), hashlib.sha256
    ).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _code(root: bytes, purpose: str, row_id: str) -> str:
    stands_for = f"{purpose}\n{row_id}".encode()
    digest = hmac.new(_derived(root, "code"), stands_for, hashlib.sha256).digest()
    return f"{int.from_bytes(digest[:16], 'big') % 10**CODE_DIGITS:0{CODE_DIGITS}d}"
