"""Contracts' documents: one PDF for each state of the signatures, read back as a reader would."""

import asyncio
import hashlib
import io
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from pypdf import PdfReader

from service.commands import contracts, developers, papers
from service.commands.amendments import Changes, update
from service.commands.contracts import TYPED, Mark, read_contract
from service.commands.perform import House
from service.gateways.files import open_storage
from service.rules.contract import fingerprint
from service.rules.errors import GatewayFailure
from service.store.files import read_files
from service.store.vault import Vault
from tests.books import assert_sound
from tests.makers import act, arrange, make_buyer, make_escrow, make_shop, reread
from tests.pictures import data_uri, png
from workers import papers as printing
from workers import retention
from workers.papers import Printer

TERMS = "The seller delivers <b>one</b> camera. #eval(1) $x$\n\nيلتزم البائع بالتسليم خلال 7 أيام."


@pytest.fixture(autouse=True)
async def sound(house: House):
    """Whatever was printed, the books balance."""
    yield
    await assert_sound(house)


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"file://{tmp_path}")


@pytest.fixture
def printer(house: House, storage, tmp_path_factory):
    return Printer(house, storage, tmp_path_factory.mktemp("fonts"))


@pytest.fixture
async def shop(house: House):
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House):
    return await make_buyer(house)


async def made(house, shop, buyer, **changes):
    changes = {"mode": "standard", "contract_terms": TERMS, **changes}
    return await make_escrow(house, shop, buyer, **changes)


async def rows(house):
    return await house.pool.fetch(
        "SELECT version, signing, fingerprint, file_key, tries FROM paper"
        " ORDER BY created_at, signing"
    )


async def read_back(house, storage, key):
    """The PDF as a reader opens it; its bytes are what the file's row says."""
    whole = b"".join([chunk async for chunk in storage.get(key)])
    row = (await read_files(house.pool, [key]))[key]
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (row.bytes, row.sha256)
    return PdfReader(io.BytesIO(whole))


def text_of(pdf):
    return "\n".join(page.extract_text() for page in pdf.pages)


async def test_a_new_contract_is_printed_unsigned_with_its_terms_inert_and_its_fingerprint(
    house, shop, buyer, storage, printer
):
    escrow = await made(house, shop, buyer, amount=Decimal("1250.5"), title="A camera")
    assert (await read_contract(house, escrow)).contract.pdf_url is None
    await printer.turn()
    [row] = await rows(house)
    assert (row["version"], row["signing"], row["tries"]) == (1, "unsigned", 1)
    pdf = await read_back(house, storage, row["file_key"])
    said = text_of(pdf)
    for words in ("A camera", "1,250.500 TND", "62.525 TND", "1,187.975 TND", escrow.id,
                  "<b>one</b> camera. #eval(1) $x$", buyer.email, "Not signed yet"):  # fmt: skip
        assert words in said
    assert row["fingerprint"] in said.replace("\n", "")
    contract = (await read_contract(house, escrow)).contract
    assert [(one.type, one.mime_type) for one in contract.pdf_versions] == [
        ("unsigned", "application/pdf")
    ]
    assert contract.pdf_url == contract.pdf_versions[0].url
    assert f"/files/{row['file_key']}?" in contract.pdf_url


async def test_each_state_of_the_signatures_has_its_own_document(
    house, shop, buyer, storage, printer
):
    escrow = await made(house, shop, buyer)
    await act(house, buyer.actor, contracts.sign(escrow.id, Mark(TYPED, name="Bo Yahia")))
    await act(house, shop.actor, contracts.sign(escrow.id, Mark(TYPED, name="Sami <i>B</i>")))
    await printer.turn()
    found = {row["signing"]: row for row in await rows(house)}
    assert set(found) == {"unsigned", "buyer-signed", "fully-signed"}
    assert len({row["fingerprint"] for row in found.values()}) == 3
    said = {
        signing: text_of(await read_back(house, storage, row["file_key"]))
        for signing, row in found.items()
    }
    assert "Bo Yahia" not in said["unsigned"]
    assert "Bo Yahia" in said["buyer-signed"]
    assert "Sami <i>B</i>" not in said["buyer-signed"]
    assert "Bo Yahia" in said["fully-signed"]
    assert "Sami <i>B</i>" in said["fully-signed"]
    versions = (await read_contract(house, await reread(house, escrow.id))).contract.pdf_versions
    assert [one.type for one in versions] == ["unsigned", "buyer-signed", "fully-signed"]


async def test_other_terms_are_another_version_and_what_was_not_printed_yet_is_dropped(
    house, shop, buyer, storage, printer
):
    escrow = await made(house, shop, buyer)
    await act(house, shop.actor, update(escrow.id, Changes(contract_terms="Other terms.")))
    await printer.turn()
    assert [(row["version"], row["signing"]) for row in await rows(house)] == [(2, "unsigned")]
    [row] = await rows(house)
    assert "Other terms." in text_of(await read_back(house, storage, row["file_key"]))


async def test_a_new_title_is_printed_anew_and_a_new_description_is_not(
    house, shop, buyer, storage, printer
):
    escrow = await made(house, shop, buyer, title="Old title")
    await printer.turn()
    [first] = await rows(house)
    await act(house, shop.actor, update(escrow.id, Changes(description="It has a box.")))
    await printer.turn()
    assert await rows(house) == [first]
    await act(house, shop.actor, update(escrow.id, Changes(title="New title")))
    await printer.turn()
    [second] = await rows(house)
    assert second["file_key"] != first["file_key"]
    assert "New title" in text_of(await read_back(house, storage, second["file_key"]))
    assert await read_files(house.pool, [first["file_key"]]) == {}


