"""A-ASSOCIATE PDUs as the field sends them, read leniently and in one pass (PS3.8 9.3.2, 9.3.3, 9.3.4).

pynetdicom's decoder ends an association over things that the standard tells a receiver to skip, or that every other
toolkit takes: an item it does not know, a version name of 17 characters, zeros behind the last item. So both sides read
these PDUs here. What an acceptor has to hand on to pynetdicom is written anew in the form that its decoder takes.

Taken: AE titles padded with NUL or spaces; items and sub-items of unknown types (skipped, PS3.8 9.3.1, PS3.7 D.3.3);
any protocol version whose bit 0 is set; version names of any length and characters; no Maximum Length item; zeros
behind the items of the PDU, of a presentation context or of the user information. Refused is what leaves no room for
doubt: an item that is longer than what holds it, a PDU without its fixed fields, a context id that is even or comes
twice.

The work is bounded: one pass over at most 256 KiB (`LONGEST_ASSOCIATE`), and at most 64 transfer syntaxes of a context
are handed on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.errors import DicomError

LONGEST_ASSOCIATE = 256 << 10  # bytes; 128 contexts of 18 transfer syntaxes have about 90 KiB
MOST_SYNTAXES = 64  # of one context; the standard knows some 60
ASSUMED_MAX_LENGTH = 16_384  # bytes; where a peer states no Maximum Length (PS3.8 D.1.1 makes it mandatory)
SUPPORTED_VERSION = 0x0001  # bit 0 says version 1, the only one there is; the other bits are not tested (9.3.2)

_ASSOCIATE_RQ, _ASSOCIATE_AC = 0x01, 0x02
_APPLICATION_CONTEXT, _CONTEXT_RQ, _CONTEXT_AC, _USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAX_LENGTH, _CLASS_UID, _ASYNCHRONOUS, _ROLE, _VERSION_NAME = 0x51, 0x52, 0x53, 0x54, 0x55

_FIXED = 68  # bytes of version, AE titles and reserved fields before the first item
_DICOM_CONTEXT = "1.2.840.10008.3.1.1.1"  # the DICOM Application Context Name, PS3.7 A.2.1
_NEVER_SUPPORTED = "2.25.0"  # stands for a UID that cannot be read: such a context is answered with a refusal


@dataclass(frozen=True)
class ProposedContext:
    """One presentation context of a request: what is to be exchanged, and the encodings on offer, in their order."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class AssociateRequest:
    """What an A-ASSOCIATE-RQ says.

    `called_ae` and `calling_ae` are trimmed and may be empty. Bytes that may not stand in an AE title (PS3.5 6.2) are
    ``?`` in them, and `called_usable` or `calling_usable` is False.
    """

    version_supported: bool
    called_ae: str
    calling_ae: str
    called_usable: bool
    calling_usable: bool
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_length: int  # bytes; 0: no limit
    implementation_class: str
    implementation_version: str
    roles: dict[str, tuple[int, int]]  # SOP class UID -> SCU role, SCP role
    asynchronous: tuple[int, int] | None  # operations invoked, performed

    def encode(self) -> bytes:
        """The same request as a PDU that every decoder takes; an AE title that is empty becomes ``?``."""
        items = [_item(_APPLICATION_CONTEXT, self.application_context.encode())]
        for context in self.contexts:
            syntaxes = b"".join(_item(_TRANSFER_SYNTAX, uid.encode()) for uid in context.transfer_syntaxes)
            abstract = _item(_ABSTRACT_SYNTAX, context.abstract_syntax.encode())
            items.append(_item(_CONTEXT_RQ, bytes((context.context_id, 0, 0, 0)) + abstract + syntaxes))
        user = _item(_MAX_LENGTH, struct.pack(">L", self.max_length))
        if self.implementation_class:
            user += _item(_CLASS_UID, self.implementation_class.encode())
        if self.asynchronous is not None:
            user += _item(_ASYNCHRONOUS, struct.pack(">HH", *self.asynchronous))
        for uid, (scu, scp) in self.roles.items():
            user += _item(_ROLE, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))
        if self.implementation_version:
            user += _item(_VERSION_NAME, self.implementation_version.encode())
        items.append(_item(_USER_INFORMATION, user))
        titles = b"".join((title or "?").encode().ljust(16) for title in (self.called_ae, self.calling_ae))
        body = struct.pack(">HH", SUPPORTED_VERSION, 0) + titles + bytes(32) + b"".join(items)
        return struct.pack(">BBL", _ASSOCIATE_RQ, 0, len(body)) + body


