"""The printer: makes the contracts' documents that steps have asked for, and keeps them.

Law: nothing is made in a request. A document lies in the store before its row names it; one that
nobody wants by then is an orphan, and retention removes it.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from service.commands.papers import Order, claim, drawn_up, keep
from service.commands.perform import House
from service.gateways.files import Storage
from service.rules.errors import GatewayFailure
from service.rules.files import PDF, StoredFile
from service.store.papers import DuePaper
from service.words.papers import Drawn, Papers

EVERY_SECONDS = 1.0
KEY_BYTES = 32

log = structlog.get_logger()


class Printer:
    """Prints for one process; what fails is due again by itself, ever later."""

    def __init__(self, house: House, storage: Storage, folder: Path) -> None:
        """`folder` is this process's own: the fonts are laid there with the first document."""
        self._house, self._storage, self._folder = house, storage, folder
        self._papers: Papers | None = None

    async def turn(self) -> None:
        """Make what is due, one after the other."""
        for due in await claim(self._house):
            try:
                await self._make(due)
            except GatewayFailure as failure:
                log.warning("paper_not_kept", escrow=due.facts["escrow"], reason=str(failure))
            except Exception:
                log.exception("paper_not_made", escrow=due.facts["escrow"])

    async def _make(self, due: DuePaper) -> None:
        order = await drawn_up(self._house, due)
        pdf = await asyncio.to_thread(self._print, order)
        file = filed(order, pdf)
        await self._storage.put(file.key, _whole(pdf))
        is_kept = await keep(self._house, order, file)
        log.info("paper_made", escrow=order.facts["escrow"], bytes=len(pdf), is_kept=is_kept)

    def _print(self, order: Order) -> bytes:
        if self._papers is None:
            self._papers = Papers.read(self._folder)
        drawn = [Drawn(one, order.images.get(one["role"])) for one in order.signatures]
        return self._papers.contract(
            order.facts,
            order.terms,
            drawn,
            order.fingerprint,
            self._house.policy.timezone,
            is_sandbox=self._house.policy.is_sandbox,
        )


def filed(order: Order, pdf: bytes) -> StoredFile:
    """The file that this document becomes, under a key of its own."""
    name = f"contract-{order.facts['escrow']}-{order.facts['signing']}.pdf"
    digest = hashlib.sha256(pdf).hexdigest()
    return StoredFile(secrets.token_hex(KEY_BYTES), PDF, len(pdf), digest, name)


async def _whole(pdf: bytes) -> AsyncIterator[bytes]:
    yield pdf