async def test_a_document_that_is_replaced_leaves_no_file_in_the_store(
    house, shop, buyer, storage, printer, monkeypatch
):
    escrow = await made(house, shop, buyer, title="Old title")
    await printer.turn()
    [first] = await rows(house)
    await act(house, shop.actor, update(escrow.id, Changes(title="New title")))
    monkeypatch.setattr(retention, "ORPHAN_AFTER", timedelta(0))
    await retention.remove_orphans(house, storage)
    await printer.turn()
    assert [file.key async for page in storage.list() for file in page] == [
        row["file_key"] for row in await rows(house) if row["file_key"] != first["file_key"]
    ]


async def test_a_title_that_changes_while_the_document_is_kept_leaves_one_file(
    house, shop, buyer, storage, printer
):
    escrow = await made(house, shop, buyer, title="Title 0")
    for number in range(1, 6):
        rename = update(escrow.id, Changes(title=f"Title {number}"))
        await asyncio.gather(printer.turn(), act(house, shop.actor, rename))
    await printer.turn()
    [row] = await rows(house)
    assert [one["key"] for one in await house.pool.fetch("SELECT key FROM file")] == [
        row["file_key"]
    ]
    assert "Title 5" in text_of(await read_back(house, storage, row["file_key"]))


async def test_only_a_standard_escrow_has_a_document(house, shop, buyer, printer):
    await make_escrow(house, shop, buyer, mode="quick")
    await printer.turn()
    assert await rows(house) == []


async def test_the_longest_terms_in_arabic_are_printed_whole(house, shop, buyer, storage, printer):
    line = "يلتزم البائع بتسليم الكاميرا Canon EOS R5 خلال 7 أيام. 📷 "
    terms = (line * 200)[:9995] + "انتهى"
    assert len(terms) == 10_000
    escrow = await made(house, shop, buyer, contract_terms=terms, language="ar", title="كاميرا")
    await printer.turn()
    [row] = await rows(house)
    pdf = await read_back(house, storage, row["file_key"])
    assert len(pdf.pages) >= 3
    said = text_of(pdf)
    assert said.count("EOS") == terms.count("EOS")
    assert "انتهى" in said
    fonts = {
        str(font.get_object()["/BaseFont"])
        for page in pdf.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert any("FiraGO" in font for font in fonts)
    assert (await reread(house, escrow.id)).language == "ar"


async def test_an_image_is_drawn_and_one_that_cannot_be_is_left_out(
    house, shop, buyer, storage, printer
):
    broken = "data:image/png;base64,iVBORw0KGgo="
    await arrange(house, lambda tx: developers.keep_signature(tx, shop.developer_id, broken))
    await made(house, shop, buyer, auto_sign=True)
    await printer.turn()
    [row] = await rows(house)
    assert row["signing"] == "seller-signed"
    assert "Signed on" in text_of(await read_back(house, storage, row["file_key"]))


async def test_the_store_being_away_is_tried_again_later(
    house, shop, buyer, storage, printer, tmp_path
):
    await made(house, shop, buyer)

    class Away:
        async def put(self, key, chunks):
            raise GatewayFailure("the store is away", permanent=False)

    await Printer(house, Away(), tmp_path).turn()
    [row] = await rows(house)
    assert (row["file_key"], row["tries"]) == (None, 1)
    await printer.turn()  # leased for a minute
    assert (await rows(house))[0]["file_key"] is None
    await arrange(house, lambda tx: tx.execute("UPDATE paper SET due_at = clock_timestamp()"))
    await printer.turn()
    assert (await rows(house))[0]["file_key"] is not None


async def test_a_document_whose_image_cannot_be_opened_holds_up_no_other(
    house, shop, buyer, storage, printer
):
    lost = replace(house, vault=Vault(["a key that is gone" * 3]))
    keep = partial(
        developers.keep_signature, developer_id=shop.developer_id, image=data_uri(png(3, 2))
    )
    await arrange(lost, keep)
    sealed = await made(house, shop, buyer, auto_sign=True)
    await arrange(house, keep)
    await made(house, shop, buyer, auto_sign=True)
    await made(house, shop, buyer)
    for _ in range(2):
        await printer.turn()
    waiting = await house.pool.fetch(
        "SELECT c.escrow_id, tries FROM paper JOIN contract c ON c.id = contract_id"
        " WHERE file_key IS NULL"
    )
    assert [tuple(row) for row in waiting] == [(sealed.id, 1)]


async def test_two_printers_at_once_make_one_document(house, shop, buyer, storage, tmp_path):
    await made(house, shop, buyer)
    await asyncio.gather(*(Printer(house, storage, tmp_path).turn() for _ in range(3)))
    [row] = await rows(house)
    assert row["tries"] == 1
    assert await house.pool.fetchval("SELECT count(*) FROM file") == 1


async def test_what_was_printed_of_an_older_state_is_not_kept(house, shop, buyer, storage, printer):
    escrow = await made(house, shop, buyer, title="Old title")
    order = await papers.drawn_up(house, *await papers.claim(house))
    await act(house, shop.actor, update(escrow.id, Changes(title="New title")))
    pdf = printer._print(order)
    file = printing.filed(order, pdf)
    assert await papers.keep(house, order, file) is False
    assert await house.pool.fetchval("SELECT count(*) FROM file") == 0


async def test_the_fingerprint_covers_every_fact_term_and_signature(house, shop, buyer):
    await made(house, shop, buyer)
    order = await papers.drawn_up(house, *await papers.claim(house))
    first = fingerprint(order.facts, order.terms, order.signatures)
    assert first == order.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first)
    for name in order.facts:
        assert fingerprint({**order.facts, name: "other"}, order.terms, []) != first
    assert fingerprint(order.facts, order.terms + " ", []) != first
    assert replace(order).fingerprint == first
