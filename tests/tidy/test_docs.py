"""What is generated in docs/ is what the tables say today."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.docs import FOLDER, PAGES
from service.cli.main import main
from service.rules import escrow, events, payment, proof
from service.rules.clocks import CLOCKS
from service.words.languages import LANGUAGES
from service.words.mails import SCRIPTS
from service.words.topics import ESCROW


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `amana docs`"


def test_amana_docs_writes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["docs", "--folder", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    new = tmp_path / "new"
    written = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
    assert written == set(PAGES)
    assert all((tmp_path / "new" / name).read_text() == page() for name, page in PAGES.items())


def test_the_states_show_every_step_clock_and_phase() -> None:
    page = PAGES["states.md"]()
    assert page.count("```mermaid") == len(escrow.MODES) + 5 + len(
        payment.MODES
    )  # the proof, the identity; one milestone, single release, multi release
    for row in payment.STEPS:
        assert row.name in page or row.source == row.target
    for row in escrow.STEPS:
        assert f"`{row.name}`" in page
    for clock in CLOCKS:
        assert f"`{clock.kind}`" in page
    for phase in proof.PHASES:
        assert phase in page


def test_the_events_show_every_type() -> None:
    page = PAGES["events.md"]()
    for name in events.CATALOGUE | events.WILDCARDS:
        assert f"`{name}`" in page


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_mails_show_every_template_and_leave_no_place_open(code: str) -> None:
    page = PAGES[f"mails/{code}.md"]()
    sections = page.split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == list(SCRIPTS)
    for section, script in zip(sections, SCRIPTS.values(), strict=True):
        assert section.count("```text") >= (2 if script.about is ESCROW else 1)
        assert not set("{}") & set(section)
        assert "None" not in section


def test_no_cell_breaks_its_table() -> None:
    for page in PAGES.values():
        for table in page().split("\n\n"):
            rows = [line for line in table.splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1
