"""A query that nothing matches ends when its caller no longer waits, however large the vault is."""

from __future__ import annotations

import threading
import time

import pytest
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND

from gateway.audit import events
from gateway.network.contexts import EXPLICIT_LITTLE
from gateway.vault.index import Index
from tests.network.retrieve.conftest import lines_soon, plain
from tests.network.retrieve.test_protocol import associated, identifier
from tests.network.test_ingress import gateway_threads, until

NOTHING = identifier("STUDY", StudyDescription="*?" * 15 + "#")


@pytest.fixture
def endless(monkeypatch) -> None:
    """A vault whose studies never end, as long as somebody asks for more."""
    pages = Index._pages

    def again(*given):
        until_s = time.monotonic() + 50  # a query that does not end is seen as one, and leaves no thread behind
        while time.monotonic() < until_s:
            yield from pages(*given)

    monkeypatch.setattr(Index, "_pages", again)


def test_it_can_be_cancelled(endless, start_scp, audit):
    begun = time.monotonic()
    with associated(start_scp(plain()), [(FIND, EXPLICIT_LITTLE)]) as association:
        cancel = threading.Timer(0.3, association.send_c_cancel, [7], {"query_model": FIND})
        cancel.start()
        ((status, answer),) = association.send_c_find(NOTHING, FIND, msg_id=7)
    assert status.Status == 0xFE00 and answer is None
    assert time.monotonic() - begun < 40
    (line,) = audit.lines(events.QUERY)
    assert (line["status"], line["matches"]) == ("0xFE00", 0)


@pytest.mark.parametrize("who", ["the caller", "the role"])
def test_it_ends_with_its_association(endless, start_scp, audit, who):
    scp = start_scp(plain())
    begun = time.monotonic()
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        if who == "the caller":
            association.dimse_timeout = 0.5  # then it aborts
        else:
            threading.Timer(0.3, scp.stop, [0.2]).start()
        list(association.send_c_find(NOTHING, FIND))
    (line,) = lines_soon(audit, events.QUERY)
    assert line["matches"] == 0
    assert until(lambda: not gateway_threads())
    assert time.monotonic() - begun < 40
