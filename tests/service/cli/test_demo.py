"""`amana demo`: it shows every story, leaves nothing, and fails when anything is missing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from service.cli.demo import Proof, faults
from service.cli.partner import Partner
from service.cli.processes import read_command_line
from service.cli.stories import STORIES
from service.cli.supervisor import find_amana
from service.cli.tale import World

pytestmark = pytest.mark.timeout(150)
LIMIT_SECONDS = 120

# A world in which one story says what does not happen, by a process of its own.
BROKEN = """
from service.cli import demo, moment, tale
tale.PATIENCE_SECONDS = 2.0
async def wrong(world):
    buyer = await world.person("Karim", "Haddad", funds=500)
    wrong = await world.open("Wrong", "A lamp", buyer, mode="instant", amount=10)
    await wrong.close("paid", webhooks=("escrow.created", "escrow.sold"), mails=())
async def right(world):
    buyer = await world.person("Leila", "Mansour", funds=500)
    right = await world.open("Right", "A chair", buyer, mode="instant", amount=10)
    await right.close("pending", webhooks=("escrow.created",), mails=(moment.NAMED,))
demo.STORIES = (wrong, right)
demo.demo()
"""


def environ(folder: Path, **changed: str) -> dict[str, str]:
    """An environment whose temporary folder is the test's own."""
    folder.mkdir()
    return {**os.environ, "TMPDIR": str(folder), **changed}


def children_of(pid: int) -> set[int]:
    """Every process below this one."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, row.split())) for row in found.stdout.splitlines()]
    below = {pid}
    for _ in range(5):
        below |= {child for child, parent in pairs if parent in below}
    return below - {pid}


def test_every_story_is_lived_verified_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    # Choices of a deployment must not reach the world: these would break it.
    given = environ(folder, DATABASE_URL="postgresql://nowhere/x", PLATFORM_FEE_BPS="9000")
    done = subprocess.run(
        [find_amana(), "demo", "--json"], env=given, capture_output=True, text=True,
        timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["proofs"] == {"check": True, "balance": True}
    assert told["verified"] == told["attempts"] > 0
    reached = [one["timeline"] for one in told["escrows"]]
    last = [[moment["state"] for moment in life if moment["state"]][-1] for life in reached]
    assert len(last) == len(STORIES)
    assert set(last) == {"completed", "cancelled", "released", "resolved"}
    assert all({"webhook", "mail"} <= {moment["kind"] for moment in life} for life in reached)
    assert list(folder.iterdir()) == []


def test_a_story_that_does_not_come_true_is_told_and_makes_it_fail(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env=environ(tmp_path / "t"), capture_output=True, text=True,
        timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "amana demo: wrong: no webhook escrow.sold within 2 s" in done.stderr
    assert "amana demo: Wrong: mail unforeseen, to the buyer: New escrow" in done.stderr
    assert "Right" not in done.stderr
    assert "All of it" not in done.stdout


def test_an_interrupt_ends_all_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    with subprocess.Popen(
        [find_amana(), "demo"], env=environ(folder), stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"  # the first story was told
        left = children_of(process.pid)
        assert left
        began_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1
    assert said.endswith("amana demo: it was interrupted\n")
    assert time.monotonic() - began_at < 30
    assert not any(map(read_command_line, left))
    assert list(folder.iterdir()) == []


async def test_a_delivery_that_does_not_verify_is_a_fault_and_so_is_a_run_too_long() -> None:
    async with Partner().listening() as partner, aiohttp.ClientSession() as session:
        world = World(session, "", partner)
        assert list(faults(world, [], 1)) == []
        assert list(faults(world, [], 61)) == ["it took 61 s instead of 60 at most"]
        async with session.post(f"{partner.url}/hook", data=b"{}"):
            [fault] = faults(world, [], 1)
    assert fault.endswith("no secret is known for this path")


def test_a_command_of_ours_that_fails_is_a_fault() -> None:
    world = World(None, "", Partner())  # type: ignore[arg-type]  # nothing is asked
    proofs = [Proof("check", "", holds=False), Proof("balance", "", holds=True)]
    assert list(faults(world, proofs, 1)) == ["amana check fails"]
