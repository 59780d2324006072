"""Ports, database and device are tried: what cannot be used is one finding with its cause and without a password."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from gateway.config import Config
from gateway.config.load import parse_config
from gateway.database import open_database, sqlite_url
from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.network.presence import announce, is_ours
from gateway.preflight.machine import try_device, try_ports, try_the_database
from tests.support.ports import free_port

RESTORE = "[restore]\ntls_port = false\nplain_port = {}\n"


def configured(text: str, folder: Path = Path("/nowhere")) -> Config:
    return parse_config(text, folder / "gateway.toml")


@pytest.fixture
def taken():
    """A port that some program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("role", "where"),
    [
        ("ingress", ["ingress.port"]), ("restore", ["restore.plain_port"]), ("worker", []),
        ("all", ["ingress.port", "restore.plain_port"]),
    ],
)  # fmt: skip
def test_a_port_that_another_program_holds(role: str, where: list[str], taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = configured(f"[ingress]\nport = {taken}\n" + RESTORE.format(port))
        found = list(try_ports(config, role))
    assert [(one.level, one.where) for one in found] == [("error", one) for one in where]
    assert all("is taken by another program" in one.message and one.hint for one in found)


def test_a_port_that_our_own_role_holds_is_right(taken: int) -> None:
    config = configured(f"[ingress]\nport = {taken}\n")
    presence = announce(config, "ingress")
    assert is_ours("127.0.0.1", taken) and list(try_ports(config, "ingress")) == []
    announce(config, "ingress").close()  # a replica beside it takes nothing away when it ends
    assert list(try_ports(config, "ingress")) == []
    presence.close()
    assert [one.where for one in try_ports(config, "ingress")] == ["ingress.port"]


def test_a_free_port_is_left_as_it_was() -> None:
    port = free_port()
    config = configured(f"[ingress]\nport = {port}\n")
    assert list(try_ports(config, "ingress")) == []
    socket.create_server(("127.0.0.1", port)).close()


def test_an_address_that_is_not_ours() -> None:
    (one,) = try_ports(configured(f"[ingress]\nhost = '192.0.2.1'\nport = {free_port()}\n"), "ingress")
    assert (one.where, one.message) == ("ingress.port", "192.0.2.1 is no address of this machine")
    (one,) = try_ports(configured(f"[ingress]\nhost = 'no such host'\nport = {free_port()}\n"), "ingress")
    assert one.message == "no such host is no address of this machine"


# url, code, whether waiting may heal it, words
WRONG = {
    "no URL": ("nonsense:of a S3CRET", "database-url", False, "cannot be read"),
    "scheme": ("oracle://u:S3CRET@h/d", "database-scheme", False, "a database of the kind 'oracle'"),
    "a driver that is not known": ("postgresql+foo://u:S3CRET@h/d", "database-scheme", False, "'postgresql+foo'"),
    "a driver that is not installed": ("postgresql+asyncpg://u:S3CRET@h/d", "database-driver", False, "asyncpg"),
    "port": ("postgresql+psycopg://u:S3CRET@127.0.0.1:{port}/d", "database-unreachable", True, "nobody listens there"),
    "host": ("postgresql+psycopg://u:S3CRET@host.invalid/d", "database-unreachable", True, "name is not known"),
    "port that is none": ("postgresql+psycopg://u:S3CRET@h:port/d", "database-url", False, "cannot be read"),
    "no file of SQLite": ("sqlite:///{folder}/gateway.toml", "database-file", False, "not a database"),
}


@pytest.mark.parametrize(("url", "code", "heals", "words"), WRONG.values(), ids=WRONG)
def test_a_database_that_cannot_be_reached(url: str, code: str, heals: bool, words: str, tmp_path: Path) -> None:
    """In the check: one finding. At a role's start: one error, of the kind that says whether waiting can heal it."""
    (tmp_path / "gateway.toml").write_text("no database, but long enough to be taken for the head of one" * 20)
    url = url.format(port=free_port(), folder=tmp_path)
    (one,) = try_the_database(configured(f"[database]\nurl = '{url}'\n", tmp_path))
    assert (one.level, one.where, one.keeps_from_starting) == ("error", "database.url", not heals)
    assert words in one.message and one.hint
    with pytest.raises(GatewayError) as caught:
        open_database(url)
    assert (caught.value.code, type(caught.value)) == (code, UnreachableError if heals else ConfigError)
    assert "S3CRET" not in f"{one.message}{one.hint}{caught.value}"
    error = caught.value  # no driver's text in a traceback
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)


def test_an_embedded_database_that_is_not_there_yet_is_right_and_is_not_made(tmp_path: Path) -> None:
    config = configured(f"[site]\nstate = '{tmp_path}/state'\n")
    assert list(try_the_database(config)) == []
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_database_is_looked_at_while_it_is_in_use(tmp_path: Path) -> None:
    config = configured(f"[site]\nstate = '{tmp_path}'\n")
    engine = open_database(config.database_url)
    before = (tmp_path / "gateway.sqlite").read_bytes()
    assert list(try_the_database(config)) == []
    assert (tmp_path / "gateway.sqlite").read_bytes() == before
    engine.dispose()


def test_the_embedded_database_lies_where_several_users_share_it(tmp_path: Path) -> None:
    config = configured(f"[site]\nstate = '{tmp_path}'\n")
    assert config.database_url == sqlite_url(tmp_path / "gateway.sqlite")
    (tmp_path / "database").mkdir()
    (tmp_path / "database").chmod(0o2770)
    assert config.database_url == sqlite_url(tmp_path / "database" / "gateway.sqlite")
    engine = open_database(config.database_url)
    with engine.connect():
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "database").iterdir()}
    engine.dispose()
    assert modes and set(modes.values()) == {0o660}, modes


def test_a_device_that_is_not_there() -> None:
    config = configured("[worker]\ndevice = 'cuda:99'\n")
    for role in ("all", "worker"):
        (one,) = try_device(config, role)
        assert (one.level, one.where) == ("error", "worker.device")
    assert list(try_device(config, "ingress")) == []
    assert list(try_device(configured("[worker]\ndevice = 'cpu'\n"), "worker")) == []


def test_a_device_that_does_not_compute(monkeypatch) -> None:
    from gateway.mark import device

    monkeypatch.setattr(device, "resolve_device", lambda name: torch.device("meta"))
    (one,) = try_device(configured("[worker]\ndevice = 'cuda:0'\n"), "worker")
    assert one.message == "cuda:0 does not compute"
