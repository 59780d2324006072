"""What survived of a probe that came back: UIDs, private elements, pixels, and what says that it is a copy."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.private import read_block
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import ConfigError, DicomError
from gateway.probing.instance import KEY_BYTES, PAYLOAD_BYTES, TOKEN_BYTES, UID_LEVELS, Probe

_UIDS_MEAN = "a copy is found by its UIDs, or by its key reference, which is bound to them: with neither, no way back"
_TOKEN_MEANS = "copies from there are found by their UIDs alone"
_CARRIED_MEANS = 'do not use restoration = "carried" on a route to it'
_PIXELS_MEAN = "no original can be made of a copy's own pixels; a mark may be weaker, or be seen"
_LABEL_MEANS = "it says that a copy is one"


@dataclass(frozen=True)
class Part:
    """One part of the probe: whether it came back as it was sent, what happened to it, and what that means."""

    name: str
    survives: bool
    finding: str
    means: str = ""


def compare(probe: Probe, data: bytes) -> list[Part]:
    """Compare what came back, a DICOM file or a bare data set.

    Raises
    ------
    ConfigError
        ``not-the-probe``: it is no DICOM object, or another one.
    """
    try:
        stream = io.BytesIO(data)
        meta, offset = split_part10(stream)
        stream.seek(offset)
        header = read_header(stream, meta.transfer_syntax_uid)
    except DicomError as error:
        raise ConfigError("not-the-probe", f"this cannot be read: {error.message}", "give what came back") from None
    uids, private = list(_uids(probe, header)), list(_private(probe, header.dataset))
    pixels = _pixels(probe, data[offset:], meta.transfer_syntax_uid)
    is_ours = header.dataset.get("PatientID") == probe.patient_id
    if not (is_ours or any(part.survives for part in (*uids, *private, pixels))):
        raise ConfigError("not-the-probe", "this is not what was sent", f"its patient id is {probe.patient_id}")
    return [*uids, *private, pixels, *_labels(probe, header.dataset)]


def _uids(probe: Probe, header: InstanceHeader) -> Iterator[Part]:
    found = (header.study_uid, header.series_uid, header.sop_instance_uid)
    for level, uid in zip(UID_LEVELS, found, strict=True):
        same = uid == probe.uid(level)
        yield Part(level, same, "as sent" if same else "changed", "" if same else _UIDS_MEAN)


def _private(probe: Probe, ds: Dataset) -> Iterator[Part]:
    block = read_block(ds)
    values = (block.token, block.sealed_key, block.payload) if block else (None, None, None)
    told = (
        ("token", TOKEN_BYTES, "private: key reference", _TOKEN_MEANS),
        ("key", KEY_BYTES, "private: sealed key", _CARRIED_MEANS),
        ("payload", PAYLOAD_BYTES, "private: 256 KiB payload", _CARRIED_MEANS),
    )
    for (name, count, words, means), found in zip(told, values, strict=True):
        same = found == probe.bytes_of(name, count)
        finding = "as sent" if same else "gone" if found is None else "changed"
        yield Part(words, same, finding, "" if same else means)


def _pixels(probe: Probe, body: bytes, syntax: str) -> Part:
    try:
        frame = np.squeeze(decode_pixels(body, syntax).frames)
    except DicomError as error:
        return Part("pixels", False, f"not decodable: {error.code}", "see what the destination makes of images")
    sent, how = probe.frame(), UID(syntax).name
    if frame.shape == sent.shape and np.array_equal(frame.astype(np.int64), sent.astype(np.int64)):
        return Part("pixels", True, f"as sent ({how})")
    return Part("pixels", False, f"changed ({how})", _PIXELS_MEAN)


def _labels(probe: Probe, ds: Dataset) -> Iterator[Part]:
    sent = probe.dataset("", "")
    for keyword in ("ImageType", "DerivationDescription", "BurnedInAnnotation", "ContributingEquipmentSequence"):
        same = keyword in ds and (keyword.endswith("Sequence") or ds[keyword].value == sent[keyword].value)
        yield Part(keyword, same, "as sent" if same else "changed, or gone", "" if same else _LABEL_MEANS)
