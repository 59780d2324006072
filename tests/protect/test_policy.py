"""The policy table: what is marked, what is held and why; what is not listed never leaves."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pydicom.uid as uids
import pytest
from pydicom import Dataset

from gateway.config.models import OPT_IN_STATEMENTS, Mark, OptIn, Route, Rule
from gateway.config.passing import BREAK_GLASS_HOURS, PASS_STATEMENT, BreakGlass
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.mark import load_profiles
from gateway.protect import Decision, decide, policy_digest
from tests.support.dicom.enhanced import grouped, item
from tests.support.dicom.samples import encode, image

ROUTE = Route(name="research", called_ae="RESEARCH", destinations=("outside",))
PROFILES = load_profiles()
HEADER = read_header(io.BytesIO(encode(image())), EXPLICIT_LITTLE)

MARKED = {
    uids.ComputedRadiographyImageStorage: ("CR", "cr-dx"),
    uids.DigitalXRayImageStorageForPresentation: ("DX", "cr-dx"),
    uids.CTImageStorage: ("CT", "ct"),
    uids.MRImageStorage: ("MR", "mr"),
    uids.UltrasoundImageStorage: ("US", "us"),
    uids.UltrasoundMultiFrameImageStorage: ("US", "us"),
    uids.SecondaryCaptureImageStorage: ("OT", "generic-gray"),
    uids.MultiFrameGrayscaleByteSecondaryCaptureImageStorage: ("OT", "generic-gray"),
    uids.XRayAngiographicImageStorage: ("XA", "generic-gray"),
    uids.XRayRadiofluoroscopicImageStorage: ("RF", "generic-gray"),
}

HELD = {
    "mammography": [
        uids.DigitalMammographyXRayImageStorageForPresentation,
        uids.DigitalMammographyXRayImageStorageForProcessing,
        uids.BreastTomosynthesisImageStorage,
        uids.BreastProjectionXRayImageStorageForPresentation,
        uids.BreastProjectionXRayImageStorageForProcessing,
    ],
    "for-processing": [
        uids.DigitalXRayImageStorageForProcessing,
        uids.DigitalIntraOralXRayImageStorageForProcessing,
    ],
    "quantitative": [
        uids.PositronEmissionTomographyImageStorage,
        uids.LegacyConvertedEnhancedPETImageStorage,
        uids.EnhancedPETImageStorage,
        uids.NuclearMedicineImageStorage,
        uids.ParametricMapStorage,
        uids.MRSpectroscopyStorage,
    ],
}
ENHANCED = {
    uids.EnhancedCTImageStorage: ("CT", "ct"),
    uids.LegacyConvertedEnhancedCTImageStorage: ("CT", "ct"),
    uids.EnhancedMRImageStorage: ("MR", "mr"),
    uids.EnhancedMRColorImageStorage: ("MR", "generic-rgb"),
    uids.LegacyConvertedEnhancedMRImageStorage: ("MR", "mr"),
    uids.EnhancedXAImageStorage: ("XA", "generic-gray"),
    uids.EnhancedXRFImageStorage: ("RF", "generic-gray"),
    uids.EnhancedUSVolumeStorage: ("US", "us"),
    uids.XRay3DAngiographicImageStorage: ("XA", "generic-gray"),
    uids.XRay3DCraniofacialImageStorage: ("DX", "cr-dx"),
}
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # not in pydicom's dictionary yet
REMAPPED = [
    uids.SpatialRegistrationStorage,
    uids.SpatialFiducialsStorage,
    uids.SegmentationStorage,
    uids.SurfaceSegmentationStorage,
    uids.RealWorldValueMappingStorage,
    uids.BasicTextSRStorage,
    uids.EnhancedSRStorage,
    uids.ComprehensiveSRStorage,
    uids.MammographyCADSRStorage,
    uids.KeyObjectSelectionDocumentStorage,
    uids.GrayscaleSoftcopyPresentationStateStorage,
    uids.ColorSoftcopyPresentationStateStorage,
    uids.BlendingSoftcopyPresentationStateStorage,
    uids.VolumeRenderingVolumetricPresentationStateStorage,
    uids.VariableModalityLUTSoftcopyPresentationStateStorage,
    uids.StereometricRelationshipStorage,
    uids.MacularGridThicknessAndVolumeReportStorage,
    uids.WaveformAnnotationSRStorage,
    uids.ContentAssessmentResultsStorage,
    uids.MicroscopyBulkSimpleAnnotationsStorage,
    uids.BasicStructuredDisplayStorage,
    LABEL_MAP,
]
BLOCKED = [
    uids.EncapsulatedPDFStorage,
    uids.RTDoseStorage,
    uids.RTPlanStorage,
    uids.RTStructureSetStorage,
    uids.RTImageStorage,
    uids.RawDataStorage,
    uids.TwelveLeadECGWaveformStorage,
    uids.VLWholeSlideMicroscopyImageStorage,
    uids.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uids.VideoEndoscopicImageStorage,
    "1.2.840.10008.5.1.4.1.1.2.99",
    "1.3.6.1.4.1.99999.1",
]


def header(**changes: object) -> InstanceHeader:
    return replace(HEADER, **changes)


def decided(**changes: object) -> Decision:
    return decide(header(**changes), ROUTE, PROFILES)


@pytest.mark.parametrize(("sop_class", "expected"), MARKED.items(), ids=lambda value: getattr(value, "name", None))
def test_marked_with_the_profile_of_its_kind(sop_class, expected):
    modality, profile = expected
    decision = decided(sop_class_uid=str(sop_class), modality=modality)
    assert (decision.action, decision.profile.name) == ("mark", profile)


@pytest.mark.parametrize(("sop_class", "expected"), ENHANCED.items(), ids=lambda value: getattr(value, "name", None))
def test_enhanced_images_are_marked_when_they_say_what_holds_for_each_frame(sop_class, expected):
    modality, profile = expected
    colour = {"photometric": "RGB", "samples": 3} if profile == "generic-rgb" else {}
    changes = {"sop_class_uid": str(sop_class), "modality": modality, **colour}
    decision = decided(**changes, dataset=grouped(image(), [item()]))
    assert (decision.action, decision.profile.name) == ("mark", profile)
    decision = decided(**changes)
    assert (decision.action, decision.code) == ("hold", "missing-functional-groups")


def test_an_enhanced_mr_of_the_brain_says_so_in_its_groups():
    region = item(AnatomicRegionSequence=[item(CodeValue="12738006")])
    changes = {"SOPClassUID": str(uids.EnhancedMRImageStorage), "Modality": "MR"}
    ds = grouped(image(**changes), [item(FrameAnatomySequence=[region])])
    found = decide(read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE), ROUTE, PROFILES)
    assert found.profile.name == "brain-mr"


@pytest.mark.parametrize(
    "modality, profile", [("XC", "dermoscopy"), ("DMS", "dermoscopy"), ("OP", "fundus"), ("ES", "generic-rgb")]
)
def test_visible_light_photographs_are_marked(modality, profile):
    colour = {"photometric": "RGB", "samples": 3, "bits_allocated": 8, "bits_stored": 8, "high_bit": 7}
    classes = {"OP": uids.OphthalmicPhotography8BitImageStorage, "ES": uids.VLEndoscopicImageStorage}
    classes["DMS"] = uids.DermoscopicPhotographyImageStorage
    sop_class = classes.get(modality, uids.VLPhotographicImageStorage)
    decision = decided(sop_class_uid=str(sop_class), modality=modality, **colour)
    assert decision.action == "mark"
    assert decision.profile.name in (profile, "generic-rgb")


@pytest.mark.parametrize(("code", "sop_class"), [(code, uid) for code, many in HELD.items() for uid in many])
def test_held_and_why(code, sop_class):
    decision = decided(sop_class_uid=str(sop_class))
    assert (decision.action, decision.code) == ("hold", code)
    assert decision.reason
    assert decision.as_error().code == code


@pytest.mark.parametrize("sop_class", REMAPPED)
def test_what_refers_to_images_is_remapped(sop_class):
    assert decided(sop_class_uid=str(sop_class), has_pixel_data=False) == Decision("remap")


@pytest.mark.parametrize("sop_class", BLOCKED)
def test_blocked_and_shown(sop_class):
    decision = decided(sop_class_uid=str(sop_class))
    assert (decision.action, decision.code) == ("block", "blocked-by-policy")
    assert decision.as_error().message


@pytest.mark.parametrize("depth", [0, 2])
def test_a_signed_report_is_held_a_signed_presentation_state_is_not(depth):
    ds = Dataset()
    ds.DigitalSignaturesSequence = [Dataset()]
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = [ds]
        ds = outer
    reports = (uids.ComprehensiveSRStorage, uids.KeyObjectSelectionDocumentStorage)
    for sop_class in (*reports, uids.MacularGridThicknessAndVolumeReportStorage):
        decision = decided(sop_class_uid=str(sop_class), dataset=ds)
        assert (decision.action, decision.code) == ("hold", "signed")
    state = str(uids.GrayscaleSoftcopyPresentationStateStorage)
    assert decided(sop_class_uid=state, dataset=ds, has_pixel_data=False).action == "remap"


@pytest.mark.parametrize("sop_class", REMAPPED)
def test_a_picture_never_leaves_inside_what_only_refers(sop_class):
    """Pixels of a remapped object go out as they are: none but a segmentation's may."""
    decision = decided(sop_class_uid=str(sop_class), has_pixel_data=True)
    if sop_class in (uids.SegmentationStorage, LABEL_MAP):
        assert decision == Decision("remap")
    else:
        assert (decision.action, decision.code) == ("hold", "unexpected-pixels")


