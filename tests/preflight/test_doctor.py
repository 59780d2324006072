"""The doctor: what is right is said to be, and each thing that is broken is told of with its cure."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit import AuditLog
from gateway.config import load_config
from gateway.database import ClockRow, open_database, transaction
from gateway.keys.certificates import Authority, general_name, make_authority, make_leaf
from gateway.keys.generate import make_keys
from gateway.network.presence import announce
from gateway.preflight.doctor import AREAS, Examined, examine
from tests.conftest import needed
from tests.support.cli_certificates import make_certificate
from tests.support.network import peers

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """deploy/gateway.toml on free ports, with keys and certificates; nothing listens at its destination."""
    file = tmp_path / "site" / "gateway.toml"
    file.parent.mkdir()
    text = (REPOSITORY / "deploy" / "gateway.toml").read_text("utf-8")
    for written in ("port = 11112", "port = 11113", "tls_port = 2762"):
        text = re.sub(rf"^{written}\b", f"{written.rpartition(' ')[0]} {peers.free_port()}", text, flags=re.MULTILINE)
    file.write_text(text, "utf-8")
    make_keys(file.parent / "keys")
    authority, _ = make_authority(file.parent / "tls", "site", 60)
    make_leaf(file.parent / "tls", "restore", authority, [general_name("localhost")], 60)
    return file


@pytest.fixture
def outside(site: Path) -> Iterator[Path]:
    """The site with a real PACS as its destination."""
    with peers.orthanc("RESEARCH_PACS") as pacs:
        to(site, pacs.port)
        yield site


def to(site: Path, port: int) -> None:
    (destination,) = load_config(site).destinations
    site.write_text(site.read_text().replace(f"port = {destination.port}", f"port = {port}"))


def look(site: Path) -> list[Examined]:
    return examine(load_config(site), AuditLog(site.parent / "audit.jsonl"))


def of(found: list[Examined], area: str, level: str) -> list[str]:
    return [one.message for one in found if (one.area, one.level) == (area, level)]


@pytest.mark.peers
def test_a_site_in_order_has_something_to_say_of_every_area(outside: Path) -> None:
    presence = announce(load_config(outside), "all")
    try:
        found = look(outside)
    finally:
        presence.close()
    assert [one for one in found if one.level != "ok"] == []
    assert list(dict.fromkeys(one.area for one in found)) == list(AREAS)
    (accepts,) = of(found, "destinations", "ok")
    assert "CT" in accepts and "explicit, implicit" in accepts
    assert not (outside.parent / "state").exists()  # a look changes nothing


@pytest.mark.peers
def test_what_a_destination_does_not_accept_is_told_of(site: Path, tmp_path: Path) -> None:
    """DCMTK's storescp takes uncompressed images only."""
    with peers.storescp(tmp_path / "store") as port:
        to(site, port)
        site.write_text(
            site.read_text().replace('# transfer_syntaxes = ["explicit", "implicit"]', 'transfer_syntaxes = ["htj2k"]')
        )
        found = look(site)
    assert ["accepts no image" in message for message in of(found, "destinations", "error")] == [True]


@pytest.mark.peers
@pytest.mark.parametrize(("option", "told"), [("--fork", []), ("--single-process", ["grants 1 at a time of the 3"])])
def test_workers_that_would_wait_for_each_other_at_a_destination_are_told_of(site, tmp_path, option, told) -> None:
    port = peers.free_port()
    site.write_text(site.read_text() + "\n[worker]\nprocesses = 3\n")
    to(site, port)
    (tmp_path / "store").mkdir()
    with peers.running("storescp", option, "-od", tmp_path / "store", port, port=port):
        found = look(site)
    assert load_config(site).worker.processes == 3
    assert len(of(found, "destinations", "ok")) == 1
    warnings = [message for message in of(found, "destinations", "warning") if "at a time" in message]
    assert [message[: len("grants 1 at a time of the 3")] for message in warnings] == told


def test_a_destination_that_is_down_is_unreachable_and_nothing_else_is_wrong(site: Path) -> None:
    errors = [one for one in look(site) if one.level == "error"]
    assert [(one.area, one.where, one.unreachable) for one in errors] == [("destinations", "research-pacs", True)]


