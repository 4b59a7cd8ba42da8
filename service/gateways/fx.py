"""The feed of exchange rates: one bounded GET of the operator's FX_URL.

Law: a whole answer is good or none of it is; nothing goes through a float. The shape that is
accepted, and why, stands in docs/decisions/rates.md.
"""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol

import aiohttp

from service.rules.errors import GatewayFailure, Malformed
from service.rules.money import LEDGER_CURRENCY, RATED_CURRENCIES
from service.wire.reading import read_object

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
BODY_MAX_BYTES = 64 * 1024
JSON_TYPES = ("application/json", "text/json")
RATE_MIN, RATE_MAX = Decimal("0.000001"), Decimal(1_000_000)
"""As `PUT /sandbox/fx` has them: what lies beyond is a mistake, not a rate."""


class RateFeed(Protocol):
    """Where rates come from. `fetch` raises GatewayFailure and nothing else."""

    async def fetch(self) -> Mapping[str, Decimal]: ...

    async def close(self) -> None: ...


class HttpRateFeed:
    """The real feed, on one aiohttp session. Made inside a running loop; closed by its owner.

    No redirect, proxy, cookie or decompression: what the operator named is what is asked.
    """

    def __init__(self, url: str, *, total_seconds: float = TOTAL_SECONDS) -> None:
        self._url = url
        self._total_seconds = total_seconds
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            trust_env=False,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "Amana-Rates/1",
            },
        )

    async def fetch(self) -> Mapping[str, Decimal]:
        """How many TND one unit of each currency is worth, for those that the feed names.

        Raises:
            GatewayFailure: no answer in 10 s, or not one that can be trusted as a whole.
        """
        try:
            async with asyncio.timeout(self._total_seconds):
                return read_rates(await self._get())
        except TimeoutError:
            raise _failed(f"no answer within {self._total_seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            # The class only: the message may hold the URL, and the URL a password.
            raise _failed(f"the connection failed: {type(failure).__name__}") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _get(self) -> bytes:
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise _failed(f"it answered {response.status}")
            kind = response.content_type
            if kind not in JSON_TYPES and not kind.endswith("+json"):
                raise _failed(f"it answered {kind[:100]}, which is not JSON")
            raw = bytearray()
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > BODY_MAX_BYTES:
                    raise _failed(f"its answer is longer than {BODY_MAX_BYTES // 1024} KiB")
            return bytes(raw)


def read_rates(raw: bytes) -> dict[str, Decimal]:
    """The rates of an answer: TND for one unit of each currency that we lock rates of.

    Either `{"base": "TND", "rates": {"USD": 3.12, …}, …}` or `{"USD": 3.12, …}`; other currencies
    are passed by. Raises GatewayFailure for anything else.
    """
    try:
        told = read_object(raw)
    except Malformed as broken:
        raise _failed(str(broken)) from None
    named: Any = told
    if "rates" in told or "base" in told:
        if told.get("base") != LEDGER_CURRENCY:
            raise _failed(f'its "base" is not "{LEDGER_CURRENCY}"')
        named = told.get("rates")
        if type(named) is not dict:
            raise _failed('its "rates" are no object')
    rates = {name: _rate(name, named[name]) for name in RATED_CURRENCIES if name in named}
    if not rates:
        raise _failed(f"it names none of {', '.join(RATED_CURRENCIES)}")
    return rates


def _rate(currency: str, value: Any) -> Decimal:
    if type(value) not in (int, Decimal):
        raise _failed(f"its rate of {currency} is no number")
    if not RATE_MIN <= value <= RATE_MAX:
        raise _failed(f"its rate of {currency} is not between {RATE_MIN} and {RATE_MAX}")
    return Decimal(value)


def _failed(reason: str) -> GatewayFailure:
    return GatewayFailure(reason, permanent=False)
