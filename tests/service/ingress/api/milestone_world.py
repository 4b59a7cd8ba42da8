"""A crew with a key for everybody, and a client that compares the whole database.

What a test refuses has changed nothing: every row of every table is the same after it.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from service.commands import developers
from service.commands.perform import House
from service.rules.engagement import ROLES
from service.rules.machine import Role
from tests.books import digest_tables
from tests.makers import arrange
from tests.milestones import Crew, make_crew

PATH = "/api/v1/milestone-escrows"
NOTED_LATER = {"api_key"}  # when a key was used last is noted beside the requests
NAMES = {
    "approver": Role.APPROVER,
    "serviceProvider": Role.SERVICE_PROVIDER,
    "platform": Role.PLATFORM,
    "releaseSigner": Role.RELEASE_SIGNER,
    "disputeResolver": Role.DISPUTE_RESOLVER,
    "receiver": Role.RECEIVER,
}


@dataclass(frozen=True)
class World:
    """The house, a client of its door, a crew, and a key by whose it is."""

    house: House
    client: Any
    crew: Crew
    keys: dict[str, str]

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, **more: Any
    ) -> tuple[int, Any]:
        """Status and body of the answer to this caller."""
        async with self.client.request(
            method, f"{PATH}{path}", json=body, headers={"X-API-Key": self.keys[who]}, **more
        ) as response:
            return response.status, await response.json()

    async def done(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """The escrow of an answer that must be a success."""
        status, told = await self.ask(who, method, path, body)
        assert status in (200, 201), told
        return told["escrow"]

    async def refused(
        self, code: str, status: int, who: str, method: str, path: str, body: Any = None
    ) -> Any:
        """The refusal, which must be this one, and have changed nothing at all."""
        before = await self._digest()
        found, told = await self.ask(who, method, path, body)
        assert (told.get("code"), found) == (code, status), told
        assert set(told) <= {"error", "message", "code", "details"}
        assert await self._digest() == before, code
        return told

    async def _digest(self) -> dict[str, str]:
        tables = await digest_tables(self.house)
        return {name: digest for name, digest in tables.items() if name not in NOTED_LATER}

    def body(self, *, amounts: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
        """A sound body: single release of 100 over two milestones, or multi of these amounts."""
        roles = {name: self.crew.email(role) for name, role in NAMES.items()}
        parts: list[dict[str, Any]] = [{"description": "First"}, {"description": "Second"}]
        if amounts:
            parts = [{"description": f"Part {n}", "amount": a} for n, a in enumerate(amounts)]
        sound: dict[str, Any] = {
            "releaseMode": "multi" if amounts else "single",
            "engagementId": "job-17",
            "title": "A website",
            "description": "Three pages.",
            "currency": "USDC",
            "platformFeeBps": 500,
            "roles": roles,
            "milestones": parts,
            **({} if amounts else {"amount": "100"}),
        }
        return {**sound, **changes}

    async def made(self, *, funded: str = "", amounts: tuple[str, ...] = (), **changes: Any) -> str:
        """The id of a new escrow."""
        escrow = await self.done("developer", "POST", "", self.body(amounts=amounts, **changes))
        path: str = f"/{escrow['id']}"
        if funded:
            await self.done("payer", "POST", f"{path}/fund", {"amount": funded})
        return path

    async def approved(self, path: str, *indexes: int) -> None:
        """The approver accepts these."""
        body = {"indexes": list(indexes)}
        await self.done("approver", "POST", f"{path}/milestones/approve", body)

    async def released(self, path: str, *indexes: int) -> None:
        """Approved and released: these, or all of two milestones."""
        await self.approved(path, *(indexes or (0, 1)))
        body = {"milestoneIndexes": list(indexes)} if indexes else {}
        await self.done("releaseSigner", "POST", f"{path}/release", body)

    async def disputed(self, path: str, *indexes: int) -> None:
        """Disputed by the provider: these, or the whole."""
        more = {"milestoneIndexes": list(indexes)} if indexes else {}
        body = {"reason": "It is late.", **more}
        await self.done("serviceProvider", "POST", f"{path}/dispute", body)

    async def resolved(self, path: str, amount: str, index: int | None = None) -> None:
        """Disputed, and resolved with so much for the receiver."""
        await self.disputed(path, *([] if index is None else [index]))
        body: dict[str, Any] = {"distributions": self.shares(("receiver", amount))}
        if index is not None:
            body["milestoneIndex"] = index
        await self.done("disputeResolver", "POST", f"{path}/resolve-dispute", body)

    def shares(self, *given: tuple[str, str]) -> list[dict[str, str]]:
        """Distributions to roles by name, or to e-mails."""
        return [
            {"email": self.crew.email(NAMES[to]) if to in NAMES else to, "amount": amount}
            for to, amount in given
        ]


async def make_world(house: House, client: Any) -> World:
    """A crew in which everybody has a key: by the role's name, `payer`, `stranger`, `developer`."""
    crew = await make_crew(house)
    people = {name: crew.people[role] for name, role in NAMES.items()}
    assert set(people) == set(NAMES)
    assert len(people) == len(ROLES)
    keys = {"developer": crew.shop.api_key}
    for name, person in {**people, "payer": crew.payer, "stranger": crew.stranger}.items():
        email = f"{name.lower()}-{secrets.token_hex(3)}@dev.example"

        async def enrol(tx: Any, email: str = email, user: str = person.email) -> Any:
            return await developers.enrol(tx, email, "Company", user_email=user)

        keys[name] = (await arrange(house, enrol)).api_key
    return World(house, client, crew, keys)


async def register(world: World, token: str, **changes: str) -> None:
    """Follow an invitation's link."""
    given = {"token": token, "firstName": "New", "lastName": "Person", **changes}
    async with world.client.post(
        "/api/v1/sandbox/register", json=given, headers={"X-API-Key": world.keys["developer"]}
    ) as response:
        assert response.status == 201, await response.text()
