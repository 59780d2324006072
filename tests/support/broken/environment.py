"""What is wrong around the gateway: ports, folders, database, peers, the clock."""

from __future__ import annotations

import os
import socket

from tests.support.broken.site import Row, Site, add, put

NOBODY = "nobody.invalid"


def _taken(site: Site) -> None:
    site.held.enter_context(socket.create_server(("127.0.0.1", site.ports["ingress"])))


def _database(site: Site):
    from gateway.config import load_config
    from gateway.database import open_database

    config = load_config(site.file)
    config.site.state.mkdir(mode=0o700)
    return open_database(config.database_url)


def _newer(site: Site) -> None:
    from sqlalchemy import text

    with _database(site).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


def _clock(site: Site) -> None:
    from gateway.database.engine import transaction
    from gateway.database.tables import ClockRow

    with transaction(_database(site)) as session:
        session.add(ClockRow(id=1, seen_at=1.0, stopped_at=2.0, reason="ahead", confirmed=0))


def _no_database(site: Site) -> None:
    (site.folder / "gateway.sqlite").write_bytes(b"no database " * 1000)
    site.add(f"[database]\nurl = 'sqlite:///{site.folder}/gateway.sqlite'")


def _of_another(name: str):
    """A file or folder that belongs to somebody else and is closed to others."""

    def breaks(site: Site) -> None:
        path = site.folder / name
        if not path.exists():
            path.mkdir()
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, 65534, 65534)

    return breaks


def _port_104(site: Site) -> None:
    site.put(f"port = {site.ports['ingress']}", "port = 104")


def _url(url: str):
    return add(f'[database]\nurl = "{url}"')


ROWS = (
    Row(
        "a port that another program has",
        _taken,
        2,
        ("ingress.port", "is taken by another program", "choose another"),
        "doctor",
    ),
    Row(
        "a taken port, at the start", _taken, 2, ("ingress.port", "is taken by another program"), "serve --role ingress"
    ),
    Row(
        "a host that is not this machine",
        put("[page]\n", '[page]\nhost = "192.0.2.1"\n'),
        2,
        ("page.port", "is no address of this machine", "0.0.0.0"),
    ),
    Row(
        "a state folder that is a file",
        lambda site: (site.folder / "state").write_text(""),
        2,
        ("site.state", "folder"),
    ),
    Row(
        "a state folder below a file",
        put('name = "hospital"', 'name = "hospital"\nstate = "gateway.toml/state"'),
        2,
        ("site.state", "cannot be made"),
    ),
    Row(
        "a database that nobody serves",
        _url("postgresql+psycopg://a:S3CRET@127.0.0.1:9/g"),
        4,
        ("database", "nobody listens there"),
        "serve --role ingress",
    ),
    Row(
        "a database that nobody serves, by the doctor",
        _url("postgresql+psycopg://a:S3CRET@127.0.0.1:9/g"),
        4,
        ("database", "nobody listens there"),
        "doctor",
    ),
    Row("a driver that is none", _url("postgresql+nodriver://a:S3CRET@h/g"), 2, ("database.url", "kind"), "serve"),
    Row("a URL of a database that is none", _url("localhost:5432"), 2, ("database.url",)),
    Row("a newer database than this release", _newer, 2, ("newer version of the gateway",), "serve --role ingress"),
    Row("a database that is another file", _no_database, 2, ("database",)),
    Row("a destination that is down", lambda site: None, 4, ("pacs", "cannot connect", "is it running?"), "doctor"),
    Row(
        "a destination without an address",
        put('ae_title = "PACS"\nhost = "127.0.0.1"', f'ae_title = "PACS"\nhost = "{NOBODY}"'),
        4,
        (NOBODY, "no address is known"),
        "doctor",
    ),
    Row("a clock that nobody believes", _clock, 2, ("clock", "is not believed", "clock confirm"), "doctor"),
    Row("a device that is not there", add('[worker]\ndevice = "cuda:99"'), 2, ("worker.device",)),
    Row(
        "MIAD_GATEWAY_CONFIG names no file",
        lambda site: None,
        2,
        ("no-such.toml", "cannot be read"),
        "status",
        {"MIAD_GATEWAY_CONFIG": "no-such.toml"},
    ),
    Row(
        "a port under 1024, without the right to it",
        _port_104,
        2,
        ("ingress.port", "may not listen on port 104", "1024"),
        rights=False,
    ),
    Row("a key of another user", _of_another("keys/uid.key"), 2, ("keys.uid_key", "Permission denied"), rights=False),
    Row("a state folder of another user", _of_another("state"), 2, ("site.state", "write to"), rights=False),
    Row(
        "a configuration of another user",
        _of_another("gateway.toml"),
        2,
        ("gateway.toml", "cannot be read: Permission denied"),
        rights=False,
    ),
    Row(
        "a configuration of another user, at the start",
        _of_another("gateway.toml"),
        2,
        ("gateway.toml", "cannot be read: Permission denied"),
        "serve",
        rights=False,
    ),
)
