"""The shipped surrogate pack for RGB images."""

from __future__ import annotations

from gateway.mark import SurrogatePack
from plugins.surrogates.networks import CARD, RGB_TASKS, files, warning

PACK = SurrogatePack(
    name="rgb",
    channels=3,
    files=files("squeezenet", "mobilenetv2", "resnet50-thin", "efficientnet-lite0"),
    card=CARD,
    licence_warning=warning("rgb"),
    tasks=RGB_TASKS,
)
"""Networks of four families with pretrained backbones; see the card for data, split and accuracy."""
