"""The shipped surrogate pack for gray images (brain MR, chest radiographs, chest CT); model card: ``gray.md``."""

from __future__ import annotations

from pathlib import Path

from gateway.mark import SurrogatePack

_FOLDER = Path(__file__).parent
_NETS = ("efficientnet-lite0", "mobile", "vgg", "densenet", "vit")

PACK = SurrogatePack(
    name="gray",
    channels=1,
    files=tuple(_FOLDER / f"gray-{net}.safetensors" for net in _NETS),
    card=_FOLDER / "gray.md",
    licence_warning=(
        "surrogate pack 'gray' is for evaluation only: the licences of its training images are mixed, "
        "non-commercial or unstated; train a pack on the site's own images"
    ),
)
"""Networks of five families; see the card for data, split and accuracy."""
