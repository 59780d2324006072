"""Presentation contexts: the storage SOP classes and transfer syntaxes that the gateway takes, as they are."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import _NON_PATIENT_OBJECT_CLASSES, _STORAGE_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

# Of type "SOP Class" with "Storage" in the name, but nothing that C-STORE carries: DICOMDIR, storage commitment.
_NOT_STORED = {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}

# The pixels are elsewhere (JPIP), the data set is no DICOM data set (MIME, XML, Papyrus), or it is a real-time flow.
_NOT_AN_ENCODING = ("JPIP", "MIME", "XML", "SMPTE", "Papyrus")

STORAGE_CLASSES: frozenset[str] = frozenset(
    {*_STORAGE_CLASSES.values(), *_NON_PATIENT_OBJECT_CLASSES.values()}
    | {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and uid not in _NOT_STORED
    }
)
"""Every storage SOP class of the standard that pynetdicom or pydicom know, retired ones included."""

TRANSFER_SYNTAXES: frozenset[str] = frozenset(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "Transfer Syntax" and not any(word in name for word in _NOT_AN_ENCODING)
)
"""Every transfer syntax in which a whole data set is sent; we store bytes, so we need no codec for it."""


def storage_contexts(proposed: Sequence[PresentationContext]) -> list[PresentationContext]:
    """The contexts that the ingress supports out of those that a peer proposes.

    Where one context offers several transfer syntaxes, the peer's order decides: it knows which one it has at hand.
    Private and unknown SOP classes and private transfer syntaxes are left out and so get refused (results 3 and 4).
    """
    wanted: dict[str, dict[str, None]] = {}
    for context in proposed:
        wanted.setdefault(str(context.abstract_syntax), {}).update(dict.fromkeys(map(str, context.transfer_syntax)))
    supported = []
    for sop_class, syntaxes in wanted.items():
        if sop_class == VERIFICATION:
            supported.append(build_context(VERIFICATION, [IMPLICIT_LITTLE, EXPLICIT_LITTLE]))
        elif sop_class in STORAGE_CLASSES:
            known = [syntax for syntax in syntaxes if syntax in TRANSFER_SYNTAXES]
            if known:
                supported.append(build_context(sop_class, known))
    return supported
