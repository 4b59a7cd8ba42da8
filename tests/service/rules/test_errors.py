"""A refusal says what was wrong in one sentence, with its facts in it."""

import inspect
import string
from collections import Counter

import pytest

from service.rules import errors
from service.rules.errors import GatewayFailure, Invalid, Refused, Unavailable

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Refused) and not issubclass(kind, Invalid)
]


def fields(kind: type[Refused]) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(kind.__doc__ or "") if name]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_sentence_is_the_docstring_with_its_facts(kind):
    facts = {name: f"<{name}>" for name in fields(kind)}
    told = str(kind(**facts))
    assert told
    assert "\n" not in told
    assert "{" not in told
    assert all(f"<{name}>" in told for name in facts)
    assert kind(**facts).facts == facts


@pytest.mark.parametrize("kind", [k for k in KINDS if fields(k)], ids=lambda kind: kind.__name__)
def test_a_refusal_without_its_facts_is_a_bug_at_the_place_that_raises(kind):
    with pytest.raises(KeyError):
        kind()


def test_a_code_means_one_thing():
    codes = Counter(kind.code for kind in KINDS if kind.code is not None)
    # Why an escrow is frozen, and why it stays so, are one matter to the caller;
    # so are an amount and a balance that pass the bound of the ledger.
    assert {code for code, count in codes.items() if count > 1} <= {
        "ESCROW_FROZEN",
        "AMOUNT_TOO_LARGE",
    }
    assert all(code == code.upper() and code.replace("_", "").isalpha() for code in codes)


def test_validation_names_every_field_at_once():
    refusal = Invalid({"title": "is required", "amount": "must be greater than 0"})
    assert refusal.details == {"title": "is required", "amount": "must be greater than 0"}
    assert str(refusal) == ("Validation failed: title: is required; amount: must be greater than 0")


def test_a_failing_outside_says_whether_trying_again_helps():
    assert GatewayFailure("mailbox unknown", permanent=True).permanent
    assert not GatewayFailure("busy", permanent=False).permanent
    assert not issubclass(Unavailable, Refused)
    assert not issubclass(GatewayFailure, Refused)
