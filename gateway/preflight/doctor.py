"""Everything that can be known of a site at this moment, area by area, and what to do about each finding.

What a configuration says about its machine is `preflight`, which the check and each start ask too; here it is set
beside what only running shows: room on the disks, the clock, the age of certificates, the database's schema, codecs at
work, and whether each destination answers and what it accepts.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from gateway.audit import AuditLog
from gateway.config import Config, Destination, Finding
from gateway.config.identities import issuers
from gateway.config.lines import KeyPath, format_path
from gateway.database import schema_version
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES, syntax_of
from gateway.dicom.pixels.children.pool import Limits, Pool
from gateway.dicom.pixels.facts import FrameFacts
from gateway.errors import DeliveryError, GatewayError, UnreachableError
from gateway.flow import clock
from gateway.identity.discovery import ENDPOINTS, Discovery
from gateway.identity.jwks import read_keys
from gateway.keys.certificates import chain_of
from gateway.network.egress import Egress
from gateway.network.fetching import Fetcher
from gateway.network.presence import is_ours, listeners
from gateway.preflight import preflight
from gateway.preflight.certificates import certificate_files, check_certificates, read_certificates, tls_tables
from gateway.preflight.examined import Examined
from gateway.preflight.machine import try_codecs, try_ports, try_the_database
from gateway.preflight.standby import examine_standby
from gateway.vault.objects import ObjectPayloads

AREAS = (
    "configuration",
    "keys",
    "disk",
    "clock",
    "ports",
    "names",
    "certificates",
    "device",
    "codecs",
    "database",
    "store",
    "identity",
    "destinations",
)
CODECS = ("jpeg-ls", "jpeg-2000", "htj2k", "rle")
MOST_BESIDE = 8  # associations with one destination that are tried beside each other
LOW_MIB = 4  # times what the ingress wants to be free: below it there is a warning

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "secondary capture": "1.2.840.10008.5.1.4.1.1.7",
    "VL photo": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "ophthalmic photo": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "comprehensive SR": "1.2.840.10008.5.1.4.1.1.88.33",
    "presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
}
"""What a destination is asked about: the storage SOP classes that leave most often."""


def examine(config: Config, audit: AuditLog) -> list[Examined]:
    """Look at everything, in the order of `AREAS`; nothing is changed, and only C-ECHO is sent to destinations.

    audit: each destination's answer is none of its business, but an `Egress` has one.
    """
    findings = preflight(config)
    if any(finding.level == "error" and finding.keeps_from_starting for finding in findings):
        # it ends at those; here nothing hides behind another thing
        rest = [
            *check_certificates(config, "all"),
            *try_ports(config, "all"),
            *try_the_database(config),
            *try_codecs("all"),
        ]
        findings += [finding for finding in rest if finding not in findings]
    found = [_as_examined(finding) for finding in findings]
    found += [*_disk(config), *_names(config), *_certificates(config), *_ports(config), *_device(config)]
    found += [
        *_codecs(config),
        *_database(config),
        *examine_standby(config),
        *_store(config),
        *_issuers(config),
        *_destinations(config, audit),
    ]
    troubled = {(one.area, one.where) for one in found if one.level != "ok"}
    found = [
        one for one in found if one.level != "ok" or (one.area, one.where) not in troubled or one.area == "destinations"
    ]
    known = {one.area for one in found}
    fine = {
        "configuration": "nothing in it stands against its use",
        "keys": "all are there, closed to others, and the restore keys are a pair",
        "identity": "no identity provider is to be asked",
        "codecs": f"{', '.join(CODECS)} work, in processes that can open no file and no socket",
        "names": "every host name is known",
    }
    found += [Examined(area, "ok", area, text) for area, text in fine.items() if area not in known]
    return sorted(found, key=lambda one: AREAS.index(one.area))


def _as_examined(finding: Finding) -> Examined:
    unreachable = finding.path[0] == "database" and not finding.keeps_from_starting
    area = _area(finding.path)
    return Examined(area, finding.level, finding.where, finding.message, finding.hint, unreachable)


def _area(path: KeyPath) -> str:
    if "tls" in path:
        return "certificates"
    if path[-1] in ("port", "tls_port", "plain_port", "dicomweb_port") and path[0] in ("ingress", "restore"):
        return "ports"
    if path == ("worker", "device"):
        return "device"
    if path == ("site", "state"):
        return "disk"
    return path[0] if path[0] in ("keys", "codecs", "database", "store") else "configuration"


def _disk(config: Config) -> Iterator[Examined]:
    """Room where spool, vault and database lie: each folder that is there, and each file system once."""
    state = config.site.state
    folders = [state / name for name in ("spool", "derived", "vault", "database", "audit")]
    there = [folder for folder in folders if folder.is_dir()] or [
        next(one for one in (state, *state.parents) if one.is_dir())
    ]
    seen: set[int] = set()
    least = config.ingress.min_free_mib
    for folder in there:
        if (device := folder.stat().st_dev) in seen:
            continue
        seen.add(device)
        free, status = shutil.disk_usage(folder).free >> 20, os.statvfs(folder)
        if status.f_files and not status.f_favail:
            yield Examined("disk", "error", str(folder), "no file can be made: no inode is free", "remove small files")
        if free < least:
            message = f"{free} MiB are free, and the archive is told to wait below {least} (ingress.min_free_mib)"
            yield Examined("disk", "error", str(folder), message, "make room, or move site.state to a larger disk")
        elif free < LOW_MIB * least:
            message = f"{free} MiB are free; below {least} the archive is told to wait"
            yield Examined("disk", "warning", str(folder), message, "make room soon; [retention] says what is kept")
        else:
            yield Examined("disk", "ok", str(folder), f"{free} MiB are free")


def _names(config: Config) -> Iterator[Examined]:
    """Every host that the gateway connects to has an address."""
    hosts: list[tuple[KeyPath, str]] = [
        (("destinations", index, "host"), one.host) for index, one in enumerate(config.destinations)
    ]
    for index, station in enumerate(config.restore.workstations if config.restore else ()):
        if station.host:
            hosts.append((("restore", "workstations", index, "host"), station.host))
    for path, host in hosts:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            hint = "correct it, or look at this machine's DNS (/etc/resolv.conf, /etc/hosts)"
            yield Examined(
                "names", "error", format_path(path), f"no address is known for {host}", hint, unreachable=True
            )


def _certificates(config: Config) -> Iterator[Examined]:
    """Ages and chains of our own; what has ended, or ends soon, `preflight` tells of."""
    now = datetime.now(UTC)
    for path, tls, listens in tls_tables(config, "all"):
        own = read_certificates(tls.certificate)
        if not own:
            continue  # told of already
        where = format_path((*path, "certificate"))
        known = [*own, *(one for file in certificate_files(tls.trust) for one in read_certificates(file))]
        chain = chain_of(own[0], known)
        top = (chain or [own[0]])[-1]
        left = (own[0].not_valid_after_utc - now).days
        if top.subject != top.issuer:
            message = (
                f"{tls.certificate} is signed by {top.issuer.rfc4514_string()}, which is neither in it nor in the trust"
            )
            hint = "put the intermediate certificates behind it into the same file: peers may know the root alone"
            yield Examined("certificates", "warning", where, message, hint)
        else:
            signed = " and ".join(one.subject.rfc4514_string() for one in chain) or "itself"
            text = f"{tls.certificate}: {left} days left, signed by {signed}"
            yield Examined("certificates", "ok", where, text)
        if listens and not _has_names(own[0]):
            message = f"{tls.certificate} names no host: peers that look for the name they call refuse it"
            hint = "have it made with the names of this gateway: miad-gateway certificates request --host NAME"
            yield Examined("certificates", "warning", where, message, hint)


def _has_names(certificate: object) -> bool:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from gateway.network.tls import certificate_facts

    assert isinstance(certificate, x509.Certificate)
    return bool(certificate_facts(certificate.public_bytes(Encoding.DER)).names)


def _ports(config: Config) -> Iterator[Examined]:
    for path, host, port in listeners(config):
        if is_ours(host, port):
            yield Examined("ports", "ok", format_path(path), f"{host}:{port}: its role is running")
        else:
            message = f"{host}:{port}: its role is not running on this machine"
            yield Examined("ports", "warning", format_path(path), message, "miad-gateway serve, or systemctl status")


def _device(config: Config) -> Iterator[Examined]:
    import torch  # not for every caller

    from gateway.mark.device import resolve_device

    try:
        device = resolve_device(config.worker.device)
        torch.ones(1, device=device).add(1).item()
    except (GatewayError, RuntimeError):
        if config.worker.device == "auto":  # of another `preflight` tells
            message = "the GPU that was found does not compute"
            yield Examined("device", "error", "worker.device", message, 'look at nvidia-smi, or set device = "cpu"')
        return
    yield Examined("device", "ok", "worker.device", f"marks are drawn on {device}")


def _codecs(config: Config) -> Iterator[Examined]:
    """Each codec writes and reads a small image, in a child process as the worker's do."""
    facts = FrameFacts(64, 64, 1, "MONOCHROME2", 16, 12, 11, signed=False)
    image = np.arange(64 * 64, dtype=np.uint16).reshape(facts.shape)
    pool = Pool(Limits.of(config.codecs))
    try:
        for name in CODECS:
            syntax, fault = syntax_of(LOSSLESS_NAMES[name]), "it gives back other pixels"
            try:
                if np.array_equal(pool.decode(pool.encode(image, facts, syntax), facts, syntax), image):
                    continue
            except GatewayError as error:
                fault = error.message
            hint = "install the versions of deploy/constraints.txt; see memory_mib in [codecs] too"
            yield Examined("codecs", "error", "codecs", f"{name} does not work: {fault}", hint)
    finally:
        pool.close()