# -- what a route gives up, and its rules ------------------------------------------------------------------------------


def opted(*names: str) -> Route:
    return ROUTE.model_copy(update={"opt_in": OptIn(**{name: OPT_IN_STATEMENTS[name] for name in names})})


MG, MG_RAW = (
    uids.DigitalMammographyXRayImageStorageForPresentation,
    uids.DigitalMammographyXRayImageStorageForProcessing,
)
PET, TOMO = uids.PositronEmissionTomographyImageStorage, uids.BreastTomosynthesisImageStorage


@pytest.mark.parametrize(
    ("sop_class", "modality", "given", "code"),
    [
        (MG, "MG", ["mammography"], ""),
        (MG, "MG", ["quantitative", "for_processing"], "mammography"),
        (MG_RAW, "MG", ["mammography"], "for-processing"),
        (MG_RAW, "MG", ["mammography", "for_processing"], ""),
        (TOMO, "MG", ["mammography"], "missing-functional-groups"),
        (uids.EnhancedPETImageStorage, "PT", ["quantitative"], "missing-functional-groups"),
        (PET, "PT", ["quantitative"], ""),
        (PET, "PT", ["mammography"], "quantitative"),
        (uids.SecondaryCaptureImageStorage, "NM", ["quantitative"], ""),
        (uids.DigitalXRayImageStorageForProcessing, "DX", ["for_processing"], ""),
    ],
)
def test_each_hazard_gives_way_to_its_own_sentence_only(sop_class, modality, given, code):
    asked = header(sop_class_uid=str(sop_class), modality=modality)
    decision = decide(asked, opted(*given), PROFILES)
    assert (decision.action, decision.code) == ("hold" if code else "mark", code)


