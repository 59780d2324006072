"""A real database of each kind: SQLite in a file, PostgreSQL in a cluster of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config.models import Route
from gateway.database import open_database, sqlite_url
from gateway.keys.generate import make_keys
from tests.conftest import missing
from tests.support.flow import Flow, configuration
from tests.support.ports import free_port
from tests.support.received import site


def _postgres_programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    """URL of a fresh PostgreSQL cluster on a free loopback port."""
    programs = _postgres_programs()
    if programs is None:
        missing("PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="miad-postgresql-"))  # pytest's own folders are closed to other users
    as_user: dict = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **as_user}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-U", "miad", "--auth=trust", "-N"], **run)
    options = f"-F -p {port} -h 127.0.0.1 -k {folder}"  # -F: it flushes nothing, for nobody cuts the power
    log = folder / "log"
    subprocess.run([programs / "pg_ctl", "-D", folder / "data", "-o", options, "-l", log, "-w", "start"], **run)
    yield f"postgresql+psycopg://miad@127.0.0.1:{port}/postgres"
    subprocess.run([programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    """An empty database with the newest schema."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "gateway.sqlite")
    else:
        url = request.getfixturevalue("postgresql_url")
    engine = open_database(url)
    yield engine
    if request.param == "postgresql":
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
