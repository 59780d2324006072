"""A real database of each kind: SQLite in a file, PostgreSQL in a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config.models import Route
from gateway.database import open_database, sqlite_url
from gateway.keys.generate import make_keys
from tests.support.flow import Flow, configuration
from tests.support.postgresql import VERSIONS
from tests.support.received import site


@pytest.fixture(params=["sqlite", *VERSIONS])
def engine(request, tmp_path, postgresql_databases):
    """An empty database with the newest schema."""
    embedded = request.param == "sqlite"
    engine = open_database(sqlite_url(tmp_path / "gateway.sqlite") if embedded else postgresql_databases(request.param))
    yield engine
    if not embedded:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


@pytest.fixture(scope="session")
def site_keys(tmp_path_factory) -> Path:
    """One site's keys, shared by all tests of the flow."""
    folder = tmp_path_factory.mktemp("site") / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def make_flow(tmp_path, site_keys) -> Iterator[Callable[..., Flow]]:
    """Make a flow with these routes, in a folder of its own."""
    made: list[Flow] = []

    def make(*routes: Route) -> Flow:
        made.append(Flow(configuration(tmp_path / f"state{len(made)}", site_keys, *routes)))
        return made[-1]

    yield make
    for flow in made:
        flow.engine.dispose()


@pytest.fixture
def flow(make_flow) -> Flow:
    """A flow with the one route that marks."""
    return make_flow()


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory, site_keys) -> Iterator[Flow]:
    """The site of `tests.support.received`, one for all tests of a module: what they send goes in at once."""
    flow = site(tmp_path_factory.mktemp("state"), site_keys)
    yield flow
    flow.engine.dispose()
