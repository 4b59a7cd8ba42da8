"""What was written to whom, and a worker that sends it to a mail server of the sandbox's."""

from service.commands.mails import open_mailbox
from service.commands.perform import House
from service.gateways.mail import SandboxMailer
from service.rules.aggregate import Escrow
from service.words.mails import Words
from workers.mails import Postman

WORDS = Words.read()


async def mails_of(house: House, escrow: Escrow) -> list[tuple[str, str]]:
    """(template, recipient) of every mail row of the escrow, in the order of writing."""
    rows = await house.pool.fetch(
        "SELECT template, recipient FROM mail WHERE escrow_id = $1 ORDER BY created_at, id",
        escrow.id,
    )
    return [(row["template"], row["recipient"]) for row in rows]


async def send_all(house: House) -> None:
    """A worker sends what is due; the sandbox's own mailer takes it."""
    await Postman(house, SandboxMailer(), WORDS).drain()


async def tokens_of(house: House, email: str) -> list[str]:
    """The tokens in the first links of what this person was sent, oldest first."""
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
    links = [mail.links[0] for mail in reversed(mails)]
    start = f"{house.policy.public_url}/register/"
    return [link.removeprefix(start) for link in links if link.startswith(start)]
