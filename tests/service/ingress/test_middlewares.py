"""The straight line of a request, over a real server: each check in its place."""

import asyncio
import gzip
import hashlib
import ipaddress
import json
import re
import zlib
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from yarl import URL

from service.commands.perform import Answer
from service.ingress import bodies
from service.ingress.errors import Family
from service.ingress.middlewares import HOUSE, Line, client_ip, logged_id
from service.ingress.route import Auth, Route, Subject, is_entity_id
from service.rules.errors import (
    BalanceTooLarge,
    EscrowNotFound,
    Forbidden,
    InsufficientFunds,
    InvalidEscrowId,
    NotParty,
)
from service.wire.base import Body, Number, OwnBody, Query, Wire

KNOWN = "0" * 24
FOREIGN = "f" * 24
UNKNOWN = "a" * 24


class Thing(Body):
    title: str
    amount: Number | None = None


class Ours(OwnBody):
    reason: str | None = None


class Page(Query):
    page: int = 1


class Told(Wire):
    title: str | None = None
    user_id: str | None = None
    key: str | None = None
    fingerprint: str | None = None
    page: int | None = None


async def tell(call):
    key = call.idempotency
    return Told(
        title=getattr(call.body, "title", None),
        user_id=call.caller.user_id if call.caller else None,
        key=key.key if key else None,
        fingerprint=key.fingerprint.hex() if key else None,
        page=call.query.page if call.query else None,
    )


async def answer(call):
    return Answer(call.status, b'{"stored":true}', replayed=call.idempotency is not None)


async def tell_name(call):
    return Told(title=call.path["name"])


async def fail(call):
    raise ZeroDivisionError(call.request.headers.get("Authorization"))


async def clash(call):
    raise InsufficientFunds(available=1, needed=2, currency="TND")


async def outgrow(call):
    raise BalanceTooLarge


async def own_user(call):
    return {"user": call.user_id}


async def show_actor(call):
    actor = call.actor
    return {"ip": actor.ip, "requestId": actor.request_id, "developer": actor.developer_id}


def no_cheats(caller, given):
    if given.get("cheat") or caller.user_id is None:
        raise Forbidden(reason="No cheating.")


async def read_thing(reader, thing_id):
    return None if thing_id == UNKNOWN else thing_id


THING = Subject(
    parameter="id",
    is_written=is_entity_id,
    malformed=InvalidEscrowId,
    read=read_thing,
    missing=EscrowNotFound,
    may=lambda caller, thing: thing == KNOWN,
    denied=NotParty,
)

PERSON = replace(THING, parameter="email", is_written=bool, may=lambda caller, person: True)

ROUTES = (
    Route("GET", "/api/v1/open", show_actor, Auth.NONE),
    Route("GET", "/api/v1/things", tell, Auth.ASSOCIATED, asks=Page, gives=Told),
    Route("POST", "/api/v1/things", tell, takes=Thing, gives=Told, status=201),
    Route("PUT", "/api/v1/things/{id}", tell, Auth.ASSOCIATED, THING, takes=Thing, gives=Told),
    Route("POST", "/api/v1/things/{id}/go", tell, Auth.KEY, THING, gives=Told),
    Route("POST", "/api/v1/screened", tell, takes=Thing, screen=no_cheats),
    Route("POST", "/api/v1/ours", tell, takes=Ours),
    Route("POST", "/api/v1/stored", answer, status=201),
    Route("POST", "/api/v1/small", tell, takes=Thing, body_bytes_max=100),
    Route("GET", "/api/v1/bug", fail),
    Route("GET", "/api/v1/own", own_user),
    Route("POST", "/api/v1/clash", clash, clashes=Family.E3),
    Route("POST", "/api/v1/other-clash", clash),
    Route("POST", "/api/v1/large", outgrow),
    Route("POST", "/api/v1/sandbox/large", outgrow),
    Route("GET", "/api/v1/sandbox/users/{email}", tell, subject=PERSON),
    Route("GET", "/api/v1/sandbox/names/{name}", tell_name),
    Route("GET", "/elsewhere", tell),
)


@pytest.fixture
async def client(ingress):
    async with ingress(ROUTES) as client:
        yield client


async def ask(client, method, path, **how):
    async with client.request(method, path, **how) as response:
        return response.status, await response.json(), response.headers


# ---- Request ids ---------------------------------------------------------------------------------


