"""Marked copies that carry their originals, made of any original without marking: a stand-in changes the pixels."""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.dicom.copy.carried_body import pack, pack_referring
from gateway.dicom.copy.derivation import DerivationFacts
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.keys import OpeningKeys, Signer, Verifier, key_id, make_token
from gateway.vault import VaultRecord, seal_carried
from tests.support.dicom.samples import facts, slightly_changed


@dataclass(frozen=True)
class Gateway:
    """A gateway that copies come from: its signing key, and the restore key that it seals to."""

    restore: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def opening(self) -> OpeningKeys:
        """What a restoring machine holds."""
        return OpeningKeys(self.restore, Verifier([self.signing.public_key()]))

    def record(self, data: bytes, syntax: str, derived_sop_uid: str = "2.25.1001") -> VaultRecord:
        """The record that this gateway would keep of an original."""
        header = read_header(io.BytesIO(data), syntax)
        locator = "00112233445566778899aabbccddeeff"
        public = self.restore.public_key()
        return VaultRecord(
            vault_id="elsewhere",
            locator=locator,
            generation=1,
            original_sop_uid=header.sop_instance_uid,
            original_series_uid=header.series_uid,
            study_uid=header.study_uid,
            derived_sop_uid=derived_sop_uid,
            derived_series_uid="2.25.1002",
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=syntax,
            original_sha256=hashlib.sha256(data).hexdigest(),
            original_size=len(data),
            policy="policy",
            derived_sha256=None,
            payload_file="carried",
            key_id=key_id(public),
            created_at=round(time.time(), 3),
            token=make_token(public, "elsewhere", locator, derived_sop_uid),
            attributes={},
        )

    def copy(self, data: bytes, syntax: str, derived_sop_uid: str = "2.25.1001") -> bytes:
        """The marked copy (Explicit VR Little Endian) of an original. DicomError when it cannot be marked."""
        pixels = decode_pixels(data, syntax)
        marked = slightly_changed(pixels.frames, pixels.limits)
        own = self._facts(pack(data, syntax, pixels, marked), self.record(data, syntax, derived_sop_uid))
        return derive(data, syntax, marked, own, pixels)

    def remapped(self, data: bytes, syntax: str) -> bytes:
        """The copy, in `references_syntax`, of an object that refers to images."""
        return derive_references(data, syntax, self._facts(pack_referring(data, syntax), self.record(data, syntax)))

    def _facts(self, body: bytes, record: VaultRecord) -> DerivationFacts:
        sealed_key, payload = seal_carried(body, record, self.restore.public_key(), Signer(self.signing))
        uid = record.derived_sop_uid
        return facts(derived_sop_uid=uid, token=record.token, sealed_key=sealed_key, payload=payload, hint="")
