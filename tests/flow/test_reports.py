"""Protection reports: one for each study that came to rest, with figures that the copies themselves bear out."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import highdicom as hd
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom import Dataset, dcmread
from sqlalchemy import select

from gateway.audit import events
from gateway.config import Config, load_config
from gateway.database import FiguresRow, InstanceRow, ReportRow, reading, transaction
from gateway.dicom.copy.report import NO_PROMISE, SOP_CLASS
from gateway.errors import PermanentError
from gateway.keys import Signer
from gateway.keys.keyring import SealingKeys
from gateway.keys.signing import REPORT as REPORT_LABEL
from gateway.mark.placement.zones import find_zones
from gateway.network.egress import Egress
from gateway.protect.reporting import Reporter
from gateway.protect.signed_report import SignedFacts, SignedReport, sign_report
from gateway.service import build_reports, database
from gateway.vault import backup as backups
from gateway.vault.recovery import recover
from plugins.modalities.ct import PROFILE as CT
from tests.conftest import missing
from tests.support.dicom.readers import dciodvfy_errors, missing_programs
from tests.support.flow import ROUTE, Flow, configuration, ct, decoded
from tests.support.network import peers

REPORT = ROUTE.model_copy(update={"report": True, "report_after_s": 100.0})
LATER = 101.0
CONTACT = "radiology desk"
STUDY = "1.2.826.0.1.7"
PERSON = {"PatientName": "Müller^Ä", "PatientID": "P-4711", "SpecificCharacterSet": "ISO_IR 100"}


def image(number: int, **changes: object) -> Dataset:
    return ct(number, StudyInstanceUID=STUDY, **{**PERSON, **changes})


def reports_of(flow: Flow):
    keys = SealingKeys.load(flow.config.keys)
    return build_reports(flow.config, keys, flow.store, flow.engine, flow.context)


def marked_study(flow: Flow, *numbers: int) -> None:
    for number in numbers:
        flow.receive(image(number))
    flow.run()


def rows(flow: Flow) -> list[InstanceRow]:
    with reading(flow.engine) as session:
        return list(session.scalars(select(InstanceRow)))


def made(flow: Flow, wait_s: float = LATER) -> int:
    """Make what is due so long after the last mark, and deliver it."""
    last_mark = max(row.marked_at or 0.0 for row in rows(flow))
    count = reports_of(flow).once(last_mark + wait_s)
    flow.deliver()
    return count


def sent_reports(flow: Flow) -> list[Dataset]:
    return [decoded(data) for _, item, data in flow.sender.received if item.sop_class_uid == SOP_CLASS]


def sent_copies(flow: Flow) -> list[Dataset]:
    return [decoded(data) for _, item, data in flow.sender.received if item.sop_class_uid != SOP_CLASS]


def part10(report: Dataset) -> bytes:
    out = io.BytesIO()
    report.save_as(out, enforce_file_format=True)
    return out.getvalue()


def found(item: Dataset, code: str) -> list[Dataset]:
    """All content items with a concept name of this value, at any depth."""
    below = [match for inner in item.get("ContentSequence", ()) for match in found(inner, code)]
    names = item.get("ConceptNameCodeSequence")
    return ([item] if names and names[0].CodeValue == code else []) + below


def columns(table: type) -> list[str]:
    return [column.name for column in table.__table__.columns]


def number_of(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def display_psnr(before: np.ndarray, after: np.ndarray, low: float, high: float) -> float:
    """Over the anatomy of a CT in Hounsfield units."""
    shown = [np.clip((array.astype(float) - low) / (high - low), 0, 1) for array in (before, after)]
    raw = ((before - low) / (high - low)).astype(np.float32)
    zones = find_zones(raw, np.zeros(raw.shape, bool), CT, units=before.astype(np.float32))
    counted = zones.anatomy if zones.air.any() else np.ones(raw.shape, bool)
    return float(-10 * np.log10(np.mean((shown[0] - shown[1])[counted] ** 2)))


@pytest.fixture
def reporting(make_flow) -> Flow:
    """A flow whose one route reports; the site has a contact."""
    flow = make_flow(REPORT)
    site = flow.config.site.model_copy(update={"contact": CONTACT})
    return flow.again(site=site)


def test_a_report_names_each_copy_and_tells_its_figures(reporting):
    marked_study(reporting, 1, 2)
    assert made(reporting) == 1
    [report] = sent_reports(reporting)
    copies = {copy.SOPInstanceUID: copy for copy in sent_copies(reporting)}
    entries = found(report, "MARKED_COPY")
    named = [found(entry, "MARKED_IMAGE")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for entry in entries]
    assert sorted(named) == sorted(copies) and len(copies) == 2
    record_of = reporting.context.protector.record
    originals = {record_of(row.record).derived_sop_uid: row for row in rows(reporting) if row.record}
    for uid, entry in zip(named, entries, strict=True):
        before = decoded(reporting.restored(originals[uid].sop_instance_uid)).pixel_array
        after = copies[uid].pixel_array
        primary, *_ = found(entry, "PSNR")
        assert primary.ContentSequence[0].TextValue == "primary window"
        # the window of PS3.3 C.11.2.1.2: centre 40, width 400
        assert number_of(primary) == pytest.approx(display_psnr(before, after, -160, 239), abs=0.1)
        region, roi = (number_of(found(entry, code)[0]) for code in ("REGION_SHARE", "ROI_SHARE"))
        changed = 100 * float(np.mean(before != after))
        assert changed - 0.001 <= region < 100 - roi + 0.002 and roi > 0
        assert len(found(entry, "PSNR")) > 1  # other windows of the profile as well
    assert (
        found(report, "POLICY")[0].TextValue
        == "route relay: tier notice, mode strong, profile ct, restoration escrow, lettered (no air) frames 1"
    )
    assert found(report, "RESTORE_CONTACT")[0].TextValue == CONTACT
    assert found(report, "NO_PROMISE")[0].TextValue == NO_PROMISE


def test_a_report_is_of_the_study_and_the_patient_and_has_uids_of_its_own(reporting):
    marked_study(reporting, 1)
    made(reporting)
    [report], [copy] = sent_reports(reporting), sent_copies(reporting)
    assert (report.StudyInstanceUID, str(report.PatientName), report.PatientID) == (STUDY, "Müller^Ä", "P-4711")
    assert report.SeriesInstanceUID not in (copy.SeriesInstanceUID, image(1).SeriesInstanceUID)
    assert report.SOPInstanceUID not in (copy.SOPInstanceUID, image(1).SOPInstanceUID)
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, copy.SeriesInstanceUID)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == copy.SOPInstanceUID
    assert str(image(1).SOPInstanceUID).encode() + b"\0" not in part10(report)  # the original is not named


def test_highdicom_reads_it_and_dciodvfy_finds_no_error(reporting, tmp_path):
    if missing_programs():
        missing("dciodvfy")
    marked_study(reporting, 1, 2)
    made(reporting)
    path = tmp_path / "report.dcm"
    path.write_bytes(part10(sent_reports(reporting)[0]))
    read = hd.sr.srread(path)
    assert isinstance(read, hd.sr.ComprehensiveSR)
    copies = [item for item in read.content[0].ContentSequence if item.name.value == "MARKED_COPIES"]
    assert len(copies) == 1
    assert dciodvfy_errors(path) == {}


@pytest.mark.peers
def test_orthanc_takes_it(reporting, tmp_path):
    marked_study(reporting, 1)
    with peers.orthanc() as pacs:
        outside = reporting.config.destinations[0].model_copy(update={"ae_title": "OUTSIDE", "port": pacs.port})
        reporting.sender = Egress([outside], reporting.context.audit)
        assert made(reporting) == 1
        reporting.sender.close()
        [kept] = [dcmread(io.BytesIO(pacs.file(instance))) for instance in pacs.instances()]
    assert kept.SOPClassUID == SOP_CLASS and kept.StudyInstanceUID == STUDY
    assert found(kept, "NO_PROMISE")


def test_it_waits_until_the_study_is_at_rest(reporting):
    marked_study(reporting, 1)
    assert made(reporting, 99) == 0
    reporting.receive(image(2))
    reporting.seal()  # and not marked yet
    assert made(reporting) == 0
    reporting.mark()
    assert made(reporting) == 1
    assert len(found(sent_reports(reporting)[0], "MARKED_COPY")) == 2


def test_a_report_is_made_once_and_a_further_one_replaces_it_when_more_is_marked(reporting):
    marked_study(reporting, 1)
    assert [made(reporting), made(reporting), made(reporting.again())] == [1, 0, 0]
    marked_study(reporting, 1)  # the archive sends the same image once more
    assert made(reporting) == 0
    marked_study(reporting, 2)
    assert made(reporting) == 1
    first, second = sent_reports(reporting)
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert len(found(second, "MARKED_COPY")) == 2
    previous = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert previous.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID


def test_of_two_workers_one_makes_it(reporting):
    marked_study(reporting, 1)
    assert made(reporting) == 1
    with reading(reporting.engine) as session:
        report = session.scalars(select(ReportRow)).one()
    kept = {name: getattr(report, name) for name in columns(ReportRow)}
    [row] = [row for row in rows(reporting) if row.action == "report"]
    other = {name: getattr(row, name) for name in columns(InstanceRow)} | {"id": "0" * 32}
    assert not reporting.store.add_report(InstanceRow(**other), ReportRow(**kept), ("outside",))
    assert [row.id for row in rows(reporting) if row.action == "report"] == [row.id]


def test_a_route_that_does_not_ask_for_reports_and_a_route_of_others_send_none(make_flow):
    flow = make_flow(ROUTE)
    marked_study(flow, 1)
    assert made(flow) == 0
    later = flow.again(REPORT.model_copy(update={"name": "other", "called_ae": "OTHER"}), ROUTE)
    assert made(later) == 0


def test_a_destination_that_refuses_it_holds_it_and_it_can_be_released_and_sent_again(reporting):
    marked_study(reporting, 1)
    reporting.sender.fail = lambda *_: PermanentError("context-refused", "takes no SR")
    made(reporting)
    [row] = [row for row in rows(reporting) if row.action == "report"]
    assert (row.state, row.reason_code) == ("held", "context-refused")
    reporting.sender.fail = lambda *_: None
    assert reporting.operator.release([row.id]) == 1
    reporting.deliver()
    assert reporting.operator.replay([row.id]) == 1
    reporting.deliver()
    first, again = sent_reports(reporting)
    assert first == again
    assert reporting.row(row.id).state == "delivered"


def test_figures_and_audit_hold_nothing_of_the_patient(reporting):
    marked_study(reporting, 1)
    made(reporting)
    with reading(reporting.engine) as session:
        [figures] = session.scalars(select(FiguresRow))
    values = [getattr(figures, name) for name in columns(FiguresRow)]
    assert not any(secret in str(values) for secret in ("Müller", "P-4711", STUDY))
    [line] = reporting.audited(events.REPORT_MADE)
    assert line["route"] == "relay"
    text = reporting.audit_path.read_text()
    assert "ller" not in text and "P-4711" not in text


def test_on_both_kinds_of_database(engine, tmp_path, site_keys):
    flow = Flow(configuration(tmp_path / "state", site_keys, REPORT), engine)
    marked_study(flow, 1)
    assert [made(flow), made(flow)] == [1, 0]
    assert len(sent_reports(flow)) == 1


def test_a_recovered_vault_writes_the_same_report_and_counts_on(make_flow, tmp_path, monkeypatch):
    """Its figures come back, and no report gets the UID of one that went out before."""
    monkeypatch.setattr(backups, "_LOG_N", 12)
    monkeypatch.setattr(backups, "_PAGE", 1)
    flow = make_flow(REPORT)
    site = flow.config.site.model_copy(update={"contact": CONTACT, "institution": "Klinik Süd"})
    flow = flow.again(site=site)
    marked_study(flow, 1, 2)
    assert made(flow) == 1
    backups.backup(flow.config, tmp_path / "site.backup", "correct horse")
    config = load_config(recover(tmp_path / "site.backup", tmp_path / "new", "correct horse").config)
    assert said_by(config) == said_by(flow.config)
    recovered = Flow(flow.config.model_copy(update={"site": config.site, "keys": config.keys}))
    marked_study(recovered, 3)
    assert made(recovered) == 1
    [first], [second] = sent_reports(flow), sent_reports(recovered)
    assert second.SOPInstanceUID != first.SOPInstanceUID and second.SeriesInstanceUID == first.SeriesInstanceUID
    [previous] = second.PredecessorDocumentsSequence
    assert previous.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == (
        first.SOPInstanceUID
    )
    recovered.engine.dispose()


def said_by(config: Config) -> list[tuple[int, object]]:
    """What a report of the study says, as this site writes it."""
    reporter = Reporter(config.site, SealingKeys.load(config.keys), database(config))
    locators = reporter.marked_of_study(STUDY)
    report = decoded(reporter.build(locators, "2.25.1", "2.25.2"))
    assert len(found(report, "MARKED_COPY")) == len(found(report, "REGION_SHARE")) == 2
    return [(e.tag, e.value) for e in report.iterall() if e.VR not in ("DA", "TM", "DT", "SQ")]


# -- signed --------------------------------------------------------------------------------------------------------


def queued_report(flow: Flow) -> InstanceRow:
    """One report that waits for its delivery; the copy has been delivered."""
    marked_study(flow, 1)
    last_mark = max(row.marked_at or 0.0 for row in rows(flow))
    assert reports_of(flow).once(last_mark + LATER) == 1
    return next(row for row in rows(flow) if row.action == "report")


def other_signer(flow: Flow) -> SignedReport:
    """The report's document, signed by a gateway that nobody lists."""
    with reading(flow.engine) as session:
        [row] = session.scalars(select(ReportRow))
    signer = Signer(Ed25519PrivateKey.generate())
    return SignedReport(row.document, signer.sign(row.document, REPORT_LABEL), signer.id)


