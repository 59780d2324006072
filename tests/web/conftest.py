"""A site with a bit of everything in its queue, and the page over it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gateway.config.accounts import Account, write_accounts
from gateway.config.destination import HELD_AT_ONCE
from gateway.config.models import Config
from gateway.config.page import Page
from gateway.errors import PermanentError, TransientError
from gateway.keys.generate import make_keys
from gateway.service.page import page_sources
from gateway.web.app import create_app
from gateway.web.passwords import hash_password
from tests.support.flow import ROUTE, Flow, configuration, ct
from tests.support.network.peers import free_port

SECOND = ROUTE.model_copy(update={"name": "partner", "called_ae": "PARTNER", "destinations": ("second",)})
HOLDS = ROUTE.model_copy(update={"name": "asked", "called_ae": "ASKED", "action": "hold"})
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "P4711", "AccessionNumber": "A0815"}


@dataclass
class Shown:
    """A site, its flow, the page's client, and the ids of its instances by what became of them."""

    flow: Flow
    config: Config
    client: TestClient
    ids: dict[str, str]


def fill(flow: Flow) -> dict[str, str]:
    """Instances that are delivered, held for each kind of reason, waiting and failing."""
    failures = {"second": TransientError("unreachable", "second does not answer", "is it running?")}
    flow.retry = lambda kind, attempt: 0.0 if kind in HELD_AT_ONCE else 86_400.0  # longer than any session of tests
    flow.sender.fail = lambda destination, item: failures.get(destination)
    ids = {
        "delivered": flow.receive(ct(1, **PATIENT)),
        "failing": flow.receive(ct(2, **PATIENT), called_ae="PARTNER"),
        "held": flow.receive(ct(3, **PATIENT), called_ae="ASKED"),
    }
    flow.run()
    failures["outside"] = PermanentError("context-refused", "outside accepts no context for CT", "ask its people")
    ids["refused"] = flow.receive(ct(4, **PATIENT))
    flow.run()
    ids["waiting"] = flow.receive(ct(5, **PATIENT))
    return ids


@pytest.fixture(scope="session")
def page_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "keys"
    make_keys(folder)
    return folder


def with_page(state: Path, keys: Path) -> Config:
    config = configuration(state, keys, ROUTE, SECOND, HOLDS)
    nobodys = config.ingress.model_copy(
        update={"port": free_port()}
    )  # the usual one may be a gateway's of this machine
    return config.model_copy(update={"page": Page(), "ingress": nobodys})


def make(folder: Path, keys: Path) -> Shown:
    config = with_page(folder / "state", keys)
    flow = Flow(config)
    ids = fill(flow)
    return Shown(flow, config, TestClient(create_app(page_sources(config)), base_url="http://localhost"), ids)


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory, page_keys: Path) -> Shown:
    """A site that is only looked at."""
    return make(tmp_path_factory.mktemp("shown"), page_keys)


@pytest.fixture
def fresh(tmp_path: Path, page_keys: Path) -> Shown:
    """One that was filled a moment ago."""
    return make(tmp_path, page_keys)


@pytest.fixture
def own(shown: Shown, tmp_path: Path, page_keys: Path) -> Shown:
    """A copy of it, of one test's own."""
    config = with_page(tmp_path / "state", page_keys)
    shutil.copytree(shown.config.site.state, config.site.state)
    flow = Flow(config)
    return Shown(
        flow, config, TestClient(create_app(page_sources(config)), base_url="http://localhost"), dict(shown.ids)
    )


PASSWORD = "a long enough password"
_HASH = hash_password(PASSWORD)


def with_users(config: Config) -> Config:
    """An operator `ops` and a viewer `eye`, with the password `PASSWORD`."""
    page = Page(users=config.site.state.parent / "page-users")
    write_accounts(page.users, {"ops": Account("ops", "operator", _HASH), "eye": Account("eye", "viewer", _HASH)})
    return config.model_copy(update={"page": page})


@pytest.fixture
def acting(own: Shown) -> Shown:
    """A site of one test's own, whose page has users."""
    own.config = with_users(own.config)
    own.client = TestClient(create_app(page_sources(own.config)), base_url="http://localhost", follow_redirects=False)
    return own


def log_in(shown: Shown, user: str = "ops", password: str = PASSWORD) -> str:
    """Log in by the JSON; returns the form token."""
    answer = shown.client.post("/api/v1/session", json={"name": user, "password": password})
    assert answer.status_code == 201, answer.text
    return answer.json()["form_token"]
