"""Key and payload in a marked copy: they open for this key, this object and these signers, whole, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SealError, VaultError
from gateway.keys import Signer, Verifier, hpke, key_id
from gateway.vault import carried as module
from gateway.vault import open_carried, seal_carried
from tests.support.copies import Gateway
from tests.support.dicom.samples import encode, image
from tests.support.examples import examples

GATEWAY, OTHER = Gateway(), Gateway()
EXPLICIT = "1.2.840.10008.1.2.1"
RECORD = GATEWAY.record(encode(image()), EXPLICIT)
BODY = bytes(range(256)) * 5000  # two chunks
KEY, PAYLOAD = seal_carried(BODY, RECORD, GATEWAY.restore.public_key(), Signer(GATEWAY.signing))


def opened(key=KEY, payload=PAYLOAD, uid=RECORD.derived_sop_uid, restore=GATEWAY, signers=(GATEWAY,)):
    verifier = Verifier([one.signing.public_key() for one in signers])
    return open_carried(key, payload, uid, restore.restore, verifier)


def code_of(**changes) -> str:
    with pytest.raises(SealError) as caught:
        opened(**changes)
    return caught.value.code


def sealed(body=BODY, record=RECORD, to=GATEWAY, by=GATEWAY) -> dict[str, bytes]:
    key, payload = seal_carried(body, record, to.restore.public_key(), Signer(by.signing))
    return {"key": key, "payload": payload}


def test_body_and_facts_come_out_as_they_went_in():
    carried = opened()
    assert carried.body == BODY
    assert carried.record == replace(RECORD, token=b"", version=1)
    assert carried.record.is_carried
    assert opened(**sealed(b"")).body == b""


def test_lengths_are_even_and_padding_is_ignored():
    assert len(KEY) == module.KEY_SIZE == 124
    assert opened(KEY + b"\0", PAYLOAD + b"\0").body == BODY


def test_nothing_is_sealed_twice_the_same():
    assert sealed() != {"key": KEY, "payload": PAYLOAD}
    assert opened(**sealed()).body == BODY


def test_no_uid_and_no_digest_in_clear():
    for secret in (RECORD.original_sop_uid, RECORD.study_uid, RECORD.original_sha256, RECORD.derived_sop_uid):
        assert secret.encode() not in KEY + PAYLOAD
    assert bytes.fromhex(RECORD.original_sha256) not in KEY + PAYLOAD


def test_another_restore_key():
    assert code_of(restore=OTHER) == "carried-other-key"
    with pytest.raises(VaultError) as caught:
        sealed(to=OTHER)
    assert caught.value.code == "other-restore-key"


def test_in_another_object_it_opens_nothing():
    assert code_of(uid="2.25.1003") == "carried-not-for-this-object"
    other = sealed(record=replace(RECORD, derived_sop_uid="2.25.1003"))
    assert code_of(key=other["key"]) == "carried-not-for-this-object"
    assert code_of(payload=other["payload"]) == "carried-tampered"
    again = sealed()  # of the same object, made anew: key and payload belong together
    assert code_of(payload=again["payload"]) == "carried-tampered"


def test_only_listed_signers_are_believed():
    forged = sealed(by=OTHER)  # anyone with the public key can seal
    assert code_of(**forged) == "signer-unknown"
    assert opened(**forged, signers=(GATEWAY, OTHER)).body == BODY


def test_a_record_signature_is_none(monkeypatch):
    """The gateway signs records as well: under another label, so neither passes for the other."""
    monkeypatch.setattr(module, "SIGNED_FOR", b"miad/record/1\0")
    of_a_record = sealed()
    monkeypatch.undo()
    assert code_of(**of_a_record) == "signature-wrong"


def test_a_document_of_another_object(monkeypatch):
    """A listed signer's document under a key for this object: both must name it."""
    monkeypatch.setattr(module, "_key_info", lambda head, uid: module._KEY_LABEL + head + b"2.25.1003")
    monkeypatch.setattr(
        module, "_context", lambda key, digest, uid: module._PAYLOAD_LABEL + key + digest + b"2.25.1003"
    )
    moved = sealed()
    monkeypatch.undo()
    assert code_of(**moved, uid="2.25.1003") == "carried-not-for-this-object"


def test_a_body_that_was_not_signed(monkeypatch):
    document = module._document(RECORD, BODY)
    monkeypatch.setattr(module, "_document", lambda record, body: document)
    other = sealed(b"other")
    monkeypatch.undo()
    assert code_of(**other) == "carried-tampered"


@pytest.mark.parametrize("change", [{"policy": 7}, {"original_size": "7"}])
def test_a_document_of_other_types(change):
    assert code_of(**sealed(record=replace(RECORD, **change))) == "carried-format"


@examples(60)
@given(st.integers(0, len(PAYLOAD) - 1))
def test_cut_short(length):
    assert code_of(payload=PAYLOAD[:length]) == "carried-truncated"


@examples(60)
@given(position=st.integers(0, len(PAYLOAD) - 1), bit=st.integers(0, 7))
def test_one_bit_of_the_payload(position, bit):
    changed = bytearray(PAYLOAD)
    changed[position] ^= 1 << bit
    assert code_of(payload=bytes(changed)) in ("carried-format", "carried-truncated", "carried-tampered")


@examples(60)
@given(position=st.integers(0, len(KEY) - 1), bit=st.integers(0, 7))
def test_one_bit_of_the_key(position, bit):
    changed = bytearray(KEY)
    changed[position] ^= 1 << bit
    expected = "carried-format" if position < 4 else "carried-other-key" if position < 12 else None
    assert code_of(key=bytes(changed)) == (expected or "carried-not-for-this-object")


@pytest.mark.parametrize("key", [b"", KEY[:-1], b"MGT" + KEY[3:]])
def test_what_is_no_key(key):
    assert code_of(key=key) == "carried-format"


def test_the_dek_travels_with_the_digest_of_the_original():
    head = KEY[:12]
    assert head[4:].hex() == key_id(GATEWAY.restore.public_key())
    inside = hpke.open(GATEWAY.restore, KEY[12:], module._key_info(head, RECORD.derived_sop_uid))
    assert inside[32:].hex() == RECORD.original_sha256