def _database(config: Config) -> Iterator[Examined]:
    """Its schema beside this release's, and the clock that is kept in it; that it answers, `preflight` tells."""
    where = "database.url"
    try:
        version = schema_version(config.database_url)
    except UnreachableError:
        return
    except GatewayError as error:
        yield Examined("database", "error", where, error.message, error.hint)
        return
    if version is None:
        yield Examined("database", "ok", where, "is not there yet: the first start makes it")
        yield Examined("clock", "ok", "clock", "nothing is known yet that it could run against")
        return
    if not version.is_known:
        message = f"it was written by a newer version of the gateway: its schema is {version.current}"
        yield Examined("database", "error", where, message, "install that version, or restore a backup")
    elif version.current == version.newest:
        yield Examined("database", "ok", where, f"answers, schema {version.current}")
        yield from _clock(config)
    else:
        message = f"its schema is {version.current or 'empty'}, and this release has {version.newest}"
        hint = "back up, then start a role (on PostgreSQL under the owner's account), which brings it up to date"
        yield Examined("database", "warning", where, message, hint)


def _store(config: Config) -> Iterator[Examined]:
    """Where sealed originals lie: that the object store answers and lets itself be read; nothing is written there."""
    where = "store"
    if config.store is None:
        yield Examined("store", "ok", where, "sealed originals lie in the state folder")
        return
    try:
        name = ObjectPayloads(config.store, config.site.state).look()
    except GatewayError as error:
        yield Examined("store", "error", where, error.message, error.hint, error.code == "store-unreachable")
        return
    message = f"{name} answers; whether what it has taken outlives a power cut is for its own settings"
    if config.durability == "disk":
        yield Examined("store", "ok", where, message)
        return
    hint = 'durability is cluster: let it flush, or keep copies (operations.md, "An object store"); no store tells us'
    yield Examined("store", "ok", where, f"{message}. {hint}")


