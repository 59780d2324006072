"""A site's own networks: every format answers as the network does, can be misled, is refused when wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gateway.errors import ConfigError, MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.foreign import read_pack, read_packs
from gateway.mark.surrogates.foreign.pack import SitePack
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.objective import Target, ViewGroup, draw_views, margins
from gateway.mark.surrogates.store import save_net
from tests.conftest import missing
from tests.support.mark.foreign_models import Classifier, describe, packs, plain, write_onnx, write_torchscript
from tests.support.mark.samples import BRAIN, CPU, KEY, disc, gray8, phantom, small_pack

FORMATS = ("torchscript", "onnx", "monai")
LIBRARIES = {"onnx": ("onnx", "onnx2torch"), "monai": ("monai",)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pack descriptions by format."""
    for names in LIBRARIES.values():
        for name in names:
            if not _is_installed(name):
                missing(name)
    return packs(tmp_path_factory.mktemp("packs"))


def _is_installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def code_of(path: Path) -> str:
    """Return the error code of a pack that must be refused."""
    with pytest.raises(ConfigError) as caught:
        read_pack(path, "site").check(CPU)
    return caught.value.code


def pictures(count: int = 2, side: int = 64) -> torch.Tensor:
    """Return (count, 1, side, side) phantoms."""
    return torch.from_numpy(np.stack([phantom(side, side, seed) for seed in range(count)])[:, None]).float()


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_answers_are_those_of_the_network(written: dict[str, Path], kind: str) -> None:
    (member,) = read_pack(written[kind], "site").check(CPU)
    x = pictures()
    seen = (x - 0.4) / 0.3 if kind == "torchscript" else x
    with torch.no_grad():
        wanted = Classifier()(seen)
        output = member.net(x)
    assert torch.allclose(output.logits["lesion"], wanted, atol=1e-5)
    assert member.name == "site/net" and member.net.tasks == {"lesion": ("none", "lesion")}
    assert (output.middle is None) == (kind == "torchscript")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_mark_lowers_the_margin(written: dict[str, Path], kind: str) -> None:
    """The product's own marker, with nothing but this network to go by, on an image that it is sure of."""
    pack = read_pack(written[kind], "site")
    settings = MarkSettings(steps=8, device="cpu", surrogates=("site",))
    request = MarkRequest(gray8(), KEY, roi=disc((96, 96), 0.15))
    (marked,) = Marker(settings, packs=[small_pack(), pack]).mark([request], BRAIN)
    assert isinstance(marked, MarkedImage), marked
    (static,) = Marker(settings.model_copy(update={"steps": 0}), packs=[pack]).mark([request], BRAIN)
    (member,) = pack.check(CPU)

    def margin(image: np.ndarray) -> float:
        with torch.no_grad():
            output = member.net(torch.from_numpy(image / 255.0)[None, None].float())
        return float(margins(output, {"lesion": believed}))

    with torch.no_grad():
        clean = member.net(torch.from_numpy(request.image / 255.0)[None, None].float())
    believed = clean.logits["lesion"].softmax(1)
    before = margin(request.image)
    assert before > 0.0
    assert margin(marked.image) < min(before, margin(static.image))


@pytest.mark.parametrize("kind", FORMATS)
def test_gradient_points_down_the_margin(written: dict[str, Path], kind: str) -> None:
    """A small step against the gradient lowers the loss by about what the gradient promises."""
    (member,) = read_pack(written[kind], "site").check(CPU)
    clean = pictures(1)
    views = draw_views([np.random.default_rng(0)], (64, 64), 1, 1, CPU)
    target = Target(member, clean, views, consensus(clean, [member], ("lesion",))[0])
    x = (clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).requires_grad_(True)
    loss, _ = target.loss(x, 0)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        change = float(loss - target.loss(x - step, 0)[0])
    assert change == pytest.approx(1e-3 * float(gradient.norm()), rel=0.2)


def test_feature_term_counts_where_a_layer_is_named(written: dict[str, Path]) -> None:
    """With a layer the loss has the cosine term (2 on the clean image), without one it is the margin alone."""
    clean = pictures(1)
    whole = [ViewGroup(torch.tensor([[[0.0, 1.0, 0.0, 1.0]]]), 1.0)]
    for kind, extra in (("torchscript", 0.0), ("onnx", 2.0), ("monai", 2.0)):
        (member,) = read_pack(written[kind], "site").check(CPU)
        loss, margin = Target(member, clean, whole, consensus(clean, [member], ())[0]).loss(clean, 0)
        assert float(loss - margin) == pytest.approx(extra, abs=1e-4), kind


