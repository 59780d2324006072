"""Where a compressed frame ends: more frames than the header says, end markers that are missing, bytes behind them."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from gateway.dicom.encoding.syntaxes import HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS
from gateway.dicom.pixels import decoders
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.compressed import JPEG_BASELINE, JPEG_LOSSLESS, gray, lossless_frame, wrapped
from tests.support.dicom.samples import image

DEEP, BYTES = gray(), gray(bits=8)
FRAMES = {
    JPEG_BASELINE: bytes(imagecodecs.jpeg8_encode(BYTES, level=90)),
    JPEG_LOSSLESS: bytes(imagecodecs.jpeg8_encode(BYTES, lossless=True)),
    JPEG_LS_LOSSLESS: lossless_frame(DEEP, JPEG_LS_LOSSLESS, BitsStored=12),
    JPEG_2000_LOSSLESS: lossless_frame(DEEP, JPEG_2000_LOSSLESS, BitsStored=12),
    HTJ2K_LOSSLESS: lossless_frame(DEEP, HTJ2K_LOSSLESS, BitsStored=12),
}
NAMES = ["jpeg", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"]
every_codec = pytest.mark.parametrize("syntax", FRAMES, ids=NAMES)


def of(syntax: str):
    return image(BYTES[None]) if syntax in (JPEG_BASELINE, JPEG_LOSSLESS) else image(DEEP[None], BitsStored=12)


def decoded(frame: bytes, syntax: str) -> np.ndarray:
    return decode_pixels(wrapped(of(syntax), frame), syntax).frames


def error_of(data: bytes, syntax: str) -> DicomError:
    with pytest.raises(DicomError) as caught:
        decode_pixels(data, syntax)
    return caught.value


@every_codec
def test_more_frames_than_the_header_says(syntax):
    """In one fragment, in fragments of one frame by the offset table, with zeros between them, or without a table."""
    frame = FRAMES[syntax]
    frames = [frame + b"\0" * (len(frame) % 2)] * 3
    whole = b"".join(frames)
    third = len(frames[0]) // 3 // 2 * 2
    one_frame = {
        "one fragment": wrapped(of(syntax), whole),
        "zeros between": wrapped(of(syntax), frame + bytes(40) + frame),
        "without a table": wrapped(of(syntax), *frames, has_bot=False),
        "two of three": wrapped(of(syntax), frames[0], frames[1] + frames[2], NumberOfFrames=2),
    }
    table = bytearray(wrapped(of(syntax), *frames, has_bot=False))
    at = table.index(b"\xfe\xff\x00\xe0\0\0\0\0") + 4
    one_frame["a table of one"] = bytes(table[:at]) + b"\4\0\0\0\0\0\0\0" + bytes(table[at + 4 :])
    for name, data in one_frame.items():
        assert error_of(data, syntax).code == "wrong-number-of-frames", name
    pieces = [frame[:third], frame[third : 2 * third], frame[2 * third :]]
    assert len(decode_pixels(wrapped(of(syntax), *pieces, has_bot=False), syntax).frames) == 1


def test_more_frames_than_the_header_says_in_rle():
    frame = lossless_frame(DEEP, RLE_LOSSLESS, BitsStored=12)
    for frames in ([frame] * 3, [frame] * 2):
        assert error_of(wrapped(of(RLE_LOSSLESS), *frames), RLE_LOSSLESS).code == "wrong-number-of-frames"


@every_codec
def test_a_missing_end_marker(syntax):
    frame = FRAMES[syntax]
    assert frame[-2:] == b"\xff\xd9"
    whole = decoded(frame, syntax)
    for tail in (b"", b"\0", b"\0\0\0"):
        if syntax == JPEG_LS_LOSSLESS and tail:
            continue
        assert np.array_equal(decoded(frame[:-2] + tail, syntax), whole), tail


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_LOSSLESS, JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS])
@pytest.mark.parametrize("missing", [5, 9, 30, 200, 900])
def test_a_frame_that_is_cut_off_and_closed_again(syntax, missing):
    """The end marker is there, the pixels before it are not: libjpeg would show gray, OpenJPEG less detail."""
    frame = FRAMES[syntax][: -2 - missing] + b"\xff\xd9"
    assert error_of(wrapped(of(syntax), frame), syntax).code in ("undecodable-pixels", "decoders-disagree")


def test_a_progressive_frame_without_end_marker_is_held():
    """Further scans may have refined it: no decoder could tell."""
    buffer = io.BytesIO()
    Image.fromarray(BYTES).save(buffer, "JPEG", progressive=True, quality=90)
    frame = buffer.getvalue()
    assert decoded(frame, JPEG_BASELINE).std() > 10
    assert error_of(wrapped(of(JPEG_BASELINE), frame[:-2]), JPEG_BASELINE).code == "undecodable-pixels"


@every_codec
@pytest.mark.parametrize("missing", [3, 10, 60, 400])
def test_a_frame_that_lacks_more_than_its_end_marker(syntax, missing):
    frame = FRAMES[syntax][: -2 - missing]
    error = error_of(wrapped(of(syntax), frame), syntax)
    assert error.code in ("undecodable-pixels", "decoders-disagree") and " " in error.message


@every_codec
@pytest.mark.parametrize("tail", [b"\0" * 100, b"\xff\0", b"vendor" * 40, bytes(range(1, 250))])
def test_bytes_behind_the_end_marker(syntax, tail):
    assert np.array_equal(decoded(FRAMES[syntax] + tail, syntax), decoded(FRAMES[syntax], syntax))


@pytest.mark.parametrize("zeros", [1, 2, 5])
def test_zeros_before_the_end_marker_of_jpeg_ls(zeros):
    frame = FRAMES[JPEG_LS_LOSSLESS]
    assert np.array_equal(decoded(frame[:-2] + bytes(zeros) + frame[-2:], JPEG_LS_LOSSLESS)[0], DEEP)
    assert error_of(wrapped(of(JPEG_LS_LOSSLESS), frame[:-2] + b"\1" * zeros + frame[-2:]), JPEG_LS_LOSSLESS).code == (
        "undecodable-pixels"
    )


@every_codec
def test_an_odd_end_needs_two_decoders(syntax, codecs_here, monkeypatch):
    frame = FRAMES[syntax] + b"vendor" * 40
    honest = decoders.second
    monkeypatch.setattr(decoders, "second", lambda *given: honest(*given) ^ 1 << 5)
    assert error_of(wrapped(of(syntax), frame), syntax).code == "decoders-disagree"
    monkeypatch.setattr(decoders, "second", lambda *given: None)
    error = error_of(wrapped(of(syntax), frame), syntax)
    assert error.code == "undecodable-pixels" and "bytes behind its end marker" in error.message
