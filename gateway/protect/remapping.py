"""From the bytes of an object that refers to images to those that go out beside the marked copies."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from gateway.dicom.copy.derivation import DerivationFacts
from gateway.dicom.copy.references import derive_references, references_syntax
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.parts import Parts
from gateway.errors import HoldError
from gateway.vault import VaultRecord


@dataclass(frozen=True)
class Remapped:
    """An instance whose references are to be mapped: `derive` gives the bytes under a record's UIDs."""

    original: bytes
    transfer_syntax_uid: str
    facts_of: Callable[[VaultRecord], DerivationFacts]
    parts: Parts | None = None

    def derive(self, record: VaultRecord) -> tuple[bytes, str]:
        """The derived data set (in `references_syntax`) and its SHA-256.

        The same record gives the same bytes, unless the copy carries its original, which is sealed afresh each time, or
        an instance that it refers to was corrected since: then it names the newer copy (`gateway.vault.CopyNames`).

        Raises
        ------
        HoldError
            Code ``self-check-failed``: what was derived cannot be read, or is not what the record says.
        DicomError
            As `derive_references`.
        """
        data = derive_references(self.original, self.transfer_syntax_uid, self.facts_of(record), self.parts)
        header = read_header(io.BytesIO(data), references_syntax(self.transfer_syntax_uid))
        found = (header.sop_class_uid, header.sop_instance_uid, header.series_uid, header.study_uid)
        if found != (record.sop_class_uid, record.derived_sop_uid, record.derived_series_uid, record.copy_study_uid):
            raise HoldError("self-check-failed", "the derived data set does not carry the UIDs of its record")
        return data, hashlib.sha256(data).hexdigest()
