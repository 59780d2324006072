"""Whoever writes rows and holds the worker's signing key still gets no original to where it does not belong."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace

import pytest
from sqlalchemy import delete, update

from gateway.database import VaultRow, transaction
from gateway.dicom.encoding.attributes import query_attributes
from gateway.dicom.encoding.elements import Layout
from gateway.dicom.encoding.encoded import parse
from gateway.errors import GatewayError
from gateway.restore import Restorer, SeenRecords
from gateway.vault.record import SHARED, index_columns, index_digest
from tests.support.vault import data_set

DATA = data_set(b"pixels", patient="P1")
ATTRIBUTES = query_attributes(parse(DATA[: DATA.index(b"\xe0\x7f\x10\x00")], Layout(False, True)))


@pytest.fixture
def seen(tmp_path) -> SeenRecords:
    return SeenRecords(tmp_path / "records.sqlite")


@pytest.fixture
def restorer(vault, seen) -> Restorer:
    return Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, seen)


@pytest.fixture
def listless(vault) -> Restorer:
    """Without the list, as if every record was seen for the first time."""
    return Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name)


def code_of(call) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


def release(restorer, locator) -> bytes:
    with restorer.by_locator(locator) as original:
        original.verify()
        return b"".join(original.stream())


def sign_anew(vault, record, **changes) -> None:
    """What a worker can do that was taken over: any document, rightly signed, and the row to go with it."""
    forged = replace(record, **changes)
    document = forged.document()
    values = {name: getattr(forged, name) for name in (*SHARED, "derived_study_uid", "attributes")}
    values |= {"document": document, "signature": vault.sealing.signer.sign(document)}
    values |= index_columns(forged.attributes)
    with transaction(vault.engine) as session:
        session.execute(update(VaultRow).where(VaultRow.locator == record.locator).values(values))
    assert vault.records.by_locator(record.locator) == forged  # nothing but what follows finds it


def old_version(vault, record, data):
    """The record and its payload as a gateway of before would have made them."""
    old = replace(record, version=1, index_sha256="")
    sign_anew(vault, old)
    vault.payloads.delete(old.locator)
    vault.put(old, data)
    return old


def test_what_is_right_is_released(vault, restorer):
    record = vault.store(DATA, attributes=ATTRIBUTES)
    assert ATTRIBUTES["00100020"]["Value"] == ["P1"]
    assert release(restorer, record.locator) == DATA == release(restorer, record.locator)


@pytest.mark.parametrize("before", ["never seen", "released", "watched"])
@pytest.mark.parametrize(
    "changes",
    [
        {"study_uid": "9.9"},
        {"original_series_uid": "9.9"},
        {"original_sop_uid": "9.9"},
        {"generation": 7},
        {"original_sha256": "0" * 64},
        {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"},
        {"policy": "other"},
        {"derived_sop_uid": "2.25.9"},
    ],
)
def test_a_record_that_was_changed_and_signed_anew_opens_nothing(vault, restorer, changes, before):
    record = vault.store(DATA, attributes=ATTRIBUTES)
    if before == "released":
        release(restorer, record.locator)
    elif before == "watched":
        assert restorer.watch().once() > 0
    sign_anew(vault, record, **changes)
    if before == "never seen":
        if "derived_sop_uid" in changes:
            return  # first sight is trusted; the token names the other, and the original is the same one
        assert code_of(lambda: release(restorer, record.locator)) == "payload-of-another-record"
    else:
        assert code_of(lambda: restorer.by_locator(record.locator)) == "record-changed"


@pytest.mark.parametrize("changes", [{"study_uid": "9.9"}, {"original_series_uid": "9.9"}])
def test_payloads_of_before_are_compared_with_what_they_hold(vault, listless, changes):
    old = old_version(vault, vault.store(DATA, attributes=ATTRIBUTES), DATA)
    assert release(listless, old.locator) == DATA
    sign_anew(vault, old, **changes)
    assert code_of(lambda: release(listless, old.locator)) == "original-differs-from-record"


def test_a_payload_of_before_is_none_of_today_s_record(vault, listless):
    record = vault.store(DATA, attributes=ATTRIBUTES)
    old_version(vault, record, DATA)
    sign_anew(vault, record)
    assert code_of(lambda: release(listless, record.locator)) == "payload-of-another-record"


def test_the_index_cannot_claim_another_patient(vault, listless):
    record = vault.store(DATA, attributes=ATTRIBUTES)
    claimed = ATTRIBUTES | {"00100020": {"vr": "LO", "Value": ["P2"]}}
    sign_anew(vault, record, attributes=claimed, index_sha256=index_digest(claimed))
    assert code_of(lambda: release(listless, record.locator)) == "original-differs-from-record"
    with transaction(vault.engine) as session:  # nor without a key, by its columns alone
        session.execute(update(VaultRow).values(patient_id="P2", attributes=ATTRIBUTES))
    assert code_of(lambda: listless.by_locator(record.locator)) == "index-differs"


def test_payloads_do_not_change_places(vault, listless):
    one, two = vault.store(DATA), vault.store(data_set(b"others", "1.2.3.2"), "1.2.3.2")
    os.replace(vault.payloads.folder / two.locator, vault.payloads.folder / one.locator)
    assert code_of(lambda: release(listless, one.locator)) == "payload-of-another-record"


def test_an_old_generation_is_no_newest_one(vault, restorer):
    old, new = vault.store(DATA), vault.store(data_set(b"after!", patient="P1"))
    restorer.watch().once()
    with transaction(vault.engine) as session:
        session.execute(delete(VaultRow).where(VaultRow.locator == new.locator))
    assert code_of(lambda: restorer.by_uid("1.2.3.1")) == "newer-generation-gone"
    assert code_of(lambda: restorer.by_locator(old.locator, named={"1.2.3.1"})) == "newer-generation-gone"
    assert release(restorer, old.locator) == DATA  # asked for by its own derived UID it is what it is
    with restorer.by_locator(old.locator, named={old.derived_sop_uid}) as original:
        original.verify()


def test_a_record_goes_on_as_it_may_and_not_back(vault, restorer):
    record = vault.store(DATA, attributes=ATTRIBUTES)
    watch = restorer.watch()
    watch.once()
    vault.records.fix_derived(record.locator, "1" * 64)
    watch.once()
    fixed = vault.records.by_locator(record.locator)
    for changes in ({"derived_sha256": None}, {"derived_sha256": "2" * 64}):
        sign_anew(vault, fixed, **changes)
        assert code_of(watch.once) == "record-changed"
    sign_anew(vault, fixed)
    watch.once()
    vault.records.expire(time.time() + 1)
    watch.once()
    sign_anew(vault, fixed)  # retention undone
    assert code_of(watch.once) == "record-changed"


def test_the_list_only_grows(vault, restorer, seen, tmp_path):
    release(restorer, vault.store(DATA).locator)
    database = sqlite3.connect(tmp_path / "records.sqlite")
    for statement in ("UPDATE seen SET lasting_sha256 = ''", "DELETE FROM seen"):
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(statement)
    database.close()
    assert (tmp_path / "records.sqlite").stat().st_mode & 0o777 == 0o600
    assert SeenRecords(tmp_path / "records.sqlite").check(vault.records.by_original_uid("1.2.3.1")) is None


def test_an_original_that_cannot_be_read_is_not_released(vault, listless):
    record = vault.store(b"no data set at all")
    assert code_of(lambda: release(listless, record.locator)) == "original-unreadable"


def test_two_studies_with_one_uid_are_told_apart(vault, restorer):
    first = vault.store(data_set(b"first!"))
    second_data = data_set(b"second", study="1.9", series="1.9.3")
    second = vault.store(second_data, study_uid="1.9", original_series_uid="1.9.3")
    assert second.generation == first.generation + 1
    assert code_of(lambda: restorer.by_uid("1.2.3.1")) == "uid-collision"
    for study, data in (("1.2", data_set(b"first!")), ("1.9", second_data)):
        with restorer.by_uid("1.2.3.1", study) as original:
            original.verify()
            assert b"".join(original.stream()) == data


@pytest.mark.parametrize("how", ["file", "folder", "emptied", "junk"])
def test_a_list_that_vanished_is_missed_and_not_begun_anew(vault, tmp_path, how):
    folder = tmp_path / "own"
    folder.mkdir()
    file = folder / "records.sqlite"
    seen = SeenRecords(file)
    restorer = Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, seen)
    record = vault.store(DATA, attributes=ATTRIBUTES)
    assert restorer.begins_list()
    assert release(restorer, record.locator) == DATA
    assert not restorer.begins_list()
    for one in folder.iterdir():
        one.unlink()
    if how == "folder":
        folder.rmdir()
    elif how != "file":
        file.write_bytes(b"" if how == "emptied" else b"junk" * 4096)
    there = file.exists()
    for call in (lambda: release(restorer, record.locator), lambda: restorer.by_locator(record.locator, ["1.2"])):
        assert code_of(call) == "list-unavailable"
    assert file.exists() == there


def test_a_disk_without_room_for_the_list_releases_what_is_listed_and_nothing_else(vault, tmp_path, monkeypatch):
    seen = SeenRecords(tmp_path / "own.sqlite")
    restorer = Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, seen)
    old = vault.store(DATA, attributes=ATTRIBUTES)
    assert release(restorer, old.locator) == DATA
    new = vault.store(data_set(b"others", sop="1.2.3.77"), sop="1.2.3.77")
    connect = sqlite3.connect

    def full(*given, **named):  # as when there is no room: it reads, and writes nothing
        database = connect(*given, **named)
        database.execute("CREATE TEMP TRIGGER no_room BEFORE INSERT ON seen BEGIN SELECT RAISE(FAIL, 'full'); END")
        return database

    monkeypatch.setattr(sqlite3, "connect", full)
    assert release(restorer, old.locator) == DATA
    assert code_of(lambda: restorer.by_locator(new.locator)) == "list-unavailable"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_list_that_root_makes_first_is_the_role_s(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12346)
    SeenRecords(folder / "records.sqlite")
    assert {(one.stat().st_uid, one.stat().st_gid) for one in folder.iterdir()} == {(12345, 12346)}
    assert (folder / "records.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's commands could be led astray")
def test_root_gives_nothing_away_to_which_a_link_of_the_restore_role_points(tmp_path):
    """The folder is the restore role's own: what it puts there must not become its own by a command of root's."""
    folder = tmp_path / "restore"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    (folder / "records.sqlite").symlink_to(secret)
    assert code_of(lambda: SeenRecords(folder / "records.sqlite")) == "list-unavailable"
    assert (secret.stat().st_uid, secret.stat().st_size) == (0, 0)
