"""Making keys, and the two rings: the sealing side never touches the private restore key."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.config.default import default_config
from gateway.errors import ConfigError
from gateway.keys import OpeningKeys, SealingKeys, load_spool_cipher, make_keys
from gateway.keys.generate import PRIVATE_NAMES, PUBLIC_NAMES


@pytest.fixture
def site(tmp_path):
    paths = make_keys(tmp_path / "keys")
    assert {path.name for path in paths} == {*PRIVATE_NAMES, *PUBLIC_NAMES}
    return default_config(tmp_path).keys, tmp_path / "keys"


def code_of(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return caught.value.code


def test_private_files_are_private(site):
    _, folder = site
    for name in PRIVATE_NAMES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]  # nothing half made lies about


def test_keys_are_never_replaced_silently(site):
    _, folder = site
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert code_of(lambda: make_keys(folder)) == "keys-exist"
    (folder / "restore.private.pem").unlink()
    assert code_of(lambda: make_keys(folder)) == "keys-exist"  # a part of a set is not completed: it would not fit
    make_keys(folder, overwrite=True)
    assert all(path.read_bytes() != before[path.name] for path in folder.iterdir())


def test_sealing_needs_no_private_restore_key(site):
    keys, folder = site
    (folder / "restore.private.pem").unlink()
    sealing = SealingKeys.load(keys)
    assert not hasattr(sealing, "restore_private") and "restore_private" not in repr(vars(sealing))
    assert code_of(lambda: OpeningKeys.load(keys)) == "secret-missing"


def test_opening_needs_no_sealing_secret(site):
    keys, folder = site
    for name in ("signing.private.pem", "spool.key", "uid.key", "mark.key", "restore.public.pem"):
        (folder / name).unlink()
    opening = OpeningKeys.load(keys)
    assert len(opening.restore_key_id) == 16


def test_receiving_needs_the_spool_key_only(site):
    keys, folder = site
    for path in folder.iterdir():
        if path.name != "spool.key":
            path.unlink()
    load_spool_cipher(keys)


@pytest.mark.parametrize("name", ["signing.private.pem", "restore.public.pem", "spool.key", "uid.key"])
@pytest.mark.parametrize("content", [b"", b"zz", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_unusable_keys_are_named_and_not_shown(site, name, content):
    keys, folder = site
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        SealingKeys.load(keys)
    assert caught.value.code == "bad-key" and "keys." in str(caught.value)
    assert not content or content.decode() not in str(caught.value)


def test_a_key_of_the_wrong_kind(site):
    keys, folder = site
    (folder / "restore.private.pem").write_bytes((folder / "signing.private.pem").read_bytes())
    assert code_of(lambda: OpeningKeys.load(keys)) == "bad-key"


def test_our_own_signer_must_be_trusted(site):
    keys, folder = site
    public = Ed25519PrivateKey.generate().public_key()
    (folder / "signing.public.pem").write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert code_of(lambda: SealingKeys.load(keys)) == "signer-not-trusted"
