"""What cannot be marked comes back as its reason, and does not harm the rest of the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

from gateway.errors import ConfigError, MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.packs import SurrogatePack
from gateway.mark.surrogates.store import save_net
from tests.support.mark.samples import BRAIN, FAST, GRAY, KEY, RGB, SHORT, disc, gray8, requests, rgb8, small_pack
from tests.support.mark.samples import small_marker as small


def code_of(request: MarkRequest, profile: object = GRAY, settings: MarkSettings = FAST) -> str:
    """Return the error code of a request that must fail."""
    (result,) = small(settings).mark([request], profile)
    assert isinstance(result, MarkError), result
    return result.code


def test_too_small() -> None:
    assert code_of(MarkRequest(gray8(31, 64), KEY)) == "image-too-small"
    assert isinstance(small(FAST).mark([MarkRequest(gray8(32, 64), KEY)], GRAY)[0], MarkedImage | MarkError)


def test_padding_that_holds_a_picture_is_not_taken_for_blank() -> None:
    assert code_of(MarkRequest(gray8(), KEY, padding=np.ones((96, 96), bool))) == "image-empty"


def test_no_free_area() -> None:
    assert code_of(MarkRequest(gray8(), KEY, roi=disc((96, 96), 0.6))) == "no-free-area"


def test_wrong_channels() -> None:
    assert code_of(MarkRequest(rgb8(), KEY), GRAY) == "wrong-channels"
    assert code_of(MarkRequest(gray8(), KEY), RGB) == "wrong-channels"
    assert code_of(MarkRequest(np.zeros((64, 64, 4), np.uint8), KEY), RGB) == "wrong-channels"


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((64, 64), np.int32)},
        {"image": np.zeros((64, 64), np.float32)},
        {"image": np.zeros(64, np.uint8)},
        {"key": b"short"},
        {"roi": np.zeros((3, 3), bool)},
        {"padding": np.zeros((96, 96), np.uint8)},
        {"display": (5.0, 5.0)},
        {"display": (0.0, float("nan"))},
        {"display": (-1e300, 1e303)},
        {"other_windows": {"W": (0.0, 1e18)}},
        {"valid_range": (0, 4095)},
        {"position": float("inf")},
        {"other_windows": {"W": (2.0, 1.0)}},
    ],
    ids=str,
)
def test_bad_request(change: dict[str, object]) -> None:
    assert code_of(replace(MarkRequest(gray8(), KEY), **change)) == "bad-request"


def test_over_budget() -> None:
    # two stored values between black and white: one step is the whole window
    image = (gray8() > 40).astype(np.uint8)
    request = MarkRequest(image, KEY, display=(0.0, 1.0), roi=disc((96, 96), 0.1))
    assert code_of(request, settings=FAST.model_copy(update={"min_psnr": 60.0})) == "over-budget"


def test_no_surrogate() -> None:
    (request,) = requests()
    (result,) = Marker(SHORT, packs=[]).mark([request], BRAIN)
    assert isinstance(result, MarkError) and result.code == "no-surrogate"
    (result,) = Marker(SHORT.model_copy(update={"surrogates": ("site",)}), packs=[small_pack()]).mark([request], BRAIN)
    assert isinstance(result, MarkError) and result.code == "no-surrogate"


@pytest.mark.parametrize("roi", [disc((96, 96), 0.1), None], ids=["given", "saliency"])
def test_surrogate_with_nan(tmp_path: Path, roi: np.ndarray | None) -> None:
    with safe_open(str(small_pack().files[0]), framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["heads.brain_tumor.weight"][0, 0] = float("nan")
    save_file(tensors, str(tmp_path / "nan.safetensors"), metadata=header)
    pack = SurrogatePack("gray", 1, (tmp_path / "nan.safetensors",), tmp_path / "card.md")
    (result,) = Marker(SHORT, packs=[pack]).mark([MarkRequest(gray8(), KEY, roi=roi)], BRAIN)
    assert isinstance(result, MarkError) and result.code == "surrogate-nan"


@pytest.mark.parametrize("damage", ["missing", "cut", "other channels"])
def test_damaged_weights(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "net.safetensors"
    data = small_pack().files[0].read_bytes()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    pack = SurrogatePack("gray", 1, (path,), tmp_path / "card.md")
    profile = BRAIN
    image = gray8()
    if damage == "other channels":  # of a network that does not take gray and RGB images alike
        save_net(MultiTaskNet("mobile", 1, {"brain_tumor": ("a", "b")}), path, 64)
        pack, profile, image = replace(pack, name="rgb", channels=3), RGB, rgb8()
    (result,) = Marker(SHORT, packs=[pack]).mark([MarkRequest(image, KEY, roi=disc((96, 96), 0.1))], profile)
    assert isinstance(result, MarkError) and result.code == "weights-corrupt"


def test_one_failure_leaves_the_others_alone() -> None:
    good = requests(2)
    bad = MarkRequest(np.zeros((8, 8), np.uint8), KEY)
    seen: list[tuple[int, int]] = []
    results = small().mark([good[0], bad, good[1]], BRAIN, progress=lambda done, of: seen.append((done, of)))
    assert [type(result) for result in results] == [MarkedImage, MarkError, MarkedImage]
    assert np.array_equal(results[2].image, small().mark([good[1]], BRAIN)[0].image)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_settings_keep_the_floors() -> None:
    with pytest.raises(ValidationError, match="26"):
        MarkSettings(tier="lettered", min_psnr=20.0)
    with pytest.raises(ValidationError, match="42"):
        MarkSettings(tier="discreet", min_psnr=41.0)
    with pytest.raises(ValidationError):
        MarkSettings(max_stroke_share=0.2)
    with pytest.raises(ValidationError):
        MarkSettings(strength=3)
    with pytest.raises(ValidationError):
        MarkSettings(text="  ")
    assert [MarkSettings(tier=tier).psnr_floor for tier in ("notice", "lettered", "air", "discreet")] == [
        42,
        26,
        42,
        42,
    ]


def test_unknown_profile_and_device_are_configuration_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        Marker(FAST, packs=[], profiles={"ct": BRAIN}).mark(requests(), "mri")
    assert caught.value.code == "no-profile"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError) as caught:
            Marker(MarkSettings(device="cuda"), packs=[])
        assert caught.value.code == "no-device"
