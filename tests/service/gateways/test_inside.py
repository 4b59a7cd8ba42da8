"""Reaching inside: every way to write, wrap, name or rebind an inner address, at both guards.

Law: no packet leaves. An audit hook sees every `connect` of this process; no name is asked for
outside, since the look-up is a table here and numbers besides.
"""

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from aiohttp import web

from service.commands.endpoints import create
from service.commands.perform import House
from service.gateways import dialler
from service.gateways.post import HttpPost, Request
from service.rules.delivery import Fault, Reply
from service.rules.errors import WebhookRefused
from service.wire.webhooks import WebhookCreate
from tests.makers import act, make_shop
from tests.receiver import Parcel, Receiver, receiving

LITERALS = (
    # loopback, in every way that a resolver or a browser reads
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001",
    "0x7f.0.0.1", "0x7F.1", "0177.0.0.1", "017700000001", "127.0x0.0.01", "0", "0.0.0.0", "0x0",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::127.0.0.1]",
    # private, shared, link-local and the metadata service
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.0.1",
    "169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "[fe80::1]",
    "[fe80::1%25lo]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]",
    # never anybody's server
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "[ff02::1]", "[100::1]",
    "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[2001::1]", "[4000::1]",
    # wrapped: mapped, NAT64, local NAT64, 6to4, ISATAP-like, compatible
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::1]",
    "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2002:a00:1::1]", "[::a9fe:a9fe]",
    "[64:ff9b::808:808]", "[2002:808:808::1]",
    # digits and dots that only look different
    "１２７.０.０.１", "①②⑦.0.0.1", "127。0。0。1", "127．0．0．1", "１６９.254.169.254",  # noqa: RUF001
    "٠x7f.1",  # noqa: RUF001 - an Arabic digit
)  # fmt: skip
NAMES = ("localhost", "LOCALHOST", "localhost.", "api.localhost")
BEHIND = ("example.com@127.0.0.1", "example.com:80@10.0.0.1", "a:b@169.254.169.254")
PORTS = ("8.8.8.8:22", "8.8.8.8:6379", "example.com:8080", "[2606:4700::6810:1]:5432")
NO_QUESTION = socket.AI_NUMERICHOST  # never asks a name server
RESOLVES: dict[str, list[list[str]]] = {
    "inside.example": [["127.0.0.1"]],
    "inside6.example": [["::1"]],
    "wrapped.example": [["::ffff:10.0.0.1"]],
    "nat64.example": [["64:ff9b::a9fe:a9fe"]],
    "metadata.example": [["169.254.169.254"]],
    "several.example": [["10.0.0.1", "fd00::1", "192.168.0.1", "::1"]],
    "localhost": [["127.0.0.1", "::1"]],
    "api.localhost": [["127.0.0.1"]],
}
"""A name -> what each look-up of it finds in turn; the last one stays."""


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The names of this test; whatever else is asked for is a number or nothing."""
    table = {name: [list(found) for found in turns] for name, turns in RESOLVES.items()}

    def look_up(host: str, port: int, flags: int = 0) -> list[AddrInfoType]:
        turns = table.get(host.lower().rstrip("."))
        if flags and turns is not None:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        hosts = [host] if turns is None else (turns.pop(0) if len(turns) > 1 else turns[0])
        return [
            (family, kind, protocol, "", address)
            for one in hosts
            for family, kind, protocol, _, address in socket.getaddrinfo(
                one, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, NO_QUESTION
            )
        ]

    monkeypatch.setattr(dialler, "_look_up", look_up)
    return table


class Watch:
    """Whom this process connects to while `is_on`; an audit hook can never be taken out again."""

    def __init__(self) -> None:
        self.is_on = False
        self.connects: list[Any] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and event in ("socket.connect", "socket.sendto"):
            self.connects.append(arguments[1])


WATCH = Watch()


@pytest.fixture
def watch() -> Iterator[Watch]:
    WATCH.connects.clear()
    WATCH.is_on = True
    yield WATCH
    WATCH.is_on = False


@pytest.fixture
async def guarded(lookups: object) -> AsyncIterator[HttpPost]:
    opened = HttpPost()
    yield opened
    await opened.close()


@pytest.fixture
async def opened(lookups: object) -> AsyncIterator[HttpPost]:
    """Of a development: loopback and private networks are open."""
    post = HttpPost(allow_private=True)
    yield post
    await post.close()


async def send(post: HttpPost, url: str) -> Reply:
    return await post.send(Request(url, {}, b"{}", 5.0))


EVERY = [*LITERALS, *NAMES, *BEHIND, *PORTS]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", [*EVERY, *RESOLVES])
async def test_the_connector_refuses_before_it_dials(
    guarded: HttpPost, watch: Watch, scheme: str, host: str
) -> None:
    if host == "example.com:8080":
        pytest.skip("a name that nobody here resolves; its port is the validator's to refuse")
    reply = await send(guarded, f"{scheme}://{host}/hook")
    assert watch.connects == []
    assert reply.fault in (Fault.BLOCKED, Fault.BAD_URL, Fault.DNS)
    assert reply.status == 0
    if host in RESOLVES:
        assert reply.fault is Fault.BLOCKED


@pytest.mark.parametrize("host", EVERY)
async def test_the_validator_refuses_what_could_never_be_dialled(house: House, host: str) -> None:
    closed = _without_private(house)
    shop = await make_shop(house)
    for scheme in ("http", "https"):
        wanted = WebhookCreate(url=f"{scheme}://{host}/hook")
        with pytest.raises(WebhookRefused) as refused:
            await act(closed, shop.actor, create(shop.developer_id, wanted))
        assert refused.value.sentence() == "Invalid URL format"
        assert refused.value.facts["why"]


def _without_private(house: House) -> House:
    return replace(house, policy=replace(house.policy, webhook_allow_private=False))


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "0.0.0.0",
        "[fe80::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "metadata.example", "nat64.example",
        "224.0.0.1", "255.255.255.255", "[::]", "2852039166",
    ],
)  # fmt: skip
async def test_a_development_dials_no_metadata_service_either(
    opened: HttpPost, watch: Watch, host: str
) -> None:
    reply = await send(opened, f"http://{host}/")
    assert reply.fault in (Fault.BLOCKED, Fault.BAD_URL)  # some are no URL to begin with
    assert watch.connects == []


async def test_a_name_that_is_rebound_is_judged_by_what_is_dialled(
    opened: HttpPost, lookups: dict[str, list[list[str]]], watch: Watch
) -> None:
    lookups["rebinding.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    async with receiving() as receiver:
        _hang_up(receiver)
        url = receiver.url.replace("127.0.0.1", "rebinding.example")
        assert (await send(opened, url)).status == 200
        opened._dialler._names.clear()
        reply = await send(opened, url)
    assert (reply.fault, reply.address) == (Fault.BLOCKED, "169.254.169.254")
    assert {address[0] for address in watch.connects} == {"127.0.0.1"}
    assert len(receiver.parcels) == 1


async def test_of_several_addresses_the_inner_ones_are_passed_over(
    opened: HttpPost, lookups: dict[str, list[list[str]]], watch: Watch
) -> None:
    lookups["mixed.example"] = [["169.254.169.254", "127.0.0.1"]]
    async with receiving() as receiver:
        reply = await send(opened, receiver.url.replace("127.0.0.1", "mixed.example"))
    assert reply.status == 200
    assert {address[0] for address in watch.connects} == {"127.0.0.1"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/", "//metadata.example/", "/again", "http://127.0.0.1:1/"]
)
async def test_a_redirect_is_an_answer_and_never_followed(
    opened: HttpPost, watch: Watch, status: int, target: str
) -> None:
    async with receiving() as receiver:
        receiver.says(status, Location=target)
        reply = await send(opened, receiver.url)
        port = int(receiver.url.split(":")[2].split("/")[0])
    assert (reply.status, reply.fault) == (status, None)
    assert len(receiver.parcels) == 1
    assert {address[1] for address in watch.connects} == {port}


@pytest.mark.parametrize(
    ("name", "ascii_form"),
    [("straße.example", "xn--strae-oqa.example"), ("faß.example", "xn--fa-hia.example")],
)
async def test_a_name_is_written_as_it_is_dialled_by_idna_2008(
    guarded: HttpPost,
    lookups: dict[str, list[list[str]]],
    house: House,
    name: str,
    ascii_form: str,
) -> None:
    shop = await make_shop(house)
    wanted = WebhookCreate(url=f"https://{name}/hook")
    made = await act(_without_private(house), shop.actor, create(shop.developer_id, wanted))
    assert made["webhook"]["url"] == f"https://{name}/hook"
    lookups[ascii_form] = [["127.0.0.1"]]  # any other form is no number and no name here
    assert (await send(guarded, f"https://{name}/hook")).fault is Fault.BLOCKED


def _hang_up(receiver: Receiver) -> None:
    async def answer(_: Parcel) -> web.Response:
        response = web.Response()
        response.force_close()
        return response

    receiver.answer = answer
