"""Text messages: what the operator's gateway is given, and what counts as not taken."""

import contextlib

import pytest
from aiohttp import web

from service.gateways.sms import HttpTexter
from service.rules.errors import GatewayFailure
from tests.service.ingress.conftest import listening

PHONE = "+21620123456"


@pytest.fixture
def gateway():
    """`async with gateway(status) as (url, taken):` an operator's gateway that answers so."""

    @contextlib.asynccontextmanager
    async def opened(status):
        taken = []

        async def take(request):
            taken.append((request.content_type, await request.json()))
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        app = web.Application()
        app.router.add_post("/sms", take)
        async with listening(app) as url:
            yield f"{url}/sms", taken

    return opened


@pytest.mark.parametrize("status", [200, 202])
async def test_a_message_is_posted_once_as_json(gateway, status):
    async with gateway(status) as (url, taken):
        await HttpTexter(url).send(PHONE, "رمزك 123456")
    assert taken == [("application/json", {"to": PHONE, "text": "رمزك 123456"})]


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_any_other_answer_means_that_it_was_not_taken_and_none_is_followed(gateway, status):
    async with gateway(status) as (url, taken):
        with pytest.raises(GatewayFailure) as caught:
            await HttpTexter(url).send(PHONE, "123456")
    assert str(status) in str(caught.value)
    assert PHONE not in str(caught.value)
    assert len(taken) == 1


async def test_a_gateway_that_is_away_is_a_failure_of_the_outside(gateway):
    async with gateway(200) as (url, _):
        pass
    with pytest.raises(GatewayFailure, match="cannot be reached"):
        await HttpTexter(url).send(PHONE, "123456")
