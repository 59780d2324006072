"""Every DICOM file of the data folder that is storable: what went in comes back, byte for byte."""

from __future__ import annotations

import csv
import io

import pytest

from gateway.audit import events
from gateway.dicom.encoding.encoded import read_header
from gateway.errors import DicomError
from gateway.network.contexts import EXPLICIT_LITTLE, STORAGE_CLASSES
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_dcmtk import keys, move
from tests.network.retrieve.test_protocol import MOVE, Keeper, associated, identifier, receiver
from tests.support.dicom.samples import is_standin
from tests.support.network import peers
from tests.support.retrieve.samples import from_file, received
from tests.support.retrieve.vaults import build_site

# Deflated Image Frame Compression, and two retired JPEG processes: DCMTK 3.6.7 storescp refuses the contexts.
UNKNOWN_TO_DCMTK = {"1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"}

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:Expected explicit VR")]


@pytest.fixture(scope="module")
def everything(miad_data, tmp_path_factory):
    """A vault of all files; of several under one SOP Instance UID, the last one, as an archive would have it."""
    folder = miad_data / "dicom"
    by_uid = {}
    with open(folder / "index.csv", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["preamble"] == "yes"]
    for name in names:
        try:
            sample = from_file(name, folder / name)
            read_header(io.BytesIO(sample.data), sample.transfer_syntax)
        except (DicomError, AttributeError):  # no data set, no UIDs, or no transfer syntax: nobody could send it
            continue
        if sample.sop_class in STORAGE_CLASSES:
            by_uid[sample.uid] = sample
    return build_site(tmp_path_factory.mktemp("everything"), by_uid.values())


@pytest.mark.timeout(300)
def test_everything_comes_back_as_it_was(everything, start_scp, tmp_path, audit, miad_data):
    samples = everything.samples.values()
    wanted = {sample.uid: sample.data for sample in samples}
    unknown = {sample.uid for sample in samples if sample.transfer_syntax in UNKNOWN_TO_DCMTK}
    studies = sorted({sample.study for sample in samples})
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=everything)
        said = move(scp, "-S", *keys("STUDY", StudyInstanceUID="\\".join(studies)))
    assert "Final Move Response" in said
    (line,) = audit.lines(events.RETRIEVE)
    assert (line["completed"], line["failed"]) == (len(wanted) - len(unknown), len(unknown))
    assert line["completed"] > (80 if is_standin(miad_data) else 100)
    brought = received(tmp_path / "store")
    assert brought.keys() == wanted.keys() - unknown

    # What this DCMTK has no name for goes to a receiver that takes any transfer syntax.
    keeper = Keeper()
    rest = [sample for sample in samples if sample.uid in unknown]
    if is_standin(miad_data) and not rest:
        assert [uid for uid in wanted if brought[uid] != wanted[uid]] == []
        return
    server = receiver(keeper, {(sample.sop_class, sample.transfer_syntax) for sample in rest})
    scp = start_scp(plain(port=server.server_address[1]), of=everything)
    try:
        with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
            for sample in rest:
                asked = identifier(
                    "IMAGE", StudyInstanceUID=sample.study, SeriesInstanceUID=sample.series, SOPInstanceUID=sample.uid
                )
                *_, (status, _) = association.send_c_move(asked, "READING1", MOVE)
                assert status.Status == 0x0000
    finally:
        server.shutdown()
    brought |= keeper.kept
    assert [uid for uid in wanted if brought[uid] != wanted[uid]] == []
