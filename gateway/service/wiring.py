"""How the rooms below are put together from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Engine

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.config.models import Keys
from gateway.config.secret import SecretRef
from gateway.dicom.pixels.children.pool import Limits, configure
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.service.places import database, places
from gateway.service.spools import derived_spool, received_spool


def build_step_context(
    config: Config, keys: SealingKeys, store, engine: Engine, audit: AuditLog, folder: Path | None = None
):
    """Everything that the steps work with. `folder` holds spool and derived files; default: where durability says."""
    from gateway.flow.passing import Passing
    from gateway.flow.steps import StepContext
    from gateway.flow.turns import Turns
    from gateway.protect import Protector

    where = places(config)
    return StepContext(
        store=store,
        spool=received_spool(config, keys.spool, folder),
        derived=derived_spool(config, keys.derived, folder),
        protector=Protector(config, keys, engine, where.vault),
        routes={route.name: route for route in config.routes},
        passing=Passing(config.routes, [d.name for d in config.destinations if d.trust_statement], engine, audit),
        audit=audit,
        destinations={one.name: one for one in config.destinations},
        turns=Turns(config.worker.sending),
    )


def build_reports(config: Config, keys: SealingKeys, store, engine: Engine, context):
    """What makes the protection reports of the routes that want them."""
    from gateway.flow.reports import Reports
    from gateway.protect.reporting import Reporter

    reporter = Reporter(config.site, keys, engine)
    return Reports(config.routes, engine, store, context.derived, reporter, context.audit)


def build_commitments(config: Config, engine: Engine, store, audit: AuditLog):
    """What asks destinations for storage commitment, what answers archives, and the port for reports; None: not wanted.

    The port is not bound yet.
    """
    from gateway.config.commitment import Commitment
    from gateway.flow.commitments import Commitments
    from gateway.flow.promises import Promises
    from gateway.network.commitment import CommitmentScu
    from gateway.network.commitment_port import CommitmentPort

    committer = CommitmentScu(config.destinations, config.ingress.peers, config.commitment)
    asked = promises = port = None
    if any(one.commitment for one in config.destinations):
        asked = Commitments(config.destinations, engine, committer, audit, store.wakes)
        if config.commitment is not None:
            several = config.worker.processes > 1
            port = CommitmentPort(config.commitment, config.destinations, asked.reported, audit, is_shared=several)
    if any(one.reports for one in config.ingress.peers):
        settings = config.commitment or Commitment()
        promises = Promises(config.routes, config.destinations, config.retention, settings, engine, committer, audit)
    return asked, promises, port


def build_requested(config: Config, engine: Engine, store, audit: AuditLog, echo: Callable[[str], None] | None = None):
    """What does that which people at the page ask for, under the worker's own account.

    echo: asks a destination whether it answers; None: by associations of its own.
    """
    from gateway.config.accounts import read_accounts
    from gateway.flow.destinations import DestinationOperator
    from gateway.flow.operations import Operator
    from gateway.flow.requested import Requested
    from gateway.vault import open_payloads

    vault = open_payloads(config)
    users = config.page.users if config.page else Path()
    proofs = None
    if config.page is not None and config.page.oidc is not None:
        from gateway.service.identity import proofs_of

        proofs = proofs_of(config.page.oidc)

    def role_of(name: str, proof: str) -> str | None:
        if proof:  # whose name the identity provider gave, and no account of ours
            return proofs.role_of(name, proof) if proofs is not None else None
        found = read_accounts(users).get(name)
        return found.role if found else None

    def operator(told: Mapping[str, object]) -> Operator:
        return Operator(engine, config.routes, audit, vault, store.wakes, told)

    def destinations(told: Mapping[str, object]) -> DestinationOperator:
        names = [one.name for one in config.destinations]
        return DestinationOperator(engine, names, audit, echo or echo_of(config, audit), store.wakes, told)

    return Requested(engine, config.routes, operator, destinations, role_of, audit)


def echo_of(config: Config, audit: AuditLog) -> Callable[[str], None]:
    """What asks a configured destination whether it answers, on an association of its own."""
    from gateway.network.egress import Egress

    def echo(name: str) -> None:
        with closing(Egress(config.destinations, audit)) as egress:
            egress.echo(name)

    return echo


def build_restorer(config: Config, engine: Engine | None = None):
    """The one object that opens originals. Only the restore role and the operator's own `restore` call this."""
    from gateway.restore import Restorer, SeenRecords
    from gateway.vault.places import open_payloads, restore_list

    configure(Limits.of(config.codecs))
    where = places(config)
    with suppress(OSError):  # the list itself says what is wrong
        where.restore.mkdir(mode=0o700, exist_ok=True)
    seen = SeenRecords(restore_list(config))
    payloads = open_payloads(config, scratch=where.restore)
    return Restorer(engine or database(config), payloads, OpeningKeys.load(config.keys), config.site.name, seen)


def build_copy_restorer(private_key: Path, signers: Sequence[Path]):
    """What opens originals that marked copies carry, on any machine: two kinds of key files, no vault, no database."""
    from gateway.restore import CopyRestorer

    keys = Keys(
        restore_private_key=SecretRef(f"file:{private_key.absolute()}"),
        trusted_signers=tuple(SecretRef(f"file:{signer.absolute()}") for signer in signers),
    )
    return CopyRestorer(OpeningKeys.load(keys, paired=False))
