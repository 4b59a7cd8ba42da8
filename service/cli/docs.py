"""`amana docs`: writes what of docs/ says what the tables say. A test holds it equal.

Law: nothing here knows a fact of its own; every line comes from a row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import click

from service.cli import specimens
from service.ingress.openapi import pretty
from service.ingress.routes import routes
from service.rules import escrow, events, identity, milestone, payment, proof
from service.rules.clocks import CLOCKS, Clock
from service.rules.engagement import RELEASE_MODES
from service.rules.escrow import FINAL, FLAGS, MODES
from service.rules.machine import NOWHERE, Movement, Role, Step
from service.rules.policy import Policy
from service.words.languages import LANGUAGES

FOLDER = Path(__file__).resolve().parents[2] / "docs"
GENERATED = (
    "<!-- Written by `amana docs` from service/rules/. Change the tables, not this page. -->"
)
PEOPLE = {Role.CLOCK: "time", Role.SYSTEM: "the house"}
MONEY = {
    Movement.NONE: "",
    Movement.HOLD: "held",
    Movement.RELEASE: "released",
    Movement.REFUND: "refunded",
    Movement.SPLIT: "split",
    Movement.FUND: "held",
    Movement.PAY: "released",
    Movement.DISTRIBUTE: "distributed",
    Movement.WITHDRAW: "withdrawn",
}


def states() -> str:
    """docs/states.md: a diagram a mode, the table of steps, the table of clocks, the proof."""
    return _page(
        "# The life of an escrow",
        GENERATED,
        "A person's step and the clock's are the same row and run through the same command. The"
        " diagrams leave out the steps that stay where they are; the table has them all.",
        *(part for mode in MODES for part in (f"## {_title(mode)}", _diagram(mode))),
        "## Steps",
        _table(
            ("From", "To", "Step", "Who", "Modes", "Money", "Webhooks", "In words"),
            (_step_cells(row) for row in escrow.STEPS if row.name not in FLAGS),
        ),
        "In every state the house may `freeze` an escrow that breaks an invariant, and the operator"
        " may `unfreeze` it; a frozen escrow takes no other step, and its clocks wait.",
        "## Clocks",
        "A clock runs while its row fits the escrow. A dispute pauses all but its own; a pending"
        " request to cancel pauses those that would pay the seller.",
        _table(
            ("In", "Deadline", "Due", "Step", "To", "Modes"),
            (_clock_cells(clock) for clock in CLOCKS),
        ),
        "`acknowledged` is armed by a partner's 2xx, where `autoComplete` is `on_ack`.",
        "## The purchase proof",
        "The phases of a quick escrow with a policy; its status stays `paid` until the gate opens"
        f" ({_listed(f'`{phase}`' for phase in sorted(proof.OPEN_GATE))}).",
        _fence(_arrows(proof.STEPS, proof.TABLE.final)),
        *_milestones(),
        "## Identity verifications",
        "The sandbox approves at once; live, the operator decides. Registering with the e-mail"
        " links the record, however it stands.",
        _fence(_arrows(identity.STEPS, identity.TABLE.final)),
        *_payments(),
    )


def _payments() -> Iterator[str]:
    """The ways of money between the outside and a wallet, a diagram each."""
    yield "## Payments"
    yield (
        "Money that comes for one which is over is a payment of its own, and waits for the"
        " operator."
    )
    for mode in payment.MODES:
        rows = (row for row in payment.STEPS if mode in row.modes)
        yield f"### {mode}"
        yield _fence(_arrows(rows, payment.TABLE.final))


def _milestones() -> Iterator[str]:
    """The milestone family: both release modes, the coupling, one milestone, every step."""
    yield "## Milestone escrows"
    yield (
        "The status follows from the milestones, by the first row that fits. In single release"
        " all milestones are disputed, released and resolved together."
    )
    yield _table(
        ("Status", "In", "When"),
        (
            (row.status, ", ".join(m for m in RELEASE_MODES if m in row.modes), row.says)
            for row in milestone.COUPLING
        ),
    )
    yield "### One milestone"
    yield _fence(_arrows(milestone.MILESTONE_STEPS, milestone.MILESTONE_TABLE.final))
    for mode in RELEASE_MODES:
        yield f"### {mode.capitalize()} release"
        rows = (row for row in milestone.STEPS if mode in row.modes)
        yield _fence(_arrows(rows, milestone.TABLE.final))
    yield "### Steps of milestone escrows"
    yield _table(
        ("From", "To", "Step", "Who", "Release", "Money", "Webhooks", "In words"),
        (
            (*cells[:4], _releases(row), *cells[5:])
            for row in milestone.STEPS
            if row.name not in milestone.FLAGS
            for cells in (_step_cells(row),)
        ),
    )


def _releases(row: Step) -> str:
    return ", ".join(mode for mode in RELEASE_MODES if mode in row.modes)


def catalogue() -> str:
    """docs/events.md: every webhook type, and the steps that send it."""
    rows = sorted((event, *_event_cells(row)) for row in escrow.STEPS for event in row.events)
    of_milestones = sorted(
        (event, *_event_cells(row)[:3], _releases(row))
        for row in milestone.STEPS
        for event in row.events
    )
    return _page(
        "# Webhook events",
        GENERATED,
        "A subscription names types, or one of the wildcards "
        f"{_listed(f'`{name}`' for name in sorted(events.WILDCARDS))}. Without one an endpoint"
        f" hears {_listed(f'`{name}`' for name in events.DEFAULT_SUBSCRIPTION)}.",
        "## Of escrows",
        _table(("Type", "Step", "From", "To", "Modes"), (_code_first(row) for row in rows)),
        "## Of milestone escrows",
        _table(
            ("Type", "Step", "From", "To", "Release"), (_code_first(row) for row in of_milestones)
        ),
        "## Of endpoints",
        _bullets(events.OF_ENDPOINTS),
        "## Of identity verifications",
        _bullets(events.OF_IDENTITY),
        f"`{events.TEST}` is sent on request only and cannot be subscribed to.",
    )


def openapi() -> str:
    """docs/openapi.json: what a sandbox serves at /openapi.json."""
    return pretty(routes(Policy(environment="sandbox")))


PAGES: Mapping[str, Callable[[], str]] = {
    "states.md": states,
    "events.md": catalogue,
    "openapi.json": openapi,
    **{f"mails/{code}.md": partial(specimens.page, code) for code in LANGUAGES},
}
"""File name -> what stands in it."""


@click.command("docs")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    help="Where to write them; the repository's docs/ by default.",
)
def docs(folder: Path) -> None:
    """Write what of docs/ is generated from the tables."""
    for name, page in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page(), encoding="utf-8")
        click.echo(f"wrote {folder / name}")


def _title(mode: str) -> str:
    return "Quick with a purchase proof" if mode == escrow.PROOF else mode.capitalize()


def _diagram(mode: str) -> str:
    return _fence(_arrows((row for row in escrow.STEPS if mode in row.modes), FINAL))


def _arrows(rows: Iterable[Step], final: Iterable[str]) -> Iterator[str]:
    """Mermaid's lines: one arrow a pair of states, with every step that goes that way."""
    ways: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.source != row.target:
            label = f"{row.name} ({_people(row)})"
            ways.setdefault((row.source, row.target), []).append(label)
    for (source, target), labels in ways.items():
        start = "[*]" if source == NOWHERE else source
        yield f"{start} --> {target}: {' / '.join(labels)}"
    reached = {target for _, target in ways}
    yield from (f"{state} --> [*]" for state in sorted(reached & set(final)))


