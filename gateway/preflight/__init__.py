"""Everything that can be known of a configuration before a role starts.

`gateway.config` looks at files from outside; here the key rings and the TLS contexts are built as the role itself would
build them, ports are listened on for a moment, the database is connected to and the device computes, so that what is
wrong is found now and not with the first patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.config import Config, Finding, check_config
from gateway.config.duties import Role
from gateway.config.lines import KeyPath
from gateway.errors import ConfigError
from gateway.keys.keyring import OpeningKeys, SealingKeys, load_spool_cipher
from gateway.preflight.certificates import check_certificates, tls_tables
from gateway.preflight.machine import try_codecs, try_device, try_ports, try_the_database


def preflight(config: Config, role: Role = "all") -> list[Finding]:
    """Findings of `check_config`, and when it found no error, of opening what the role will open.

    The private key of the restore role is read for role ``restore`` only.
    """
    findings = check_config(config, role)
    if any(finding.level == "error" and finding.keeps_from_starting for finding in findings):
        return findings
    return sorted([*_try_all(config, role), *findings], key=lambda finding: finding.level)


def _try_all(config: Config, role: Role) -> Iterator[Finding]:
    if role == "ingress":
        yield from _try(("keys",), load_spool_cipher, config.keys)
    if role in ("all", "worker"):
        yield from _try(("keys",), SealingKeys.load, config.keys)
        yield from _try_surrogates(config)
        yield from _try_logos(config)
    if role == "restore":
        yield from _try(("keys",), OpeningKeys.load, config.keys)
    yield from _try_tls(config, role)
    yield from check_certificates(config, role)
    yield from try_ports(config, role)
    yield from try_the_database(config)
    yield from try_device(config, role)
    yield from try_codecs(role)


def _try_surrogates(config: Config) -> Iterator[Finding]:
    """The site's networks are loaded and shown a picture; the names that routes give must be those of packs."""
    if not (config.surrogates or any(route.mark.surrogates for route in config.routes)):
        return
    from gateway.mark import load_packs  # brings torch: not for every caller
    from gateway.mark.surrogates.foreign import read_packs

    installed = load_packs()
    for index, surrogates in enumerate(config.surrogates):
        here = ("surrogates", index, "pack")
        yield from _try(here, lambda own=surrogates: read_packs({own.name: own.pack}, installed)[0].check())
    known = sorted({*installed, *(surrogates.name for surrogates in config.surrogates)})
    for index, route in enumerate(config.routes):
        for position, name in enumerate(route.mark.surrogates):
            if name not in known:
                message = f"no surrogate pack is named {name!r}; there are {', '.join(known)}"
                yield Finding("error", ("routes", index, "mark", "surrogates", position), message)


def _try_logos(config: Config) -> Iterator[Finding]:
    """The logo of each route that marks is read and cut out, as the worker does; its absence is told already."""
    logos = {
        index: route.mark.logo
        for index, route in enumerate(config.routes)
        if route.action == "mark" and route.mark.logo is not None and route.mark.logo.is_file()
    }
    if logos:
        from gateway.mark.placement.logo import load_logo  # brings torch: not for every caller

        for index, logo in logos.items():
            yield from _try(("routes", index, "mark", "logo"), load_logo, logo)


def _try_tls(config: Config, role: Role) -> Iterator[Finding]:
    from gateway.network.tls import client_context, server_context  # brings the network libraries: not for every caller

    for path, tls, listens in tls_tables(config, role):
        yield from _try(path, server_context if listens else client_context, tls)


def _try(path: KeyPath, action: Callable[..., object], *arguments: object) -> Iterator[Finding]:
    try:
        action(*arguments)
    except ConfigError as error:
        yield Finding("error", path, error.message, error.hint)
