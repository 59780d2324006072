"""Fixtures that every package's tests may use: the real data folder, and a site of one's own."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import hypothesis
import pytest
import structlog

from gateway.log import LIBRARIES
from tests.support import postgresql
from tests.support.examples import in_the_default_run
from tests.support.schema import copy_new_databases

REPOSITORY = Path(__file__).parent.parent

# How fast examples are made and run says something about the machine and what else it does, nothing about the gateway;
# and a run is to tell of the commit, not of luck: the same examples everywhere. tests/fuzz looks for new ones.
hypothesis.settings.register_profile(
    "suite",
    hypothesis.settings(),
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is collected."""
    if config.option.markexpr == "not full":
        in_the_default_run()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """While tests are collected nothing becomes garbage: looking for it takes a sixth of the time, in each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # what is loaded now stays, and need not be looked at again
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long by right begins first, and has longer than what hangs (`timeout` in pyproject.toml)."""
    _mark_all_but_some(items)
    long = [item for item in items if item.get_closest_marker("full")]
    for item in long:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
    # Their files come first, each as a whole: at the end short ones are left, and no worker waits for a long one.
    first = {item.path for item in long}
    items.sort(key=lambda item: item.path not in first)


def _mark_all_but_some(items: list[pytest.Item]) -> None:
    """The mark `full` for those cases of a test marked `some` that need not run each time."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("some"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for all_of_it in cases.values():
        wanted = all_of_it[0].get_closest_marker("some").args[0]
        last = max(len(all_of_it) - 1, 1)
        kept = {round(number * last / (wanted - 1)) for number in range(wanted)}
        for number, item in enumerate(all_of_it):
            if number not in kept:
                item.add_marker(pytest.mark.full)


def data_folder() -> Path | None:
    """The labelled sets and DICOM files: MIAD_DATA, else ../shared/data; None when they are not there."""
    named = os.environ.get("MIAD_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if (folder / "dicom" / "index.csv").is_file() else None


def missing(what: str) -> NoReturn:
    """Fail where the thing is promised (CI), else skip: a missing peer in CI is a failure."""
    if os.environ.get("CI") or (what == "data" and os.environ.get("MIAD_DATA")):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing", allow_module_level=True)


def needed(module: str) -> ModuleType:
    """The module of a package that not every machine has; without it, as `missing` says, for a test or a whole file."""
    try:
        return import_module(module)
    except ImportError:
        missing(f"the package of {module}")


@pytest.fixture(scope="session", autouse=True)
def new_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The migrations run once a process, not once a test."""
    with pytest.MonkeyPatch.context() as patch:
        copy_new_databases(tmp_path_factory.mktemp("schema"), patch)
        yield


@pytest.fixture(scope="session")
def postgresql_servers() -> Iterator[Callable[[str], str]]:
    """Version -> URL of the first database of a PostgreSQL cluster: one of each for all tests of a process."""

    def server(version: str) -> AbstractContextManager[str]:
        programs = postgresql.programs(version)
        if programs is None:
            missing(version)
        return postgresql.cluster(programs)

    with postgresql.each_once(server) as servers:
        yield servers


@pytest.fixture(scope="module")
def postgresql_databases(postgresql_servers: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Version -> URL of a PostgreSQL database of the module's own, empty at first."""
    with postgresql.each_once(lambda version: postgresql.database(postgresql_servers(version))) as databases:
        yield databases


@pytest.fixture(scope="module", params=postgresql.VERSIONS)
def postgresql_url(request: pytest.FixtureRequest, postgresql_databases: Callable[[str], str]) -> Iterator[str]:
    """URL of a PostgreSQL database of the module's own, empty at first; the server's programs are in the PATH."""
    url, programs = postgresql_databases(request.param), postgresql.programs(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield url


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands and roles that run in this process set up its log, to a stream that ends with their test."""
    loggers = [logging.getLogger(name) for name in ("", *LIBRARIES)]
    levels = [logger.level for logger in loggers]
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def miad_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder. Where there is none, a small one of the same layout, out of files that packages carry.

    The absence of the real one fails where CI or MIAD_DATA promises it.
    """
    folder = data_folder()
    if folder is not None:
        return folder
    if os.environ.get("CI") or os.environ.get("MIAD_DATA"):
        missing("data")
    from tests.support.standin import make_standin

    return make_standin(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def labelled_sets(miad_data: Path) -> Path:
    """The data folder with the labelled sets, which no package carries: skips without them."""
    if (miad_data / "STANDIN").exists():
        missing("data")
    return miad_data


@pytest.fixture(scope="session")
def field_inputs(labelled_sets: Path) -> Path:
    """The small inputs that failed in the field, beside the data folder; their absence is that of the data."""
    folder = labelled_sets.parent / "field"
    if not folder.is_dir():
        missing("data")
    return folder
