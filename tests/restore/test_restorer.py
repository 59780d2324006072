"""What comes out is what was received, or nothing: verified first, checked again while it streams."""

from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.config.default import default_config
from gateway.database import VaultRow, transaction
from gateway.errors import GatewayError, IntegrityError, NotFoundError, SealError
from gateway.keys import OpeningKeys, make_keys, make_token
from gateway.restore import Restorer
from gateway.restore.held import HeldMemory
from gateway.vault import seal_payload
from tests.support.vault import data_set, facts_of

DATA = data_set(os.urandom(2_500_000) + b"\0" * 1_000_000)
OTHER = data_set(b"other", "1.2.3.2")


@pytest.fixture
def restorer(vault) -> Restorer:
    return Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name)


@pytest.fixture
def in_pieces(vault) -> Restorer:
    """One that has no memory for whole originals."""
    return Restorer(
        vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, memory=HeldMemory(each=0)
    )


def code_of(call, kind: type[GatewayError] = GatewayError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.code


def bytes_of(original) -> bytes:
    with original:
        original.verify()
        return b"".join(original.stream())


def damage(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("data", [DATA, data_set(b""), data_set(b"x" * (1 << 20)), data_set(b"x" * ((1 << 21) - 200))])
def test_every_way_home_gives_the_bytes(vault, restorer, data):
    record = vault.store(data)
    for original in (
        restorer.by_locator(record.locator),
        restorer.by_uid(record.original_sop_uid),
        restorer.by_uid(record.derived_sop_uid),
        restorer.by_derived_uid(record.derived_sop_uid),
        restorer.by_token(record.token, record.derived_sop_uid),
    ):
        assert (original.sop_instance_uid, original.study_uid, original.size) == ("1.2.3.1", "1.2", len(data))
        assert original.sop_class_uid == record.sop_class_uid and original.locator == record.locator
        assert original.transfer_syntax_uid == record.transfer_syntax_uid
        assert bytes_of(original) == data


def test_generations(vault, restorer):
    before, after = data_set(b"before"), data_set(b"after!")
    old, new = vault.store(before), vault.store(after)
    assert bytes_of(restorer.by_uid("1.2.3.1")) == after
    assert bytes_of(restorer.by_uid(old.derived_sop_uid)) == before
    assert bytes_of(restorer.by_uid(new.derived_sop_uid)) == after


def test_nothing_is_streamed_before_it_was_verified(vault, restorer):
    original = restorer.by_locator(vault.store(DATA).locator)
    assert code_of(original.stream) == "not-verified"
    original.verify()
    assert b"".join(original.stream()) == DATA == b"".join(original.stream())
    original.close()
    assert code_of(original.stream) == "not-verified"


@pytest.mark.parametrize("position", [0, 5, 20, 100, 200, 2_000_000, -1])
def test_a_damaged_payload_does_not_verify(vault, restorer, position):
    record = vault.store(DATA)
    damage(vault.payloads.folder / record.locator, position)
    original = restorer.by_locator(record.locator)
    assert code_of(original.verify, IntegrityError).startswith("payload-")
    assert code_of(original.stream) == "not-verified"


def test_a_failed_verification_takes_back_an_earlier_one(vault, restorer):
    record = vault.store(DATA)
    original = restorer.by_locator(record.locator)
    original.verify()
    damage(vault.payloads.folder / record.locator, -1)
    with pytest.raises(IntegrityError):
        original.verify()
    assert code_of(original.stream) == "not-verified"


@pytest.mark.parametrize("position", [200, 1_500_000, -1])
def test_a_payload_changed_between_the_passes(vault, in_pieces, position):
    record = vault.store(DATA)
    original = in_pieces.by_locator(record.locator)
    original.verify()
    damage(vault.payloads.folder / record.locator, position)
    given = 0
    with pytest.raises(IntegrityError):
        for piece in original.stream():
            given += len(piece)
    assert given < len(DATA)  # what went out never became complete


@pytest.mark.parametrize("memory", [HeldMemory(), HeldMemory(each=0)], ids=["held", "in pieces"])
def test_a_payload_replaced_or_deleted_between_the_passes(vault, memory):
    restorer = Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, memory=memory)
    record = vault.store(DATA)
    original = restorer.by_locator(record.locator)
    original.verify()
    other = vault.store(b"other", "1.2.3.2")
    os.replace(vault.payloads.folder / other.locator, vault.payloads.folder / record.locator)
    assert b"".join(original.stream()) == DATA  # the verified file is held open
    assert code_of(restorer.by_locator(record.locator).verify, IntegrityError) == "payload-of-another-record"


def test_a_signed_digest_that_the_payload_has_not(vault, restorer):
    """A gateway that signs one thing and seals another: the payload is bound to the digest."""
    record = vault.records.create(facts_of(b"right"))
    lying = replace(record, original_sha256=hashlib.sha256(b"wrong").hexdigest())
    vault.payloads.put(
        record.locator, lambda out: seal_payload(out, io.BytesIO(b"wrong"), lying, vault.sealing.restore_public)
    )
    assert code_of(restorer.by_locator(record.locator).verify, IntegrityError) == "payload-of-another-record"


def test_payload_missing_before_put_and_after_retention(vault, restorer):
    record = vault.records.create(facts_of(b"a"))  # killed here: the record is there, the payload not
    assert code_of(lambda: restorer.by_locator(record.locator), NotFoundError) == "payload-missing"
    assert code_of(lambda: restorer.by_uid(record.derived_sop_uid), NotFoundError) == "payload-missing"
    vault.store(b"a")  # the step repeated
    original = restorer.by_locator(record.locator)
    vault.payloads.delete(record.locator)
    assert code_of(original.verify, NotFoundError) == "payload-missing"
    vault.put(record, b"a")
    vault.records.expire(record.created_at + 1)
    assert code_of(lambda: restorer.by_locator(record.locator), NotFoundError) == "payload-missing"


def test_tokens_of_others(vault, restorer, tmp_path):
    one, two = vault.store(b"one", "1.2.3.1"), vault.store(b"two", "1.2.3.2")
    assert code_of(lambda: restorer.by_token(one.token, two.derived_sop_uid), SealError) == "token-not-for-this-object"
    public = vault.sealing.restore_public
    elsewhere = make_token(public, "elsewhere", one.locator, one.derived_sop_uid)
    assert code_of(lambda: restorer.by_token(elsewhere, one.derived_sop_uid), NotFoundError) == "other-vault"
    # anyone with the public key can make a token; that it names another's record is noticed
    forged = make_token(public, vault.config.site.name, one.locator, two.derived_sop_uid)
    assert code_of(lambda: restorer.by_token(forged, two.derived_sop_uid), IntegrityError) == "token-and-record-differ"
    unknown = make_token(public, vault.config.site.name, "0" * 32, two.derived_sop_uid)
    assert code_of(lambda: restorer.by_token(unknown, two.derived_sop_uid), NotFoundError) == "no-such-record"


def test_records_that_cannot_be_trusted(vault, restorer):
    record = vault.store(b"one")
    with transaction(vault.engine) as session:
        session.execute(update(VaultRow).values(study_uid="9.9"))
    for find in (
        lambda: restorer.by_locator(record.locator),
        lambda: restorer.by_uid("1.2.3.1"),
        lambda: restorer.by_uid(record.derived_sop_uid),
        lambda: restorer.by_token(record.token, record.derived_sop_uid),
    ):
        assert code_of(find, IntegrityError) == "record-columns-differ"


def test_unknown_uids(restorer):
    assert code_of(lambda: restorer.by_uid("1.9"), NotFoundError) == "no-such-record"
    assert code_of(lambda: restorer.by_derived_uid("1.9"), NotFoundError) == "no-such-record"


def test_another_sites_private_key(vault, tmp_path):
    make_keys(tmp_path / "other" / "keys")
    private = OpeningKeys.load(default_config(tmp_path / "other").keys).restore_private
    keys = OpeningKeys(private, vault.opening.verifier)
    other = Restorer(vault.engine, vault.payloads.folder, keys, vault.config.site.name)
    record = vault.store(b"one")
    assert code_of(other.by_locator(record.locator).verify, SealError) == "other-restore-key"
    assert code_of(lambda: other.by_token(record.token, record.derived_sop_uid), SealError) == "token-other-key"


def test_what_was_verified_in_memory_is_what_leaves(vault, restorer):
    record = vault.store(DATA)
    original = restorer.by_locator(record.locator)
    original.verify()
    damage(vault.payloads.folder / record.locator, -1)
    assert b"".join(original.stream()) == DATA


def test_memory_is_given_back(vault):
    """Room for one: the next goes the slow way meanwhile, and one that fails takes nothing along."""
    memory = HeldMemory(together=len(DATA))
    restorer = Restorer(vault.engine, vault.payloads.folder, vault.opening, vault.config.site.name, memory=memory)
    first, second = (
        restorer.by_locator(vault.store(data, uid).locator) for data, uid in ((DATA, "1.2.3.1"), (OTHER, "1.2.3.2"))
    )
    first.verify()
    assert not memory.take(1)
    assert bytes_of(second) == OTHER
    damage(vault.payloads.folder / first.locator, -1)
    with pytest.raises(IntegrityError):
        first.verify()
    assert code_of(first.stream) == "not-verified"
    assert memory.take(len(DATA))


def test_many_at_once_are_each_what_they_are_alone(vault, restorer):
    """One missing, one forged, one whose retention ended: the others are given all the same."""
    uids = [f"1.2.3.{number}" for number in range(1, 6)]
    records = [vault.store(data_set(b"pixels", uid), uid) for uid in uids]
    one, forged, gone, ended, last = (record.locator for record in records)
    restorer.by_locators([one, forged, gone, ended, last])  # and what was checked once is looked at again
    with transaction(vault.engine) as session:
        changed = session.get(VaultRow, forged)
        changed.document = changed.document.replace(b'"generation":1', b'"generation":2')
    vault.payloads.delete(gone)
    vault.records.expire(records[3].created_at + 1, keep={one, forged, gone, last})
    found = restorer.by_locators([one, forged, gone, ended, last, "0" * 32])
    assert {locator: getattr(what, "code", "") for locator, what in found.items()} == {
        one: "",
        forged: "signature-wrong",
        gone: "payload-missing",
        ended: "payload-missing",
        last: "",
        "0" * 32: "no-such-record",
    }
    assert bytes_of(found[one]) == data_set(b"pixels", uids[0])


def test_memory_is_bounded(vault, restorer):
    data = data_set(os.urandom(1 << 20) * 40)
    original = restorer.by_locator(vault.store(data).locator)
    del data
    tracemalloc.start()
    original.verify()
    for _ in original.stream():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
