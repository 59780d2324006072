"""How the rooms below are put together from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.config.models import Keys
from gateway.config.secret import SecretRef
from gateway.dicom.pixels.children.pool import Limits, configure
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.service.places import Places, database, places


def build_step_context(
    config: Config, keys: SealingKeys, store, engine: Engine, audit: AuditLog, folder: Path | None = None
):
    """Everything that the steps work with. `folder` holds spool and derived files; default: the state folder."""
    from gateway.flow.passing import Passing
    from gateway.flow.spool import Spool
    from gateway.flow.steps import StepContext
    from gateway.protect import Protector

    where = places(config)
    base = Places(folder) if folder else where
    return StepContext(
        store=store,
        spool=Spool(base.spool, keys.spool),
        derived=Spool(base.derived, keys.derived),
        protector=Protector(config, keys, engine, where.vault),
        routes={route.name: route for route in config.routes},
        passing=Passing(config.routes, [d.name for d in config.destinations if d.trust_statement], engine, audit),
        audit=audit,
    )


def build_reports(config: Config, keys: SealingKeys, store, engine: Engine, context):
    """What makes the protection reports of the routes that want them."""
    from gateway.flow.reports import Reports
    from gateway.protect.reporting import Reporter

    reporter = Reporter(config.site, keys, engine)
    return Reports(config.routes, engine, store, context.derived, reporter, context.audit)


def build_restorer(config: Config):
    """The one object that opens originals. Only the restore role and the operator's own `restore` call this."""
    from gateway.restore import Restorer, SeenRecords

    configure(Limits.of(config.codecs))
    where = places(config)
    with suppress(OSError):  # the list itself says what is wrong
        where.restore.mkdir(mode=0o700, exist_ok=True)
    seen = SeenRecords(where.restore / "records.sqlite")
    return Restorer(database(config), where.vault, OpeningKeys.load(config.keys), config.site.name, seen)


def build_copy_restorer(private_key: Path, signers: Sequence[Path]):
    """What opens originals that marked copies carry, on any machine: two kinds of key files, no vault, no database."""
    from gateway.restore import CopyRestorer

    keys = Keys(
        restore_private_key=SecretRef(f"file:{private_key.absolute()}"),
        trusted_signers=tuple(SecretRef(f"file:{signer.absolute()}") for signer in signers),
    )
    return CopyRestorer(OpeningKeys.load(keys, paired=False))
