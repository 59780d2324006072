"""Envelope, token, spool file, signature, derivation: right ones open, everything else is refused by its code."""

from __future__ import annotations

import io

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.errors import SealError
from gateway.keys import (
    TOKEN_SIZE,
    Signer,
    SpoolCipher,
    Verifier,
    canonical,
    hkdf,
    hpke,
    make_token,
    mark_seed,
    read_token,
)
from gateway.keys.envelope import WRAPPED_SIZE, new_dek, unwrap_dek, wrap_dek

LOCATOR = "0123456789abcdef" * 2
PRIVATE = X25519PrivateKey.generate()


def code_of(call) -> str:
    with pytest.raises(SealError) as caught:
        call()
    return caught.value.code


def token(vault: str = "site", derived: str = "2.25.7") -> bytes:
    return make_token(PRIVATE.public_key(), vault, LOCATOR, derived)


@pytest.mark.parametrize("vault", ["a", "site-2", "x" * 32])
def test_token_has_one_even_length_and_says_where(vault):
    made = token(vault)
    assert len(made) == TOKEN_SIZE and TOKEN_SIZE % 2 == 0
    content = read_token(PRIVATE, made, "2.25.7")
    assert (content.vault_id, content.locator) == (vault, LOCATOR)


def test_a_token_shows_neither_vault_nor_locator_nor_uid():
    made = token("hospital-of-x")
    assert b"hospital" not in made and bytes.fromhex(LOCATOR) not in made and b"2.25.7" not in made
    assert token() != token()


def test_a_token_pasted_into_another_object():
    assert code_of(lambda: read_token(PRIVATE, token(), "2.25.8")) == "token-not-for-this-object"


def test_a_token_that_a_stranger_sealed_may_name_any_bytes():
    """Anyone with the public key can seal, so what is inside is foreign too (found by reading for `tests.fuzz`)."""
    made = token()
    info = b"miad/token/1\0MIAD GATEWAY 1\0" + made[:12] + b"2.25.7"
    forged = made[:12] + hpke.seal(PRIVATE.public_key(), b"\xff" * 48, info)
    assert code_of(lambda: read_token(PRIVATE, forged, "2.25.7")) == "token-format"


def test_every_byte_of_a_token_matters():
    made = token()
    for position in range(TOKEN_SIZE):
        changed = bytearray(made)
        changed[position] ^= 0x80
        code = code_of(lambda changed=bytes(changed): read_token(PRIVATE, changed, "2.25.7"))
        assert code == (
            "token-format" if position < 4 else "token-other-key" if position < 12 else "token-not-for-this-object"
        )
    for wrong in (b"", made[:-1], made + b"\0"):
        assert code_of(lambda wrong=wrong: read_token(PRIVATE, wrong, "2.25.7")) == "token-format"


def test_a_token_for_another_key():
    assert code_of(lambda: read_token(X25519PrivateKey.generate(), token(), "2.25.7")) == "token-other-key"


def test_wrapped_key_is_bound_to_key_and_context():
    dek, context = new_dek(), {"a": 1, "b": "x"}
    wrapped = wrap_dek(dek, PRIVATE.public_key(), context)
    assert len(wrapped) == WRAPPED_SIZE and unwrap_dek(wrapped, PRIVATE, {"b": "x", "a": 1}) == dek
    assert code_of(lambda: unwrap_dek(wrapped, PRIVATE, {"a": 1})) == "unsealing-failed"
    assert code_of(lambda: unwrap_dek(wrapped, X25519PrivateKey.generate(), context)) == "unsealing-failed"
    assert code_of(lambda: unwrap_dek(wrapped[:40], PRIVATE, context)) == "unsealing-failed"
    assert code_of(lambda: unwrap_dek(b"", PRIVATE, context)) == "unsealing-failed"


def test_a_spool_file_opens_under_its_name_only():
    cipher, file = SpoolCipher(bytes(32)), io.BytesIO()
    writer = cipher.writer(file, "name-1")
    writer.write(b"data set")
    writer.close()
    assert cipher.reader(io.BytesIO(file.getvalue()), "name-1").read() == b"data set"
    assert code_of(lambda: cipher.reader(io.BytesIO(file.getvalue()), "name-2").read()) == "tampered"
    other = SpoolCipher(b"1" * 32)
    assert code_of(lambda: other.reader(io.BytesIO(file.getvalue()), "name-1").read()) == "wrong-key"
    assert b"data set" not in file.getvalue()


def test_signatures():
    key = Ed25519PrivateKey.generate()
    signer, stranger = Signer(key), Signer(Ed25519PrivateKey.generate())
    verifier = Verifier([key.public_key()])
    signature = signer.sign(b"document")
    verifier.check(b"document", signature, signer.id)
    assert code_of(lambda: verifier.check(b"Document", signature, signer.id)) == "signature-wrong"
    assert code_of(lambda: verifier.check(b"document", signature[:-1], signer.id)) == "signature-wrong"
    assert code_of(lambda: verifier.check(b"document", stranger.sign(b"document"), signer.id)) == "signature-wrong"
    assert code_of(lambda: verifier.check(b"document", stranger.sign(b"document"), stranger.id)) == "signer-unknown"
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, b"document")  # the label is part of what is signed


def test_derived_keys_differ_by_label_and_parts():
    made = {hkdf(b"k" * 32, *what) for what in (("a",), ("b",), ("a", b"x"), ("a", b"x", b""), ("a", b"", b"x"))}
    assert len(made) == 5
    assert mark_seed(b"k" * 32, "1.2") == mark_seed(b"k" * 32, "1.2") != mark_seed(b"k" * 32, "1.3")


def test_canonical_json_has_one_form():
    assert canonical({"b": "é", "a": None}) == canonical({"a": None, "b": "é"}) == '{"a":null,"b":"é"}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})
