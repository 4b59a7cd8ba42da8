"""Forms as they are sent: what is read of them, and what is refused before it is kept."""

import asyncio

import aiohttp
import pytest

from service.ingress.pages.forms import FORM_BYTES_MAX, PARTS_MAX, read_form
from service.ingress.pages.page import html
from service.ingress.route import Auth, Route

URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=line"}
LIMIT = 300_000


class Desk:
    """Takes forms, with files or without, and keeps what it was given."""

    def __init__(self):
        self.fields, self.files = [], []

    async def _keep(self, upload):
        size = 0
        async for chunk in upload.chunks:
            size += len(chunk)
        self.files.append((upload.name, upload.filename, size))

    async def plain(self, call):
        self.fields.append((await read_form(call.request, FORM_BYTES_MAX)).fields)
        return html("taken")

    async def with_files(self, call):
        self.fields.append((await read_form(call.request, LIMIT, keep=self._keep)).fields)
        return html("taken")

    @property
    def routes(self):
        return (
            Route("POST", "/plain", self.plain, Auth.NONE, is_page=True, says="A form."),
            Route("POST", "/files", self.with_files, Auth.NONE, is_page=True, says="Files."),
        )


@pytest.fixture
def desk():
    return Desk()


async def sent(client, path, body, headers):
    async with client.post(path, data=body, headers=headers) as response:
        return response.status


def part(name, body=b"x", more=""):
    head = f'--line\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + body + b"\r\n"


END = b"--line--\r\n"


async def test_both_kinds_of_forms_say_the_same(ingress, desk):
    async with ingress(desk.routes) as client:
        fields = {"a": " سعر & 1+1 ", "b": "one\r\ntwo", "empty": ""}
        assert await sent(client, "/plain", aiohttp.FormData(fields), {}) == 200
        multipart = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            multipart.add_field(name, value)
        assert await sent(client, "/plain", multipart, {}) == 200
    assert desk.fields == [{"a": " سعر & 1+1 ", "b": "one\ntwo", "empty": ""}] * 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"a=1&a=2", 400),
        (b"a=%00", 400),
        (b"a=%ff", 400),
        (b"a=%ED%A0%80", 400),
        ("a=é".encode(), 400),
        (b"&".join(b"f%d=1" % n for n in range(PARTS_MAX + 1)), 400),
        (b"a=" + b"x" * FORM_BYTES_MAX, 413),
        (b"", 200),
        (b"a", 200),
        (b"&&&", 200),
    ],
)
async def test_a_urlencoded_form_is_read_within_bounds(ingress, desk, body, status):
    async with ingress(desk.routes) as client:
        assert await sent(client, "/plain", body, URLENCODED) == status
    assert len(desk.fields) == (status == 200)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (part("a") + END, 200),
        (END, 200),
        (part("a") + part("a") + END, 400),
        (part("a", b"\x00") + END, 400),
        (part("a", b"\xff") + END, 400),
        (part("a", b"\xed\xa0\x80") + END, 400),
        (part("") + END, 400),
        (b"".join(part(f"f{n}") for n in range(PARTS_MAX + 1)) + END, 400),
        (part("a", b"x" * FORM_BYTES_MAX) + END, 413),
        (part("f", b"x", '; filename="x.png"') + END, 400),
        (part("f", b"", '; filename=""') + END, 200),
        (part("a"), 400),
        (b"no line at all", 400),
        (b"", 400),
        (b"--line\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in--\r\n" + END, 400),
        (b"--line\r\nBroken header\r\n\r\nx\r\n" + END, 400),
        (b"--line\r\n" + b"A: b\r\n" * 1000 + b"\r\nx\r\n" + END, 400),
        (b"--line\r\nA: " + b"b" * 60_000 + b"\r\n\r\nx\r\n" + END, 400),
    ],
)
async def test_a_multipart_form_is_read_within_bounds(ingress, desk, body, status):
    async with ingress(desk.routes) as client:
        assert await sent(client, "/plain", body, MULTIPART) == status
    assert len(desk.fields) == (status == 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "multipart/mixed; boundary=line"},
        {"Content-Type": f"multipart/form-data; boundary={'b' * 71}"},
        MULTIPART | {"Content-Encoding": "gzip"},
        MULTIPART | {"Content-Encoding": "br"},
    ],
)
async def test_what_is_no_form_is_refused(ingress, desk, headers):
    async with ingress(desk.routes) as client:
        assert await sent(client, "/plain", part("a") + END, headers) == 400
    assert desk.fields == []


async def test_files_are_handed_on_as_they_come_and_the_fields_are_read_around_them(ingress, desk):
    body = (
        part("before", b"1")
        + part("f", b"x" * 100_000, '; filename="../../a.png"')
        + part("f", b"y", '; filename="b.png"')
        + part("g", b"", '; filename=""')
        + part("after", b"2")
        + END
    )
    async with ingress(desk.routes) as client:
        assert await sent(client, "/files", body, MULTIPART) == 200
    assert desk.fields == [{"before": "1", "after": "2"}]
    assert desk.files == [("f", "../../a.png", 100_000), ("f", "b.png", 1)]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused_while_it_comes(ingress, desk, declared):
    body = part("f", b"x" * (2 * LIMIT), '; filename="a.png"') + END

    async def streamed():
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]
            await asyncio.sleep(0)

    async with ingress(desk.routes) as client:
        given = body if declared else streamed()
        assert await sent(client, "/files", given, MULTIPART) == 413
    assert (desk.fields, desk.files) == ([], [])