def broken_name(site: Path) -> None:
    site.write_text(site.read_text().replace('host = "127.0.0.1"\nport', 'host = "nobody.invalid"\nport'))


def wrong_pair(site: Path) -> None:
    make_keys(site.parent / "other")
    shutil.copy(site.parent / "other" / "restore.public.pem", site.parent / "keys")


def full_disk(site: Path) -> None:
    site.write_text(site.read_text().replace("# min_free_mib = 512 ", "min_free_mib = 900000000 "))


def ended(site: Path) -> None:
    make_certificate(site.parent / "tls", "restore", days=-1, begun=30)


def old_schema(site: Path) -> None:
    with transaction(site_database(site)) as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")


def newer_schema(site: Path) -> None:
    with transaction(site_database(site)) as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")


def wrong_clock(site: Path) -> None:
    with transaction(site_database(site)) as session:
        session.add(ClockRow(id=1, seen_at=1.0, stopped_at=2.0, reason="ahead", confirmed=0))


def no_device(site: Path) -> None:
    site.write_text(
        site.read_text().replace("# [worker]", "[worker]").replace('# device = "auto"', 'device = "cuda:99"')
    )


def little_memory(site: Path) -> None:
    """So little processor time that no codec can have any."""
    site.write_text(
        site.read_text().replace("# [codecs]", "[codecs]").replace("# frame_seconds = 2.0", "frame_seconds = 1e-9")
    )


def no_store(site: Path) -> None:
    needed("obstore")
    for name in ("id", "key"):
        key = site.parent / "keys" / name
        key.touch(mode=0o600)
        key.write_text("x")
    table = [
        "[store]",
        'url = "s3://vault/site"',
        f'endpoint = "http://127.0.0.1:{peers.free_port()}"',
        'access_key_id = "file:keys/id"',
        'secret_access_key = "file:keys/key"',
        "timeout_s = 1",
    ]
    site.write_text(site.read_text() + "\n" + "\n".join(table) + "\n")


def site_database(site: Path):
    config = load_config(site)
    config.site.state.mkdir(mode=0o700)
    return open_database(config.database_url)


@pytest.mark.parametrize(
    ("breaks", "area", "level", "words"),
    [
        (broken_name, "names", "error", "no address is known for nobody.invalid"),
        (wrong_pair, "keys", "error", "is the proof of another"),
        (full_disk, "disk", "error", "the archive is told to wait"),
        (ended, "certificates", "error", "ended on"),
        (old_schema, "database", "warning", "its schema is 0001"),
        (newer_schema, "database", "error", "newer version"),
        (wrong_clock, "clock", "error", "is not believed since"),
        (no_device, "device", "error", "cuda:99"),
        (little_memory, "codecs", "error", "does not work"),
        (no_store, "store", "error", "(bucket vault) cannot be used: no answer"),
    ],
)  # fmt: skip
def test_each_broken_thing_is_told_of_with_its_cure(site: Path, breaks, area: str, level: str, words: str) -> None:
    breaks(site)
    found = look(site)
    told = [one for one in found if (one.area, one.level) == (area, level) and words in one.message]
    assert told and all(one.hint for one in told), found
    assert not any(one.area == area and one.level == "ok" and one.where == told[0].where for one in found)


def test_nothing_hides_behind_a_missing_key(site: Path) -> None:
    (site.parent / "keys" / "spool.key").unlink()
    with socket.create_server(("127.0.0.1", load_config(site).ingress.port)):
        found = look(site)
    assert of(found, "keys", "error") and any("is taken" in message for message in of(found, "ports", "error"))


def test_a_chain_that_ends_in_the_air_is_told_of(site: Path) -> None:
    tls = site.parent / "tls"
    for name in ("restore.pem", "restore.key"):
        (tls / name).unlink()
    make_leaf(tls, "restore", Authority.make("elsewhere", 30), [general_name("localhost")], 20)
    assert any("neither in it nor in the trust" in one for one in of(look(site), "certificates", "warning"))