def _step_cells(row: Step) -> tuple[str, ...]:
    return (
        _state(row.source),
        _state(row.target),
        f"`{row.name}`",
        _people(row),
        _modes(row.modes),
        MONEY[row.moves],
        "<br>".join(f"`{event}`" for event in row.events),
        row.says,
    )


def _clock_cells(clock: Clock) -> tuple[str, ...]:
    targets = {
        row.target
        for row in escrow.STEPS
        if (row.name, row.source) == (clock.step, clock.state) and row.modes & clock.modes
    }
    return (
        _state(clock.state),
        f"`{clock.kind}`",
        clock.says,
        f"`{clock.step}`",
        _listed(map(_state, sorted(targets))),
        _modes(clock.modes),
    )


def _event_cells(row: Step) -> tuple[str, ...]:
    return f"`{row.name}`", _state(row.source), _state(row.target), _modes(row.modes)


def _code_first(cells: tuple[str, ...]) -> tuple[str, ...]:
    return (f"`{cells[0]}`", *cells[1:])


def _people(row: Step) -> str:
    return _listed(PEOPLE.get(role, role.value) for role in Role if role in row.who)


def _modes(modes: frozenset[str]) -> str:
    return "all" if modes == set(MODES) else ", ".join(mode for mode in MODES if mode in modes)


def _state(state: str) -> str:
    return "(none)" if state == NOWHERE else state


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _bullets(names: Iterable[str]) -> str:
    return "\n".join(f"- `{name}`" for name in names)


def _fence(lines: Iterable[str]) -> str:
    return "\n".join(("```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _page(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"
