"""C-FIND matching and the selection for C-MOVE and C-GET (PS3.4 C.2.2.2, C.4, C.6)."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from gateway.dicom.encoding.attributes import query_attributes
from gateway.errors import VaultError
from gateway.vault import Index, Scope
from gateway.vault import index as module
from tests.support.vault import facts_of

ALL = Scope()


def model(name: str, patient: str, date: str, accession: str, modality: str, number: int, **more: str) -> dict:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.StudyDate, ds.AccessionNumber = name, patient, date, accession
    ds.StudyTime, ds.Modality, ds.InstanceNumber, ds.SeriesNumber = "101500", modality, number, 7
    ds.StudyDescription = more.get("description", "Head")
    return ds.to_json_dict()


@pytest.fixture
def index(vault) -> Index:
    """Two patients: Doe^John with study 1.1 (CT 1.1.1 of two, MR 1.1.2 of one), Yamada with study 1.2 (one US)."""
    doe = ("Doe^John", "P1", "20240105", "A1")
    vault.store(b"1", "1.1.1.1", original_series_uid="1.1.1", study_uid="1.1", attributes=model(*doe, "CT", 1))
    vault.store(b"2", "1.1.1.2", original_series_uid="1.1.1", study_uid="1.1", attributes=model(*doe, "CT", 2))
    vault.store(b"3", "1.1.2.1", original_series_uid="1.1.2", study_uid="1.1", attributes=model(*doe, "MR", 1))
    vault.store(
        b"4",
        "1.2.1.1",
        original_series_uid="1.2.1",
        study_uid="1.2",
        attributes=model("Yamada^Tarou=山田^太郎=やまだ^たろう", "P2", "20240220", "B2", "US", 1),
    )
    return Index(vault.engine)


def keys(**values) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def studies(index: Index, root="STUDY", scope=ALL, limit=100, **query) -> list[str]:
    query = {"StudyInstanceUID": ""} | query
    return [a.StudyInstanceUID for a in index.find(root, "STUDY", keys(**query), scope, limit)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["1.1", "1.2"]),
        ({"PatientName": ""}, ["1.1", "1.2"]),
        ({"PatientName": "*"}, ["1.1", "1.2"]),
        ({"PatientName": "doe^JOHN"}, ["1.1"]),
        ({"PatientName": "doe^JOHN^^^"}, ["1.1"]),
        ({"PatientName": "Doe"}, []),
        ({"PatientName": "d?e*"}, ["1.1"]),
        ({"PatientName": "d.e*"}, []),
        ({"PatientName": "山田*"}, ["1.2"]),
        ({"PatientName": "=山田^太郎"}, ["1.2"]),  # its ideographic group alone
        ({"PatientName": "==やまだ*"}, ["1.2"]),
        ({"PatientName": "yamada*=山田^太郎"}, ["1.2"]),
        ({"PatientName": "Suzuki=山田^太郎"}, []),
        ({"PatientName": "=やまだ^たろう"}, []),
        ({"PatientName": "Yamada^Tarou"}, ["1.2"]),
        ({"PatientID": "P1"}, ["1.1"]),
        ({"PatientID": "p1"}, []),
        ({"PatientID": "P*"}, ["1.1", "1.2"]),
        ({"AccessionNumber": "B2"}, ["1.2"]),
        ({"AccessionNumber": "?2"}, ["1.2"]),
        ({"StudyDate": "20240105"}, ["1.1"]),
        ({"StudyDate": "20240101-20240131"}, ["1.1"]),
        ({"StudyDate": "-20240105"}, ["1.1"]),
        ({"StudyDate": "20240106-"}, ["1.2"]),
        ({"StudyDate": "20240105-20240220"}, ["1.1", "1.2"]),
        ({"StudyTime": "1000-1015"}, ["1.1", "1.2"]),
        ({"StudyTime": "101501-"}, []),
        ({"StudyDescription": "he*"}, []),
        ({"StudyDescription": "He*"}, ["1.1", "1.2"]),
        ({"StudyInstanceUID": ["1.2", "1.9"]}, ["1.2"]),
        ({"StudyInstanceUID": "1.1"}, ["1.1"]),
        ({"ModalitiesInStudy": "MR"}, ["1.1"]),
        ({"ModalitiesInStudy": ["US", "CR"]}, ["1.2"]),
        ({"Modality": "US"}, ["1.1", "1.2"]),  # a key of a lower level is no key here
    ],
)
def test_study_matching(index, query, expected):
    assert studies(index, **query) == expected


LONG = {
    "PatientID": "P" * 70,
    "AccessionNumber": "ACC-1234567890123456",
    "StudyDescription": "Description " * 6 + "end",
    "PatientName": "Very" * 20 + "^Long",
}


@pytest.mark.parametrize("keyword", LONG)
@pytest.mark.parametrize("wild", [False, True])
def test_values_longer_than_their_vr_are_found_and_answered_whole(vault, keyword, wild):
    for number, value in enumerate((LONG[keyword], LONG[keyword] + "x"), 1):
        ds = Dataset()
        setattr(ds, keyword, value)
        facts = {"study_uid": f"9.{number}", "attributes": query_attributes(ds)}
        vault.store(b"%d" % number, f"9.{number}.1.1", original_series_uid=f"9.{number}.1", **facts)
    asked = {"StudyInstanceUID": "", keyword: "*" + LONG[keyword][3:] if wild else LONG[keyword]}
    (answer,) = Index(vault.engine).find("STUDY", "STUDY", keys(**asked), ALL, 10)
    assert (answer.StudyInstanceUID, str(answer[keyword].value)) == ("9.1", LONG[keyword])


def test_two_long_patient_ids_with_one_beginning_are_two_patients(vault):
    for number, patient in enumerate(("P" * 70 + "a", "P" * 70 + "b"), 1):
        attributes = query_attributes(keys(PatientID=patient))
        vault.store(b"%d" % number, f"9.{number}.1.1", study_uid=f"9.{number}", attributes=attributes)
    found = [a.PatientID for a in Index(vault.engine).find("PATIENT", "PATIENT", keys(PatientID="P*"), ALL, 10)]
    assert found == ["P" * 70 + "a", "P" * 70 + "b"]


@pytest.mark.parametrize(
    ("keyword", "several", "asked"),
    [
        ("AccessionNumber", ["A1", "A2"], "A2"),
        ("AccessionNumber", ["A1", "A2"], "?2"),
        ("PatientID", ["X", "Y"], "Y"),
        ("StudyID", ["S1", "S2"], "S2"),
        ("StudyDescription", ["Head", "Neck"], "N*"),
        ("ReferringPhysicianName", ["A^B", "C^D"], "c^d"),
        ("StudyDate", ["20230101", "20240105"], "20240101-20241231"),
        ("StudyDate", ["20240105", "20230101"], "20230101"),
    ],
)
def test_each_value_of_a_multi_valued_attribute_matches(vault, keyword, several, asked):
    attributes = query_attributes(keys(**{keyword: several}))
    vault.store(b"1", "9.1.1.1", study_uid="9.1", attributes=attributes)
    vault.store(b"2", "9.2.1.1", study_uid="9.2", attributes=query_attributes(keys(**{keyword: ""})))
    assert studies(Index(vault.engine), **{keyword: asked}) == ["9.1"]
    assert studies(Index(vault.engine), **{keyword: "19991231" if keyword == "StudyDate" else "none"}) == []


def test_a_retrieval_names_as_many_instances_as_the_standard_lets_it(index):
    uids = [*(f"8.{number}" for number in range(65533)), "1.1.1.2", "1.1.1.1"]
    asked = keys(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", SOPInstanceUID=uids)
    assert len(index.select("STUDY", "IMAGE", asked, ALL)) == 2


def test_what_the_field_asks_for_is_found(vault, field_inputs):
    originals = {file.stem: dcmread(file) for file in (field_inputs / "find").glob("*.dcm")}
    for name, ds in originals.items():
        uids = {"study_uid": ds.StudyInstanceUID, "original_series_uid": ds.SeriesInstanceUID}
        vault.store(name.encode(), ds.SOPInstanceUID, attributes=query_attributes(ds), **uids)
    found = {}
    for name, keyword in (("acc20", "AccessionNumber"), ("sd80", "StudyDescription"), ("pid70", "PatientID")):
        wanted = originals[name][keyword].value
        answers = list(Index(vault.engine).find("STUDY", "STUDY", keys(**{keyword: wanted}), ALL, 10))
        found[name] = [(a.StudyInstanceUID, a[keyword].value) for a in answers]
        assert found[name] == [(originals[name].StudyInstanceUID, wanted)]


def test_answers_hold_what_was_asked_and_the_unique_keys(index):
    query = keys(
        PatientName="",
        ModalitiesInStudy="",
        NumberOfStudyRelatedSeries="",
        NumberOfStudyRelatedInstances="",
        PatientComments="",
        StudyInstanceUID="1.1",
        InstanceAvailability="",
    )
    (answer,) = index.find("STUDY", "STUDY", query, ALL, 10)
    assert answer.PatientName == "Doe^John"
    assert list(answer.ModalitiesInStudy) == ["CT", "MR"]
    assert answer.NumberOfStudyRelatedSeries == 2
    assert answer.NumberOfStudyRelatedInstances == 3
    assert not answer.PatientComments and "StudyDescription" not in answer
    assert answer.QueryRetrieveLevel == "STUDY" and answer.InstanceAvailability == "ONLINE"
    assert "SpecificCharacterSet" not in answer
    assert index.unsupported("STUDY", "STUDY", query)
    assert not index.unsupported("STUDY", "STUDY", keys(PatientName="", NumberOfStudyRelatedSeries="", StudyID=""))


def test_non_ascii_answers_are_utf8_and_survive_encoding(index):
    (answer,) = index.find("PATIENT", "PATIENT", keys(PatientID="P2", PatientName=""), ALL, 10)
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, answer)
    again = dcmread(io.BytesIO(buffer.getvalue()), force=True)
    assert str(again.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 192", "山田*"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), (["", "ISO 2022 IR 87"], "山田^*")],
)
def test_a_query_in_its_own_character_set(index, charset, name):
    query = keys(SpecificCharacterSet=charset, PatientName=name, StudyInstanceUID="")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, query)
    sent = dcmread(io.BytesIO(buffer.getvalue()), force=True)
    found = [a.StudyInstanceUID for a in index.find("STUDY", "STUDY", sent, ALL, 10)]
    assert found == ["1.2"]


def test_series_and_image_levels(index):
    query = keys(StudyInstanceUID="1.1", SeriesInstanceUID="", Modality="", NumberOfSeriesRelatedInstances="")
    found = list(index.find("STUDY", "SERIES", query, ALL, 10))
    assert [(a.SeriesInstanceUID, a.Modality, a.NumberOfSeriesRelatedInstances) for a in found] == [
        ("1.1.1", "CT", 2),
        ("1.1.2", "MR", 1),
    ]
    query = keys(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", SOPInstanceUID="", InstanceNumber="2")
    (image,) = index.find("STUDY", "IMAGE", query, ALL, 10)
    assert image.SOPInstanceUID == "1.1.1.2" and image.InstanceNumber == 2


def test_patient_root(index):
    query = keys(PatientID="", PatientName="", NumberOfPatientRelatedStudies="", NumberOfPatientRelatedInstances="")
    found = list(index.find("PATIENT", "PATIENT", query, ALL, 10))
    assert [(a.PatientID, a.NumberOfPatientRelatedStudies, a.NumberOfPatientRelatedInstances) for a in found] == [
        ("P1", 1, 3),
        ("P2", 1, 1),
    ]
    assert studies(index, root="PATIENT", PatientID="P2") == ["1.2"]


@pytest.mark.parametrize(
    ("root", "level", "query"),
    [
        ("STUDY", "SERIES", {}),
        ("STUDY", "SERIES", {"StudyInstanceUID": ["1.1", "1.2"]}),
        ("STUDY", "IMAGE", {"StudyInstanceUID": "1.1"}),
        ("PATIENT", "STUDY", {}),
        ("PATIENT", "STUDY", {"PatientID": "P*"}),
        ("PATIENT", "SERIES", {"StudyInstanceUID": "1.1"}),
    ],
)
def test_hierarchical_queries_need_the_keys_above(index, root, level, query):
    for call in (lambda: index.find(root, level, keys(**query), ALL, 10), lambda: select(index, root, level, **query)):
        with pytest.raises(VaultError) as caught:
            call()
        assert caught.value.code == "identifier-incomplete"


def select(index, root, level, scope=ALL, **query):
    unique = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
    return index.select(root, level, keys(**({unique.get(level, "SOPInstanceUID"): "9"} | query)), scope)


def test_level_of_another_model(index):
    with pytest.raises(VaultError) as caught:
        index.find("STUDY", "PATIENT", keys(PatientID=""), ALL, 10)
    assert caught.value.code == "level-not-in-model"


def test_scope_hides_before_matching(index):
    scope = Scope(("1.2",))
    assert studies(index, scope=scope) == ["1.2"]
    assert studies(index, scope=scope, StudyInstanceUID="1.1") == []
    assert studies(index, scope=Scope(())) == []
    query = keys(PatientID="", NumberOfPatientRelatedStudies="")
    assert [a.PatientID for a in index.find("PATIENT", "PATIENT", query, scope, 10)] == ["P2"]
    assert index.select("STUDY", "STUDY", keys(StudyInstanceUID="1.1"), scope) == []
    assert len(index.select("STUDY", "STUDY", keys(StudyInstanceUID="1.2"), scope)) == 1


def test_limit_is_told(index):
    found = index.find("STUDY", "STUDY", keys(StudyInstanceUID=""), ALL, 1)
    assert next(found).StudyInstanceUID == "1.1"
    with pytest.raises(VaultError) as caught:
        next(found)
    assert caught.value.code == "too-many-matches"
    assert studies(index, limit=2) == ["1.1", "1.2"]


def test_derived_uids_find_and_select_originals(index, vault):
    old = vault.records.by_original_uid("1.1.1.1")
    new = vault.store(b"corrected", "1.1.1.1", original_series_uid="1.1.1", study_uid="1.1", attributes=old.attributes)

    def images(uid):
        query = keys(StudyInstanceUID="1.1", SeriesInstanceUID=old.derived_series_uid, SOPInstanceUID=uid)
        found = [a.SOPInstanceUID for a in index.find("STUDY", "IMAGE", query, ALL, 10)]
        return found, index.select("STUDY", "IMAGE", query, ALL)

    assert images("1.1.1.1") == (["1.1.1.1"], [new.locator])
    assert images(new.derived_sop_uid) == (["1.1.1.1"], [new.locator])
    assert images(old.derived_sop_uid) == (["1.1.1.1"], [old.locator])
    series = keys(StudyInstanceUID="1.1", SeriesInstanceUID=old.derived_series_uid)
    selected = index.select("STUDY", "SERIES", series, ALL)
    assert new.locator in selected and old.locator not in selected and len(selected) == 2
    (answer,) = index.find("STUDY", "SERIES", series, ALL, 10)
    assert answer.SeriesInstanceUID == "1.1.1"


def test_the_study_uid_of_copies_finds_and_selects_originals(index, vault):
    """Where copies have a study of their own; the scope is of originals, and answers name originals."""
    new = vault.store(b"x", "1.3.1.1", original_series_uid="1.3.1", study_uid="1.3", has_new_study=True)
    for study in ("1.3", new.derived_study_uid):
        (answer,) = index.find("STUDY", "STUDY", keys(StudyInstanceUID=study), Scope(("1.3",)), 10)
        assert answer.StudyInstanceUID == "1.3"
        assert index.select("STUDY", "STUDY", keys(StudyInstanceUID=study), Scope(("1.3",))) == [new.locator]
        assert index.select("STUDY", "STUDY", keys(StudyInstanceUID=study), Scope(("1.1",))) == []
        image = keys(StudyInstanceUID=study, SeriesInstanceUID=new.derived_series_uid, SOPInstanceUID="1.3.1.1")
        assert index.select("STUDY", "IMAGE", image, ALL) == [new.locator]
    assert index.select("STUDY", "STUDY", keys(StudyInstanceUID="1.1"), Scope((new.derived_study_uid,))) == []


def test_purged_records_are_not_seen(index, vault):
    vault.records.expire(9e9, keep=[vault.records.by_original_uid("1.2.1.1").locator])
    assert studies(index) == ["1.2"]
    assert index.select("STUDY", "STUDY", keys(StudyInstanceUID="1.1"), ALL) == []


@pytest.mark.parametrize("count", [9, 10, 11])
def test_more_entities_than_a_page(vault, monkeypatch, count):
    monkeypatch.setattr(module, "_PAGE", 5)
    for number in range(count):
        vault.records.create(
            facts_of(b"x", f"1.9.{number}.1", study_uid=f"1.9.{number}", original_series_uid=f"1.9.{number}.0")
        )
    found = studies(Index(vault.engine), limit=1000)
    assert len(found) == len(set(found)) == count
