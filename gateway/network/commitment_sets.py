"""The data sets of storage commitment (PS3.4 annex J, PS3.3 C.14): requests and reports as bytes, strictly bounded."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from gateway.dicom.encoding.depth import check_depth
from gateway.dicom.encoding.element_count import count
from gateway.dicom.encoding.elements import UNDEFINED
from gateway.dicom.encoding.encoded import open_source, parse, split_header
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.errors import DicomError
from gateway.flow.ports import CommitmentReport, Reference
from gateway.network.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE

PUSH_MODEL = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model SOP Class
INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known SOP Instance
SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
CONTEXTS = [(PUSH_MODEL, syntax) for syntax in SYNTAXES]
REQUEST = 1  # Action Type ID, PS3.4 J.3.2
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID, PS3.4 J.3.3

LONGEST = 4 << 20  # bytes of a request or report
MOST_REFERENCES = 10_000  # of one transaction
_MOST_ELEMENTS = 5 * MOST_REFERENCES


def request_bytes(transaction_uid: str, references: Iterable[Reference], syntax: str) -> bytes:
    """The action information of a request."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [_item(one) for one in references]
    return _encoded(ds, syntax)


def report_bytes(report: CommitmentReport, syntax: str) -> bytes:
    """The event information of a report."""
    ds = Dataset()
    ds.TransactionUID = report.transaction_uid
    if report.committed:
        ds.ReferencedSOPSequence = [_item(one) for one in report.committed]
    if report.failed:
        ds.FailedSOPSequence = [_item(one, reason) for one, reason in report.failed.items()]
    return _encoded(ds, syntax)


def read_request(data: bytes, syntax: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and references of a request.

    Raises
    ------
    DicomError
        ``bad-commitment``, ``too-many-references``, and those of the element walker.
    """
    ds = _decoded(data, syntax)
    found = _references(ds, "ReferencedSOPSequence")
    if not found:
        raise DicomError("bad-commitment", "the request names no instance")
    return _uid(ds, "TransactionUID"), tuple(found)


def read_report(data: bytes, syntax: str) -> CommitmentReport:
    """A report; errors as `read_request`."""
    ds = _decoded(data, syntax)
    committed, failed = _references(ds, "ReferencedSOPSequence"), _references(ds, "FailedSOPSequence")
    return CommitmentReport(_uid(ds, "TransactionUID"), tuple(committed), failed)


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _encoded(ds: Dataset, syntax: str) -> bytes:
    data = encode(ds, syntax == IMPLICIT_LITTLE, True)
    assert data is not None  # UIDs and numbers of ours
    return data


def _decoded(data: bytes, syntax: str) -> Dataset:
    if not 0 < len(data) <= LONGEST:
        raise DicomError("bad-commitment", f"{len(data)} bytes, where 1 to {LONGEST} are to be")
    with foreign_errors("bad-commitment", "the data set cannot be decoded"):
        # All elements are walked and counted first: pydicom takes a truncated data set for a whole one.
        source, layout = open_source(BytesIO(data), syntax_of(syntax))
        encoded, pixels = split_header(source, layout, bulk=UNDEFINED, at_most=LONGEST)
        if pixels is not None:
            raise DicomError("bad-commitment", "the data set holds pixel data")
        if count(encoded, layout)[0] > _MOST_ELEMENTS:
            raise DicomError("too-many-references", f"more than {MOST_REFERENCES} instances")
        ds = parse(encoded, layout)
        check_depth(ds)
        return ds


def _references(ds: Dataset, keyword: str) -> dict[Reference, int]:
    found: dict[Reference, int] = {}
    with foreign_errors("bad-commitment", "the data set cannot be decoded"):
        for item in ds.get(keyword) or ():
            reason = item.get("FailureReason")
            reference = Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))
            found[reference] = reason if isinstance(reason, int) else 0x0110
    if len(found) > MOST_REFERENCES:
        raise DicomError("too-many-references", f"more than {MOST_REFERENCES} instances")
    return found


def _uid(ds: Dataset, keyword: str) -> str:
    value = str(ds.get(keyword) or "")
    if not 0 < len(value) <= 64 or not set(value) <= set("0123456789."):
        raise DicomError("bad-commitment", f"there is no usable {keyword}")
    return value
