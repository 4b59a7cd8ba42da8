"""SMTP against a real server that refuses, is slow, goes away and comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP

import pytest
import pytest_asyncio
from aiosmtplib import SMTPAuthenticationError
from structlog.testing import capture_logs

from service.gateways.mail import Letter, SandboxMailer, SmtpMailer, composed, failure_of
from service.rules.errors import GatewayFailure
from tests.mail_server import MailServer, serving

SENDER = "Amana <no-reply@amana.test>"


def letter(recipient: str = "ada@example.org", **changes: object) -> Letter:
    written = {
        "recipient": recipient,
        "subject": "Vous avez payé 1 000,000 TND: شعار",
        "text": "Bonjour,\n\n.a line with a dot\nشكر\n",
        "html": "<p>شكر</p>",
        "language": "fr",
        "message_id": "<0123@amana.test>",
        "written_at": datetime(2025, 11, 20, 10, tzinfo=UTC),
    }
    return Letter(**{**written, **changes})  # type: ignore[arg-type]


async def send(mailer: SmtpMailer | SandboxMailer, one: Letter) -> None:
    async with mailer.offered(one) as hand_over:
        await hand_over()


@pytest.fixture
def server() -> MailServer:
    return MailServer()


@pytest.fixture
def url(server: MailServer) -> Iterator[str]:
    with serving(server) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def mailer(url: str) -> AsyncIterator[SmtpMailer]:
    opened = SmtpMailer(url, SENDER, offer_seconds=1.0, hand_over_seconds=1.0)
    yield opened
    await opened.close()


async def test_a_letter_arrives_whole(server: MailServer, mailer: SmtpMailer):
    await send(mailer, letter())
    [message] = server.to("ada@example.org")
    assert message["Subject"] == "Vous avez payé 1 000,000 TND: شعار"
    assert message["From"] == SENDER
    assert message["To"] == "ada@example.org"
    assert message["Message-ID"] == "<0123@amana.test>"
    assert message["Date"] == "Thu, 20 Nov 2025 10:00:00 +0000"
    assert message["Content-Language"] == "fr"
    assert message["Auto-Submitted"] == "auto-generated"
    plain = message.get_body(("plain",))
    html = message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == ["Bonjour,", "", ".a line with a dot", "شكر"]
    assert html.get_content().strip() == "<p>شكر</p>"


async def test_one_connection_carries_many_letters(server: MailServer, mailer: SmtpMailer):
    for n in range(5):
        await send(mailer, letter(f"user{n}@example.org"))
    assert len(server.taken) == 5
    assert server.sessions == 1


async def test_a_recipient_refused_for_good_is_permanent(server: MailServer, mailer: SmtpMailer):
    server.refusals["gone@example.org"] = "550 no such user"
    with pytest.raises(GatewayFailure, match="550 no such user") as refused:
        await send(mailer, letter("gone@example.org"))
    assert refused.value.permanent
    await send(mailer, letter())
    assert len(server.taken) == 1


async def test_a_recipient_refused_for_now_is_temporary(server: MailServer, mailer: SmtpMailer):
    server.refusals["grey@example.org"] = "450 come back later"
    with pytest.raises(GatewayFailure, match="450 come back later") as refused:
        await send(mailer, letter("grey@example.org"))
    assert not refused.value.permanent


@pytest.mark.parametrize(("reply", "permanent"), [("554 spam", True), ("451 busy", False)])
async def test_content_is_refused_as_the_server_says(
    server: MailServer, mailer: SmtpMailer, reply: str, permanent: bool
):
    server.replies.append(reply)
    with pytest.raises(GatewayFailure, match=reply) as refused:
        await send(mailer, letter())
    assert refused.value.permanent is permanent


async def test_a_server_that_is_down_is_a_temporary_failure(mailer: SmtpMailer):
    away = SmtpMailer("smtp://127.0.0.1:1", SENDER)
    with capture_logs() as told, pytest.raises(GatewayFailure) as failed:
        await send(away, letter())
    assert not failed.value.permanent
    assert str(failed.value) == "the mail server could not be reached"
    assert "127.0.0.1" in told[0]["reason"]


def test_what_the_server_says_to_us_is_for_the_log_alone():
    with capture_logs() as told:
        failed = failure_of(SMTPAuthenticationError(535, "no such login: amana@mail-7.internal"))
    assert not failed.permanent
    assert str(failed) == "the mail server takes nothing from us at the moment"
    assert told[0]["reason"] == "535 no such login: amana@mail-7.internal"


async def test_a_slow_server_is_given_up_in_time(server: MailServer, mailer: SmtpMailer):
    server.data_seconds = 3.0
    started = time.monotonic()
    with pytest.raises(GatewayFailure, match="did not answer in time") as failed:
        await send(mailer, letter())
    assert not failed.value.permanent
    assert time.monotonic() - started < 2.5
    server.data_seconds, server.rcpt_seconds = 0.0, 3.0
    with pytest.raises(GatewayFailure, match="did not answer in time"):
        await send(mailer, letter())
    server.rcpt_seconds = 0.0
    await send(mailer, letter())


async def test_a_server_that_never_speaks_is_given_up_in_time():
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    mailer = SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER, offer_seconds=0.5)
    with pytest.raises(GatewayFailure, match="did not answer in time"):
        await send(mailer, letter())
    listening.close()
    await asyncio.sleep(2)


async def test_a_connection_that_the_server_dropped_costs_no_try(server: MailServer):
    with serving(server) as url:
        port = int(url.rpartition(":")[2])
        mailer = SmtpMailer(url, SENDER)
        await send(mailer, letter())
    with serving(server, port):
        await send(mailer, letter("bob@example.org"))
        await mailer.close()
    assert [address for address, _ in server.taken] == ["ada@example.org", "bob@example.org"]


async def test_nothing_is_taken_before_it_is_handed_over(server: MailServer, mailer: SmtpMailer):
    with pytest.raises(ZeroDivisionError):
        async with mailer.offered(letter()):
            raise ZeroDivisionError
    assert server.taken == []


@pytest.mark.parametrize(
    "recipient",
    [
        "ada@example.org\r\nBcc: evil@example.org",
        "ada@example.org, evil@example.org",
        "not-an-address",
        "@example.org",
        "a" * 300 + "@example.org",
        "ada@" + "x" * 70 + ".org",
    ],
)
async def test_what_is_no_address_fails_for_good(
    server: MailServer, mailer: SmtpMailer, recipient: str
):
    with pytest.raises(GatewayFailure) as failed:
        await send(mailer, letter(recipient))
    assert failed.value.permanent
    assert server.taken == []


async def test_a_subject_cannot_add_a_header(mailer: SmtpMailer, server: MailServer):
    with pytest.raises(GatewayFailure) as failed:
        await send(mailer, letter(subject="x\r\nBcc: evil@example.org"))
    assert failed.value.permanent
    assert server.taken == []


async def test_foreign_addresses_are_delivered(server: MailServer, mailer: SmtpMailer):
    await send(mailer, letter("zoé@example.org"))
    await send(mailer, letter("ada@bücher.example"))
    await send(mailer, letter("ada@straße.example"))
    assert [address for address, _ in server.taken] == [
        "zoé@example.org",
        "ada@xn--bcher-kva.example",
        "ada@xn--strae-oqa.example",
    ]


async def test_the_sandbox_takes_what_can_be_written_and_nothing_else():
    await send(SandboxMailer(), letter())
    with pytest.raises(GatewayFailure):
        await send(SandboxMailer(), letter("nobody"))


def test_only_mail_urls_are_taken():
    for url in ("http://host", "smtp://", "host:25"):
        with pytest.raises(ValueError, match="SMTP_URL"):
            SmtpMailer(url, SENDER)


def test_a_letter_is_text_with_html_as_the_alternative():
    message = composed(letter(), SENDER)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    "typed",
    [
        "=?utf-8?q?a=0D=0ABcc:_victim@shop.example=0D=0A=0D=0Ahi?=",
        "=?utf-8?q?a=0ABcc:_victim@shop.example?=",
        "=?utf-8?b?YQ0KQmNjOiB2aWN0aW1Ac2hvcC5leGFtcGxl?=",
        "=?utf-8?q?=00?=",
        "=?bogus?q?x?=",
        "a =?utf-8?q?b?= =?utf-8?q?=0D=0AX:_y?= c",
    ],
)
def test_an_encoded_word_that_somebody_typed_stays_text(typed: str) -> None:
    raw = composed(letter(subject=f"Ali sells you {typed}"), SENDER).as_bytes(policy=SMTP)
    head = raw.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    ours = (
        "From To Subject Date Message-ID Auto-Submitted MIME-Version Content-Type Content-Language"
    )
    assert sorted(names) == sorted(ours.encode().split())
    assert b"\0" not in raw
    assert b"\n" not in head.replace(b"\r\n", b"")
    read = message_from_bytes(raw, policy=SMTP)["Subject"]
    assert str(read).replace("\u2060", "") == f"Ali sells you {typed}"
