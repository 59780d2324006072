"""The demo's site: a folder with keys, certificates, ports and `gateway.toml`, made when missing, kept when there."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gateway.config.models import Tls
from gateway.demo.certificates import key_sha256, make_certificates
from gateway.errors import GatewayError
from gateway.keys.generate import PRIVATE_NAMES, PUBLIC_NAMES, make_keys

ARCHIVE_AE = "ARCHIVE"
GATEWAY_AE = "MIAD_GATEWAY"  # called by the archive, calling the outside PACS
OUTSIDE_AE = "OUTSIDE"
RESTORE_AE = "MIAD_RESTORE"
WORKSTATION_AE = "WORKSTATION"
STRANGER_AE = "STRANGER"

LOOPBACK = "127.0.0.1"
DESTINATION = "outside"

# Below the ports that systems give to outgoing connections (Linux: from 32768, IANA: from 49152).
PORT_RANGE = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    gateway: int
    restore: int
    archive: int
    archive_http: int
    outside: int
    outside_http: int


@dataclass(frozen=True)
class Site:
    """Where the demo's files lie."""

    folder: Path
    ports: Ports

    @property
    def config_file(self) -> Path:
        """The gateway's configuration."""
        return self.folder / "gateway.toml"

    @property
    def logs(self) -> Path:
        """What the programs of the demo write."""
        return self.folder / "logs"

    def tls(self, name: str) -> Tls:
        """Certificate, key and trust of ``server``, ``workstation`` or ``stranger``."""
        folder = self.folder / "certificates"
        return Tls(certificate=folder / f"{name}.pem", private_key=folder / f"{name}.key", trust=folder / "ca.pem")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within, no other demo runs in `folder`, which is made when missing: each empties both archives at its start.

    Raises
    ------
    GatewayError
        Code ``demo-runs``.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / "lock", "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GatewayError(
                "demo-runs", f"another demo runs in {folder}", "end it with Ctrl-C, or give another --folder"
            ) from None
        yield


def prepare_site(folder: Path, is_free: Callable[[int], bool] | None = None) -> Site:
    """Make what is missing of a site in `folder` (mode 0700) and return it.

    Keys and certificates are never replaced. When a port is taken, all ports are chosen anew and `gateway.toml` is
    written again.

    Parameters
    ----------
    is_free
        Whether a port can be listened on; `port_is_free` when None.

    Raises
    ------
    ConfigError
        ``keys-exist``: some of the keys are there and some are not.
    """
    is_free = is_free or port_is_free
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = folder / "keys"
    if not all((keys / name).is_file() for name in PRIVATE_NAMES + PUBLIC_NAMES):
        make_keys(keys)
    make_certificates(folder / "certificates")
    known = _load_ports(folder / "ports.json")
    ports = known if known and all(map(is_free, asdict(known).values())) else _choose_ports(is_free)
    site = Site(folder, ports)
    site.logs.mkdir(mode=0o700, exist_ok=True)
    if ports != known or not site.config_file.is_file():
        _write(site.config_file, config_text(site))
        _write(folder / "ports.json", json.dumps(asdict(ports), indent=1) + "\n")
    return site


def port_is_free(port: int) -> bool:
    """Whether one could listen on this port now; a connection that is only waiting to be forgotten does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))  # Orthanc's DICOM server listens on every address
            probe.listen(1)
        except OSError:
            return False
    return True


def config_text(site: Site) -> str:
    """`gateway.toml` of the demo: one archive, one route, one destination outside, one authorized workstation."""
    binding = key_sha256(site.tls("workstation").certificate)
    return f"""\
# Made by `miad-gateway demo`. Kept as it is while its ports are free; deploy/gateway.toml explains every setting.
version = 1

[site]
name = "demo"
state = "state"
contact = "{RESTORE_AE}"

[ingress]
host = "{LOOPBACK}"
port = {site.ports.gateway}
min_free_mib = 64
peers = [{{ ae_title = "{ARCHIVE_AE}", addresses = ["{LOOPBACK}"] }}]

[[routes]]
name = "research"
called_ae = "{GATEWAY_AE}"
destinations = ["{DESTINATION}"]
mark = {{ tier = "lettered", steps = 40 }}  # half the default, so that nobody waits long

[[destinations]]
name = "{DESTINATION}"
type = "research"
ae_title = "{OUTSIDE_AE}"
calling_ae = "{GATEWAY_AE}"
host = "{LOOPBACK}"
port = {site.ports.outside}
retry_first_s = 0.5

[restore]
ae_title = "{RESTORE_AE}"
host = "{LOOPBACK}"
tls_port = {site.ports.restore}

[restore.tls]
certificate = "certificates/server.pem"
private_key = "certificates/server.key"
trust = "certificates/ca.pem"

[[restore.workstations]]
ae_title = "{WORKSTATION_AE}"
addresses = ["{LOOPBACK}"]
key_sha256 = ["{binding}"]
"""


def _load_ports(path: Path) -> Ports | None:
    """The ports of an earlier run; None when there are none that can be used."""
    try:
        found = json.loads(path.read_text())
        return Ports(**{field.name: int(found[field.name]) for field in fields(Ports)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _choose_ports(is_free: Callable[[int], bool]) -> Ports:
    chosen: list[int] = []
    for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if len(chosen) == len(fields(Ports)):
            break
        if is_free(port):
            chosen.append(port)
    return Ports(*chosen)


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    with open(partial, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    os.replace(partial, path)
