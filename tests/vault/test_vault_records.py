"""Records: one per original and policy, generations, digests fixed once, and nothing believed that was not signed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import inspect, select, update

from gateway.database import VaultRow, engine, transaction
from gateway.dicom.copy.uids import derived_uid
from gateway.errors import GatewayError, IntegrityError, NotFoundError, VaultError
from gateway.keys import Signer, Verifier, read_token
from gateway.vault import RecordStore
from tests.support.vault import facts_of


def code_of(call) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


def test_the_same_original_has_one_record(vault):
    record = vault.records.create(facts_of(b"a"))
    assert vault.records.create(facts_of(b"a")).locator == record.locator
    assert record.generation == 1
    assert record.derived_sop_uid == derived_uid(vault.sealing.uid_key, "instance", "1.2.3.1", 1)
    assert record.derived_series_uid == derived_uid(vault.sealing.uid_key, "series", "1.2.3", 0)
    token = read_token(vault.opening.restore_private, record.token, record.derived_sop_uid)
    assert (token.vault_id, token.locator) == (record.vault_id, record.locator)


def test_other_bytes_or_another_policy_are_another_generation(vault):
    made = [
        vault.records.create(facts)
        for facts in (facts_of(b"a"), facts_of(b"b"), facts_of(b"a", policy="policy-2"), facts_of(b"a"))
    ]
    assert [record.generation for record in made] == [1, 2, 3, 1]
    assert len({record.derived_sop_uid for record in made}) == 3
    assert len({record.derived_series_uid for record in made}) == 1
    assert vault.records.by_original_uid("1.2.3.1").generation == 3
    assert vault.records.by_derived_uid(made[1].derived_sop_uid).original_sha256 == made[1].original_sha256


def test_an_archive_that_goes_back_to_earlier_bytes(vault):
    first = vault.records.create(facts_of(b"a", received_at=time.time()))
    vault.records.create(facts_of(b"b", received_at=time.time()))
    late = vault.records.create(facts_of(b"a", received_at=first.created_at - 1))
    assert late.locator == first.locator  # a step repeated for what came before: nothing new
    again = vault.records.create(facts_of(b"a", received_at=time.time() + 1))
    assert again.generation == 3 and vault.records.by_original_uid("1.2.3.1").original_sha256 == first.original_sha256
    assert vault.records.create(facts_of(b"a", received_at=time.time() + 1)).locator == again.locator


def test_derived_bytes_are_fixed_once(vault):
    record = vault.records.create(facts_of(b"a"))
    assert vault.records.fix_derived(record.locator, "1" * 64)
    assert vault.records.fix_derived(record.locator, "1" * 64)
    assert not vault.records.fix_derived(record.locator, "2" * 64)
    assert vault.records.by_locator(record.locator).derived_sha256 == "1" * 64  # signed anew: it verifies
    assert code_of(lambda: vault.records.fix_derived("0" * 32, "1" * 64)) == "no-such-record"


def test_what_a_mark_began_from_is_signed_with_its_digest_and_stays(vault):
    record = vault.records.create(facts_of(b"a"))
    assert record.begun_from == "" and record.version == 4
    assert vault.records.fix_derived(record.locator, "1" * 64, "2.25.7")
    fixed = vault.records.by_locator(record.locator)
    assert fixed.begun_from == "2.25.7"
    assert fixed.lasting_sha256 == record.lasting_sha256
    assert vault.records.fix_derived(record.locator, "1" * 64, "2.25.8")
    assert not vault.records.fix_derived(record.locator, "2" * 64, "2.25.8")
    assert vault.records.by_locator(record.locator).begun_from == "2.25.7"


def test_a_new_generation_takes_the_records_place(vault):
    record = vault.records.create(facts_of(b"a"))
    newer = vault.records.new_generation(record)
    assert newer.generation == 2 and newer.derived_sop_uid != record.derived_sop_uid
    assert newer.original_sha256 == record.original_sha256
    assert vault.records.create(facts_of(b"a")).locator == newer.locator
    assert vault.records.new_generation(record).locator == newer.locator  # a step repeated after a kill
    assert vault.records.new_generation(newer).generation == 3


def test_retention(vault):
    old = vault.store(b"a")
    kept = vault.store(b"b", "1.2.3.2")
    assert vault.records.expire(old.created_at - 1) == []
    assert vault.records.expire(time.time() + 1, keep={kept.locator}) == [old.locator]
    assert vault.records.by_locator(old.locator).payload_file is None
    assert vault.records.expire(time.time() + 1, keep={kept.locator}) == []
    again = vault.records.create(facts_of(b"a"))  # an ended record stays ended
    assert again.generation == 2 and again.payload_file == again.locator


def test_a_marked_copy_is_no_original(vault):
    record = vault.records.create(facts_of(b"a"))
    assert code_of(lambda: vault.records.create(facts_of(b"b", record.derived_sop_uid))) == "is-a-marked-copy"


def test_nothing_there(vault):
    for find in (vault.records.by_locator, vault.records.by_original_uid, vault.records.by_derived_uid):
        with pytest.raises(NotFoundError) as caught:
            find("1.2.3")
        assert caught.value.code == "no-such-record"


def test_a_store_for_reading_makes_nothing(vault):
    record = vault.records.create(facts_of(b"a"))
    reader = RecordStore(vault.engine, verifier=vault.opening.verifier)
    assert reader.by_locator(record.locator) == record
    for change in (
        lambda: reader.create(facts_of(b"b")),
        lambda: reader.fix_derived(record.locator, "1" * 64),
        lambda: reader.expire(time.time() + 1),
    ):
        with pytest.raises(VaultError) as caught:
            change()
        assert caught.value.code == "vault-read-only"


def test_a_new_study_is_signed_and_counted_by_itself(vault):
    kept = vault.records.create(facts_of(b"a"))
    new = vault.records.create(facts_of(b"a", policy="policy-2", has_new_study=True))
    assert (kept.derived_study_uid, kept.copy_study_uid, new.study_uid) == ("", "1.2", "1.2")
    assert new.derived_study_uid == new.copy_study_uid == derived_uid(vault.sealing.uid_key, "study", "1.2")
    assert [json.loads(one.document())["version"] for one in (kept, new)] == [4, 4]
    assert json.loads(new.document())["derived_study_uid"] == new.derived_study_uid
    assert vault.records.by_locator(new.locator) == new
    # the first of its kind, whatever came before, and in a series of its own
    assert new.generation == 2
    assert new.derived_sop_uid == derived_uid(vault.sealing.uid_key, "instance", "1.2.3.1/study", 1)
    assert new.derived_series_uid == derived_uid(vault.sealing.uid_key, "series", "1.2.3/study")
    later = vault.records.create(facts_of(b"b"))
    assert (later.generation, later.derived_sop_uid) == (
        3,
        derived_uid(vault.sealing.uid_key, "instance", "1.2.3.1", 2),
    )
    assert vault.records.new_generation(new).derived_study_uid == new.derived_study_uid


def test_records_of_the_schema_before_are_read_as_they_were(vault):
    """Revision 0003 knew no study UID of copies: theirs is the original's."""
    record = vault.records.create(facts_of(b"a"))
    alembic = AlembicConfig()
    alembic.set_main_option("script_location", str(Path(engine.__file__).parent / "migrations"))
    with vault.engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, "0003")
    assert "derived_study_uid" not in {column["name"] for column in inspect(vault.engine).get_columns("vault_record")}
    engine.migrate(vault.engine)
    assert vault.records.by_locator(record.locator) == record


