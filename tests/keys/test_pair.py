"""A public restore key that is not the private one's other half is found before anything is sealed to it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from gateway.config.default import default_config
from gateway.config.models import Keys
from gateway.config.secret import LONGEST, SecretRef
from gateway.errors import ConfigError
from gateway.keys import OpeningKeys, SealingKeys, make_keys
from gateway.keys.pair import PROOF_NAME

PUBLIC = "restore.public.pem"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's keys folder; another site's lies beside it."""
    make_keys(tmp_path / "site" / "keys")
    make_keys(tmp_path / "other" / "keys")
    return tmp_path / "site"


def keys_of(site: Path, **changed: SecretRef) -> Keys:
    return default_config(site).keys.model_copy(update=changed)


def code_of(load, keys: Keys) -> str:
    with pytest.raises(ConfigError) as caught:
        load(keys)
    return caught.value.code


@pytest.mark.parametrize("changed", [[PUBLIC], [PROOF_NAME], [PUBLIC, PROOF_NAME]], ids=["key", "proof", "both"])
def test_a_foreign_key_or_proof_is_refused_by_the_sealing_side(site: Path, changed: list[str]) -> None:
    SealingKeys.load(keys_of(site))
    for name in changed:
        shutil.copy(site.parent / "other" / "keys" / name, site / "keys" / name)
    assert code_of(SealingKeys.load, keys_of(site)) == "restore-pair-differs"


@pytest.mark.parametrize("content", [b"", b"MGPP1 x", b"\xff\xfe", b"MGPP2 a b 00", b"\n" * LONGEST])
def test_a_proof_that_is_none_is_refused(site: Path, content: bytes) -> None:
    (site / "keys" / PROOF_NAME).write_bytes(content)
    assert code_of(SealingKeys.load, keys_of(site)) == "restore-pair-differs"
    assert code_of(OpeningKeys.load, keys_of(site)) == "restore-pair-differs"


def test_a_proof_that_is_cut_or_changed_anywhere_is_refused(site: Path) -> None:
    proof = site / "keys" / PROOF_NAME
    whole = proof.read_bytes()
    line = whole.strip()
    wrong = [line[:size] for size in range(len(line))]
    wrong += [line[:at] + (b"0" if line[at : at + 1] != b"0" else b"1") + line[at + 1 :] for at in range(len(line))]
    for content in [*wrong, line + b"0", line + b" 00", line + line]:
        proof.write_bytes(content)
        assert code_of(SealingKeys.load, keys_of(site)) == "restore-pair-differs", content
    for same in (whole, line, line.replace(b" ", b"\r\n")):
        proof.write_bytes(same)
        SealingKeys.load(keys_of(site))


def test_a_proof_by_a_signer_that_is_no_longer_listed_is_refused_and_says_so(site: Path) -> None:
    """The signing key was replaced and the old one taken out of the list: the records it signed are lost too."""
    for name in ("signing.private.pem", "signing.public.pem"):
        shutil.copy(site.parent / "other" / "keys" / name, site / "keys" / name)
    with pytest.raises(ConfigError) as caught:
        SealingKeys.load(keys_of(site))
    assert caught.value.code == "restore-pair-differs" and "trusted_signers" in caught.value.message
    assert "keys prove" in caught.value.hint


@pytest.mark.parametrize("what", ["folder", "loop", "dangling", "endless", "waiting", "huge"])
def test_what_cannot_be_a_proof_is_refused_at_once(site: Path, what: str) -> None:
    """Nothing there waits for a writer, fills the memory, or passes for a site that has no proof."""
    proof = site / "keys" / PROOF_NAME
    proof.unlink()
    if what == "folder":
        proof.mkdir()
    elif what in ("loop", "dangling", "endless"):
        proof.symlink_to({"loop": proof, "dangling": site / "nowhere", "endless": Path("/dev/zero")}[what])
    elif what == "waiting":
        os.mkfifo(proof)
    else:
        with proof.open("wb") as file:
            file.truncate(1 << 40)
    assert code_of(SealingKeys.load, keys_of(site)) in ("secret-missing", "secret-too-long")


def test_a_proof_that_may_not_be_read_is_not_taken_for_none(site: Path, monkeypatch) -> None:
    opened = os.open

    def closed(path, *arguments):  # what root never sees
        if str(path).endswith(PROOF_NAME):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments)

    monkeypatch.setattr("gateway.config.secret.os.open", closed)
    assert code_of(SealingKeys.load, keys_of(site)) == "secret-missing"
    assert OpeningKeys.load(keys_of(site)).is_compared  # by the public key