def test_results_repeat(written: dict[str, Path]) -> None:
    """Two loadings and many calls give the same bits: nothing is rewritten or fused on the way."""
    first = [read_pack(written[kind], "site").check(CPU)[0].net for kind in FORMATS]
    again = [read_pack(written[kind], "site").check(CPU)[0].net for kind in FORMATS]
    x = pictures()
    for one, other in zip(first, again, strict=True):
        wanted = one(x).logits["lesion"]
        assert all(torch.equal(other(x).logits["lesion"], wanted) for _ in range(4))


def test_own_format(tmp_path: Path) -> None:
    save_net(MultiTaskNet("convnext", 1, {"stone": ("no", "yes")}), tmp_path / "net.safetensors", 96)
    path = describe(tmp_path, 'format = "miad"\nfile = "net.safetensors"\nname = "ours"')
    (member,) = read_pack(path, "site").check(CPU)
    assert (member.name, member.input_size) == ("site/ours", 96)
    assert member.asked(("brain_tumor",)) == (
        "stone",
    )  # no head of the profile's: a site's network is asked all it knows
    save_net(MultiTaskNet("efficientnet-lite1", 1, {"stone": ("no", "yes")}), tmp_path / "net.safetensors", 96)
    assert code_of(path) == "reserved-family"


@pytest.mark.parametrize(("output", "probabilities"), [("probabilities", True), ("logits", False)])
def test_probabilities_give_the_same_margin_as_logits(tmp_path: Path, output: str, probabilities: bool) -> None:
    write_torchscript(tmp_path / "net.pt", Classifier(probabilities=probabilities))
    path = describe(tmp_path, plain("torchscript", "net.pt", f'output = "{output}"'))
    (member,) = read_pack(path, "site").check(CPU)
    with torch.no_grad():
        logits = Classifier()(pictures(1))
        margin = margins(member.net(pictures(1)), {"lesion": torch.tensor([[0.0, 1.0]])})
    assert float(margin) == pytest.approx(float(logits[0, 1] - logits[0, 0]), abs=1e-3)


def test_each_class_of_a_multilabel_network_is_a_question(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "net.pt", Classifier(outputs=3))
    body = plain("torchscript", "net.pt", 'output = "multilabel-logits"').replace('"none"', '"mass", "node"')
    (member,) = read_pack(describe(tmp_path, body), "site").check(CPU)
    assert list(member.net.tasks) == ["lesion.mass", "lesion.node", "lesion.lesion"]
    with torch.no_grad():
        logits, output = Classifier(outputs=3)(pictures()), member.net(pictures())
    yes = torch.tensor([[0.0, 1.0]] * 2)
    for index, task in enumerate(member.net.tasks):
        one = {task: yes}
        assert torch.allclose(margins(output, one), logits[:, index], atol=1e-5)


def test_range_and_repeated_channels(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "net.pt", Classifier(3), channels=3)
    more = "input_channels = 3\nrange = [-1024.0, 1024.0]\nmean = [1.0, 2.0, 3.0]\nstd = [100.0, 200.0, 400.0]"
    (member,) = read_pack(describe(tmp_path, plain("torchscript", "net.pt", more)), "site").check(CPU)
    x = pictures()
    channel = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None]
    wanted = Classifier(3)((x * 2048.0 - 1024.0 - channel) / (100.0 * 2.0 ** (channel - 1.0)))
    assert torch.allclose(member.net(x).logits["lesion"], wanted, atol=1e-4)


def test_a_site_network_is_misled_where_the_route_names_it(written: dict[str, Path]) -> None:
    """A head with a name of its own is asked in a site's pack, and never in a shipped one."""
    (member,) = read_pack(written["torchscript"], "site").check(CPU)
    (shipped,) = small_pack().load(CPU)
    assert member.asked(("brain_tumor",)) == ("lesion",)
    assert shipped.asked(("lesion",)) == ()
    assert shipped.asked(("brain_tumor",)) == ("brain_tumor",)


