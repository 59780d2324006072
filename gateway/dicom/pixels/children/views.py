"""What a child makes out of a whole data set: metadata, a picture, a single value. As `children.main` otherwise."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.charset import python_encoding

from gateway.dicom.encoding.elements import BULK_VRS, UNDEFINED
from gateway.dicom.encoding.encoded import open_source, parse, read_header, split_header
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.dicom.pixels.children import main as frames
from gateway.dicom.pixels.children import pool
from gateway.dicom.pixels.decoding import decode_frame
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.shown import shown
from gateway.dicom.pixels.stored_values import Pixels, decode_pixels
from gateway.dicom.pixels.windows import Window
from gateway.errors import DicomError

INLINE = 1024  # bytes of a binary value that stand in the metadata themselves
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_CHARACTER_SET = 0x00080005
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}


def main() -> None:
    """Serve one pool; arguments as of `gateway.dicom.pixels.children.main`."""
    pool.decode_here(decode_frame)
    frames.serve({"metadata": _metadata, "rendered": _rendered, "bulk": _bulk}, _warm_up)


# --- metadata


def _metadata(data: bytes, request: dict[str, Any]) -> bytes:
    url = request["wish"]["bulk_url"]
    header = read_header(io.BytesIO(data), request["syntax"])
    with foreign_errors("undecodable-header", "the header cannot be decoded"):
        model = {f"{element.tag:08X}": _element(element, url) for element in header.dataset if element.tag.element}
    model[f"{_CHARACTER_SET:08X}"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # as JSON is
    if header.pixel_tag is not None:
        found: dict[str, Any] = {"vr": "OB" if syntax_of(request["syntax"]).encapsulated else "OW"}
        if found["vr"] == "OW":
            found["BulkDataURI"] = f"{url}/{header.pixel_tag:08X}"
        model[f"{header.pixel_tag:08X}"] = found
    return json.dumps(dict(sorted(model.items())), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _element(element: DataElement, url: str) -> dict[str, Any]:
    """One element of the top level; a value that is none of its VR is left out, the element stays."""
    if element.VR in BULK_VRS and isinstance(element.value, bytes) and len(element.value) > INLINE:
        return {"vr": element.VR, "BulkDataURI": f"{url}/{element.tag:08X}"}
    try:
        return _finite(element.to_json_dict(None, 1 << 40))
    except Exception:  # pydicom has no one error for a value that is none of its VR
        return {"vr": element.VR}


def _finite(value: Any) -> Any:
    """Numbers that JSON has no words for, as PS3.18 F.2.3 writes them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


# --- pictures


def _rendered(data: bytes, request: dict[str, Any]) -> bytes:
    wish = request["wish"]
    pixels, index = _frame(data, request["syntax"], wish["frame"])
    window = Window(*wish["window"]) if wish.get("window") else None
    picture = Image.fromarray(shown(pixels, index, window))
    if "viewport" in wish:
        picture.thumbnail(tuple(wish["viewport"]), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    options = {"quality": wish.get("quality", 90)} if wish["media"] == "image/jpeg" else {"compress_level": 3}
    picture.save(out, _FORMATS[wish["media"]], **options)
    return out.getvalue()


def _frame(data: bytes, syntax_uid: str, number: int) -> tuple[Pixels, int]:
    """Pixels that hold the frame, and where in them; `number` from 1, 0: the only one."""
    if syntax_of(syntax_uid).deflated:
        pixels = decode_pixels(data, syntax_uid)
        return pixels, _index(number, len(pixels.frames))
    reader = FrameReader(io.BytesIO(data), len(data), syntax_uid)
    count = reader.header.frames
    index = _index(number, count)
    first = index // 2 * 2  # pieces begin at even frames
    return reader.piece(first, min(first + 2, count)), index - first


def _index(number: int, count: int) -> int:
    if not number and count > 1:
        raise DicomError("several-frames", "it has several frames: ask for one of them, or")
    if number > count:
        raise DicomError("no-such-value", f"it has {count} frames")
    return max(number - 1, 0)


# --- values


def _bulk(data: bytes, request: dict[str, Any]) -> bytes:
    tag, syntax = int(request["wish"]["tag"], 16), syntax_of(request["syntax"])
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        if tag in _PIXELS:
            parts: Parts = split(data, request["syntax"])
            if parts.pixels is None or parts.pixels.tag != tag:
                raise DicomError("no-such-value", "it has no such value")
            if syntax.encapsulated:
                raise DicomError("compressed-value", "its pixel data are compressed")
            return _little(bytes(parts.value), parts.pixels.vr.decode() or "OW", syntax)
        source, layout = open_source(io.BytesIO(data), syntax)
        header, _ = split_header(source, layout, bulk=UNDEFINED)
        element = parse(header, layout).get(tag)
        if element is None or element.VR not in BULK_VRS or not isinstance(element.value, bytes):
            raise DicomError("no-such-value", "it has no such value")
        return _little(element.value, element.VR, syntax)


def _little(value: bytes, vr: str, syntax: Syntax) -> bytes:
    """Words of a big endian data set in the order of the web (PS3.18 8.7.3.3.2)."""
    size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(vr, 1)
    if syntax.little_endian or size == 1:
        return value
    return np.frombuffer(value[: len(value) // size * size], f">u{size}").astype(f"<u{size}").tobytes()


# --- before everything else is given up


def _warm_up() -> None:
    """As of `children.main`: load what would be loaded later, when no file can be opened any more."""
    frames.warm_up()
    Image.init()
    for mode in ("L", "RGB"):
        for name in _FORMATS.values():
            Image.new(mode, (16, 16)).resize((8, 8), Image.Resampling.LANCZOS).save(io.BytesIO(), name)
    for names in python_encoding.values():
        with contextlib.suppress(LookupError):
            codecs.lookup(names)
    example = Dataset()
    example.PatientName, example.WindowCenter, example.Rows = "A^B", "1.5", 1
    example.ICCProfile = b"\0\0"
    example.to_json()
    json.dumps({"é": 1.5}, ensure_ascii=False)


if __name__ == "__main__":
    main()