async def test_every_answer_has_a_request_id_of_ours_or_the_callers(client):
    for path in ("/api/v1/open", "/nowhere", "/healthz"):
        _, _, headers = await ask(client, "GET", path)
        assert re.fullmatch(r"[0-9a-f]{24}", headers["X-Request-Id"])
        _, _, headers = await ask(client, "GET", path, headers={"X-Request-Id": "mine-1"})
        assert headers["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize("odd", ["x" * 129, "a b", "{}", ""])
async def test_a_request_id_that_is_not_sane_is_replaced(client, odd):
    status, _, headers = await ask(client, "GET", "/api/v1/open", headers={"X-Request-Id": odd})
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{24}", headers["X-Request-Id"])


async def test_the_actor_carries_address_and_request_id(client):
    _, body, headers = await ask(client, "GET", "/api/v1/open")
    assert body == {
        "ip": "127.0.0.1",
        "requestId": headers["X-Request-Id"],
        "developer": None,
    }


# ---- Keys ----------------------------------------------------------------------------------------


async def refused(client, headers):
    status, body, got = await ask(client, "GET", "/elsewhere", headers=headers)
    assert (status, body["error"], got["WWW-Authenticate"]) == (401, "Unauthorized", "Bearer")
    return body["message"]


async def test_a_key_opens_by_either_header(client, enrolled):
    dev = await enrolled()
    for headers in (
        dev.headers,
        {"X-API-Key": dev.key},
        {"Authorization": f"bearer  {dev.key} "},
        {"Authorization": "Basic eDp5", "X-API-Key": dev.key},
    ):
        status, body, _ = await ask(client, "GET", "/elsewhere", headers=headers)
        assert (status, body["userId"]) == (200, dev.user_id)


async def test_without_a_sound_key_nobody_comes_in(client):
    assert "Send your API key" in await refused(client, {})
    assert "Send your API key" in await refused(client, {"Authorization": "Bearer "})
    assert "not an API key" in await refused(client, {"X-API-Key": "secret"})
    assert "not an API key" in await refused(client, {"X-API-Key": "sk_sandbox_" + "A" * 64})
    assert "unknown" in await refused(client, {"X-API-Key": "sk_sandbox_" + "a" * 64})


async def test_the_other_environments_key_is_told_so(client):
    message = await refused(client, {"X-API-Key": "sk_live_" + "a" * 64})
    assert "use your sandbox key" in message


async def test_a_deactivated_or_expired_key_stays_outside(client, enrolled, owner):
    dev = await enrolled()
    mine = "WHERE developer_id = $1"
    await owner.execute(f"UPDATE api_key SET is_active = false {mine}", dev.developer_id)
    assert "deactivated" in await refused(client, dev.headers)
    await owner.execute(
        f"UPDATE api_key SET is_active = true, expires_at = now() {mine}", dev.developer_id
    )
    assert "expired" in await refused(client, dev.headers)


async def test_the_use_of_a_key_is_noted_once_a_minute(client, enrolled, owner):
    dev = await enrolled()
    read = "SELECT last_used_at, xmin::text FROM api_key WHERE developer_id = $1"
    assert (await owner.fetchrow(read, dev.developer_id))["last_used_at"] is None
    await asyncio.gather(*(ask(client, "GET", "/elsewhere", headers=dev.headers) for _ in "abc"))
    async with asyncio.timeout(5):
        noted = await owner.fetchrow(read, dev.developer_id)
        while noted["last_used_at"] is None:
            noted = await owner.fetchrow(read, dev.developer_id)
    await ask(client, "GET", "/elsewhere", headers=dev.headers)
    await asyncio.sleep(0.1)
    assert await owner.fetchrow(read, dev.developer_id) == noted


async def test_association_is_asked_for_where_the_route_says_so(client, enrolled):
    dev = await enrolled(associated=False)
    status, body, _ = await ask(client, "GET", "/api/v1/things", headers=dev.headers)
    assert (status, body["error"]) == (403, "Forbidden")
    assert "associated" in body["message"]
    status, _, _ = await ask(client, "GET", "/api/v1/own", headers=dev.headers)
    assert status == 403
    status, _, _ = await ask(client, "GET", "/elsewhere", headers=dev.headers)
    assert status == 200


# ---- Order ---------------------------------------------------------------------------------------


async def test_the_first_check_that_fails_answers(client, enrolled, owner, redis):
    """One request that is wrong in every way, mended one check at a time, from the last on."""
    dev, bare = await enrolled(), await enrolled(associated=False)
    bad = {"Idempotency-Key": "", "Content-Type": "application/json"}
    steps = [
        ({}, UNKNOWN[:-1] + "X", 401, "Unauthorized"),
        (bare.headers, UNKNOWN[:-1] + "X", 403, "Forbidden"),
        (dev.headers, UNKNOWN[:-1] + "X", 400, "Invalid escrow ID"),
        (dev.headers, UNKNOWN, 404, "Escrow not found"),
        (dev.headers, FOREIGN, 403, "Forbidden"),
    ]
    for headers, thing, status, error in steps:
        got = await ask(client, "PUT", f"/api/v1/things/{thing}", headers=bad | headers, data=b"{")
        assert (got[0], got[1]["error"]) == (status, error)
    path = f"/api/v1/things/{KNOWN}"
    got = await ask(client, "PUT", path, headers=bad | dev.headers, data=b"{")
    assert (got[0], got[1]["message"][:15]) == (400, "Idempotency-Key")
    good = {"Idempotency-Key": "k"} | dev.headers
    got = await ask(client, "PUT", path, headers=good, data=b"{")
    assert "not valid JSON" in got[1]["message"]
    got = await ask(client, "PUT", path, headers=good, json={"amount": "1"})
    assert got[0] == 400
    assert got[1]["details"] == {"title": "is required", "amount": "must be a number"}
    got = await ask(client, "PUT", path, headers=good, json={"title": "a"})
    assert (got[0], got[1]["title"]) == (200, "a")
    await owner.execute(
        "UPDATE api_key SET rate_limit_per_minute = 1 WHERE developer_id = $1", dev.developer_id
    )
    await ask(client, "PUT", path, headers=good, data=b"{")
    got = await ask(client, "PUT", f"{path}x", headers=bad | dev.headers, data=b"{")
    assert got[0] == 429


async def test_an_odd_method_or_path_is_told(client):
    assert (await ask(client, "GET", "/nowhere"))[:2] == (404, {"error": "Not found"})
    assert (await ask(client, "GET", "/api/v1/things/"))[:2] == (404, {"error": "Not found"})
    status, body, headers = await ask(client, "DELETE", "/api/v1/things")
    assert (status, body["error"]) == (405, "Method Not Allowed")
    assert headers["Allow"] == "GET, POST"


# ---- Bodies --------------------------------------------------------------------------------------


async def test_an_endpoint_without_a_required_field_takes_no_body_or_an_object(client, enrolled):
    dev = await enrolled()
    for raw in (b"", b"{}", b'{"ignored": 1}'):
        path = f"/api/v1/things/{KNOWN}/go"
        assert (await ask(client, "POST", path, headers=dev.headers, data=raw))[0] == 200
    for raw in (b"[]", b"null", b"x"):
        path = f"/api/v1/things/{KNOWN}/go"
        assert (await ask(client, "POST", path, headers=dev.headers, data=raw))[0] == 400
    status, body, _ = await ask(client, "POST", "/api/v1/things", headers=dev.headers)
    assert (status, body["error"]) == (400, "Bad Request")


async def test_unknown_fields_are_refused_on_a_path_of_our_own(client, enrolled):
    dev = await enrolled()
    assert (await ask(client, "POST", "/api/v1/ours", headers=dev.headers))[0] == 200
    status, body, _ = await ask(
        client, "POST", "/api/v1/ours", headers=dev.headers, json={"reasons": 1}
    )
    assert (status, body["details"]) == (400, {"reasons": "is not a known field"})


async def test_the_screen_stands_between_the_object_and_its_fields(client, enrolled):
    dev, bare = await enrolled(), await enrolled(associated=False)
    post = ("POST", "/api/v1/screened")
    assert (await ask(client, *post, headers=bare.headers, data=b"["))[0] == 400
    assert (await ask(client, *post, headers=bare.headers, json={}))[0] == 403
    assert (await ask(client, *post, headers=dev.headers, json={"cheat": 1}))[0] == 403
    assert (await ask(client, *post, headers=dev.headers, json={}))[0] == 400


async def test_a_query_is_validated_like_a_body(client, enrolled):
    dev = await enrolled()
    status, body, _ = await ask(client, "GET", "/api/v1/things?page=3&x=1", headers=dev.headers)
    assert (status, body["page"]) == (200, 3)
    for query, field in (("page=x", "page"), ("page=", "page"), ("q=%00", "q")):
        status, body, _ = await ask(client, "GET", f"/api/v1/things?{query}", headers=dev.headers)
        assert (status, list(body["details"])) == (400, [field])


@pytest.mark.parametrize(
    ("query", "details"),
    [
        ("q=%ff", {"q": "must be UTF-8"}),
        ("q=caf%C3", {"q": "must be UTF-8"}),
        ("q=%ED%A0%80", {"q": "must be UTF-8"}),
        ("%ff=1", {"\ufffd": "must be UTF-8"}),
        ("q=1&q=1", {"q": "must be given once"}),
        ("q=1&%71=2", {"q": "must be given once"}),
        ("q&q", {"q": "must be given once"}),
        ("page=2&page=3", {"page": "must be given once"}),
        ("q=%00", {"q": "must not hold NUL"}),
        ("%00", {"\0": "must not hold NUL"}),
    ],
)
@pytest.mark.parametrize(
    "path", ["GET /api/v1/things", "POST /api/v1/things", "GET /api/v1/open", "GET /elsewhere"]
)
async def test_a_query_that_could_be_read_in_two_ways_is_400_on_every_route(
    client, enrolled, path, query, details
):
    dev = await enrolled()
    sent = b'{"title":"a"}'
    text = head(dev, f"{path.split()[1]}?{query}", Content_Length=len(sent), Connection="close")
    heard = await speak(client, text.replace(b"POST", path.split()[0].encode(), 1) + sent)
    assert heard.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(heard.split(b"\r\n\r\n")[1])["details"] == details


async def test_all_that_is_wrong_with_a_query_is_told_at_once(client, enrolled):
    url = URL("/api/v1/things?page=x&q=%ff&r=1&r=2", encoded=True)
    status, body, _ = await ask(client, "GET", url, headers=(await enrolled()).headers)
    assert (status, sorted(body["details"])) == (400, ["page", "q", "r"])


async def test_a_query_may_hold_any_letters_and_signs(client, enrolled):
    query = "page=3&q=caf%C3%A9+%26%EF%BF%BD%zz&&r=&s=a=b&t"
    url = URL(f"/api/v1/things?{query}", encoded=True)
    status, body, _ = await ask(client, "GET", url, headers=(await enrolled()).headers)
    assert (status, body["page"]) == (200, 3)


async def test_nul_in_a_path_is_nobodys_name(client, enrolled):
    dev = await enrolled()
    for path, answer in (
        ("/api/v1/sandbox/names/a%00b", (404, {"error": "Not found"})),
        ("/api/v1/sandbox/users/a%00b", (400, {"error": "Invalid escrow ID"})),
    ):
        assert (await ask(client, "GET", path, headers=dev.headers))[:2] == answer


async def test_a_path_that_is_no_utf_8_can_still_be_stored(client, enrolled):
    dev = await enrolled()
    for name in ("%ED%A0%80", "%FF", "%C3", "caf%C3%A9"):
        path = URL(f"/api/v1/sandbox/names/{name}", encoded=True)
        status, body, _ = await ask(client, "GET", path, headers=dev.headers)
        assert status == 200
        body["title"].encode()


async def test_a_body_over_the_limit_is_413(client, enrolled):
    dev = await enrolled()

    async def pieces():
        for _ in range(10):
            yield b" " * 60

    for small in (b" " * 101, pieces()):
        status, body, _ = await ask(
            client, "POST", "/api/v1/small", headers=dev.headers, data=small
        )
        assert (status, body["error"]) == (413, "Payload Too Large")
    over = b'{"title":"' + b"a" * 256 * 1024 + b'"}'
    assert (await ask(client, "POST", "/api/v1/things", headers=dev.headers, data=over))[0] == 413
    full = b'{"title":"' + b"a" * (256 * 1024 - 12) + b'"}'
    got = await ask(client, "POST", "/api/v1/things", headers=dev.headers, data=full)
    assert got[0] == 201


async def speak(client, text):
    """Send these bytes, and give what is answered until 0.4 s are silent."""
    host, port = client._base_url.host, client._base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(text)
    heard = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 0.4):
            heard += piece
    except TimeoutError:
        pass
    writer.close()
    return heard


