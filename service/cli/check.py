"""`amana check`: every invariant asked in full; exit code 1 on a breach."""

import sys
from collections.abc import Sequence

import click
from tqdm import tqdm

from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.checks import check_all
from service.settings import Settings
from service.store.checks import EVENTS_A_SEAL, Head, Result, read_head


@click.command("check")
@verb
async def check(settings: Settings) -> Answer:
    """Ask every invariant of everything; print each one, its breaches and the chain's head."""
    async with open_house(settings) as house:
        with tqdm(leave=False, disable=not sys.stderr.isatty()) as bar:

            def show(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            results = await check_all(house, show)
        head = await read_head(house.pool)
    is_ok = all(result.ok for result in results)
    return Answer(_text(results, head), _facts(results, head), exit_code=0 if is_ok else 1)


def _text(results: Sequence[Result], head: Head | None) -> str:
    lines = []
    for result in results:
        lines.append(f"{'✓' if result.ok else '✗'} {result.id}  {result.name}")
        lines += [f"     {breach.subject}: {breach.says}" for breach in result.breaches]
    if head is None:
        lines.append(f"chain: no seal yet, the first comes after {EVENTS_A_SEAL} events")
    else:
        lines.append(f"chain: seal {head.number} {head.digest.hex()} of {head.sealed_at}")
    return "\n".join(lines)


def _facts(results: Sequence[Result], head: Head | None) -> object:
    return {
        "ok": all(result.ok for result in results),
        "invariants": [
            {
                "id": result.id,
                "name": result.name,
                "ok": result.ok,
                "breaches": [
                    {"subject": b.subject, "escrowId": b.escrow_id, "says": b.says}
                    for b in result.breaches
                ],
            }
            for result in results
        ],
        "head": {"number": head.number, "digest": head.digest.hex(), "sealedAt": head.sealed_at}
        if head
        else None,
    }
