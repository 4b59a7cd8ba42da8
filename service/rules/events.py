"""The event catalogue: derived from the tables, plus what happens beside an escrow."""

from collections.abc import Iterable, Mapping

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


TOLD: Mapping[str, str] = {
    escrow.STATUS_UPDATED: "The escrow's status has changed; `oldStatus` says what it was.",
    "endpoint.failing": "Another endpoint of yours has failed for some time.",
    "endpoint.recovered": "Another endpoint of yours that was failing answers again.",
    "endpoint.disabled": "Another endpoint of yours was disabled; what waits for it is kept.",
    "delivery.exhausted": "A delivery to another endpoint of yours was given up.",
    "secret.rotated": "Another endpoint of yours has a new secret.",
    identity.UPDATED: "An identity verification that you asked for has another status.",
    identity.LINKED: "An identity verification that you asked for belongs to a user now.",
    TEST: "You asked for it: nothing has happened.",
}
"""What a type says, where the rows that send it do not say it in a sentence or two."""


def describe(event_type: str) -> str:
    """What has happened when this type is sent: a sentence of its own, or those of its rows."""
    if event_type in TOLD:
        return TOLD[event_type]
    rows = (row for row in (*escrow.STEPS, *milestone.STEPS) if event_type in row.events)
    return " / ".join(dict.fromkeys(row.says for row in rows))


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the names that are neither in the catalogue nor a wildcard."""
    return [name for name in names if name not in CATALOGUE and name not in WILDCARDS]
