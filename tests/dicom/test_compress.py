"""A marked copy in every lossless syntax: the same pixels to every reader, or "not-exact"."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.encaps import parse_basic_offsets

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    LOSSLESS_NAMES,
    RLE_LOSSLESS,
)
from gateway.dicom.pixels import encoders
from gateway.dicom.pixels.compress import recode
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import CapacityError, DicomError, TransientError
from gateway.protect.recoding import recoded
from gateway.restore import CopyRestorer
from tests.conftest import missing
from tests.support.copies import Gateway
from tests.support.dicom.readers import dciodvfy_errors, dcmtk_reads, gdcm_pixels, missing_programs
from tests.support.dicom.samples import encode, image, present

GATEWAY = Gateway()
COMPRESSED = (HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, RLE_LOSSLESS)
_rng = np.random.default_rng(11)
_waves = np.cumsum(_rng.integers(-9, 10, (2, 40, 47)), axis=2)


def gray(bits: int, kind: str, **changes: object) -> pydicom.Dataset:
    """Two frames of odd width that use the whole range of `bits` stored bits."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "i" else (0, (1 << bits) - 1)
    frames = np.clip(_waves + (low + high) // 2, low, high)
    frames[0, 0, :2] = low, high
    return image(frames.astype(kind), BitsStored=bits, **changes)


KINDS = {
    "8 bits": gray(8, "u1"),
    "8 bits signed": gray(8, "i1"),
    "5 of 8 bits": gray(5, "u1"),
    "6 of 16 bits": gray(6, "u2"),
    "6 of 16 bits signed": gray(6, "i2"),
    "10 of 16 bits": gray(10, "u2"),
    "12 of 16 bits": gray(12, "u2"),
    "12 of 16 bits signed": gray(12, "i2"),
    "13 of 16 bits signed": gray(13, "i2"),
    "16 bits": gray(16, "u2"),
    "16 bits signed": gray(16, "i2"),
    "MONOCHROME1": gray(12, "u2", PhotometricInterpretation="MONOCHROME1"),
    "noise of 16 bits signed": image(_rng.integers(-32768, 32768, (1, 40, 47)).astype("i2")),
    "RGB": image(_rng.integers(0, 256, (2, 40, 47, 3)).astype("u1")),
    "RGB of 16 bits": image(_rng.integers(0, 65536, (1, 40, 47, 3)).astype("u2")),
}


def as_file(data: bytes, syntax: str) -> io.BytesIO:
    file = io.BytesIO()
    write_part10(file, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", syntax, [data])
    file.seek(0)
    return file


def code_of(data: bytes, syntax: str) -> str:
    with pytest.raises(DicomError) as caught:
        recode(data, syntax)
    return caught.value.code


@pytest.mark.parametrize("syntax", LOSSLESS_NAMES.values(), ids=LOSSLESS_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pixels_comes_out_exact(kind, syntax):
    data = encode(KINDS[kind])
    wanted = decode_pixels(data, EXPLICIT_LITTLE)
    recoded = recode(data, syntax)
    assert recode(data, syntax) == recoded  # the same bytes each time
    ours = decode_pixels(recoded, syntax)
    assert np.array_equal(ours.frames, wanted.frames) and ours.frames.dtype == wanted.frames.dtype
    theirs = pydicom.dcmread(as_file(recoded, syntax))
    assert np.array_equal(theirs.pixel_array.reshape(wanted.frames.shape), wanted.frames)


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize("kind", ["12 of 16 bits signed", "RGB"])
def test_only_what_says_how_the_pixels_are_encoded_changes(kind, syntax):
    ds = KINDS[kind].copy()
    ds.LossyImageCompression = "01"
    ds.add_new(0x00090010, "LO", "SOMEBODY")
    ds.add_new(0x00091001, "OB", b"\1\2\3\4")
    ds.add_new(0xFFFCFFFC, "OB", bytes(6))
    before = pydicom.dcmread(as_file(encode(ds), EXPLICIT_LITTLE))
    after = pydicom.dcmread(as_file(recode(encode(ds), syntax), syntax))
    encoded = {
        HTJ2K_LOSSLESS: ("YBR_RCT", 0),
        JPEG_2000_LOSSLESS: ("YBR_RCT", 0),
        JPEG_LS_LOSSLESS: ("RGB", 0),
        RLE_LOSSLESS: ("RGB", 1),
    }
    if kind == "RGB":
        assert (after.PhotometricInterpretation, after.PlanarConfiguration) == encoded[syntax]
    same = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration"} if kind == "RGB" else {"PixelData"}
    for element in before:
        if element.keyword not in same:
            assert after[element.tag] == element
    assert after.LossyImageCompression == "01" and list(after.keys()) == list(before.keys())
    assert after["PixelData"].VR == "OB" and after["PixelData"].is_undefined_length
    assert len(parse_basic_offsets(after.PixelData)) == 2


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_old_overlays_in_unused_bits_stay_or_the_syntax_is_refused(syntax):
    data = encode(image(_rng.integers(0, 65536, (1, 40, 48)).astype("u2"), BitsStored=12))
    if syntax != RLE_LOSSLESS:
        with pytest.raises(DicomError) as caught:
            recode(data, syntax)
        assert caught.value.code == "not-exact" and "are in use" in caught.value.message  # told before it is encoded
        return
    before, after = decode_pixels(data, EXPLICIT_LITTLE), decode_pixels(recode(data, syntax), syntax)
    assert np.array_equal(after.containers(after.frames), before.containers(before.frames))


def test_what_no_encoder_takes_is_not_exact():
    planar = image(_rng.integers(0, 256, (1, 40, 48, 3)).astype("u1"), PlanarConfiguration=1)
    full = image(_rng.integers(0, 256, (1, 40, 48, 3)).astype("u1"), PhotometricInterpretation="YBR_FULL")
    tiny = image(np.zeros((1, 1, 1), "u1"))
    for syntax in COMPRESSED:
        assert code_of(encode(planar), syntax) == code_of(encode(full), syntax) == "not-exact"
    assert code_of(encode(tiny), JPEG_LS_LOSSLESS) == code_of(encode(tiny), JPEG_2000_LOSSLESS) == "not-exact"
    assert code_of(encode(image()), EXPLICIT_BIG) == "no-encoder"
    assert code_of(encode(image(PixelData=None, Rows=None, Columns=None)), JPEG_LS_LOSSLESS) == "no-pixels"


def test_what_is_too_large_to_be_compared_is_not_encoded(monkeypatch):
    monkeypatch.setattr("gateway.dicom.pixels.compress.MAX_PIXEL_BYTES", 1000)
    assert code_of(encode(KINDS["8 bits"]), JPEG_LS_LOSSLESS) == "not-exact"
    assert recode(encode(KINDS["8 bits"]), IMPLICIT_LITTLE) == encode(KINDS["8 bits"], IMPLICIT_LITTLE)


def test_an_encoder_that_does_not_keep_its_word_is_found_out(codecs_here, monkeypatch):
    """A value off by one, colours turned otherwise than the header says, bytes that decode to nothing."""
    data, colour = encode(KINDS["12 of 16 bits"]), encode(KINDS["RGB"])
    honest = encoders.htj2k_encode
    monkeypatch.setattr(encoders, "htj2k_encode", lambda frame, **how: honest(frame ^ (frame == frame.max()), **how))
    assert code_of(data, HTJ2K_LOSSLESS) == "not-exact"
    monkeypatch.setattr(encoders, "htj2k_encode", lambda frame, **how: honest(frame, rgb=False, **how))
    assert code_of(colour, HTJ2K_LOSSLESS) == "not-exact"
    monkeypatch.setattr(encoders, "htj2k_encode", lambda frame, **how: honest(frame, **how)[:60])
    assert code_of(data, HTJ2K_LOSSLESS) == "not-exact"


@pytest.mark.parametrize("syntax", LOSSLESS_NAMES.values(), ids=LOSSLESS_NAMES)
@pytest.mark.parametrize("kind", ["12 of 16 bits signed", "6 of 16 bits", "RGB", "RGB of 16 bits"])
def test_the_original_comes_back_out_of_the_copy_in_every_syntax(kind, syntax):
    original = encode(KINDS[kind])
    copy = recode(GATEWAY.copy(original, EXPLICIT_LITTLE), syntax)
    with CopyRestorer(GATEWAY.opening).by_copy(io.BytesIO(copy), syntax) as restored:
        restored.verify()
        assert b"".join(restored.stream()) == original


DCMTK = {JPEG_LS_LOSSLESS: "dcmdjpls", RLE_LOSSLESS: "dcmdrle"}


@pytest.mark.peers
@pytest.mark.parametrize("syntax", LOSSLESS_NAMES.values(), ids=LOSSLESS_NAMES)
def test_foreign_programs_read_what_was_encoded(miad_data, tmp_path, syntax, subtests):
    """DCMTK, GDCM and dciodvfy, where they know the syntax; the encoders are others than those that decode here."""
    if absent := missing_programs():
        missing(", ".join(absent))
    for one in present(miad_data, ["series_ct_head_ge/12.dcm", "pydicom-data/SC_rgb_expb.dcm"]):
        with subtests.test(file=one.row["file"]):
            foreign_programs_read(one, syntax, tmp_path)


def foreign_programs_read(one, syntax, tmp_path):
    copy = GATEWAY.copy(*one.read())
    sop_class = read_header(io.BytesIO(copy), EXPLICIT_LITTLE).sop_class_uid
    native, path = tmp_path / "native.dcm", tmp_path / "recoded.dcm"
    for file, kind, data in ((native, EXPLICIT_LITTLE, copy), (path, syntax, recode(copy, syntax))):
        with file.open("wb") as out:
            write_part10(out, sop_class, "2.25.1001", kind, [data])
    assert dcmtk_reads(path)
    assert read_block(pydicom.dcmread(path)) == read_block(pydicom.dcmread(native))
    if syntax != HTJ2K_LOSSLESS:  # which this GDCM and this dciodvfy do not know
        assert gdcm_pixels(path) == pydicom.dcmread(native).PixelData
        assert not dciodvfy_errors(path) - dciodvfy_errors(native)
    if syntax in DCMTK:
        subprocess.run([DCMTK[syntax], path, tmp_path / "out.dcm"], check=True, capture_output=True)
        back = pydicom.dcmread(tmp_path / "out.dcm")
        assert np.array_equal(back.pixel_array, pydicom.dcmread(native).pixel_array)


def test_an_encoder_that_is_given_up_leaves_room_for_another_syntax(monkeypatch):
    data = encode(KINDS["12 of 16 bits"])

    def given_up(*_: object) -> bytes:
        raise DicomError("codec-timeout", "a compressed frame took more than 2.0 s and was given up")

    monkeypatch.setattr("gateway.dicom.pixels.compress.encode_frame", given_up)
    assert code_of(data, RLE_LOSSLESS) == "not-exact"


def test_a_machine_that_starts_no_encoder_is_tried_again_later(monkeypatch):
    def none(*_: object) -> bytes:
        raise CapacityError("codec-start", "the process that decodes compressed frames does not start")

    monkeypatch.setattr("gateway.dicom.pixels.compress.encode_frame", none)
    data = encode(KINDS["12 of 16 bits"])
    with pytest.raises(TransientError) as caught:
        recoded(lambda: io.BytesIO(data), EXPLICIT_LITTLE, RLE_LOSSLESS)
    assert caught.value.code == "codec-start"
