"""A public restore key that is not the private one's other half is found before anything is sealed to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.config.default import default_config
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


@pytest.mark.parametrize("changed", [[PUBLIC], [PROOF_NAME], [PUBLIC, PROOF_NAME]], ids=["key", "proof", "both"])
def test_a_foreign_key_or_proof_is_refused_by_the_sealing_side(site: Path, changed: list[str]) -> None:
    SealingKeys.load(default_config(site).keys)
    for name in changed:
        shutil.copy(site.parent / "other" / "keys" / name, site / "keys" / name)
    with pytest.raises(ConfigError) as caught:
        SealingKeys.load(default_config(site).keys)
    assert caught.value.code == "restore-pair-differs"


@pytest.mark.parametrize("content", [b"", b"MGPP1 x", b"\xff\xfe", b"MGPP2 a b 00"])
def test_a_proof_that_is_none_is_refused(site: Path, content: bytes) -> None:
    (site / "keys" / PROOF_NAME).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        SealingKeys.load(default_config(site).keys)
    assert caught.value.code == "restore-pair-differs"


def test_the_opening_side_compares_the_pair_itself(site: Path) -> None:
    keys = default_config(site).keys
    OpeningKeys.load(keys)
    shutil.copy(site.parent / "other" / "keys" / PUBLIC, site / "keys" / PUBLIC)
    with pytest.raises(ConfigError) as caught:
        OpeningKeys.load(keys)
    assert caught.value.code == "restore-pair-differs"
    (site / "keys" / PUBLIC).unlink()
    assert OpeningKeys.load(keys).restore_key_id  # a restore role without the public half


def test_a_site_made_before_there_were_proofs_still_loads(site: Path) -> None:
    (site / "keys" / PROOF_NAME).unlink()
    assert SealingKeys.load(default_config(site).keys).restore_key_id
