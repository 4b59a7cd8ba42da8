"""The postman before a real mail server: once each, in races, crashes and refusals."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from service.commands import escrows
from service.commands.mails import open_mailbox, sent
from service.commands.perform import House, tend
from service.gateways.mail import HandOver, Letter, SmtpMailer
from service.rules.aggregate import Escrow
from service.store.mails import claim_mails, read_mail_backlog, read_mail_troubles, settle_mails
from tests.mail_server import MailServer, serving, until
from tests.makers import act, make_buyer, make_escrow, make_shop
from tests.outbox import WORDS
from workers.mails import LETTERS_AT_ONCE, Postman

SENDER = "Amana <no-reply@amana.test>"
NEW = "new@example.org"


@pytest.fixture
def server() -> MailServer:
    return MailServer()


@pytest.fixture
def url(server: MailServer) -> Iterator[str]:
    with serving(server) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def mailer(url: str) -> AsyncIterator[SmtpMailer]:
    opened = SmtpMailer(url, SENDER, offer_seconds=2.0, hand_over_seconds=2.0)
    yield opened
    await opened.close()


async def invited(house: House, email: str = NEW) -> Escrow:
    return await make_escrow(house, await make_shop(house), buyer_email=email)


async def state_of(house: House, recipient: str = NEW) -> tuple[str, int, str | None]:
    row = await house.pool.fetchrow(
        "SELECT state, attempt, last_error FROM mail WHERE recipient = $1", recipient
    )
    assert row is not None
    return row["state"], row["attempt"], row["last_error"]


async def hurry(owner: asyncpg.Connection) -> None:
    """Let the waits of the ladder pass."""
    await owner.execute("UPDATE mail SET visible_at = now() WHERE state = 'pending'")


async def test_a_mail_is_sent_as_its_row_says(house: House, server: MailServer, mailer: SmtpMailer):
    escrow = await invited(house)
    await Postman(house, mailer, WORDS).drain()
    [message] = server.to(NEW)
    [shown] = await open_mailbox(house.pool, WORDS, house.policy, house.vault, NEW)
    assert message["Subject"] == shown.subject
    plain = message.get_body(("plain",))
    assert plain is not None
    assert plain.get_content().splitlines() == shown.text.splitlines()
    assert shown.links[0] in plain.get_content()
    row = await house.pool.fetchrow("SELECT message_id, sent_at FROM mail")
    assert row is not None
    assert message["Message-ID"] == row["message_id"]
    assert row["message_id"].endswith("@amana.test>")
    assert shown.sent_at == row["sent_at"]
    assert escrow.id in shown.text


async def test_two_workers_send_each_mail_once(
    house: House, url: str, server: MailServer, mailer: SmtpMailer
):
    shop = await make_shop(house)
    emails = [f"user{n}@example.org" for n in range(30)]
    for email in emails:
        await make_escrow(house, shop, buyer_email=email)
    other = SmtpMailer(url, SENDER)
    await asyncio.gather(
        Postman(house, mailer, WORDS).drain(), Postman(house, other, WORDS).drain()
    )
    await other.close()
    assert sorted(address for address, _ in server.taken) == sorted(emails)


async def test_a_recipient_refused_for_good_is_not_tried_again_and_is_shown(
    house: House, owner: asyncpg.Connection, server: MailServer, mailer: SmtpMailer
):
    server.refusals[NEW] = "550 no such user"
    escrow = await invited(house)
    postman = Postman(house, mailer, WORDS)
    for _ in range(3):
        await postman.drain()
        await hurry(owner)
    assert await state_of(house) == ("failed", 1, "550 no such user")
    [trouble] = await read_mail_troubles(house.pool, escrow.id)
    assert (trouble.recipient, trouble.state, trouble.attempts) == (NEW, "failed", 1)
    assert (trouble.last_error, trouble.next_attempt_at) == ("550 no such user", None)
    assert await open_mailbox(house.pool, WORDS, house.policy, house.vault) == []
    assert (await read_mail_backlog(house.pool)).failed == 1


async def test_a_recipient_refused_for_now_is_tried_again_until_taken_once(
    house: House, owner: asyncpg.Connection, server: MailServer, mailer: SmtpMailer
):
    server.refusals[NEW] = "450 grey"
    escrow = await invited(house)
    postman = Postman(house, mailer, WORDS)
    await postman.drain()
    await postman.drain()
    assert await state_of(house) == ("pending", 1, "450 grey")
    [trouble] = await read_mail_troubles(house.pool, escrow.id)
    assert trouble.next_attempt_at is not None
    server.refusals.clear()
    await hurry(owner)
    await postman.drain()
    assert await state_of(house) == ("sent", 2, None)
    assert len(server.to(NEW)) == 1
    assert await read_mail_troubles(house.pool, escrow.id) == []


async def test_one_refused_recipient_holds_up_nobody(
    house: House, server: MailServer, mailer: SmtpMailer
):
    server.refusals["bad@example.org"] = "550 no"
    for email in ("bad@example.org", NEW):
        await invited(house, email)
    await Postman(house, mailer, WORDS).drain()
    assert (await state_of(house, "bad@example.org"))[0] == "failed"
    assert (await state_of(house))[0] == "sent"


async def test_while_the_server_is_down_creating_goes_on_and_nothing_is_lost(
    house: House, owner: asyncpg.Connection, server: MailServer
):
    with serving(server) as url:
        port = int(url.rpartition(":")[2])
    mailer = SmtpMailer(url, SENDER)
    postman = Postman(house, mailer, WORDS)
    shop = await make_shop(house)
    started = time.monotonic()
    for n in range(5):
        await make_escrow(house, shop, buyer_email=f"user{n}@example.org")
    assert time.monotonic() - started < 3
    await postman.drain()
    assert server.taken == []
    await hurry(owner)
    with serving(server, port):
        await postman.drain()
        await mailer.close()
    assert sorted(address for address, _ in server.taken) == [
        f"user{n}@example.org" for n in range(5)
    ]


async def test_letters_are_handed_over_one_at_a_time(
    house: House, server: MailServer, mailer: SmtpMailer
):
    server.data_seconds = 0.05
    for n in range(8):
        await invited(house, f"user{n}@example.org")
    await Postman(house, mailer, WORDS).drain()
    assert len(server.taken) == 8
    assert server.most_at_once == 1


async def test_a_slow_recipient_does_not_keep_the_others_waiting(
    house: House, server: MailServer, mailer: SmtpMailer
):
    for n in range(4):
        await invited(house, f"user{n}@example.org")
    server.rcpt_seconds = 0.5
    started = time.monotonic()
    await Postman(house, mailer, WORDS).drain()
    assert len(server.taken) == LETTERS_AT_ONCE == 4
    assert time.monotonic() - started < 1.5


class CrashingMailer:
    """Hands the letter over, and the process is gone before it could be settled."""

    def __init__(self, mailer: SmtpMailer) -> None:
        self.mailer = mailer

    def offered(self, letter: Letter) -> AbstractAsyncContextManager[HandOver]:
        @asynccontextmanager
        async def offer() -> AsyncIterator[HandOver]:
            async with self.mailer.offered(letter) as hand_over:

                async def hand_over_and_die() -> None:
                    await hand_over()
                    raise asyncio.CancelledError

                yield hand_over_and_die

        return offer()

    async def close(self) -> None:
        """Nothing of its own."""


async def test_a_crash_repeats_one_mail_with_the_same_id_and_link(
    house: House, owner: asyncpg.Connection, server: MailServer, mailer: SmtpMailer
):
    await invited(house)
    await Postman(house, CrashingMailer(mailer), WORDS).drain()
    assert await state_of(house) == ("pending", 1, None)
    postman = Postman(house, mailer, WORDS)
    await postman.drain()
    assert len(server.to(NEW)) == 1  # its lease runs on
    await hurry(owner)
    await postman.drain()
    await hurry(owner)
    await postman.drain()
    first, second = server.to(NEW)
    assert first["Message-ID"] == second["Message-ID"]
    assert (
        first.as_string().partition("register/")[2][:43]
        == second.as_string().partition("register/")[2][:43]
    )
    assert await state_of(house) == ("sent", 2, None)


async def test_a_worker_whose_lease_ran_out_settles_nothing(house: House):
    await invited(house)
    late, prompt = uuid4(), uuid4()
    claim = partial(claim_mails, limit=10)
    [mail] = await tend(house, partial(claim, lease=timedelta(milliseconds=1), token=late))
    await asyncio.sleep(0.01)
    [again] = await tend(house, partial(claim, lease=timedelta(seconds=60), token=prompt))
    assert (again.id, again.attempt) == (mail.id, 2)
    settle = partial(settle_mails, settlements=[sent(mail)])
    assert await tend(house, partial(settle, token=late)) == set()
    assert await tend(house, partial(settle, token=prompt)) == {mail.id}
    assert await tend(house, partial(settle, token=prompt)) == set()


async def test_an_invitation_that_was_accepted_meanwhile_is_not_sent(
    house: House, server: MailServer, mailer: SmtpMailer
):
    await invited(house)
    await make_buyer(house, NEW)
    shop = await make_shop(house)
    dropped = await make_escrow(house, shop, buyer_email="other@example.org")
    await act(house, shop.actor, escrows.cancel(dropped.id))
    await Postman(house, mailer, WORDS).drain()
    assert (await state_of(house))[0] == "cancelled"
    assert [message["Subject"] for message in server.to("other@example.org")] == [
        "Cancelled: A camera (100.000 TND)"
    ]
    assert server.to(NEW) == []


async def test_a_mail_that_cannot_be_written_stops_no_other(
    house: House, owner: asyncpg.Connection, server: MailServer, mailer: SmtpMailer
):
    await invited(house)
    await owner.execute("UPDATE mail SET template = 'no_such_template'")
    await invited(house, "fine@example.org")
    with capture_logs() as told:
        await Postman(house, mailer, WORDS).drain()
    state, attempt, error = await state_of(house)
    assert (state, attempt) == ("pending", 1)
    assert error == "this mail could not be written; that is our fault, and it is tried again"
    [line] = [line for line in told if line["event"] == "mail_not_written"]
    assert (line["template"], line["exc_info"]) == ("no_such_template", True)
    assert len(server.to("fine@example.org")) == 1


async def test_closing_lets_the_letter_in_flight_end(
    house: House, server: MailServer, mailer: SmtpMailer
):
    server.data_seconds = 0.5
    for n in range(6):
        await invited(house, f"user{n}@example.org")
    postman = Postman(house, mailer, WORDS)
    running = asyncio.create_task(postman.run())
    await until(lambda: bool(server.taking_now), seconds=3)
    await postman.close(grace_seconds=10)
    await running
    sent_rows = await house.pool.fetchval("SELECT count(*) FROM mail WHERE state = 'sent'")
    assert sent_rows == len(server.taken) == LETTERS_AT_ONCE


async def test_a_running_postman_is_woken_and_polls_when_nobody_rings(
    house: House, server: MailServer, mailer: SmtpMailer
):
    postman = Postman(house, mailer, WORDS)
    running = asyncio.create_task(postman.run())
    await asyncio.sleep(0.1)
    await invited(house)
    postman.wake()
    await until(lambda: bool(server.to(NEW)), seconds=0.8)
    await invited(house, "later@example.org")
    await until(lambda: bool(server.to("later@example.org")), seconds=3)
    await postman.close()
    await running
