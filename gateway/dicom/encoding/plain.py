"""A quick look at some values of a data set whose beginning is laid out plainly; what is not is left to the full walk.

Restoring looks at every original's header for seven values. The walk that everything else goes by
(`gateway.dicom.encoding.normal_form`) reads every element, in whatever state it comes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from gateway.dicom.encoding.elements import LONG_VRS, UNDEFINED, VRS
from gateway.dicom.encoding.syntaxes import Syntax

_HEAD = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")
_MOST = 1 << 16  # bytes: beyond these no look is quick


def plain_values(data: memoryview, syntax: Syntax, wanted: Mapping[int, bytes]) -> dict[int, bytes] | None:
    """The encoded values, padding included, of those of `wanted` that stand in the data set's beginning.

    Parameters
    ----------
    data
        A data set from its first byte.
    wanted
        Tags with their VRs; none is looked for behind the highest.

    Returns
    -------
    dict or None
        None where the way to the highest tag is not plain: not Explicit VR Little Endian, tags that do not ascend
        (so none stands there twice), sequences of undefined length, other VRs than in `wanted`, or more than 64 KiB.
    """
    if syntax.implicit or syntax.deflated or not syntax.little_endian:
        return None
    found: dict[int, bytes] = {}
    last, highest, at, stop = -1, max(wanted), 0, min(len(data), _MOST)
    while at + 8 <= stop:
        group, number, vr, length = _HEAD.unpack_from(data, at)
        tag = group << 16 | number
        if tag <= last or vr not in VRS:
            return None
        if tag > highest:
            return found
        last, at = tag, at + 8
        if vr in LONG_VRS:
            if at + 4 > stop:
                return None
            length, at = _LENGTH.unpack_from(data, at)[0], at + 4
            if length == UNDEFINED:
                return None
        if tag in wanted:
            if vr != wanted[tag] or at + length > stop:
                return None
            found[tag] = bytes(data[at : at + length])
        at += length
    return None
