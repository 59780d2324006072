"""The first configuration of a site, written from a few answers: short, commented, and accepted by the check."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import ConfigError

ROUTE, DESTINATION = "outside", "outside-pacs"
UNITS_STATE = "/var/lib/miad-gateway"
"""The state folder that deploy/systemd/ makes, with a part for each role's user."""
_NODE = re.compile(r"(?P<ae>[^@]+)@(?P<host>\[[^]]+\]|[^:@\s]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True)
class Node:
    """An AE as people write it: AE@HOST or AE@HOST:PORT, an IPv6 address in brackets."""

    ae_title: str
    host: str
    port: int | None

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_node(text: str, *, address: bool = False, port: bool = False) -> Node:
    """Read AE@HOST[:PORT].

    Parameters
    ----------
    address
        HOST must be an IP address: it is held against where connections come from.
    port
        PORT must be there.

    Raises
    ------
    ConfigError
        ``bad-node``.
    """
    wanted = f"AE@{'ADDRESS' if address else 'HOST'}{':PORT' if port else '[:PORT]'}"
    found = _NODE.fullmatch(text.strip())
    node = (
        Node(found["ae"], found["host"].strip("[]"), int(found["port"]) if found["port"] else None) if found else None
    )
    title = node.ae_title.strip() if node else ""
    if not node or not 1 <= len(title) <= 16 or "\\" in title or not (title.isascii() and title.isprintable()):
        raise ConfigError(
            "bad-node",
            f"{text!r} does not read {wanted}",
            "as ARCHIVE@10.1.0.5 or A@[fd00::1]:104; an AE title has at most 16 characters",
        )
    if (port and node.port is None) or (node.port is not None and not 1 <= node.port <= 65535):
        raise ConfigError("bad-node", f"{text!r} does not read {wanted}", "a port is a number from 1 to 65535")
    if address:
        try:
            ipaddress.ip_address(node.host)
        except ValueError:
            message = f"{node.host!r} is no IP address, and connections are known by theirs"
            raise ConfigError("bad-node", message, f"write {wanted}, as ARCHIVE@10.1.0.5") from None
    return node


@dataclass(frozen=True)
class Start:
    """What a site says of itself at the beginning.

    Attributes
    ----------
    workstation
        That may get originals; None: nobody may yet.
    tls
        Folder of certificates as seen from the configuration file: ``restore.pem``, ``restore.key``, ``trust``, and
        ``gateway.pem``, ``gateway.key`` where `archive_tls` or `destination_tls` say so. Empty: no TLS anywhere.
    binding
        The line that binds the workstation to its certificate.
    units
        Each role is a service with a user of its own (``deploy/systemd/``): systemd hands the keys over, the state
        folder is `UNITS_STATE`, and the worker has a pair of TLS files of its own (``worker.pem``, ``worker.key``).
    """

    site: str
    archive: Node
    destination: Node
    workstation: Node | None
    tls: str
    binding: str = ""
    called_ae: str = "MIAD_GATEWAY"
    port: int = 11112
    restore_port: int = 2762
    archive_tls: bool = False
    destination_tls: bool = False
    page_port: int = 8480
    units: bool = False

    @property
    def sending(self) -> str:
        """The stem of the TLS files that the worker sends with."""
        return "worker" if self.units else "gateway"


def starter_text(start: Start) -> str:
    """The text of ``gateway.toml``."""
    return "\n".join(_lines(start)) + "\n"


def _lines(start: Start) -> Iterator[str]:
    archive, destination = start.archive, start.destination
    yield "# Made by `miad-gateway init`. deploy/gateway.toml explains every key and all that are not here."
    yield "# After a change: miad-gateway config check --config gateway.toml"
    yield ""
    yield "version = 1"
    yield ""
    yield "[site]"
    yield f"name = {_text(start.site)}   # names the vault inside key references: do not change it later"
    state = UNITS_STATE if start.units else "state"
    yield f'state = "{state}"   # spool, vault, database and audit; at least as large as what leaves in a month'
    yield 'contact = ""   # whom a reader of a marked copy may ask for the original'
    yield ""
    yield "# Made once by `miad-gateway keys make`. Back them up: without them no original comes back."
    if start.units:
        yield "# systemd hands each role its own. By hand, as root: CREDENTIALS_DIRECTORY=/etc/miad-gateway/keys"
    at = "credential:" if start.units else "file:keys/"
    yield "[keys]"
    yield f'restore_public_key = "{at}restore.public.pem"'
    yield f'restore_private_key = "{at}restore.private.pem"   # only the restore role reads it'
    yield f'signing_key = "{at}signing.private.pem"'
    yield f'trusted_signers = ["{at}signing.public.pem"]'
    yield f'spool_key = "{at}spool.key"'
    yield f'uid_key = "{at}uid.key"   # never rotate it'
    yield f'mark_key = "{at}mark.key"'
    yield ""
    yield "# --- The archive sends here."
    yield "[ingress]"
    yield f"host = {_text(_listen(archive))}   # 127.0.0.1: this machine only; 0.0.0.0: every interface"
    yield f"port = {start.port}"
    if start.archive_tls:
        yield from _tls("ingress.tls", start.tls, "gateway")
    yield ""
    yield "# Who may send, and from where; everyone else is rejected."
    yield "[[ingress.peers]]"
    yield f"ae_title = {_text(archive.ae_title)}"
    yield f"addresses = [{_text(archive.host)}]"
    yield ""
    yield "# --- What the archive sends to this AE title is marked and goes to these destinations."
    yield "[[routes]]"
    yield f'name = "{ROUTE}"'
    yield f"called_ae = {_text(start.called_ae)}"
    yield f'destinations = ["{DESTINATION}"]'
    yield '# mark = { tier = "lettered" }   # or "discreet": nothing visible, and next to no effect on foreign models'
    yield ""
    yield "[[destinations]]"
    yield f'name = "{DESTINATION}"'
    yield 'type = "external"   # or "research", "ai-vendor"; never a reader of diagnoses: deploy/intended-use.md'
    yield f"ae_title = {_text(destination.ae_title)}"
    yield f"host = {_text(destination.host)}"
    yield f"port = {destination.port}"
    if start.destination_tls:
        yield from _tls("destinations.tls", start.tls, start.sending)
    elif not destination.is_local:
        yield "# Copies carry the patient's data: give it a table [destinations.tls] as soon as the partner can."
    yield ""
    yield "# --- The flow in a browser on this machine, JSON under /api/v1, and /metrics for Prometheus."
    yield "[page]"
    yield f"port = {start.page_port}"
    yield ""
    yield from _restore(start)


def _restore(start: Start) -> Iterator[str]:
    yield "# --- Authorized workstations get bit-exact originals here, by C-FIND, C-MOVE, C-GET or C-STORE."
    station = start.workstation
    if station is None:
        yield "# [restore]   # nobody may yet: see [restore] and [[restore.workstations]] in deploy/gateway.toml"
        return
    yield "[restore]"
    yield 'ae_title = "MIAD_RESTORE"'
    yield f"host = {_text(_listen(station))}"
    if start.tls:
        yield f"tls_port = {start.restore_port}"
        yield from _tls("restore.tls", start.tls, "restore")
    else:
        yield "tls_port = false"
        yield f"plain_port = {start.restore_port}   # originals travel in clear text: for a closed network only"
    yield ""
    yield "# An AE title is a name, not an identity: with TLS the certificate decides."
    yield "[[restore.workstations]]"
    yield f"ae_title = {_text(station.ae_title)}"
    yield f"addresses = [{_text(station.host)}]"
    yield start.binding if start.tls else "plain = true"
    if station.port is not None:
        yield f"host = {_text(station.host)}   # where C-MOVE sends to"
        yield f"port = {station.port}"
        if not start.tls:
            yield "receive_plain = true"
    else:
        yield "# host and port: where C-MOVE sends to; without them C-GET only"


def _tls(table: str, folder: str, stem: str) -> Iterator[str]:
    yield ""
    yield f"[{table}]"
    yield f"certificate = {_text(f'{folder}/{stem}.pem')}"
    yield f"private_key = {_text(f'{folder}/{stem}.key')}"
    yield f"trust = {_text(f'{folder}/trust')}   # a file or folder: the authorities whose certificates are accepted"


def _listen(node: Node) -> str:
    return "127.0.0.1" if node.is_local else ("::" if ":" in node.host else "0.0.0.0")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a basic string of TOML, for printable text
