"""deploy/upgrade.sh and its way back on PostgreSQL, with the gateway's own commands and the systemd of `fakehost`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, inspect, select

from gateway.database import InstanceRow
from tests.service.test_installed import NEWER
from tests.support.fakehost import Host
from tests.support.units import REPOSITORY

pytestmark = [pytest.mark.full, pytest.mark.peers, pytest.mark.timeout(3600)]

PROGRAM = """#!/bin/sh
PYTHONPATH={code} exec {python} -Pc 'from gateway.cli import main; main()' "$@"
"""
SYSTEMCTL = """#!/bin/sh
unit=; for word; do case "$word" in miad-gateway-*) unit=${unit:-$word} ;; esac; done
case "$1 $3" in
    "is-enabled miad-gateway-page.service") exit 1 ;;
    "show ActiveState") [ -e "$HOST/active/$unit" ] && echo active || echo inactive ;;
    "show NRestarts") echo 0 ;;
    show*) echo word ;;
esac
case "$1" in start) touch "$HOST/active/$unit" ;; stop) rm -f "$HOST/active/$unit" ;; esac
"""


class RealHost(Host):
    """A host whose releases are this code, each with a version of its own."""

    def prepare(self, version: str) -> None:
        """The checkout of a release, and its environment."""
        self.checkout(version)
        code = self.folder / "code" / version
        for name in ("gateway", "plugins"):
            shutil.copytree(REPOSITORY / name, code / name)  # with what is compiled, which its times keep valid
        init = code / "gateway" / "__init__.py"
        init.write_text(re.sub(r"__version__ = .*", f'__version__ = "{version}"', init.read_text()))
        program = self.folder / "venvs" / version / "bin" / "miad-gateway"
        self.program(program, PROGRAM.format(code=code, python=sys.executable))

    def gateway(self, version: str, *words: str) -> str:
        """What a command of a release writes."""
        command = [str(self.folder / "venvs" / version / "bin" / "miad-gateway"), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self, version: str) -> dict[str, str]:
        """Schema and digest, as a release tells them."""
        return json.loads(
            self.gateway(version, "database", "show", "--json", "--config", str(self.folder / "etc" / "gateway.toml"))
        )


def receive(url: str, name: str) -> None:
    """As `add_instance`, whatever schema the database has."""
    words = ("state", "route", "calling_ae", "called_ae", "peer_address", "association_id", "sop_class_uid")
    words += ("sop_instance_uid", "transfer_syntax_uid", "sha256")
    engine = create_engine(url)
    with engine.begin() as connection:
        row = {"id": name, "size": 1, "received_at": 1.0, **dict.fromkeys(words, "received")}
        connection.execute(insert(InstanceRow.__table__).values(**row))
    engine.dispose()


def holds(url: str) -> tuple[set[str], bool]:
    """Ids of the instances, and whether the newer release's table is there."""
    engine = create_engine(url)
    with engine.connect() as connection:
        ids = set(connection.scalars(select(InstanceRow.__table__.c.id)))
    found = "of_a_newer_release" in inspect(engine).get_table_names()
    engine.dispose()
    return ids, found


def test_there_and_back_and_there_again(postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing since, the copy is put back whole, else the schema goes back with all rows; then it goes on."""
    monkeypatch.setenv("MIAD_TEST_DATABASE", postgresql_url)
    (tmp_path / "host").mkdir()
    host = RealHost(tmp_path / "host")
    old, new = "0.8.0", "0.9.0"
    for version in (old, new):
        host.prepare(version)
    host.program(host.folder / "bin" / "systemctl", SYSTEMCTL)
    etc = host.folder / "etc"
    shutil.rmtree(etc)
    site = ["--yes", "--archive", "ARCHIVE@127.0.0.1", "--destination", "SINK@127.0.0.1:11113", "--tls", "no"]
    host.gateway(old, "init", str(etc), *site, "--workstation", "READER@127.0.0.1")
    text = (etc / "gateway.toml").read_text()
    (etc / "gateway.toml").write_text(text + '\n[database]\nurl = "env:MIAD_TEST_DATABASE"\n')
    host.run(old, "install.sh")
    host.gateway(old, "database", "upgrade", "--config", str(etc / "gateway.toml"))
    receive(postgresql_url, "before")
    before = host.show(old)
    versions = host.folder / "code" / new / "gateway" / "database" / "migrations" / "versions"
    (versions / "9990_newer.py").write_text(NEWER.format(head=before["revision"]))

    for _ in range(2):
        host.upgrade(new)
        assert host.version() == new and host.show(new)["revision"] == "9990"
        told = host.back(new).stderr
        assert "put back as it was" in told and host.version() == old
        assert host.show(old) == before and holds(postgresql_url) == ({"before"}, False)
    host.upgrade(new)
    receive(postgresql_url, "since")
    told = host.back(new).stderr
    assert "with all rows" in told and host.show(old)["revision"] == before["revision"]
    assert holds(postgresql_url) == ({"before", "since"}, False)