def test_a_link_to_the_proof_is_followed(site: Path) -> None:
    """As volumes of Kubernetes lay files out."""
    (site / "keys" / PROOF_NAME).rename(site / "real")
    (site / "keys" / PROOF_NAME).symlink_to(site / "real")
    SealingKeys.load(keys_of(site))
    shutil.copy(site.parent / "other" / "keys" / PUBLIC, site / "keys" / PUBLIC)
    assert code_of(SealingKeys.load, keys_of(site)) == "restore-pair-differs"


@pytest.mark.parametrize("load", [SealingKeys.load, OpeningKeys.load])
@pytest.mark.parametrize("scheme", ["file", "env", "credential"])
def test_the_proof_may_lie_where_the_configuration_says(site: Path, scheme: str, load, monkeypatch) -> None:
    """And one that is named there must be there."""
    given = (site / "keys" / PROOF_NAME).read_text()
    (site / "keys" / PROOF_NAME).unlink()
    (site / "given").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site / "given"))
    place = {"file": f"file:{site}/given/proof", "env": "env:T_PROOF", "credential": "credential:proof"}[scheme]
    keys = keys_of(site, restore_proof=SecretRef(place))

    def put(text: str) -> None:
        monkeypatch.setenv("T_PROOF", text)
        (site / "given" / "proof").write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(keys)
    assert caught.value.code == "secret-missing"
    assert "keys.restore_proof" in caught.value.message and "keys prove" in caught.value.hint
    put(given)
    load(keys)
    put((site.parent / "other" / "keys" / PROOF_NAME).read_text())
    assert code_of(load, keys) == "restore-pair-differs"


def test_a_public_key_by_credential_has_its_proof_beside_it(site: Path, monkeypatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site / "keys"))
    keys = keys_of(site, restore_public_key=SecretRef(f"credential:{PUBLIC}"))
    SealingKeys.load(keys)
    shutil.copy(site.parent / "other" / "keys" / PUBLIC, site / "keys" / PUBLIC)
    assert code_of(SealingKeys.load, keys) == "restore-pair-differs"
    (site / "keys" / PROOF_NAME).unlink()
    assert SealingKeys.load(keys).restore_key_id  # told, not refused: a site made before there were proofs


def test_a_public_key_by_variable_has_no_proof_until_one_is_named(site: Path, monkeypatch) -> None:
    monkeypatch.setenv("T_PUBLIC", (site.parent / "other" / "keys" / PUBLIC).read_text())
    keys = keys_of(site, restore_public_key=SecretRef("env:T_PUBLIC"))
    assert SealingKeys.load(keys).restore_key_id
    keys = keys.model_copy(update={"restore_proof": SecretRef(f"file:{site}/keys/{PROOF_NAME}")})
    assert code_of(SealingKeys.load, keys) == "restore-pair-differs"


def test_the_opening_side_compares_the_pair_itself(site: Path) -> None:
    assert OpeningKeys.load(keys_of(site)).is_compared
    (site / "keys" / PROOF_NAME).unlink()
    assert OpeningKeys.load(keys_of(site)).is_compared
    shutil.copy(site.parent / "other" / "keys" / PUBLIC, site / "keys" / PUBLIC)
    assert code_of(OpeningKeys.load, keys_of(site)) == "restore-pair-differs"


def test_the_opening_side_without_the_public_key_compares_by_the_proof(site: Path) -> None:
    (site / "keys" / PUBLIC).unlink()
    assert OpeningKeys.load(keys_of(site)).is_compared
    shutil.copy(site.parent / "other" / "keys" / "restore.private.pem", site / "keys" / "restore.private.pem")
    assert code_of(OpeningKeys.load, keys_of(site)) == "restore-pair-differs"


def test_the_opening_side_that_can_compare_nothing_says_so(site: Path) -> None:
    for name in (PUBLIC, PROOF_NAME):
        (site / "keys" / name).unlink()
    assert not OpeningKeys.load(keys_of(site)).is_compared


def test_a_site_made_before_there_were_proofs_still_loads(site: Path) -> None:
    (site / "keys" / PROOF_NAME).unlink()
    assert SealingKeys.load(keys_of(site)).restore_key_id