@dataclass(frozen=True)
class AssociateAnswer:
    """What an A-ASSOCIATE-AC says: context id to (result, transfer syntax), and the longest PDU that the peer takes."""

    results: dict[int, tuple[int, str]]
    max_length: int  # bytes; 0: no limit
    asynchronous: tuple[int, int] | None = None  # operations that we may invoke, and that it may; 0: no limit


@dataclass(frozen=True)
class Reject:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int
    source: int
    diagnostic: int

    @property
    def is_transient(self) -> bool:
        """Whether it may be tried again (result 2)."""
        return self.result == 0x02

    @property
    def reason(self) -> str:
        """The reason in the words of table 9-21, or its numbers where there are none."""
        known = _REASONS.get((self.source, self.diagnostic))
        return known or f"source {self.source}, reason {self.diagnostic}"


_REASONS = {
    (1, 1): "No reason given",
    (1, 2): "Application context name not supported",
    (1, 3): "Calling AE title not recognised",
    (1, 7): "Called AE title not recognised",
    (2, 1): "No reason given",
    (2, 2): "Protocol version not supported",
    (3, 1): "Temporary congestion",
    (3, 2): "Local limit exceeded",
}


def read_request(body: bytes | bytearray) -> AssociateRequest:
    """Read an A-ASSOCIATE-RQ.

    Parameters
    ----------
    body
        The PDU behind its six bytes of type and length.

    Raises
    ------
    DicomError
        Code ``bad-associate-request``.
    """
    reader = _Reader(bytes(body), _CONTEXT_RQ, "bad-associate-request")
    called, called_usable = _title(body[4:20])
    calling, calling_usable = _title(body[20:36])
    contexts: dict[int, ProposedContext] = {}
    for content in reader.contexts:
        context = _proposed(content, reader.code)
        if context.context_id in contexts or context.context_id % 2 == 0:
            raise DicomError(reader.code, "a presentation context id that is even or comes twice")
        contexts[context.context_id] = context
    user = reader.user
    return AssociateRequest(
        version_supported=bool(struct.unpack_from(">H", body)[0] & SUPPORTED_VERSION),
        called_ae=called,
        calling_ae=calling,
        called_usable=called_usable,
        calling_usable=calling_usable,
        application_context=reader.application_context or _DICOM_CONTEXT,
        contexts=tuple(contexts.values()),
        max_length=user.max_length,
        implementation_class=user.implementation_class,
        implementation_version=user.implementation_version,
        roles=user.roles,
        asynchronous=user.asynchronous,
    )


def read_answer(body: bytes | bytearray) -> AssociateAnswer:
    """Read an A-ASSOCIATE-AC; its AE titles and its protocol version are not tested (PS3.8 9.3.3).

    Raises
    ------
    DicomError
        Code ``bad-associate-answer``.
    """
    reader = _Reader(bytes(body), _CONTEXT_AC, "bad-associate-answer")
    results: dict[int, tuple[int, str]] = {}
    for content in reader.contexts:
        if len(content) < 4:
            raise DicomError(reader.code, "a presentation context without its fixed fields")
        syntaxes = [value for kind, value in _items(content[4:], reader.code) if kind == _TRANSFER_SYNTAX]
        results.setdefault(content[0], (content[2], _uid(syntaxes[0]) if syntaxes else ""))
    return AssociateAnswer(results, reader.user.max_length, reader.user.asynchronous)


def read_reject(body: bytes | bytearray) -> Reject:
    """Read an A-ASSOCIATE-RJ; what is behind its four bytes does not count.

    Raises
    ------
    DicomError
        Code ``bad-associate-answer``.
    """
    if len(body) < 4:
        raise DicomError("bad-associate-answer", "an A-ASSOCIATE-RJ of fewer than four bytes")
    return Reject(body[1], body[2], body[3])


