"""`amana listen`: a developer's events, pulled through the feed, printed and handed on, signed.

Nothing has to reach this machine: it asks with the developer's key and POSTs to a local server what
webhooks would. A local failure is told and not tried again.
"""

import asyncio
import json
import secrets as randomness
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import click

from service.cli.home import read_environ
from service.cli.verb import data_dir_option, one_line
from service.gateways.post import HttpPost, Request
from service.rules.signing import standard_secret
from service.settings import load_settings
from service.wire.webhooks import delivery_headers

PATH = "/api/v1/events"
POLL_SECONDS = 1.0
AWAY_SECONDS = 3.0
PAGE = 100
FORWARD_SECONDS = 30.0
ASK_SECONDS = 30.0


class Refused(Exception):
    """The deployment does not let us listen; asking again would not help."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event and the exact bytes of its webhook."""

    id: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Handed:
    """What a local server said to an event: 0 and a fault where it said nothing."""

    heard: Heard
    status: int | None = None
    fault: str | None = None
    milliseconds: int | None = None

    def line(self) -> str:
        """For people."""
        at = datetime.now(UTC).strftime("%H:%M:%S")
        told = f"{at}  {self.heard.type}  {self.heard.id}"
        if self.status is None:
            return told
        said = str(self.status) if self.fault is None else self.fault
        return f"{told}  -> {said} ({self.milliseconds} ms)"

    def facts(self) -> Mapping[str, Any]:
        """For programs, beside the event itself."""
        forwarded = None
        if self.status is not None:
            forwarded = {"status": self.status, "errorClass": self.fault, "ms": self.milliseconds}
        return {"event": json.loads(self.heard.body), "forwarded": forwarded}


class Listener:
    """Pulls from one deployment with one key; `after` is where it goes on."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        url: str,
        key: str,
        *,
        after: str = "latest",
        types: str = "",
    ) -> None:
        self._client, self._url = client, url.rstrip("/") + PATH
        self._headers = {"Authorization": f"Bearer {key}"}
        self._types = types
        self.after = after
        self.has_more = False

    async def hear(self) -> list[Heard]:
        """The next events, if there are any.

        Raises:
            Refused: the key, the types or the cursor will not do.
            aiohttp.ClientError, TimeoutError: the deployment is away, or has too much to do.
        """
        asked = {"limit": str(PAGE), **({"after": self.after} if self.after else {})}
        if self._types:
            asked["types"] = self._types
        async with self._client.get(self._url, params=asked, headers=self._headers) as answer:
            if answer.status == 200:
                heard, self.after, self.has_more = read_page(await answer.text())
                return heard
            if answer.status < 500 and answer.status != 429:
                raise Refused(f"{self._url} answers {answer.status}: {await _why(answer)}")
            answer.raise_for_status()
        raise AssertionError("an answer that is neither good nor bad")


def read_page(text: str) -> tuple[list[Heard], str, bool]:
    """The events of a page with the bytes that they have in it, its cursor, whether it goes on."""
    decoder, heard = json.JSONDecoder(), []
    at = text.index("[") + 1
    while text[at] != "]":
        event, end = decoder.raw_decode(text, at)
        heard.append(Heard(event["id"], event["type"], text[at:end].encode()))
        at = end + 1 if text[end] == "," else end
    rest = json.loads("{" + text[at + 1 :].lstrip(","))
    return heard, rest["nextCursor"], rest["hasMore"]


async def hand_on(post: HttpPost, url: str, secret: str, heard: Heard) -> Handed:
    """POST the event to a local server, as a webhook of this moment."""
    headers = delivery_headers(
        secrets=[secret],
        delivery_id=uuid4(),
        event_id=UUID(heard.id),
        event_type=heard.type,
        body=heard.body,
        now=datetime.now(UTC),
        custom={},
    )
    reply = await post.send(Request(url, headers, heard.body, FORWARD_SECONDS))
    fault = None if reply.fault is None else str(reply.fault)
    return Handed(heard, reply.status, fault, reply.total_ms)


async def _why(answer: aiohttp.ClientResponse) -> str:
    try:
        told = json.loads(await answer.text())
        return str(told.get("message") or told.get("error"))
    except (ValueError, AttributeError):
        return "no reason is given"


async def _listen(
    url: str, key: str, forward: str | None, secret: str, types: str, after: str, *, as_json: bool
) -> None:
    post = HttpPost(allow_private=True)
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as client:
            listener = Listener(client, url, key, after=after, types=types)
            while True:
                for heard in await _patiently(listener):
                    handed = Handed(heard)
                    if forward is not None:
                        handed = await hand_on(post, forward, secret, heard)
                    click.echo(json.dumps(handed.facts()) if as_json else handed.line())
                    sys.stdout.flush()
                if not listener.has_more:
                    await asyncio.sleep(POLL_SECONDS)
    finally:
        await post.close()


async def _patiently(listener: Listener) -> list[Heard]:
    """What is heard; nothing for a while where the deployment is away."""
    try:
        return await listener.hear()
    except (aiohttp.ClientError, TimeoutError) as away:
        click.echo(f"no answer ({type(away).__name__}); asking again", err=True)
        await asyncio.sleep(AWAY_SECONDS)
        return []


@click.command("listen")
@data_dir_option
@click.option("--forward", metavar="URL", help="POST each event there, signed.")
@click.option("--url", envvar="AMANA_URL", help="The deployment; else AMANA_PUBLIC_URL.")
@click.option("--key", envvar="AMANA_KEY", required=True, help="The developer's API key.")
@click.option("--types", default="", help="Types or wildcards, parted by commas; else all.")
@click.option("--secret", default="", help="What signs; else a new one is made and printed.")
@click.option("--after", default="latest", show_default=True, help="Begin after this cursor.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON an event.")
def listen(
    data_dir: Path,
    forward: str | None,
    url: str | None,
    key: str,
    types: str,
    secret: str,
    after: str,
    *,
    as_json: bool,
) -> None:
    """Print a developer's events as they happen, and forward them to a local server."""
    if forward is not None and urlsplit(forward).scheme not in ("http", "https"):
        raise click.ClickException("--forward must be a URL such as http://localhost:3000/hook")
    del data_dir  # every command takes one; this one asks the API alone
    signer = secret or randomness.token_hex(32)
    with one_line():
        place = url or load_settings(read_environ()).amana_public_url
        click.echo(f"listening to {place}", err=True)
        if forward is not None and not secret:
            click.echo(f"secret: {signer}\nstandardSecret: {standard_secret(signer)}", err=True)
        try:
            asyncio.run(_listen(place, key, forward, signer, types, after, as_json=as_json))
        except Refused as refused:
            raise click.ClickException(str(refused)) from refused
        except KeyboardInterrupt:
            click.echo("", err=True)
