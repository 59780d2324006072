"""Arrays in, marked arrays out. Knows nothing of DICOM, of files (but packaged weights) or of who holds which key.

    marker = Marker(MarkSettings(tier="lettered"))
    results = marker.mark([MarkRequest(image=frame, key=key)], profile=choose_profile(traits))

A plug-in (modality profile, surrogate pack, generator pack) needs nothing else: it imports from here alone.

Each result is a ``MarkedImage`` or the ``MarkError`` that says why there is none.
"""

from __future__ import annotations

from gateway.mark.marker import Marker
from gateway.mark.methods.generator_packs import GeneratorPack
from gateway.mark.profiles import choose_profile, load_profiles
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.nets import NetOutput
from gateway.mark.surrogates.packs import Network, Surrogate, SurrogatePack, load_packs
from gateway.mark.types import (
    Curve,
    ImageTraits,
    MarkedImage,
    MarkRequest,
    ModalityProfile,
    Quality,
    RelativeWindow,
    Window,
)
from gateway.mark.visibility.ground import BLANK, UNMARKED

__all__ = [
    "BLANK",
    "UNMARKED",
    "Curve",
    "GeneratorPack",
    "ImageTraits",
    "MarkRequest",
    "MarkSettings",
    "MarkedImage",
    "Marker",
    "ModalityProfile",
    "NetOutput",
    "Network",
    "Quality",
    "RelativeWindow",
    "Surrogate",
    "SurrogatePack",
    "Window",
    "choose_profile",
    "load_packs",
    "load_profiles",
]
