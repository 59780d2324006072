"""Today's readers read what was ever released: fixed vectors, one file per format and version (deploy/formats.md)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.config import SecretRef, load_config
from gateway.config.models import Keys
from gateway.database import FiguresRow, PayloadCheckRow, ReportRow, VaultRow, open_database, reading
from gateway.dicom.copy.carried_body import rebuild
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import ConfigError, HoldError, SealError
from gateway.flow.segments.format import HEADER_SIZE, scan
from gateway.flow.segments.spool import ReceivedSpool
from gateway.keys import (
    ChunkedReader,
    DerivedCipher,
    OpeningKeys,
    Signer,
    SpoolCipher,
    Verifier,
    canonical,
    hkdf,
    key_id,
    mark_seed,
    read_token,
)
from gateway.keys.pair import check_proof, proof_of
from gateway.protect.signed_report import SignedReport, check_report
from gateway.restore import Restorer, SeenRecords
from gateway.vault import VaultRecord, open_carried, open_payload
from gateway.vault.record import SHARED, read_row
from gateway.vault.recovery import recover


class Vector:
    def __init__(self, name: str) -> None:
        self._content = json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))

    def text(self, key: str) -> str:
        return self._content[key]

    def data(self, key: str) -> bytes:
        return bytes.fromhex(self._content[key])

    def file(self) -> io.BytesIO:
        return io.BytesIO(self.data("file"))

    def facts(self) -> dict:
        return self._content["facts"]

    def parts(self) -> list[bytes]:
        return [bytes.fromhex(part) for part in self._content["parts"]]


def record_of(document: bytes, token: bytes = b"") -> tuple[VaultRow, dict]:
    content = json.loads(document)
    row = VaultRow(**{name: content[name] for name in SHARED}, token=token, attributes={}, document=document)
    row.created_at = content["created_ms"] / 1000
    row.derived_study_uid = content.get("derived_study_uid", "")
    row.patient_id = row.study_date = row.accession_number = row.modality = ""
    return row, content


def read_record(document: bytes) -> VaultRecord:
    row, _ = record_of(document)
    return read_row(row, None)


def test_derivation():
    vector = Vector("derive-1")
    assert hkdf(vector.data("key"), vector.text("label"), *vector.parts()) == vector.data("hkdf")
    assert mark_seed(vector.data("key"), vector.text("series_uid")) == vector.data("mark_seed")


def test_chunked_file():
    vector = Vector("chunked-1")
    reader = ChunkedReader(vector.file(), vector.data("key"), vector.data("context"))
    assert reader.read() == vector.data("plaintext")


def test_spool_file():
    vector = Vector("spool-1")
    reader = SpoolCipher(vector.data("spool_key")).reader(vector.file(), vector.text("name"))
    assert reader.read() == vector.data("plaintext")


def test_segment(tmp_path):
    vector = Vector("segment-1")
    spool = ReceivedSpool(tmp_path, SpoolCipher(vector.data("spool_key")))
    spool.segment_path(vector.text("id")).write_bytes(vector.data("file"))
    with spool.segment_path(vector.text("id")).open("rb") as file:
        steps = list(scan(file, vector.text("id"), HEADER_SIZE, len(vector.data("file"))))
    assert [step.kind for step in steps] == ["instance", "mark", "end"]
    assert steps[0].head.id == vector.text("record")
    assert spool.open_facts(steps[0].facts, vector.text("record")) == vector.facts()
    with spool.open(f"{vector.text('id')}@{HEADER_SIZE}") as file:
        assert file.read() == vector.data("plaintext")


def test_derived_file():
    vector = Vector("derived-1")
    cipher = DerivedCipher(vector.data("mark_key"), bytes(32))
    assert cipher.reader(vector.file(), vector.text("name")).read() == vector.data("plaintext")


def test_derived_file_of_the_version_that_used_the_key_of_the_spool():
    vector = Vector("spool-1")
    cipher = DerivedCipher(bytes(32), vector.data("spool_key"))
    assert cipher.reader(vector.file(), vector.text("name")).read() == vector.data("plaintext")
    with pytest.raises(SealError):
        DerivedCipher(bytes(32), bytes(32)).reader(vector.file(), vector.text("name"))


def test_signed_report():
    vector = Vector("report-1")
    private = Ed25519PrivateKey.from_private_bytes(vector.data("signing_private"))
    signed = SignedReport(vector.data("document"), vector.data("signature"), vector.text("signer"))
    facts = check_report(signed, Verifier([private.public_key()]), vector.text("vault_id"))
    assert (facts.route, facts.instance_id, facts.size) == ("relay", "0" * 32, 10)
    with pytest.raises(HoldError):
        check_report(signed, Verifier([private.public_key()]), "another")


def test_proof_of_the_pair(tmp_path):
    vector = Vector("proof-1")
    private = X25519PrivateKey.from_private_bytes(vector.data("restore_private"))
    signing = Ed25519PrivateKey.from_private_bytes(vector.data("signing_private"))
    (tmp_path / "restore.proof").write_bytes(vector.data("file"))
    keys = Keys(restore_public_key=SecretRef(f"file:{tmp_path}/restore.public.pem"))
    assert check_proof(keys, private.public_key(), Verifier([signing.public_key()]))
    for public, signer in ((X25519PrivateKey.generate(), signing), (private, Ed25519PrivateKey.generate())):
        with pytest.raises(ConfigError):
            check_proof(keys, public.public_key(), Verifier([signer.public_key()]))
    assert proof_of(private.public_key(), Signer(signing)) == vector.data("file")  # Ed25519 is deterministic
    assert len(vector.data("file")) == 169


def test_token():
    vector = Vector("token-1")
    private = X25519PrivateKey.from_private_bytes(vector.data("restore_private"))
    assert key_id(private.public_key()) == vector.text("restore_key_id")
    content = read_token(private, vector.data("token"), vector.text("derived_sop_uid"))
    assert (content.vault_id, content.locator) == (vector.text("vault_id"), vector.text("locator"))
    with pytest.raises(SealError):
        read_token(private, vector.data("token"), vector.text("derived_sop_uid") + "1")


@pytest.mark.parametrize(
    ("name", "derived_study", "begun_from"),
    [
        ("record-1", "", ""),
        ("record-2", "2.25.305419898", ""),
        ("record-3", "", ""),
        ("record-4", "", "2.25.305419899"),
    ],
)
def test_record(name, derived_study, begun_from):
    vector = Vector(name)
    private = Ed25519PrivateKey.from_private_bytes(vector.data("signing_private"))
    row, content = record_of(vector.data("document"))
    row.signature, row.signer = vector.data("signature"), vector.text("signer")
    record = read_row(row, Verifier([private.public_key()]), "vector-site")
    assert record.generation == 2 and record.created_at == 1_700_000_000.123 and record.derived_sha256 is None
    assert (record.derived_study_uid, record.begun_from) == (derived_study, begun_from)
    assert record.document() == vector.data("document") == canonical(content)
    assert Signer(private).sign(vector.data("document")) == vector.data("signature")  # Ed25519 is deterministic


@pytest.mark.parametrize("name", ["payload-1", "payload-2"])
def test_sealed_payload(name):
    vector = Vector(name)
    private = X25519PrivateKey.from_private_bytes(vector.data("restore_private"))
    reader = open_payload(vector.file(), read_record(vector.data("document")), private)
    assert b"".join(reader) == vector.data("plaintext")


def test_carried_original():
    vector = Vector("carried-1")
    private = X25519PrivateKey.from_private_bytes(vector.data("restore_private"))
    verifier = Verifier([Ed25519PrivateKey.from_private_bytes(vector.data("signing_private")).public_key()])
    record = read_record(vector.data("document"))
    carried = open_carried(vector.data("sealed_key"), vector.data("payload"), record.derived_sop_uid, private, verifier)
    assert carried.body == vector.data("body")
    assert carried.record.is_carried
    assert replace(carried.record, payload_file=record.payload_file) == record


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("carried-body-residual-1", b"\1\2"),
        ("carried-body-whole-1", b"\1\1"),
        ("carried-body-whole-2", b"\2\1\1"),
        ("carried-body-referring-2", b"\2\1\2"),
    ],
)
def test_carried_body(name, head):
    vector = Vector(name)
    original = vector.data("original")
    assert vector.data("body").startswith(head)
    assert rebuild(vector.data("body"), len(original), vector.data("copy"), EXPLICIT_LITTLE) == original


@pytest.mark.parametrize(
    ("name", "extra", "promised"), [("backup-1", 0, 0), ("backup-2", 1, 0), ("backup-3", 1, 0), ("backup-4", 1, 1)]
)
def test_backup(name, extra, promised, tmp_path):
    vector = Vector(name)
    (tmp_path / "backup").write_bytes(vector.data("file"))
    config = load_config(recover(tmp_path / "backup", tmp_path / "new", vector.text("passphrase")).config)
    engine = open_database(config.database_url)
    with reading(engine) as session:
        assert [session.query(table).count() for table in (FiguresRow, ReportRow)] == [extra, extra]
        assert [row.promised_at for row in session.query(PayloadCheckRow)] == [1_700_000_003.0] * promised
    restorer = Restorer(engine, config.site.state / "vault", OpeningKeys.load(config.keys), config.site.name)
    original = restorer.by_token(vector.data("token"), vector.text("derived_sop_uid"))
    original.verify()
    assert b"".join(original.stream()) == vector.data("original")
    engine.dispose()
    public = {"restore.public.pem", "signing.public.pem", "restore.proof"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "keys").iterdir()}
    assert modes == {file: 0o644 if file in public else 0o600 for file in modes} and len(modes) >= 7


@pytest.mark.parametrize("name", ["backup-3", "backup-4"])
def test_backup_of_a_whole_site(name, tmp_path):
    vector = Vector(name)
    (tmp_path / "backup").write_bytes(vector.data("file"))
    config = load_config(recover(tmp_path / "backup", tmp_path / "new", vector.text("passphrase")).config)
    assert (tmp_path / "new" / "gateway.toml").read_text().startswith("# vector\n[restore]")
    assert config.restore is not None and config.restore.tls is not None and config.restore.tls_port == 2762
    tls = config.restore.tls
    files = [tls.certificate, tls.private_key, *tls.trust.iterdir()]
    assert [file.read_text() for file in files] == ["own.pem\n", "public.key\n", "trust/ca.pem\n"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o644, 0o600, 0o644]
    assert not SeenRecords(config.site.state / "restore" / "records.sqlite").is_empty()
