"""`miad-gateway certificates`: an authority for a site that has none, requests to another one, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.options import AsJson
from gateway.commands.output import say, show_json, show_text
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

app = typer.Typer(help="Certificates for TLS: make, request, show.", no_args_is_help=True)

OWN = ("gateway", "restore")  # as deploy/gateway.toml names them
LOCAL = ("localhost", "127.0.0.1")
AUTHORITY_DAYS = 3650

Folder = Annotated[Path, typer.Argument(file_okay=False, help="Where to; made when missing.")]
Hosts = Annotated[
    list[str], typer.Option("--host", help="A name or address by which others reach this gateway; can be repeated.")
]
_PEER = "NAME=HOST[,HOST...]"


@app.callback()
def _group() -> None:
    """Certificates for TLS."""


@dataclass(frozen=True)
class Wanted:
    """One pair of certificate and key: the stem of its files, and the hosts that it is good for."""

    stem: str
    hosts: tuple[str, ...]
    for_java: bool = False


@app.command()
def make(
    folder: Folder = Path("tls"),
    hosts: Hosts = list(LOCAL),  # noqa: B006  # Typer reads it, and nothing changes it
    workstations: Annotated[
        list[str],
        typer.Option("--workstation", metavar=_PEER, help="An authorized workstation: PEM, and PKCS#12 for Weasis."),
    ] = [],  # noqa: B006
    peers: Annotated[
        list[str], typer.Option("--peer", metavar=_PEER, help="An archive or destination with TLS, as PEM.")
    ] = [],  # noqa: B006
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="How long each is valid.")] = 825,
    renew: Annotated[
        bool, typer.Option("--renew", help="Certificates that are there are made anew under their keys.")
    ] = False,
) -> None:
    """Make an authority of the site's own and what it signs: gateway, restore, workstations, peers.

    Files that are there stay, so that it can be run again for one more workstation. NAME is best the AE title.
    """
    wanted = [*(Wanted(stem, tuple(hosts)) for stem in OWN)]
    wanted += [read_peer(text, for_java=True) for text in workstations] + [read_peer(text) for text in peers]
    stems = [one.stem.lower() for one in wanted]
    if taken := {stem for stem in stems if stems.count(stem) > 1 or stem == "ca"}:
        raise ConfigError("bad-name", f"{', '.join(sorted(taken))}: the name is taken", "choose another NAME")
    made = make_certificates(folder, wanted, days, renew=renew)
    for one in wanted:
        kept = "" if one.stem in made else " was there, and stays" + ("" if renew else " (--renew makes it anew)")
        say(f"{folder / one.stem}.pem{kept}")
    if made:
        say(
            f"the authority is {folder / 'ca.pem'}: each peer trusts it (trust store, DicomTlsTrustedCertificates, +cf)"
        )
        say(f"keep {folder / 'ca.key'} away from the network: whoever has it can call himself a workstation")
    for one in wanted:
        if one.for_java:
            say(f"{one.stem}: in [[restore.workstations]], {binding(folder / f'{one.stem}.pem')}")
            say(
                f"  in Weasis: key store {one.stem}.p12, trust store {one.stem}-trust.p12 (PKCS12), both with the words"
            )
            say(f"  in {folder / one.stem}.p12.passphrase; carry them there over a safe way")


@app.command()
def request(
    name: Annotated[str, typer.Argument(help="What the files are called, as gateway or restore.")],
    hosts: Hosts,
    folder: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Where to; made when missing.")] = Path(
        "tls"
    ),
) -> None:
    """Write a certificate signing request, and its key where there is none, for an authority that the site has.

    Ask the authority for a certificate that may serve and connect (serverAuth, clientAuth) and keeps the names.
    """
    from gateway.keys.certificates import general_name, request_certificate

    one = read_peer(f"{name}={','.join(hosts)}")
    file = request_certificate(folder, one.stem, [general_name(host) for host in one.hosts])
    say(f"{file} is for the authority; put its answer, with intermediate certificates, into {folder / one.stem}.pem")


@app.command()
def show(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Certificate files (PEM, DER), or folders of them.")],
    trust: Annotated[
        Path | None, typer.Option(exists=True, help="Where to look for authorities; else beside each file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what certificates say: names, the digest that the configuration wants, days left, and who signed them."""
    from gateway.network.tls import certificate_facts
    from gateway.preflight.certificates import certificate_files, read_certificates

    for path in paths:
        files = [file for file in certificate_files(path) if not path.is_dir() or read_certificates(file)]
        for file in files:
            own = read_certificates(file)
            if not own:
                raise ConfigError("tls-file-unusable", f"no certificate in {file}", "name a PEM or DER certificate")
            _show(file, own, trust, certificate_facts, as_json=as_json)
        if not files:
            raise ConfigError("tls-file-missing", f"no certificate in {path}", "name a folder with PEM or DER files")