def test_an_opt_in_in_other_words_is_refused():
    for name, statement in OPT_IN_STATEMENTS.items():
        assert getattr(OptIn(**{name: statement}), name) == statement
        with pytest.raises(ValueError, match="it must read"):
            OptIn(**{name: "yes"})


def ruled(*rules: dict, **changes: object) -> Decision:
    route = ROUTE.model_copy(update={"rules": tuple(Rule(**rule) for rule in rules)})
    return decide(header(**changes), route, PROFILES)


@pytest.mark.parametrize(
    "key", [{"sop_class": HEADER.sop_class_uid}, {"modality": "CT"}, {"photometric": "MONOCHROME2"}]
)
def test_a_rule_blocks_or_holds_what_it_fits_and_nothing_else(key):
    assert ruled({**key, "action": "block"}).code == "blocked-by-rule"
    assert ruled({**key, "action": "block"}).action == "block"
    assert ruled({**key, "action": "hold"}).code == "rule-holds"
    other = {"sop_class_uid": str(uids.MRImageStorage), "modality": "MR", "photometric": "MONOCHROME1"}
    assert ruled({**key, "action": "block"}, **other).action == "mark"


def test_the_first_rule_that_fits_decides_and_must_fit_wholly():
    first = {"sop_class": HEADER.sop_class_uid, "modality": "CT", "action": "mark"}
    assert ruled(first, {"modality": "CT", "action": "block"}).action == "mark"
    assert ruled(first | {"modality": "MR"}, {"modality": "CT", "action": "block"}).action == "block"


