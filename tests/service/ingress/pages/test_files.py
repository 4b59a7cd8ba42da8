"""A link to a file: signed, over after 15 minutes, and never more than the file it is for."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from service.cli.house import open_house
from service.commands import files
from service.gateways.files import open_storage
from service.ingress.main import make_app
from service.ingress.uploads import keep_file
from service.rules.files import VIEW_SECONDS
from service.settings import load_settings
from service.store.clock import read_clock
from service.store.vault import Vault
from tests.attachments import JPEG, PDF, PNG, WEBP, grown
from tests.house import CLEAN
from tests.makers import arrange
from tests.service.ingress.conftest import listening

LARGE = 9_000_000


class Shelf:
    """An ingress, the files behind it, and links to them."""

    def __init__(self, house, storage, folder, url):
        self.house, self.storage, self.folder, self.url = house, storage, folder, url

    async def put(self, name, body):
        """A file that a step has recorded."""

        async def once():
            yield body

        file = await keep_file(self.storage, name, once())
        await arrange(self.house, lambda tx: files.record(tx, [file]))
        return file

    async def link(self, key, ago=timedelta(0), vault=None):
        now = (await read_clock(self.house.pool)).real_now - ago
        return files.view_url(self.url, vault or self.house.vault, key, now)

    async def get(self, link, **headers):
        async with aiohttp.ClientSession() as session, session.get(link, headers=headers) as got:
            return got.status, await got.read(), got.headers


@pytest.fixture
async def shelf(environ, owner, redis):
    await owner.execute(CLEAN)
    settings = load_settings(environ)
    storage = open_storage(settings.storage_url or "")
    folder = Path(urlsplit(settings.storage_url or "").path)
    async with open_house(settings) as house, listening(make_app(settings)) as url:
        yield Shelf(house, storage, folder, url)


@pytest.mark.parametrize(
    ("name", "body", "kind", "shown"),
    [
        ("a.png", PNG, "image/png", "inline; filename*=UTF-8''a.png"),
        ("b.html", JPEG, "image/jpeg", "inline; filename*=UTF-8''b.jpg"),
        ("c.webp", WEBP, "image/webp", "inline; filename*=UTF-8''c.webp"),
        ("فاتورة.pdf", PDF, "application/pdf", "attachment; filename*=UTF-8''%D9%81%D8%A7%D8%AA"),
    ],
)
async def test_a_link_shows_the_file_as_what_it_is_and_nothing_in_it_runs(
    shelf, name, body, kind, shown
):
    file = await shelf.put(name, body)
    status, got, headers = await shelf.get(await shelf.link(file.key))
    assert (status, got) == (200, body)
    assert headers["Content-Type"] == kind
    assert headers["Content-Disposition"].startswith(shown)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"].startswith("private")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Length"] == str(len(body))
    assert headers["X-Request-Id"]


async def test_a_large_file_comes_whole(shelf):
    body = grown(PDF, LARGE)
    file = await shelf.put("large.pdf", body)
    status, got, _ = await shelf.get(await shelf.link(file.key))
    assert status == 200
    assert got == body


async def test_whoever_leaves_while_it_comes_harms_nobody(shelf):
    file = await shelf.put("large.pdf", grown(PDF, LARGE))
    link = await shelf.link(file.key)
    async with aiohttp.ClientSession() as session, session.get(link) as got:
        await got.content.readexactly(1000)
        got.close()
    assert (await shelf.get(link))[0] == 200


async def test_a_link_ends_after_15_minutes_and_not_before(shelf):
    file = await shelf.put("a.png", PNG)
    almost = await shelf.link(file.key, ago=timedelta(seconds=VIEW_SECONDS - 60))
    assert (await shelf.get(almost))[0] == 200
    over = await shelf.link(file.key, ago=timedelta(seconds=VIEW_SECONDS + 1))
    status, body, headers = await shelf.get(over)
    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert b"IHDR" not in body


async def test_a_link_that_we_did_not_sign_leads_nowhere(shelf):
    file, other = await shelf.put("a.png", PNG), await shelf.put("b.png", PNG)
    link = await shelf.link(file.key)
    asked = {name: value for name, [value] in parse_qs(urlsplit(link).query).items()}
    signature, expires = asked["signature"], asked["expires"]
    later = str(int(expires) + 1)
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    strangers = await shelf.link(file.key, vault=Vault(["another-key-" * 4]))
    forged = [
        link.replace(file.key, other.key),
        link.replace(expires, later),
        link.replace(signature, flipped),
        strangers,
        f"{shelf.url}/files/{file.key}",
        f"{shelf.url}/files/{file.key}?expires={expires}",
        f"{shelf.url}/files/{file.key}?expires={expires}&signature=",
        f"{shelf.url}/files/{file.key}?expires=9999999999999999999999&signature={signature}",
        f"{shelf.url}/files/{file.key}?expires=-1&signature={signature}",
        f"{shelf.url}/files/{file.key[:-1]}?expires={expires}&signature={signature}",
        f"{shelf.url}/files/..%2F..%2Fetc%2Fpasswd?expires={expires}&signature={signature}",
        f"{shelf.url}/files/%00?expires={expires}&signature={signature}",
    ]
    assert [(await shelf.get(one))[0] for one in forged] == [404] * len(forged)
    assert (await shelf.get(link))[0] == 200


async def test_a_link_of_the_old_key_still_opens(shelf):
    file = await shelf.put("a.png", PNG)
    both = Vault(["a-new-key-" * 4, "k" * 32])
    link = await shelf.link(file.key)
    asked = {name: value for name, [value] in parse_qs(urlsplit(link).query).items()}
    found = await files.find_viewable(
        shelf.house.pool, both, file.key, int(asked["expires"]), asked["signature"]
    )
    assert found == file


async def test_a_file_that_no_step_has_named_has_no_link(shelf):
    async def once():
        yield PNG

    file = await keep_file(shelf.storage, "a.png", once())
    assert (await shelf.get(await shelf.link(file.key)))[0] == 404


async def test_a_file_that_the_store_has_lost_is_told_as_a_failure(shelf):
    file = await shelf.put("a.png", PNG)
    await shelf.storage.delete([file.key])
    status, body, headers = await shelf.get(await shelf.link(file.key))
    assert status == 502
    assert headers["Content-Type"].startswith("text/html")
    assert file.key.encode() not in body


async def test_a_file_that_is_shorter_than_it_was_is_not_taken_for_whole(shelf):
    file = await shelf.put("a.pdf", grown(PDF, 100_000))
    path = shelf.folder / file.key[:2] / file.key[2:4] / file.key
    path.write_bytes(PDF)
    with pytest.raises(aiohttp.ClientPayloadError):
        await shelf.get(await shelf.link(file.key))
