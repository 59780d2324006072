"""Colour of compressed images: right, or held, whatever header and codestream say of it."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS
from gateway.dicom.pixels import decoders, decoding
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.compressed import (
    JFIF,
    JPEG_BASELINE,
    LOSSLESS,
    adobe,
    identified,
    jpeg_frame,
    lossless_frame,
    marked,
    picture,
    wrapped,
)
from tests.support.dicom.samples import facts, image, slightly_changed

TRUTH = picture()
RGB, YCC = jpeg_frame(TRUTH, samples="RGB"), jpeg_frame(TRUTH, samples="YBR")
SUBSAMPLED = jpeg_frame(TRUTH, samples="YBR", subsampling="422")


def decoded(frame: bytes, syntax: str, **changes: object) -> np.ndarray:
    return decode_pixels(wrapped(image(TRUTH[None]), frame, **changes), syntax).frames[0]


def code_of(frame: bytes, syntax: str, **changes: object) -> str:
    with pytest.raises(DicomError) as caught:
        decoded(frame, syntax, **changes)
    return caught.value.code


def error_of(frames: np.ndarray) -> float:
    return float(np.abs(frames.astype(int) - TRUTH).mean())


@pytest.mark.parametrize("planar", [0, 1, 2, None])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_planar_configuration_does_not_count_in_compressed_data(syntax, planar):
    """PS3.5 8.2.4; the copy has its colours by pixel and says so."""
    label = "YBR_RCT" if syntax in (JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS) else "RGB"
    ds = image(TRUTH[None], PhotometricInterpretation=label, PlanarConfiguration=planar)
    data = wrapped(ds, lossless_frame(TRUTH, syntax))
    pixels = decode_pixels(data, syntax)
    assert np.array_equal(pixels.frames[0], TRUTH)
    marked_frames = slightly_changed(pixels.frames, pixels.limits)
    copy = derive(data, syntax, marked_frames, facts(), pixels)
    assert np.array_equal(decode_pixels(copy, EXPLICIT_LITTLE).frames, marked_frames)


@pytest.mark.parametrize("planar", [0, 1])
def test_planar_configuration_does_not_count_in_jpeg(planar):
    assert error_of(decoded(YCC, JPEG_BASELINE, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=planar)) < 2


# What lies in the frame is named first; then every way to say so, and the label that says otherwise.
@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(marked(YCC, adobe(1)), id="YBR by Adobe"),
        pytest.param(marked(YCC, JFIF, adobe(1)), id="YBR by both markers"),
        pytest.param(SUBSAMPLED, id="YBR by sampling"),
        pytest.param(marked(SUBSAMPLED, JFIF), id="YBR by sampling and JFIF"),
        pytest.param(marked(RGB, adobe(0)), id="RGB by Adobe"),
        pytest.param(identified(RGB, b"RGB"), id="RGB by identifiers"),
        pytest.param(identified(RGB, b"rgb"), id="RGB by small identifiers"),
        pytest.param(marked(identified(RGB, b"RGB"), adobe(0)), id="RGB by Adobe and identifiers"),
    ],
)
def test_what_a_jpeg_frame_plainly_says_counts_more_than_its_label(frame, label):
    assert error_of(decoded(frame, JPEG_BASELINE, PhotometricInterpretation=label)) < 4


@pytest.mark.parametrize(
    ("frame", "label"),
    [
        (marked(YCC, JFIF), "RGB"),
        (marked(RGB, JFIF), "RGB"),  # the same markers, the same label: no one can tell the two apart
        (marked(SUBSAMPLED, adobe(0)), "RGB"),
        (marked(SUBSAMPLED, adobe(0)), "YBR_FULL"),
        (marked(identified(RGB, b"RGB"), adobe(1)), "RGB"),
        (marked(RGB, JFIF, adobe(0)), "YBR_FULL"),
    ],
)
def test_what_cannot_be_told_is_held(frame, label):
    assert code_of(frame, JPEG_BASELINE, PhotometricInterpretation=label) == "unclear-colour"


@pytest.mark.parametrize(("frame", "label"), [(RGB, "RGB"), (YCC, "YBR_FULL"), (marked(RGB, JFIF, adobe(0)), "RGB")])
def test_a_label_counts_where_nothing_speaks_against_it(frame, label):
    assert error_of(decoded(frame, JPEG_BASELINE, PhotometricInterpretation=label)) < 3


def test_jpeg_ls_and_jpeg_2000_that_contradict_their_label():
    ls = lossless_frame(TRUTH, JPEG_LS_LOSSLESS)
    assert np.array_equal(
        decoded(ls, JPEG_LS_LOSSLESS, PhotometricInterpretation="YBR_FULL"),
        convert_color_space(TRUTH, "YBR_FULL", "RGB"),
    )
    assert code_of(marked(ls, JFIF), JPEG_LS_LOSSLESS) == "unclear-colour"
    assert code_of(ls, JPEG_LS_LOSSLESS, PhotometricInterpretation="YBR_RCT") == "undecodable-pixels"
    j2k = lossless_frame(TRUTH, JPEG_2000_LOSSLESS)
    assert np.array_equal(decoded(j2k, JPEG_2000_LOSSLESS), TRUTH)  # labelled RGB: the transform is undone
    assert code_of(j2k, JPEG_2000_LOSSLESS, PhotometricInterpretation="YBR_FULL") == "unclear-colour"


def test_a_decoder_that_turns_colours_is_found_out(codecs_here, monkeypatch):
    """The second decoder is asked once for each kind of frame, and is heard."""
    monkeypatch.setattr(decoding, "_agreed", type(decoding._agreed)())
    honest, asked = decoders.first, []
    monkeypatch.setattr(decoders, "second", lambda *given, second=decoders.second: asked.append(1) or second(*given))
    for syntax in (JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, HTJ2K_LOSSLESS, JPEG_BASELINE):
        label = "YBR_FULL" if syntax == JPEG_BASELINE else "RGB"
        frame = YCC if syntax == JPEG_BASELINE else lossless_frame(TRUTH, syntax)
        asked.clear()
        monkeypatch.setattr(decoders, "first", lambda *given: honest(*given)[..., ::-1])
        assert code_of(frame, syntax, PhotometricInterpretation=label) == "decoders-disagree"
        monkeypatch.setattr(decoders, "first", honest)
        for _ in range(3):
            decoded(frame, syntax, PhotometricInterpretation=label)
        assert len(asked) == 2


@pytest.mark.parametrize("precision", [12, 16])
def test_a_sign_that_header_and_codestream_do_not_share(precision):
    """JPEG-LS has none, a JPEG 2000 codestream may have another: two's complement in Bits Stored, or held."""
    numbers = np.random.default_rng(3).integers(-1000, 1000, (1, 64, 48)).astype(np.int16)
    unsigned = (numbers[0].view(np.uint16) & ((1 << precision) - 1)).astype(np.uint16)
    for syntax in (JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS):
        frame = lossless_frame(unsigned, syntax, BitsStored=precision)
        data = wrapped(image(numbers, BitsStored=precision), frame)
        assert np.array_equal(decode_pixels(data, syntax).frames, numbers)
    frame = lossless_frame((numbers[0] & 0xFFF).astype(np.uint16), JPEG_LS_LOSSLESS, BitsStored=12)
    with pytest.raises(DicomError) as caught:
        decode_pixels(wrapped(image(numbers, BitsStored=16), frame), JPEG_LS_LOSSLESS)
    assert caught.value.code == "unclear-sign"
    positive = np.abs(numbers)
    frame = lossless_frame(positive[0].astype(np.uint16), JPEG_LS_LOSSLESS, BitsStored=12)
    assert np.array_equal(
        decode_pixels(wrapped(image(positive, BitsStored=16), frame), JPEG_LS_LOSSLESS).frames, positive
    )
