"""An original out of its marked copy alone: exact whatever happened to the copy's header and encoding, or refused."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.private import GROUP, read_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, IntegrityError, SealError, VaultError
from gateway.restore import CopyRestorer
from tests.conftest import missing
from tests.support.copies import Gateway
from tests.support.dicom import studies
from tests.support.dicom.readers import dciodvfy_errors, dcmtk_reads, gdcm_pixels, missing_programs
from tests.support.dicom.samples import corpus, encode, image, is_standin, present, sample, slightly_changed
from tests.support.examples import examples
from tests.support.network.peers import run

GATEWAY = Gateway()
JPEG_LS, JPEG_2000, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
DEFLATED, BASELINE, NEAR_LOSSLESS = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.81"
FRAMES = np.random.default_rng(3).integers(-900, 2000, (1, 40, 48)).astype(np.int16)
COLOUR = np.random.default_rng(4).integers(0, 256, (1, 40, 48, 3)).astype(np.uint8)
ORIGINALS = {
    "gray": encode(image(FRAMES)),
    "12 bits": encode(image(FRAMES, BitsStored=12)),
    "colour": encode(image(np.abs(FRAMES % 256).astype(np.uint8)[..., None].repeat(3, -1))),
    "whole": encode(image(COLOUR, PhotometricInterpretation="YBR_FULL")),  # has no residual
}


def original_of(copy: bytes, syntax: str = EXPLICIT_LITTLE, gateway: Gateway = GATEWAY) -> bytes:
    with CopyRestorer(gateway.opening).by_copy(io.BytesIO(copy), syntax) as original:
        original.verify()
        return b"".join(original.stream())


def code_of(copy: bytes, syntax: str = EXPLICIT_LITTLE, gateway: Gateway = GATEWAY, kind=DicomError) -> str:
    with pytest.raises(kind) as caught:
        original_of(copy, syntax, gateway)
    return caught.value.code


def as_file(copy: bytes, syntax: str = EXPLICIT_LITTLE) -> io.BytesIO:
    file = io.BytesIO()
    write_part10(file, "1.2.840.10008.5.1.4.1.1.2", "2.25.1001", syntax, [copy])
    file.seek(0)
    return file


def rewritten(copy: bytes, syntax: str = EXPLICIT_LITTLE, change: Callable[[Dataset], None] = lambda ds: None) -> bytes:
    """The copy as another program writes it after decoding and changing it."""
    ds = pydicom.dcmread(as_file(copy))
    change(ds)
    if UID(syntax).is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax == EXPLICIT_BIG:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, implicit_vr=syntax == IMPLICIT_LITTLE, little_endian=syntax != EXPLICIT_BIG)
    return data_set(out.getvalue())


def data_set(file: bytes) -> bytes:
    stream = io.BytesIO(file)
    _, offset = split_part10(stream)
    return file[offset:]


# -- real files ------------------------------------------------------------------------------------------------------


def test_every_file_that_can_be_marked_comes_back_bit_exact(miad_data):
    wrong, syntaxes = [], set()
    for one in corpus(miad_data):
        data, syntax = one.read()
        try:
            copy = GATEWAY.copy(data, syntax)
        except DicomError:
            continue  # the pixels cannot be marked: tests/dicom/test_pixels.py says which
        syntaxes.add(syntax)
        if original_of(copy) != data:
            wrong.append(one.row["file"])
    assert wrong == []
    assert len(syntaxes) >= (9 if is_standin(miad_data) else 12)


@pytest.mark.peers
def test_foreign_programs_take_a_copy_that_carries_its_original(miad_data, tmp_path, subtests):
    if absent := missing_programs():
        missing(", ".join(absent))
    names = ["series_ct_head_ge/12.dcm", "pydicom/693_J2KI.dcm", "pydicom-data/SC_rgb_expb.dcm"]
    for one in present(miad_data, names):
        with subtests.test(file=one.row["file"]):
            foreign_programs_take(one, tmp_path)


def foreign_programs_take(one, tmp_path):
    data, syntax = one.read()
    pixels = decode_pixels(data, syntax)
    path = tmp_path / "copy.dcm"
    with path.open("wb") as out:
        sop_class = read_header(io.BytesIO(data), syntax).sop_class_uid
        write_part10(out, sop_class, "2.25.1001", EXPLICIT_LITTLE, [GATEWAY.copy(data, syntax)])
    assert read_block(pydicom.dcmread(path)).payload
    assert dciodvfy_errors(path) - dciodvfy_errors(one.path) == Counter()
    assert dcmtk_reads(path)
    marked = slightly_changed(pixels.frames, pixels.limits)
    assert gdcm_pixels(path) == pixels.containers(marked).tobytes()


def test_the_facts_are_those_of_the_original():
    original = CopyRestorer(GATEWAY.opening).by_copy(
        io.BytesIO(GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)), EXPLICIT_LITTLE
    )
    assert (original.sop_instance_uid, original.series_uid, original.study_uid) == ("1.2.3.4", "1.2.3.2", "1.2.3.1")
    assert (original.transfer_syntax_uid, original.size) == (EXPLICIT_LITTLE, len(ORIGINALS["gray"]))
    assert original.derived_sop_uid == "2.25.1001"
    with pytest.raises(VaultError) as caught:
        original.stream()
    assert caught.value.code == "not-verified"


# -- changed on the way, without loss --------------------------------------------------------------------------------


def coerced(ds: Dataset) -> None:
    """What an archive that takes the copy in may do to it."""
    ds.PatientName, ds.PatientID, ds.AccessionNumber = "Anderer^Name", "NEW", "A2"
    ds.StudyInstanceUID = "1.2.3.999"
    ds.add_new(0x00400275, "SQ", [Dataset()])
    block = ds.private_block(0x0099, "ARCHIVE", create=True)
    block.add_new(1, "LO", "archived")
    ds.WindowCenter, ds.WindowWidth = 40, 400


def unknown_vrs(ds: Dataset) -> None:
    for element in [e for e in ds if e.tag.group == GROUP and e.VR == "OB"]:
        ds[element.tag] = pydicom.DataElement(element.tag, "UN", element.value)


def moved_block(ds: Dataset) -> None:
    """Another creator comes first, and ours is given another block (PS3.5 7.8.1)."""
    ours = [e for e in ds if e.tag.group == GROUP]
    for element in ours:
        del ds[element.tag]
        number = element.tag.element
        new = 0x42 if number <= 0xFF else 0x42 << 8 | number & 0xFF
        ds[Tag(GROUP, new)] = pydicom.DataElement(Tag(GROUP, new), element.VR, element.value)
    ds.add_new(Tag(GROUP, 0x10), "LO", "SOMEBODY ELSE")


@pytest.mark.parametrize("change", [coerced, unknown_vrs, moved_block])
@pytest.mark.parametrize(
    ("kind", "syntax"),
    [(kind, syntax) for kind in ("gray", "whole") for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED)]
    + [("gray", EXPLICIT_BIG)],
)
def test_other_attributes_and_encodings(change, kind, syntax):
    data = ORIGINALS[kind]
    assert original_of(rewritten(GATEWAY.copy(data, EXPLICIT_LITTLE), syntax, change), syntax) == data


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000, RLE])
@pytest.mark.parametrize("kind", ORIGINALS)
def test_lossless_compression(kind, syntax):
    data = ORIGINALS[kind]
    assert original_of(rewritten(GATEWAY.copy(data, EXPLICIT_LITTLE), syntax), syntax) == data


DCMTK = {
    "implicit": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "RLE": ("dcmcrle",),
    "JPEG-LS": ("dcmcjpls",),
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    "group lengths and padding": ("dcmconv", "+g", "+p", "512", "512"),
}


@pytest.mark.peers
@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("way", DCMTK)
def test_dcmtk_writes_the_copy_anew(tmp_path, kind, way):
    copy, syntax = through_dcmtk(tmp_path, GATEWAY.copy(ORIGINALS[kind], EXPLICIT_LITTLE), *DCMTK[way])
    assert original_of(copy, syntax) == ORIGINALS[kind]


def through_dcmtk(folder: Path, copy: bytes, *command: str) -> tuple[bytes, str]:
    (folder / "in.dcm").write_bytes(as_file(copy).getvalue())
    program, *options = command
    done = run(program, *options, folder / "in.dcm", folder / "out.dcm")
    assert done.returncode == 0, done.stderr
    with (folder / "out.dcm").open("rb") as file:
        meta, _ = split_part10(file)
        return file.read(), meta.transfer_syntax_uid


# -- changed on the way, with loss -----------------------------------------------------------------------------------


def cropped(ds: Dataset) -> None:
    ds.PixelData = ds.pixel_array[:-8].tobytes()
    ds.Rows -= 8


def one_value(ds: Dataset) -> None:
    pixels = ds.pixel_array.copy()
    pixels[3, 3] += 1
    ds.PixelData = pixels.tobytes()


def turned(ds: Dataset) -> None:
    ds.PixelData = np.ascontiguousarray(ds.pixel_array[:, ::-1]).tobytes()


@pytest.mark.parametrize("change", [cropped, one_value, turned])
@pytest.mark.parametrize("kind", ["gray", "whole"])
def test_other_pixels_are_refused(change, kind):
    copy = rewritten(GATEWAY.copy(ORIGINALS[kind], EXPLICIT_LITTLE), change=change)
    assert code_of(copy) == "marked-pixels-changed"


@pytest.mark.peers
@pytest.mark.parametrize("command", [("dcmcjpls", "+en"), ("dcmcjpeg", "+eb"), ("dcmscale", "+Sxf", "0.5")])
@pytest.mark.parametrize("kind", ["colour", "whole"])
def test_loss_is_refused(tmp_path, command, kind):
    copy = GATEWAY.copy(ORIGINALS[kind], EXPLICIT_LITTLE)
    with_loss, syntax = through_dcmtk(tmp_path, copy, *command)  # another instance, as the standard wants it
    assert code_of(with_loss, syntax, kind=SealError) == "carried-not-for-this-object"
    with_loss, syntax = through_dcmtk(tmp_path, copy, *command, "+un")  # under the copy's own UID
    assert code_of(with_loss, syntax) == "marked-pixels-changed"


def test_pixels_that_cannot_be_decoded_are_refused_with_the_reason():
    ds = pydicom.dcmread(as_file(GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)))
    ds.BitsAllocated = 32
    ds.PixelData = bytes(4 * 40 * 48)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds)
    assert code_of(data_set(out.getvalue())) == "thirty-two-bit-pixels"


@pytest.mark.peers
def test_a_compressed_original_rides_as_it_is(miad_data, tmp_path):
    """Its copy may be written anew; with other pixels, or without the private block, it gives nothing back."""
    data, syntax = sample(miad_data, "pydicom/MR_small_RLE.dcm").read()
    copy = GATEWAY.copy(data, syntax)
    assert original_of(*through_dcmtk(tmp_path, rewritten(copy, change=coerced), "dcmcjpls")) == data
    assert code_of(rewritten(copy, change=one_value)) == "marked-pixels-changed"
    assert code_of(rewritten(copy, change=cropped)) == "marked-pixels-changed"
    assert code_of(rewritten(copy, change=stripped)) == "nothing-carried"


def flipped(ds: Dataset) -> None:
    ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]


def with_picture(ds: Dataset) -> None:
    ds.update(pydicom.dcmread(as_file(encode(image()))))


@pytest.mark.parametrize(("kind", "change"), [("segmentation", flipped), ("report", with_picture)])
def test_objects_that_refer(kind, change):
    data = encode(studies.bare(getattr(studies, kind)(studies.slices())))
    copy = GATEWAY.remapped(data, EXPLICIT_LITTLE)
    for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED):
        assert original_of(rewritten(copy, syntax, coerced), syntax) == data
    kept = pydicom.dcmread(as_file(copy))

    def changed(ds: Dataset) -> None:
        change(ds)
        ds.SOPInstanceUID, ds.SOPClassUID = kept.SOPInstanceUID, kept.SOPClassUID

    assert code_of(rewritten(copy, change=changed)) == "marked-pixels-changed"


# -- somebody else's -------------------------------------------------------------------------------------------------


def test_the_block_of_another_object():
    one = GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)
    two = pydicom.dcmread(as_file(GATEWAY.copy(ORIGINALS["12 bits"], EXPLICIT_LITTLE, "2.25.1003")))

    def paste(*elements: int) -> Callable[[Dataset], None]:
        def change(ds: Dataset) -> None:
            for element in elements:
                ds[Tag(GROUP, element)] = two[Tag(GROUP, element)]

        return change

    assert code_of(rewritten(one, change=paste(0x1010, 0x1011)), kind=SealError) == "carried-not-for-this-object"
    assert code_of(rewritten(one, change=paste(0x1011)), kind=SealError) == "carried-tampered"

    def renamed(ds: Dataset) -> None:
        ds.SOPInstanceUID = "2.25.1003"

    assert code_of(rewritten(one, change=renamed), kind=SealError) == "carried-not-for-this-object"


def test_other_keys_and_signers():
    copy = GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)
    assert code_of(copy, gateway=Gateway(), kind=SealError) == "carried-other-key"
    assert code_of(copy, gateway=Gateway(restore=GATEWAY.restore), kind=SealError) == "signer-unknown"


def test_nothing_of_a_foreign_signer_is_decoded(monkeypatch):
    def never(*_):
        raise AssertionError("was decoded")

    monkeypatch.setattr("gateway.dicom.copy.carried_body.decode_pixels", never)
    copy = GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)
    assert code_of(copy, gateway=Gateway(restore=GATEWAY.restore), kind=SealError) == "signer-unknown"
    with pytest.raises(AssertionError):
        original_of(copy)


def stripped(ds: Dataset) -> None:
    for element in [e for e in ds if e.tag.group == GROUP]:
        del ds[element.tag]


def without_payload(ds: Dataset) -> None:
    del ds[Tag(GROUP, 0x1011)]


@pytest.mark.parametrize("change", [stripped, without_payload])
def test_a_copy_that_lost_what_it_carried(change):
    copy = rewritten(GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE), change=change)
    assert code_of(copy) == "nothing-carried"
    assert code_of(ORIGINALS["gray"]) == "nothing-carried"


def test_a_signed_digest_that_the_rebuilt_bytes_have_not(monkeypatch):
    """A gateway that signs one thing and packs another: the digest decides."""
    monkeypatch.setattr("tests.support.copies.pack", lambda data, *_: b"\1\1" + _zstd(data[:-1] + b"\7"))
    copy = GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)
    assert code_of(copy, kind=IntegrityError) == "digest-differs"


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.compress(data)


COPY = GATEWAY.copy(ORIGINALS["gray"], EXPLICIT_LITTLE)
SEALED_AT = COPY.index(b"MIAD GATEWAY 1")  # from here to the pixels there is nothing but the block


@examples(120)
@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), length=st.integers(1, 40))
def test_damage_to_what_is_carried_gives_the_exact_original_or_an_error(where, bits, length):
    at = SEALED_AT + int(where * (len(COPY) - FRAMES.nbytes - 12 - SEALED_AT))
    damaged = bytes(byte ^ bits for byte in COPY[at : at + length])
    with suppress(DicomError, SealError, IntegrityError):
        assert original_of(COPY[:at] + damaged + COPY[at + length :]) == ORIGINALS["gray"]