TAMPERED = {
    "original_sop_uid": "9.9",
    "original_series_uid": "9.9",
    "study_uid": "9.9",
    "derived_sop_uid": "9.9",
    "derived_series_uid": "9.9",
    "derived_study_uid": "9.9",
    "sop_class_uid": "9.9",
    "transfer_syntax_uid": "9.9",
    "original_sha256": "0" * 64,
    "original_size": 7,
    "policy": "x",
    "derived_sha256": "0" * 64,
    "payload_file": "0" * 32,
    "generation": 7,
    "created_at": 1.0,
}


@pytest.mark.parametrize("column", TAMPERED)
def test_a_changed_column_is_noticed(vault, column):
    record = vault.records.create(facts_of(b"a"))
    with transaction(vault.engine) as session:
        session.execute(update(VaultRow).values({column: TAMPERED[column]}))
    assert code_of(lambda: vault.records.by_locator(record.locator)) == "record-columns-differ"


def test_a_changed_document_signature_or_signer(vault):
    record = vault.records.create(facts_of(b"a"))
    other = vault.records.create(facts_of(b"b", "1.2.3.2"))
    stranger = Signer(Ed25519PrivateKey.generate())
    forged = replace(record, study_uid="9.9").document()
    with transaction(vault.engine) as session:
        row = session.get(VaultRow, record.locator)
        document, signature = row.document, row.signature

    def with_row(code, **columns):
        with transaction(vault.engine) as session:
            session.execute(update(VaultRow).where(VaultRow.locator == record.locator).values(columns))
        with pytest.raises(IntegrityError) as caught:
            vault.records.by_locator(record.locator)
        assert caught.value.code == code
        plain = {"document": document, "signature": signature, "signer": vault.sealing.signer.id}
        with transaction(vault.engine) as session:
            session.execute(
                update(VaultRow).where(VaultRow.locator == record.locator).values(plain | {"study_uid": "1.2"})
            )
        assert vault.records.by_locator(record.locator) == record

    with_row("signature-wrong", document=forged, study_uid="9.9")
    with_row("signature-wrong", document=document[:-1])
    with_row("signature-wrong", signature=bytes(64))
    with_row("signer-unknown", document=forged, study_uid="9.9", signature=stranger.sign(forged), signer=stranger.id)
    with_row("signature-wrong", document=forged, study_uid="9.9", signature=stranger.sign(forged))
    signer = vault.sealing.signer  # rightly signed, wrong place or version
    with_row("record-columns-differ", document=other.document(), signature=signer.sign(other.document()))
    later = record.document().replace(b'"version":4', b'"version":5')
    with_row("record-format", document=later, signature=signer.sign(later))
    with_row("record-format", document=b"[]", signature=signer.sign(b"[]"))


