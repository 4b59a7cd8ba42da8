"""What a command meets when its database does not let it in."""

import pytest

from service.cli.embedded import Urls
from service.cli.house import open_house
from service.cli.migrate import migrate_at
from service.rules.errors import Unavailable
from service.settings import Settings


def nowhere(urls: Urls, role: str) -> Settings:
    url = urls.owner("no_such_database").replace("amana_owner", role)
    return Settings(database_url=url, redis_url=urls.redis, amana_secret_key="k" * 32)


@pytest.mark.parametrize("role", ["amana_owner", "no_such_role"])
async def test_a_database_or_role_that_is_not_there_is_named(urls: Urls, role: str) -> None:
    named = "no_such_database" if role == "amana_owner" else role
    with pytest.raises(Unavailable, match=named):
        async with open_house(nowhere(urls, role)):
            pass
    with pytest.raises(Unavailable, match=named):
        await migrate_at(nowhere(urls, role))
