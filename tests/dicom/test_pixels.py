"""Stored values out of every encoding, and back into their containers."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.dicom.pixels.windows import Window
from gateway.errors import DicomError
from tests.support.dicom.samples import corpus, encode, image, present

RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
J2K = "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"

# Every file with pixels that is not decoded here; the rest of index.csv must be.
NOT_DECODED = {
    "cornerstone/CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "unsupported-transfer-syntax",
    "cornerstone/CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": "unsupported-transfer-syntax",
    "nibabel/decimal_rescale.dcm": "missing-uid",
    "pydicom/JPEGLSNearLossless_08.dcm": "missing-uid",
    "pydicom/SC_rgb_jls_lossy_line.dcm": "missing-uid",
    "pydicom/SC_rgb_rle_32bit_2frame.dcm": "thirty-two-bit-pixels",
    "pydicom/examples_palette.dcm": "palette-colour",
    "pydicom/liver_1frame.dcm": "one-bit-pixels",
    "pydicom/liver_expb_1frame.dcm": "one-bit-pixels",
    "pydicom/nested_priv_SQ.dcm": "missing-uid",
    "pydicom/rtdose.dcm": "thirty-two-bit-pixels",
    "pydicom/rtdose_1frame.dcm": "thirty-two-bit-pixels",
    "pydicom/rtdose_expb.dcm": "thirty-two-bit-pixels",
    "pydicom/rtdose_expb_1frame.dcm": "thirty-two-bit-pixels",
    "pydicom/rtdose_rle.dcm": "thirty-two-bit-pixels",
    "pydicom/rtdose_rle_1frame.dcm": "thirty-two-bit-pixels",
    "pydicom-data/HTJ2KLossless_08_RGB.dcm": "missing-uid",
    "pydicom-data/JLSL_08_07_0_1F.dcm": "missing-uid",
    "pydicom-data/JLSL_16_15_1_1F.dcm": "missing-uid",
    "pydicom-data/JLSL_RGB_ILV0.dcm": "missing-uid",
    "pydicom-data/JLSL_RGB_ILV2.dcm": "missing-uid",
    "pydicom-data/OBXXXX1A.dcm": "palette-colour",
    "pydicom-data/OBXXXX1A_rle_2frame.dcm": "palette-colour",
    "pydicom-data/OT-PAL-8-face.dcm": "palette-colour",
    "pydicom-data/SC_rgb_32bit.dcm": "thirty-two-bit-pixels",
    "pydicom-data/SC_rgb_expb_32bit.dcm": "thirty-two-bit-pixels",
    "pydicom-data/gdcm-US-ALOKA-16.dcm": "palette-colour",
    "pydicom-data/liver.dcm": "one-bit-pixels",
    "pydicom-data/liver_deflate.dcm": "one-bit-pixels",
    "pydicom-data/liver_j2k.dcm": "one-bit-pixels",
    "pydicom-data/liver_nonbyte_aligned.dcm": "one-bit-pixels",
    "pydicom-data/liver_nonbyte_aligned_j2k.dcm": "one-bit-pixels",
    "pydicom-data/liver_rle.dcm": "one-bit-pixels",
    "pydicom-data/parametric_map_float.dcm": "float-pixels",
}


def code_of(data: bytes, syntax: str = EXPLICIT_LITTLE) -> str:
    with pytest.raises(DicomError) as caught:
        decode_pixels(data, syntax)
    return caught.value.code


def test_the_corpus_decodes_as_pydicom_decodes_it(miad_data):
    wrong = {}
    for one in corpus(miad_data):
        name = one.row["file"]
        data, syntax = one.read()
        try:
            pixels = decode_pixels(data, syntax)
        except DicomError as error:
            expected = "no pixel data" if error.code in ("no-pixels", "not-dicom") else NOT_DECODED.get(name)
            if error.code != expected and one.row["decode_check"] != expected:
                wrong[name] = error.code
            continue
        if name in NOT_DECODED or pixels.frames.dtype not in (np.uint8, np.uint16, np.int16):
            wrong[name] = "decoded"
        if int(one.row["bytes"]) > 200_000 or name.startswith("series_") or name == "pydicom/JPEG-lossy.dcm":
            continue  # for time (`python -m tests.support.dicom.roundtrip` takes all); pydicom does not decode the last
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pydicom.dcmread(one.path).pixel_array.reshape(pixels.frames.shape)
        # pydicom may take another JPEG decoder here; those round otherwise, most in chroma
        allowed = 3 if syntax.endswith((".4.50", ".4.51")) else 0
        if name in NOT_DECODED or np.abs(theirs.astype(int) - pixels.frames).max() > allowed:
            wrong[name] = "differs"
        if np.dtype(pixels.frames.dtype) not in (np.uint8, np.uint16, np.int16) or (
            pixels.reserved and pixels.padding is None
        ):
            wrong[name] = "type"
    assert not wrong


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_native_frames(syntax, kind):
    frames = np.random.default_rng(1).integers(0, 255, (2, 5, 7)).astype(kind) - (100 if kind == "i2" else 0)
    ds = image(frames)
    data = encode(ds, syntax)
    if syntax == EXPLICIT_BIG and kind != "u1":  # pydicom writes bytes as they are given
        ds.PixelData = frames.astype(">" + kind).tobytes()
        data = encode(ds, syntax)
    pixels = decode_pixels(data, syntax)
    assert np.array_equal(pixels.frames, frames) and pixels.frames.dtype == frames.dtype
    assert pixels.raw is None and pixels.padding is None and not pixels.lossy


def test_eight_bit_pixels_in_big_endian_words():
    frames = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    ds = image(frames)
    ds["PixelData"].VR = "OW"
    ds.PixelData = frames.reshape(-1, 2)[:, ::-1].tobytes()
    assert np.array_equal(decode_pixels(encode(ds, EXPLICIT_BIG), EXPLICIT_BIG).frames, frames)


def test_a_stream_is_as_good_as_bytes():
    data = encode(image())
    assert np.array_equal(
        decode_pixels(io.BytesIO(data), EXPLICIT_LITTLE).frames, decode_pixels(data, EXPLICIT_LITTLE).frames
    )


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_unused_bits_stay(signed, shift):
    rng = np.random.default_rng(2)
    containers = rng.integers(0, 65536, (1, 9, 11)).astype(np.uint16)
    ds = image(containers, BitsStored=12, HighBit=11 + shift, PixelRepresentation=int(signed))
    pixels = decode_pixels(encode(ds), EXPLICIT_LITTLE)
    low, high = pixels.limits
    assert (low, high) == ((-2048, 2047) if signed else (0, 4095))
    assert pixels.frames.dtype == (np.int16 if signed else np.uint16)
    assert low <= pixels.frames.min() and pixels.frames.max() <= high
    assert np.array_equal(pixels.containers(pixels.frames), containers)
    marked = pixels.frames.copy()
    marked[0, 3, 3] = low
    changed = pixels.containers(marked) ^ containers
    field = 0x0FFF << shift
    assert not (changed & ~np.uint16(field)).any() and np.count_nonzero(changed) <= 1
    ds.PixelData = pixels.containers(marked).tobytes()
    assert np.array_equal(decode_pixels(encode(ds), EXPLICIT_LITTLE).frames, marked)


def test_the_sign_fills_the_unused_bits_where_it_did():
    frames = np.array([[[-5, 7], [2047, -2048]]], np.int16)
    pixels = decode_pixels(encode(image(frames, BitsStored=12)), EXPLICIT_LITTLE)
    assert pixels.raw is None and np.array_equal(pixels.frames, frames)
    assert np.array_equal(pixels.containers(-pixels.frames - 1).view(np.int16), -frames - 1)


def test_overlay_bits_survive_rle():
    containers = np.random.default_rng(3).integers(0, 65536, (1, 8, 8)).astype(np.uint16)
    ds = image(containers, BitsStored=12)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    ds.compress(RLE, generate_instance_uid=False)
    pixels = decode_pixels(encode(ds), RLE)
    assert np.array_equal(pixels.containers(pixels.frames), containers)


def test_frames_that_do_not_fit_are_refused():
    pixels = decode_pixels(encode(image(BitsStored=12)), EXPLICIT_LITTLE)
    for bad in (pixels.frames[0], pixels.frames.astype(np.int16), pixels.frames + np.uint16(4090)):
        with pytest.raises(DicomError) as caught:
            pixels.containers(bad)
        assert caught.value.code == "wrong-marked-frames"


def test_colour():
    rgb = np.random.default_rng(4).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    by_plane = image(rgb, PlanarConfiguration=1)
    by_plane.PixelData = rgb.transpose(0, 3, 1, 2).tobytes()
    for ds in (image(rgb), by_plane):
        pixels = decode_pixels(encode(ds), EXPLICIT_LITTLE)
        assert np.array_equal(pixels.frames, rgb) and pixels.photometric == "RGB"
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    full = decode_pixels(encode(image(ybr, PhotometricInterpretation="YBR_FULL")), EXPLICIT_LITTLE)
    assert full.photometric == "RGB" and np.abs(full.frames.astype(int) - rgb).max() <= 2
    halved = np.stack([ybr[:, :, ::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]], axis=-1)
    ds = image(ybr, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = halved.tobytes()
    shared = decode_pixels(encode(ds), EXPLICIT_LITTLE)
    assert shared.photometric == "RGB"
    assert np.abs(shared.frames[:, :, ::2].astype(int) - rgb[:, :, ::2]).max() <= 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette-colour"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported-photometric"),
        ({"PhotometricInterpretation": "RGB"}, "unsupported-photometric"),
        ({"BitsStored": 17}, "unsupported-bits"),
        ({"BitsStored": 12, "HighBit": 7}, "unsupported-bits"),
        ({"BitsStored": 12, "HighBit": 20}, "unsupported-bits"),
        ({"Rows": 0}, "no-pixels"),
        ({"PixelData": None}, "no-pixels"),
        ({"Rows": 60}, "pixel-data-too-short"),
    ],
)
def test_what_cannot_be_marked(changes, code):
    assert code_of(encode(image(**changes))) == code


def test_pixels_that_are_no_small_integers():
    ds = image(BitsAllocated=32, BitsStored=32, HighBit=31, Rows=3)
    assert code_of(encode(ds)) == "thirty-two-bit-pixels"
    ds = image(BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=bytes(6))
    assert code_of(encode(ds)) == "one-bit-pixels"
    ds = image(PixelData=None, BitsAllocated=32)
    ds.FloatPixelData = np.zeros(48, "<f4").tobytes()
    assert code_of(encode(ds)) == "float-pixels"
    ds = image()
    ds.ModalityLUTSequence = [pydicom.Dataset()]
    assert code_of(encode(ds)) == "modality-lut"


def test_padding():
    frames = np.array([[[-2000, -1500, 0], [5, -1999, 60]]], np.int16)
    ds = image(frames)
    assert decode_pixels(encode(ds), EXPLICIT_LITTLE).padding is None
    ds.add_new(0x00280120, "SS", -2000)
    pixels = decode_pixels(encode(ds), EXPLICIT_LITTLE)
    assert pixels.reserved == ((-2000, -2000),) and pixels.padding.sum() == 1
    ds.add_new(0x00280121, "SS", -1500)
    pixels = decode_pixels(encode(ds), EXPLICIT_LITTLE)
    assert pixels.reserved == ((-2000, -1500),) and pixels.padding.sum() == 3
    ds.add_new(0x00280120, "US", 63536)  # -2000 written as unsigned, as many do
    assert decode_pixels(encode(ds), EXPLICIT_LITTLE).padding.sum() == 3


def test_windows_in_stored_values():
    ds = image(WindowCenter=[40, 300], WindowWidth=[400, 1500], RescaleSlope=2, RescaleIntercept=-1024)
    pixels = decode_pixels(encode(ds), EXPLICIT_LITTLE)
    assert pixels.displays[0].windows == (Window(40, 400), Window(300, 1500))
    # PS3.3 C.11.2.1.2.1: 40 - 0.5 -+ 399 / 2 = -160 and 239 in output units
    assert pixels.displays[0].primary == ((-160 + 1024) / 2, (239 + 1024) / 2)
    assert (pixels.displays[0].slope, pixels.displays[0].intercept, pixels.displays[0].inverted) == (2, -1024, False)
    ds.VOILUTFunction = "LINEAR_EXACT"
    assert decode_pixels(encode(ds), EXPLICIT_LITTLE).displays[0].primary == ((-160 + 1024) / 2, (240 + 1024) / 2)
    ds.RescaleSlope = -2
    low, high = decode_pixels(encode(ds), EXPLICIT_LITTLE).displays[0].primary
    assert low < high
    for broken in ({"WindowWidth": 0}, {"WindowWidth": None}, {"WindowCenter": "x"}, {"VOILUTFunction": "CUBIC"}):
        given = {"WindowCenter": 40, "WindowWidth": 400} | broken
        given = {key: value for key, value in given.items() if value is not None}
        data = encode(image(**{k: v for k, v in given.items() if v != "x"}))
        assert decode_pixels(data, EXPLICIT_LITTLE).displays[0].primary is None
    assert decode_pixels(encode(image(PhotometricInterpretation="MONOCHROME1")), EXPLICIT_LITTLE).displays[0].inverted
    assert decode_pixels(encode(image(PresentationLUTShape="INVERSE")), EXPLICIT_LITTLE).displays[0].inverted


def test_a_table_instead_of_a_window():
    table = pydicom.Dataset()
    table.add_new(0x00283002, "US", [1000, 200, 16])
    ds = image()
    ds.VOILUTSequence = [table]
    assert decode_pixels(encode(ds), EXPLICIT_LITTLE).displays[0].primary == (200, 1199)


def _with_uids(path) -> bytes:
    ds = pydicom.dcmread(path, force=True)
    for keyword in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not ds.get(keyword):
            setattr(ds, keyword, "1.2.3")
    return encode(ds)


def test_syntaxes_whose_samples_lack_uids(miad_data, subtests):
    lacking = {
        "pydicom-data/JLSL_08_07_0_1F.dcm": (JPEG_LS, np.uint8),
        "pydicom-data/JLSL_16_15_1_1F.dcm": (JPEG_LS, np.int16),
        "pydicom-data/JLSL_RGB_ILV0.dcm": (JPEG_LS, np.uint8),
        "pydicom-data/JLSL_RGB_ILV2.dcm": (JPEG_LS, np.uint8),
        "pydicom-data/HTJ2KLossless_08_RGB.dcm": (HTJ2K, np.uint8),
    }
    for one in present(miad_data, lacking):
        syntax, kind = lacking[one.row["file"]]
        with subtests.test(file=one.row["file"]):
            pixels = decode_pixels(_with_uids(one.path), syntax)
            theirs = pydicom.dcmread(one.path, force=True).pixel_array
            assert pixels.frames.dtype == kind and np.array_equal(pixels.frames[0], theirs)
            assert pixels.frames.min() >= pixels.limits[0] and pixels.frames.max() <= pixels.limits[1]


def _rle_frames(count: int) -> list[bytes]:
    """One RLE fragment a frame: one segment of literal runs (PS3.5 annex G), 8 bits, 2x4."""
    return [struct.pack("<16I", 1, 64, *[0] * 14) + bytes([7, *range(n, n + 8)]) + b"\x80" for n in range(count)]


def test_fragments_make_frames():
    frames = np.stack([np.arange(n, n + 8, dtype=np.uint8).reshape(2, 4) for n in range(3)])
    ds = image(frames)
    ds.PixelData = encapsulate(_rle_frames(3), has_bot=False)
    ds["PixelData"].is_undefined_length = True
    assert np.array_equal(decode_pixels(encode(ds), RLE).frames, frames)
    for wrong, code in ((2, "wrong-number-of-frames"), (4, "too-few-fragments")):
        ds.NumberOfFrames = wrong
        assert code_of(encode(ds), RLE) == code


def test_frames_of_several_fragments(miad_data):
    path = miad_data / "dicom" / "pydicom" / "examples_ybr_color.dcm"
    ds = pydicom.dcmread(path)
    parts = [bytes(frame) for frame in pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames)]
    whole = decode_pixels(encode(ds), ds.file_meta.TransferSyntaxUID).frames
    for has_table in (True, False):
        ds.PixelData = encapsulate(parts, fragments_per_frame=3, has_bot=has_table)
        assert np.array_equal(decode_pixels(encode(ds), ds.file_meta.TransferSyntaxUID).frames, whole)
    ds.NumberOfFrames = len(parts) - 1
    assert code_of(encode(ds), ds.file_meta.TransferSyntaxUID) == "wrong-number-of-frames"


def test_codestreams_that_lie_about_their_size_never_reach_a_decoder(miad_data):
    path = miad_data / "dicom" / "pydicom-data" / "693_J2KR.dcm"
    ds = pydicom.dcmread(path)
    frame = bytearray(next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)))
    at = frame.index(b"\xff\x51")
    frame[at + 6 : at + 14] = struct.pack(">II", 65000, 65000)
    ds.PixelData = encapsulate([bytes(frame)])
    assert code_of(encode(ds), J2K) == "undecodable-pixels"
    wrapped = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 0, b"ftyp") + bytes(64)
    ds.PixelData = encapsulate([wrapped])  # a box of length 0 never ends for pydicom's own reader
    assert code_of(encode(ds), J2K) == "undecodable-pixels"
    ds.Rows = ds.Columns = 65535
    ds.NumberOfFrames = 1
    assert code_of(encode(ds), J2K) == "pixels-too-large"


def test_a_jp2_wrapper_is_taken_off(miad_data):
    ds = pydicom.dcmread(miad_data / "dicom" / "pydicom-data" / "693_J2KR.dcm")
    whole = decode_pixels(encode(ds), J2K).frames
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    box = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + struct.pack(">I4s", len(frame) + 8, b"jp2c") + frame
    ds.PixelData = encapsulate([box])
    assert np.array_equal(decode_pixels(encode(ds), J2K).frames, whole)


def test_damaged_codestreams_are_refused(miad_data):
    rng = np.random.default_rng(5)
    names = ("pydicom/MR_small_RLE.dcm", "pydicom-data/US1_J2KR.dcm", "pydicom/JPEG2000.dcm", "pydicom/SC_rgb_jpeg.dcm")
    for one in present(miad_data, names):
        data, syntax = one.read()
        start = data.rindex(b"\xe0\x7f\x10\x00")
        for _ in range(25):
            bad = bytearray(data)
            for at in rng.integers(start + 20, min(len(data), start + 600), 6):
                bad[at] = rng.integers(0, 256)
            try:
                decode_pixels(bytes(bad), syntax)
            except DicomError:
                continue


def test_lossy_history():
    assert decode_pixels(encode(image(LossyImageCompression="01")), EXPLICIT_LITTLE).lossy
    assert not decode_pixels(encode(image(LossyImageCompression="00")), EXPLICIT_LITTLE).lossy
