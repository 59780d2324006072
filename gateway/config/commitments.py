"""Risky and useless choices about storage commitment."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from gateway.config.duties import Role
from gateway.config.finding import Finding
from gateway.config.models import Config


def commitment_findings(config: Config, role: Role) -> Iterator[Finding]:
    """What is to be known of commitments that are asked for, and of those that are given."""
    if role in ("all", "worker"):
        yield from _asked(config)
    if role in ("all", "ingress", "worker"):
        yield from _given(config)


def _asked(config: Config) -> Iterator[Finding]:
    asked = [one for one in config.destinations if one.commitment is not None]
    if config.commitment is not None and not asked:
        message = "no destination has a commitment table: nobody may report there"
        yield Finding("warning", ("commitment", "port"), message)
    if config.commitment is not None and config.commitment.tls is None and not _is_local(config.commitment.host):
        message = "whoever calls itself a destination from its address may report that copies are committed"
        yield Finding("warning", ("commitment",), message, "add [commitment.tls]")
    for index, destination in enumerate(config.destinations):
        if destination.commitment is None:
            continue
        here = ("destinations", index, "commitment")
        if config.commitment is None:
            message = (
                f"{destination.name} can report on the association of the request alone: nothing listens for reports"
            )
            yield Finding("warning", here, message, "add a [commitment] table, and tell the destination its port")
        if not destination.commitment.addresses and not _is_address(destination.host):
            message = f"{destination.host} is a name: it is not known from which address its reports come"
            yield Finding("error", (*here, "addresses"), message, "list its addresses", keeps_from_starting=False)


def _given(config: Config) -> Iterator[Finding]:
    reported = [index for index, peer in enumerate(config.ingress.peers) if peer.reports is not None]
    if not reported:
        return
    for index in reported:
        peer = config.ingress.peers[index]
        here = ("ingress", "peers", index, "reports")
        message = f"{peer.ae_title} may delete what is committed to it: the vault is then the only original"
        yield Finding("warning", here, message, "back the vault up before an archive deletes anything")
        if not peer.is_bound:
            message = f"whoever calls itself {peer.ae_title} from its addresses may ask for commitments"
            yield Finding("warning", here, message, "give it key_sha256 or san")
    if config.restore is None:
        message = "without role restore no original can be opened and compared: nothing will be committed"
        yield Finding("warning", ("restore",), message)
    asked = {one.name for one in config.destinations if one.commitment is not None}
    fallbacks = {one.name: one.fallback for one in config.destinations if one.fallback}
    for index, route in enumerate(config.routes):
        place = ("routes", index, "commit_statement")
        if route.commit_statement:
            message = (
                f"of route {route.name} originals are committed to that will be gone one day, or that copies carry"
            )
            yield Finding("warning", place, message)
        elif config.retention.vault_days or route.restoration == "carried":
            message = f"nothing of route {route.name} will be committed to: its originals do not stay in the vault"
            yield Finding("warning", place, message)
        place = ("routes", index, "delivered_statement")
        unasked = [name for name in route.destinations if name not in asked]
        others = {fallbacks[name] for name in route.destinations if name in fallbacks} - set(route.destinations)
        instead = sorted(others - asked)
        hint = "give it a commitment table, or the route a delivered_statement"
        if route.delivered_statement:
            if unasked or instead:
                message = f"of route {route.name} originals are committed to whose copies nobody has committed to keep"
                yield Finding("warning", place, message)
            continue
        if unasked:
            names = ", ".join(unasked)
            message = f"nothing of route {route.name} will be committed to: {names} commits to keep no copy"
            yield Finding("warning", place, message, hint)
        if instead:
            names = ", ".join(instead)
            message = (
                f"nothing of route {route.name} that falls back on {names} will be committed to:"
                f" {names} commits to keep no copy"
            )
            yield Finding("warning", place, message, hint)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
