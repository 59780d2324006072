"""Presentation states of every class (PS3.3 A.33)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset

from tests.iods.parts import MAKER, code, composite, item, reference, srgb, uid
from tests.support.dicom import studies

# Volumetric presentation states (PS3.3 A.80): planar reconstructions and volume renderings.
_VOLUMETRIC = {
    "pr-planar-mpr": "11.6",
    "pr-compositing": "11.7",
    "pr-volume-rendering": "11.9",
    "pr-segmented-volume-rendering": "11.10",
    "pr-multiple-volume-rendering": "11.11",
}


def states(images: Sequence[Dataset], colour: Dataset) -> dict[str, Dataset]:
    """Name -> data set. images: CT slices of one series; colour: an RGB image."""
    gray = studies.presentation_state(images)
    made = {
        "pr-grayscale": gray,
        "pr-colour": hd.pr.ColorSoftcopyPresentationState([colour], icc_profile=srgb(), **_state("pr-colour")),
        "pr-pseudo-colour": hd.pr.PseudoColorSoftcopyPresentationState(
            images, palette_color_lut_transformation=_palette(), icc_profile=srgb(), **_state("pr-pseudo-colour")
        ),
        "pr-blending": _blending(images),
        "pr-xa": _as(gray, "11.5", "pr-xa"),
        "pr-advanced-blending": _advanced(images),
        "pr-variable-modality-lut": _as(gray, "11.12", "pr-variable-modality-lut"),
    }
    made |= {name: _volumetric(images, suffix, name) for name, suffix in _VOLUMETRIC.items()}
    for ds in made.values():
        ds.BodyPartExamined = "HEAD"  # unpaired: no laterality is asked for
    return made


def _state(name: str) -> dict[str, object]:
    """What highdicom asks for, of any presentation state."""
    own = {"series_instance_uid": uid(name, "series"), "sop_instance_uid": uid(name, "instance")}
    return {**own, "series_number": 1, "instance_number": 1, "content_label": "MADE", **MAKER}


def _as(ds: Dataset, suffix: str, name: str) -> Dataset:
    """The same under another SOP class and other UIDs."""
    ds = copy.deepcopy(ds)
    other = composite(suffix, "PR", name)
    ds.SOPClassUID, ds.SOPInstanceUID = other.SOPClassUID, other.SOPInstanceUID
    ds.SeriesInstanceUID = other.SeriesInstanceUID
    return ds


def _palette() -> hd.PaletteColorLUTTransformation:
    ramp = np.linspace(0, 1, 256)
    luts = (
        hd.PaletteColorLUT(0, np.rint(65535 * ramp**power).astype(np.uint16), color=color)
        for color, power in (("red", 1), ("green", 2), ("blue", 4))
    )
    return hd.PaletteColorLUTTransformation(*luts, palette_color_lut_uid=uid("palette"))


def _advanced(images: Sequence[Dataset]) -> Dataset:
    blending = [
        hd.pr.AdvancedBlending(
            referenced_images=images, blending_input_number=number, palette_color_lut_transformation=_palette()
        )
        for number in (1, 2)
    ]
    display = hd.pr.BlendingDisplay(
        blending_mode="EQUAL", blending_display_inputs=[hd.pr.BlendingDisplayInput(number) for number in (1, 2)]
    )
    return hd.pr.AdvancedBlendingPresentationState(
        images, blending, [display], icc_profile=srgb(), **_state("pr-advanced-blending")
    )


def _labelled(ds: Dataset) -> None:
    ds.PresentationCreationDate, ds.PresentationCreationTime = "20260101", "120000"
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "MADE", "", ""


def _series(images: Sequence[Dataset]) -> Dataset:
    return item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedImageSequence=[reference(i) for i in images])


def _blending(images: Sequence[Dataset]) -> Dataset:
    """The same slices below and above each other (PS3.3 C.11.14)."""
    ds = composite("11.4", "PR", "pr-blending")
    _labelled(ds)
    ds.BlendingSequence = [
        item(
            BlendingPosition=position,
            StudyInstanceUID=ds.StudyInstanceUID,
            ReferencedSeriesSequence=[_series(images)],
            RescaleIntercept=0,
            RescaleSlope=1,
            RescaleType="HU",
            SoftcopyVOILUTSequence=[item(WindowCenter=40, WindowWidth=400)],
        )
        for position in ("UNDERLYING", "SUPERIMPOSED")
    ]
    ds.RelativeOpacity = 0.5
    ds.DisplayedAreaSelectionSequence = [
        item(
            ReferencedImageSequence=[reference(image) for image in images],
            DisplayedAreaTopLeftHandCorner=[1, 1],
            DisplayedAreaBottomRightHandCorner=[128, 128],
            PresentationSizeMode="SCALE TO FIT",
            PresentationPixelAspectRatio=[1, 1],
        )
    ]
    ds.update(_palette())
    ds.ICCProfile = srgb()
    return ds


def _volumetric(images: Sequence[Dataset], suffix: str, name: str) -> Dataset:
    """Planar MPR, grayscale or compositing, or a rendering: the same input for all."""
    ds = composite(suffix, "PR", name)
    _labelled(ds)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = images[0].FrameOfReferenceUID, ""
    ds.PresentationDisplayCollectionUID = uid(name, "collection")
    ds.PixelPresentation = "MONOCHROME" if suffix == "11.6" else "TRUE_COLOR"
    ds.ViewModifierCodeSequence = []
    one = item(
        VolumetricPresentationInputNumber=1,
        VolumetricPresentationInputIndex=1,
        PresentationInputType="VOLUME",
        ReferencedImageSequence=[reference(image) for image in images],
    )
    ds.VolumetricPresentationStateInputSequence = [one]
    if suffix in ("11.6", "11.7"):
        ds.MultiPlanarReconstructionStyle, ds.MPRThicknessType, ds.RenderingMethod = "PLANAR", "THIN", ""
    ds.ReferencedSeriesSequence = [_series(images)]
    ds.AnatomicRegionSequence = [code("69536005", "SCT", "Head")]
    return ds
