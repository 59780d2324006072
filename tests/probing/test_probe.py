"""The probe: what comes back of it is told part by part, from real archives and from made ones that spoil it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from gateway.config import Destination
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import IMPLICIT_LITTLE
from gateway.errors import ConfigError, TransientError
from gateway.network.egress import Egress
from gateway.probing import fetch as fetching
from gateway.probing.compare import compare
from gateway.probing.fetch import Where, fetch
from gateway.probing.instance import SOP_CLASS, Probe, encoded
from tests.network.conftest import ReadableAudit
from tests.support.network import peers
from tests.support.network.samples import outgoing

PROBE = Probe("0123456789abcdef" * 2)
UIDS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
PRIVATE = ["private: key reference", "private: sealed key", "private: 256 KiB payload"]


def lost(ds: Dataset) -> list[str]:
    """The parts that do not survive."""
    return [part.name for part in compare(PROBE, encoded(ds)) if not part.survives]


def sent() -> Dataset:
    return PROBE.dataset("", "site")


def _drop_private(ds: Dataset) -> None:
    ds.remove_private_tags()


def _shorten(ds: Dataset) -> None:
    for element in list(ds):
        if element.tag.is_private and element.VR == "OB" and len(element.value) > 65_536:
            del ds[element.tag]


def _new_uids(ds: Dataset) -> None:
    for level in UIDS:
        setattr(ds, level, generate_uid(prefix=None))


def _blur(ds: Dataset) -> None:
    frame = np.frombuffer(ds.PixelData, "<u2").copy()
    frame[7] ^= 1
    ds.PixelData = frame.tobytes()


def _strip(ds: Dataset) -> None:
    del ds.DerivationDescription, ds.ContributingEquipmentSequence
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda ds: None, []),
        (_drop_private, PRIVATE),
        (_shorten, PRIVATE[2:]),
        (_new_uids, UIDS),
        (_blur, ["pixels"]),
        (_strip, ["ImageType", "DerivationDescription", "ContributingEquipmentSequence"]),
    ],
)
def test_what_was_done_to_it_is_told(spoil: Callable[[Dataset], None], expected: list[str]) -> None:
    ds = sent()
    spoil(ds)
    assert lost(ds) == expected
    assert all(part.means for part in compare(PROBE, encoded(ds)) if not part.survives)


def test_private_elements_of_unknown_vr_and_another_block_are_as_sent() -> None:
    out = io.BytesIO()
    sent().save_as(out, implicit_vr=True, little_endian=True, enforce_file_format=False)
    file = io.BytesIO()
    write_part10(file, SOP_CLASS, PROBE.uid("SOPInstanceUID"), IMPLICIT_LITTLE, [out.getvalue()])
    assert [part.name for part in compare(PROBE, file.getvalue()) if not part.survives] == []


@pytest.mark.parametrize("data", [b"", b"no DICOM at all", encoded(Probe("f" * 32).dataset("", ""))])
def test_another_object_is_not_taken_for_it(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(PROBE, data)
    assert caught.value.code == "not-the-probe"


def test_it_follows_from_its_id_and_names_no_patient() -> None:
    assert np.array_equal(PROBE.frame(), Probe(PROBE.id).frame())
    assert Probe("f" * 32).uid("SOPInstanceUID") != PROBE.uid("SOPInstanceUID")
    assert "NOT A PATIENT" in sent().StudyDescription and sent().PatientID.startswith("MIAD-PROBE")
    assert (PROBE.frame() == 4000).sum() > 100  # the word can be seen


def destination(port: int) -> Destination:
    peer = {"ae_title": "OUTSIDE", "host": "127.0.0.1", "port": port}
    return Destination(name="outside", type="research", **peer)


@pytest.mark.peers
@pytest.mark.parametrize("way", ["get", "move"])
def test_orthanc_gives_all_of_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    move_port = peers.free_port()
    if way == "move":
        monkeypatch.setattr(fetching, "_get", lambda where, keys: None)
    with peers.orthanc("OUTSIDE", {"gateway": ["MIAD_GATEWAY", "127.0.0.1", move_port]}) as archive:
        to = destination(archive.port)
        egress = Egress([to], ReadableAudit(tmp_path / "audit"))
        egress.send("outside", outgoing(encoded(sent()), PROBE.uid("SOPInstanceUID")))
        egress.close()
        data = fetch(Where(to, "OUTSIDE", "127.0.0.1", archive.port, move_port if way == "move" else None), PROBE)
        assert [part.name for part in compare(PROBE, data) if not part.survives] == []
        with pytest.raises(TransientError) as caught:
            fetch(Where(to, "OUTSIDE", "127.0.0.1", archive.port), Probe("f" * 32), patience_s=0)
        assert caught.value.code == "not-found"
