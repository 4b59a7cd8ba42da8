"""The SMTP catcher: it takes every mail and keeps the last ones."""

from email import message_from_bytes
from email.message import EmailMessage, Message
from pathlib import Path

import aiosmtplib
import click
import pytest

from service.cli import mailcatcher
from service.cli.mailcatcher import catching
from service.cli.ports import find_free_port


async def send(url: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.com", "b@example.com", subject
    mail.set_content("Bonjour")
    await aiosmtplib.send(mail, hostname="127.0.0.1", port=int(url.rsplit(":", 1)[1]))


def read_mails(folder: Path) -> list[Message]:
    return [message_from_bytes(path.read_bytes()) for path in sorted(folder.glob("*.eml"))]


async def test_a_mail_is_kept_with_its_envelope(tmp_path: Path) -> None:
    with catching(tmp_path / "mail") as url:
        await send(url, "Paid")
    [mail] = read_mails(tmp_path / "mail")
    assert mail["Subject"] == "Paid"
    assert mail["X-Envelope-To"] == "b@example.com"
    assert "Bonjour" in str(mail.get_payload())


async def test_only_the_last_mails_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailcatcher, "KEPT_MAILS", 2)
    with catching(tmp_path) as url:
        for subject in ("one", "two", "three"):
            await send(url, subject)
    assert [mail["Subject"] for mail in read_mails(tmp_path)] == ["two", "three"]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    port = find_free_port()
    with (
        catching(tmp_path, port),
        pytest.raises(click.ClickException, match=f"port {port}"),
        catching(tmp_path, port),
    ):
        pass
