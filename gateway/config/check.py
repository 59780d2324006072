"""What a valid configuration says about this machine and this site: files, permissions, ports, risky choices.

Nothing here connects, writes, or reads the restore role's private key for any other role.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gateway.config.balancers import balancer_findings
from gateway.config.commitments import commitment_findings
from gateway.config.duties import PRIVATE, READS, ROLES, WRITES, Role, secrets_of
from gateway.config.finding import Finding
from gateway.config.identities import identity_findings
from gateway.config.lines import KeyPath, format_path
from gateway.config.models import Config, Route, Tls, Workstation
from gateway.config.passing import BREAK_GLASS_HOURS
from gateway.config.secret import SecretRef
from gateway.config.stores import store_findings
from gateway.config.syntaxes import UNCOMPRESSED
from gateway.config.users import run_as
from gateway.config.without_effect import findings_without_effect
from gateway.errors import ConfigError

TRUST_SUFFIXES = (".pem", ".crt", ".cer", ".der")
OTHER_FOLDER = "name a folder that is there, or can be made"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_config(config: Config, role: Role = "all") -> list[Finding]:
    """Look at everything that `role` will need, errors first.

    The private key of the restore role is resolved only for role ``restore``; for ``all`` its file is looked at from
    outside (there, and closed to others), for the other roles not even that.
    """
    findings = [
        *_check_keys(config, role),
        *_check_tls_files(config, role),
        *_check_state(config, role),
        *_check_database(config, role),
        *_check_ports(config),
        *_check_ingress(config, role),
        *_check_routes(config, role),
        *_check_destinations(config, role),
        *balancer_findings(config, role),
        *commitment_findings(config, role),
        *findings_without_effect(config, role),
        *store_findings(config, role),
        *identity_findings(config, role),
        *_check_surrogates(config, role),
        *_check_restore(config, role),
        *_check_page(config, role),
    ]
    return sorted(findings, key=lambda finding: finding.level)


# --- keys and files


def _check_keys(config: Config, role: Role) -> Iterator[Finding]:
    """Secrets of the role: readable, and the private ones closed to others."""
    keys = config.keys
    for path, reference, private in secrets_of(config, role):
        if path == ("keys", "restore_proof"):
            continue  # need not be there: see where the pair is compared (`gateway.preflight`)
        try:
            reference.resolve(private=private)
        except ConfigError as error:
            yield Finding("error", path, error.message, error.hint)
    if role == "all" and keys.restore_private_key.path is not None:
        yield from _check_file(("keys", "restore_private_key"), keys.restore_private_key.path, private=True)


def _check_tls_files(config: Config, role: Role) -> Iterator[Finding]:
    if role in ("all", "ingress") and config.ingress.tls is not None:
        yield from _check_tls(("ingress", "tls"), config.ingress.tls)
    if role in ("all", "worker"):
        for index, destination in enumerate(config.destinations):
            if destination.tls is not None:
                yield from _check_tls(("destinations", index, "tls"), destination.tls)
    if role in ("all", "worker") and config.commitment is not None and config.commitment.tls is not None:
        yield from _check_tls(("commitment", "tls"), config.commitment.tls)
    if role in ("all", "restore") and config.restore is not None and config.restore.tls is not None:
        yield from _check_tls(("restore", "tls"), config.restore.tls)


def _check_tls(path: KeyPath, tls: Tls) -> Iterator[Finding]:
    yield from _check_file((*path, "certificate"), tls.certificate)
    yield from _check_file((*path, "private_key"), tls.private_key, private=True)
    if tls.crl is not None and not tls.crl.is_dir():
        yield from _check_file((*path, "crl"), tls.crl)
    if not tls.trust.is_dir():
        yield from _check_file((*path, "trust"), tls.trust)
    elif not any(file.suffix.lower() in TRUST_SUFFIXES for file in tls.trust.iterdir()):
        message = f"no file in {tls.trust} ends with {', '.join(TRUST_SUFFIXES)}"
        yield Finding("error", (*path, "trust"), message, "put the accepted certificate authorities there")


def _check_file(path: KeyPath, file: Path, *, private: bool = False) -> Iterator[Finding]:
    """There, readable by us, and when `private`, closed to group and others; its content is not read."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        hint = (run_as(file) if isinstance(error, PermissionError) else "") or "correct the path or make the file"
        yield Finding("error", path, f"cannot find {file}: {error.strerror}", hint)
        return
    if not stat.S_ISREG(mode) or not os.access(file, os.R_OK):
        yield Finding("error", path, f"{file} is not a file that this user can read", run_as(file))
    elif private and mode & OTHERS:
        yield Finding("error", path, f"{file} can be read by group or others", f"chmod 600 {file}")