def _clock(config: Config) -> Iterator[Examined]:
    from gateway.database import open_database

    row, now = clock.state(open_database(config.database_url)), datetime.now(UTC)
    if row is not None and row.stopped_at is not None:
        message = (
            f"is not believed since {datetime.fromtimestamp(row.stopped_at, UTC):%Y-%m-%d %H:%M} UTC ({row.reason})"
        )
        yield Examined("clock", "error", "clock", message, "look at it (date -u), then: miad-gateway clock confirm")
    elif row is not None and row.seen_at > now.timestamp() + 300:
        message = f"stands {int(row.seen_at - now.timestamp())} s before the last time that was believed"
        yield Examined("clock", "warning", "clock", message, "look at it (date -u), and at NTP on this machine")
    else:
        yield Examined("clock", "ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC, and nothing speaks against it")


def _issuers(config: Config) -> Iterator[Examined]:
    """Each identity provider answers, is who it is held to be, and has keys."""
    for path, issuer, _ in issuers(config):
        where = format_path((*path, "issuer"))
        if issuer.keys_file is not None and path[0] != "page":
            continue  # it is not asked
        try:
            discovery = Discovery(issuer.issuer, Fetcher(issuer.issuer, issuer.trust, issuer.timeout_s))
            for name in ENDPOINTS:
                discovery.endpoint(name)
            count = len(read_keys(discovery.keys(), issuer.issuer))
        except UnreachableError as error:
            yield Examined("identity", "error", where, error.message, error.hint, unreachable=True)
        except GatewayError as error:
            yield Examined("identity", "error", where, error.message, error.hint)
        else:
            yield Examined("identity", "ok", where, f"answers as {issuer.issuer}, with {count} keys")


