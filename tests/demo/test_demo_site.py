"""The demo's site: certificates that bind, ports that are free, files that are kept and closed to others."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.config import check_config, load_config
from gateway.demo.certificates import key_sha256
from gateway.demo.site import WORKSTATION_AE, Site, alone_in, port_is_free, prepare_site
from gateway.errors import GatewayError
from gateway.network.tls import PeerCertificate, client_context, peer_certificate, server_context


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    return prepare_site(tmp_path_factory.mktemp("site") / "demo")


def _shown_to_server(site: Site, client: str) -> PeerCertificate | None:
    """A TLS handshake on 127.0.0.1 as `client`: what the restore server learns of it, None when it does not agree."""
    shown: list[PeerCertificate] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(ssl.SSLError), server_context(site.tls("server")).wrap_socket(connection, True) as secure:
                shown.append(peer_certificate(secure))
                secure.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), timeout=5) as plain,
            suppress(OSError),
            client_context(site.tls(client)).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.send(b".")
        thread.join()
    return shown[0] if shown else None


def test_workstation_certificate_is_the_one_that_the_configuration_binds(site):
    (workstation,) = load_config(site.config_file).restore.workstations
    assert workstation.ae_title == WORKSTATION_AE
    assert not workstation.plain
    assert workstation.key_sha256 == (_shown_to_server(site, "workstation").key_sha256,)


def test_strangers_certificate_is_of_the_same_authority_and_not_bound(site):
    stranger = _shown_to_server(site, "stranger").key_sha256
    assert stranger == key_sha256(site.tls("stranger").certificate)
    assert stranger not in load_config(site.config_file).restore.workstations[0].key_sha256


def test_server_certificate_is_no_client_certificate(site):
    assert _shown_to_server(site, "server") is None


def test_configuration_has_no_error_and_private_files_are_closed(site):
    assert [finding for finding in check_config(load_config(site.config_file)) if finding.level == "error"] == []
    private = [*site.folder.glob("keys/*.private.pem"), *site.folder.glob("keys/*.key")]
    private += [*site.folder.glob("certificates/*.key"), site.config_file]
    assert len(private) == 9
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(site.folder.stat().st_mode) == 0o700


def test_everything_is_kept_while_the_ports_are_free(tmp_path):
    first = prepare_site(tmp_path)
    first.config_file.write_text(first.config_file.read_text() + "# a person's line\n")
    before = _contents(tmp_path)
    assert prepare_site(tmp_path) == first
    assert _contents(tmp_path) == before


def test_no_second_demo_runs_in_a_folder(tmp_path):
    """It would empty the archives of the first."""
    with alone_in(tmp_path / "demo"):
        with pytest.raises(GatewayError) as caught, alone_in(tmp_path / "demo"):
            pass
        with alone_in(tmp_path / "other"):
            pass
    assert caught.value.code == "demo-runs"
    with alone_in(tmp_path / "demo"):
        pass


def test_a_busy_port_gives_fresh_ports_and_a_new_configuration_but_the_same_keys(tmp_path):
    first = prepare_site(tmp_path)
    before = _contents(tmp_path)
    with socket.create_server(("127.0.0.1", first.ports.restore)):
        second = prepare_site(tmp_path)
    chosen = dataclasses.astuple(second.ports)
    assert first.ports.restore not in chosen
    assert len(set(chosen)) == len(chosen)
    config = load_config(second.config_file)
    assert (config.ingress.port, config.restore.tls_port, config.destinations[0].port) == (
        second.ports.gateway,
        second.ports.restore,
        second.ports.outside,
    )
    changed = {name for name, data in _contents(tmp_path).items() if before[name] != data}
    assert changed == {"gateway.toml", "ports.json"}


def test_damaged_port_file_is_written_again(tmp_path):
    prepare_site(tmp_path)
    (tmp_path / "ports.json").write_text('{"gateway": 1}')
    site = prepare_site(tmp_path)
    assert load_config(site.config_file).ingress.port == site.ports.gateway


def test_port_is_free_sees_a_listener_on_loopback():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not port_is_free(listener.getsockname()[1])


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
