"""Papers: a contract as a PDF, in its language, with fonts of ours.

Law: the same facts give the same bytes. What people typed goes in as data, never as markup, and
keeps its own direction; nothing is read but the fonts and what stands in the paper's own folder.
"""

import base64
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Self

import structlog
import typst

from service.rules.contract import ContractFacts, Party, Signed
from service.rules.images import read_picture
from service.words.catalogue import Catalogue, read_catalogues
from service.words.dates import date_text
from service.words.languages import language_of
from service.words.media import Plain, direction_of, plainly
from service.words.money import amount_text

TEMPLATE = Path(__file__).parent / "templates" / "papers" / "contract.typ"
FONTS = ("FiraGO_Regular", "FiraGO_Bold", "NotoSansSymbols2_Regular")
"""FiraGO has Latin and Arabic in one design; both under the SIL Open Font License."""
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}

UNBROKEN, BREAK_HERE = re.compile(r"\S{50}"), "\u200b"
"""A word that is longer than a line would leave the page."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A signature with its image (a data URI), where it has one."""

    given: Signed
    image: str | None


class Papers:
    """Makes PDFs; its fonts stand in a folder of its own for as long as the process lives."""

    def __init__(self, catalogues: Mapping[str, Catalogue], fonts: Path) -> None:
        self._catalogues = catalogues
        self._fonts = fonts

    @classmethod
    def read(cls, folder: Path) -> Self:
        """With the fonts written into this folder."""
        for name in FONTS:
            font = import_module(f"pymupdf_fonts.{name}")
            (folder / f"{name}.ttf").write_bytes(font.fontbuffer)
        return cls(read_catalogues(), folder)

    def contract(
        self,
        facts: ContractFacts,
        terms: str,
        signatures: Sequence[Drawn],
        fingerprint: str,
        zone: str,
        *,
        is_sandbox: bool,
    ) -> bytes:
        """The contract's PDF; well under a second for the longest terms.

        An image that cannot be drawn is left out; that it was given stands beside it.
        """
        paper = self._paper(facts, terms, fingerprint, zone, is_sandbox=is_sandbox)
        spots = [self._spot(facts, role, signatures, zone) for role in ("seller", "buyer")]
        images = {one.given["role"]: one.image for one in signatures if _is_drawable(one)}
        try:
            return self._set(paper, spots, images)
        except typst.TypstError as unfit:
            if not images:
                raise
            log.warning("signature_not_drawn", contract=facts["contract"], reason=str(unfit)[:200])
            return self._set(paper, spots, {})

    def _set(
        self,
        paper: Mapping[str, object],
        spots: Sequence[Mapping[str, object]],
        images: Mapping[str, str | None],
    ) -> bytes:
        with tempfile.TemporaryDirectory(prefix="amana-paper-") as name:
            folder = Path(name)
            placed = [
                {**spot, "image": _placed(folder, str(spot["who"]), images.get(str(spot["who"])))}
                for spot in spots
            ]
            whole = json.dumps({**paper, "signatures": placed}, ensure_ascii=False)
            (folder / "paper.json").write_text(whole, encoding="utf-8")
            (folder / "paper.typ").write_bytes(TEMPLATE.read_bytes())
            made: bytes = typst.compile(
                folder / "paper.typ",
                root=folder,
                font_paths=[self._fonts],
                ignore_system_fonts=True,
            )
        return made

    def _paper(
        self,
        facts: ContractFacts,
        terms: str,
        fingerprint: str,
        zone: str,
        *,
        is_sandbox: bool,
    ) -> Mapping[str, object]:
        catalogue = self._catalogue(facts)
        say = catalogue.text

        def row(key: str, value: str) -> Mapping[str, object]:
            return {"label": say(f"paper.{key}"), "value": _run(value)}

        def sum_of(key: str, amount: str, currency: str) -> Mapping[str, object]:
            return row(key, amount_text(amount, currency, catalogue.language))

        held = facts["ledger_currency"]
        amounts = [sum_of("amount", facts["amount"], facts["currency"])]
        if facts["currency"] != held:
            amounts += [
                row("rate", f"1 {facts['currency']} = {facts['fx_rate']} {held}"),
                sum_of("held", facts["held"], held),
            ]
        amounts.append(sum_of("escrow_fee", facts["escrow_fee"], held))
        if facts["developer_fee"].strip("0.") != "":
            amounts.append(sum_of("developer_fee", facts["developer_fee"], held))
        amounts.append(sum_of("net", facts["net"], held))
        return {
            "language": facts["language"],
            "direction": catalogue.language.direction,
            "heading": say("paper.heading"),
            "title": _run(facts["title"]),
            "sandbox": say("page.sandbox") if is_sandbox else None,
            "reference": [
                row("reference", facts["escrow"]),
                row("version", f"{facts['version']}"),
                row("issued", date_text(facts["issued_at"], zone, catalogue)),
                row("delivery", str(facts["delivery_days"])),
            ],
            "sections": [
                {
                    "heading": say("paper.parties"),
                    "rows": [
                        row("seller", _named(facts["seller"])),
                        row("buyer", _named(facts["buyer"])),
                    ],
                },
                {"heading": say("paper.amounts"), "rows": amounts},
            ],
            "terms_heading": say("paper.terms"),
            "terms": [_run(line) for line in terms.split("\n")],
            "signatures_heading": say("paper.signatures"),
            "fingerprint_label": say("paper.fingerprint"),
            "fingerprint": fingerprint,
        }

    def _spot(
        self, facts: ContractFacts, role: str, signatures: Sequence[Drawn], zone: str
    ) -> Mapping[str, object]:
        """Where this party has signed, or is still to."""
        catalogue = self._catalogue(facts)
        given = next((one.given for one in signatures if one.given["role"] == role), None)
        if given is None:
            said, name = catalogue.text("paper.not_signed"), None
        else:
            moment = date_text(given["signed_at"], zone, catalogue)
            email = Plain(catalogue.language).figure(given["email"])
            said = catalogue.text("paper.signed").format(moment=moment, email=email)
            name = _run(given["name"]) if given["name"] else None
        return {"who": role, "role": catalogue.text(f"paper.{role}"), "said": said, "name": name}

    def _catalogue(self, facts: ContractFacts) -> Catalogue:
        return self._catalogues[language_of(facts["language"]).code]


def _run(words: str) -> Mapping[str, str]:
    """What somebody typed, without what would turn the text around it."""
    plain = UNBROKEN.sub(lambda long: f"{long[0]}{BREAK_HERE}", plainly(words))
    return {"text": plain, "dir": direction_of(plain)}


def _named(party: Party) -> str:
    return f"{party['name']}, {party['email']}" if party["name"] else party["email"]


def _is_drawable(drawn: Drawn) -> bool:
    """Whether its picture is one, and of a size that may be decoded; the door asks the same."""
    if drawn.image is None:
        return False
    picture = read_picture(base64.b64decode(drawn.image.partition(";base64,")[2]))
    return picture is not None and picture.fits_on_paper


def _placed(folder: Path, who: str, image: str | None) -> str | None:
    """The file of this image in the paper's folder."""
    if image is None:
        return None
    declared, _, content = image.partition(";base64,")
    ending = ENDINGS[declared.removeprefix("data:")]
    path = folder / f"{who}.{ending}"
    path.write_bytes(base64.b64decode(content))
    return path.name
