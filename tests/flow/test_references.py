"""One study, one story: what refers to images goes out beside them and points at the marked copies (issue: remap)."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread

from gateway.audit import events
from gateway.config.models import Rule
from gateway.dicom.copy.references import references_syntax
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.errors import DicomError, PermanentError
from tests.conftest import missing
from tests.support.dicom import studies
from tests.support.dicom.readers import dciodvfy_errors, missing_programs
from tests.support.dicom.samples import corpus, encode, is_standin
from tests.support.dicom.studies import bare
from tests.support.flow import ROUTE, Flow, decoded

BY_RULE = ROUTE.model_copy(update={"rules": (Rule(modality="RTSTRUCT", action="remap"),)})
IMAGES = studies.slices()
OTHERS = studies.others(IMAGES)
UIDS = {str(ds.SOPInstanceUID) for ds in (*IMAGES, *OTHERS.values())}
SERIES = {str(ds.SeriesInstanceUID) for ds in (*IMAGES, *OTHERS.values())}


def sent(flow: Flow) -> dict[str, Dataset]:
    """Original SOP Instance UID -> what was sent, read by pydicom."""
    originals = {}
    for _, item, data in flow.sender.received:
        original = flow.restored(item.sop_instance_uid)
        originals[str(decoded(original).SOPInstanceUID)] = decoded(data, item.transfer_syntax_uid)
    return originals


def every_uid(ds: Dataset) -> list[tuple[str, str]]:
    """(keyword, value) of every UI element at every level."""
    found = []
    for element in ds.iterall():
        if element.VR == "UI":
            values = element.value if not isinstance(element.value, str) else [element.value]
            found += [(element.keyword, str(value)) for value in values]
    return found


@pytest.mark.parametrize("order", ["images first", "images last", "turned"])
def test_every_reference_in_every_object_resolves_in_any_order(make_flow, order):
    flow = make_flow(BY_RULE)
    arriving = [*IMAGES, *OTHERS.values()] if order == "images first" else [*OTHERS.values(), *IMAGES]
    for ds in reversed(arriving) if order == "turned" else arriving:
        flow.receive(bare(ds))
        flow.run()  # one by one, as over several associations
    out = sent(flow)
    assert set(out) == UIDS
    names = {str(ds.SOPInstanceUID) for ds in out.values()}
    series = {str(ds.SeriesInstanceUID) for ds in out.values()}
    assert not names & UIDS and not series & SERIES
    for original in OTHERS.values():
        ds = out[original.SOPInstanceUID]
        found = every_uid(ds)
        assert not [(keyword, uid) for keyword, uid in found if uid in UIDS | SERIES]
        before = [uid for keyword, uid in every_uid(original) if keyword == "ReferencedSOPInstanceUID"]
        after = [uid for keyword, uid in found if keyword == "ReferencedSOPInstanceUID"]
        assert len(before) == len(after) > 0
        expected = [str(out[uid].SOPInstanceUID) if uid in out else uid for uid in before]
        assert after == expected
        assert {uid for keyword, uid in found if keyword == "SeriesInstanceUID"} <= series
        assert ds.StudyInstanceUID == original.StudyInstanceUID == out[IMAGES[0].SOPInstanceUID].StudyInstanceUID


@pytest.mark.parametrize("code", studies.REJECTIONS)
def test_a_rejection_note_takes_the_copies_back_whatever_its_reason(flow, code):
    """Else what the archive rejected would live on outside (IHE IOCM); the note may come before its images."""
    note = studies.rejection_note(IMAGES[:1], code)
    for ds in (note, IMAGES[0]):
        flow.receive(bare(ds))
        flow.run()
    out = sent(flow)
    copy, image = out[note.SOPInstanceUID], out[IMAGES[0].SOPInstanceUID]
    assert copy.ConceptNameCodeSequence[0].CodeValue == code
    assert copy.ConceptNameCodeSequence[0].CodeMeaning == studies.REJECTIONS[code]
    named = [uid for keyword, uid in every_uid(copy) if keyword == "ReferencedSOPInstanceUID"]
    assert len(named) == 2 and set(named) == {str(image.SOPInstanceUID)}  # evidence and content
    [study] = copy.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == image.StudyInstanceUID
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == [image.SeriesInstanceUID]


def test_sending_the_study_again_in_another_order_gives_the_same_bytes(make_flow):
    """Without a lookup: what came first is not asked."""
    flow = make_flow(BY_RULE)
    for arriving in ([*IMAGES, *OTHERS.values()], [*OTHERS.values(), *IMAGES]):
        for ds in arriving:
            flow.receive(bare(ds))
        flow.run()
        flow = flow.again(BY_RULE)
    assert len(flow.sender.byte_strings()) == len(UIDS)
    assert all(len(digests) == 1 for digests in flow.sender.byte_strings().values())


@pytest.mark.parametrize("modality", OTHERS)
def test_only_references_and_what_says_so_change(make_flow, modality):
    flow = make_flow(BY_RULE)
    original = bare(OTHERS[modality])
    instance_id = flow.receive(original)
    flow.run()
    [(_, item, data)] = flow.sender.received
    ds = decoded(data)
    assert flow.row(instance_id).state == "delivered"
    assert flow.restored(item.sop_instance_uid) == encode(original)
    assert read_block(ds) is not None
    assert ds.ContributingEquipmentSequence[-1].ContributionDescription == "References mapped to marked copies"
    assert ds.SeriesDescription.endswith("[MARKED COPY]")
    added = {"ContributingEquipmentSequence", "SeriesDescription", "InstanceCreatorUID", "InstanceCreationDate"}
    allowed = added | {"InstanceCreationTime", "SOPInstanceUID", "SeriesInstanceUID"}
    before, after = _without_uids(original), _without_uids(ds)
    assert {keyword for keyword in after if after[keyword] != before.get(keyword)} <= allowed
    assert set(before) <= set(after)
    if modality == "SEG":
        assert ds.PixelData == original.PixelData
        assert ds.FrameOfReferenceUID == original.FrameOfReferenceUID
        assert ds.ImageType == original.ImageType
    assert [line["instance_id"] for line in flow.audited(events.INSTANCE_REMAPPED)] == [instance_id]
    assert flow.audited(events.INSTANCE_MARKED) == []


def test_a_copy_does_not_say_where_the_archive_keeps_what_it_refers_to(flow):
    original = bare(OTHERS["SR"])
    series = original.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    places = {
        "RetrieveAETitle": "ARCHIVE",
        "RetrieveURL": "http://archive.example/wado",
        "RetrieveURI": "http://archive.example/rs",
        "RetrieveLocationUID": "1.2.3.4",
        "StorageMediaFileSetID": "DISC1",
        "StorageMediaFileSetUID": "1.2.3.5",
        "InstanceAvailability": "ONLINE",
    }
    for keyword, value in places.items():
        setattr(series, keyword, value)
        setattr(original, keyword, value)
    flow.receive(original)
    flow.run()
    [(_, item, data)] = flow.sender.received
    found = {element.keyword for element in decoded(data).iterall()}
    assert "ReferencedSeriesSequence" in found and not found & set(places)
    assert flow.restored(item.sop_instance_uid) == encode(original)


def _without_uids(ds: Dataset) -> dict[str, bytes]:
    """Keyword -> bytes of each public element, with every UID masked."""
    copy = bare(dcmread(io.BytesIO(_part10(encode(ds, EXPLICIT_LITTLE)))))
    for element in copy.iterall():
        if element.VR == "UI":
            element.value = "1.2"
    return {element.keyword: encode(_alone(element)) for element in copy if not element.tag.is_private}


def _alone(element: DataElement) -> Dataset:
    ds = Dataset()
    ds.add(element)
    return ds


def _part10(data: bytes, syntax: str = EXPLICIT_LITTLE, sop_class: str = "1.2", uid: str = "1.2") -> bytes:
    out = io.BytesIO()
    write_part10(out, sop_class, uid, syntax, [data])
    return out.getvalue()


@pytest.mark.parametrize("modality", OTHERS)
def test_dciodvfy_finds_no_error_that_the_original_did_not_have(make_flow, tmp_path, modality):
    if missing_programs():
        missing("dciodvfy")
    flow = make_flow(BY_RULE)
    original = bare(OTHERS[modality])
    flow.receive(original)
    flow.run()
    [(_, item, data)] = flow.sender.received
    for name, content, uid in (("before", encode(original), original.SOPInstanceUID), ("after", data, "")):
        uid = str(uid) or item.sop_instance_uid
        (tmp_path / name).write_bytes(_part10(content, sop_class=item.sop_class_uid, uid=uid))
    new = dciodvfy_errors(tmp_path / "after") - dciodvfy_errors(tmp_path / "before")
    assert not new, new


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_other_native_encodings_keep_their_pixels(flow, syntax):
    flow.receive(bare(OTHERS["SEG"]), syntax)
    flow.run()
    [(_, item, data)] = flow.sender.received
    assert item.transfer_syntax_uid == EXPLICIT_LITTLE
    expected = dcmread(io.BytesIO(_part10(encode(bare(OTHERS["SEG"]), syntax), syntax)))
    words = np.frombuffer(expected.PixelData, np.uint8)
    swapped = syntax == EXPLICIT_BIG and expected["PixelData"].VR == "OW"
    assert decoded(data).PixelData == (words.view(">u2").astype("<u2").tobytes() if swapped else words.tobytes())
    with item.in_syntax(IMPLICIT_LITTLE) as file:
        assert decoded(file.read(), IMPLICIT_LITTLE).PixelData == decoded(data).PixelData


def test_a_compressed_segmentation_goes_out_in_its_own_syntax_or_not_at_all(miad_data, flow):
    [sample] = [s for s in corpus(miad_data) if s.row["file"] == "pydicom-data/liver_j2k.dcm"]
    data, syntax = sample.read()
    flow.receive(decoded(data, syntax), syntax, data=data)
    flow.run()
    [(_, item, out)] = flow.sender.received
    assert item.transfer_syntax_uid == syntax == references_syntax(syntax)
    assert decoded(out, syntax).PixelData == decoded(data, syntax).PixelData
    with pytest.raises(PermanentError):
        item.in_syntax(IMPLICIT_LITTLE)


def test_a_signed_report_is_held_and_a_structure_set_blocked_without_a_rule(flow):
    signed = bare(OTHERS["SR"])
    signed.DigitalSignaturesSequence = [Dataset()]
    signed.DigitalSignaturesSequence[0].MACIDNumber = 1
    rows = [flow.row(i) for i in [flow.receive(signed), flow.receive(bare(OTHERS["RTSTRUCT"]))]]
    flow.run()
    rows = [flow.row(row.id) for row in rows]
    assert [(row.state, row.reason_code) for row in rows] == [("held", "signed"), ("held", "blocked-by-policy")]
    assert flow.sender.received == []
    assert flow.restored(signed.SOPInstanceUID) == encode(signed)


def test_a_report_that_was_remapped_is_not_taken_again(flow):
    flow.receive(bare(OTHERS["KO"]))
    flow.run()
    [(_, _item, data)] = flow.sender.received
    with pytest.raises(DicomError) as caught:
        flow.receive(decoded(data), data=data)
    assert caught.value.code == "already-marked"


def test_the_corpus_is_remapped_and_restored_bit_exact(miad_data, make_flow):
    """Every SEG, SR and RTSTRUCT file of the corpus."""
    flow = make_flow(BY_RULE)
    wanted = [s for s in corpus(miad_data) if s.row["modality"] in ("SEG", "SR", "RTSTRUCT")]
    counts = {m: sum(s.row["modality"] == m for s in wanted) for m in ("SEG", "SR", "RTSTRUCT")}
    real, standin = {"SEG": 8, "SR": 5, "RTSTRUCT": 2}, {"SEG": 3, "SR": 3, "RTSTRUCT": 1}
    assert counts == (standin if is_standin(miad_data) else real)
    for sample in wanted:
        data, syntax = sample.read()
        instance_id = flow.receive(decoded(data, syntax), syntax, data=data)
        flow.run()
        row = flow.row(instance_id)
        assert (row.state, row.action) == ("delivered", "remap"), (sample.row["file"], row.reason_code, row.reason)
        _, item, out = flow.sender.received[-1]
        before, after = decoded(data, syntax), decoded(out, item.transfer_syntax_uid)
        assert flow.restored(item.sop_instance_uid) == data, sample.row["file"]
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert len(list(after.iterall())) > len(list(before.iterall()))
        if "PixelData" in before and syntax != EXPLICIT_BIG:
            assert after.PixelData == before.PixelData


def test_the_study_s_uids_are_told_apart():
    """The test's own objects: no two of them share a UID, or the tests above would prove little."""
    assert len(UIDS) == 7 and len(SERIES) == 6
    assert not any(a == b for a, b in itertools.product(UIDS, SERIES))
