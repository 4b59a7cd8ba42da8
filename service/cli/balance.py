"""`amana balance`: the trial balance; exit code 1 where a currency does not sum to zero."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import click

from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.rules.money import to_decimal
from service.settings import Settings
from service.store.ledger import TrialLine, read_trial_balance


@click.command("balance")
@verb
async def balance(settings: Settings) -> Answer:
    """Print what every kind of account holds; each currency sums to zero."""
    async with open_house(settings) as house:
        lines = await read_trial_balance(house.pool)
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        sums[line.currency] += line.balance_minor
    facts = {
        "accounts": [
            {
                "kind": line.kind,
                "currency": line.currency,
                "accounts": line.accounts,
                "balance": _amount(line.balance_minor, line.currency),
            }
            for line in lines
        ],
        "sums": {currency: _amount(minor, currency) for currency, minor in sums.items()},
    }
    return Answer(_table(lines, sums), facts, exit_code=1 if any(sums.values()) else 0)


def _table(lines: Sequence[TrialLine], sums: Mapping[str, int]) -> str:
    if not lines:
        return "there are no accounts yet"
    table = []
    for currency, total in sums.items():
        table += [
            f"{line.kind:<14} {line.accounts:>9} {_amount(line.balance_minor, currency):>22}"
            f" {currency}"
            for line in lines
            if line.currency == currency
        ]
        table.append(f"{'sum':<14} {'':>9} {_amount(total, currency):>22} {currency}")
    return "\n".join([f"{'account':<14} {'how many':>9} {'balance':>22}", *table])


def _amount(minor: int, currency: str) -> str:
    return format(to_decimal(minor, currency), "f")
