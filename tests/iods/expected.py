"""What the default policy table must make of each made object: written here by hand, not read from the table."""

from __future__ import annotations

from typing import NamedTuple


class Expected(NamedTuple):
    """action: mark, remap, hold or block; code: why it is held or blocked."""

    action: str
    code: str = ""


_GROUPS: tuple[tuple[Expected, tuple[str, ...]], ...] = (
    (
        Expected("mark"),
        (
            *("ct0", "ct1", "ct2", "mr", "cr", "dx-presentation", "xa", "rf"),
            *("us", "us-multi-frame", "us-retired", "us-multi-frame-retired"),
            *("endoscopic", "microscopic", "photographic", "dermoscopic", "op-8", "op-16"),
            *("sc", "sc-byte", "sc-word", "sc-colour"),
            *("enhanced-ct", "legacy-ct", "enhanced-mr", "enhanced-mr-colour", "legacy-mr"),
            *("enhanced-xa", "enhanced-rf", "us-volume", "xa-3d", "craniofacial-3d"),
            *("htj2k", "jpeg-ls-planes", "jpeg-ls-samples", "jpeg-ls-near-lossless"),
        ),
    ),
    (
        Expected("hold", "mammography"),
        (
            *("mg-presentation", "mg-processing", "tomosynthesis"),
            *("breast-projection-presentation", "breast-projection-processing"),
        ),
    ),
    (Expected("hold", "for-processing"), ("dx-processing", "io-processing")),
    (
        Expected("hold", "quantitative"),
        ("pet", "nm", "enhanced-pet", "legacy-pet", "parametric-map", "spectroscopy"),
    ),
    (
        Expected("remap"),
        (
            *("registration", "deformable-registration", "fiducials", "segmentation", "surface-segmentation"),
            *("label-map", "tracts", "value-map", "stereometric", "content-assessment", "bulk-annotations"),
            *("sr-basic-text", "sr-enhanced", "sr-comprehensive", "sr-comprehensive-3d", "sr-extensible"),
            *("sr-procedure-log", "sr-mammography-cad", "sr-chest-cad", "sr-colon-cad", "sr-dose", "sr-enhanced-dose"),
            *("sr-radiopharmaceutical-dose", "sr-patient-dose", "sr-implantation-plan", "sr-acquisition-context"),
            *("sr-echo", "sr-planned-agent", "sr-performed-agent", "sr-waveform-annotation", "sr-macular-grid"),
            *("key-object", "structured-display", "pr-grayscale", "pr-colour", "pr-pseudo-colour", "pr-blending"),
            *("pr-xa", "pr-planar-mpr", "pr-compositing", "pr-advanced-blending", "pr-variable-modality-lut"),
            *("pr-volume-rendering", "pr-segmented-volume-rendering", "pr-multiple-volume-rendering"),
        ),
    ),
    (
        Expected("block", "blocked-by-policy"),
        (
            *("rt-image", "rt-dose", "rt-structure-set", "rt-plan", "rt-ion-plan"),
            *("rt-beams-record", "rt-brachy-record", "rt-summary-record", "rt-ion-record"),
            *("ecg", "pdf", "cda", "stl", "video", "raw-data", "ophthalmic-tomography"),
            *("whole-slide", "slide-coordinates", "io-presentation", "sc-one-bit"),
        ),
    ),
)
EXPECTED = {name: expected for expected, names in _GROUPS for name in names}


def named(action: str) -> list[str]:
    """Names of the objects with this expected action."""
    return [name for name, expected in EXPECTED.items() if expected.action == action]
