"""A vault of real parts in a temporary folder: keys, SQLite, payload files."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from gateway.config.models import Config
from gateway.database import open_database
from gateway.dicom.copy.uids import derived_uid
from gateway.keys import OpeningKeys, SealingKeys
from gateway.vault import PayloadStore, RecordFacts, RecordStore, VaultRecord, seal_payload

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def facts_of(data: bytes, sop: str = "1.2.3.1", **changes: Any) -> RecordFacts:
    """Facts of an original with the bytes `data`."""
    plain: dict[str, Any] = {
        "original_sop_uid": sop,
        "original_series_uid": "1.2.3",
        "study_uid": "1.2",
        "sop_class_uid": CT,
        "transfer_syntax_uid": EXPLICIT,
        "original_sha256": hashlib.sha256(data).hexdigest(),
        "original_size": len(data),
        "policy": "policy-1",
        "attributes": {},
    }
    return RecordFacts(**(plain | changes))


def data_set(
    content: bytes, sop: str = "1.2.3.1", study: str = "1.2", series: str = "1.2.3", patient: str = ""
) -> bytes:
    """An original that agrees with `facts_of`: the UIDs, and `content` as what stands for pixels."""
    elements = [(0x0008, 0x0016, b"UI", CT), (0x0008, 0x0018, b"UI", sop), (0x0010, 0x0020, b"LO", patient)]
    elements += [(0x0020, 0x000D, b"UI", study), (0x0020, 0x000E, b"UI", series)]
    head = b""
    for group, number, vr, text in elements:
        value = text.encode() + (b"\0" if vr == b"UI" else b" ") * (len(text) % 2)
        head += struct.pack("<HH2sH", group, number, vr, len(value)) + value
    return head + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, len(content)) + content


@dataclass
class Vault:
    config: Config
    engine: Engine
    sealing: SealingKeys
    opening: OpeningKeys
    records: RecordStore
    payloads: PayloadStore

    def store(self, data: bytes, sop: str = "1.2.3.1", **changes: Any) -> VaultRecord:
        """What the worker does: record first, payload second."""
        record = self.records.create(facts_of(data, sop, **changes))
        self.put(record, data)
        return record

    def put(self, record: VaultRecord, data: bytes) -> None:
        self.payloads.put(
            record.locator, lambda out: seal_payload(out, io.BytesIO(data), record, self.sealing.restore_public)
        )


def open_vault(config: Config) -> Vault:
    sealing = SealingKeys.load(config.keys)
    engine = open_database(config.database_url)
    records = RecordStore(
        engine,
        sealing.signer,
        sealing.verifier,
        vault_id=config.site.name,
        restore_public=sealing.restore_public,
        derive_uid=partial(derived_uid, sealing.uid_key),
    )
    payloads = PayloadStore(config.site.state / "vault")
    return Vault(config, engine, sealing, OpeningKeys.load(config.keys), records, payloads)
