"""A contract on paper: read back as its reader does, as long as it may be, in little memory."""

import io
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import pytest
from pypdf import PdfReader
from pypdf.generic import ContentStream

from service.rules.contract import ContractFacts, Party, Signed
from service.words.papers import Drawn, Papers
from tests.pictures import data_uri, png

MOMENT = "2026-01-31T09:30:00.000Z"
END = {"en": "The end.", "fr": "Fin.", "ar": "انتهى"}
LINES = {
    "en": "The seller delivers <b>one</b> camera & #eval(1) $x$ {{ 7*7 }} [*bold*] \\ كاميرا 📷\n",
    "fr": "Le vendeur livre <i>un</i> appareil, l'objet « tel quel », à Béja. كاميرا 📷\n\tet\n",
    "ar": "يلتزم البائع بتسليم الكاميرا Canon EOS R5 خلال 7 أيام <b>كاملة</b>. 📷\n",
}
LONGEST = {
    code: (line * 200)[: 10_000 - len(END[code]) - 1] + "\n" + END[code]
    for code, line in LINES.items()
}
"""Terms of just 10 000 characters: both directions, emoji, and the markup of pages and papers."""


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    return Papers.read(tmp_path_factory.mktemp("fonts"))


def facts(language: str) -> ContractFacts:
    return ContractFacts(
        escrow="0" * 24,
        contract="1" * 24,
        version=1,
        signing="fully-signed",
        language=language,
        title="Camera",
        amount="1000.000",
        currency="TND",
        fx_rate="1",
        held="1000.000",
        ledger_currency="TND",
        escrow_fee="50.000",
        developer_fee="0.000",
        net="950.000",
        delivery_days=3,
        seller=Party(name="Sami", email="seller@example.org"),
        buyer=Party(name=None, email="buyer@example.org"),
        created_at=MOMENT,
        issued_at=MOMENT,
    )


def printed(
    papers: Papers,
    language: str,
    terms: str,
    *,
    seller: str | None = None,
    buyer: str | None = None,
) -> bytes:
    """The contract, signed by both, with these images."""
    drawn = [
        Drawn(
            Signed(
                role=role,
                method="drawn",
                name=None,
                image_sha256="f" * 64,
                email=f"{role}@example.org",
                signed_at=MOMENT,
            ),
            image,
        )
        for role, image in (("seller", seller), ("buyer", buyer))
    ]
    return papers.contract(facts(language), terms, drawn, "f" * 64, "Africa/Tunis", is_sandbox=True)


@dataclass(frozen=True)
class Glyph:
    """One shape of a font, and the letters that it stands for."""

    shape: tuple[str, int]
    letters: str


def rows_of(pdf: bytes) -> list[list[Glyph]]:
    """Every row of the document as the eye finds it: its shapes from left to right."""
    reader = PdfReader(io.BytesIO(pdf))
    rows: list[list[Glyph]] = []
    for page in reader.pages:
        fonts = {name: _letters(font) for name, font in page["/Resources"]["/Font"].items()}
        placed: dict[float, list[tuple[float, int, Glyph]]] = {}
        font, y, x, left = "", 0.0, 0.0, 0.0
        for operands, operator in ContentStream(page.get_contents(), reader).operations:
            match operator:
                case b"cm":
                    left, y = float(operands[4]), float(operands[5])
                case b"Tf":
                    font = operands[0]
                case b"Tm":
                    x = left + float(operands[4])
                case b"Tj" | b"TJ":
                    row = placed.setdefault(round(y, 1), [])
                    for code in _codes(operands[0]):
                        glyph = Glyph((font, code), fonts[font][code])
                        row.append((x, len(row), glyph))
        rows += [[glyph for *_, glyph in sorted(row, key=itemgetter(0, 1))]
                 for row in placed.values()]  # fmt: skip
    return rows


def _letters(font) -> dict[int, str]:
    """Which letters each shape of this font stands for, as a reader finds and copies them."""
    told = font.get_object()["/ToUnicode"].get_object().get_data().decode()
    return {
        int(code, 16): bytes.fromhex(letters).decode("utf-16-be")
        for code, letters in re.findall(r"^<([0-9A-F]{4})> <([0-9A-F]+)>$", told, re.MULTILINE)
    }


def _codes(shown) -> list[int]:
    """The shapes of one operand: two bytes each; numbers between them are gaps."""
    strings = shown if isinstance(shown, list) else [shown]
    raw = b"".join(one.original_bytes for one in strings if not isinstance(one, int | float))
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


def seen(row: list[Glyph]) -> str:
    """The row's letters from left to right."""
    return "".join(glyph.letters for glyph in row)


def test_an_arabic_row_runs_from_right_to_left_and_what_is_latin_in_it_does_not(papers):
    rows = [seen(row) for row in rows_of(printed(papers, "ar", "دفعت Canon R5 ثم سكت"))]
    assert "تكس مث Canon R5 تعفد" in rows
    rows = [seen(row) for row in rows_of(printed(papers, "en", "He says سكت to us"))]
    assert "He says تكس to us" in rows


def test_an_arabic_letter_takes_its_shape_from_its_place_in_the_word(papers):
    [row] = [row for row in rows_of(printed(papers, "ar", "ببب ب")) if seen(row).strip() == "ب ببب"]
    alone, last, middle, first = (glyph.shape for glyph in row if glyph.letters == "ب")
    assert len({alone, last, middle, first}) == 4
    rows = [[one.letters for one in row] for row in rows_of(printed(papers, "ar", "بلا"))]
    assert ["لا", "ب"] in rows  # lam and alif are one shape


@pytest.mark.parametrize("language", LONGEST)
def test_the_longest_terms_are_on_paper_to_their_last_letter_and_inert(papers, language):
    assert len(LONGEST[language]) == 10_000
    rows = rows_of(printed(papers, language, LONGEST[language]))
    on_paper = Counter("".join(map(seen, rows)))
    agreed = Counter(LONGEST[language])
    unlike = {one for one in agreed if not one.isspace() and on_paper[one] < agreed[one]}
    assert unlike <= set("📷")  # no font of ours has it, and its place is a box
    end = END[language]
    assert (end[::-1] if language == "ar" else end) in map(seen, rows)


def pictures_in(pdf: bytes) -> int:
    """How many pictures are drawn; the mask of one is none."""
    return sum(
        one.get_object()["/Subtype"] == "/Image"
        for page in PdfReader(io.BytesIO(pdf)).pages
        for one in page["/Resources"].get("/XObject", {}).values()
    )


def test_pictures_of_both_sides_are_drawn_and_one_that_is_too_large_is_left_out_alone(papers):
    good, other, large = (data_uri(png(*sides)) for sides in ((3, 2), (2, 3), (1000, 1001)))
    assert pictures_in(printed(papers, "en", "Terms.", seller=good, buyer=other)) == 2
    assert pictures_in(printed(papers, "en", "Terms.", seller=good, buyer=large)) == 1
    assert pictures_in(printed(papers, "en", "Terms.", seller=large, buyer=large)) == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system keeps no peak")
def test_the_longest_terms_with_the_largest_pictures_take_two_seconds_and_200_mib_at_most(tmp_path):
    image = tmp_path / "image"
    image.write_text(data_uri(png(1000, 1000)))
    run = subprocess.run(
        [sys.executable, "-m", "tests.service.words.press", str(image)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    told = json.loads(run.stdout)
    assert told["bytes"] > 50_000
    assert told["seconds"] < 2
    assert told["peak_mib"] < 200
