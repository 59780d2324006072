"""The proof of a pair of restore keys is made for a site that has none, and put in the place of no other in silence."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from gateway.config.default import default_config
from gateway.config.models import Keys
from gateway.config.secret import LONGEST, SecretRef
from gateway.errors import ConfigError
from gateway.keys import OpeningKeys, SealingKeys, make_keys
from gateway.keys.pair import PROOF_NAME
from gateway.keys.prove import prove_pair

PUBLIC, PRIVATE = "restore.public.pem", "restore.private.pem"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Keys of a site that was made before there were proofs; another site's lie beside them."""
    make_keys(tmp_path / "site" / "keys")
    make_keys(tmp_path / "other" / "keys")
    (tmp_path / "site" / "keys" / PROOF_NAME).unlink()
    return tmp_path / "site"


@pytest.fixture
def keys(site: Path) -> Keys:
    return default_config(site).keys


def code_of(keys: Keys, *arguments, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        prove_pair(keys, *arguments, **options)
    return caught.value.code


def test_the_proof_made_is_the_one_that_make_keys_makes(site: Path, keys: Keys) -> None:
    proved = prove_pair(keys)
    proof = site / "keys" / PROOF_NAME
    assert (proved.path, proved.was_there) == (proof, False)
    assert proved.key_id == SealingKeys.load(keys).restore_key_id == OpeningKeys.load(keys).restore_key_id
    assert stat.S_IMODE(proof.stat().st_mode) == 0o644
    assert sorted(path.name for path in proof.parent.glob(".*")) == []  # nothing half made lies about
    shutil.copy(site.parent / "other" / "keys" / PUBLIC, site / "keys" / PUBLIC)
    with pytest.raises(ConfigError):
        SealingKeys.load(keys)


def test_keys_that_are_no_pair_are_not_proved_to_be_one(site: Path, keys: Keys) -> None:
    for name in (PUBLIC, PRIVATE):
        kept = (site / "keys" / name).read_bytes()
        shutil.copy(site.parent / "other" / "keys" / name, site / "keys" / name)
        assert code_of(keys) == code_of(keys, overwrite=True) == "restore-pair-differs"
        (site / "keys" / name).write_bytes(kept)
    assert not (site / "keys" / PROOF_NAME).exists()


@pytest.mark.parametrize("name", [PRIVATE, PUBLIC, "signing.private.pem", "signing.public.pem"])
def test_without_one_of_the_keys_it_is_told_which(site: Path, keys: Keys, name: str) -> None:
    (site / "keys" / name).unlink()
    with pytest.raises(ConfigError) as caught:
        prove_pair(keys)
    assert caught.value.code == "secret-missing" and name in caught.value.message
    assert not (site / "keys" / PROOF_NAME).exists()


def test_a_signer_that_nobody_believes_proves_nothing(site: Path, keys: Keys) -> None:
    shutil.copy(site.parent / "other" / "keys" / "signing.private.pem", site / "keys" / "signing.private.pem")
    assert code_of(keys) == "signer-not-trusted"
    assert not (site / "keys" / PROOF_NAME).exists()


@pytest.mark.parametrize("what", ["foreign", "empty", "dangling"])
def test_another_proof_is_replaced_only_when_that_is_said(site: Path, keys: Keys, what: str) -> None:
    proof = site / "keys" / PROOF_NAME
    if what == "dangling":
        proof.symlink_to(site / "nowhere")
    else:
        proof.write_bytes((site.parent / "other" / "keys" / PROOF_NAME).read_bytes() if what == "foreign" else b"")
    before = os.readlink(proof) if what == "dangling" else proof.read_bytes()
    assert code_of(keys) == "proof-exists"
    assert before == (os.readlink(proof) if what == "dangling" else proof.read_bytes())
    assert not prove_pair(keys, overwrite=True).was_there
    assert SealingKeys.load(keys).restore_key_id
    assert not (site / "nowhere").exists()


def as_it_is(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced; reading it may change its time of access."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize("name", [PRIVATE, PUBLIC, "spool.key", "folder", "huge"])
def test_nothing_but_a_proof_is_ever_replaced(site: Path, keys: Keys, name: str) -> None:
    """A slip in --out or in keys.restore_proof must not cost a key."""
    path = site / "keys" / name
    if name == "folder":
        path.mkdir()
    elif name == "huge":
        path.write_bytes(b"MGPP" * LONGEST)
    before = as_it_is(path)
    named = keys.model_copy(update={"restore_proof": SecretRef(f"file:{path}")})
    for overwrite in (False, True):
        assert code_of(keys, path, overwrite=overwrite) == "proof-exists"
        assert code_of(named, overwrite=overwrite) == "proof-exists"
    assert as_it_is(path) == before


def test_the_same_proof_is_left_as_it_is(site: Path, keys: Keys) -> None:
    prove_pair(keys)
    before = as_it_is(site / "keys" / PROOF_NAME)
    assert prove_pair(keys).was_there
    assert as_it_is(site / "keys" / PROOF_NAME) == before


def test_one_that_comes_at_the_same_moment_is_not_replaced(site: Path, keys: Keys, monkeypatch) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    (site / "keys" / PROOF_NAME).write_bytes(b"another's")
    assert code_of(keys) == "proof-exists"
    assert (site / "keys" / PROOF_NAME).read_bytes() == b"another's"


def test_where_it_goes(site: Path, keys: Keys, monkeypatch) -> None:
    """Where it is looked for, if that is a file; else somebody must say it."""
    named = keys.model_copy(update={"restore_proof": SecretRef(f"file:{site}/elsewhere")})
    assert prove_pair(named).path == site / "elsewhere"
    SealingKeys.load(named)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site / "keys"))
    credential = keys.model_copy(update={"restore_public_key": SecretRef(f"credential:{PUBLIC}")})
    assert prove_pair(credential).path == site / "keys" / PROOF_NAME
    monkeypatch.setenv("T_PUBLIC", (site / "keys" / PUBLIC).read_text())
    variable = keys.model_copy(update={"restore_public_key": SecretRef("env:T_PUBLIC")})
    assert code_of(variable) == "no-place"
    assert prove_pair(variable, site / "said").path == site / "said"
    SealingKeys.load(variable.model_copy(update={"restore_proof": SecretRef(f"file:{site}/said")}))
    assert code_of(keys, site / "no such folder" / "proof") == "cannot-write"


def test_new_keys_do_not_replace_a_proof_in_silence(site: Path) -> None:
    """Whose keys are elsewhere (variables), and whose proof alone lies here."""
    folder = site / "alone"
    folder.mkdir()
    (folder / PROOF_NAME).write_bytes(b"a proof")
    with pytest.raises(ConfigError) as caught:
        make_keys(folder)
    assert caught.value.code == "keys-exist"
    assert [path.name for path in folder.iterdir()] == [PROOF_NAME]