def test_a_record_of_another_vault(vault):
    record = vault.records.create(facts_of(b"a"))
    reader = RecordStore(vault.engine, verifier=Verifier([]), vault_id="elsewhere")
    assert code_of(lambda: reader.by_locator(record.locator)) == "signer-unknown"
    reader = RecordStore(vault.engine, verifier=vault.opening.verifier, vault_id="elsewhere")
    assert code_of(lambda: reader.by_locator(record.locator)) == "record-of-another-vault"


def test_a_taken_generation_is_tried_again(vault, monkeypatch):
    """What two processes do on PostgreSQL: both count, one inserts, the other's insert fails, and it looks again."""
    racing = RecordStore(
        vault.engine,
        vault.sealing.signer,
        vault.sealing.verifier,
        vault_id=vault.config.site.name,
        restore_public=vault.sealing.restore_public,
        derive_uid=partial(derived_uid, vault.sealing.uid_key),
    )
    vault.records.create(facts_of(b"a"))
    plain, counted = racing._derive_uid, []

    def colliding(level, uid, generation):
        counted.append(generation)
        return plain(level, uid, generation - (level == "instance" and len(counted) == 1))

    monkeypatch.setattr(racing, "_derive_uid", colliding)
    assert racing.create(facts_of(b"b")).generation == 2
    assert counted[0] == 2 and len(counted) > 2  # the first insert met the unique constraint


def test_several_processes_create_at_once(vault, tmp_path):
    """Three processes, the same eight originals (two byte strings under each of four UIDs), in different orders."""
    program = tmp_path / "create.py"
    program.write_text(
        "import random, sys\n"
        "from pathlib import Path\n"
        "from gateway.config.default import default_config\n"
        "from tests.support.vault import facts_of, open_vault\n"
        "vault = open_vault(default_config(Path(sys.argv[1])))\n"
        "work = [(str(n), data) for n in range(1, 5) for data in (b'a', b'b')]\n"
        "random.Random(sys.argv[2]).shuffle(work)\n"
        "for n, data in work:\n"
        "    record = vault.store(data, f'1.2.3.{n}')\n"
        "    print(n, data.decode(), record.locator, record.generation)\n"
    )
    command = [sys.executable, str(program), str(vault.config.site.state)]
    running = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True, env=environment())
        for seed in range(3)
    ]
    seen: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        for line in output.splitlines():
            number, data, locator, generation = line.split()
            seen.setdefault((number, data), set()).add((locator, generation))
    assert len(seen) == 8 and all(len(answers) == 1 for answers in seen.values())
    for number in "1234":
        assert {next(iter(seen[number, data]))[1] for data in "ab"} == {"1", "2"}
    with transaction(vault.engine) as session:
        locators = set(session.scalars(select(VaultRow.locator)))
    assert locators == set(vault.payloads.locators()) and len(locators) == 8


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
