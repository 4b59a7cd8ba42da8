"""A worker's own clock is wrong by ten minutes: due times are the database's, nothing is early."""

import random
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import sinking, trading
from tests.chaos.outside import in_turn, says, served
from tests.chaos.world import World, until
from tests.mail_server import MailServer, serving
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SKEW_SECONDS = 600
AHEAD_SECONDS = 8  # how long before its due time a deadline is looked at
PAUSE_SECONDS = 12  # what a receiver asks for
INVITED = "invited@people.example"
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture
def skewed(tmp_path: Path) -> str:
    """The library that makes a program's clock wrong."""
    if COMPILER is None:
        pytest.skip("no C compiler, so no clock of a process can be made wrong")
    library = tmp_path / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.mark.parametrize("skew", [SKEW_SECONDS, -SKEW_SECONDS])
async def test_nothing_fires_early(
    world: World, chance: random.Random, tell: Tell, skewed: str, skew: int
) -> None:
    mails = MailServer(refusals={INVITED: "450 come again"})
    pause = format_datetime(datetime.now(UTC) + timedelta(seconds=PAUSE_SECONDS + 10), usegmt=True)
    with serving(mails) as smtp:
        ingress = await world.serve()
        worker = await world.work(LD_PRELOAD=skewed, SKEW_SECONDS=str(skew), SMTP_URL=smtp)
        async with (
            sinking() as sink,
            served(in_turn(says("500 Oops"), says("200 OK"))) as failing,
            served(in_turn(says("429 Slow down", f"Retry-After: {pause}"), says("200 OK"))) as busy,
            trading(world, chance, lambda: [ingress], sink, endpoints=1) as trade,
        ):
            shop = await make_shop(world.house)
            for one in (failing, busy):
                await make_endpoint(world.house, shop, one.url, events=["escrow.created"])
            asked_at = time.monotonic()
            until_pause = (
                datetime.strptime(pause, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
                - datetime.now(UTC)
            ).total_seconds()
            await make_escrow(world.house, shop)
            escrow_id = await trade.open("Expires", "cancelled")
            await until(lambda: len(sink.heard) == 1)
            wrong = datetime.fromisoformat(worker.said("worker_started")[0]["timestamp"])
            assert abs((wrong - datetime.now(UTC)).total_seconds() - skew) < 60
            due = await world.rows(
                "SELECT due_at FROM deadline WHERE escrow_id = $1 AND kind = 'expiry'", escrow_id
            )
            before = (due[0][0] - timedelta(seconds=AHEAD_SECONDS)).isoformat()
            async with aiohttp.ClientSession(headers=trade.shop.headers) as client:
                url = f"{ingress.url}/api/v1/sandbox/clock/advance"
                async with client.post(url, json={"to": before}) as answer:
                    assert answer.status == 200, await answer.text()
            # The database's clock decides, whatever the worker's says.
            expired = "SELECT FROM escrow WHERE id = $1 AND status = 'cancelled'"
            await until(partial(is_there, world, expired, escrow_id))
            early = await world.rows(
                """SELECT extract(epoch FROM v.recorded_at + c.shift - d.due_at)::float8,
                          extract(epoch FROM d.fired_at - d.due_at)::float8
                   FROM event v CROSS JOIN clock c JOIN deadline d ON d.escrow_id = v.subject_id
                   WHERE v.subject_id = $1 AND v.step = 'cancel' AND d.kind = 'expiry'""",
                escrow_id,
            )
            assert all(late >= 0 for late in early[0])
            await make_escrow(world.house, await make_shop(world.house), buyer_email=INVITED)
            await until(partial(is_there, world, "SELECT FROM mail WHERE last_error LIKE '450%'"))
            mails.refusals.clear()
            await until(lambda: len(failing.asked_at) == 2 and len(busy.asked_at) == 2)
            await until(lambda: mails.to(INVITED))
            await until(world.is_quiet)
            taken = """SELECT extract(epoch FROM sent_at - created_at)::float8 FROM mail
                       WHERE recipient = $1"""
            [(mailed,)] = await world.rows(taken, INVITED)
            assert mailed >= 8  # 10 s less a fifth
            retried = failing.asked_at[1] - failing.asked_at[0]
            paused = busy.asked_at[1] - asked_at
            assert retried >= 4  # 5 s less a fifth
            assert paused >= until_pause - 1
            assert all(abs(seconds) < 60 for seconds in sink.off_seconds)
            tell(
                skew=skew,
                deadline_late_seconds=early[0][0],
                retry_after_seconds=retried,
                asked_to_wait=until_pause,
                waited=paused,
                mailed_after_seconds=mailed,
                timestamps_off_by_at_most=max(map(abs, sink.off_seconds)),
            )
            await trade.kept()
    await world.sound()


async def is_there(world: World, query: str, *args: object) -> bool:
    return bool(await world.rows(query, *args))
