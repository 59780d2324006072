"""The made objects, and a site that they go through: real spool, vault, database and mark (steps = 0)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.keys.generate import make_keys
from tests.iods.collection import Made, collection
from tests.iods.passage import ROUTES, Passage
from tests.support.flow import Flow, configuration


@pytest.fixture(scope="session")
def made(miad_data) -> dict[str, Made]:
    """Every made object by name."""
    return collection(miad_data)


@pytest.fixture(scope="session")
def passage(tmp_path_factory) -> Iterator[Passage]:
    """A gateway that objects go through one by one, under any of `ROUTES`."""
    folder: Path = tmp_path_factory.mktemp("made")
    make_keys(folder / "keys")
    flow = Flow(configuration(folder / "state", folder / "keys", *ROUTES.values()))
    with pytest.MonkeyPatch.context() as patch:
        yield Passage(flow, patch)
    flow.engine.dispose()
