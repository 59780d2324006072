"""Makes the fixed vectors of the formats as they are today: `python -m tests.vectors.make_vectors`.

A vector that was committed is never made anew: every later reader must read it (architecture, the private block). A new
version of a format gets a new file beside the old ones; this refuses to write over one that is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.config import load_config
from gateway.database import FiguresRow, PayloadCheckRow, ReportRow, transaction
from gateway.dicom.copy.carried_body import pack, pack_referring
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.flow.segments import format as segments
from gateway.keys import (
    ChunkedWriter,
    DerivedCipher,
    Signer,
    SpoolCipher,
    hkdf,
    key_id,
    make_keys,
    make_token,
    mark_seed,
)
from gateway.keys.pair import proof_of
from gateway.protect.signed_report import SignedFacts, sign_report
from gateway.restore import SeenRecords
from gateway.vault import VaultRecord, backup, seal_carried, seal_payload
from gateway.vault.record import index_digest
from tests.support.dicom.samples import encode, image, slightly_changed
from tests.support.vault import data_set, open_vault

FOLDER = Path(__file__).parent
RESTORE = bytes(range(32))  # private keys of no one
SIGNING = bytes(range(32, 64))
SYMMETRIC = bytes(range(64, 96))
ORIGINAL = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00" + bytes(1000)


def record() -> VaultRecord:
    """The record that the vectors are made for; its token is made apart."""
    return VaultRecord(
        vault_id="vector-site",
        locator="00112233445566778899aabbccddeeff",
        generation=2,
        original_sop_uid="1.2.826.0.1.3680043.8.498.1.1.1",
        original_series_uid="1.2.826.0.1.3680043.8.498.1.1",
        study_uid="1.2.826.0.1.3680043.8.498.1",
        derived_sop_uid="2.25.305419896",
        derived_series_uid="2.25.305419897",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        original_sha256=hashlib.sha256(ORIGINAL).hexdigest(),
        original_size=len(ORIGINAL),
        policy="vector-policy",
        derived_sha256=None,
        payload_file="00112233445566778899aabbccddeeff",
        key_id=key_id(X25519PrivateKey.from_private_bytes(RESTORE).public_key()),
        created_at=1_700_000_000.123,
        token=b"",
        attributes={},
        version=1,
    )


def _segment() -> bytes:
    """One record and the mark that says that it was flushed."""
    cipher, body = SpoolCipher(SYMMETRIC), io.BytesIO()
    name = "ffeeddccbbaa99887766554433221100"
    facts = json.dumps({"id": "0" * 32, "size": len(ORIGINAL), "file": None}).encode()
    writer = cipher.writer(body, name)
    writer.write(ORIGINAL)
    writer.close()
    pieces = segments.record(name, cipher.seal_facts(facts, name), [body.getvalue()])
    header = segments.segment_header("00112233445566778899aabbccddeeff", segments.RECEIVED)
    return b"".join((header, *pieces, segments.flushed_mark("00112233445566778899aabbccddeeff")))


def vectors() -> dict[str, dict[str, object]]:
    """Name of the file to its content; bytes in hexadecimal."""
    restore = X25519PrivateKey.from_private_bytes(RESTORE).public_key()
    signer = Signer(Ed25519PrivateKey.from_private_bytes(SIGNING))
    made = record()
    keys = {"restore_private": RESTORE.hex(), "restore_key_id": made.key_id}
    chunked, payload, spool, derived = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    writer = ChunkedWriter(chunked, SYMMETRIC, b"context", 1024)
    writer.write(ORIGINAL + ORIGINAL)
    writer.close()
    seal_payload(payload, io.BytesIO(ORIGINAL), made, restore)
    newest, bound = replace(made, index_sha256=index_digest(made.attributes), version=3), io.BytesIO()
    seal_payload(bound, io.BytesIO(ORIGINAL), newest, restore)
    writer = SpoolCipher(SYMMETRIC).writer(spool, "vector-name")
    writer.write(ORIGINAL)
    writer.close()
    writer = DerivedCipher(SYMMETRIC, bytes(32)).writer(derived, "vector-name")
    writer.write(ORIGINAL)
    writer.close()
    report = sign_report(
        SignedFacts(made.vault_id, "relay", "0" * 32, "1.2.840.10008.5.1.4.1.1.88.33", "2.25.1", "0" * 64, 10), signer
    )
    sealed_key, carried = seal_carried(b"body", made, restore, signer)
    return {
        "derive-1": {
            "key": SYMMETRIC.hex(),
            "label": "miad/vector/1",
            "parts": ["", "00ff"],
            "hkdf": hkdf(SYMMETRIC, "miad/vector/1", b"", b"\x00\xff").hex(),
            "series_uid": made.original_series_uid,
            "mark_seed": mark_seed(SYMMETRIC, made.original_series_uid).hex(),
        },
        "chunked-1": {
            "key": SYMMETRIC.hex(),
            "context": b"context".hex(),
            "plaintext": (ORIGINAL + ORIGINAL).hex(),
            "file": chunked.getvalue().hex(),
        },
        "spool-1": {
            "spool_key": SYMMETRIC.hex(),
            "name": "vector-name",
            "plaintext": ORIGINAL.hex(),
            "file": spool.getvalue().hex(),
        },
        "segment-1": {
            "spool_key": SYMMETRIC.hex(),
            "id": "00112233445566778899aabbccddeeff",
            "record": "ffeeddccbbaa99887766554433221100",
            "facts": {"id": "0" * 32, "size": len(ORIGINAL), "file": None},
            "plaintext": ORIGINAL.hex(),
            "file": _segment().hex(),
        },
        "derived-1": {
            "mark_key": SYMMETRIC.hex(),
            "name": "vector-name",
            "plaintext": ORIGINAL.hex(),
            "file": derived.getvalue().hex(),
        },
        "report-1": {
            "signing_private": SIGNING.hex(),
            "signer": report.signer,
            "vault_id": made.vault_id,
            "document": report.document.hex(),
            "signature": report.signature.hex(),
        },
        "proof-1": keys | {"signing_private": SIGNING.hex(), "file": proof_of(restore, signer).hex()},
        "token-1": keys
        | {
            "vault_id": made.vault_id,
            "locator": made.locator,
            "derived_sop_uid": made.derived_sop_uid,
            "token": make_token(restore, made.vault_id, made.locator, made.derived_sop_uid).hex(),
        },
        "record-1": _signed(signer, made),
        "record-2": _signed(signer, replace(made, derived_study_uid="2.25.305419898", version=2)),
        "record-3": _signed(signer, newest),
        "record-4": _signed(signer, replace(newest, begun_from="2.25.305419899", version=4)),
        "carried-1": keys
        | {
            "signing_private": SIGNING.hex(),
            "document": made.document().hex(),
            "body": b"body".hex(),
            "sealed_key": sealed_key.hex(),
            "payload": carried.hex(),
        },
        "carried-body-residual-1": _body(EXPLICIT_BIG),
        "carried-body-whole-2": _body(EXPLICIT_LITTLE, odd=True),
        "carried-body-referring-2": _referring(),
        "payload-1": keys
        | {"document": made.document().hex(), "plaintext": ORIGINAL.hex(), "file": payload.getvalue().hex()},
        "payload-2": keys
        | {"document": newest.document().hex(), "plaintext": ORIGINAL.hex(), "file": bound.getvalue().hex()},
    }


def _signed(signer: Signer, record: VaultRecord) -> dict[str, object]:
    """The document of a record, signed."""
    return {
        "signing_private": SIGNING.hex(),
        "signer": signer.id,
        "document": record.document().hex(),
        "signature": signer.sign(record.document()).hex(),
    }


def _body(transfer_syntax_uid: str, odd: bool = False) -> dict[str, object]:
    """A small image of signed 12-bit values (`odd`: of YBR, which has no residual), and what its copy carries."""
    if odd:
        ds = image(np.full((1, 3, 3, 3), 77, np.uint8), PhotometricInterpretation="YBR_FULL")
    else:
        ds = image(np.arange(-24, 24, dtype=np.int16).reshape(1, 6, 8), BitsStored=12)
    original = encode(ds, transfer_syntax_uid)
    pixels = decode_pixels(original, transfer_syntax_uid)
    marked = slightly_changed(pixels.frames, pixels.limits)
    copy = image(marked, BitsStored=ds.BitsStored)
    return {
        "original": original.hex(),
        "copy": encode(copy, EXPLICIT_LITTLE).hex(),
        "body": pack(original, transfer_syntax_uid, pixels, marked).hex(),
    }


def _referring() -> dict[str, object]:
    """A mask of single bits, and what its copy carries."""
    ds = image(Rows=3, Columns=5, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=None)
    ds.add_new(0x7FE00010, "OB", b"\x5a\x25")
    original = encode(ds)
    body = pack_referring(original, EXPLICIT_LITTLE)
    ds.PatientName = "Somebody^Else"
    return {"original": original.hex(), "copy": encode(ds).hex(), "body": body.hex()}


def backed_up() -> dict[str, object]:
    """A backup of a small site with one original, one copy's figures and one report; keys and salt are random.

    Since version 3 with a configuration file, a certificate and the restore role's list; version 4 with a promise. Each
    older vector was made by the last code that wrote it.
    """
    original = data_set(b"vector" * 20, "1.2.3.1")
    with tempfile.TemporaryDirectory() as name, patch.object(backup, "_LOG_N", 10):
        site = Path(name) / "site"
        make_keys(site / "keys")
        tls = 'certificate = "own.pem"\nprivate_key = "public.key"\ntrust = "trust"\n'
        (site / "gateway.toml").write_text(f"# vector\n[restore]\ntls_port = 2762\n[restore.tls]\n{tls}")
        (site / "trust").mkdir()
        for file in ("own.pem", "public.key", "trust/ca.pem"):
            (site / file).write_text(f"{file}\n")
        config = load_config(site / "gateway.toml")
        (site / "state" / "restore").mkdir(parents=True)
        vault = open_vault(config)
        record = vault.store(original, "1.2.3.1")
        SeenRecords(site / "state" / "restore" / "records.sqlite").note([record])
        figures = {"frames": 1, "psnr": 26.5, "psnr_windows": {}, "policy": {"tier": "lettered"}}
        shares = {"region_share": 0.5, "stroke_share": 0.25, "roi_share": 0.125}
        report = {"study_uid": "1.2", "number": 1, "instance_id": "0" * 32, "sop_instance_uid": "2.25.1"}
        signed = {"document": b"{}", "signature": bytes(64), "signer": "0" * 16}
        with transaction(vault.engine) as session:
            session.add(FiguresRow(locator=record.locator, route="relay", **figures, **shares))
            told = {"copies_sha256": "0" * 64, "last_marked_at": 1_700_000_000.5}
            session.add(ReportRow(route="relay", **report, **signed, **told))
            looked = {"asked_at": 1_700_000_001.0, "checked_at": 1_700_000_002.0, "result": "good"}
            session.add(PayloadCheckRow(locator=record.locator, promised_at=1_700_000_003.0, **looked))
        backup.backup(config, Path(name) / "backup", "correct horse", site / "gateway.toml")
        vault.engine.dispose()
        file = (Path(name) / "backup").read_bytes()
    return {"passphrase": "correct horse", "token": record.token.hex(), "derived_sop_uid": record.derived_sop_uid,
            "original": original.hex(), "file": file.hex()}  # fmt: skip


def main() -> None:
    """Write the vectors that are not there yet."""
    for name, content in (vectors() | {f"backup-{backup.VERSION}": backed_up()}).items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
