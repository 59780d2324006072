"""All methods stand behind one protocol: each agrees with itself, and the marker knows none of them by name."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import gateway.mark
from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile
from gateway.mark.draft import Draft
from gateway.mark.methods.method import Batch, Finished, Needs, Setup
from gateway.mark.methods.registry import METHODS
from tests.support.mark.generators import pack_of, seeded
from tests.support.mark.samples import BRAIN, GRAY, KEY, OTHER_KEY, gray8, small_pack

CASES = {
    "strong": {"steps": 2, "placements": 2},
    "strong without steps": {"steps": 0},
    "discreet": {"steps": 2, "tier": "discreet"},
    "paper": {"mode": "paper", "steps": 1, "population": 4, "generations": 1},
    "paper without steps": {"mode": "paper", "steps": 0, "population": 6, "generations": 1},
    "generator": {"mode": "generator", "steps": 1, "refine": 1},
    "generator without networks": {"mode": "generator", "steps": 0},
}


@cache
def frames() -> list[MarkRequest]:
    """Return four frames that take different ways: of a series, searched, turned over, all anatomy."""
    anatomy = np.random.default_rng(0).integers(90, 200, (96, 96)).astype(np.uint8)
    return [
        MarkRequest(gray8(), KEY, position=3.0),
        MarkRequest(gray8(seed=1), KEY),
        MarkRequest(gray8(seed=2), OTHER_KEY, inverted=True),
        MarkRequest(anatomy, OTHER_KEY),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


def made(case: str, folder: Path, together: int) -> Marker:
    settings = MarkSettings(device="cpu", **CASES[case])
    marker = Marker(settings, packs=[small_pack()], generators=[pack_of(seeded(), folder)])
    marker._batch = together
    return marker


@pytest.mark.some(3)
@pytest.mark.parametrize("case", CASES)
def test_a_method_gives_the_same_alone_and_in_company(case: str, folder: Path) -> None:
    marker = made(case, folder, together=3)
    together = [*marker.mark(frames()[:2], BRAIN), *marker.mark(frames()[2:], BRAIN)]  # batches filled up by one
    apart = [marker.mark([frame], BRAIN)[0] for frame in reversed(frames())][::-1]
    again = made(case, folder, together=3).mark(frames(), BRAIN)
    for frame, *results in zip(frames(), together, apart, again, strict=True):
        first, *others = results
        assert isinstance(first, MarkedImage), first
        assert first.residual.any() and np.array_equal(first.image.astype(int) - first.residual, frame.image)
        assert not first.residual[~first.region].any() and not (first.strokes & ~first.region).any()
        for other in others:
            assert isinstance(other, MarkedImage)
            assert np.array_equal(first.image, other.image) and np.array_equal(first.strokes, other.strokes)
            assert (first.queries, first.note) == (other.queries, other.note)


def test_the_settings_name_every_method_and_no_other() -> None:
    assert set(get_args(MarkSettings.model_fields["mode"].annotation)) == set(METHODS)


@pytest.mark.parametrize("mode", METHODS)
@pytest.mark.parametrize("steps", [0, 1])
def test_networks_are_read_where_the_method_needs_them(mode: str, steps: int, folder: Path) -> None:
    """A pack without its file: told where networks are needed, not even looked at where none is."""
    settings = MarkSettings(mode=mode, steps=steps, population=6, generations=1, device="cpu")
    lost = replace(small_pack(), files=(folder / "nowhere.safetensors",))
    (result,) = Marker(settings, [lost], generators=[pack_of(seeded(), folder)]).mark(frames()[:1], BRAIN)
    assert METHODS[mode].needs(settings).networks == (steps > 0)
    if steps:
        assert isinstance(result, MarkError) and result.code == "weights-corrupt"
    else:
        assert isinstance(result, MarkedImage)


class Dots:
    """A method that nobody knows: one brighter pixel in every free square of 8, no letters, no networks."""

    def __init__(self, setup: Setup) -> None:
        self.floor = setup.settings.psnr_floor

    @staticmethod
    def needs(settings: MarkSettings) -> Needs:
        return Needs(letters=False, search=False, draft_networks=0, draws_with_networks=False)

    def load(self, profile: ModalityProfile, channels: int) -> None:
        if channels != 1:
            raise MarkError("no-dots", "dots are gray")

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        return [f"dots on {profile.name}"]

    def draw(self, batch: Batch) -> list[np.ndarray | MarkError]:
        if len(batch.drafts) > 1:
            raise MarkError("too-many", "dots are drawn one by one")
        (draft,) = batch.drafts
        if draft.request.key == OTHER_KEY:
            return [MarkError("no-dots", "not with this key")]
        dots = np.zeros(batch.shape, bool)
        dots[::8, ::8] = True
        return [dots & draft.canvas.region]

    def finish(self, draft: Draft, drawing: np.ndarray, profile: ModalityProfile) -> Finished:
        stored = draft.canvas.stored + drawing
        return Finished(replace(draft.canvas, strokes=drawing), stored, cut=0, queries=7)


def test_a_method_of_a_stranger_is_drawn_finished_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "strong", Dots)
    marker = Marker(MarkSettings(device="cpu"), packs=[])
    marker._batch = 4
    *good, bad, last = marker.mark(frames(), GRAY)
    for result in good:
        assert isinstance(result, MarkedImage) and result.queries == 7
        assert set(np.unique(result.residual)) == {0, 1} and np.array_equal(result.residual == 1, result.strokes)
        assert result.quality.stroke_share == pytest.approx(result.strokes.mean())
    assert [one.code for one in (bad, last) if isinstance(one, MarkError)] == ["no-dots"] * 2
    assert marker.licence_warnings(GRAY) == ["dots on " + GRAY.name]


def test_no_module_outside_the_settings_asks_for_a_method_by_name() -> None:
    """``settings.mode`` is looked up in the registry, once; what differs between methods is theirs to say."""
    room = Path(gateway.mark.__file__).parent
    asking = []
    for path in room.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names_mode = isinstance(node, ast.Attribute) and node.attr == "mode" and "settings" in ast.unparse(node)
            if names_mode:
                asking.append(str(path.relative_to(room)))
    assert asking == ["marker.py"]
