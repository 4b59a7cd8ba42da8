"""`sound`: whatever a test has done, the books balance and the log is whole at its end."""

from collections.abc import AsyncIterator

import pytest_asyncio

from service.commands.perform import House
from tests.books import assert_sound


@pytest_asyncio.fixture(loop_scope="session")
async def sound(house: House) -> AsyncIterator[None]:
    """Asked for by `pytestmark = pytest.mark.usefixtures("sound")`."""
    yield
    await assert_sound(house)
