"""One compressed frame as stored values: what it says of itself, what the header says, and two decoders where needed.

Runs where codecs run: in a child process without keys (`gateway.dicom.pixels.codecs`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.syntaxes import Syntax
from gateway.dicom.pixels import decoders
from gateway.dicom.pixels.codestream import END, Codestream, inspect
from gateway.dicom.pixels.colour import RGB, colour_of
from gateway.dicom.pixels.facts import FrameFacts, container_of, decoded_type
from gateway.errors import DicomError

_FILLERS = (b"\xfe\xdb\x6e\xb7" * 64, b"\x55" * 64, b"")  # read as data, if data is missing; libjpeg itself reads zeros
_PROGRESSIVE = 0xC2  # its scans are not whole by themselves
_STRAY_ZEROS = 8  # between the last scan of a JPEG-LS frame and its end marker, at most
_KNOWN = 256  # kinds of frames that both decoders were seen to agree on
_agreed: OrderedDict[tuple, None] = OrderedDict()


def decode_frame(frame: bytes, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
    """Decode one frame.

    A second decoder is asked for what a header and a codestream can be at odds about, colour and sign, once for each
    kind of frame (the same header facts and the same bytes before the first scan) in the life of this process; and for
    every frame whose end is not as it should be.

    Parameters
    ----------
    frame
        The frame's fragments, put together.
    facts
        Of the instance that the frame is of.

    Returns
    -------
    numpy.ndarray
        (H, W) or (H, W, 3) of `decoded_type`; colour is RGB. Unused bits are as they came: they may hold an overlay.

    Raises
    ------
    DicomError
        "unsupported-transfer-syntax", "undecodable-pixels", "unclear-colour", "unclear-sign", "decoders-disagree",
        "wrong-number-of-frames".
    """
    if not syntax.codec:
        raise DicomError("unsupported-transfer-syntax", f"no decoder for transfer syntax {syntax.uid}")
    codestream = inspect(frame, syntax)
    if codestream is None:
        return _decode_rle(frame, facts, syntax)
    if (codestream.rows, codestream.columns) != (facts.rows, facts.columns):
        raise DicomError("undecodable-pixels", "a compressed frame has another size than the header says")
    if codestream.components != facts.samples or codestream.precision > facts.bits_allocated:
        raise DicomError("undecodable-pixels", "a compressed frame has other samples than the header says")
    samples = _samples(codestream, facts, syntax)
    if facts.samples == 3:
        return _as_rgb(samples, codestream, facts, syntax).astype(decoded_type(facts, syntax), copy=False)
    if syntax.codec == "jpeg":
        return samples.astype(decoded_type(facts, syntax), copy=False)
    return _numbers(samples, codestream, facts).astype(decoded_type(facts, syntax), copy=False)


def _samples(codestream: Codestream, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
    """The samples as they lie in the codestream, from the first decoder; the second one heard where needed."""
    try:
        samples = _first(codestream, syntax)
    except DicomError:
        # Some encoders leave zeros before the end marker, which decoders take or refuse (charls#437).
        zeros = len(codestream.data[:-2]) - len(codestream.data[:-2].rstrip(b"\0"))
        if syntax.codec != "jpeg-ls" or not 0 < zeros <= _STRAY_ZEROS:
            raise
        codestream, samples = _without_zeros(codestream, syntax, zeros)
    if syntax.codec == "jpeg" and codestream.process != _PROGRESSIVE:
        _check_whole(codestream, syntax, samples)
    kind = (syntax.uid, facts, codestream.data[: codestream.head])
    is_clear = facts.samples == 1 and not facts.signed and not codestream.signed
    if not codestream.fault and (is_clear or kind in _agreed):
        return samples
    with foreign_errors("decoders-disagree", "a second decoder does not decode a compressed frame", _RESEND):
        other = decoders.second(codestream, syntax)
    _compare(samples, other, codestream)
    if not codestream.fault:
        _remember(kind)
    return samples


_RESEND = "send the image again, uncompressed where the source can"


def _first(codestream: Codestream, syntax: Syntax) -> np.ndarray:
    with foreign_errors("undecodable-pixels", "the pixel data cannot be decoded"):
        return decoders.first(codestream, syntax)


def _without_zeros(codestream: Codestream, syntax: Syntax, zeros: int) -> tuple[Codestream, np.ndarray]:
    body = codestream.data[:-2]
    for count in range(1, zeros + 1):
        shorter = replace(codestream, data=body[:-count] + END, fault="has zeros before its end marker")
        try:
            return shorter, _first(shorter, syntax)
        except DicomError:
            continue
    raise DicomError("undecodable-pixels", "the pixel data cannot be decoded up to its end marker")


def _check_whole(codestream: Codestream, syntax: Syntax, samples: np.ndarray) -> None:
    """Nothing of a JPEG frame is missing, but its end marker at most. libjpeg fills the rest with gray, in silence.

    Whatever is put behind the frame's bytes is read as part of the picture where some of it is missing, and skipped
    where all of it is there.
    """
    body = codestream.data[: -len(END)].rstrip(b"\xff")  # what follows FF would be a marker
    for filler in _FILLERS if codestream.missing_end else _FILLERS[:1]:
        if not np.array_equal(_first(replace(codestream, data=body + filler + END), syntax), samples):
            raise DicomError("undecodable-pixels", "a compressed frame is cut off: pixels at its end are missing")


def _compare(samples: np.ndarray, other: np.ndarray | None, codestream: Codestream) -> None:
    """Raise DicomError "decoders-disagree" where two decoders gave different pictures."""
    clause = f"; it {codestream.fault}" if codestream.fault else ""
    if other is None:
        if codestream.fault:
            text = f"a compressed frame {codestream.fault}, and no second decoder can confirm what it holds"
            raise DicomError("undecodable-pixels", text, _RESEND)
        return
    if other.shape != samples.shape:
        raise DicomError("decoders-disagree", f"two decoders give a frame different shapes{clause}", _RESEND)
    if codestream.lossy:  # rounding of the transforms is not standardised
        scale = 1 << max(codestream.precision - 8, 0)
        agrees = float(np.abs(samples.astype(np.int32) - other).mean()) <= scale
    else:
        agrees = np.array_equal(samples, other)
    if not agrees:
        raise DicomError("decoders-disagree", f"two decoders give a frame different pixels{clause}", _RESEND)


def _remember(kind: tuple) -> None:
    _agreed[kind] = None
    while len(_agreed) > _KNOWN:
        _agreed.popitem(last=False)


def _as_rgb(samples: np.ndarray, codestream: Codestream, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
    """Colour samples as RGB (PS3.5 8.2; Planar Configuration does not count in compressed data, 8.2.4)."""
    if codestream.signed:
        raise DicomError("undecodable-pixels", "the components of a colour frame are signed")
    if syntax.codec != "jpeg-2000":
        colour = colour_of(codestream, facts.photometric)
    elif facts.photometric in ("YBR_RCT", "YBR_ICT"):
        if not codestream.transformed:
            raise _unclear_transform("the header says that its components were transformed, the codestream that not")
        colour = RGB
    elif facts.photometric == RGB:
        colour = RGB  # encoders transform it and leave the label; the transform is undone
    elif codestream.transformed:
        raise _unclear_transform("the header says YBR_FULL, the codestream that RGB components were transformed")
    elif facts.photometric in ("YBR_FULL", "YBR_FULL_422"):
        colour = "YBR_FULL"
    else:
        raise DicomError("undecodable-pixels", "a compressed colour frame cannot be turned into RGB")
    if colour == RGB:
        return samples
    return convert_color_space(samples, "YBR_FULL", "RGB")


def _unclear_transform(why: str) -> DicomError:
    return DicomError(
        "unclear-colour",
        f"the colours of a JPEG 2000 frame cannot be told: {why}",
        "correct Photometric Interpretation (0028,0004) at the source, or send the image uncompressed",
    )


def _numbers(samples: np.ndarray, codestream: Codestream, facts: FrameFacts) -> np.ndarray:
    """Gray samples with the sign that the header gives them.

    JPEG-LS knows no sign, and JPEG 2000's own may not be that of Pixel Representation (0028,0103). Then the number is
    the two's complement in its bits: those of the codestream's precision, and those of Bits Stored. Where these two
    readings differ, no one can tell.

    Raises
    ------
    DicomError
        "unclear-sign".
    """
    wide = samples.astype(np.int32)
    if codestream.signed == facts.signed:
        return wide
    by_precision, by_header = (_wrapped(wide, bits, facts.signed) for bits in (codestream.precision, facts.bits_stored))
    if not np.array_equal(by_precision, by_header):
        raise DicomError(
            "unclear-sign",
            f"whether pixels are negative cannot be told: Pixel Representation and the codestream differ, which has "
            f"{codestream.precision} bits where Bits Stored is {facts.bits_stored}",
            "correct Bits Stored (0028,0101) or Pixel Representation (0028,0103) at the source",
        )
    return by_precision


def _wrapped(numbers: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    low = numbers & ((1 << bits) - 1)
    return (low ^ (1 << (bits - 1))) - (1 << (bits - 1)) if signed else low


def _decode_rle(frame: bytes, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
    with foreign_errors("undecodable-pixels", "the pixel data cannot be decoded"):
        samples = decoders.first_of_rle(frame, facts)
    kind = (syntax.uid, facts)
    if (facts.samples == 3 or facts.signed) and kind not in _agreed:
        with foreign_errors("decoders-disagree", "a second decoder does not decode a compressed frame", _RESEND):
            other = decoders.second_of_rle(frame, facts)
        if not np.array_equal(samples, other):
            raise DicomError("decoders-disagree", "two decoders give a frame different pixels", _RESEND)
        _remember(kind)
    if facts.samples == 3 and facts.photometric != RGB:
        if facts.photometric != "YBR_FULL":
            raise DicomError("undecodable-pixels", "a compressed colour frame cannot be turned into RGB")
        samples = convert_color_space(samples, "YBR_FULL", "RGB")
    return samples.astype(container_of(facts).newbyteorder("="), copy=False)
