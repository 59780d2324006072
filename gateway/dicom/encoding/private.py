"""The gateway's private block in a marked copy (PS3.5 7.8; architecture, the private block).

Group 4D49, creator "MIAD GATEWAY 1": xx01 US block version, xx02 OB key reference, xx03 LO restore service hint, xx10
OB sealed key and xx11 OB sealed payload (`carried` restoration only). The block is found by its creator, never by its
number, and no other creator's elements are touched.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from gateway.errors import DicomError

GROUP = 0x4D49
CREATOR = "MIAD GATEWAY 1"
_FAMILY = "MIAD GATEWAY "  # blocks of any version of ours
VERSION = 1


@dataclass(frozen=True)
class PrivateBlock:
    """What our block says. Binary values may carry one zero byte of padding (even length, PS3.5 6.2)."""

    version: int
    token: bytes
    hint: str
    sealed_key: bytes | None = None
    payload: bytes | None = None


def has_block(ds: Dataset) -> bool:
    """True when any version of our creator stands in the data set (top level)."""
    return any(creator.startswith(_FAMILY) for creator in _creators(ds).values())


def write_block(
    ds: Dataset, token: bytes, hint: str, *, sealed_key: bytes | None = None, payload: bytes | None = None
) -> None:
    """Put our block into the first wholly free block of group 4D49.

    Parameters
    ----------
    hint
        Restore service hint, ASCII, at most 64 characters, no backslash; may be empty.

    Raises
    ------
    DicomError
        "already-marked" when a block of ours is there, "no-free-private-block".
    ValueError
        For a hint or token that cannot be written.
    """
    if has_block(ds):
        raise DicomError("already-marked", "the data set carries a private block of this gateway already")
    if len(hint) > 64 or not hint.isascii() or "\\" in hint or not (hint.isprintable() or not hint):
        raise ValueError("a restore hint has at most 64 printable ASCII characters and no backslash")
    if not token:
        raise ValueError("the key reference is empty")
    block = _free_block(ds)
    ds.add_new(Tag(GROUP, block), "LO", CREATOR)
    base = block << 8
    ds.add_new(Tag(GROUP, base | 0x01), "US", VERSION)
    ds.add_new(Tag(GROUP, base | 0x02), "OB", _even(token))
    ds.add_new(Tag(GROUP, base | 0x03), "LO", hint)
    if sealed_key is not None:
        ds.add_new(Tag(GROUP, base | 0x10), "OB", _even(sealed_key))
    if payload is not None:
        ds.add_new(Tag(GROUP, base | 0x11), "OB", _even(payload))


def read_block(ds: Dataset) -> PrivateBlock | None:
    """Our block, wherever a peer may have moved it and whatever VR it was left with; None when there is none usable."""
    for number, creator in sorted(_creators(ds).items()):
        if creator == CREATOR:
            token = _binary(ds, number, 0x02)
            if token:
                return PrivateBlock(
                    version=_version(ds, number),
                    token=token,
                    hint=_text(_value(ds, number, 0x03)),
                    sealed_key=_binary(ds, number, 0x10),
                    payload=_binary(ds, number, 0x11),
                )
    return None


def blocks_of(ds: Dataset, group: int, creator: str) -> list[int]:
    """The numbers (0x10 to 0xFF) of the blocks that this creator has in an odd group (PS3.5 7.8.1)."""
    return sorted(number for number, found in _creators(ds, group).items() if found == creator)


def _creators(ds: Dataset, group: int = GROUP) -> dict[int, str]:
    """Block number (0x10 to 0xFF) to creator, over a group."""
    found = {}
    for tag in ds.keys():  # noqa: SIM118 - iterating a Dataset itself would decode every element
        if tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF:
            found[tag & 0xFFFF] = _text(_raw(ds, tag))
    return found


def _free_block(ds: Dataset) -> int:
    taken = set()
    for tag in ds.keys():  # noqa: SIM118
        if tag >> 16 == GROUP:
            element = tag & 0xFFFF
            # elements without a creator belong to nobody we know: their block is not free either
            taken.add(element if element <= 0xFF else element >> 8)
    for block in range(0x10, 0x100):
        if block not in taken:
            return block
    raise DicomError("no-free-private-block", "all 240 private blocks of group 4D49 are taken")


def _raw(ds: Dataset, tag: int) -> Any:
    """The value as it stands, undecoded when it was not decoded yet."""
    return ds.get_item(tag, keep_deferred=True).value


def _value(ds: Dataset, block: int, element: int) -> Any:
    tag = Tag(GROUP, block << 8 | element)
    return _raw(ds, tag) if tag in ds else None


def _binary(ds: Dataset, block: int, element: int) -> bytes | None:
    value = _value(ds, block, element)
    return bytes(value) if isinstance(value, (bytes, bytearray)) and value else None


def _version(ds: Dataset, block: int) -> int:
    value = _value(ds, block, 0x01)
    if isinstance(value, bytes) and len(value) == 2:
        item = ds.get_item(Tag(GROUP, block << 8 | 0x01), keep_deferred=True)
        little = getattr(item, "is_little_endian", True)  # an element made of Python values is in no byte order
        return struct.unpack("<H" if little else ">H", value)[0]
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.strip(" \0") if isinstance(value, str) else ""


def _even(value: bytes) -> bytes:
    return value + b"\0" if len(value) % 2 else value
