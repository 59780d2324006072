"""What lets a protection report leave: a signed document that says which bytes, for which row, by which route."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from gateway.errors import HoldError, SealError
from gateway.keys import Signer, Verifier, canonical
from gateway.keys.signing import REPORT

VERSION = 1


@dataclass(frozen=True)
class SignedFacts:
    """One report on its way. `sha256`: of its encoded bytes, hexadecimal; `size`: their number."""

    vault: str  # the site's name
    route: str
    instance_id: str
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str
    size: int


@dataclass(frozen=True)
class SignedReport:
    """The document (deploy/formats.md, "protection report"), and whose signature is over it."""

    document: bytes
    signature: bytes
    signer: str


def sign_report(facts: SignedFacts, signer: Signer) -> SignedReport:
    """Sign what a report is."""
    document = canonical({"version": VERSION, **asdict(facts)})
    return SignedReport(document, signer.sign(document, REPORT), signer.id)


def check_report(signed: SignedReport | None, verifier: Verifier, vault: str) -> SignedFacts:
    """What a listed signer says of a report of this site.

    Raises
    ------
    HoldError
        ``not-ours``: it is not signed, by nobody whom the site trusts, or of a version that is not known here.
    """
    if signed is None:
        raise HoldError("not-ours", "no gateway has signed this report", "more images of the study bring a new one")
    try:
        verifier.check(signed.document, signed.signature, signed.signer, REPORT)
    except SealError as error:
        raise HoldError("not-ours", f"a report's signature: {error.message}", error.hint) from None
    content = json.loads(signed.document)
    names = {field.name for field in fields(SignedFacts)}
    if content.pop("version", None) != VERSION or content.keys() != names or content["vault"] != vault:
        raise HoldError("not-ours", "a report is signed for another site, or in a version that is not known here")
    return SignedFacts(**content)