def make_certificates(folder: Path, wanted: list[Wanted], days: float, *, renew: bool = False) -> list[str]:
    """Authority and pairs, those that are missing; returns the stems of what was made, each told of in the audit."""
    from gateway.audit import AuditLog, audited, events
    from gateway.keys.certificates import general_name, make_authority, make_leaf, write_pkcs12
    from gateway.network.tls import certificate_facts
    from gateway.preflight.certificates import read_certificates

    names = {one.stem: [general_name(host) for host in one.hosts] for one in wanted}  # all wrong ones before any file
    try:
        authority, _ = make_authority(folder, "MIAD Gateway authority of this site", AUTHORITY_DAYS)
        made = []
        for one in wanted:
            if not make_leaf(folder, one.stem, authority, names[one.stem], days, renew=renew):
                continue
            made.append(one.stem)
            if one.for_java:
                write_pkcs12(folder, one.stem, authority)
            facts = certificate_facts(_der(read_certificates(folder / f"{one.stem}.pem")[0]))
            audit = AuditLog(folder / "audit.jsonl")  # of no site yet: it stays with the certificates
            audited(audit, events.KEYS_MADE, "success", operation="certificates-make", key_sha256=facts.key_sha256)
    except OSError as error:
        message = f"cannot write into {folder}: {error.strerror}"
        raise ConfigError("cannot-write", message, "name a folder that this user can write to") from None
    return made


def read_peer(text: str, *, for_java: bool = False) -> Wanted:
    """``NAME=HOST[,HOST...]``, or NAME alone for this machine.

    Raises
    ------
    ConfigError
        ``bad-name``: NAME cannot be that of a file.
    """
    stem, _, hosts = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", stem, re.ASCII):
        message = f"{stem!r} cannot be the name of certificate files"
        raise ConfigError("bad-name", message, f"write {_PEER} with letters, digits, _ and - in NAME")
    return Wanted(stem, tuple(host.strip() for host in hosts.split(",")) if hosts else LOCAL, for_java)


def binding(certificate: Path) -> str:
    """The line of the configuration that binds an AE title to this certificate."""
    from gateway.network.tls import certificate_facts
    from gateway.preflight.certificates import read_certificates

    return f'key_sha256 = ["{certificate_facts(_der(read_certificates(certificate)[0])).key_sha256}"]'


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _show(file, own, trust, facts_of, *, as_json) -> None:
    from gateway.keys.certificates import chain_of
    from gateway.preflight.certificates import certificate_files, read_certificates

    places = [trust] if trust else [file.parent, file.parent / "trust"]
    others = [one for place in places for each in certificate_files(place) for one in read_certificates(each)]
    for certificate in own:
        facts = facts_of(_der(certificate))
        chain = chain_of(certificate, [*own, *others])
        top = (chain or [certificate])[-1]
        whole = top.subject == top.issuer
        ends = certificate.not_valid_after_utc
        row = {
            "file": file,
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "san": [f"{kind}:{name}" for kind, name in facts.typed_names],
            "key_sha256": facts.key_sha256,
            "from": certificate.not_valid_before_utc.isoformat(),
            "until": ends.isoformat(),
            "days_left": (ends - datetime.now(UTC)).days,
            "chain": [one.subject.rfc4514_string() for one in chain],
            "chain_complete": whole,
        }
        if as_json:
            show_json(row)
            continue
        show_text(f"{file}: {row['subject']}")
        names = ", ".join(row["san"])
        if names or certificate.subject != certificate.issuer:  # an authority needs none
            show_text(f"  names       {names or 'none: no host and no san entry fits it'}")
        show_text(f"  key_sha256  {facts.key_sha256}")
        left = row["days_left"]
        show_text(f"  valid       until {ends.date()} ({f'{left} days left' if left >= 0 else 'ENDED'})")
        signed = ", then ".join(row["chain"]) or ("itself" if whole else "")
        if not whole:
            signed += f"{', then ' if signed else ''}{top.issuer.rfc4514_string()}, which is not here (--trust FILE)"
        show_text(f"  signed by   {signed}")
