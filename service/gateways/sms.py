"""Text messages: one to a phone, through the operator's gateway."""

from typing import Protocol

import aiohttp

from service.rules.errors import GatewayFailure

SECONDS = 10.0
ACCEPTED_BELOW = 300


class Texter(Protocol):
    """Sends a text message."""

    async def send(self, phone: str, text: str) -> None:
        """To this number (E.164). GatewayFailure where it was not taken."""


class HttpTexter:
    """POSTs `{to, text}` as JSON to SMS_URL; any 2xx means that it was taken."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def send(self, phone: str, text: str) -> None:
        """To this number (E.164). GatewayFailure where it was not taken."""
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    self._url, json={"to": phone, "text": text}, allow_redirects=False
                ) as response,
            ):
                if response.status >= ACCEPTED_BELOW:
                    reason = f"the SMS gateway answered {response.status}"
                    raise GatewayFailure(reason, permanent=False)
        except (aiohttp.ClientError, TimeoutError) as failure:
            raise GatewayFailure("the SMS gateway cannot be reached", permanent=False) from failure
