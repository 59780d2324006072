"""The body of a STOW-RS request: multipart/related, read as it comes, each part an instance on its way into the spool.

No part is ever whole in memory. Its File Meta Information is read first, since it names what follows; from its end on
the bytes go to `Incoming.write`, as those of a C-STORE do. What is wrong with one part refuses that part alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from gateway.dicom.encoding.part10 import FileMeta, split_part10
from gateway.errors import DicomError
from gateway.flow.ports import Incoming
from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from gateway.network.http import Answered
from gateway.network.http.media import MediaRange, media_type

MOST_PARTS = 10_000  # of one request
LONGEST_META = 128 << 10  # bytes of a part before its data set
_FIRST_LOOK = 512  # bytes of a part after which its File Meta Information is looked for; then of twice as many
_BOUNDARY = re.compile(
    r"[0-9A-Za-z'()+_,./:=? -]{0,127}[0-9A-Za-z'()+_,./:=?-]"
)  # RFC 2046 5.1.1: at most 70, but Orthanc has 73
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass
class Stored:
    """What became of one part; the UIDs are those of its File Meta, "" where it told none."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    size: int = 0  # bytes of its data set
    error: Exception | None = None


@dataclass
class Wanted:
    """How parts find their way.

    Attributes
    ----------
    begin
        Opens a place for one instance, or refuses it: called with SOP class, SOP instance and transfer syntax UID.
    finished
        Called with what became of each part.
    """

    begin: Callable[[str, str, str], Incoming]
    finished: Callable[[Stored], None]


def boundary_of(content_type: str) -> str:
    """The boundary of a STOW-RS request's Content-Type.

    Raises
    ------
    Answered
        415: it is no multipart/related of DICOM files, or names no usable boundary.
    """
    found = media_type(content_type)
    if found.type != "multipart/related" or found.parameters.get("type", "").lower() != "application/dicom":
        raise Answered(415, 'instances are taken as multipart/related; type="application/dicom"')
    boundary = found.parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise Answered(415, "the Content-Type header names no usable boundary")
    return boundary


class Body:
    """Takes the body piece by piece.

    Parameters
    ----------
    boundary
        From `boundary_of`.
    """

    def __init__(self, boundary: str, wanted: Wanted) -> None:
        self._wanted = wanted
        self._part: _Part | None = None
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._parts = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._last,
            },
        )

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises
        ------
        Answered
            400: they are no multipart body; 413: it has too many parts. Parts that ended before are what they are.
        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise Answered(400, "the body is no multipart body of the boundary that was named") from None

    def finish(self) -> None:
        """The body is over.

        Raises
        ------
        Answered
            400: its last boundary is missing.
        """
        if not self._ended:
            raise Answered(400, "the body ends before its last boundary")

    def cut_off(self) -> None:
        """Forget the part at hand, if any."""
        if self._part is not None:
            self._part.refuse(DicomError("aborted-mid-object", "the request ended inside the part"))
            self._close()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise Answered(413, f"more than {MOST_PARTS} parts in one request")
        self._headers = {}

    def _header(self) -> None:
        name = self._name.decode("latin-1").strip().lower()
        self._headers.setdefault(name, self._value.decode("latin-1").strip())
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        self._part = _Part(self._wanted)
        if (error := _wrong(self._headers)) is not None:
            self._part.refuse(error)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.write(memoryview(data)[start:end])

    def _end(self) -> None:
        if self._part is not None:
            self._part.finish()
            self._close()

    def _last(self) -> None:
        self._ended = True

    def _close(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        self._wanted.finished(part.stored)


def _wrong(headers: dict[str, str]) -> DicomError | None:
    """Why a part of these headers is no instance of ours."""
    try:
        kind: MediaRange = media_type(headers.get("content-type", ""))
    except Answered:
        return DicomError("part-not-dicom", "a part says of no media type that it is DICOM")
    if kind.type != "application/dicom":  # another multipart body too: nothing is nested
        return DicomError("part-not-dicom", "a part is not of type application/dicom")
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "identity"):
        return DicomError("part-encoded", "a part has a transfer encoding")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return DicomError("part-encoded", "a part has a content coding")
    return None


@dataclass
class _Part:
    """One part: first its head is gathered, then its data set goes on."""

    wanted: Wanted
    stored: Stored = field(default_factory=Stored)
    _head: bytearray = field(default_factory=bytearray)
    _look_at: int = _FIRST_LOOK
    _incoming: Incoming | None = None

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self.stored.error is not None:
            return
        try:
            if self._incoming is None:
                self._head += data
                if len(self._head) >= self._look_at:
                    self._look(ended=False)
            else:
                self._pass_on(data)
        except Exception as error:
            self.refuse(error)

    def finish(self) -> None:
        """Make the instance durable, or refuse it."""
        if self.stored.error is not None:
            return
        try:
            if self._incoming is None:
                self._look(ended=True)
            assert self._incoming is not None
            self._incoming.commit()
        except Exception as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """It will not be stored; the rest of it goes nowhere."""
        self.stored.error = error
        self._head.clear()
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None

    def _look(self, *, ended: bool) -> None:
        """Read the File Meta Information, if it is there as a whole, and begin."""
        if len(self._head) >= 132 and self._head[128:132] != b"DICM":
            raise DicomError("not-dicom", "a part is no DICOM file: no DICM behind its preamble")
        try:
            meta, offset = split_part10(io.BytesIO(bytes(self._head)))
        except DicomError as error:
            if ended or error.code != "truncated" or self._head[128:132] != b"DICM":
                raise
            meta, offset = None, 0
        if ended and self._head[128:132] != b"DICM":
            raise DicomError("not-dicom", "a part is no DICOM file")
        # An element may end just where the bytes do: the next has to be seen, to know that it is none of group 0002.
        if meta is None or (offset + 8 > len(self._head) and not ended):
            if len(self._head) > LONGEST_META:
                raise DicomError("not-dicom", "the File Meta Information of a part does not end")
            self._look_at = 2 * len(self._head)
            return
        self._begin(meta)
        head, self._head = bytes(self._head), bytearray()
        self._pass_on(memoryview(head)[offset:])

    def _begin(self, meta: FileMeta) -> None:
        stored = self.stored
        if not (_UID.fullmatch(meta.sop_class_uid) and _UID.fullmatch(meta.sop_instance_uid)):
            raise DicomError("missing-uid", "the File Meta Information names no usable SOP class and instance")
        stored.sop_class_uid, stored.sop_instance_uid = meta.sop_class_uid, meta.sop_instance_uid
        if meta.sop_class_uid not in STORAGE_CLASSES:
            raise DicomError("sop-class-not-negotiated", "its SOP class is no storage SOP class")
        if meta.transfer_syntax_uid not in TRANSFER_SYNTAXES:
            raise DicomError("transfer-syntax-unknown", "its transfer syntax is none of a whole data set")
        stored.transfer_syntax_uid = meta.transfer_syntax_uid
        self._incoming = self.wanted.begin(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid)

    def _pass_on(self, data: memoryview) -> None:
        assert self._incoming is not None
        self.stored.size += len(data)
        self._incoming.write(data)