def _destinations(config: Config, audit: AuditLog) -> Iterator[Examined]:
    for destination in config.destinations:
        try:
            yield from _ask(destination, config.worker.processes, audit)
        except DeliveryError as error:
            yield Examined("destinations", "error", destination.name, error.message, error.hint, unreachable=True)
        except GatewayError as error:  # its TLS files
            yield Examined("destinations", "error", destination.name, error.message, error.hint)


def _ask(destination: Destination, processes: int, audit: AuditLog) -> Iterator[Examined]:
    """C-ECHO, what it accepts of what may be sent to it, and whether workers may call it beside each other."""
    syntaxes = {name: LOSSLESS_NAMES[name] for name in destination.transfer_syntaxes}
    egress = Egress([destination], audit)
    try:
        egress.echo(destination.name)
        if destination.kind == "dicomweb":
            message = "answers; what it takes shows with the first instance"
            yield Examined("destinations", "ok", destination.name, message)
            return
        pairs = [(uid, syntax) for uid in CLASSES.values() for syntax in syntaxes.values()]
        accepted = egress.accepted(destination.name, pairs)
        wanted = processes * destination.connections
        granted = egress.granted_at_once(destination.name, min(wanted, MOST_BESIDE)) if wanted > 1 else 1
    finally:
        egress.close()
    refused = [
        name for name, uid in CLASSES.items() if not any((uid, syntax) in accepted for syntax in syntaxes.values())
    ]
    taken = [name for name, uid in syntaxes.items() if any(syntax == uid for _, syntax in accepted)]
    if not taken:
        message = "answers C-ECHO, and accepts no image in any of its transfer_syntaxes"
        hint = f"have {destination.calling_ae} allowed to store there, or correct transfer_syntaxes"
        yield Examined("destinations", "error", destination.name, message, hint)
        return
    message = (
        f"answers C-ECHO; accepts {', '.join(name for name in CLASSES if name not in refused)} as {', '.join(taken)}"
    )
    yield Examined("destinations", "ok", destination.name, message)
    if granted < min(wanted, MOST_BESIDE):
        message = f"grants {granted} at a time of the {wanted} associations that may be asked for: some wait for others"
        hint = "have it grant more, or lower its connections or worker.processes; they wait for idle_release_s"
        yield Examined("destinations", "warning", destination.name, message, hint)
    if refused:
        message = f"does not accept {', '.join(refused)}: what is of these kinds would be held"
        yield Examined(
            "destinations", "warning", destination.name, message, "have them allowed there, if they are sent"
        )
