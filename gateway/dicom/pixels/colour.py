"""Whether the samples of a JPEG or JPEG-LS frame are RGB or YCbCr: the header's word against the codestream's own.

Photometric Interpretation should be true (PS3.5 8.2.1), and is not always. What a codestream says of itself counts more
when it is plain; where the two contradict each other and it is not, the frame is refused rather than shown in false
colours, since the marked copy carries decoded samples and no viewer could tell any more.
"""

from __future__ import annotations

from gateway.dicom.pixels.codestream import Codestream
from gateway.errors import DicomError

RGB, YCC = "RGB", "YBR_FULL"
_RGB_IDS = ((82, 71, 66), (114, 103, 98))  # "RGB", "rgb"
_SPIFF = {10: RGB, 1: YCC, 3: YCC, 4: YCC}  # colour spaces of ISO/IEC 10918-3 F.2.1.1
_LABELS = {"RGB": RGB, "YBR_FULL": YCC, "YBR_FULL_422": YCC}


def colour_of(codestream: Codestream, photometric: str) -> str:
    """`RGB` or `YCC`, of a frame with three components.

    An Adobe marker, component identifiers "RGB" and subsampled chroma are plain. A JFIF marker says YCbCr and a SPIFF
    header has a field of its own, but encoders write both before whatever they encode.

    Raises
    ------
    DicomError
        "undecodable-pixels" for a photometric interpretation that this codec cannot hold; "unclear-colour".
    """
    label = _LABELS.get(photometric)
    if label is None:
        raise DicomError("undecodable-pixels", "a compressed colour frame cannot be turned into RGB")
    plain, said = set(), set()
    for number, content in codestream.application:
        if number == 14 and content[:5] == b"Adobe" and len(content) >= 12:  # Adobe technical note 5116
            plain.add(RGB if content[11] == 0 else YCC)
        elif number == 0 and content[:5] == b"JFIF\0":
            said.add(YCC)
        elif number == 8 and content[:6] == b"SPIFF\0" and len(content) > 18 and content[18] in _SPIFF:
            said.add(_SPIFF[content[18]])
    if codestream.ids in _RGB_IDS:
        plain.add(RGB)
    first, *others = codestream.sampling
    if any(other[0] < first[0] or other[1] < first[1] for other in others):
        plain.add(YCC)
    if len(plain) == 1:
        (found,) = plain
        if label != found and said - {found}:
            raise _unclear("header and JFIF or SPIFF marker say one, its other marks the other")
        return found
    if plain:
        raise _unclear("its markers, component identifiers and sampling contradict each other")
    if said - {label}:
        raise _unclear("the header says one, a JFIF or SPIFF marker the other")
    return label


def _unclear(why: str) -> DicomError:
    return DicomError(
        "unclear-colour",
        f"whether the samples of a compressed frame are RGB or YCbCr cannot be told: {why}",
        "correct Photometric Interpretation (0028,0004) at the source, or send the image uncompressed",
    )
