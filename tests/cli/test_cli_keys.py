"""A public restore key that is not the private one's other half: every command that would seal to it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from gateway.keys.generate import make_keys

REPOSITORY = Path(__file__).parent.parent.parent
PUBLIC, PROOF = "restore.public.pem", "restore.proof"
WORDS = {"MIAD_GATEWAY_PASSPHRASE": "correct horse battery"}


@pytest.fixture
def keys(sample: Path, tmp_path: Path) -> Path:
    """The sample site's keys; another site's lie in `<tmp_path>/other`."""
    make_keys(tmp_path / "other")
    return sample.parent / "keys"


@pytest.fixture
def image(tmp_path: Path, sample: Path) -> Path:
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    return Path(shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "ct.dcm"))


def commands(sample: Path, image: Path, tmp_path: Path) -> dict[str, list[object]]:
    site = ["--config", sample]
    return {
        "check": ["config", "check", *site],
        "check worker": ["config", "check", "--role", "worker", *site],
        "check restore": ["config", "check", "--role", "restore", *site],
        "serve": ["serve", *site],
        "worker": ["serve", "--role", "worker", *site],
        "restore role": ["serve", "--role", "restore", *site],
        "protect": ["protect", image, "--out", tmp_path / "out", *site],
        "restore": ["restore", image, "--out", tmp_path / "back", *site],
        "verify": ["vault", "verify", *site],
        "backup": ["vault", "backup", "--out", tmp_path / "b.miad", *site],
    }


NAMES = [*commands(Path(), Path(), Path())]
PRIVATE_ONLY = {"check restore", "restore role", "restore", "verify", "backup"}  # what has the private key


@pytest.mark.parametrize(
    ("name", "foreign"), [*((name, PUBLIC) for name in NAMES), ("worker", PROOF), ("protect", PROOF), ("verify", PROOF)]
)
def test_a_wrong_pair_is_refused_and_nothing_is_sealed(
    run, sample: Path, keys: Path, image: Path, tmp_path: Path, name: str, foreign: str
) -> None:
    shutil.copy(tmp_path / "other" / foreign, keys / foreign)
    done = run(*commands(sample, image, tmp_path)[name], **WORDS, timeout=60)
    assert done.code == 2, (done.out, done.err)
    told = done.out + done.err
    assert "restore_public_key does not belong" in told or "restore.proof is the proof of another" in told
    assert "restore.public.pem and restore.proof back" in told
    vault = sample.parent / "state" / "vault"
    assert not [path for path in vault.rglob("*") if path.is_file()]
    assert not (tmp_path / "b.miad").exists() and not list((tmp_path / "out").glob("*"))


def test_a_wrong_pair_does_not_hide_behind_another_mistake(run, sample: Path, keys: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "other" / PUBLIC, keys / PUBLIC)
    shutil.rmtree(sample.parent / "tls")
    for role in ("all", "restore"):
        done = run("config", "check", "--config", sample, "--role", role)
        assert done.code == 2
        assert "restore.tls.certificate: cannot find" in done.out
        assert "keys: " in done.out and "restore.public.pem and restore.proof back" in done.out


@pytest.mark.parametrize("name", sorted(PRIVATE_ONLY))
def test_whoever_has_the_private_key_needs_no_proof_to_see_it(
    run, sample: Path, keys: Path, image: Path, tmp_path: Path, name: str
) -> None:
    (keys / PROOF).unlink()
    shutil.copy(tmp_path / "other" / PUBLIC, keys / PUBLIC)
    done = run(*commands(sample, image, tmp_path)[name], **WORDS, timeout=60)
    assert done.code == 2, (done.out, done.err)
    assert "restore_public_key does not belong" in done.out + done.err


@pytest.mark.parametrize("role", ["all", "worker"])
def test_the_check_tells_of_a_missing_proof_and_its_cure(run, sample: Path, keys: Path, role: str) -> None:
    (keys / PROOF).unlink()
    done = run("config", "check", "--config", sample, "--role", role, "--json")
    assert done.code == 0, done.out
    (row,) = done.rows
    assert (row["level"], row["path"]) == ("warning", "keys.restore_proof")
    assert "nothing proves" in row["message"] and "miad-gateway keys prove" in row["hint"]
    assert run("keys", "prove", "--config", sample).code == 0
    assert run("config", "check", "--config", sample, "--role", role).out == ""


def test_the_check_of_the_restore_role_tells_when_it_can_compare_nothing(run, sample: Path, keys: Path) -> None:
    (keys / PUBLIC).unlink()
    assert run("config", "check", "--config", sample, "--role", "restore").out == ""
    (keys / PROOF).unlink()
    done = run("config", "check", "--config", sample, "--role", "restore")
    assert done.code == 0 and "the restore keys are not compared" in done.out
    done = run("vault", "verify", "--config", sample)
    assert done.code == 0 and "warning: neither keys.restore_public_key nor a proof of it can be read" in done.err


def test_the_worker_s_log_tells_of_a_missing_proof(sample: Path, keys: Path, tmp_path: Path) -> None:
    (keys / PROOF).unlink()
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", "worker"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        lines = []
        while not lines or lines[-1]["event"] != "ready":
            lines.append(json.loads(process.stderr.readline()))
    finally:
        process.kill()
        process.communicate()
    (line,) = [line for line in lines if line.get("where") == "keys.restore_proof"]
    assert (line["level"], "nothing proves" in line["says"]) == ("warning", True)


def test_protect_tells_of_a_missing_proof_and_goes_on(run, sample: Path, keys: Path, image: Path, tmp_path) -> None:
    (keys / PROOF).unlink()
    done = run("protect", image, "--out", tmp_path / "out", "--config", sample, "--json")
    assert (done.code, len(done.rows)) == (0, 1)
    assert "warning: nothing proves" in done.err and "miad-gateway keys prove" in done.err
    run("keys", "prove", "--config", sample)
    done = run("protect", image, "--out", tmp_path / "again", "--config", sample)
    assert done.code == 0 and "warning" not in done.err


def test_prove_writes_the_proof_and_the_audit(run, sample: Path, keys: Path) -> None:
    made = (keys / PROOF).read_bytes()
    (keys / PROOF).unlink()
    done = run("keys", "prove", "--config", sample)
    assert (done.code, done.out) == (0, ""), done.err
    assert f"{keys / PROOF} proves now" in done.err
    assert (keys / PROOF).read_bytes() == made
    assert "was there" in run("keys", "prove", "--config", sample).err
    lines = (sample.parent / "state" / "audit" / "operator.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert [line["operation"] for line in written] == ["keys-prove", "keys-proved"] * 2
    assert made.decode().split()[1:3] == [written[1]["key_id"], written[1]["signer_id"]]


def test_prove_refuses_with_code_2(run, sample: Path, keys: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "other" / PROOF, keys / PROOF)
    done = run("keys", "prove", "--config", sample)
    assert (done.code, "code: proof-exists" in done.err) == (2, True)
    assert run("keys", "prove", "--config", sample, "--overwrite").code == 0
    shutil.copy(tmp_path / "other" / PUBLIC, keys / PUBLIC)
    done = run("keys", "prove", "--config", sample, "--overwrite")
    assert (done.code, "code: restore-pair-differs" in done.err) == (2, True)
    (keys / "restore.private.pem").unlink()
    done = run("keys", "prove", "--config", sample)
    assert (done.code, "code: secret-missing" in done.err) == (2, True)


def test_keys_in_variables_name_their_proof(run, sample: Path, keys: Path, tmp_path: Path) -> None:
    text = sample.read_text().replace('"file:keys/restore.public.pem"', '"env:T_PUBLIC"')
    sample.write_text(text)
    variables = {"T_PUBLIC": (keys / PUBLIC).read_text()}
    done = run("config", "check", "--config", sample, **variables)
    assert done.code == 0 and "keys.restore_proof: nothing proves" in done.out
    done = run("keys", "prove", "--config", sample, **variables)
    assert (done.code, "code: no-place" in done.err) == (2, True)
    proof = tmp_path / "proof"
    assert run("keys", "prove", "--config", sample, "--out", proof, **variables).code == 0
    sample.write_text(text.replace("# restore_proof =", 'restore_proof = "env:T_PROOF" #'))
    variables["T_PROOF"] = proof.read_text()
    assert run("config", "check", "--config", sample, **variables).out == ""
    variables["T_PUBLIC"] = (tmp_path / "other" / PUBLIC).read_text()
    done = run("config", "check", "--config", sample, **variables)
    assert done.code == 2 and "env:T_PROOF is the proof of another restore key" in done.out


def test_a_backup_takes_the_proof_along_wherever_it_lies(run, sample: Path, keys: Path, tmp_path: Path) -> None:
    sample.write_text(sample.read_text().replace("# restore_proof =", 'restore_proof = "file:elsewhere" #'))
    (keys / PROOF).rename(sample.parent / "elsewhere")
    made = (sample.parent / "elsewhere").read_bytes()
    done = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, **WORDS)
    assert done.code == 0, done.err
    assert run("vault", "recover", tmp_path / "b.miad", "--into", tmp_path / "new", **WORDS).code == 0
    assert (tmp_path / "new" / "keys" / PROOF).read_bytes() == made
    done = run("config", "check", "--config", tmp_path / "new" / "recovered.toml")
    assert "restore_proof" not in done.out
