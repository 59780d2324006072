"""Certificates of our own and of the authorities that we trust: ended is an error, soon to end is told of in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.config import Config, Finding
from gateway.config.load import parse_config
from gateway.preflight.certificates import check_certificates
from tests.support.cli_certificates import make_certificate

TABLES = {
    "ingress": ("[ingress.tls]\n{}", "ingress.tls"),
    "worker": (
        "[[routes]]\nname='r'\ncalled_ae='R'\ndestinations=['d']\n[[destinations]]\nname='d'\ntype='research'\n"
        "ae_title='D'\nhost='h'\nport=1\n[destinations.tls]\n{}",
        "destinations[0].tls",
    ),
    "restore": ("[restore]\n[restore.tls]\n{}", "restore.tls"),
}
FILES = 'certificate = "own/own.pem"\nprivate_key = "own/own.key"\ntrust = "{}"\n'


def configured(folder: Path, role: str, trust: str = "trusted/trust") -> Config:
    return parse_config(TABLES[role][0].format(FILES.format(trust)), folder / "gateway.toml")


def found(folder: Path, role: str, **more: str) -> list[tuple[str, str, bool]]:
    return [(one.level, one.where, one.keeps_from_starting) for one in findings(folder, role, **more)]


def findings(folder: Path, role: str, **more: str) -> list[Finding]:
    return list(check_certificates(configured(folder, role, **more), role))


@pytest.mark.parametrize("role", TABLES)
@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (-1 / 24, "error", "ended on"), (-400, "error", "ended on"), (0.5, "warning", "LAST DAYS"),
        (2.9, "warning", "LAST DAYS"), (3.1, "warning", "ends in 3 days"), (6.9, "warning", "ends in 6 days"),
        (29.9, "warning", "ends in 29 days"), (30.5, "", ""), (400, "", ""),
    ],
)  # fmt: skip
def test_a_certificate_of_our_own(role: str, days: float, level: str, words: str, tmp_path: Path) -> None:
    make_certificate(tmp_path / "own", "own", days, begun=500)
    make_certificate(tmp_path / "trusted", "ca")
    got = findings(tmp_path, role)
    # A role starts all the same: its peers decide, and its other tables go on.
    assert [(one.level, one.where, one.keeps_from_starting) for one in got] == (
        [(level, f"{TABLES[role][1]}.certificate", level == "warning")] if level else []
    )
    assert all(words in one.message and "own.pem" in one.message and one.hint for one in got)


@pytest.mark.parametrize("role", TABLES)
def test_a_certificate_that_is_not_valid_yet(role: str, tmp_path: Path) -> None:
    make_certificate(tmp_path / "own", "own", 90, begun=-2)
    make_certificate(tmp_path / "trusted", "ca")
    assert found(tmp_path, role) == [("error", f"{TABLES[role][1]}.certificate", False)]


@pytest.mark.parametrize("role", TABLES)
def test_the_authorities(role: str, tmp_path: Path) -> None:
    """An old one beside its heir is told of; when none is left nobody can connect, and that is an error."""
    make_certificate(tmp_path / "own", "own")
    make_certificate(tmp_path / "trusted", "old", -5, begun=500)
    where = f"{TABLES[role][1]}.trust"
    assert found(tmp_path, role) == [("error", where, False)]
    make_certificate(tmp_path / "trusted", "heir")
    assert [one[:2] for one in found(tmp_path, role)] == [("warning", where)]
    make_certificate(tmp_path / "trusted", "soon", 2)
    assert [one[:2] for one in found(tmp_path, role)] == [("warning", where)] * 2


def test_every_certificate_of_a_chain_and_of_a_trust_file_counts(tmp_path: Path) -> None:
    make_certificate(tmp_path / "own", "own")
    make_certificate(tmp_path / "chain", "intermediate", 5)
    make_certificate(tmp_path / "trusted", "ca")
    own = tmp_path / "own" / "own.pem"
    own.write_bytes(own.read_bytes() + (tmp_path / "chain" / "intermediate.pem").read_bytes())
    (one,) = findings(tmp_path, "ingress")
    assert (one.level, one.where) == ("warning", "ingress.tls.certificate")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(own.read_bytes())
    got = findings(tmp_path, "ingress", trust="bundle.pem")
    assert [one.where for one in got] == ["ingress.tls.certificate", "ingress.tls.trust"]


def test_der_is_read_and_what_is_no_certificate_is_left_to_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path / "own", "own")
    make_certificate(tmp_path / "trusted", "ca", 1)
    pem = tmp_path / "trusted" / "trust" / "ca.pem"
    certificate = x509.load_pem_x509_certificate(pem.read_bytes())
    pem.unlink()
    (pem.parent / "ca.cer").write_bytes(certificate.public_bytes(Encoding.DER))
    (pem.parent / "README").write_text("no certificate")
    assert [one[:2] for one in found(tmp_path, "restore")] == [("warning", "restore.tls.trust")]
    (tmp_path / "own" / "own.pem").unlink()
    assert [one[:2] for one in found(tmp_path, "restore")] == [("warning", "restore.tls.trust")]


def test_the_clock_is_the_machine_s(tmp_path: Path) -> None:
    make_certificate(tmp_path / "own", "own")
    make_certificate(tmp_path / "trusted", "ca", 400)
    later = datetime.now(UTC) + timedelta(days=91)
    (one,) = check_certificates(configured(tmp_path, "ingress"), "ingress", later)
    assert (one.level, one.where) == ("error", "ingress.tls.certificate")
