"""Files of a form: kept as they come, known by what they are, and not kept where one is refused."""

import asyncio
import contextlib
import hashlib
import io
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from service.ingress.pages.forms import read_form
from service.ingress.pages.page import html
from service.ingress.route import Auth, Route
from service.ingress.uploads import STORAGE, keep_file, take_files
from service.rules.errors import FileEmpty, FileTypeUnknown, Refused
from service.rules.files import FILE_BYTES_MAX, FILES_MAX, FORM_BYTES_MAX, StoredFile
from tests.attachments import JPEG, PDF, PNG, SAMPLES, grown

MULTIPART = {"Content-Type": "multipart/form-data; boundary=line"}
MIB = 1024 * 1024
RESIDENT_GROWTH_MAX = 48 * MIB
PAGE_BYTES = 4096


class Desk:
    """Takes forms with files and keeps what became of them."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.files: tuple[StoredFile, ...] = ()
        self.refusal: Refused | None = None

    async def take(self, call):
        uploads = take_files(call.request)
        form = await read_form(call.request, FORM_BYTES_MAX, keep=uploads)
        self.fields, self.files, self.refusal = dict(form.fields), uploads.files, uploads.refusal
        return html("taken")

    @property
    def routes(self):
        return (Route("POST", "/desk", self.take, Auth.NONE, is_page=True, says="Files."),)


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
async def sending(ingress, desk):
    """`await sending(form)`: the status; `sending.storage` is where the files lie."""
    async with ingress(desk.routes) as client:

        async def send(form, headers=None):
            async with client.post("/desk", data=form, headers=headers or {}) as response:
                return response.status

        send.storage = ingress.app[STORAGE]
        before = {file.key async for page in send.storage.list() for file in page}

        async def kept():
            now = {file.key async for page in send.storage.list() for file in page}
            return now - before

        send.kept = kept
        yield send


def form(*files, **fields):
    made = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        made.add_field(name, value)
    for filename, content in files:
        made.add_field("files", io.BytesIO(content), filename=filename)
    made.add_field("after", "typed last")
    return made


async def content(storage, key):
    async with aclosing(storage.get(key)) as got:
        return b"".join([chunk async for chunk in got])


async def test_every_type_is_kept_as_its_content_under_a_random_key(sending, desk):
    names = [(f"my file.{kind.partition('/')[2]}", sample) for kind, sample in SAMPLES.items()]
    assert await sending(form(*names, note="hello")) == 200
    assert desk.fields == {"note": "hello", "after": "typed last"}
    assert desk.refusal is None
    assert [file.mime_type for file in desk.files] == list(SAMPLES)
    for file, sample in zip(desk.files, SAMPLES.values(), strict=True):
        assert (file.bytes, file.sha256) == (len(sample), hashlib.sha256(sample).hexdigest())
        assert await content(sending.storage, file.key) == sample
    assert await sending.kept() == {file.key for file in desk.files}
    assert len({file.key[:8] for file in desk.files}) == len(SAMPLES)


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("photo.png", b"<!doctype html><script>alert(1)</script>" * 9, "FILE_TYPE_UNKNOWN"),
        ("photo.png", b"GIF89a" + b"\0" * 90, "FILE_TYPE_UNKNOWN"),
        ("photo.png", PNG[:-6], "FILE_TYPE_UNKNOWN"),
        ("photo.png", b"\x89PNG", "FILE_TYPE_UNKNOWN"),
        ("empty.pdf", b"", "FILE_EMPTY"),
        ("large.png", PNG, "FILE_TOO_LARGE"),
        ("late.pdf", b"%PDF-1.4 without an end", "FILE_TYPE_UNKNOWN"),
    ],
)
async def test_a_refused_file_leaves_nothing_and_neither_do_those_beside_it(
    sending, desk, name, body, code
):
    size = {"large.png": FILE_BYTES_MAX + 1, "late.pdf": 6 * MIB}.get(name, len(body))
    files = [("first.jpg", JPEG), (name, grown(body, size)), ("last.pdf", PDF)]
    assert await sending(form(*files, note="kept")) == 200
    assert desk.refusal is not None
    assert desk.refusal.code == code
    assert desk.files == ()
    assert desk.fields == {"note": "kept", "after": "typed last"}
    assert await sending.kept() == set()


async def test_the_largest_file_is_taken_and_one_type_may_bear_anothers_name(sending, desk):
    assert await sending(form(("it.exe", grown(JPEG, FILE_BYTES_MAX)))) == 200
    [file] = desk.files
    assert (file.bytes, file.mime_type, file.filename) == (FILE_BYTES_MAX, "image/jpeg", "it.jpg")


async def test_one_file_too_many_leaves_none(sending, desk):
    many = [(f"{n}.png", PNG) for n in range(FILES_MAX)]
    assert await sending(form(*many)) == 200
    assert len(desk.files) == FILES_MAX
    kept = await sending.kept()
    assert await sending(form(*many, ("more.png", PNG))) == 200
    assert desk.refusal is not None
    assert desk.refusal.code == "TOO_MANY_FILES"
    assert await sending.kept() == kept


@pytest.mark.parametrize(
    "name", ["../../../etc/cron.d/x", "..%2F..%2Fx", "/abs/x", "..\\..\\x", "a/", "é<b>.x", "..."]
)
async def test_a_name_with_a_path_goes_nowhere(sending, desk, name):
    head = f'--line\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    assert await sending(head.encode() + PNG + b"\r\n--line--\r\n", MULTIPART) == 200
    [file] = desk.files
    assert "/" not in file.filename
    assert ".." not in file.filename
    assert file.filename.endswith(".png")
    assert await sending.kept() == {file.key}


async def test_a_field_without_a_chosen_file_is_no_file(sending, desk):
    part = b'--line\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n\r\n'
    assert await sending(part + b"--line--\r\n", MULTIPART) == 200
    assert (desk.files, desk.refusal) == ((), None)


@pytest.mark.parametrize("cut", [5, 150, 90_000])
async def test_a_body_that_ends_too_early_keeps_nothing_of_its_last_file(sending, desk, cut):
    head = b'--line\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = (head + grown(PNG, 200_000))[:cut]
    assert await sending(body, MULTIPART) == 400
    assert desk.files == ()
    assert await sending.kept() == set()


def unfinished(folder):
    return [path for path in folder.rglob("*") if "#" in path.name]


async def test_a_sender_who_goes_away_leaves_nothing(sending, environ):
    begun = asyncio.Event()

    async def never_ending():
        yield b'--line\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        yield grown(PNG, 6 * MIB)
        begun.set()
        await asyncio.sleep(30)

    going = asyncio.create_task(sending(never_ending(), MULTIPART))
    await begun.wait()
    await asyncio.sleep(0.1)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    folder = Path(environ["STORAGE_URL"].removeprefix("file://"))
    for _ in range(100):
        if not unfinished(folder):
            break
        await asyncio.sleep(0.05)
    assert unfinished(folder) == []
    assert await sending.kept() == set()


async def test_two_forms_at_once_do_not_mix(ingress):
    desks = [Desk(), Desk()]
    routes = tuple(
        Route("POST", f"/desk{n}", desk.take, Auth.NONE, is_page=True, says="Files.")
        for n, desk in enumerate(desks)
    )
    bodies = [grown(PNG, 3 * MIB), grown(PDF, 4 * MIB)]
    async with ingress(routes) as client:

        async def send(n):
            async with client.post(f"/desk{n}", data=form(("a", bodies[n]), ("b", JPEG))) as answer:
                return answer.status

        assert await asyncio.gather(send(0), send(1)) == [200, 200]
        storage = ingress.app[STORAGE]
        for desk, body in zip(desks, bodies, strict=True):
            first, second = desk.files
            assert await content(storage, first.key) == body
            assert await content(storage, second.key) == JPEG


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


async def test_a_file_far_too_large_passes_by_without_being_held(sending, desk):
    peak = before = resident()

    async def large():
        nonlocal peak
        yield b'--line\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        yield PNG
        for _ in range(100):
            peak = max(peak, resident())
            yield b"\0" * MIB
        yield b"\r\n--line--\r\n"

    assert await sending(large(), MULTIPART) == 200
    assert desk.refusal is not None
    assert desk.refusal.code == "FILE_TOO_LARGE"
    assert peak - before < RESIDENT_GROWTH_MAX
    assert await sending.kept() == set()


async def test_a_form_beyond_its_bound_is_refused_as_a_whole(sending, desk):
    async def endless():
        yield b'--line\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        yield PNG
        for _ in range(FORM_BYTES_MAX // MIB + 1):
            yield b"\0" * MIB
        yield b"\r\n--line--\r\n"

    with contextlib.suppress(aiohttp.ClientConnectionError):  # closed while we were still sending
        assert await sending(endless(), MULTIPART) == 413
    assert desk.files == ()
    assert await sending.kept() == set()


async def test_content_that_came_another_way_is_kept_by_the_same_law(sending):
    async def once(raw):
        yield raw

    file = await keep_file(sending.storage, "a/b.png", once(PNG))
    assert await sending.kept() == {file.key}
    assert (file.mime_type, file.filename, file.bytes) == ("image/png", "b.png", len(PNG))
    for raw, refusal in ((b"", FileEmpty), (b"text", FileTypeUnknown)):
        with pytest.raises(refusal):
            await keep_file(sending.storage, "a.png", once(raw))
    assert await sending.kept() == {file.key}
