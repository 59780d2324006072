"""What reading a header found that the standard does not allow, and what was made of it: codes without values.

A note goes with the header (`InstanceHeader.notes`), into one line of the audit when the original is sealed, and to the
operator through `miad-gateway explain`. It never holds a value, so it names no patient (design, promise 7).
"""

from __future__ import annotations

from collections.abc import Iterable

DUPLICATE = "duplicate-element"
ODD = "odd-length"
AGAINST_VR = "value-against-vr"
OTHER_VR = "vr-not-of-dictionary"
COMMA = "decimal-comma"
NO_NUMBER = "no-number"
CHARACTER_SET = "unusable-character-set"
UNREADABLE = "unreadable-sequence"
FILE_META = "file-meta-differs"

SENTENCES = {
    DUPLICATE: "an element stands in a data set twice with one value (PS3.5 7.1): the first one counts and goes on",
    ODD: "a value has an odd length (PS3.5 7.1.1): it is padded in the copy",
    AGAINST_VR: "a binary value does not fit its VR: in the copy it is UN with the bytes that it had (PS3.5 6.2.2)",
    OTHER_VR: "an element has another VR than the dictionary's (PS3.6): a destination that takes Implicit VR alone "
    "gets its value converted, or the element is left out",
    COMMA: "a decimal string has a comma (PS3.5 6.2, DS): it is read as a point",
    NO_NUMBER: "a window or a rescale value is no number (PS3.5 6.2, DS): it does not count",
    CHARACTER_SET: "Specific Character Set is none of the standard's: text beyond ASCII is not decoded",
    UNREADABLE: "a sequence cannot be read: what stands in it does not count",
    FILE_META: "the File Meta Information names other UIDs than the data set: those of the data set count",
}


def sentences(codes: Iterable[str]) -> tuple[str, ...]:
    """Each code with its sentence, for a person."""
    return tuple(f"{code}: {SENTENCES[code]}" for code in codes)