# --- what is wrong is said, with its code


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", ["missing", "cut", "pickle"])
def test_damaged_files(written: dict[str, Path], tmp_path: Path, kind: str, damage: str) -> None:
    source = next(path for path in written[kind].parent.iterdir() if path.suffix != ".toml")
    if damage == "cut":
        (tmp_path / source.name).write_bytes(source.read_bytes()[:-200])
    elif damage == "pickle":
        torch.save(Classifier(), tmp_path / source.name)
    (tmp_path / "pack.toml").write_text(written[kind].read_text())
    assert code_of(tmp_path / "pack.toml") == ("weights-missing" if damage == "missing" else "weights-corrupt")


class Evil:
    """Unpickling it would make a file: what a hostile weights file may try."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_never_runs(written: dict[str, Path], tmp_path: Path) -> None:
    torch.save({"features.conv0.weight": Evil(tmp_path / "ran")}, tmp_path / "net.pt")
    path = tmp_path / "pack.toml"
    path.write_text(written["monai"].read_text().replace("net.safetensors", "net.pt"))
    assert code_of(path) == "weights-corrupt"
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_of_torch_is_read(written: dict[str, Path], tmp_path: Path) -> None:
    torch.save({"state_dict": load_file(written["monai"].parent / "net.safetensors")}, tmp_path / "net.pt")
    path = tmp_path / "pack.toml"
    path.write_text(written["monai"].read_text().replace("net.safetensors", "net.pt"))
    one, other = (read_pack(p, "site").check(CPU)[0].net for p in (path, written["monai"]))
    assert torch.equal(one(pictures()).logits["lesion"], other(pictures()).logits["lesion"])


@pytest.mark.parametrize("kind", FORMATS)
def test_nan(written: dict[str, Path], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pack.toml"
    path.write_text(written[kind].read_text().replace("net.bin", "net.pt"))
    if kind == "monai":
        weights = load_file(written[kind].parent / "net.safetensors")
        weights["class_layers.out.bias"][0] = float("nan")
        save_file(weights, tmp_path / "net.safetensors")
    else:
        path = describe(tmp_path, plain("torchscript", "net.pt"))
        model = Classifier()
        with torch.no_grad():
            model.head.bias[0] = float("nan")
        write_torchscript(tmp_path / "net.pt", model)
    assert code_of(path) == "surrogate-nan"
    with pytest.raises(MarkError) as caught:
        read_pack(path, "site").load(CPU)
    assert caught.value.code == "surrogate-nan"


def test_wrong_channels(tmp_path: Path, written: dict[str, Path]) -> None:
    write_torchscript(tmp_path / "net.pt", Classifier(3), channels=3)
    assert code_of(describe(tmp_path, plain("torchscript", "net.pt"))) == "wrong-channels"
    description = written["onnx"].read_text().replace("channels = 1", "channels = 3")
    (written["onnx"].parent / "rgb.toml").write_text(description)
    assert code_of(written["onnx"].parent / "rgb.toml") == "wrong-channels"
    save_net(MultiTaskNet("vgg", 3, {"t": ("a", "b")}), tmp_path / "ours.safetensors", 96)
    assert code_of(describe(tmp_path, 'format = "miad"\nfile = "ours.safetensors"')) == "wrong-channels"


def test_wrong_output_and_no_gradient(tmp_path: Path) -> None:
    write_torchscript(tmp_path / "net.pt", Classifier(outputs=5))
    assert code_of(describe(tmp_path, plain("torchscript", "net.pt"))) == "wrong-output"

    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Classifier()(x.mul(4).round())

    write_torchscript(tmp_path / "net.pt", Rounded())
    assert code_of(describe(tmp_path, plain("torchscript", "net.pt"))) == "no-gradient"


def test_wrong_layer_architecture_and_operator(written: dict[str, Path], tmp_path: Path) -> None:
    folder = written["monai"].parent
    for old, new, code in (
        ("features.denseblock1", "features.block9", "no-layer"),
        ('"DenseNet"', '"DenseNot"', "bad-architecture"),
        ("growth_rate", "growth", "bad-architecture"),
        ("growth_rate = 8", "growth_rate = 4", "weights-corrupt"),
    ):
        (folder / "other.toml").write_text(written["monai"].read_text().replace(old, new))
        assert code_of(folder / "other.toml") == code, new
    write_onnx(tmp_path / "net.onnx", operator="Acosh")
    assert code_of(describe(tmp_path, plain("onnx", "net.onnx"))) == "unsupported-operator"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "models[0].format: is missing"),
        ('format = "keras"\nfile = "x"', "must be 'miad'"),
        (plain("torchscript", "x", "sizes = 3"), "line 8, models[0].sizes: unknown key"),
        (plain("torchscript", "x", "input_chanels = 3"), "did you mean input_channels?"),
        (plain("torchscript", "x", 'layer = "a"'), "layer means nothing"),
        (plain("torchscript", "x", "mean = [1.0, 2.0]"), "one value, or one per input channel"),
        (plain("torchscript", "x", "std = [0.0]"), "models[0].std[0]: must be greater than 0"),
        (plain("torchscript", "x", "range = [1.0, 1.0]"), "black and white must differ"),
        (plain("monai", "x"), "architecture is missing"),
        (plain("torchscript", "x").replace('"none", ', ""), "at least two"),
        ('format = "onnx"\nfile = "x"', "task is missing"),
        ("format = ", "is not TOML"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_pack(describe(tmp_path, body), "site")
    assert caught.value.code == "bad-pack"
    assert words in caught.value.message


def test_missing_description_and_taken_name(written: dict[str, Path], tmp_path: Path) -> None:
    assert code_of(tmp_path / "none.toml") == "pack-missing"
    with pytest.raises(ConfigError) as caught:
        read_packs({"gray": written["monai"]}, taken=["gray"])
    assert caught.value.code == "pack-name-taken"
    (pack,) = read_packs({"site": written["monai"]}, taken=["gray"])
    assert isinstance(pack, SitePack) and pack.licence_warning == ""


@pytest.mark.parametrize("kind", ["onnx", "monai", "torchxrayvision"])
def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"")
    for name in ("onnx", "monai", "monai.networks.nets", "torchxrayvision"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed: the import fails
    more = {"onnx": "", "monai": 'architecture = "DenseNet"', "torchxrayvision": 'weights = "densenet121-res224-all"'}
    with pytest.raises(ConfigError) as caught:
        read_pack(describe(tmp_path, plain(kind, "x", more[kind])), "site").check(CPU)
    assert caught.value.code == "extra-missing"
    assert f"miad-gateway[{kind}]" in caught.value.hint


def test_importing_the_mark_brings_no_foreign_library() -> None:
    foreign = "{'onnx', 'onnx2torch', 'monai', 'torchvision'}"
    code = f"import sys, gateway.mark.surrogates.foreign; print({foreign} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


XRAY = """
import sys, types
for name in ("torchvision", "torchvision.transforms", "torchvision.models"):  # empty: its DenseNet uses none of it
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
sys.modules["torchvision"].models = sys.modules["torchvision.models"]
import torch
from pathlib import Path
import torchxrayvision
from gateway.mark.surrogates.foreign import read_pack
folder = Path(sys.argv[1])
torch.manual_seed(0)
small = dict(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8)
model = torchxrayvision.models.DenseNet(num_classes=18, **small).eval()
torch.save(model, folder / "net.pt")  # the published files are whole pickled networks as well
(member,) = read_pack(folder / "pack.toml", "site").check("cpu")
x = torch.rand(2, 1, 224, 224)
with torch.no_grad():
    wanted = model(x * 2048.0 - 1024.0)
    output = member.net(x)
labels = torchxrayvision.models.model_urls["densenet121-res224-nih"]["labels"]
assert list(output.logits) == ["chest." + name for name in labels if name], list(output.logits)
for name, logits in output.logits.items():
    column = wanted[:, labels.index(name.split(".")[1])]
    assert torch.allclose(logits[:, 1] - logits[:, 0], column, atol=1e-4), name
assert output.middle is not None and output.middle.ndim == 4
print("same answers", member.input_size)
"""


def test_torchxrayvision_through_its_own_classes(tmp_path: Path) -> None:
    """Small weights laid out as the published files; torchvision, which its DenseNets do not use, is left empty."""
    for name in ("torchxrayvision", "pandas", "requests", "tqdm"):
        if not _is_installed(name):
            missing(name)
    body = 'format = "torchxrayvision"\nfile = "net.pt"\ntask = "chest"\nweights = "densenet121-res224-nih"\n'
    body += "arguments = {growth_rate = 4, block_config = [1, 1, 1, 1], num_init_features = 8}"
    describe(tmp_path, body)
    done = subprocess.run([sys.executable, "-c", XRAY, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "same answers 224" in done.stdout
