"""What the documents say that a test can hold them to."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from service.cli.main import main
from service.rules.signing import standard_secret
from service.settings import Settings
from service.wire.webhooks import delivery_headers

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
SECRET = "ab" * 32


def test_the_readme_stays_short():
    assert len(README.splitlines()) < 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readmes_receiver_verifies_what_we_sign():
    snippet = {}
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, snippet)  # the document's own lines, as a reader would run them
    event_id, body = uuid4(), b'{"title":"Caf\xc3\xa9"}'
    headers = delivery_headers(
        secrets=[SECRET],
        delivery_id=uuid4(),
        event_id=event_id,
        event_type="escrow.created",
        body=body,
        now=datetime.now(UTC),
        custom={},
    )
    secret = standard_secret(SECRET)
    assert snippet["verify_standard"](secret, headers, body) == {"title": "Café"}
    assert snippet["verify_plain"](SECRET, headers, body)
    assert not snippet["verify_plain"](SECRET, headers, body + b" ")
    with pytest.raises(WebhookVerificationError):
        snippet["verify_standard"](secret, headers, body + b" ")


def test_every_command_and_target_that_is_named_exists():
    text = README + OPERATIONS
    named = set(re.findall(r"\bamana ([a-z]+)\b(?=[ `]|$)", "\n".join(code_of(text))))
    assert named <= set(main.commands)
    targets = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(code_of(text))))
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in targets)


def test_every_variable_stands_in_the_operations_manual():
    missing = [name for name in Settings.model_fields if f"`{name.upper()}`" not in OPERATIONS]
    assert missing == []


def code_of(text):
    """What stands in fences, in indented lines and between backquotes."""
    yield from re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    yield from re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)
