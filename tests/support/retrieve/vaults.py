"""A real vault in a folder: keys, database, sealed payloads, filled as the gateway's own steps fill it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from gateway.config.models import Keys
from gateway.config.secret import SecretRef
from gateway.database import open_database, sqlite_url
from gateway.dicom.copy.uids import derived_uid
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.private import write_block
from gateway.keys.generate import make_keys
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.restore import Restorer
from gateway.vault import PayloadStore, RecordFacts, RecordStore, VaultRecord, seal_payload
from gateway.vault.index import Index
from tests.support.retrieve.samples import Sample

EXPLICIT = "1.2.840.10008.1.2.1"
VAULT_ID = "site"


@dataclass
class Site:
    """A vault, what reads from it, and what was put in, by the samples' names."""

    index: Index
    restorer: Restorer
    samples: dict[str, Sample]
    records: dict[str, VaultRecord]
    payloads: Path

    def payload(self, name: str) -> Path:
        """The sealed file of one original."""
        return self.payloads / self.records[name].locator

    def marked(
        self,
        name: str,
        *,
        token: bytes | None = None,
        stripped: bool = False,
        uid: str = "",
        syntax: str = EXPLICIT,
        pixels: bytes | None = None,
    ) -> bytes:
        """Data set bytes of a marked copy of an uncompressed sample, as far as the restore SCP looks at one.

        Parameters
        ----------
        token
            Another object's token instead of its own.
        stripped
            Without the private block, as many archives store it.
        uid
            Another SOP Instance UID than the derived one.
        pixels
            Other pixel data.
        """
        record = self.records[name]
        copy = copy_of(self.samples[name])
        copy.SOPInstanceUID = uid or record.derived_sop_uid
        copy.SeriesInstanceUID = record.derived_series_uid
        copy.ImageType = ["DERIVED", "PRIMARY"]
        if pixels is not None:
            copy.PixelData = pixels
        if not stripped:
            write_block(copy, token or record.token, "restore")
        encoding = UID(syntax)
        return encode(copy, encoding.is_implicit_VR, encoding.is_little_endian, encoding.is_deflated)


def build_site(folder: Path, samples: Iterable[Sample]) -> Site:
    """Make keys and a database in `folder` and seal every sample."""
    make_keys(folder / "keys")
    keys = _keys(folder / "keys")
    sealing, opening = SealingKeys.load(keys), OpeningKeys.load(keys)
    engine = open_database(sqlite_url(folder / "gateway.sqlite"))
    store = RecordStore(
        engine,
        sealing.signer,
        sealing.verifier,
        vault_id=VAULT_ID,
        restore_public=sealing.restore_public,
        derive_uid=partial(derived_uid, sealing.uid_key),
    )
    payloads = PayloadStore(folder / "vault")
    samples = {sample.name: sample for sample in samples}
    records = {}
    for name, sample in samples.items():
        record = store.create(_facts(sample))
        payloads.put(record.locator, partial(_seal, sample, record, sealing))
        records[name] = record
    return Site(Index(engine), Restorer(engine, payloads.folder, opening, VAULT_ID), samples, records, payloads.folder)


def _seal(sample: Sample, record: VaultRecord, keys: SealingKeys, out: io.BufferedIOBase) -> None:
    seal_payload(out, io.BytesIO(sample.data), record, keys.restore_public)


def _facts(sample: Sample) -> RecordFacts:
    header = read_header(io.BytesIO(sample.data), sample.transfer_syntax)
    return RecordFacts(
        original_sop_uid=header.sop_instance_uid,
        original_series_uid=header.series_uid,
        study_uid=header.study_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=sample.transfer_syntax,
        original_sha256=hashlib.sha256(sample.data).hexdigest(),
        original_size=len(sample.data),
        policy="tests",
        attributes=header.attributes,
    )


def _keys(folder: Path) -> Keys:
    """The default table with its references made absolute, as the configuration loader makes them."""
    fields = Keys().model_dump()
    return Keys(
        **{
            name: tuple(map(partial(_absolute, folder), value))
            if isinstance(value, tuple)
            else _absolute(folder, value)
            for name, value in fields.items()
            if value is not None
        }
    )


def _absolute(folder: Path, reference: str) -> SecretRef:
    return SecretRef(f"file:{folder / Path(reference.partition(':')[2]).name}")


def copy_of(sample: Sample) -> Dataset:
    """The sample, decoded."""
    return pydicom.dcmread(io.BytesIO(part10(sample.data, sample.transfer_syntax)))


def part10(data: bytes, syntax: str) -> bytes:
    """Data set bytes as a file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    return b"\0" * 128 + b"DICM" + file.getvalue() + data


def write_part10(path: Path, data: bytes, syntax: str) -> None:
    """Data set bytes into a file that DCMTK's storescu sends: its File Meta names class and instance."""
    header = pydicom.dcmread(io.BytesIO(part10(data, syntax)), stop_before_pixels=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta)
    path.write_bytes(b"\0" * 128 + b"DICM" + file.getvalue() + data)