@dataclass
class _UserInformation:
    """The sub-items of User Information that count here (PS3.8 D.1, PS3.7 D.3.3)."""

    max_length: int = ASSUMED_MAX_LENGTH
    implementation_class: str = ""
    implementation_version: str = ""
    roles: dict[str, tuple[int, int]] = field(default_factory=dict)
    asynchronous: tuple[int, int] | None = None

    def take(self, kind: int, value: bytes) -> None:
        """Take one sub-item; one of an unknown type or a wrong length is as if it were not there."""
        if kind == _MAX_LENGTH and len(value) == 4:
            self.max_length = struct.unpack(">L", value)[0]
        elif kind == _CLASS_UID:
            self.implementation_class = _uid(value)
        elif kind == _VERSION_NAME:
            self.implementation_version = _printable(value)[:16].strip()
        elif kind == _ASYNCHRONOUS and len(value) == 4:
            invoked, performed = struct.unpack(">HH", value)
            self.asynchronous = (invoked, performed)
        elif kind == _ROLE and len(value) >= 4:
            length = struct.unpack_from(">H", value)[0]
            uid, roles = _uid(value[2 : 2 + length]), value[2 + length : 4 + length]
            if uid and len(roles) == 2 and max(roles) <= 1:
                self.roles[uid] = (roles[0], roles[1])


class _Reader:
    """The items of an A-ASSOCIATE-RQ or -AC."""

    def __init__(self, body: bytes, context_type: int, code: str) -> None:
        if len(body) < _FIXED:
            raise DicomError(code, f"an A-ASSOCIATE PDU of {len(body)} bytes: its fixed fields alone have {_FIXED}")
        self.code = code
        self.contexts: list[bytes] = []
        self.application_context = ""
        self.user = _UserInformation()
        for kind, value in _items(body[_FIXED:], code):
            if kind == context_type:
                self.contexts.append(value)
            elif kind == _APPLICATION_CONTEXT:
                self.application_context = _uid(value)
            elif kind == _USER_INFORMATION:
                for sub_kind, sub_value in _items(value, code):
                    self.user.take(sub_kind, sub_value)


def _proposed(content: bytes, code: str) -> ProposedContext:
    if len(content) < 4:
        raise DicomError(code, "a presentation context without its fixed fields")
    abstract, syntaxes = _NEVER_SUPPORTED, dict[str, None]()
    for kind, value in _items(content[4:], code):
        uid = _uid(value)
        if kind == _ABSTRACT_SYNTAX:
            abstract = uid or abstract
        elif kind == _TRANSFER_SYNTAX and uid and len(syntaxes) < MOST_SYNTAXES:
            syntaxes[uid] = None
    return ProposedContext(content[0], abstract, tuple(syntaxes) or (_NEVER_SUPPORTED,))


def _items(data: bytes, code: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each item; zeros behind the last one are padding."""
    end = len(data.rstrip(b"\0"))
    at = 0
    while at < end:
        if at + 4 > len(data):
            raise DicomError(code, "an item of an A-ASSOCIATE PDU is cut off")
        kind, _, length = struct.unpack_from(">BBH", data, at)
        value = data[at + 4 : at + 4 + length]
        if len(value) < length:
            raise DicomError(code, "an item of an A-ASSOCIATE PDU is longer than what holds it")
        yield kind, value
        at += 4 + length


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _title(field_bytes: bytes | bytearray) -> tuple[str, bool]:
    """An AE title without its padding, and whether all of it may stand in one."""
    raw = bytes(field_bytes).strip(b"\0 ")
    return _printable(raw), all(0x20 <= byte < 0x7F and byte != 0x5C for byte in raw)


def _printable(value: bytes) -> str:
    """Characters of VR AE (PS3.5 6.2); each byte that is none becomes ``?``, padding goes."""
    trimmed = value.strip(b"\0 ")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else "?" for byte in trimmed)


def _uid(value: bytes) -> str:
    """A UID without its padding, or nothing where it is none (PS3.5 9.1)."""
    trimmed = value.strip(b"\0 ")
    return trimmed.decode("ascii") if 0 < len(trimmed) <= 64 and not trimmed.strip(b"0123456789.") else ""
