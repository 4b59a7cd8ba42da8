"""People at the pages: signed in by a visit of their own, with what their pages hold.

async with ingress(ROUTES) as client:
    bo = await signed_in(client, house, owner, buyer.email)
    page = await bo.get("/dashboard")
"""

import html
import re
import secrets
from dataclasses import dataclass

import aiohttp

from service.store.vault import hash_token

TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
NONCE = re.compile(r'name="once" value="([^"]+)"')
FORM = re.compile(r'<form method="post" action="([^"]+)".*?</form>', re.S)
TAGS = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Page:
    """What a browser was answered."""

    status: int
    text: str
    location: str
    headers: dict

    @property
    def words(self) -> str:
        """What stands on it, without the markup."""
        return html.unescape(" ".join(TAGS.sub(" ", self.text.partition("<main>")[2]).split()))

    @property
    def token(self) -> str:
        """The first form's token."""
        return TOKEN.search(self.text)[1]

    @property
    def nonce(self) -> str:
        """What tells this page's forms from those of every other."""
        return NONCE.search(self.text)[1]


class Browser:
    """One person's browser: it sends its cookie, follows nothing, and keeps nothing."""

    def __init__(self, client, cookie):
        self._client, self._cookie = client, cookie

    async def get(self, path, **headers):
        return await self._ask("GET", path, None, headers)

    async def post(self, path, fields, **headers):
        return await self._ask("POST", path, fields, headers)

    async def send(self, path, **fields):
        """The page's first form, with these fields; the page is looked at for its token."""
        page = await self.get(path)
        return await self.post(path, {"form_token": page.token, "once": page.nonce, **fields})

    async def post_files(self, path, files, **fields):
        """The page's first form, with these (name, content) files and these fields."""
        page = await self.get(path)
        form = aiohttp.FormData()
        form.add_field("form_token", page.token)
        form.add_field("once", page.nonce)
        for name, text in fields.items():
            form.add_field(name, text)
        if not files:
            form.add_field("files", b"", filename="")
        for name, content in files:
            form.add_field("files", content, filename=name)
        return await self.post(path, form)

    async def _ask(self, method, path, fields, headers):
        sent = {"Cookie": f"amana_session={self._cookie}"} if self._cookie else {}
        async with self._client.request(
            method, path, data=fields, headers=sent | headers, allow_redirects=False
        ) as answer:
            text = await answer.text()
            place = answer.headers.get("Location", "")
            return Page(answer.status, text, place, dict(answer.headers))


def stranger(client):
    """A browser without a session."""
    return Browser(client, None)


async def cookie_of(owner, email):
    """A session's cookie for this e-mail, as signing in leaves it."""
    token = secrets.token_urlsafe(32)
    await owner.execute(
        "INSERT INTO visit (token_hash, email, expires_at) VALUES ($1, $2, now() + '1 day')",
        hash_token(token),
        email,
    )
    return token


async def signed_in(client, owner, email):
    """The browser of whoever has proven this e-mail to be theirs."""
    return Browser(client, await cookie_of(owner, email))
