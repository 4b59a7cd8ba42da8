"""A person at the pages, for the demo: a browser without scripts, with cookies and a language.

    rim = Visitor(session, "rim@people.example", "en", read_mail)
    await rim.open(link)
    await rim.press(signature="Rim Gharbi")  # the page's one button
    await rim.press("Ask for a better proof", correction="It cannot be read.")

Law: it does what a person can. It opens what it was sent, fills in blanks that the page has and
presses what stands there; whatever else the form carries goes along unseen. It stays on the site,
which is this machine's: where a link or a redirect leads elsewhere the visit ends, and nothing is
asked there.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Protocol, TypeVar

import aiohttp
from yarl import URL

from service.cli.moment import Unexpected

HOPS_MAX = 10
OURS = frozenset({"localhost", "127.0.0.1"})
MULTIPART = "multipart/form-data"
CODE = re.compile(r"[0-9]{6}")
READ_BETWEEN = ("a", "button", "textarea", "option")

Upload = tuple[str, bytes]
"""A file's name and its content."""
RECEIPT: Upload = (
    "receipt.pdf",
    b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
)
"""As small as a whole document can be."""
ReadMail = Callable[[str, Callable[[Mapping[str, Any]], bool]], Awaitable[Mapping[str, Any]]]
"""(address, which mail) -> the newest such mail, waiting for it."""


class Thing(Protocol):
    """Something on a page that can be pressed or followed."""

    @property
    def words(self) -> str:
        """What stands on it."""

    @property
    def is_primary(self) -> bool:
        """Whether it is the page's one thing to do."""


ThingT = TypeVar("ThingT", bound=Thing)


@dataclass(slots=True)
class Form:
    """Where it goes, what it would send if nothing were filled in, and what can be filled in."""

    action: str
    is_multipart: bool
    fields: dict[str, str] = field(default_factory=dict)
    blanks: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)

    def add_input(self, given: Mapping[str, str]) -> None:
        """An `input` as its attributes say."""
        name, kind = given.get("name", ""), given.get("type", "text")
        if kind == "file":
            self.files.append(name)
        elif kind not in ("radio", "checkbox") or "checked" in given:
            self.fields[name] = given.get("value", "")
        if kind != "hidden":
            self.blanks.add(name)


@dataclass(frozen=True, slots=True)
class Button:
    """A button of a form; its own name and value are sent when it is pressed."""

    words: str
    is_primary: bool
    form: Form
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Link:
    """A link."""

    words: str
    is_primary: bool
    target: str


class Page(HTMLParser):
    """What a person sees of a page: its language, its words, its links and its buttons."""

    def __init__(self, url: URL, text: str) -> None:
        super().__init__()
        self.url, self.language = url, ""
        self.links: list[Link] = []
        self.buttons: list[Button] = []
        self._form: Form | None = None
        self._list = ""
        self._opened: Mapping[str, str] = {}
        self._read: list[str] = []
        self._main: list[str] = []
        self._is_in_main = False
        self.feed(text)
        self.close()

    @property
    def words(self) -> str:
        """What stands on it."""
        return _joined(self._main)

    @property
    def has_button(self) -> bool:
        """Whether there is something to be done here, not only somewhere to go."""
        return any(button.is_primary for button in self.buttons)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag."""
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "html":
                self.language = given.get("lang", "")
            case "main":
                self._is_in_main = True
            case "form" if given.get("method") == "post":
                self._form = Form(given.get("action", ""), given.get("enctype") == MULTIPART)
            case "input" if self._form is not None:
                self._form.add_input(given)
            case "select":
                self._list = given.get("name", "")
            case _ if tag in READ_BETWEEN:
                self._opened, self._read = given, []

    def handle_data(self, data: str) -> None:
        """Read what stands between tags."""
        self._read.append(data)
        if self._is_in_main:
            self._main.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Close a tag."""
        match tag:
            case "main":
                self._is_in_main = False
            case "form":
                self._form = None
            case "a":
                self.links.append(Link(*self._told(), self._opened.get("href", "")))
            case _ if self._form is not None and tag in READ_BETWEEN:
                self._end_control(tag, self._form)

    def _end_control(self, tag: str, form: Form) -> None:
        given, text = self._opened, "".join(self._read)
        name, value = given.get("name", ""), given.get("value", "")
        match tag:
            case "button" if given.get("type", "submit") == "submit":
                self.buttons.append(Button(*self._told(), form, name, value))
            case "textarea":
                form.fields[name] = text.removeprefix("\n")
                form.blanks.add(name)
            case "option":
                form.blanks.add(self._list)
                if "selected" in given or self._list not in form.fields:
                    form.fields[self._list] = value

    def _told(self) -> tuple[str, bool]:
        """The words that have just been read, and whether they were marked as primary."""
        return _joined(self._read), "primary" in self._opened.get("class", "").split()


