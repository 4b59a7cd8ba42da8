"""The event catalogue: derived from the tables, plus what happens beside an escrow."""

from collections.abc import Iterable

from service.rules import escrow, identity, milestone

OF_ENDPOINTS = (
    "endpoint.failing",
    "endpoint.recovered",
    "endpoint.disabled",
    "delivery.exhausted",
    "secret.rotated",
)
OF_IDENTITY = (identity.UPDATED, identity.LINKED)
TEST = "webhook.test"

CATALOGUE = frozenset(
    (
        *(event for row in escrow.STEPS for event in row.events),
        *(event for row in milestone.STEPS for event in row.events),
        *OF_ENDPOINTS,
        *OF_IDENTITY,
    )
)
"""Every type that an endpoint may subscribe to by name."""

WILDCARDS = frozenset({"*"} | {f"{name.split('.')[0]}.*" for name in CATALOGUE})
DEFAULT_SUBSCRIPTION = (escrow.STATUS_UPDATED,)


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the names that are neither in the catalogue nor a wildcard."""
    return [name for name in names if name not in CATALOGUE and name not in WILDCARDS]
