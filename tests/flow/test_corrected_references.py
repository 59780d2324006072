"""After a corrected resend references name the newest copy of an instance, never that of the old patient."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from tests.support.flow import ROUTE, Flow, ct, decoded

NEW = ROUTE.model_copy(update={"study_uid": "new"})


def referring(number: int, *uids: str, **changes: object) -> Dataset:
    """An image that names others: `uids` in Referenced Image Sequence, two levels deep too."""
    ds = ct(number, **changes)
    ds.ReferencedImageSequence = [reference(uid) for uid in uids]
    inner = Dataset()
    inner.SourceInstanceSequence = [reference(uid) for uid in uids]
    ds.ConversionSourceAttributesSequence = [inner]
    return ds


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def sent(flow: Flow, ds: Dataset) -> Dataset:
    flow.receive(ds)
    flow.run()
    return decoded(flow.sender.received[-1][2])


def named(copy: Dataset) -> set[str]:
    items = [*copy.ReferencedImageSequence, *copy.ConversionSourceAttributesSequence[0].SourceInstanceSequence]
    return {str(item.ReferencedSOPInstanceUID) for item in items}


@pytest.mark.parametrize("route", [ROUTE, NEW, ROUTE.model_copy(update={"restoration": "both"})])
def test_references_name_the_newest_copy(make_flow, route):
    flow, uid = make_flow(route), str(ct(1).SOPInstanceUID)
    first = sent(flow, ct(1))
    assert named(sent(flow, referring(2, uid))) == {str(first.SOPInstanceUID)}
    corrected = sent(flow, ct(1, PatientName="Corrected^Name"))
    assert corrected.SOPInstanceUID != first.SOPInstanceUID
    assert named(sent(flow, referring(3, uid))) == {str(corrected.SOPInstanceUID)}
    again = sent(flow, ct(1))  # the archive went back to the first bytes
    assert named(sent(flow, referring(4, uid))) == {str(again.SOPInstanceUID)}
    assert again.PatientName == "Doe^Jane"


def test_what_is_sent_again_after_the_correction_follows(make_flow):
    flow, uid = make_flow(ROUTE), str(ct(1).SOPInstanceUID)
    old = sent(flow, ct(1))
    before = sent(flow, referring(2, uid))
    corrected = sent(flow, ct(1, PatientName="Corrected^Name"))
    after = sent(flow, referring(2, uid, PatientName="Corrected^Name"))
    assert named(before) == {str(old.SOPInstanceUID)} and named(after) == {str(corrected.SOPInstanceUID)}
    assert before.SOPInstanceUID != after.SOPInstanceUID
    same = sent(flow, referring(2, uid, PatientName="Corrected^Name"))
    assert same.SOPInstanceUID == after.SOPInstanceUID


def test_made_anew_after_a_correction_it_is_another_instance(make_flow):
    """Its derived file was purged, and the bytes that it gives now name a newer copy: never two under one UID."""
    flow, uid = make_flow(ROUTE), str(ct(1).SOPInstanceUID)
    sent(flow, ct(1))
    before = sent(flow, referring(2, uid))
    corrected = sent(flow, ct(1, PatientName="Corrected^Name"))
    for name in flow.derived():
        flow.context.derived.delete(name)
    after = sent(flow, referring(2, uid))
    assert named(after) == {str(corrected.SOPInstanceUID)} and after.SOPInstanceUID != before.SOPInstanceUID
    assert all(len(digests) == 1 for digests in flow.sender.byte_strings().values())


def test_before_it_came_a_reference_names_the_first_copy(make_flow):
    flow, uid = make_flow(ROUTE), str(ct(1).SOPInstanceUID)
    early = sent(flow, referring(2, uid))
    assert named(early) == {str(sent(flow, ct(1)).SOPInstanceUID)}


def test_two_marks_of_the_same_bytes_are_not_a_correction(make_flow):
    flow, uid = make_flow(ROUTE), str(ct(1).SOPInstanceUID)
    first = sent(flow, ct(1))
    other = flow.again(ROUTE.model_copy(update={"source_reference": False}))
    assert sent(other, ct(1)).SOPInstanceUID != first.SOPInstanceUID
    assert named(sent(flow, referring(2, uid))) == {str(first.SOPInstanceUID)}


def test_another_studys_instance_of_that_uid_is_not_named(make_flow):
    flow, uid = make_flow(ROUTE), str(ct(1).SOPInstanceUID)
    first = sent(flow, ct(1))
    flow.receive(ct(1, StudyInstanceUID="1.2.826.0.1.98.1", PatientName="Other^Patient"))
    flow.run()
    assert named(sent(flow, referring(2, uid))) == {str(first.SOPInstanceUID)}
    third = referring(3, uid, StudyInstanceUID="1.2.826.0.1.98.7")
    assert named(sent(flow, third)) == {str(first.SOPInstanceUID)}