def head(dev, path="/api/v1/things", **headers):
    lines = [f"POST {path} HTTP/1.1", "Host: x"]
    if "X_API_Key" not in headers:
        lines.append(f"X-API-Key: {dev.key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def test_a_declared_length_over_the_limit_is_413_at_once(client, enrolled):
    heard = await speak(client, head(await enrolled(), Content_Length=10_000_000))
    assert heard.startswith(b"HTTP/1.1 413 Payload Too Large\r\n")
    assert b'{"error":"Payload Too Large"' in heard


async def test_a_body_too_long_is_not_asked_for(client, enrolled):
    dev = await enrolled()
    fits = await speak(client, head(dev, Content_Length=14, Expect="100-continue"))
    assert fits == b"HTTP/1.1 100 Continue\r\n\r\n"
    over = await speak(client, head(dev, Content_Length=10_000_000, Expect="100-continue"))
    assert over.startswith(b"HTTP/1.1 413")
    odd = await speak(client, head(dev, Content_Length=0, Expect="a miracle"))
    assert odd.startswith(b"HTTP/1.1 400")


async def test_a_body_that_does_not_arrive_is_408(client, enrolled, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_SECONDS", 0.1)
    heard = await speak(client, head(await enrolled(), Content_Length=100) + b'{"title')
    assert heard.startswith(b"HTTP/1.1 408")
    assert b'"Request Timeout"' in heard


async def test_a_caller_who_hangs_up_is_one_line_and_no_bug(client, enrolled, caplog):
    dev = await enrolled()
    with capture_logs() as lines:
        host, port = client._base_url.host, client._base_url.port
        _, writer = await asyncio.open_connection(host, port)
        writer.write(head(dev, Content_Length=100) + b'{"title')
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()
        await asyncio.sleep(0.2)
    assert [(line["event"], line["log_level"]) for line in lines] == [("request_abandoned", "info")]
    assert caplog.records == []


async def test_a_caller_who_hangs_up_in_the_answer_is_no_bug(client, enrolled, caplog):
    dev = await enrolled()
    host, port = client._base_url.host, client._base_url.port
    with capture_logs() as lines:
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(head(dev, Content_Length=14, Expect="100-continue"))
            writer.transport.abort()
        await asyncio.sleep(0.2)
    assert {line["log_level"] for line in lines} <= {"info"}
    assert caplog.records == []


@pytest.mark.parametrize("expect", ["a miracle", "100-continue"])
async def test_an_expectation_does_not_make_a_path_known(client, enrolled, expect):
    dev = await enrolled()
    heard = await speak(client, head(dev, "/nowhere", Content_Length=0, Expect=expect))
    heard = heard.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert heard.endswith(b'{"error":"Not found"}')
    heard = await speak(client, head(dev, "/elsewhere", Content_Length=0, Expect=expect))
    heard = heard.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nX-Request-Id: " in heard


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\nHost: x\nX-API-Key: sk_live_secret\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key\x00: sk_live_secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: sk_live_secret" + b"a" * 9000 + b"\r\n\r\n",
        b"sk_live_secret\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_answered_without_a_word_of_it(client, caplog, text):
    with capture_logs() as lines:
        heard = await speak(client, text)
    start, _, body = heard.partition(b"\r\n\r\n")
    assert start.startswith((b"HTTP/1.0 400 Bad Request\r\n", b"HTTP/1.1 400 Bad Request\r\n"))
    for header in (b"X-Request-Id: ", b"Content-Type: application/json", b"Server: amana"):
        assert header in start
    assert json.loads(body)["error"] == "Bad Request"
    assert b"sk_live" not in heard
    [line] = lines
    assert (line["event"], line["log_level"]) == ("request_unreadable", "info")
    assert "sk_live" not in str(lines)
    assert caplog.records == []


async def test_compressed_bodies_are_read_and_broken_ones_are_400(client, enrolled):
    dev = await enrolled()
    zipped = gzip.compress(b'{"title":"zipped"}')
    headers = dev.headers | {"Content-Encoding": "gzip"}
    post = ("POST", "/api/v1/things")
    status, body, _ = await ask(client, *post, headers=headers, data=zipped)
    assert (status, body["title"]) == (201, "zipped")
    others = (b"not gzip at all", zipped[:-8] + bytes(8), zipped + b"x", zipped + zipped)
    for broken in (*others, *(zipped[:length] for length in range(1, len(zipped)))):
        status, body, _ = await ask(client, *post, headers=headers, data=broken)
        assert (status, body["error"]) == (400, "Bad Request")
    bomb = gzip.compress(b" " * 50_000_000)
    assert (await ask(client, *post, headers=headers, data=bomb))[0] == 413


@pytest.mark.parametrize("window", [zlib.MAX_WBITS, -zlib.MAX_WBITS])
async def test_deflate_is_read_with_and_without_its_head_and_cut_nowhere(client, enrolled, window):
    dev = await enrolled()
    packing = zlib.compressobj(wbits=window)
    packed = packing.compress(b'{"title":"a"}') + packing.flush()
    headers = dev.headers | {"Content-Encoding": "deflate"}
    post = ("POST", "/api/v1/things")
    assert (await ask(client, *post, headers=headers, data=packed))[0] == 201
    for broken in (packed + b"x", *(packed[:length] for length in range(1, len(packed)))):
        assert (await ask(client, *post, headers=headers, data=broken))[0] == 400


async def test_nothing_at_all_is_nothing_however_it_is_packed(client, enrolled):
    path = f"/api/v1/things/{KNOWN}/go"
    for encoding in ("gzip", "deflate", "identity"):
        text = head(await enrolled(), path, Transfer_Encoding="chunked", Content_Encoding=encoding)
        assert (await speak(client, text + b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_packed_body_is_bounded_by_what_it_holds_and_in_chunks_alike(client, enrolled):
    dev = await enrolled()
    headers = dev.headers | {"Content-Encoding": "gzip"}
    for size, expected in ((100, 200), (101, 413)):
        text = b'{"title":"' + b"a" * (size - 12) + b'"}'
        packed = gzip.compress(text)

        async def pieces(packed=packed):
            for at in range(len(packed)):
                yield packed[at : at + 1]

        for sent in (packed, pieces()):
            answer = await ask(client, "POST", "/api/v1/small", headers=headers, data=sent)
            assert answer[0] == expected


@pytest.mark.parametrize("encoding", ["homegrown", "gzip, gzip", "br", "zstd", "BR"])
async def test_an_encoding_that_nobody_reads_is_400(client, enrolled, encoding):
    dev = await enrolled()
    text = head(dev, Content_Length=13, Content_Encoding=encoding, X_Request_Id="mine")
    heard = await speak(client, text + b'{"title":"a"}')
    told = json.loads(heard.split(b"\r\n\r\n")[1])
    assert heard.startswith((b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.0 400 Bad Request\r\n"))
    assert told == {
        "error": "Bad Request",
        "message": "Content-Encoding must be gzip or deflate, or be left out.",
    }
    assert b"\r\nX-Request-Id: " in heard


@pytest.mark.parametrize("encoding", ["", "identity", "Deflate"])
async def test_a_body_as_it_is_may_say_so(client, enrolled, encoding):
    dev = await enrolled()
    raw = b'{"title":"a"}'
    sent = zlib.compress(raw) if encoding == "Deflate" else raw
    text = head(dev, Content_Length=len(sent), Content_Encoding=encoding, Connection="close")
    assert (await speak(client, text + sent)).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "Idempotency-Key", "X-Request-Id"])
async def test_bytes_that_are_not_ascii_are_400_or_401_never_500(client, enrolled, name):
    dev = await enrolled()
    text = head(dev, Content_Length=13, **{name.replace("-", "_"): "caf\xe9\xff"})
    heard = await speak(client, text + b'{"title":"a"}')
    assert heard.split(b" ")[1] in (b"400", b"401")
    assert heard.split(b"\r\n\r\n")[1].startswith(b'{"error":')


# ---- Idempotency ---------------------------------------------------------------------------------


async def test_the_fingerprint_is_of_method_path_and_raw_body(client, enrolled):
    dev = await enrolled()
    headers = dev.headers | {"Idempotency-Key": "k 1~"}
    seen = {}
    for path, raw in (
        ("/api/v1/things", b'{"title":"a"}'),
        ("/api/v1/things", b'{"title": "a"}'),
        (f"/api/v1/things/{KNOWN}/go", b'{"title":"a"}'),
    ):
        _, body, _ = await ask(client, "POST", path, headers=headers, data=raw)
        assert body["key"] == "k 1~"
        seen[body["fingerprint"]] = (path, raw)
    assert len(seen) == 3
    whole = hashlib.sha256(b'POST\n/api/v1/things\n{"title":"a"}').hexdigest()
    assert seen[whole] == ("/api/v1/things", b'{"title":"a"}')


@pytest.mark.parametrize("key", ["", "a\tb", "x" * 256])
async def test_an_idempotency_key_is_1_to_255_printable_characters(client, enrolled, key):
    dev = await enrolled()
    headers = dev.headers | {"Idempotency-Key": key}
    status, body, _ = await ask(client, "POST", "/api/v1/ours", headers=headers)
    assert status == 400
    assert "Idempotency-Key" in body["message"]


async def test_an_answer_is_sent_as_it_was_stored(client, enrolled):
    dev = await enrolled()
    status, body, headers = await ask(client, "POST", "/api/v1/stored", headers=dev.headers)
    assert (status, body) == (201, {"stored": True})
    assert "Idempotency-Replayed" not in headers
    _, _, headers = await ask(
        client, "POST", "/api/v1/stored", headers=dev.headers | {"Idempotency-Key": "a"}
    )
    assert headers["Idempotency-Replayed"] == "true"
    assert headers["Content-Type"] == "application/json; charset=utf-8"


# ---- Failures ------------------------------------------------------------------------------------


async def test_a_bug_is_500_with_its_id_and_its_traceback_in_the_log_only(client, enrolled):
    dev = await enrolled()
    with capture_logs() as lines:
        status, body, headers = await ask(client, "GET", "/api/v1/bug", headers=dev.headers)
    assert (status, body["error"]) == (500, "Internal Server Error")
    assert headers["X-Request-Id"] in body["message"]
    assert [line["event"] for line in lines] == ["request_failed", "request_answered"]
    assert lines[0]["exc_info"]


async def test_a_clash_is_e3_on_the_path_that_says_so(client, enrolled):
    dev = await enrolled()
    status, body, _ = await ask(client, "POST", "/api/v1/clash", headers=dev.headers)
    assert (status, body["error"]["code"]) == (400, "INSUFFICIENT_FUNDS")
    status, body, _ = await ask(client, "POST", "/api/v1/other-clash", headers=dev.headers)
    assert (status, body["code"]) == (409, "INSUFFICIENT_FUNDS")


async def test_the_status_of_an_amount_too_large_depends_on_the_path(client, enrolled):
    dev = await enrolled()
    for path, expected in (("/api/v1/large", 400), ("/api/v1/sandbox/large", 422)):
        status, body, _ = await ask(client, "POST", path, headers=dev.headers)
        assert (status, body["code"]) == (expected, "AMOUNT_TOO_LARGE")


async def test_a_database_that_is_away_is_503_with_retry_after(ingress, enrolled):
    dev = await enrolled()
    async with ingress(ROUTES) as client:
        await ingress.app[HOUSE].pool.close()
        for path in ("/elsewhere", "/api/v1/own"):
            status, body, headers = await ask(client, "GET", path, headers=dev.headers)
            assert (status, body["error"]) == (503, "Service Unavailable")
            assert int(headers["Retry-After"]) > 0
        assert (await ask(client, "GET", "/api/v1/own"))[0] == 401
        status, body, _ = await ask(client, "GET", "/readyz")
        assert (status, body["database"]) == (503, "away")
        assert (await ask(client, "GET", "/healthz"))[0] == 200


# ---- The limiter ---------------------------------------------------------------------------------

LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


async def test_every_answer_of_a_limited_path_says_what_remains(ingress, enrolled):
    dev = await enrolled()
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="4") as client:
        left = []
        for path, headers in (
            ("/api/v1/open", {}),
            ("/api/v1/own", {}),
            ("/api/nowhere", {}),
            ("/api/v1/things", dev.headers),
            ("/api/v1/own", dev.headers),
        ):
            status, body, got = await ask(client, "GET", path, headers=headers)
            left.append((status, got["X-RateLimit-Remaining"]))
            assert got["X-RateLimit-Limit"] == "4"
            assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", got["X-RateLimit-Reset"])
        assert left == [(200, "3"), (401, "2"), (404, "1"), (200, "0"), (429, "0")]
        assert body["retryAfter"] == int(got["Retry-After"]) >= 1
        for path in (
            "/elsewhere",
            "/api/v1/sandbox/users/a",
            "/healthz",
            "/nowhere",
            "/payments/notifications/stripe",
        ):
            status, _, got = await ask(client, "GET", path, headers=dev.headers)
            assert status != 429
            assert not any(name in got for name in LIMITS)


async def test_a_key_with_its_own_limit_has_its_own_window(ingress, enrolled, owner):
    dev = await enrolled()
    await owner.execute(
        "UPDATE api_key SET rate_limit_per_minute = 3 WHERE developer_id = $1", dev.developer_id
    )
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="1") as client:
        for expected in (200, 200, 200, 429):
            status, _, got = await ask(client, "GET", "/api/v1/own", headers=dev.headers)
            assert (status, got["X-RateLimit-Limit"]) == (expected, "3")
        assert (await ask(client, "GET", "/api/v1/open"))[0] == 200
        assert (await ask(client, "GET", "/api/v1/open"))[0] == 429
        await owner.execute(
            "UPDATE api_key SET is_active = false WHERE developer_id = $1", dev.developer_id
        )
        assert (await ask(client, "GET", "/api/v1/own", headers=dev.headers))[0] == 429


async def test_zero_switches_the_limiter_off_in_the_sandbox(ingress):
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="0") as client:
        for _ in range(3):
            status, _, got = await ask(client, "GET", "/api/v1/open")
            assert status == 200
            assert not any(name in got for name in LIMITS)


async def test_without_redis_everybody_passes_and_the_metrics_say_so(ingress, unused_tcp_port):
    redis = f"redis://127.0.0.1:{unused_tcp_port}"
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="1", REDIS_URL=redis) as client:
        for _ in range(3):
            status, _, got = await ask(client, "GET", "/api/v1/open")
            assert (status, got["X-RateLimit-Remaining"]) == (200, "1")
        async with client.get("/metrics") as response:
            assert "amana_limiter_away_total 3.0" in await response.text()
        status, body, _ = await ask(client, "GET", "/readyz")
        assert (status, body["redis"]) == (200, "away")


PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "client"),
    [
        ("203.0.113.9", None, (), "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", (), "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", PROXIES, "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", PROXIES, "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.9.9.9", PROXIES, "198.51.100.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", PROXIES, "10.0.0.2"),
        ("10.0.0.1", "1.2.3.4, nonsense", PROXIES, "10.0.0.1"),
        ("10.0.0.1", "", PROXIES, "10.0.0.1"),
        ("fd00::1", "2001:db8::1", PROXIES, "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", PROXIES, "198.51.100.1"),
        ("fe80::1%eth0", None, PROXIES, "fe80::1"),
        ("", None, (), ""),
    ],
)
def test_the_client_is_taken_from_trusted_proxies_only(remote, forwarded, trusted, client):
    assert client_ip(remote, forwarded, trusted) == client


async def test_a_forwarded_address_counts_when_the_proxy_is_trusted(ingress):
    async with ingress(ROUTES, TRUSTED_PROXIES="127.0.0.0/8") as client:
        _, body, _ = await ask(
            client, "GET", "/api/v1/open", headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7"}
        )
        assert body["ip"] == "198.51.100.7"


# ---- Log and metrics -----------------------------------------------------------------------------


async def test_a_request_is_one_line_without_secrets_or_addresses_of_people(client, enrolled):
    dev = await enrolled()
    with capture_logs() as lines:
        path = "/api/v1/sandbox/users/mina@example.com"
        await ask(client, "GET", path, headers=dev.headers)
        await ask(client, "POST", f"/api/v1/things/{KNOWN}/go", headers=dev.headers, json={})
        await ask(client, "GET", "/register/some-token")
        await ask(client, "GET", "/healthz")
    assert [line["event"] for line in lines] == ["request_answered"] * 3
    assert [line["route"] for line in lines] == [
        "/api/v1/sandbox/users/{email}",
        "/api/v1/things/{id}/go",
        "unmatched",
    ]
    assert lines[0]["developer_id"] == dev.developer_id
    assert lines[1]["subject_id"] == KNOWN
    text = json.dumps(lines)
    for secret in (dev.key, "mina", "some-token"):
        assert secret not in text


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("6f9619ff-8b86-4011-b42d-00c04fc964ff", "6f9619ff"),
        ("0123456789abcdef01234567", "0123456789abcdef01234567"),
        ("mina@example.com", None),
        ("0123456789abcdef01234567-aaaaaaaaaaa", None),
    ],
)
def test_of_a_sessions_handle_the_log_has_the_beginning_alone(name, logged):
    assert logged_id(name) == logged


async def test_made_up_methods_and_paths_do_not_fill_the_metrics(client):
    for number, method in enumerate(("GET", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH")):
        async with client.request(method, f"/nowhere/{number}"):
            pass
    async with client.get("/metrics") as response:
        text = await response.text()
    assert 'amana_requests_total{method="any",route="unmatched",status="404"} 5.0' in text
    assert "/nowhere" not in text


# ---- Rows ----------------------------------------------------------------------------------------


def test_a_subject_without_a_caller_is_refused_when_the_door_is_built(environ):
    with pytest.raises(ValueError, match="needs a caller"):
        Line(Route("GET", "/x/{id}", tell, Auth.NONE, THING))
