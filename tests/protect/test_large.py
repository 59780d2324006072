"""Large objects, worked piece by piece: the same marked copy as in memory, or the same refusal."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict, replace

import numpy as np
import pydicom
import pytest

from gateway.config.models import Route
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels import frames as reading
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, HoldError, IntegrityError
from gateway.keys import make_keys
from gateway.mark import Marker, MarkSettings, load_profiles
from gateway.protect.large import DerivedPieces, mark_large
from gateway.protect.marking import FigureTally, Marked, MarkJob, Opened, described, marked_frames, requests_of
from gateway.vault import MarkFigures
from tests.benchmarks.frames import digest, protect, restore, write_object
from tests.protect.test_marking import Record
from tests.support.dicom.enhanced import legacy_converted, real_slices
from tests.support.dicom.samples import encode, facts, image
from tests.support.flow import configuration

CT, KEY = load_profiles()["ct"], b"k" * 32
ROUTE = Route(name="research", called_ae="RESEARCH", destinations=("outside",))
NOISE = np.random.default_rng(5).integers(800, 1300, (7, 64, 64)).astype(np.int16)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(reading, "PIECE_BYTES", 2 * 64 * 64 * 2)  # two frames


@pytest.fixture(scope="module")
def marker() -> Marker:
    return Marker(MarkSettings(steps=0, device="cpu"))


def job_of(data: bytes, syntax: str = EXPLICIT_LITTLE, sha256: str = "") -> MarkJob:
    record = Record(len(data), sha256 or hashlib.sha256(data).hexdigest())
    return MarkJob(lambda: io.BytesIO(data), syntax, record, ROUTE)


def large(data: bytes, marker: Marker, folder, syntax: str = EXPLICIT_LITTLE):
    return mark_large(job_of(data, syntax), CT, KEY, marker, lambda record: facts(), folder)


def in_memory(data: bytes, marker: Marker, syntax: str) -> tuple[bytes, MarkFigures]:
    opened = Opened(data, read_header(io.BytesIO(data), syntax), decode_pixels(data, syntax))
    results = marker.mark(requests_of(opened, CT, KEY), CT)
    frames, tally = marked_frames(opened, results), FigureTally()
    tally.add(results)
    marked = Marked(
        data, syntax, opened.pixels, frames, described(lambda record: facts(), tally), tally.figures(ROUTE, CT.name)
    )
    return marked.derive(None)[0], marked.figures


def noise(**changes: object):
    return image(NOISE, **{"RescaleIntercept": -1000, "RescaleSlope": 1} | changes)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_the_copy_is_the_one_that_is_made_in_memory(marker, tmp_path, syntax):
    data = encode(noise(PixelPaddingValue=int(NOISE.min())), syntax)
    expected, figures = in_memory(data, marker, syntax)
    marked = large(data, marker, tmp_path, syntax)
    pieces, sha256 = marked.derive(None)
    assert b"".join(pieces) == expected
    assert sha256 == hashlib.sha256(expected).hexdigest()
    kept, shares = asdict(marked.figures), ("region_share", "stroke_share", "roi_share")
    for name, value in asdict(figures).items():  # shares are sums in another order of rounding, at most
        assert kept[name] == (pytest.approx(value, rel=1e-12) if name in shares else value), name
    assert max(map(len, pieces)) < len(data) / 2
    assert list(tmp_path.iterdir()) == []  # what was put aside has no name


def test_an_enhanced_image_of_real_slices_too(marker, tmp_path, miad_data):
    data = encode(legacy_converted(real_slices(miad_data / "dicom" / "series_ct_head_ge", count=5)))
    expected, _ = in_memory(data, marker, EXPLICIT_LITTLE)
    assert b"".join(large(data, marker, tmp_path).derive(None)[0]) == expected


def test_what_was_put_aside_cannot_be_read_by_others(marker, tmp_path):
    marked = large(encode(noise()), marker, tmp_path)
    file = marked.changes._file
    file.seek(0)
    assert b"\x28\xb5\x2f\xfd" not in file.read()  # no zstd frame in clear


def test_bytes_that_are_not_those_received_are_not_marked(marker, tmp_path):
    with pytest.raises(IntegrityError) as caught:
        mark_large(job_of(encode(noise()), sha256="0" * 64), CT, KEY, marker, lambda record: facts(), tmp_path)
    assert caught.value.code == "spool-changed"


def test_pieces_that_come_out_otherwise_are_noticed(marker, tmp_path):
    marked = large(encode(noise()), marker, tmp_path)
    pieces = DerivedPieces(marked, facts())
    pieces.sha256 = "0" * 64
    with pytest.raises(IntegrityError) as caught:
        list(pieces)
    assert caught.value.code == "derived-changed"


def test_a_piece_that_does_not_decode_to_the_marked_values_is_held(marker, tmp_path, monkeypatch):
    marked = large(encode(noise()), marker, tmp_path)
    decode = reading.decode_piece
    wrong = lambda *given: replace(decode(*given), frames=decode(*given).frames + 1)  # noqa: E731
    monkeypatch.setattr("gateway.protect.large.decode_piece", wrong)
    with pytest.raises(HoldError) as caught:
        marked.derive(None)
    assert caught.value.code == "self-check-failed"


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_what_may_not_ride_along_does_not_in_pieces_either(marker, tmp_path, syntax):
    """A private frame goes, an overlay that shows the sixth frame goes, and pixels in a small value hold the object."""
    ds = noise()
    ds.add_new(0x00290010, "LO", "ACME")
    ds.add_new(0x00291010, "OB", NOISE[5].tobytes())
    shown = NOISE[5] > 1000
    bits = np.packbits(np.stack([np.zeros_like(shown)] * 5 + [shown, ~shown]).reshape(-1), bitorder="little")
    bits = bits.view("u2").byteswap() if syntax == EXPLICIT_BIG else bits
    for element, vr, value in ((0x10, "US", 64), (0x11, "US", 64), (0x15, "IS", "7"), (0x40, "CS", "G"),
                               (0x50, "SS", [1, 1]), (0x100, "US", 1), (0x102, "US", 0),
                               (0x3000, "OW", bits.tobytes())):  # fmt: skip
        ds.add_new(0x60000000 | element, vr, value)
    if syntax == EXPLICIT_BIG:
        ds.PixelData = NOISE.byteswap().tobytes()
    data = encode(ds, syntax)
    copy = b"".join(large(data, marker, tmp_path, syntax).derive(None)[0])
    assert copy == in_memory(data, marker, syntax)[0]
    found = pydicom.filereader.read_dataset(io.BytesIO(copy), False, True)
    assert 0x00290010 in found and 0x00291010 not in found and 0x60003000 not in found
    ds.add_new(0x00291011, "OB", NOISE[6].tobytes()[1000:1200])
    with pytest.raises(HoldError) as held:
        large(encode(ds, syntax), marker, tmp_path, syntax).derive(None)
    assert held.value.code == "pixels-outside"


def test_nothing_stands_beside_the_stored_bits_in_pieces_either(marker, tmp_path):
    """A second picture goes, and so does the overlay whose bit shows one frame."""
    stored = (NOISE - 800).astype(np.uint16)
    shown = np.where(np.arange(7) == 4, stored.T > 200, 0).T.astype(np.uint16)
    ds = image(stored | shown << 10 | (stored >> 5) << 12, BitsStored=10, WindowCenter=250, WindowWidth=600)
    for element, value in ((0x10, 64), (0x11, 64), (0x100, 16), (0x102, 10)):
        ds.add_new(0x60000000 | element, "US", value)
    data = encode(ds)
    copy = b"".join(large(data, marker, tmp_path).derive(None)[0])
    assert copy == in_memory(data, marker, EXPLICIT_LITTLE)[0]
    found = pydicom.filereader.read_dataset(io.BytesIO(copy), False, True)
    assert 0x60000102 not in found and np.frombuffer(found.PixelData, "<u2").max() < 1024


def test_more_than_native_pixels_can_have_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(reading, "MAX_NATIVE", NOISE.nbytes - 1)
    with pytest.raises(DicomError) as caught:
        FrameReader(io.BytesIO(data := encode(noise())), len(data), EXPLICIT_LITTLE)
    assert caught.value.code == "pixels-too-large"


# -- through the gateway -----------------------------------------------------------------------------------------------


@pytest.fixture
def large_ones(monkeypatch):
    """Every object counts as large, and none of its bytes may be worked in memory."""

    def never(job):
        raise AssertionError("was read as a whole")

    for room in ("large", "protector"):
        monkeypatch.setattr(f"gateway.protect.{room}.LARGE_BYTES", 0)
    monkeypatch.setattr("gateway.protect.protector.read_original", never)


def test_a_large_object_goes_out_in_pieces_and_comes_back_exactly(large_ones, tmp_path):
    make_keys(tmp_path / "keys")
    site = configuration(tmp_path / "state", tmp_path / "keys")
    source = tmp_path / "source.dcm"
    frames = write_object(source, 5 * 64 * 64 * 2, 64)
    [marked] = protect(site, source, tmp_path / "out")
    assert (frames, marked.outcome, marked.reason_code) == (5, "marked", "")
    before, after = (pydicom.dcmread(path).pixel_array for path in (source, marked.output))
    assert after.shape == before.shape and all((one != two).any() for one, two in zip(before, after, strict=True))
    [back] = restore(site, marked.output, tmp_path / "back")
    assert (back.outcome, digest(back.output)) == ("restored", digest(source))
    assert not [path for path in (tmp_path / "state").rglob("*") if path.name.startswith("tmp")]


def test_a_large_object_that_would_carry_its_original_is_held_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.protect.marking.MAX_BYTES", 1000)
    make_keys(tmp_path / "keys")
    carried = configuration(tmp_path / "state", tmp_path / "keys").routes[0].model_copy(update={"restoration": "both"})
    site = configuration(tmp_path / "state", tmp_path / "keys", carried)
    write_object(tmp_path / "source.dcm", 2 * 64 * 64 * 2, 64)
    [result] = protect(site, tmp_path / "source.dcm", tmp_path / "out")
    assert (result.outcome, result.reason_code) == ("held", "too-large")
