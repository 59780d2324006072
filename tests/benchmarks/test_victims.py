"""Victims with pretrained backbones: what their files say is read right, and their networks are of the right shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gateway.errors import ConfigError
from gateway.mark import load_packs
from gateway.mark.surrogates.nets import FAMILIES, MultiTaskNet
from gateway.training.finetune import FINE_TUNINGS
from gateway.training.sources import SOURCES
from tests.benchmarks.mark.nets_victims import HELD, VICTIM_FAMILIES
from tests.benchmarks.mark.pretrained_victims import TUNINGS
from tests.benchmarks.mark.victim_sources import PRETRAINED_VICTIMS, WHEELS, tfjs_values
from tests.benchmarks.mark.victims import RECIPES, lineage_of

MANIFEST = (
    'weights:[{name:"a/kernel",shape:[2,3],dtype:"float32",quantization:{min:-1.5,scale:.5,dtype:"uint8"}},'
    '{name:"b/beta",shape:[2],dtype:"float32",quantization:{min:.25,scale:1e-2,dtype:"uint8"}}]'
)


def test_bytes_of_a_script_become_weights() -> None:
    found = tfjs_values(MANIFEST, bytes([0, 1, 2, 3, 4, 255, 0, 100]))
    assert np.allclose(found["a/kernel"], [[-1.5, -1.0, -0.5], [0.0, 0.5, 126.0]])
    assert np.allclose(found["b/beta"], [0.25, 1.25])
    with pytest.raises(ConfigError) as caught:
        tfjs_values(MANIFEST, bytes(9))
    assert caught.value.code == "weights-corrupt"


@pytest.mark.parametrize(("family", "weights"), [("inceptionv3", 21.8e6), ("xception", 20.8e6), ("clip-b16", 85.8e6)])
def test_families_have_the_published_number_of_weights(family: str, weights: float) -> None:
    with torch.device("meta"):
        net = MultiTaskNet(family, 3, {"t": ("a", "b")}, shared=True, families=VICTIM_FAMILIES)
    assert sum(one.numel() for one in net.parameters()) == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize("family", ["inceptionv3", "xception"])
def test_gray_and_rgb_images_pass(family: str) -> None:
    net = MultiTaskNet(family, 3, {"t": ("a", "b")}, shared=True, families=VICTIM_FAMILIES).eval()
    gray = torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        output = net(gray)
        assert torch.equal(output.logits["t"], net(gray.expand(-1, 3, -1, -1)).logits["t"])
    assert output.logits["t"].shape == (1, 2) and bool(torch.isfinite(output.logits["t"]).all())


def test_victims_are_of_families_and_files_that_no_packaged_surrogate_has() -> None:
    packaged = {file.stem for pack in load_packs().values() for file in pack.files}
    assert packaged and packaged <= set(FINE_TUNINGS)  # a file is named for its family
    assert set(TUNINGS) == set(PRETRAINED_VICTIMS) <= set(RECIPES)
    assert not set(HELD) & set(FAMILIES) and not set(TUNINGS) & packaged
    assert not {one.sha256 for one in WHEELS.values()} & {SOURCES[family].sha256 for family in packaged}
    assert {lineage_of(family) for family in (*TUNINGS, *FINE_TUNINGS)} == {"imagenet"}
    assert lineage_of("densenet") == "scratch"
