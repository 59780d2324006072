"""A route with `study_uid = "new"`: copies are in a study of their own, one story still, and the way back is exact."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset

from gateway.config.models import Route, Rule
from gateway.dicom.copy.report import SOP_CLASS
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.protect import large
from gateway.restore import CopyRestorer
from gateway.service import build_reports
from tests.support.dicom import studies
from tests.support.dicom.reference_rows import OUTCOMES, OWN, uids
from tests.support.dicom.samples import encode
from tests.support.dicom.studies import bare
from tests.support.flow import ROUTE, Flow, ct, decoded

IMAGES = studies.slices()
OBJECTS = {str(ds.SOPInstanceUID): bare(ds) for ds in (*studies.others(IMAGES).values(), *IMAGES)}
STUDY = str(IMAGES[0].StudyInstanceUID)
KEEP = ROUTE.model_copy(update={"rules": (Rule(modality="RTSTRUCT", action="remap"),), "source_reference": False})
NEW = KEEP.model_copy(update={"study_uid": "new"})
OTHER = {"name": "other", "called_ae": "OTHER", "destinations": ("second",)}


def gone_through(flow: Flow, called_ae: str = "RELAY", objects=None) -> None:
    """One by one, references before what they name."""
    for ds in objects or OBJECTS.values():
        flow.receive(ds, called_ae=called_ae)
        flow.run()


def at(flow: Flow, destination: str) -> dict[str, tuple[Dataset, bytes]]:
    """SOP Instance UID -> what lies at the destination."""
    found = [(decoded(data), data) for to, _, data in flow.sender.received if to == destination]
    return {str(ds.SOPInstanceUID): (ds, data) for ds, data in found}


def assert_one_study(there: dict[str, tuple[Dataset, bytes]]) -> str:
    """Every UID that refers names what is there, at all levels; returns the study's."""
    copies = [ds for ds, _ in there.values()]
    [study] = {str(ds.StudyInstanceUID) for ds in copies}
    known = {"instance": set(there), "series": {str(ds.SeriesInstanceUID) for ds in copies}, "study": {study}}
    for ds in copies:
        referring = [(OUTCOMES[key], uid) for key, values in uids(ds) if key not in OWN for uid in values]
        assert all(uid in known[outcome] for outcome, uid in referring if outcome in known), ds.Modality
        assert ds.Modality == "CT" or any(outcome == "instance" for outcome, _ in referring)
    return study


def test_every_object_is_in_the_new_study_and_comes_back_exact_from_vault_and_copy(make_flow):
    flow = make_flow(NEW.model_copy(update={"restoration": "both"}))
    gone_through(flow)
    there = at(flow, "outside")
    assert len(there) == len(OBJECTS)
    study = assert_one_study(there)
    assert study.startswith("2.25.")
    restorer = CopyRestorer(OpeningKeys.load(flow.config.keys))
    back = set()
    for uid, (ds, data) in there.items():
        assert STUDY.encode() not in encode(ds).replace(f"{STUDY}.".encode(), b"")  # not as the beginning of another
        original = flow.restored(uid)
        back.add(original)
        with restorer.by_copy(io.BytesIO(data), EXPLICIT_LITTLE) as carried:
            carried.verify()
            assert b"".join(carried.stream()) == original and carried.study_uid == STUDY
    assert back == {encode(ds) for ds in OBJECTS.values()}


def test_the_study_is_the_same_by_every_route_that_makes_it_new_and_in_any_order(make_flow):
    flow = make_flow(NEW, NEW.model_copy(update=OTHER))
    gone_through(flow)
    gone_through(flow, "OTHER", reversed(OBJECTS.values()))
    here, there = at(flow, "outside"), at(flow, "second")
    assert assert_one_study(here) == assert_one_study(there)
    assert {uid: data for uid, (_, data) in here.items()} == {uid: data for uid, (_, data) in there.items()}


@pytest.mark.parametrize("routes", [(KEEP, NEW), (NEW, KEEP)])
def test_with_and_without_a_new_study_each_destination_has_one_story(make_flow, routes):
    """No series and no instance is in both studies."""
    first, second = routes[0], routes[1].model_copy(update=OTHER)
    flow = make_flow(first, second)
    for ds in OBJECTS.values():
        for called_ae in ("RELAY", "OTHER"):
            flow.receive(ds, called_ae=called_ae)
            flow.run()
    here, there = at(flow, "outside"), at(flow, "second")
    kept, new = (here, there) if routes[0] is KEEP else (there, here)
    assert assert_one_study(kept) == STUDY != assert_one_study(new)
    series = [{str(ds.SeriesInstanceUID) for ds, _ in found.values()} for found in (here, there)]
    assert not set(here) & set(there) and not series[0] & series[1]
    assert {flow.restored(uid) for uid in (*here, *there)} == {encode(ds) for ds in OBJECTS.values()}


def test_a_further_generation_has_an_instance_uid_of_its_own_in_the_same_study(make_flow):
    flow = make_flow(NEW)
    gone_through(flow, objects=[ct(), ct(PatientName="Corrected")])
    there = at(flow, "outside")
    assert len(there) == 2
    assert len({str(ds.StudyInstanceUID) for ds, _ in there.values()}) == 1
    assert {flow.restored(uid) for uid in there} == {encode(ct()), encode(ct(PatientName="Corrected"))}


def test_a_large_object_is_in_the_new_study_too(make_flow, monkeypatch):
    flow = make_flow(NEW)
    gone_through(flow, objects=[ct(1)])
    monkeypatch.setattr(large, "LARGE_BYTES", 0)
    gone_through(flow, objects=[ct(2)])
    [(first, _), (second, _)] = at(flow, "outside").values()
    assert first.StudyInstanceUID == second.StudyInstanceUID != ct().StudyInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert flow.restored(second.SOPInstanceUID) == encode(ct(2))


def test_the_protection_report_is_in_the_study_of_the_copies(make_flow):
    flow = make_flow(NEW.model_copy(update={"report": True, "report_after_s": 1.0}))
    gone_through(flow, objects=[ct(1), ct(2)])
    reports = build_reports(flow.config, SealingKeys.load(flow.config.keys), flow.store, flow.engine, flow.context)
    assert reports.once(_last_mark(flow) + 2.0) == 1
    flow.deliver()
    copies = {uid: ds for uid, (ds, _) in at(flow, "outside").items()}
    [report] = [ds for ds in copies.values() if ds.SOPClassUID == SOP_CLASS]
    assert len(copies) == 3
    study = assert_one_study(at(flow, "outside"))
    assert study != ct().StudyInstanceUID
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == study
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 2


def _last_mark(flow: Flow) -> float:
    rows = [flow.row(item.instance_id) for _, item, _ in flow.sender.received]
    return max(row.marked_at for row in rows)


@pytest.mark.parametrize(("before", "after"), [(NEW, KEEP), (KEEP, NEW)])
def test_a_setting_changed_between_sealing_and_marking_breaks_nothing(make_flow, before: Route, after: Route):
    """The sealed record says which study the copy is in."""
    flow = make_flow(before)
    flow.receive(ct())
    flow.seal()
    flow.again(after).run()
    [(uid, (ds, _))] = at(flow, "outside").items()
    assert (ds.StudyInstanceUID == ct().StudyInstanceUID) == (before is KEEP)
    assert flow.restored(uid) == encode(ct())
