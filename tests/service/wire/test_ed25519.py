"""Ed25519 signatures: a published vector, and what the public half alone can tell."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.wire.ed25519 import (
    ed25519_signature,
    is_private_key,
    new_private_key,
    public_key,
)

# RFC 8032, 7.1, test 1: the seed and the public key that belongs to it.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = "whsk_" + base64.b64encode(SEED).decode()
BODY = '{"id":"1","data":{"title":"قلم"}}'.encode()


def verify(public: str, token: str, signed: bytes) -> None:
    raw = base64.b64decode(public.removeprefix("whpk_"))
    version, _, signature = token.partition(",")
    assert version == "v1a"
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(signature), signed)


def test_the_public_half_is_that_of_the_published_vector() -> None:
    assert public_key(KEY) == "whpk_" + base64.b64encode(PUBLIC).decode()


def test_a_signature_is_over_id_timestamp_and_body() -> None:
    token = ed25519_signature(KEY, "msg", 1614265330, BODY)
    verify(public_key(KEY), token, b"msg.1614265330." + BODY)
    for other in (b"msg.1614265331." + BODY, b"msh.1614265330." + BODY, b"msg.1614265330.{}"):
        with pytest.raises(InvalidSignature):
            verify(public_key(KEY), token, other)


def test_a_new_key_is_another_one_and_known_from_a_secret() -> None:
    keys = {new_private_key() for _ in range(5)}
    assert len(keys) == 5
    for key in keys:
        assert is_private_key(key)
        token = ed25519_signature(key, "msg", 1, BODY)
        verify(public_key(key), token, b"msg.1." + BODY)
        with pytest.raises(InvalidSignature):
            verify(public_key(KEY), token, b"msg.1." + BODY)
    assert not is_private_key("5f" * 32)
