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
from gateway.config.marking import Mark
from gateway.errors import ConfigError
from gateway.keys.keyring import OpeningKeys, SealingKeys, load_spool_cipher
from gateway.keys.pair import NOT_COMPARED, NOT_PROVED, PROVE, read_proof
from gateway.preflight.certificates import check_certificates, tls_tables
from gateway.preflight.machine import try_codecs, try_device, try_ports, try_the_database


def preflight(config: Config, role: Role = "all") -> list[Finding]:
    """Findings of `check_config`, and when it found no error, of opening what the role will open.

    Keys are tried even then: that originals are sealed to a wrong key must not hide behind a missing certificate.
    The private key of the restore role is read for role ``restore`` only.
    """
    findings = check_config(config, role)
    errors = [finding for finding in findings if finding.level == "error" and finding.keeps_from_starting]
    if not any(finding.path[0] == "keys" for finding in errors):
        findings += _try_keys(config, role)
    if not errors:
        findings += _try_all(config, role)
    return sorted(findings, key=lambda finding: finding.level)


def _try_keys(config: Config, role: Role) -> Iterator[Finding]:
    if role == "ingress":
        yield from _try(("keys",), load_spool_cipher, config.keys)
    if role in ("all", "worker"):
        yield from _try_sealing_keys(config)
    if role == "restore":
        yield from _try_opening_keys(config)


def _try_all(config: Config, role: Role) -> Iterator[Finding]:
    if role in ("all", "worker"):
        yield from _try_surrogates(config)
        yield from _try_logos(config)
        yield from _try_words(config)
        yield from _try_rules(config)
    yield from _try_tls(config, role)
    yield from check_certificates(config, role)
    yield from try_ports(config, role)
    yield from try_the_database(config, role)
    yield from try_device(config, role)
    yield from try_codecs(role)


def _try_sealing_keys(config: Config) -> Iterator[Finding]:
    """The restore keys are compared by their proof; a site made before there were proofs is told."""
    errors = list(_try(("keys",), SealingKeys.load, config.keys))
    yield from errors
    if not errors and read_proof(config.keys) is None:
        yield Finding("warning", ("keys", "restore_proof"), NOT_PROVED, PROVE)


def _try_opening_keys(config: Config) -> Iterator[Finding]:
    try:
        is_compared = OpeningKeys.load(config.keys).is_compared
    except ConfigError as error:
        yield Finding("error", ("keys",), error.message, error.hint)
        return
    if not is_compared:
        yield Finding("warning", ("keys", "restore_proof"), NOT_COMPARED, "hand the role restore.proof")


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


_OUR_WORDS = (Mark().text, Mark().word)  # which fit


def _try_words(config: Config) -> Iterator[Finding]:
    """The site's own text of each route that marks is set in the least letters, as the worker does."""
    routes = [
        (index, route.mark)
        for index, route in enumerate(config.routes)
        if route.action == "mark" and (route.mark.text, route.mark.word) != _OUR_WORDS
    ]
    if routes:
        from gateway.mark.placement.letters import check_words  # brings torch: not for every caller

        for index, mark in routes:
            yield from _try(("routes", index, "mark", "text"), check_words, mark.text, mark.word)


def _try_rules(config: Config) -> Iterator[Finding]:
    """What rules compare must be in the DICOM dictionary: a word that is misspelt would fit nothing, ever."""
    matches = [
        (("routes", index, "rules", position, "tags", place, "tag"), match)
        for index, route in enumerate(config.routes)
        for position, rule in enumerate(route.rules)
        for place, match in enumerate(rule.tags)
    ]
    if matches:
        from gateway.protect.rules import check_tag  # brings pydicom: not for every caller

        for path, match in matches:
            if why := check_tag(match):
                yield Finding("error", path, why, "see the keywords of PS3.6, or write the tag as 0008,1010")
    classes = [
        (("routes", index, "rules", position, "sop_class"), rule.sop_class)
        for index, route in enumerate(config.routes)
        for position, rule in enumerate(route.rules)
        if rule.sop_class
    ]
    if classes:
        from gateway.protect.rules import is_known_class

        for here, uid in classes:
            if not is_known_class(uid):
                message = f"{uid} is no SOP class that the DICOM dictionary knows: the rule fits no other object"
                yield Finding("warning", here, message, "see PS3.6 annex A; a private SOP class may be meant")


def _try_tls(config: Config, role: Role) -> Iterator[Finding]:
    from gateway.network.tls import client_context, server_context  # brings the network libraries: not for every caller

    for path, tls, listens in tls_tables(config, role):
        yield from _try(path, server_context if listens else client_context, tls)


def _try(path: KeyPath, action: Callable[..., object], *arguments: object) -> Iterator[Finding]:
    try:
        action(*arguments)
    except ConfigError as error:
        yield Finding("error", path, error.message, error.hint)
