"""The command `amana`: the list of its verbs, one file a noun."""

import click

from service.cli.balance import balance
from service.cli.check import check
from service.cli.demo import demo
from service.cli.developer import developer
from service.cli.dispute import dispute
from service.cli.docs import docs
from service.cli.fx import fx
from service.cli.identity import identity
from service.cli.key import key
from service.cli.listen import listen
from service.cli.migrate import migrate
from service.cli.payment import payment, payout
from service.cli.proof import proof
from service.cli.serve import serve
from service.cli.unfreeze import unfreeze
from service.cli.up import up
from service.cli.user import user
from service.cli.webhook import webhook
from service.cli.work import work

COMMANDS: tuple[click.Command, ...] = (
    up,
    serve,
    work,
    migrate,
    developer,
    key,
    user,
    fx,
    identity,
    payment,
    payout,
    proof,
    dispute,
    unfreeze,
    check,
    balance,
    webhook,
    listen,
    demo,
    docs,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Amana: a self-hosted escrow service."""


for command in COMMANDS:
    main.add_command(command)
