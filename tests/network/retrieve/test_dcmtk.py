"""Query and retrieve with DCMTK, on the plain port: its `getscu` and `movescu` know no TLS."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.audit import events
from tests.network.retrieve.conftest import lines_soon, plain
from tests.support.network import peers
from tests.support.retrieve.samples import MANY, MANY_STUDY, MR_SYNTAXES, received

pytestmark = pytest.mark.peers

REJECTED = "Calling AE Title Not Recognized"


def at(scp, calling: str = "READING1", called: str = "MIAD_RESTORE") -> list[object]:
    return ["-aet", calling, "-aec", called, "127.0.0.1", scp.plain_port]


def keys(level: str, **values: str) -> list[str]:
    words = ["-k", f"QueryRetrieveLevel={level}"]
    for keyword, value in values.items():
        words += ["-k", f"{keyword}={value}"]
    return words


def find(scp, folder: Path, root: str, *options: object, calling: str = "READING1") -> list[Dataset]:
    """The answers of a C-FIND."""
    folder = folder / "answers"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    # No -v: it prints the identifier's bytes, which need not be UTF-8. DCMTK ends with 0 only after 0x0000.
    done = peers.run("findscu", root, "-X", "-od", folder, *options, *at(scp, calling))
    assert done.returncode == 0, done.stderr
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.iterdir())]


def get(scp, folder: Path, *options: object) -> tuple[dict[str, bytes], str]:
    """What a C-GET brought, and what `getscu` said."""
    folder.mkdir(exist_ok=True)
    done = peers.run("getscu", "-v", "+B", "-od", folder, *options, *at(scp))
    return received(folder), done.stdout + done.stderr


def move(scp, *options: object, to: str = "READING1") -> str:
    done = peers.run("movescu", "-v", "-aem", to, *options, *at(scp))
    return done.stdout + done.stderr


@pytest.fixture
def scp(start_scp):
    return start_scp(plain())


def test_echo(scp):
    assert peers.run("echoscu", *at(scp)).returncode == 0


# --- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workstation", "calling", "called", "said", "reason"),
    [
        (plain(), "STRANGER", "MIAD_RESTORE", REJECTED, "calling-ae-unknown"),
        (plain(addresses=("192.0.2.1",)), "READING1", "MIAD_RESTORE", REJECTED, "address-not-listed"),
        (plain(), "READING1", "OTHER", "Called AE Title Not Recognized", "called-ae-unknown"),
        (plain(plain=False, san=("x.example",)), "READING1", "MIAD_RESTORE", REJECTED, "plain-not-allowed"),
    ],
)
def test_a_stranger_is_rejected_at_the_association(start_scp, audit, workstation, calling, called, said, reason):
    scp = start_scp(workstation)
    done = peers.run("echoscu", *at(scp, calling, called))
    assert done.returncode != 0
    assert said in done.stderr
    (line,) = lines_soon(audit, events.ASSOCIATION_REFUSED)
    assert (line["reason"], line["calling_ae"], line["outcome"]) == (reason, calling, "refused")


def test_a_plain_association_is_audited_as_such(scp, audit):
    peers.run("echoscu", *at(scp))
    (line,) = lines_soon(audit, events.PLAIN_CONNECTION)
    assert (line["calling_ae"], line["peer_address"], line["tls"]) == ("READING1", "127.0.0.1", False)


# --- C-FIND ----------------------------------------------------------------------------------------------------------


def test_find_at_every_level(scp, site, tmp_path):
    ct = site.samples["ct"]
    studies = find(scp, tmp_path, "-S", *keys("STUDY", StudyInstanceUID="", PatientID=""))
    assert {a.StudyInstanceUID for a in studies} == {s.study for s in site.samples.values()}
    assert {a.RetrieveAETitle for a in studies} == {"MIAD_RESTORE"}
    patients = find(scp, tmp_path, "-P", *keys("PATIENT", PatientID="1CT1", PatientName=""))
    assert [str(a.PatientName) for a in patients] == [str(ct.header.PatientName)]
    series = find(scp, tmp_path, "-S", *keys("SERIES", StudyInstanceUID=ct.study, SeriesInstanceUID="", Modality=""))
    assert [(a.SeriesInstanceUID, a.Modality) for a in series] == [(ct.series, "CT")]
    images = find(
        scp,
        tmp_path,
        "-P",
        *keys("IMAGE", PatientID="1CT1", StudyInstanceUID=MANY_STUDY, SeriesInstanceUID=site.samples["many-0"].series),
        *["-k", "SOPInstanceUID", "-k", "InstanceNumber"],
    )
    assert {a.SOPInstanceUID for a in images} == {site.samples[f"many-{n}"].uid for n in range(MANY)}


def test_find_by_a_derived_uid_answers_the_original(scp, site, tmp_path):
    sample, record = site.samples["mr"], site.records["mr"]
    answers = find(
        scp,
        tmp_path,
        "-S",
        *keys(
            "IMAGE",
            StudyInstanceUID=sample.study,
            SeriesInstanceUID=record.derived_series_uid,
            SOPInstanceUID=record.derived_sop_uid,
        ),
    )
    assert [a.SOPInstanceUID for a in answers] == [sample.uid]


@pytest.mark.parametrize(
    ("matching", "names"),
    [
        ({"PatientName": "CompressedSamples^MR*"}, set(MR_SYNTAXES)),
        ({"PatientName": "compressedsamples^mr?"}, set(MR_SYNTAXES)),
        ({"StudyDate": "20040101-20040630"}, {"ct", "many-0"}),
        ({"StudyDate": "20160503-"}, {"us-jpeg-frames", "sc-jpeg"}),
        ({"StudyDate": "-20030716"}, {"plan-implicit"}),
        ({"PatientID": "1CT1", "StudyDate": "20040119"}, {"ct", "many-0"}),
        ({"PatientName": "NOBODY*"}, set()),
    ],
)
def test_matching(scp, site, tmp_path, matching, names):
    answers = find(scp, tmp_path, "-S", *keys("STUDY", StudyInstanceUID="", **matching))
    assert {a.StudyInstanceUID for a in answers} == {site.samples[name].study for name in names}


def test_character_sets(scp, site, tmp_path):
    """A query in Latin-1 finds a name stored in Latin-1; answers come in UTF-8."""
    latin = b"PatientName=*J\xe9r*".decode(errors="surrogateescape")
    answers = find(scp, tmp_path, "-S", *keys("STUDY", SpecificCharacterSet="ISO_IR 100"), "-k", latin)
    assert [str(a.PatientName) for a in answers] == [str(site.samples["french"].header.PatientName)]
    utf8 = "PatientName=*小*".encode().decode(errors="surrogateescape")
    answers = find(scp, tmp_path, "-S", *keys("STUDY", SpecificCharacterSet="ISO_IR 192"), "-k", utf8)
    assert [str(a.PatientName) for a in answers] == [str(site.samples["chinese"].header.PatientName)]


def test_a_query_can_be_cancelled(scp, site, audit):
    sample = site.samples["many-0"]
    asked = keys("IMAGE", StudyInstanceUID=sample.study, SeriesInstanceUID=sample.series, SOPInstanceUID="")
    done = peers.run("findscu", "-v", "-S", "--cancel", 1, *asked, *at(scp))
    said = done.stdout + done.stderr
    assert "Cancel: MatchingTerminatedDueToCancelRequest" in said
    assert said.count("(Pending)") < MANY
    (line,) = audit.lines(events.QUERY)
    assert line["status"] == "0xFE00"


def test_a_query_is_audited_without_values_and_answers(scp, site, audit, tmp_path):
    find(scp, tmp_path, "-S", *keys("STUDY", StudyInstanceUID="", PatientName="Comp*"))
    (line,) = audit.lines(events.QUERY)
    assert (line["level"], line["model"], line["matches"]) == ("STUDY", "STUDY", 4)
    assert "PatientName" in line["query_keys"]
    assert "Comp" not in audit.path.read_text()


def test_an_identifier_without_its_keys_is_refused(scp, audit):
    done = peers.run("findscu", "-v", "-S", *keys("SERIES", SeriesInstanceUID=""), *at(scp))
    assert "DataSetDoesNotMatchSOPClass" in done.stdout + done.stderr
    assert audit.lines(events.QUERY)[0]["reason"] == "unique-key-missing"


def test_more_matches_than_the_limit_are_not_passed_off_as_all(start_scp, site):
    scp = start_scp(plain(), max_matches=10)
    sample = site.samples["many-0"]
    asked = keys("IMAGE", StudyInstanceUID=sample.study, SeriesInstanceUID=sample.series, SOPInstanceUID="")
    done = peers.run("findscu", "-v", "-S", *asked, *at(scp))
    said = done.stdout + done.stderr
    assert said.count("(Pending)") == 10
    assert "OutOfResources" in said


# --- C-GET -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("ct", "+x="),
        ("ct-j2k", "+xw"),
        ("mr-rle", "+xr"),
        ("mr-jpeg-ls", "+xt"),
        ("mr-j2k-lossless", "+xv"),
        ("sc-jpeg", "+xy"),
        ("sc-jpeg-lossless", "+xs"),
        ("sc-jpeg-extended", "+xx"),
        ("sc-deflated", "+xd"),
        ("us-jpeg-frames", "+xy"),
        ("plan-implicit", "+x="),  # names explicit first; the vault holds plans in implicit only
        ("french", "+x="),
    ],
)
def test_get_brings_the_exact_bytes(scp, site, tmp_path, name, option):
    sample = site.samples[name]
    asked = keys("IMAGE", StudyInstanceUID=sample.study, SeriesInstanceUID=sample.series, SOPInstanceUID=sample.uid)
    brought, said = get(scp, tmp_path / "got", option, "-S", *asked)
    assert brought == {sample.uid: sample.data}, said
    assert "C-GET Response (Success)" in said


def test_get_of_a_series(scp, site, tmp_path, audit):
    wanted = {s.uid: s.data for n, s in site.samples.items() if n.startswith("many-")}
    asked = keys("SERIES", StudyInstanceUID=MANY_STUDY, SeriesInstanceUID=site.samples["many-0"].series)
    brought, said = get(scp, tmp_path / "got", "-S", *asked)
    assert brought == wanted
    assert f"Completed Suboperations : {MANY}" in said
    restored = audit.lines(events.ORIGINAL_RESTORED)
    assert {line["sop_instance_uid"] for line in restored} == set(wanted)
    assert {(line["calling_ae"], line["outcome"], line["bit_exact"]) for line in restored} == {
        ("READING1", "success", True)
    }
    (line,) = audit.lines(events.RETRIEVE)
    assert (line["completed"], line["failed"], line["status"]) == (MANY, 0, "0x0000")


def test_get_by_derived_uids_brings_the_original(scp, site, tmp_path):
    sample, record = site.samples["ct"], site.records["ct"]
    asked = keys(
        "IMAGE",
        StudyInstanceUID=sample.study,
        SeriesInstanceUID=record.derived_series_uid,
        SOPInstanceUID=record.derived_sop_uid,
    )
    brought, _ = get(scp, tmp_path / "got", "-S", *asked)
    assert brought == {sample.uid: sample.data}


def test_get_never_converts(scp, site, tmp_path, audit):
    sample = site.samples["mr-jpeg-ls"]
    asked = keys("IMAGE", StudyInstanceUID=sample.study, SeriesInstanceUID=sample.series, SOPInstanceUID=sample.uid)
    brought, said = get(scp, tmp_path / "got", "+xe", "-S", *asked)
    assert brought == {}
    assert "Failed Suboperations    : 1" in said
    (line,) = audit.lines(events.ORIGINAL_RESTORED)
    assert (line["outcome"], line["reason"]) == ("failure", "context-not-accepted")


# --- C-MOVE ----------------------------------------------------------------------------------------------------------


def test_move_brings_every_original_in_its_own_syntax(start_scp, site, tmp_path):
    wanted = {s.uid: s.data for n, s in site.samples.items() if not n.startswith("many-")}
    studies = {s.study for n, s in site.samples.items() if not n.startswith("many-")}
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port))
        said = move(scp, "-S", *keys("STUDY", StudyInstanceUID="\\".join(studies)))
    assert "Move Response (Success)" in said
    brought = received(tmp_path / "store")
    assert brought.keys() == wanted.keys()
    assert [uid for uid in wanted if brought[uid] != wanted[uid]] == []


def test_move_of_a_patient(start_scp, site, tmp_path):
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port))
        said = move(scp, "-P", *keys("PATIENT", PatientID="4MR1"))
    assert "Move Response (Success)" in said
    assert received(tmp_path / "store") == {site.samples[n].uid: site.samples[n].data for n in MR_SYNTAXES}


def test_a_receiver_that_refuses_a_syntax_gets_the_others(start_scp, site, tmp_path, audit):
    with peers.storescp(tmp_path / "store", "+xi") as port:  # implicit only
        scp = start_scp(plain(port=port))
        said = move(scp, "-P", *keys("PATIENT", PatientID="4MR1"))
    assert "SubOperationsCompleteOneOrMoreFailures" in said
    assert received(tmp_path / "store") == {site.samples["mr-implicit"].uid: site.samples["mr-implicit"].data}
    (line,) = audit.lines(events.RETRIEVE)
    assert (line["completed"], line["failed"]) == (1, 4)


@pytest.mark.parametrize(("to", "port"), [("READING2", 104), ("NOBODY", 104), ("READING1", None)])
def test_originals_go_to_nobody_but_the_requester(start_scp, site, audit, to, port):
    scp = start_scp(plain(port=port), plain("READING2", port=105))
    said = move(scp, "-S", *keys("STUDY", StudyInstanceUID=site.samples["ct"].study), to=to)
    assert "MoveDestinationUnknown" in said
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert (line["outcome"], line["move_destination"], line["status"]) == ("refused", to, "0xA801")


def test_a_receiver_that_is_down(start_scp, site, audit):
    scp = start_scp(plain(port=peers.free_port()))
    said = move(scp, "-S", *keys("STUDY", StudyInstanceUID=site.samples["ct"].study))
    assert "OutOfResourcesSubOperations" in said
    (line,) = audit.lines(events.ORIGINAL_RESTORED)
    assert (line["outcome"], line["reason"]) == ("failure", "unreachable")


def test_a_move_can_be_cancelled(start_scp, site, tmp_path, audit):
    with peers.storescp(tmp_path / "store") as port:
        scp = start_scp(plain(port=port))
        asked = keys("STUDY", StudyInstanceUID=MANY_STUDY)
        done = peers.run("movescu", "-v", "-aem", "READING1", "--cancel", 1, "-S", *asked, *at(scp))
    assert "Cancel" in done.stdout + done.stderr
    (line,) = audit.lines(events.RETRIEVE)
    assert line["status"] == "0xFE00"
    assert line["completed"] + line["remaining"] == MANY
    assert len(received(tmp_path / "store")) == line["completed"] < MANY


# --- scope -----------------------------------------------------------------------------------------------------------


def test_out_of_scope_looks_like_nothing_there(start_scp, site, tmp_path, audit):
    ct, mr = site.samples["ct"], site.samples["mr"]
    with peers.storescp(tmp_path / "store") as port:
        scp = start_scp(plain(port=port, studies=(ct.study,)))
        answers = find(scp, tmp_path, "-S", *keys("STUDY", StudyInstanceUID=""))
        assert [a.StudyInstanceUID for a in answers] == [ct.study]
        assert find(scp, tmp_path, "-S", *keys("STUDY", StudyInstanceUID=mr.study)) == []
        brought, said = get(scp, tmp_path / "got", "-S", *keys("STUDY", StudyInstanceUID=mr.study))
        assert brought == {}
        assert "C-GET Response (Success)" in said
        said = move(scp, "-S", *keys("STUDY", StudyInstanceUID=mr.study))
        assert "Move Response (Success)" in said
    assert received(tmp_path / "store") == {}
    assert audit.lines(events.ORIGINAL_RESTORED) == []
