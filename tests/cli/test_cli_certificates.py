"""`certificates`: made once, kept, renewed under their keys, asked for elsewhere, and told of."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

WORKSTATION = ["--workstation", "READING=reading.hospital.example,10.1.2.3"]


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_they_are_made_with_their_names_and_what_is_there_stays(run, tmp_path: Path) -> None:
    done = run("certificates", "make", "tls", "--host", "gateway.hospital.example", *WORKSTATION)
    assert done.code == 0, done.err
    shown = {Path(row["file"]).stem: row for row in run("certificates", "show", "tls", "--json").rows}
    assert shown["READING"]["san"] == ["DNS:reading.hospital.example", "IP:10.1.2.3"]
    assert shown["gateway"]["san"] == shown["restore"]["san"] == ["DNS:gateway.hospital.example"]
    assert shown["READING"]["chain"] == ["CN=MIAD Gateway authority of this site"]
    assert shown["READING"]["chain_complete"] and shown["READING"]["days_left"] == 824
    assert f'key_sha256 = ["{shown["READING"]["key_sha256"]}"]' in done.err
    lines = [json.loads(line) for line in (tmp_path / "tls" / "audit.jsonl").read_text().splitlines()]
    assert {line["key_sha256"] for line in lines} == {
        shown[one]["key_sha256"] for one in ("gateway", "restore", "READING")
    }

    before = {file.name: file.read_bytes() for file in (tmp_path / "tls").iterdir() if file.suffix in (".pem", ".key")}
    assert run("certificates", "make", "tls", *WORKSTATION, "--peer", "ARCHIVE=archive.example").code == 0
    assert {name: (tmp_path / "tls" / name).read_bytes() for name in before} == before
    assert leaf(tmp_path / "tls" / "ARCHIVE.pem").issuer == leaf(tmp_path / "tls" / "ca.pem").subject


def test_a_renewed_certificate_keeps_its_key(run, tmp_path: Path) -> None:
    run("certificates", "make", "tls", *WORKSTATION, "--days", "3")
    old = leaf(tmp_path / "tls" / "READING.pem")
    assert run("certificates", "make", "tls", *WORKSTATION, "--renew").code == 0
    new = leaf(tmp_path / "tls" / "READING.pem")
    assert new.public_key() == old.public_key()
    assert new.not_valid_after_utc > old.not_valid_after_utc and new.serial_number != old.serial_number


def test_a_request_asks_for_the_names_with_the_key_that_is_there(run, tmp_path: Path) -> None:
    assert run("certificates", "request", "gateway", "--host", "gw.example", "--host", "10.0.0.5").code == 0
    file = tmp_path / "tls" / "gateway.csr"
    request = x509.load_pem_x509_csr(file.read_bytes())
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gw.example"]
    assert request.is_signature_valid
    checked = subprocess.run(["openssl", "req", "-verify", "-noout", "-in", file], capture_output=True, text=True)
    assert "verify OK" in checked.stdout + checked.stderr
    again = run("certificates", "request", "gateway", "--host", "gw.example")
    assert (again.code, "code: request-exists" in again.err) == (2, True)
    file.unlink()
    run("certificates", "request", "gateway", "--host", "other.example")
    assert x509.load_pem_x509_csr(file.read_bytes()).public_key() == request.public_key()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--host", "*.hospital.example"], "bad-name"),
        (["--host", "10.0.0.256"], "bad-name"),
        (["--workstation", "../READING=h"], "bad-name"),
        (["--workstation", "ca=h"], "bad-name"),
        (["--workstation", "A=h", "--peer", "a=h"], "bad-name"),
    ],
)
def test_what_cannot_be_a_name_is_told_before_anything_is_written(run, tmp_path: Path, options, code: str) -> None:
    done = run("certificates", "make", "tls", *options)
    assert (done.code, f"code: {code}" in done.err) == (2, True), done.err
    assert not (tmp_path / "tls").exists()


def test_an_authority_with_anothers_key_signs_nothing(run, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        run("certificates", "make", folder)
    (tmp_path / "one" / "ca.key").write_bytes((tmp_path / "two" / "ca.key").read_bytes())
    done = run("certificates", "make", "one", *WORKSTATION)
    assert (done.code, "code: authority-unusable" in done.err) == (2, True)
    assert not (tmp_path / "one" / "READING.pem").exists()


def test_show_says_when_the_authority_is_not_there_and_what_is_no_certificate(run, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        run("certificates", "make", folder)
    alone = tmp_path / "alone" / "gateway.pem"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "one" / "gateway.pem").read_bytes())
    (row,) = run("certificates", "show", alone, "--trust", tmp_path / "two" / "ca.pem", "--json").rows
    assert (row["chain"], row["chain_complete"]) == ([], False)
    assert "which is not here" in run("certificates", "show", alone).out
    (row,) = run("certificates", "show", alone, "--trust", tmp_path / "one" / "ca.pem", "--json").rows
    assert row["chain_complete"]
    done = run("certificates", "show", tmp_path / "one" / "ca.key")
    assert (done.code, "code: tls-file-unusable" in done.err) == (2, True)
