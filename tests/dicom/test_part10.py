"""DICOM files: heads read and written, the data set untouched."""

from __future__ import annotations

import io

import pydicom
import pytest

from gateway.dicom.encoding.part10 import FileMeta, split_part10, write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.errors import DicomError
from tests.support.dicom.samples import CT, corpus, encode, image


def test_what_is_written_is_read_back(tmp_path):
    data = encode(image())
    path = tmp_path / "one.dcm"
    with path.open("wb") as out:
        write_part10(out, CT, "1.2.3.4", EXPLICIT_LITTLE, [data[:100], data[100:]])
    with path.open("rb") as file:
        meta, offset = split_part10(file)
        assert (meta, file.read()) == (FileMeta(EXPLICIT_LITTLE, CT, "1.2.3.4"), data)
    assert path.read_bytes()[offset:] == data
    ds = pydicom.dcmread(path)
    assert ds.file_meta.FileMetaInformationGroupLength == offset - 144
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("uid", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_bare_data_sets_are_told_from_their_first_element(uid):
    data = encode(image(), uid)
    stream = io.BytesIO(data)
    assert split_part10(stream) == (FileMeta(uid, "", ""), 0)
    assert stream.read() == data


def test_the_corpus_agrees_with_its_index(miad_data):
    for one in corpus(miad_data):
        with one.path.open("rb") as file:
            meta, offset = split_part10(file)
        if one.row["transfer_syntax_uid"]:
            assert meta.transfer_syntax_uid == one.row["transfer_syntax_uid"], one.row["file"]
        assert (offset >= 132) == (one.row["preamble"] == "yes") or offset in range(1, 1000)


def test_bad_heads():
    out = io.BytesIO()
    write_part10(out, CT, "1.2.3.4", EXPLICIT_LITTLE, [])
    head = out.getvalue()
    cases = {
        b"": "not-dicom",
        b"GIF89a" + bytes(200): "not-dicom",
        b"\x89PNG\r\n\x1a\n" * 40: "not-dicom",
        head[:150]: "truncated",
        head[:132] + b"\x02\0\x02\0UN\0\0\xff\xff\xff\x7f": "not-dicom",
        head[:132] + b"\x02\0\x01\0OB\0\0\2\0\0\0\0\1": "missing-transfer-syntax",
        head[:132] + b"\x02\0\x16\0AE\0\0" * 100: "not-dicom",
        head + b"\x02\0\x01\0OB\0\0": "truncated",  # found by tests.fuzz: ended behind the end of the file
    }
    for data, code in cases.items():
        with pytest.raises(DicomError) as caught:
            split_part10(io.BytesIO(data))
        assert caught.value.code == code, data[:40]
    for cut in range(1, len(head)):
        try:
            split_part10(io.BytesIO(head[:cut]))
        except DicomError:
            continue