def _check_state(config: Config, role: Role) -> Iterator[Finding]:
    state, here = config.site.state, ("site", "state")
    if not state.exists():
        nearest = next(folder for folder in state.parents if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            message = f"{state} cannot be made: {nearest} is not a folder that this user can write to"
            yield Finding("error", here, message, run_as(nearest) or OTHER_FOLDER)
    elif not state.is_dir():
        yield Finding("error", here, f"{state} is not a folder that this user can write to", OTHER_FOLDER)
    elif not os.access(state, os.X_OK):
        yield Finding("error", here, f"{state} is not a folder that this user can write to", run_as(state))
    elif (state / "database").is_dir():
        yield from _check_separate_users(config, state, role)
    elif not os.access(state, os.W_OK | os.X_OK):
        yield Finding("error", here, f"{state} is not a folder that this user can write to", run_as(state))
    elif state.stat().st_mode & OTHERS:
        message = f"{state} is open to group or others; it holds the query index"
        yield Finding("warning", here, message, "chmod 700")


def _check_separate_users(config: Config, state: Path, role: Role) -> Iterator[Finding]:
    """Folders that were made for a user a role: each can use its own, and not those of the others."""
    here = ("site", "state")
    roles = [one for one in ROLES if one != "page" or config.page is not None] if role == "all" else [role]
    for name in dict.fromkeys(name for one in roles for name in (*WRITES[one], *READS[one])):
        if name == "viewer" and not (config.page and config.page.viewer):
            continue  # nobody wants it
        folder = state / name
        needed = os.R_OK | os.X_OK | (os.W_OK if any(name in WRITES[one] for one in roles) else 0)
        if not folder.is_dir():
            yield Finding("error", here, f"there is no folder {folder}", "make it as deploy/systemd/ does")
            continue
        if not os.access(folder, needed):
            what = "write to" if needed & os.W_OK else "read"
            yield Finding("error", here, f"this user cannot {what} {folder}", "make it as deploy/systemd/ does")
        mode = folder.stat().st_mode
        if mode & stat.S_IRWXO or (name in PRIVATE and mode & stat.S_IRWXG):
            whom = "group or others" if name in PRIVATE else "others"
            yield Finding("warning", here, f"{folder} is open to {whom}", "make it as deploy/systemd/ does")
    if role == "all" or os.geteuid() == 0:
        return  # whoever starts all of them, or is root, can read all of it
    for name in PRIVATE:
        if name not in WRITES[role] and os.access(state / name, os.R_OK):
            message = f"this user can read {state / name}, which is another role's"
            yield Finding("warning", here, message, "give each role a user of its own, as deploy/systemd/ does")


def _check_database(config: Config, role: Role) -> Iterator[Finding]:
    urls: dict[KeyPath, str] = {("database", "url"): config.database.url}
    if role in ("all", "page") and config.page is not None and config.page.database_url:
        urls[("page", "database_url")] = config.page.database_url
        if role == "page":
            del urls[("database", "url")]  # the other roles', of which it knows nothing
    for path, url in urls.items():
        if isinstance(url, SecretRef):
            try:
                url.resolve()
            except ConfigError as error:
                yield Finding("error", path, error.message, error.hint)
        elif urlsplit(url).password:
            yield Finding("warning", path, "a password stands in this file", "use env:NAME or file:PATH")


# --- the network


def _check_ports(config: Config) -> Iterator[Finding]:
    """No two listeners on one port, and no destination that is one of our own listeners."""
    listeners: list[tuple[KeyPath, str, int]] = [(("ingress", "port"), config.ingress.host, config.ingress.port)]
    if config.ingress.dicomweb_port is not None:
        listeners.append((("ingress", "dicomweb_port"), config.ingress.host, config.ingress.dicomweb_port))
    if config.restore is not None:
        for name in ("tls_port", "plain_port", "dicomweb_port"):
            if (port := getattr(config.restore, name)) is not None:
                listeners.append((("restore", name), config.restore.host, port))
    if config.commitment is not None:
        listeners.append((("commitment", "port"), config.commitment.host, config.commitment.port))
    if config.page is not None:
        listeners.append((("page", "port"), config.page.host, config.page.port))
    for index, (path, host, port) in enumerate(listeners):
        for other_path, other_host, other_port in listeners[:index]:
            if port == other_port and (host == other_host or _is_any(host) or _is_any(other_host)):
                yield Finding("error", path, f"port {port} is taken by {format_path(other_path)}")
    for index, destination in enumerate(config.destinations):
        for path, host, port in listeners:
            is_ours = destination.host == host or (_is_local(destination.host) and (_is_any(host) or _is_local(host)))
            if is_ours and destination.port == port:
                message = f"this is our own {format_path(path)}: marked copies would come back and be refused"
                yield Finding("warning", ("destinations", index, "port"), message)


def _check_ingress(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "ingress"):
        return
    ingress = config.ingress
    if not ingress.peers:
        yield Finding("warning", ("ingress", "peers"), "no peer is listed: every association will be rejected")
    if not config.routes:
        message = "there is no route: nothing can be received, and serve starts no ingress"
        yield Finding("error", ("ingress",), message) if role == "ingress" else Finding("warning", ("routes",), message)
    for index, peer in enumerate(ingress.peers):
        yield from _check_addresses(("ingress", "peers", index, "addresses"), peer.addresses)
    if ingress.tls is None and not _is_local(ingress.host):
        message = f"originals from other machines arrive on {ingress.host} in clear text"
        yield Finding("warning", ("ingress",), message, "add [ingress.tls], or keep the network closed")


def _check_addresses(path: KeyPath, addresses: tuple[str, ...]) -> Iterator[Finding]:
    for index, address in enumerate(addresses):
        if ipaddress.ip_network(address, strict=False).prefixlen == 0:
            yield Finding("warning", (*path, index), f"{address} means any machine that knows the AE title")


def _is_any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- risky choices


def _check_routes(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "worker"):
        return
    yield from _check_studies(config)
    for index, route in enumerate(config.routes):
        yield from _check_pass(("routes", index), route)
        if route.action == "mark" and route.restoration == "carried":
            message = f"the vault keeps no original of route {route.name}: only the marked copies have them"
            hint = 'restoration = "both" keeps them in the vault as well'
            yield Finding("warning", ("routes", index, "restoration"), message, hint)
        if route.ack == "downstream":
            yield from _check_ack(config, index, route)
        if route.private_bulk == "keep":
            message = "copies keep all private elements, and those may show the unmarked picture"
            hint = 'private_bulk = "drop", and private_keep for the creators that are needed'
            yield Finding("warning", ("routes", index, "private_bulk"), message, hint)
        for kind, statement in route.opt_in:
            if statement:
                message = f"route {route.name} marks {kind.replace('_', ' ')} images: {statement}"
                yield Finding("warning", ("routes", index, "opt_in", kind), message)
        if route.action == "mark" and route.mark.steps == 0:
            message = "steps = 0 draws a mark that misleads no model; it is meant for tests of the plumbing"
            yield Finding("warning", ("routes", index, "mark", "steps"), message)
        if route.action == "mark" and route.mark.logo is not None:
            yield from _check_file(("routes", index, "mark", "logo"), route.mark.logo)
        if route.action == "mark" and route.mark.generator is not None:
            yield from _check_file(("routes", index, "mark", "generator"), route.mark.generator)


def _check_ack(config: Config, index: int, route: Route) -> Iterator[Finding]:
    """What keeps an archive waiting for success."""
    here = ("routes", index, "ack")
    scheduled = [one.name for one in config.destinations if one.name in route.destinations and one.schedule]
    if scheduled:
        message = f"outside the schedule of {', '.join(scheduled)} the archive gets 0xA700 for everything"
        yield Finding("warning", here, message)
    if route.action == "hold":
        yield Finding("warning", here, "the route holds everything: the archive gets 0xA700 for everything")


def _check_pass(here: KeyPath, route: Route) -> Iterator[Finding]:
    """What leaves unmarked, where it goes, and for how long."""
    if not route.passes:
        return
    names, until = ", ".join(route.destinations), ""
    if route.break_glass is not None:
        end = route.break_glass.until.isoformat(sep=" ", timespec="minutes")
        state = route.break_glass.state(time.time())
        if state == "ended":
            message = f"the emergency pass of route {route.name} ended at {end}: what it would pass is held"
            hint = "remove the table and the pass, or give a later end"
            yield Finding("error", (*here, "break_glass", "until"), message, hint, keeps_from_starting=False)
            return
        if state == "too-long":
            message = f"{end} is more than {BREAK_GLASS_HOURS} hours ahead"
            hint = "give an earlier end; a longer emergency is to be decided again then"
            yield Finding("error", (*here, "break_glass", "until"), message, hint)
            return
        until = f" until {end} ({route.break_glass.reason})"
    if route.action == "pass":
        message = f"route {route.name} lets UNMARKED ORIGINALS out to {names}{until}; every instance is audited"
        yield Finding("warning", (*here, "action"), message)
    for position, rule in enumerate(route.rules):
        if rule.action == "pass":
            message = f"a rule of route {route.name} lets UNMARKED ORIGINALS out to {names}{until}; each is audited"
            yield Finding("warning", (*here, "rules", position, "action"), message)
            if not rule.addresses and (rule.body_part or rule.description or rule.calling_ae or rule.tags):
                message = f"rule {position + 1} of route {route.name} lets out what anybody may write into an object"
                hint = "add the addresses that such objects come from"
                yield Finding("warning", (*here, "rules", position), message, hint)


def _check_studies(config: Config) -> Iterator[Finding]:
    """What one destination gets of a study is one study, and references in it name what is there."""
    first: dict[str, Route] = {}
    alike: dict[str, Route] = {}
    for index, route in enumerate(config.routes):
        if route.action != "mark":
            continue
        here = ("routes", index, "study_uid")
        for name in route.destinations:
            other = first.setdefault(name, route)
            if other.study_uid != route.study_uid:
                message = f'{name} gets copies with study_uid = "{other.study_uid}" by route {other.name} already'
                hint = "objects of one study would refer to two studies: give both routes the same study_uid"
                yield Finding("error", here, message, hint)
        other = alike.setdefault(route.study_uid, route)
        if _look(other) != _look(route):
            message = f"of an original that goes out by {other.name} and by {route.name} there are two different copies"
            hint = 'references name the copy that was made first: give one of the two routes study_uid = "new"'
            yield Finding("warning", here, message, hint)


def _look(route: Route) -> tuple[object, ...]:
    """What of a route shapes its copies: an original gets a further copy, with a UID of its own, for each."""
    return route.mark, route.source_reference, route.visible_text, route.restoration


def _check_destinations(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "worker"):
        return
    used = {name for route in config.routes for name in route.destinations}
    used |= {one.fallback for one in config.destinations if one.fallback and one.name in used}
    passed_to = {name for route in config.routes if route.passes for name in route.destinations}
    for index, destination in enumerate(config.destinations):
        here = ("destinations", index)
        if destination.type == "clinical":
            message = f"{destination.name} is CLINICAL and gets marked copies; nobody may diagnose or treat from them"
            yield Finding("warning", (*here, "type"), message)
        if destination.trust_statement and destination.name not in passed_to:
            message = f"{destination.name} is named trusted with unmarked originals, and no route passes any to it"
            yield Finding("warning", (*here, "trust_statement"), message)
        if destination.fallback and destination.name in passed_to:
            message = f"unmarked originals for {destination.name} never go to {destination.fallback}: they wait"
            yield Finding("warning", (*here, "fallback"), message)
        if destination.name not in used:
            yield Finding("warning", (*here, "name"), f"no route sends to {destination.name}")
        elif destination.tls is None and not _is_local(destination.host):
            message = f"patient data travels to {destination.host} in clear text"
            yield Finding("warning", here, message, "add [destinations.tls]")
        if not {*UNCOMPRESSED} & {*destination.transfer_syntaxes}:
            message = f"what these syntaxes do not hold exactly, or {destination.name} does not accept, is held"
            hint = 'end the list with "explicit" and "implicit"'
            yield Finding("warning", (*here, "transfer_syntaxes"), message, hint)


def _check_surrogates(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "worker"):
        return
    used = {name for route in config.routes if route.action == "mark" for name in route.mark.surrogates}
    for index, surrogates in enumerate(config.surrogates):
        yield from _check_file(("surrogates", index, "pack"), surrogates.pack)
        if surrogates.name not in used:
            message = f"no route names {surrogates.name} in its mark.surrogates"
            yield Finding("warning", ("surrogates", index, "name"), message)


def _check_restore(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "restore"):
        return
    if config.restore is None:
        level: Literal["error", "warning"] = "error" if role == "restore" else "warning"
        yield Finding(level, ("restore",), "there is no [restore] table: nobody can get an original back")
        return
    if not config.restore.workstations:
        yield Finding("warning", ("restore", "workstations"), "no workstation is listed: every association is rejected")
    if config.restore.plain_port is not None and not _is_local(config.restore.host):
        message = f"ORIGINALS leave by {config.restore.host} port {config.restore.plain_port} without TLS"
        yield Finding("warning", ("restore",), message, "use tls_port, or listen on 127.0.0.1 only")
    for index, workstation in enumerate(config.restore.workstations):
        here = ("restore", "workstations", index)
        name = workstation.ae_title
        if workstation.plain:
            listed = ", ".join(workstation.addresses)
            message = f"{name} may get ORIGINALS WITHOUT TLS: whoever calls itself {name} from {listed} is believed"
            yield Finding(
                "warning", (*here, "plain"), message, "give it a certificate and key_sha256 as soon as it can"
            )
        if workstation.receive_plain:
            message = f"ORIGINALS travel to {name} at {workstation.host}:{workstation.port} in clear text"
            yield Finding("warning", (*here, "receive_plain"), message)
        yield from _check_addresses((*here, "addresses"), workstation.addresses)
        if config.restore.dicomweb_port is not None:
            yield from _check_one_name(config.restore.workstations[:index], workstation, here)


def _check_one_name(others: tuple[Workstation, ...], workstation: Workstation, here: KeyPath) -> Iterator[Finding]:
    """Over DICOMweb a workstation is its certificate: one that is bound to two entries gets nothing."""
    for other in others:
        for name in ("key_sha256", "san"):
            if set(getattr(other, name)) & set(getattr(workstation, name)):
                message = f"{other.ae_title} is bound to the same: over DICOMweb such a certificate is refused"
                yield Finding("warning", (*here, name), message, "give each workstation a certificate of its own")


def _check_page(config: Config, role: Role) -> Iterator[Finding]:
    if role not in ("all", "page"):
        return
    if config.page is None:
        if role == "page":
            yield Finding("error", ("page",), "there is no [page] table: nothing is to be shown", "add one")
        return
    page = config.page
    if page.users.exists():
        yield from _check_file(("page", "users"), page.users)
        if page.users.stat().st_mode & stat.S_IRWXO:
            yield Finding("error", ("page", "users"), f"{page.users} is open to others", f"chmod o= {page.users}")
    elif page.view == "login" and page.oidc is None:
        message = f"nobody can log in, and so look: there is no {page.users}"
        yield Finding("error", ("page", "view"), message, "miad-gateway page user add NAME --role viewer")
    if not _is_local(page.host):
        what = (
            "passwords travel in clear text" if page.view == "login" else "whoever reaches it sees the queue, with UIDs"
        )
        hint = '127.0.0.1, and a reverse proxy with TLS before it; view = "login"'
        yield Finding("warning", ("page", "host"), f"the page listens on {page.host}: {what}", hint)
