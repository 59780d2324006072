"""A C-GET spoken by hand: what comes between the sub-operations is heard, and told, in time."""

from __future__ import annotations

import itertools
import threading

import pytest
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET

from gateway.network import command as dimse
from gateway.restore import Original
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_receivers_and_requests import CT, cancel, final_status, keys, opened, request
from tests.support.network import raw
from tests.support.retrieve.samples import MANY_STUDY


def an_original(wire: raw.Wire) -> int:
    """Read one sub-operation of a C-GET; gives its message id."""
    number = None
    while True:
        kind, body = wire.read()
        assert kind == 0x04
        if body[5] & 1:
            command = dimse.decode_command(body[6 : 4 + int.from_bytes(body[:4])])
            assert command.get(dimse.STATUS, 0xFF00) == 0xFF00
            number = command.get(dimse.MESSAGE_ID, number)
        elif body[5] & 2:
            return number


def stored(number: int) -> bytes:
    response = {dimse.COMMAND_FIELD: dimse.C_STORE_RSP, dimse.MESSAGE_ID_RESPONDED_TO: number, dimse.STATUS: 0x0000}
    return dimse.encode_command(response | {dimse.DATA_SET_TYPE: dimse.NO_DATA_SET})


def begin_get(wire: raw.Wire) -> None:
    opened(wire, raw.context_rq(1, GET), raw.context_rq(3, CT))
    wire.send(raw.data(1, 3, request(0x0010, GET)) + raw.data(1, 2, keys("STUDY", StudyInstanceUID=MANY_STUDY)))


@pytest.mark.parametrize("first", ["answer", "cancel"])
def test_a_cancel_beside_an_answer_stops_a_get_at_once(start_scp, site, first):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        begin_get(wire)
        for _ in range(2):
            wire.send(raw.data(3, 3, stored(an_original(wire))))
        number = an_original(wire)
        said = [raw.data(3, 3, stored(number)), raw.data(1, 3, cancel())]
        wire.send(b"".join(said if first == "answer" else reversed(said)))
        assert final_status(wire) == (0xFE00, 1)  # after the third original a word of how far it is, and no fourth


def test_how_far_a_get_is_does_not_wait_for_an_original_that_takes_long(start_scp, site, monkeypatch):
    go_on, begun, verify = threading.Event(), itertools.count(), Original.verify

    def slowly(original: Original) -> None:
        if next(begun) >= 2:
            assert go_on.wait(50)
        verify(original)

    monkeypatch.setattr(Original, "verify", slowly)
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        begin_get(wire)
        for _ in range(2):
            wire.send(raw.data(3, 3, stored(an_original(wire))))
        _, body = wire.read()  # the third original is not ready
        told = dimse.decode_command(body[6:])
        assert (told[dimse.COMMAND_FIELD], told[dimse.COMPLETED]) == (dimse.C_GET_RSP, 2)
        go_on.set()
        wire.send(raw.data(3, 3, stored(an_original(wire))) + raw.data(1, 3, cancel()))
        assert final_status(wire)[0] == 0xFE00


def test_a_service_that_ends_does_not_wait_for_an_answer(start_scp, site):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        begin_get(wire)
        an_original(wire)
        scp.stop(drain_s=0.1)
        assert wire.read()[0] == 0x07
