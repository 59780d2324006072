"""Images without anatomy, shutters and oblong pixels: what is shown decides where letters lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gateway.errors import MarkError
from gateway.mark import MarkedImage, MarkRequest, MarkSettings
from gateway.mark.placement.letters import shown_scale
from gateway.mark.placement.stamps import text_stamp
from gateway.mark.placement.words import ON_ANATOMY, lay_words, place
from tests.support.mark.samples import CT, FAST, GRAY, KEY, RGB, disc, gray8, phantom, rgb8, small_marker

AIR = np.random.default_rng(4).normal(-1000.0, 12.0, (128, 128)).astype(np.int16)
ON_AIR = MarkRequest(AIR, KEY, position=3.0, display=(-160.0, 240.0), slope=1.0)
FAST_PAPER = MarkSettings(mode="paper", steps=0, population=6, generations=1, device="cpu")
FAST_DISCREET = MarkSettings(tier="discreet", steps=0, device="cpu")


def page(side: int = 256, ink: int = 255, paper: int = 0) -> np.ndarray:
    """Return a page of ten lines of small text, uint8."""
    sheet = Image.new("L", (side, side), paper)
    for line in range(10):
        ImageDraw.Draw(sheet).text(
            (6, 6 + 14 * line), f"Scan {line} CTDIvol 1{line}.5 mGy", ink, ImageFont.load_default(9)
        )
    return np.asarray(sheet)


def marked(request: MarkRequest, profile: object = GRAY, settings: MarkSettings = FAST) -> MarkedImage:
    (result,) = small_marker(settings).mark([request], profile)
    assert isinstance(result, MarkedImage), result
    assert np.array_equal(result.image.astype(int) - result.residual, request.image)
    return result


@pytest.mark.parametrize("settings", [FAST, FAST_PAPER, FAST_DISCREET], ids=["lettered", "paper", "discreet"])
@pytest.mark.parametrize(
    "request_",
    [
        MarkRequest(np.full((64, 64), 9, np.uint8), KEY),
        MarkRequest(np.full((64, 64), -2000, np.int16), KEY, reserved=((-2000, -2000),)),
        MarkRequest(np.where(np.eye(64, dtype=bool), 7, -2000).astype(np.int16), KEY, reserved=((-2000, -2000),)),
    ],
    ids=["constant", "all padding", "constant but for padding"],
)
def test_a_blank_image_stays_as_it_is(request_: MarkRequest, settings: MarkSettings) -> None:
    result = marked(request_, settings=settings)
    assert result.note == "blank" and not result.residual.any() and result.quality.psnr == 100.0


def test_one_colour_is_blank_and_two_are_not() -> None:
    colour = np.full((64, 64, 3), (9, 80, 200), np.uint8)
    assert marked(MarkRequest(colour, KEY), RGB).note == "blank"
    assert marked(MarkRequest(rgb8(), KEY), RGB).note == ""


def test_what_a_shutter_hides_is_no_reason_to_call_an_image_blank() -> None:
    image = gray8()
    image[20:80, 20:80] = 50
    hidden = np.ones((96, 96), bool)
    hidden[20:80, 20:80] = False
    result = marked(MarkRequest(image, KEY, hidden=hidden))
    assert result.note != "blank" and result.residual.any() and not result.residual[hidden].any()


def test_air_alone_carries_letters_that_its_window_shows() -> None:
    result = marked(ON_AIR, CT)
    assert result.note == "no-anatomy" and result.strokes.any()
    display = np.clip((result.image + 160.0) / 400.0, 0.0, 1.0)
    assert display[~result.strokes].max() == 0.0 and not result.residual[~result.strokes].any()
    assert np.median(display[result.strokes]) > 0.15
    assert result.quality.psnr >= 26.0


def test_air_alone_under_visibility() -> None:
    result = marked(ON_AIR, CT, FAST_DISCREET)
    assert result.note == "no-anatomy" and np.abs(result.residual).max() <= 8
    assert result.residual.any()


FAINT_AIR = np.random.default_rng(5).integers(-1000, -996, (128, 128)).astype(np.int16)
ON_FAINT_AIR = replace(ON_AIR, image=FAINT_AIR, display=(-60.0, 60.0))


def test_even_air_that_takes_no_invisible_change_stays_as_it_is() -> None:
    """A wide step from air to the window: nothing rounds to a change below visibility, and nothing is anatomy."""
    result = marked(ON_FAINT_AIR, CT, FAST_DISCREET)
    assert result.note == "empty" and not result.residual.any() and result.quality.psnr == 100.0
    assert marked(ON_FAINT_AIR, CT).note == "no-anatomy"  # letters are owed where the tier has them


def speck(size: int, by: int) -> np.ndarray:
    image = FAINT_AIR.copy()
    image[60 : 60 + size, 70 : 70 + size] += by
    return image


@pytest.mark.parametrize(
    "changes",
    [
        {"image": speck(6, 1200)},  # a little of it is seen
        {"image": speck(40, 300)},  # soft structure that this window shows as black
        {"image": speck(12, 4)},  # hardly more than the noise
        {"image": speck(1, 60)},
        {"image": np.tile(np.arange(128) // 8 - 1000, (128, 1)).astype(np.int16)},  # a slow slope
        {"image": np.where(np.arange(128) < 64, FAINT_AIR, FAINT_AIR + 40).astype(np.int16)},
        {"roi": disc((128, 128), 0.1)},
        {"hidden": disc((128, 128), 0.1)},
        {"padding": disc((128, 128), 0.2)},  # padding with a picture's many values
    ],
    ids=["bright", "below the window", "faint", "one pixel", "slope", "two halves", "roi", "shutter", "padding"],
)
def test_where_anything_may_be_anatomy_it_is_marked_or_held(changes: dict[str, np.ndarray]) -> None:
    request = replace(ON_FAINT_AIR, **changes)
    if "padding" in changes:
        noisy = np.random.default_rng(6).integers(-1000, 900, FAINT_AIR.shape).astype(np.int16)
        request = replace(request, image=np.where(request.padding, noisy, FAINT_AIR).astype(np.int16))
    (result,) = small_marker(FAST_DISCREET).mark([request], CT)
    if isinstance(result, MarkError):
        assert result.code == "over-budget"
    else:
        assert result.residual.any() and result.note != "empty"


def test_a_page_that_takes_no_invisible_change_is_held() -> None:
    (result,) = small_marker(FAST_DISCREET).mark([MarkRequest(page(), KEY, display=(0.0, 10.0))], GRAY)
    assert isinstance(result, MarkError) and result.code == "over-budget"


@pytest.mark.parametrize("inverted", [False, True], ids=["", "MONOCHROME1"])
def test_anatomy_that_is_too_small_for_a_letter_stays_and_the_air_is_written_on(inverted: bool) -> None:
    image = np.zeros((128, 128), np.uint16)
    image[56:72, 56:72] = 1500 + (phantom(16, 16) * 900).astype(np.uint16)
    image = 4000 - image if inverted else image
    result = marked(MarkRequest(image, KEY, position=0.0, inverted=inverted, display=(0.0, 4000.0)))
    assert result.note == "" and result.strokes.any() and result.air is not None
    assert not result.strokes[54:74, 54:74].any() and not result.air[54:74, 54:74].any()


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (200, 60)], ids=["black", "white", "gray"])
def test_a_page_of_text_keeps_its_text(ink: int, paper: int) -> None:
    image = page(ink=ink, paper=paper)
    result = marked(MarkRequest(image, KEY))
    assert result.note == "page" and not result.residual[image != paper].any()
    change = result.residual[result.strokes]
    assert result.strokes.any() and (np.abs(change) > 20).mean() > 0.8


def test_words_on_empty_ground_are_whole_and_off_the_edge() -> None:
    for number in range(6):
        strokes = marked(MarkRequest(page(), bytes([number]) * 32)).strokes
        assert not strokes[[0, -1]].any() and not strokes[:, [0, -1]].any()


def test_anatomy_is_no_page() -> None:
    assert marked(MarkRequest(gray8(160, 160), KEY)).note == ""


@pytest.mark.parametrize("shape", ["rectangle", "circle"])
def test_only_what_a_shutter_leaves_is_marked_and_counted(shape: str) -> None:
    image = np.rint(phantom(192, 192, 2) * 200.0 + 30.0).astype(np.uint8)
    hidden = np.ones((192, 192), bool)
    if shape == "circle":
        hidden = ~disc((192, 192), 0.25)
    else:
        hidden[40:130, 60:150] = False
    result = marked(MarkRequest(image, KEY, hidden=hidden))
    assert not result.residual[hidden].any() and not result.strokes[hidden].any() and not result.roi[hidden].any()
    before, after = (one[~hidden].astype(float) / 255.0 for one in (image, result.image))
    psnr = -10.0 * np.log10(np.mean((before - after) ** 2))
    assert result.quality.psnr == pytest.approx(psnr, abs=0.02) and 26.0 <= psnr < 32.0
    assert result.quality.stroke_share == pytest.approx(result.strokes.sum() / (~hidden).sum())
    roi_share = (result.roi & ~hidden).sum() / (~hidden).sum()
    assert 0.1 < roi_share < 0.6  # the quarter is of what is seen


def test_a_wrong_shutter_mask_and_a_wrong_aspect_are_told() -> None:
    for changes in ({"hidden": np.zeros((4, 4), bool)}, {"aspect": 0.0}, {"aspect": float("nan")}):
        (result,) = small_marker(FAST).mark([replace(MarkRequest(gray8(), KEY), **changes)], GRAY)
        assert isinstance(result, MarkError) and result.code == "bad-request"


@pytest.mark.parametrize("aspect", [5.0, 0.2, 1.7])
def test_letters_are_drawn_as_they_are_shown(aspect: float) -> None:
    """Shown with square pixels, the lettering of oblong ones is that of a square image of that size."""
    tall, wide = (240, round(240 * aspect)) if aspect > 1 else (round(240 / aspect), 240)
    scale = shown_scale(aspect)

    def laid(shape: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
        wanted = [(30, lambda height, pitch: text_stamp(("COPY",), height, pitch, scale, rimmed=True))]
        return lay_words(np.ones(shape, bool), wanted, KEY, place(KEY, 0.0), ON_ANATOMY, 10**6, scale).strokes

    found, square = laid((tall, wide), scale), laid((240, 240), (1.0, 1.0))
    rows, columns = (((np.arange(240) + 0.5) * side / 240).astype(int) for side in (tall, wide))
    assert (found[rows][:, columns] == square).mean() > 0.97


def test_oblong_pixels_carry_words_of_that_shape() -> None:
    image = np.rint(phantom(160, 400, 2) * 200.0 + 30.0).astype(np.uint8)
    plain, oblong = marked(MarkRequest(image, KEY)), marked(MarkRequest(image, KEY, aspect=2.5))
    runs = [np.diff(np.flatnonzero(np.diff(one.strokes.ravel().astype(int)))).min() for one in (plain, oblong)]
    assert oblong.strokes.any() and not np.array_equal(plain.strokes, oblong.strokes) and min(runs) >= 1
