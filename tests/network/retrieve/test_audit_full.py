"""No line in the audit, no original: with the audit's disk full nothing leaves, by whatever way it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.audit import events
from gateway.network.retrieve.session import UIDS_IN_ONE_LINE
from tests.network.conftest import ReadableAudit
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_dcmtk import get, keys, move
from tests.network.retrieve.test_store import ask
from tests.support.network import peers
from tests.support.retrieve.samples import MR_SYNTAXES, received

pytestmark = pytest.mark.peers


@pytest.fixture
def full_at(audit: ReadableAudit, monkeypatch: pytest.MonkeyPatch):
    """Have the audit's disk full (the kernel's own ENOSPC) from the first line of an event on."""

    def fill(event: str) -> None:
        def until_full(write: Callable[..., None]) -> Callable[..., None]:
            def written(what: str, outcome: str, **fields: object) -> None:
                if what == event:
                    monkeypatch.setattr(audit, "_path", Path("/dev/full"))
                write(what, outcome, **fields)

            return written

        for way in ("write", "note"):
            monkeypatch.setattr(audit, way, until_full(getattr(audit, way)))

    return fill


def brought_by(way: str, site, start_scp, tmp_path: Path) -> dict[str, bytes]:
    """What arrives of a study of five (of one copy's original, by C-STORE)."""
    (tmp_path / "store").mkdir(exist_ok=True)
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start_scp(plain(port=port), of=site)
        if way == "C-GET":
            return get(scp, tmp_path / "got", "-S", *keys("STUDY", StudyInstanceUID=site.samples["ct"].study))[0]
        if way == "C-MOVE":
            move(scp, "-P", *keys("PATIENT", PatientID="4MR1"))
        else:
            assert ask(scp, site, "ct").status == 0xA700
    return received(tmp_path / "store")


@pytest.mark.parametrize("way", ["C-GET", "C-MOVE", "C-STORE"])
def test_without_a_line_of_intent_nothing_leaves(site, start_scp, tmp_path, audit, full_at, way) -> None:
    full_at(events.RESTORE_INTENDED)
    assert brought_by(way, site, start_scp, tmp_path) == {}
    assert audit.lines(events.RESTORE_INTENDED) == audit.lines(events.ORIGINAL_RESTORED) == []


def test_an_outcome_that_cannot_be_written_ends_the_retrieval(site, start_scp, tmp_path, audit, full_at) -> None:
    full_at(events.ORIGINAL_RESTORED)
    brought = brought_by("C-MOVE", site, start_scp, tmp_path)
    (intent,) = audit.lines(events.RESTORE_INTENDED)
    assert len(brought) == 1 and set(brought) < set(intent["sop_instance_uid"])


def test_the_line_of_intent_comes_first_and_names_all(site, start_scp, tmp_path, audit) -> None:
    brought = brought_by("C-MOVE", site, start_scp, tmp_path)
    order = [line["event"] for line in audit.lines()]
    assert order.index(events.RESTORE_INTENDED) < order.index(events.ORIGINAL_RESTORED)
    (intent,) = audit.lines(events.RESTORE_INTENDED)
    assert sorted(intent["sop_instance_uid"]) == sorted(site.samples[name].uid for name in MR_SYNTAXES)
    assert set(brought) <= set(intent["sop_instance_uid"])
    assert len(intent["sop_instance_uid"]) <= UIDS_IN_ONE_LINE
