"""The policy table: what becomes of each kind of object by default. Data only; `gateway.protect.policy` reads it.

A SOP class that is not listed is blocked. A hazard keeps an image from being marked; some give way where a route says
in so many words what it gives up (`gateway.config.models.OPT_IN_STATEMENTS`), the others always hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_STORAGE = "1.2.840.10008.5.1.4.1.1."


@dataclass(frozen=True)
class Row:
    """The default of one SOP class; `hazards` name what stands against marking it, the first one not given up holds.

    `enhanced`: what is true of each frame stands in functional groups (PS3.3 C.7.6.16), so there must be some.
    """

    action: Literal["mark", "remap", "block"]
    hazards: tuple[str, ...] = ()
    enhanced: bool = False


@dataclass(frozen=True)
class Hazard:
    """Why an image is held; `opt_in` is the key of the route's `[routes.opt_in]` table that gives it up, or ""."""

    reason: str
    opt_in: str = ""


HAZARDS = {
    "mammography": Hazard("mammography is not marked: interpretation requires lossless originals", "mammography"),
    "for-processing": Hazard(
        "For Processing images are input to further processing and are not marked", "for_processing"
    ),
    "quantitative": Hazard(
        "values of this class are measurements (SUV, counts, parameters); a mark would corrupt them", "quantitative"
    ),
}

# Of images of any class: Modality (0008,0060), and Presentation Intent Type (0008,0068).
MODALITY_HAZARDS = {"MG": "mammography", "PT": "quantitative", "NM": "quantitative"}
INTENT_HAZARDS = {"FOR PROCESSING": "for-processing"}

# PS3.4 table B.5-1, without its common root.
_ROWS: tuple[tuple[Row, tuple[str, ...]], ...] = (
    (
        Row("mark"),
        (
            "1",  # Computed Radiography
            "1.1",  # Digital X-Ray, For Presentation
            "2",  # CT
            "4",  # MR
            *("3", "3.1", "6", "6.1"),  # Ultrasound and Ultrasound Multi-frame, retired and current
            *("7", "7.2", "7.3", "7.4"),  # Secondary Capture: single, multi-frame grayscale byte and word, true colour
            *("12.1", "12.2"),  # X-Ray Angiographic, X-Ray Radiofluoroscopic
            *("77.1.1", "77.1.2", "77.1.4", "77.1.5.1", "77.1.5.2"),  # VL endoscopic, microscopic, photo, ophthalmic
            "77.1.7",  # Dermoscopic Photography
        ),
    ),
    (Row("mark", ("mammography",)), ("1.2",)),
    (Row("mark", ("mammography", "for-processing")), ("1.2.1",)),
    (Row("mark", ("mammography",), enhanced=True), ("13.1.3", "13.1.4")),  # tomosynthesis, breast projections
    (Row("mark", ("mammography", "for-processing"), enhanced=True), ("13.1.5",)),
    (Row("mark", ("for-processing",)), ("1.1.1", "1.3.1")),  # DX, intra-oral
    (Row("mark", ("quantitative",)), ("128", "20", "4.2")),  # PET, NM, MR Spectroscopy
    # Enhanced PET and its legacy-converted form, Parametric Map
    (Row("mark", ("quantitative",), enhanced=True), ("128.1", "130", "30")),
    (
        Row("mark", enhanced=True),
        (
            *("2.1", "2.2"),  # CT: enhanced, legacy-converted
            *("4.1", "4.3", "4.4"),  # MR: enhanced, enhanced colour, legacy-converted
            *("12.1.1", "12.2.1"),  # enhanced XA and XRF
            "6.2",  # enhanced ultrasound volume
            *("13.1.1", "13.1.2"),  # X-Ray 3D angiographic, craniofacial
        ),
    ),
    (
        Row("remap"),
        (
            *("66.1", "66.2", "66.3", "66.4", "66.5", "66.6", "67"),  # REG, fiducials, SEG, surface, tracts, RWV map
            "66.7",  # Label Map Segmentation
            *("88.11", "88.22", "88.33", "88.34", "88.35", "88.40", "88.50", "88.59", "88.65", "88.67"),  # SR, KO
            *("88.68", "88.69", "88.70", "88.71", "88.72", "88.73", "88.74", "88.75", "88.76", "88.77"),
            "79.1",  # Macular Grid Thickness and Volume Report: a structured report too (PS3.3 A.35)
            *("11.1", "11.2", "11.3", "11.4", "11.5", "11.6", "11.7", "11.8"),  # presentation states
            *("11.9", "11.10", "11.11", "11.12"),  # the same: volume renderings, variable modality LUT
            *("77.1.5.3", "90.1", "91.1", "131"),  # stereometric, content assessment, bulk annotations, display
        ),
    ),
    # Radiotherapy, by name although the unlisted are blocked too: a rule of a route may ask for `remap` instead.
    (
        Row("block"),
        ("481.1", "481.2", "481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9"),
    ),
)
TABLE = {_STORAGE + suffix: row for row, suffixes in _ROWS for suffix in suffixes}

# A rule may ask for `remap` of these; of images never, since their pixels would leave without a mark. RT Image (481.1)
# is an image, RT Dose (481.2) a grid of values that stays as it is: both hold no references worth an exception.
REMAP_BY_RULE = frozenset(
    _STORAGE + suffix for suffix in ("481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9")
)

# Of what is remapped, only segmentations have pixels (PS3.3 A.51): nobody's picture, and never marked.
MAY_HOLD_PIXELS = frozenset({_STORAGE + "66.4", _STORAGE + "66.7"})

# Structured reports and key object notes: a signature over one is a person's word, which must not fall off in silence.
SIGNED_IS_HELD = (_STORAGE + "88.", _STORAGE + "79.1")
