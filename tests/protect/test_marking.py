"""Marking one instance: what goes in is what was received, what comes out is checked before anyone sees it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from gateway.config.models import Route
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import HoldError, IntegrityError, MarkError
from gateway.mark import MarkedImage, Marker, MarkSettings, load_profiles
from gateway.protect import marking, memory
from gateway.protect.marking import FigureTally, Marked, MarkJob, Opened, marked_frames, read_original, requests_of
from tests.support.dicom.samples import encode, facts, image

ROUTE = Route(name="research", called_ae="RESEARCH", destinations=("outside",))
CT = load_profiles()["ct"]
KEY = b"k" * 32
PADDING = -2000


def slice_with_padding(side: int = 64, **changes: object):
    """Noise with a frame of padding pixels."""
    frames = np.random.default_rng(1).normal(40, 12, (1, side, side)).astype(np.int16)
    frames[:, :6], frames[:, -6:] = PADDING, PADDING
    given = {"PixelPaddingValue": PADDING, "RescaleSlope": 1, "RescaleIntercept": 0}
    return image(frames, **(given | changes))


def opened(ds=None) -> Opened:
    data = encode(ds or slice_with_padding())
    header = read_header(io.BytesIO(data), EXPLICIT_LITTLE)
    return Opened(data, header, decode_pixels(data, EXPLICIT_LITTLE))


def marks(one: Opened) -> list[MarkedImage]:
    return Marker(MarkSettings(steps=0, device="cpu")).mark(requests_of(one, CT, KEY), CT)


@dataclass(frozen=True)
class Record:
    """The two facts of a vault record that opening an original looks at."""

    original_size: int
    original_sha256: str


def job(data: bytes, record: Record | None = None) -> MarkJob:
    record = record or Record(len(data), hashlib.sha256(data).hexdigest())
    return MarkJob(lambda: io.BytesIO(data), EXPLICIT_LITTLE, record, ROUTE)


# -- in --------------------------------------------------------------------------------------------------------------


def test_the_bytes_must_be_those_that_were_received():
    data = encode(image())
    other = encode(image(PatientName="Doe^Joan"))
    assert read_original(job(data)) == data
    with pytest.raises(IntegrityError) as caught:
        read_original(job(other, Record(len(data), hashlib.sha256(data).hexdigest())))
    assert caught.value.code == "spool-changed"


def test_what_is_too_large_is_held_before_it_is_read():
    def never():
        raise AssertionError("was opened")

    large = MarkJob(never, EXPLICIT_LITTLE, Record(marking.MAX_BYTES + 1, ""), ROUTE)
    with pytest.raises(HoldError) as caught:
        read_original(large)
    assert caught.value.code == "too-large"


def test_the_display_range_is_the_header_s_window_else_the_profile_s_preset():
    [by_header] = requests_of(opened(slice_with_padding(WindowCenter=50, WindowWidth=100)), CT, KEY)
    assert by_header.display == pytest.approx((0, 100), abs=1)
    [by_profile] = requests_of(opened(slice_with_padding(RescaleIntercept=-1000)), CT, KEY)
    assert by_profile.display == pytest.approx((840, 1240))  # W400 around 40 HU, in stored values
    assert set(by_profile.other_windows) == {window.name for window in CT.windows}


def test_every_window_of_the_header_is_reported():
    several = slice_with_padding(WindowCenter=[50, 300], WindowWidth=[100, 2000], RescaleSlope=2)
    [request] = requests_of(opened(several), CT, KEY)
    assert request.display == pytest.approx((0, 50), abs=1)
    assert request.other_windows["header 2"] == pytest.approx((-350, 650), abs=1)
    assert set(request.other_windows) == {"header 2", *(window.name for window in CT.windows)}


def test_the_slope_goes_along_so_that_hounsfield_units_can_be_told():
    [request] = requests_of(opened(slice_with_padding(RescaleSlope=2)), CT, KEY)
    assert request.slope == 2
    [mark] = marks(opened(slice_with_padding(RescaleSlope=2)))
    assert mark.quality.bias.unit == "HU"
    assert mark.quality.bias.region == pytest.approx(2 * mark.residual[mark.region].mean())


def test_a_negative_slope_turns_the_display_over():
    [plain] = requests_of(opened(), CT, KEY)
    [turned] = requests_of(opened(slice_with_padding(RescaleSlope=-1)), CT, KEY)
    assert (plain.inverted, turned.inverted) == (False, True)
    low, high = turned.display
    assert low < high


def test_the_place_comes_from_the_slice_position_else_from_the_uid():
    placed = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 12.5]}
    [request] = requests_of(opened(slice_with_padding(**placed)), CT, KEY)
    assert request.position == 12.5
    by_uid = [
        requests_of(opened(slice_with_padding(SOPInstanceUID=uid)), CT, KEY)[0] for uid in ("1.2.3", "1.2.3", "1.2.4")
    ]
    assert [request.position for request in by_uid] == [None] * 3  # no slice: its placement is searched
    assert by_uid[0].key == by_uid[1].key != by_uid[2].key


def test_frames_of_one_instance_are_neighbouring_slices():
    frames = np.random.default_rng(1).normal(40, 12, (3, 64, 64)).astype(np.int16)
    positions = [request.position for request in requests_of(opened(image(frames)), CT, KEY)]
    assert np.diff(positions).tolist() == [1, 1]


# -- out -------------------------------------------------------------------------------------------------------------


def test_padding_is_left_alone_and_the_rest_is_marked():
    one = opened()
    results = marks(one)
    frames = marked_frames(one, results)
    changed = frames != one.pixels.frames
    assert changed.any()
    assert not changed[one.pixels.padding].any()
    assert (frames[~one.pixels.padding] != PADDING).all()
    assert min(result.quality.psnr for result in results) >= 26


def tampered(change) -> tuple[Opened, list[MarkedImage]]:
    one = opened()
    [result] = marks(one)
    return one, [change(one, result)]


def _wrong_residual(one, result):
    residual = result.residual.copy()
    residual[20, 20] += 1
    return replace(result, residual=residual)


def _wrong_image(one, result):
    marked = result.image.copy()
    marked[20, 20] += 1
    return replace(result, image=marked)


def _other_type(one, result):
    return replace(result, image=result.image.astype(np.int32))


def _padding_touched(one, result):
    marked, residual = result.image.copy(), result.residual.copy()
    marked[0, 0] += 1
    residual[0, 0] += 1
    return replace(result, image=marked, residual=residual)


def _nothing_done(one, result):
    return replace(result, image=one.pixels.frames[0].copy(), residual=np.zeros_like(result.residual))


@pytest.mark.parametrize("change", [_wrong_residual, _wrong_image, _other_type, _padding_touched, _nothing_done])
def test_a_mark_that_fails_its_self_check_is_held(change):
    one, results = tampered(change)
    with pytest.raises(HoldError) as caught:
        marked_frames(one, results)
    assert caught.value.code == "self-check-failed"


def test_one_frame_that_cannot_be_marked_holds_the_instance():
    one = opened()
    with pytest.raises(MarkError) as caught:
        marked_frames(one, [*marks(one), MarkError("no-free-area", "no room")])
    assert caught.value.code == "no-free-area"


def derivable(one: Opened, frames: np.ndarray) -> Marked:
    tally = FigureTally()
    tally.add(marks(one))
    return Marked(one.data, EXPLICIT_LITTLE, one.pixels, frames, lambda record: facts(), tally.figures(ROUTE, "ct"))


def test_derived_bytes_decode_to_the_marked_values_and_come_out_the_same_again():
    one = opened()
    frames = marked_frames(one, marks(one))
    record = SimpleNamespace()
    data, sha256 = derivable(one, frames).derive(record)
    assert hashlib.sha256(data).hexdigest() == sha256
    assert np.array_equal(decode_pixels(data, EXPLICIT_LITTLE).frames, frames)
    assert derivable(one, frames).derive(record) == (data, sha256)


def test_a_derived_data_set_that_decodes_to_something_else_is_held(monkeypatch):
    one = opened()
    frames = marked_frames(one, marks(one))
    monkeypatch.setattr(marking, "derive", lambda original, *_: original)  # the original in place of the copy
    with pytest.raises(HoldError) as caught:
        derivable(one, frames).derive(SimpleNamespace())
    assert caught.value.code == "self-check-failed"


# -- memory ----------------------------------------------------------------------------------------------------------


def header_of(ds):
    return read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)


def test_what_would_take_too_much_memory_is_held_and_told():
    header = header_of(slice_with_padding(256))
    need = memory.BASE + memory.working(header) + memory.kept(header, in_pieces=False)
    memory.check(header, need, in_pieces=False)
    with pytest.raises(HoldError) as caught:
        memory.check(header, need - 1, in_pieces=False)
    assert caught.value.code == "too-large-for-memory" and "256x256" in caught.value.message
    assert "memory_mib" in caught.value.hint


def test_an_object_worked_in_pieces_needs_no_more_with_more_frames():
    few, many = (SimpleNamespace(rows=2048, columns=2048, samples=1, frames=n, bits_allocated=16) for n in (4, 400))
    assert memory.kept(few, in_pieces=True) == memory.kept(many, in_pieces=True)
    assert memory.kept(many, in_pieces=False) == 100 * memory.kept(few, in_pieces=False)


def test_the_machines_memory_is_the_limit_where_the_site_names_none(monkeypatch, tmp_path):
    assert memory.allowed(2048) == 2 << 30
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "memory.max")
    whole = memory.allowed(0)
    assert whole > 256 << 20
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert memory.allowed(0) == 3 << 28
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.allowed(0) == whole
