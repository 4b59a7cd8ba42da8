"""What is sealed is unreadable without a key, and old keys go on opening."""

import re

import pytest
from cryptography.fernet import InvalidToken

from service.store.vault import Vault, hash_token

OLD, NEW = "the-old-key-" * 3, "the-new-key-" * 3


def test_what_is_sealed_opens_again_and_shows_nothing():
    sealed = Vault([NEW]).seal("whsec — صندوق")
    assert b"whsec" not in sealed
    assert Vault([NEW]).open(sealed) == "whsec — صندوق"
    assert Vault([NEW]).seal("same") != Vault([NEW]).seal("same")


def test_an_old_key_still_opens_and_the_new_one_seals():
    sealed = Vault([OLD]).seal("secret")
    turned = Vault([NEW, OLD])
    assert turned.open(sealed) == "secret"
    with pytest.raises(InvalidToken):
        Vault([OLD]).open(turned.seal("secret"))


def test_a_foreign_key_or_a_changed_byte_opens_nothing():
    sealed = Vault([NEW]).seal("secret")
    with pytest.raises(InvalidToken):
        Vault([OLD]).open(sealed)
    with pytest.raises(InvalidToken):
        Vault([NEW]).open(sealed[:-2] + bytes([sealed[-2] ^ 1]) + sealed[-1:])


def test_a_link_is_43_base64url_characters_and_the_same_each_time():
    vault = Vault([NEW])
    token = vault.link_token("invitation", "ab" * 12)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert Vault([NEW]).link_token("invitation", "ab" * 12) == token


def test_another_purpose_row_counter_or_key_is_another_link():
    vault, row = Vault([NEW]), "ab" * 12
    links = {
        vault.link_token("invitation", row),
        vault.link_token("identity", row),
        vault.link_token("invitation", "cd" * 12),
        vault.link_token("invitation", row, 1),
        Vault([OLD]).link_token("invitation", row),
    }
    assert len(links) == 5


def test_a_link_is_found_again_under_whichever_key_made_it():
    row = "ab" * 12
    token = Vault([OLD]).link_token("invitation", row, 2)
    assert Vault([NEW, OLD]).link_token_for(hash_token(token), "invitation", row, 2) == token
    assert Vault([NEW]).link_token_for(hash_token(token), "invitation", row, 2) is None
    assert Vault([OLD]).link_token_for(hash_token(token), "invitation", row, 1) is None


def test_only_the_hash_of_a_token_is_kept():
    assert hash_token("a") != hash_token("b")
    assert len(hash_token("a")) == 32


def test_a_vault_needs_a_key():
    with pytest.raises(ValueError, match="at least one key"):
        Vault([])
