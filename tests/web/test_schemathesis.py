"""Schemathesis asks the page everything that its OpenAPI allows, and what it does not: no answer is a server error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.web import acting, api
from tests.web.conftest import PASSWORD, Shown, make, with_users
from tests.web.live import served

pytestmark = [pytest.mark.full]

SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
OPERATIONS = [(min(route.methods).lower(), route.path) for one in (api.router, acting.api) for route in one.routes]
OPERATIONS += [("get", "/live"), ("get", "/ready"), ("get", "/metrics")]
CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, page_keys: Path) -> Iterator[str]:
    """A site of its own: what is asked here is kept there, and `shown` is for looking at."""
    site = make(tmp_path_factory.mktemp("asked"), page_keys)
    with served(Shown(site.flow, with_users(site.config), site.client, site.ids)) as base:
        yield base


@pytest.fixture(scope="module")
def schema(address: str):
    return schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("logged_in", [False, True], ids=["nobody", "operator"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_asked_is_answered(address: str, schema, method: str, path: str, logged_in: bool, mode) -> None:
    operation = schema[path][method]
    headers = {}
    if logged_in:
        answer = httpx2.post(f"{address}/api/v1/session", json={"name": "ops", "password": PASSWORD})
        token = answer.json()["form_token"]
        headers = {"Cookie": answer.headers["set-cookie"].partition(";")[0], "X-Form-Token": token}

    @given(case=operation.as_strategy(generation_mode=mode))
    @SETTINGS
    def ask(case) -> None:
        case.call_and_validate(checks=CHECKS, headers=headers)

    with suppress(Unsatisfiable):  # nothing about it could be wrong
        ask()