def another_use(flow: Flow) -> SignedReport:
    """Signed by the right key, as a vault record."""
    with reading(flow.engine) as session:
        [row] = session.scalars(select(ReportRow))
    signer = SealingKeys.load(flow.config.keys).signer
    return SignedReport(row.document, signer.sign(row.document), signer.id)


def facts(flow: Flow, **changes: object) -> SignedReport:
    """Signed rightly, of something else."""
    with reading(flow.engine) as session:
        [row] = session.scalars(select(ReportRow))
    content = {**json.loads(row.document), **changes}
    content.pop("version")
    return sign_report(SignedFacts(**content), SealingKeys.load(flow.config.keys).signer)


FORGERIES = {
    "unsigned": lambda flow: None,
    "other signer": other_signer,
    "another use": another_use,
    "another route": lambda flow: facts(flow, route="other"),
    "another row": lambda flow: facts(flow, instance_id="f" * 32),
    "another object": lambda flow: facts(flow, sop_instance_uid="1.2.3"),
    "an image": lambda flow: facts(flow, sop_class_uid="1.2.840.10008.5.1.4.1.1.2"),
    "another site": lambda flow: facts(flow, vault="other"),
    "other bytes": lambda flow: facts(flow, sha256="0" * 64),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_report_leaves_only_as_what_a_listed_gateway_signed(make_flow, forgery):
    flow = make_flow(REPORT)
    queued_report(flow)
    before = len(flow.sender.received)
    signed = FORGERIES[forgery](flow)
    values = dict.fromkeys(("document", "signature", "signer")) if signed is None else asdict(signed)
    with transaction(flow.engine) as session:
        session.query(ReportRow).update(values)
    flow.deliver()
    row = next(row for row in rows(flow) if row.action == "report")
    assert (row.state, row.reason_code) == ("held", "not-ours")
    assert len(flow.sender.received) == before
    assert [line["reason"] for line in flow.audited(events.INSTANCE_HELD)] == ["not-ours"]


def test_a_report_that_is_signed_leaves(make_flow):
    flow = make_flow(REPORT)
    queued_report(flow)
    flow.deliver()
    assert len(sent_reports(flow)) == 1
