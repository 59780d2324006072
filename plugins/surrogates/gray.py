"""The shipped surrogate pack for gray images."""

from __future__ import annotations

from gateway.mark import SurrogatePack
from plugins.surrogates.networks import CARD, GRAY_TASKS, files, warning

PACK = SurrogatePack(
    name="gray",
    channels=1,
    files=files("squeezenet", "mobilenetv2", "resnet50-thin", "efficientnet-lite0"),
    card=CARD,
    licence_warning=warning("gray"),
    tasks=GRAY_TASKS,
)
"""Networks of four families with pretrained backbones; see the card for data, split and accuracy."""