def test_no_rule_lets_out_what_is_not_safe():
    """`mark` of a hazard without its sentence, of what is no image, `remap` of an image: none of them leaves."""
    assert ruled({"modality": "MG", "action": "mark"}, sop_class_uid=str(MG), modality="MG").code == "mammography"
    assert ruled({"modality": "CT", "action": "remap"}).code == "rule-does-not-fit"
    for sop_class in (uids.RTDoseStorage, uids.EncapsulatedPDFStorage, "1.3.6.1.4.1.99999.1"):
        for action in ("mark", "remap"):
            decision = ruled({"sop_class": str(sop_class), "action": action}, sop_class_uid=str(sop_class))
            assert (decision.action, decision.code) == ("hold", "rule-does-not-fit")
    with pytest.raises(ValueError):
        Rule(action="block")


def test_a_structure_set_is_remapped_by_rule_only():
    structures = str(uids.RTStructureSetStorage)
    assert decided(sop_class_uid=structures).action == "block"
    assert (
        ruled(
            {"modality": "RTSTRUCT", "action": "remap"},
            sop_class_uid=structures,
            modality="RTSTRUCT",
            has_pixel_data=False,
        ).action
        == "remap"
    )


@pytest.mark.parametrize(("modality", "code"), [("MG", "mammography"), ("PT", "quantitative"), ("NM", "quantitative")])
def test_the_modality_counts_where_the_class_is_harmless(modality, code):
    """Mammograms and SUV images also travel as Secondary Capture or DX."""
    for sop_class in (uids.SecondaryCaptureImageStorage, uids.DigitalXRayImageStorageForPresentation):
        decision = decided(sop_class_uid=str(sop_class), modality=modality)
        assert (decision.action, decision.code) == ("hold", code)


def test_for_processing_by_its_attribute():
    decision = decided(
        sop_class_uid=str(uids.DigitalXRayImageStorageForPresentation),
        modality="DX",
        presentation_intent="FOR PROCESSING",
    )
    assert (decision.action, decision.code) == ("hold", "for-processing")


def test_an_image_without_pixels_is_held():
    assert decided(has_pixel_data=False, pixel_tag=None).code == "no-pixels"


def test_what_no_profile_takes_is_held():
    assert decided(photometric="PALETTE COLOR", modality="OT").code == "no-profile"
    assert decide(HEADER, ROUTE, {}).code == "no-profile"


def test_a_route_that_holds_holds_everything():
    holding = ROUTE.model_copy(update={"action": "hold"})
    assert decide(HEADER, holding, PROFILES).code == "route-holds"


def test_only_a_route_that_says_so_passes():
    passing = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT})
    assert decide(HEADER, passing, PROFILES).action == "pass"
    assert ruled({"modality": "CT", "action": "pass"}).action == "pass"
    assert ruled({"modality": "MR", "action": "pass"}).action == "mark"
    classes = [*MARKED, *REMAPPED, *BLOCKED, *(uid for many in HELD.values() for uid in many)]
    assert not any(decided(sop_class_uid=str(uid)).action == "pass" for uid in classes)


def test_on_a_route_that_passes_rules_make_exceptions():
    passing = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT})
    for action in ("mark", "hold", "block"):
        excepting = passing.model_copy(update={"rules": (Rule(modality="CT", action=action),)})
        assert decide(HEADER, excepting, PROFILES).action == action
        assert decide(header(modality="MR"), excepting, PROFILES).action == "pass"


