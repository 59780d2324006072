"""Which objects are marked, held or never forwarded. Unlisted means blocked; nothing falls through to "as it is".

The defaults follow the hazards of each class of object: a mark corrupts quantitative values (PET, NM, RT dose) and
must not reach mammography readers; objects that only refer to images (SR, PR, KO, SEG) would point at originals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.config.models import Route
from gateway.dicom.encoded import InstanceHeader
from gateway.errors import HoldError
from gateway.mark import ImageTraits, ModalityProfile, choose_profile

_STORAGE = "1.2.840.10008.5.1.4.1.1."

# SOP classes whose pixels are marked when a modality profile fits (PS3.4 B.5).
_MARKED = {
    _STORAGE + suffix
    for suffix in (
        "1",  # Computed Radiography
        "1.1",  # Digital X-Ray, For Presentation
        "2",  # CT
        "4",  # MR
        "3", "3.1", "6", "6.1",  # Ultrasound and Ultrasound Multi-frame, retired and current
        "7", "7.2", "7.3", "7.4",  # Secondary Capture: single, multi-frame grayscale byte and word, true colour
        "12.1", "12.2",  # X-Ray Angiographic, X-Ray Radiofluoroscopic
        "77.1.1", "77.1.2", "77.1.4", "77.1.5.1", "77.1.5.2",  # VL endoscopic, microscopic, photographic, ophthalmic
    )
}  # fmt: skip

# Held: (code, the reason that the operator reads, SOP classes).
_HELD_TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "mammography",
        "mammography is not marked: interpretation requires lossless originals",
        ("1.2", "1.2.1", "13.1.3", "13.1.4", "13.1.5"),
    ),
    (
        "for-processing",
        "For Processing images are input to further processing and are not marked",
        ("1.1.1", "1.3.1"),
    ),
    (
        "quantitative",
        "values of this class are measurements (SUV, counts, parameters); a mark would corrupt them",
        ("128", "128.1", "130", "20", "30", "4.2"),
    ),
    (
        "per-frame-groups",
        "enhanced multi-frame objects are not marked by this version",
        ("2.1", "2.2", "4.1", "4.3", "4.4", "12.1.1", "12.2.1", "6.2", "13.1.1", "13.1.2"),
    ),
    (
        "references-originals",
        "this object refers to images, and this version does not map its references",
        (
            *("66.1", "66.2", "66.4", "66.5", "66.6", "67"),  # REG, fiducials, SEG, surface, tracts, RWV map
            *("88.11", "88.22", "88.33", "88.34", "88.35", "88.40", "88.50", "88.59", "88.65", "88.67"),  # SR, KO
            *("88.68", "88.69", "88.70", "88.71", "88.72", "88.73", "88.74", "88.75", "88.76"),
            *("11.1", "11.2", "11.3", "11.4", "11.5", "11.6", "11.7", "11.8"),  # presentation states
        ),
    ),
)
_HELD = {_STORAGE + suffix: (code, reason) for code, reason, suffixes in _HELD_TABLE for suffix in suffixes}
_HELD_MODALITY = {"PT": _HELD[_STORAGE + "128"], "NM": _HELD[_STORAGE + "20"], "MG": _HELD[_STORAGE + "1.2"]}


@dataclass(frozen=True)
class Decision:
    """What happens to one instance on one route.

    profile is set when action is "mark"; code and reason when it is "hold".
    """

    action: Literal["mark", "hold", "pass"]
    profile: ModalityProfile | None = None
    code: str = ""
    reason: str = ""

    def as_error(self) -> HoldError:
        """The hold as an error, to be shown and stored."""
        return HoldError(self.code, self.reason)


def decide(header: InstanceHeader, route: Route, profiles: Mapping[str, ModalityProfile]) -> Decision:
    """Decide from the header alone; the pixels may still turn out to be unmarkable."""
    if route.action == "pass":
        return Decision("pass")
    if route.action == "hold":
        return Decision("hold", code="route-holds", reason=f"route {route.name} holds everything for a person")
    if header.sop_class_uid in _HELD:
        code, reason = _HELD[header.sop_class_uid]
        return Decision("hold", code=code, reason=reason)
    if header.sop_class_uid not in _MARKED:
        return Decision("hold", code="blocked-by-policy", reason="this SOP class is not listed: it never leaves")
    if not header.has_pixel_data:
        return Decision("hold", code="no-pixels", reason="an image object without pixel data")
    if header.modality in _HELD_MODALITY:
        code, reason = _HELD_MODALITY[header.modality]
        return Decision("hold", code=code, reason=reason)
    if header.presentation_intent == "FOR PROCESSING":
        code, reason = _HELD[_STORAGE + "1.1.1"]
        return Decision("hold", code=code, reason=reason)
    profile = choose_profile(traits_of(header), profiles)
    if profile is None:
        return Decision("hold", code="no-profile", reason="no modality profile takes this kind of image")
    return Decision("mark", profile=profile)


def policy_digest(decision: Decision, route: Route) -> str:
    """SHA-256 of everything decided that shapes the derived bytes; two decisions with one digest give one copy."""
    shaping = {
        "action": decision.action,
        "profile": decision.profile.name if decision.profile else None,
        "mark": route.mark.model_dump(mode="json") if decision.action == "mark" else None,
        "source_reference": route.source_reference,
    }
    if route.restoration != "escrow":  # left out otherwise: digests of records made before there was a choice stay
        shaping["restoration"] = route.restoration
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def traits_of(header: InstanceHeader) -> ImageTraits:
    """The header as modality profiles see it."""
    return ImageTraits(
        modality=header.modality,
        sop_class_uid=header.sop_class_uid,
        photometric=header.photometric,
        samples=header.samples,
        bits_stored=header.bits_stored,
        signed=header.signed,
        body_part=header.body_part,
    )
