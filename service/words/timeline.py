"""The life of an escrow as a row of stations: done, now, next, each with its time.

Pages and mails show the same one; how it looks is the template's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.words.facts import EscrowFacts, Times

STATIONS: Mapping[str, tuple[str, ...]] = {
    "standard": ("created", "paid", "delivered", "completed"),
    "quick": ("created", "paid", "delivered", "completed"),
    "instant": ("created", "paid", "completed"),
}
REACHED_AT = {
    "created": "created_at",
    "paid": "paid_at",
    "delivered": "delivered_at",
    "completed": "completed_at",
    "cancelled": "cancelled_at",
    "disputed": "disputed_at",
}
DUE_AT = {
    "paid": "expires_at",
    "delivered": "delivery_due_at",
    "completed": "completion_due_at",
}


@dataclass(frozen=True, slots=True)
class Station:
    """`state` is done, now or next; `instant` is when it was reached, or with `due` by when.

    `paused`: its clock stands still, and nobody knows by when.
    """

    name: str
    state: str
    instant: str | None
    due: bool
    paused: bool = False


def timeline_of(facts: EscrowFacts) -> list[Station]:
    """The stations of this escrow in order; one that was cancelled ends there.

    While it is disputed that is where it stands, and what lies ahead has no time.
    """
    times, names = facts["times"], STATIONS.get(facts["mode"], STATIONS["standard"])
    done = [
        Station(name, "done", _time(times, REACHED_AT[name]), due=False)
        for name in names
        if _time(times, REACHED_AT[name])
    ]
    if facts["status"] == "cancelled":
        return [*done, Station("cancelled", "done", _time(times, "cancelled_at"), due=False)]
    ahead = names[len(done) :]
    if facts["status"] == "disputed":
        dispute = Station("disputed", "now", _time(times, "disputed_at"), due=False)
        return [*done, dispute, *(Station(name, "next", None, due=False) for name in ahead)]
    return [*done, *_ahead(facts, ahead)]


def _ahead(facts: EscrowFacts, names: tuple[str, ...]) -> list[Station]:
    # Only the nearest station has a time: the others' depend on when it is reached.
    stations = []
    for place, name in enumerate(names):
        key = (
            "delivery_due_at"
            if facts["mode"] == "instant" and name == "completed"
            else DUE_AT[name]
        )
        instant = _time(facts["times"], key) if place == 0 else None
        paused = place == 0 and key in facts.get("paused", ())
        state = "next" if place else "now"
        stations.append(Station(name, state, instant, due=instant is not None, paused=paused))
    return stations


def _time(times: Times, key: str) -> str | None:
    instant = times.get(key)
    return instant if isinstance(instant, str) else None