def test_on_a_route_that_holds_no_rule_passes():
    holding = ROUTE.model_copy(update={"action": "hold", "rules": (Rule(modality="CT", action="pass"),)})
    assert decide(HEADER, holding, PROFILES).code == "route-holds"


@pytest.mark.parametrize("by", ["route", "rule"])
def test_an_emergency_passes_until_its_end_and_never_longer_than_a_day(by):
    end = datetime(2026, 1, 2, 8, tzinfo=timezone(timedelta(hours=1)))
    glass = BreakGlass(until=end, reason="the ward's server failed")
    changes = {"action": "pass"} if by == "route" else {"rules": (Rule(modality="CT", action="pass"),)}
    route = ROUTE.model_copy(update={**changes, "break_glass": glass})
    last = end.timestamp()
    first = last - BREAK_GLASS_HOURS * 3600
    codes = {now: decide(HEADER, route, PROFILES, now).code for now in (first - 1, first, last - 0.1, last, last + 1)}
    assert list(codes.values()) == ["pass-too-long", "", "", "pass-expired", "pass-expired"]
    assert decide(HEADER, route, PROFILES, first).action == "pass"


def test_every_storage_class_of_the_standard_is_decided_without_passing():
    """Also those that nobody thought of: nothing falls through."""
    found = {}
    for uid, (_, kind, *_rest) in uids.UID_dictionary.items():
        if kind == "SOP Class" and uid.startswith("1.2.840.10008.5.1.4.1.1."):
            found[uid] = decided(sop_class_uid=uid).action
    assert len(found) > 100
    assert set(found.values()) == {"mark", "remap", "hold", "block"}


# -- what shapes the bytes ---------------------------------------------------------------------------------------------


def digest(route: Route = ROUTE, **changes: object) -> str:
    return policy_digest(decide(header(**changes), route, PROFILES), route)


@pytest.mark.parametrize(
    "change",
    [
        {"mark": Mark(text="RESEARCH ONLY")},
        {"mark": Mark(tier="discreet")},
        {"mark": Mark(steps=3)},
        {"mark": Mark(mode="paper")},
        {"mark": Mark(logo=Path("logo.png"))},
        {"mark": Mark(mode="generator", refine=1)},
        {"mark": Mark(mode="generator", generator=Path("site.safetensors"))},
        {"source_reference": False},
        {"action": "hold"},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_shapes_the_bytes_changes_the_digest(change):
    assert digest(ROUTE.model_copy(update=change)) != digest()


@pytest.mark.parametrize(
    ("mark", "known"),
    [
        (Mark(tier="lettered", text="COPY"), "3436487a1f90ef10c3f6f18887b9543fe30468c2fe49b111b05080d5b35f2100"),
        (
            Mark(tier="lettered", text="COPY", mode="generator", steps=5, refine=1),
            "ab1d6431b7dac3fe51f2853102024bf0deb0da0643f423dfc8301aca8655b9d6",
        ),
        (
            Mark(tier="discreet", text="X", surrogates=("a",), logo=Path("x.png")),
            "003f9c6be0f871cd92bd9826ffbd9bfedec59f9d21248413655406842e7aa9ea",
        ),
    ],
)
def test_digests_of_records_that_were_made_before_stay(mark: Mark, known: str):
    """A key of a mark that is added or renamed would have all instances marked once more.

    Where a default changes they are: tier and text did, and the first two routes here name what was theirs.
    """
    assert digest(ROUTE.model_copy(update={"mark": mark})) == known


def test_another_profile_changes_the_digest():
    assert digest(modality="MR", sop_class_uid=str(uids.MRImageStorage)) != digest()


@pytest.mark.parametrize("change", [{"name": "other"}, {"called_ae": "OTHER"}, {"destinations": ("a", "b")}])
def test_where_it_comes_from_and_goes_to_does_not(change):
    assert digest(ROUTE.model_copy(update=change)) == digest()
