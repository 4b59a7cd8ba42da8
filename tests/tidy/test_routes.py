"""Every route says who may, what it takes and what it gives, and its handler agrees."""

import inspect
import re
from typing import Any, get_args, get_type_hints

import pytest

from service.ingress.errors import REFUSALS
from service.ingress.examples import EXAMPLES
from service.ingress.openapi import request_of
from service.ingress.refusals import refusals
from service.ingress.route import Auth, Route
from service.ingress.routes import ROUTES, routes
from service.rules.policy import Policy
from service.wire.base import Body, OwnBody, Query, Wire

ALL = routes(Policy(environment="sandbox"))
LIVE = routes(Policy(environment="live"))
EVERY = pytest.mark.parametrize("route", ALL, ids=lambda r: f"{r.method} {r.path}")
OWN_PATHS = re.compile(r"/sandbox/|/developer/|/assurance|/milestone|/developers")


@EVERY
def test_a_route_says_who_may_and_what_is_answered(route: Route) -> None:
    assert isinstance(route.auth, Auth)
    assert route.gives is None or issubclass(route.gives, Wire)
    assert route.takes is None or issubclass(route.takes, Body)
    assert route.asks is None or issubclass(route.asks, Query)
    assert route.says.endswith(".")
    assert route.status in (200, 201, 202, 204)
    assert (route.gives is None) <= (route.status in (202, 204) or route.auth is Auth.NONE)


@EVERY
def test_a_route_under_the_api_asks_for_a_key(route: Route) -> None:
    assert not route.path.startswith("/api/") or route.auth is not Auth.NONE


@EVERY
def test_only_a_write_takes_a_body_and_only_a_read_a_query(route: Route) -> None:
    assert route.takes is None or route.method in ("POST", "PUT")
    assert route.asks is None or route.method == "GET"
    assert route.screen is None or route.takes is not None


@EVERY
def test_an_id_in_the_path_has_its_subject(route: Route) -> None:
    # A milestone's index is a place in its escrow, not an id.
    parameters = [p for p in re.findall(r"{(\w+)}", route.path) if p != "index"]
    if route.path.startswith("/api/"):
        chain = route.subject.chain() if route.subject else ()
        assert parameters == [subject.parameter for subject in chain]
        assert all(subject.lies_in for subject in chain[1:]), "whose is it, of those in the path?"


@EVERY
def test_the_handler_takes_what_the_row_says(route: Route) -> None:
    assert inspect.iscoroutinefunction(route.handler)
    hints: dict[str, Any] = get_type_hints(route.handler)
    body, query = get_args(hints["call"])
    assert body == (route.takes or type(None))
    assert query == (route.asks or type(None))


@EVERY
def test_a_path_of_our_own_refuses_unknown_fields_and_a_compatible_one_ignores_them(
    route: Route,
) -> None:
    if route.takes is not None and "/sandbox/" in route.path:
        assert issubclass(route.takes, OwnBody)
    if route.takes is not None and not OWN_PATHS.search(route.path):
        assert not issubclass(route.takes, OwnBody)


@EVERY
def test_a_route_that_asks_for_a_key_has_an_example_of_its_request(route: Route) -> None:
    if route.auth is Auth.NONE:
        return
    assert route.handler in EXAMPLES, "add it to service/ingress/examples.py"
    example = EXAMPLES[route.handler]
    assert (example.body is not None) <= (route.takes is not None)
    assert set(example.path) == set(re.findall(r"{(\w+)}", route.path))
    assert "{" not in request_of(route, example).path


@EVERY
def test_a_route_refuses_only_what_has_a_status(route: Route) -> None:
    assert set(refusals(route)) <= set(REFUSALS)


def test_no_example_is_left_of_a_route_that_is_gone() -> None:
    assert set(EXAMPLES) == {route.handler for route in ALL if route.auth is not Auth.NONE}


def test_no_route_is_there_twice() -> None:
    seen = [(route.method, re.sub(r"{\w+}", "{}", route.path)) for route in ALL]
    assert len(seen) == len(set(seen))


def test_a_live_deployment_has_none_of_the_sandboxs_routes() -> None:
    assert LIVE == ROUTES
    assert not any("sandbox" in route.path for route in LIVE)
