"""A vault full of real originals, a restore SCP in front of it, and workstations that may use it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config.models import Restore, Tls, Workstation
from gateway.dicom.pixels.children.pool import Limits
from gateway.network.admission import Counts
from gateway.network.retrieve import RestoreScp
from gateway.network.retrieve.dicomweb import RestoreWeb
from gateway.network.retrieve.dicomweb.bearer import Bearer
from gateway.network.tls import certificate_facts
from gateway.restore import Viewer
from tests.network.conftest import ReadableAudit
from tests.support.network.certificates import Authority
from tests.support.retrieve.samples import samples
from tests.support.retrieve.vaults import Site, build_site

LOCAL = ("127.0.0.1",)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The vault that tests read from; none of them changes it."""
    return build_site(tmp_path_factory.mktemp("site"), samples())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> Tls:
    return authority.issue("restore")


@pytest.fixture(scope="session")
def reading_tls(authority: Authority) -> Tls:
    """The certificate of the workstation READING1."""
    return authority.issue("reading1")


@pytest.fixture
def start_scp(audit: ReadableAudit, site: Site) -> Iterator[Callable[..., RestoreScp]]:
    """Start a restore SCP on free ports; keyword arguments go into its configuration."""
    started: list[RestoreScp] = []

    def start(*workstations: Workstation, of: Site = site, **settings: object) -> RestoreScp:
        ports = {"plain_port": 0}
        if "tls" in settings:
            ports["tls_port"] = 0
        settings = {"idle_timeout_s": 30, "handshake_timeout_s": 5, "tls_port": None, "plain_port": 1, **settings}
        if "tls" in settings:
            settings["tls_port"] = 1
        # Port 0, any free one, is for tests only: the model asks for a number that a peer can be told.
        config = Restore(workstations=workstations, **settings).model_copy(update=ports)
        scp = RestoreScp(config, of.index, of.restorer, audit)
        scp.start()
        started.append(scp)
        return scp

    yield start
    for scp in started:
        scp.stop(drain_s=0.2)


@pytest.fixture
def start_web(audit: ReadableAudit, site: Site, server_tls: Tls, viewer: Viewer) -> Iterator[Callable[..., RestoreWeb]]:
    """Start the restore role's port for DICOMweb on a free port; keyword arguments go into its configuration."""
    started: list[RestoreWeb] = []

    def start(
        *workstations: Workstation,
        of: Site = site,
        after: RestoreWeb | None = None,
        bearer: Bearer | None = None,
        **settings: object,
    ) -> RestoreWeb:
        settings = {"idle_timeout_s": 30, "handshake_timeout_s": 5, "tls": server_tls, "dicomweb_port": 1, **settings}
        config = Restore(workstations=workstations, **settings).model_copy(update={"dicomweb_port": 0})
        web = RestoreWeb(config, of.index, of.restorer, audit, Counts(), viewer, bearer)
        web.bind(after)
        web.start()
        started.append(web)
        return web

    yield start
    for web in started:
        web.stop(drain_s=0.2)


@pytest.fixture(scope="session")
def viewer() -> Iterator[Viewer]:
    """One that outlives the ports, so that its children are started once."""
    viewer = _Kept(Limits(processes=1))
    ct = samples()[0]
    viewer.metadata([ct.data], ct.transfer_syntax, "")  # starts its child: a busy machine takes long
    yield viewer
    Viewer.close(viewer)


class _Kept(Viewer):
    def close(self) -> None:
        """Not before the last test."""


def plain(ae_title: str = "READING1", port: int | None = None, **more: object) -> Workstation:
    """A workstation without TLS; `port` is where it receives on this machine."""
    where = {"host": "127.0.0.1", "port": port, "receive_plain": True} if port else {}
    return Workstation(**{"ae_title": ae_title, "addresses": LOCAL, "plain": True, **where, **more})


def bound(tls: Tls, ae_title: str = "READING1", port: int | None = None, **more: object) -> Workstation:
    """A workstation that is known by the key of its certificate."""
    where = {"host": "127.0.0.1", "port": port} if port else {}
    return Workstation(
        **{"ae_title": ae_title, "addresses": LOCAL, "key_sha256": (key_of(tls.certificate),), **where, **more}
    )


def lines_soon(audit: ReadableAudit, event: str) -> list[dict]:
    """The audit's lines of one event, once there are any: some are written after the peer was answered."""
    deadline = time.monotonic() + 60
    while not (lines := audit.lines(event)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return lines


def key_of(certificate: Path) -> str:
    return certificate_facts(ssl.PEM_cert_to_DER_cert(certificate.read_text())).key_sha256