def _joined(pieces: Sequence[str]) -> str:
    return " ".join("".join(pieces).split())


class Visitor:
    """Somebody's browser. `left_for` is where it was sent outside of the site, if it was."""

    def __init__(
        self, session: aiohttp.ClientSession, email: str, language: str, read_mail: ReadMail
    ) -> None:
        self.email, self.language, self.left_for = email, language, ""
        self._session, self._read_mail = session, read_mail
        self._cookies = aiohttp.CookieJar()
        self._page: Page | None = None
        self._site: URL | None = None

    @property
    def page(self) -> Page:
        """The page before this person. Raises Unexpected where there is none."""
        if self._page is None:
            raise Unexpected(f"{self.email} looks at no page, but at {self.left_for or 'nothing'}")
        return self._page

    async def open(self, url: str) -> None:
        """Look at this address of the site. Raises Unexpected for another machine's."""
        address = URL(url)
        if address.host not in OURS:
            raise Unexpected(f"{self.email} was sent a link to {address.host}")
        self._site = address.origin()
        await self._go("GET", address)

    async def follow(self, words: str = "") -> None:
        """Follow the link that begins with these words; without words the page's primary one."""
        link = self._find("link", self.page.links, words)
        await self._go("GET", self.page.url.join(URL(link.target)))

    async def press(
        self, words: str = "", *, files: Mapping[str, Upload] | None = None, **typed: str
    ) -> None:
        """Fill the form in and press the button that begins with these words, else the primary one.

        `typed` and `files` are blanks of the form that the button belongs to.
        """
        button = self._find("button", self.page.buttons, words)
        form, files = button.form, files or {}
        strange = sorted({*typed, *files} - form.blanks)
        if strange:
            raise Unexpected(f"{self.page.url.path} has no {' and no '.join(strange)} to fill in")
        body = aiohttp.FormData(default_to_multipart=form.is_multipart)
        pressed = {button.name: button.value} if button.name else {}
        for name, value in {**form.fields, **typed, **pressed}.items():
            body.add_field(name, value)
        for name in form.files:
            filename, content = files.get(name, ("", b""))
            body.add_field(
                name, content, filename=filename, content_type="application/octet-stream"
            )
        await self._go("POST", self.page.url.join(URL(form.action)), body)

    async def come_in(self) -> None:
        """From a page's door through the mailed code, and back to the page."""
        await self.follow()
        await self.press()
        await self.enter_code()

    async def enter_code(self) -> None:
        """Write the code that was sent for the page before this person."""
        code_id = self.page.url.name
        mail = await self._read_mail(
            self.email, lambda one: any(code_id in link for link in one["links"])
        )
        code = CODE.search(mail["subject"])
        if code is None:
            raise Unexpected(f"no code stands in the mail: {mail['subject']}")
        await self.press(code=code[0])

    def _find(self, what: str, seen: Sequence[ThingT], words: str) -> ThingT:
        for one in seen:
            if one.words.startswith(words) if words else one.is_primary:
                return one
        page = self.page
        raise Unexpected(f"{page.url.path} has no {what} {words or 'to go on'}: {page.words}")

    async def _go(self, method: str, url: URL, body: aiohttp.FormData | None = None) -> None:
        """Ask, and follow where it leads within the site."""
        self.left_for = ""
        for _ in range(HOPS_MAX):
            if url.origin() != self._site:
                self._page, self.left_for = None, str(url)
                return
            leads_to, self._page = await self._ask(method, url, body)
            if leads_to is None:
                return
            method, url, body = "GET", leads_to, None
        raise Unexpected(f"{url} leads on and on")

    async def _ask(
        self, method: str, url: URL, body: aiohttp.FormData | None
    ) -> tuple[URL | None, Page | None]:
        """Where the answer leads on to, else the page that it is."""
        asked = self._session.request(
            method,
            url,
            data=body,
            headers={"Accept-Language": self.language},
            cookies={one.key: one.value for one in self._cookies.filter_cookies(url).values()},
            allow_redirects=False,
        )
        async with asked as answer:
            self._cookies.update_cookies(answer.cookies, url)
            if answer.status == 303:
                return url.join(URL(answer.headers["Location"])), None
            page = Page(url, await answer.text())
        if answer.status != 200:
            raise Unexpected(f"{method} {url.path} answered {answer.status}: {page.words[:300]}")
        if page.language != self.language:
            raise Unexpected(f"{url.path} is in {page.language} instead of {self.language}")
        return None, page
