"""Studies, marks and restores at the page: UIDs and internal ids, and nothing of a patient."""

from __future__ import annotations

from pathlib import Path

from gateway.audit import AuditLog, events
from gateway.web.restores import restores
from tests.web.conftest import PATIENT, Shown

STUDY = "1.2.3.1"


def test_a_study_shows_its_originals_and_copies(shown: Shown) -> None:
    (line,) = shown.client.get("/api/v1/studies").json()["lines"]
    assert (line["study_uid"], line["originals"], line["sealed"]) == (STUDY, 4, 4)
    assert line["states"] == {"delivered": 1, "held": 2, "marked": 1}
    found = shown.client.get(f"/api/v1/studies/{STUDY}").json()
    copies = {one["original_sop_uid"]: one for one in found["lines"]}
    delivered = copies["1.2.826.0.1.99.1"]
    assert delivered["instance_id"] == shown.ids["delivered"] and delivered["figures"]["psnr"] > 20
    assert copies["1.2.826.0.1.99.3"]["figures"] is None  # held: nothing was marked
    text = shown.client.get(f"/studies/{STUDY}").text
    assert delivered["derived_sop_uid"] in text and delivered["instance_id"] in text
    assert delivered["derived_sop_uid"] in shown.client.get(f"/instances/{delivered['instance_id']}").text


def test_a_study_is_found_by_the_uid_of_a_copy(shown: Shown) -> None:
    copy = shown.client.get(f"/api/v1/instances/{shown.ids['delivered']}").json()["derived_sop_instance_uid"]
    assert STUDY in shown.client.get("/studies", params={"uid": f" {copy} "}).text
    assert "no study, series" in shown.client.get("/studies", params={"uid": "1.2.3.4"}).text
    answer = shown.client.get("/studies", params={"uid": "Doe"})
    assert answer.status_code == 400 and "digits and dots" in answer.text
    assert shown.client.get("/studies/1.2.3.4").status_code == 404
    assert shown.client.get("/api/v1/studies/1.2.3.4").json()["code"] == "no-such-study"


def test_marks_of_a_route_are_summed_up(shown: Shown) -> None:
    found = shown.client.get("/api/v1/marks").json()
    by_route = {one["route"]: one for one in found["routes"]}
    assert by_route["relay"]["marks"] == 2 and by_route["partner"]["marks"] == 1
    assert by_route["relay"]["psnr_lowest"] <= by_route["relay"]["psnr_median"]
    assert len(found["lines"]) == 3 and shown.ids["delivered"] in {one["instance_id"] for one in found["lines"]}
    assert "asked" not in by_route  # it holds everything


def test_nothing_of_a_patient_stands_there(shown: Shown) -> None:
    for path in ("/studies", f"/studies/{STUDY}", "/marks", "/restores"):
        for place in (path, f"/api/v1{path}"):
            text = shown.client.get(place).text
            assert not any(value in text for value in PATIENT.values()), place


def test_restores_of_one_association_are_one_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "restore.jsonl")
    caller = {"association_id": "a1", "calling_ae": "READER", "peer_address": "10.0.0.9", "operation": "C-GET"}
    for number in range(300):
        log.write(events.ORIGINAL_RESTORED, "success", sop_instance_uid=f"1.{number}", bit_exact=True, **caller)
    log.write(events.RETRIEVE, "success", completed=300, **caller)
    log.write(events.RESTORE_REFUSED, "refused", reason="study-not-in-scope", sop_instance_uid="1.7", **caller)
    AuditLog(tmp_path / "page.jsonl").write(events.PAGE_LOGIN, "refused", reason="wrong-password")
    found = restores({"restore": tmp_path / "restore.jsonl", "page": tmp_path / "page.jsonl"})
    refused, given = found.lines
    assert (refused.reason, refused.sop_instance_uid, refused.count) == ("study-not-in-scope", "1.7", 1)
    assert (given.count, given.bit_exact, given.calling_ae, given.sop_instance_uid) == (300, True, "READER", None)
    assert not found.more and restores({"restore": tmp_path / "restore.jsonl"}, 1).more


def test_a_log_that_is_closed_is_told_of(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "restore.jsonl").mkdir()  # root may read every file: what cannot be read as one stands for it
    assert restores({"restore": tmp_path / "restore.jsonl"}).closed == ["restore"]
    assert "Nobody has asked for an original yet" in shown.client.get("/restores").text


def test_the_queue_of_a_study_holds_what_was_sealed_of_it(shown: Shown) -> None:
    lines = shown.client.get("/api/v1/queue", params={"study": "1.2.3.1"}).json()
    assert {one["id"] for one in lines} == {shown.ids[name] for name in ("delivered", "failing", "held", "refused")}
    assert {one["study_uid"] for one in lines} == {"1.2.3.1"}
    assert shown.client.get("/api/v1/queue", params={"study": "1.2.3"}).json() == []
    of_all = {one["id"]: one["study_uid"] for one in shown.client.get("/api/v1/queue").json()}
    assert of_all[shown.ids["waiting"]] is None
