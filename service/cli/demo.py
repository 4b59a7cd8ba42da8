"""`amana demo`: a throw-away world in which each kind of escrow is lived once, and proven.

Real processes on free ports, real doors, a partner that verifies every signature; then the
invariants and the trial balance. Whatever is missing makes the exit code 1. Nothing is left.
"""

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import click

from service.cli.moment import Moment, Unexpected
from service.cli.partner import Partner
from service.cli.ports import find_free_run
from service.cli.stories import STORIES
from service.cli.supervisor import Kept, find_amana
from service.cli.tale import Tale, World, complaints_of
from service.cli.up import decide, everything, interruptible
from service.cli.verb import one_line
from service.settings import Settings

SECONDS_AT_MOST = 60
COMMAND_TIMEOUT_SECONDS = 30
CALLS_PER_MINUTE = "1000"  # weeks of a shop are lived in seconds, from one address
TOLD = {"webhook": "✓ webhook  ", "mail": "✉ mail     "}


@dataclass(frozen=True)
class Proof:
    """What one of our own commands said of the world at its end."""

    command: str
    said: str
    holds: bool


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def demo(as_json: bool) -> None:  # noqa: FBT001 - click passes it by name
    """Live one life of each kind in a throw-away world; fail if anything is missing."""
    began_at = time.monotonic()
    programs: list[Kept] = []
    wrong: list[str] = ["it was interrupted"]
    with one_line(), interruptible(programs), tempfile.TemporaryDirectory(prefix="amana-") as made:
        folder = Path(made)
        folder.chmod(0o711)  # the database may run as nobody: it must get through, not look around
        port = find_free_run(3)
        with everything(decide(own_environ(), port), folder / "var", port, 1, programs) as running:
            world = asyncio.run(live(port, running.key or "", keep_still if as_json else tell))
            proofs = [prove("check", folder / "var"), prove("balance", folder / "var")]
        wrong = list(faults(world, proofs, time.monotonic() - began_at))
        click.echo(as_report(world, proofs, wrong) if as_json else in_the_end(world, proofs))
    for fault in wrong:
        click.echo(f"amana demo: {fault}", err=True)
    if wrong:
        raise click.exceptions.Exit(1)
    if not as_json:
        seconds = time.monotonic() - began_at
        click.echo(f"All of it was as it should be, in {seconds:.1f} s; nothing is left of it.")


def own_environ() -> dict[str, str]:
    """Return the environment without any choice of a deployment's: the world is its own."""
    kept = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    return {**kept, "LOG_LEVEL": "error", "RATE_LIMIT_PER_MINUTE": CALLS_PER_MINUTE}


async def live(port: int, key: str, show: Callable[[Tale], None]) -> World:
    """Live every story in turn and show each; then look again for what should not have come."""
    async with (
        Partner().listening() as partner,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
    ):
        world = World(session, key, partner)
        await world.subscribe()
        for story in STORIES:
            lived = len(world.tales)
            try:
                await story(world)
            except (Unexpected, aiohttp.ClientError, TimeoutError) as failure:
                world.complaints.append(f"{story.__name__}: {failure}")
            for tale in world.tales[lived:]:
                with suppress(Unexpected, aiohttp.ClientError, TimeoutError):
                    await tale.write_down()
                show(tale)
        for tale in world.tales:
            await tale.recheck()
    return world


def prove(command: str, data_dir: Path) -> Proof:
    """Have one of our commands look at the world that runs in this folder."""
    done = subprocess.run(
        [find_amana(), command, "--data-dir", str(data_dir)],
        env=own_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )
    return Proof(command, (done.stdout + done.stderr).strip(), done.returncode == 0)


def faults(world: World, proofs: Sequence[Proof], seconds: float) -> Iterator[str]:
    """Everything that is not as it should be."""
    yield from world.complaints
    for tale in world.tales:
        yield from (f"{tale.title}: {complaint}" for complaint in tale.complaints)
    yield from complaints_of(world.partner)
    yield from (f"amana {proof.command} fails" for proof in proofs if not proof.holds)
    if seconds > SECONDS_AT_MOST:
        yield f"it took {seconds:.0f} s instead of {SECONDS_AT_MOST} at most"


# ---- What is shown -------------------------------------------------------------------------------


def keep_still(_: Tale) -> None:
    """Print nothing yet."""


def tell(tale: Tale) -> None:
    """Print one escrow's timeline."""
    escrow = tale.escrow
    sum_of_it = f"{escrow['amount']} {escrow['currency']}"
    click.echo(f"\n{tale.title}: {escrow['title']} for {sum_of_it}, escrow {tale.id}")
    before: datetime | None = None
    for moment in sorted(tale.moments, key=lambda one: one.at):
        if before is None or before.date() != moment.at.date():
            leap = f", {ahead(moment.at - before)} later" if before else ""
            click.echo(f"  {moment.at:%Y-%m-%d}{leap}")
        before = moment.at
        click.echo(f"  {moment.at:%H:%M:%S.%f}"[:-3] + f"  {line(moment)}")
    for side, change in tale.money.items():
        click.echo(f"  the {side}'s wallet: {change:+} {tale.currency}")
    for complaint in tale.complaints:
        click.echo(f"  MISSING: {complaint}")


def line(moment: Moment) -> str:
    """Return a moment as it stands beside its time: states on the rail, what was told beside it."""
    if moment.kind in TOLD:
        return f"│   {TOLD[moment.kind]}{moment.says}"
    return f"{'●' if moment.state else '│'} {moment.state:<11}  {moment.says}"


def ahead(time_passed: timedelta) -> str:
    """Return a leap of the clock in words."""
    days = round(time_passed / timedelta(days=1))
    return f"{days} day{'s' if days != 1 else ''}"


def in_the_end(world: World, proofs: Sequence[Proof]) -> str:
    """Return the summary: what was verified, and what our own commands say."""
    attempts, accepted = len(world.partner.received), len(world.partner.accepted)
    verified = sum(one.is_verified for one in world.partner.received)
    told = [
        f"\n{len(world.tales)} escrows. {accepted} webhooks accepted in {attempts} attempts;"
        f" {verified} of {attempts} verified, by standardwebhooks and by plain HMAC-SHA256."
        f" {sum(one.kind == 'mail' for tale in world.tales for one in tale.moments)} mails sent.",
    ]
    told += [f"\n$ amana {proof.command}\n{proof.said}" for proof in proofs]
    return "\n".join(told)


def as_report(world: World, proofs: Sequence[Proof], wrong: Sequence[str]) -> str:
    """Return the whole of it as JSON."""
    return json.dumps(
        {
            "escrows": [
                {
                    "id": tale.id,
                    "title": tale.title,
                    "timeline": [
                        {"at": one.at, "kind": one.kind, "state": one.state, "says": one.says}
                        for one in sorted(tale.moments, key=lambda one: one.at)
                    ],
                    "wallets": tale.money,
                }
                for tale in world.tales
            ],
            "attempts": len(world.partner.received),
            "verified": sum(one.is_verified for one in world.partner.received),
            "proofs": {proof.command: proof.holds for proof in proofs},
            "wrong": list(wrong),
        },
        default=plain,
    )


def plain(value: object) -> str:
    """Return a moment or an amount as JSON's text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
