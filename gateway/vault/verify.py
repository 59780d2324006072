"""Checks that everything in the vault is unchanged: records, payloads, and payloads that no record names."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.config.models import Config
from gateway.database import open_database
from gateway.errors import GatewayError, IntegrityError, NotFoundError
from gateway.keys import OpeningKeys
from gateway.keys.pair import NOT_COMPARED
from gateway.vault.payloads import Payloads
from gateway.vault.places import open_payloads
from gateway.vault.record import VaultRecord
from gateway.vault.records import RecordStore
from gateway.vault.sealed import open_payload

Progress = Callable[[int, int], None]  # records done, records in all

_AWAITED_S = 300.0  # a record this young may have its payload on the way
_BATCH = 500


@dataclass(frozen=True)
class Verified:
    """What was found out about one record, or about one payload that has none."""

    locator: str
    ok: bool
    reason_code: str = ""
    reason: str = ""


def verify_vault(
    config: Config, progress: Progress | None = None, warn: Callable[[str], None] | None = None
) -> Iterator[Verified]:
    """Open every original of a site once and compare it with its signed record; see `verify_records`.

    Parameters
    ----------
    warn
        Told when the restore keys could not be compared here.

    Raises
    ------
    ConfigError
        The private restore key, or a trusted signer's public one, cannot be read; ``restore-pair-differs``.
    """
    keys = OpeningKeys.load(config.keys)
    if warn is not None and not keys.is_compared:
        warn(NOT_COMPARED)
    engine = open_database(config.database_url)
    records = RecordStore(engine, verifier=keys.verifier, vault_id=config.site.name)
    return verify_records(records, open_payloads(config), keys.restore_private, progress)


def verify_records(
    records: RecordStore,
    payloads: Payloads,
    private: X25519PrivateKey | None,
    progress: Progress | None = None,
) -> Iterator[Verified]:
    """Check every record (signature, columns), its payload, and whether payloads lie there that no live record names.

    Parameters
    ----------
    records
        With a verifier.
    private
        Decrypts every payload and compares length and SHA-256; None: only whether the payload is there.

    Yields
    ------
    Verified
        One a record, then one a stray payload. `reason_code`: that of the error, ``payload-awaited`` (fine: sealed
        minutes ago, the payload is being written), ``retention-ended`` (fine), ``carried`` (fine: the marked copy has
        it), ``payload-without-record``.
    """
    total = records.count()
    for done, locator in enumerate(records.locators(), start=1):
        yield _verify_one(records, payloads, private, locator)
        if progress:
            progress(done, max(total, done))
    names = payloads.locators()
    while batch := list(islice(names, _BATCH)):
        for locator in records.without_payload(batch):
            yield Verified(locator, False, "payload-without-record", "no live record names this payload")


def _verify_one(records: RecordStore, payloads: Payloads, private: X25519PrivateKey | None, locator: str) -> Verified:
    try:
        record = records.by_locator(locator)
        if record.payload_file is None:
            return Verified(locator, True, "retention-ended", "")
        if record.is_carried:
            return Verified(locator, True, "carried", "")
        with payloads.open(record.payload_file) as file:
            if private is not None:
                digest = hashlib.sha256()
                for piece in open_payload(file, record, private):
                    digest.update(piece)
                _compare(record, digest.hexdigest())
    except NotFoundError as error:
        if error.code == "payload-missing" and time.time() - record.created_at < _AWAITED_S:
            return Verified(locator, True, "payload-awaited", "")
        return Verified(locator, False, error.code, error.message)
    except GatewayError as error:
        return Verified(locator, False, error.code, error.message)
    return Verified(locator, True)


def _compare(record: VaultRecord, digest: str) -> None:
    if digest != record.original_sha256:
        raise IntegrityError("digest-differs", f"the original of record {record.locator} has another SHA-256")
