"""Before any association: places by address, deadlines of each phase, places that come back; how a flood is told."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from gateway.audit import events
from gateway.audit.refusals import LINES_OF_ALL, LINES_OF_ONE_ADDRESS, Refusals
from gateway.config.models import Peer
from gateway.errors import TransientError
from gateway.network.scu import ScuAssociation
from tests.network.test_ingress import called, gateway_threads, until
from tests.support.network import raw
from tests.support.network.samples import CT, EXPLICIT

LISTED = (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",)), Peer(ae_title="MODALITY", addresses=("127.0.1.0/24",)))


@contextlib.contextmanager
def silent(port: int, count: int, source: str):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(raw.connected(port, source)) for _ in range(count)]


def stored(ingress, **more: object) -> bool:
    association = ScuAssociation(called(ingress, **more), [(CT, EXPLICIT)])
    answer = association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10))
    association.release()
    return answer.status == 0


def test_silent_sockets_from_an_unlisted_address_take_no_place(start_ingress, audit):
    ingress = start_ingress(peers=LISTED, max_connections=10, handshake_timeout_s=5)
    with silent(ingress.port, 100, "127.0.0.9") as wires:
        assert until(lambda: audit.lines(events.NODE_REFUSED))
        assert stored(ingress)
        closed = 0
        for wire in wires:
            wire.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                closed += wire.read()[0] == 0
        assert closed >= 95
    lines = audit.lines(events.NODE_REFUSED)
    assert {(line["reason"], line["peer_address"]) for line in lines} == {("address-not-listed", "127.0.0.9")}
    assert len(lines) == LINES_OF_ONE_ADDRESS
    ingress.stop(0.1)
    total = sum(line.get("count", 1) for line in audit.lines(events.NODE_REFUSED))
    assert total == 96


def test_who_is_not_listed_is_still_told_so_in_dicom(start_ingress, audit):
    ingress = start_ingress(peers=LISTED)
    with raw.connected(ingress.port, "127.0.0.9") as wire:
        wire.send(raw.associate())
        kind, body = wire.read()
    assert (kind, body[1:4]) == (0x03, b"\x01\x01\x03")
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "address-not-listed"


def test_no_listed_address_takes_all_places(start_ingress, audit):
    ingress = start_ingress(peers=LISTED, max_connections=10, max_connections_per_address=6, handshake_timeout_s=5)
    with silent(ingress.port, 40, "127.0.1.7"):
        assert until(lambda: audit.lines(events.NODE_REFUSED))
        assert stored(ingress)
    (kind,) = {(line["reason"], line["peer_address"]) for line in audit.lines(events.NODE_REFUSED)}
    assert kind == ("too-many-connections-of-this-address", "127.0.1.7")


def test_no_ae_title_takes_all_associations(start_ingress, audit):
    ingress = start_ingress(
        peers=(*LISTED, Peer(ae_title="OTHER", addresses=("127.0.0.1",))), max_associations=4, max_associations_per_ae=3
    )
    held = [ScuAssociation(called(ingress), [(CT, EXPLICIT)]) for _ in range(3)]
    with pytest.raises(TransientError) as caught:
        ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert caught.value.code == "association-rejected-for-now"
    assert stored(ingress, calling_ae="OTHER")
    assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "too-many-associations-of-this-ae"
    held.pop().release()
    assert stored(ingress)
    for association in held:
        association.abort()


@pytest.mark.parametrize("ends", ["release", "abort", "close"])
def test_sixteen_short_clients_at_once_are_all_served(start_ingress, receiver, audit, monkeypatch, ends):
    """Each comes back the moment it is through; the limit is their number, and none is ever sent away."""
    monkeypatch.setattr("gateway.network.server._WAIT_FOR_PLACE_S", 60)  # a busy machine frees a place late
    ingress = start_ingress(max_associations=16, max_associations_per_ae=16, handshake_timeout_s=60)
    failed: list[Exception] = []

    def client() -> None:
        try:
            for _ in range(6):
                association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
                assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0
                {
                    "release": association.release,
                    "abort": association.abort,
                    "close": association._wire._socket.close,
                }[ends]()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == [] and len(receiver.kept) == 96
    assert audit.lines(events.ASSOCIATION_REFUSED) == []
    assert until(lambda: not gateway_threads())
    assert ingress._server._counts._own == {}


def test_one_place_serves_one_after_the_other(start_ingress, audit, monkeypatch):
    """Who has the answer to its release finds the place free: no waiting for it is needed."""
    monkeypatch.setattr("gateway.network.server._WAIT_FOR_PLACE_S", -1)
    ingress = start_ingress(max_associations=1, max_connections=1)
    for _ in range(100):
        assert stored(ingress)
    assert audit.lines(events.ASSOCIATION_REFUSED) == audit.lines(events.NODE_REFUSED) == []


def test_each_phase_has_its_deadline(start_ingress, audit):
    """Nothing at all; a request byte by byte; an association that falls silent; a PDU that never ends."""
    ingress = start_ingress(handshake_timeout_s=2, idle_timeout_s=2)
    request = raw.associate()
    ended: set[str] = set()

    def measure(name: str, talk) -> None:
        with raw.connected(ingress.port) as wire, contextlib.suppress(OSError):
            talk(wire)
            while wire.read()[0]:
                pass
        ended.add(name)

    def drip(wire) -> None:
        for byte in request * 10:  # much longer than it has
            wire.send(bytes([byte]))
            time.sleep(0.1)

    def fall_silent(wire) -> None:
        wire.send(request)
        wire.read()

    def half_a_pdu(wire) -> None:
        fall_silent(wire)
        wire.send(raw.data(1, 3, b"x" * 500)[:100])

    talks = {"nothing": lambda wire: None, "drip": drip, "silent": fall_silent, "half": half_a_pdu}
    threads = [threading.Thread(target=measure, args=pair) for pair in talks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert ended == talks.keys()
    assert until(lambda: not gateway_threads())
    assert [line["reason"] for line in audit.lines(events.NODE_REFUSED)] == ["associate-timeout"] * 2
    assert {line["reason"] for line in audit.lines(events.ASSOCIATION_CLOSED)} == {"idle-timeout", "pdu-timeout"}


def test_after_the_end_nothing_more_is_read(start_ingress):
    """A peer that goes on sending after its release, or after it was rejected, holds nothing open."""
    ingress = start_ingress(handshake_timeout_s=300)
    for first in (raw.associate() + raw.RELEASE_RQ, raw.associate(calling=b"STRANGER")):
        with raw.connected(ingress.port) as wire, contextlib.suppress(OSError):
            wire.send(first)
            began = time.monotonic()
            while time.monotonic() - began < 120:
                wire.send(raw.data(1, 3, bytes(100_000)))
        assert time.monotonic() - began < 120
    assert until(lambda: not gateway_threads())


@pytest.mark.parametrize("what", ["a C-FIND with a data set", "a data set without a command", "a flood of C-ECHO"])
def test_what_would_be_collected_in_memory_ends_the_association(start_ingress, audit, what):
    from gateway.network import command as dimse

    ingress = start_ingress()
    find = dimse.encode_command({dimse.COMMAND_FIELD: 0x0020, dimse.MESSAGE_ID: 1, dimse.DATA_SET_TYPE: 1})
    echo = dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: CT,
            dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
            dimse.MESSAGE_ID: 1,
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
        }
    )
    sent = {
        "a C-FIND with a data set": raw.data(1, 3, find) + raw.data(1, 0, bytes(50_000)),
        "a data set without a command": raw.data(1, 0, bytes(50_000)),
        "a flood of C-ECHO": raw.pdu(4, raw.fragment(1, 3, echo) * 1000),
    }[what]
    with raw.connected(ingress.port) as wire:
        wire.send(raw.associate())
        wire.read()
        wire.send(sent)
        while (kind := wire.read()[0]) == 0x04:
            pass
        assert kind in (0x07, 0)
    assert until(lambda: audit.lines(events.ASSOCIATION_CLOSED))
    (line,) = audit.lines(events.ASSOCIATION_CLOSED)
    assert line["reason"] == ("too-many-requests" if "flood" in what else "bad-command")


# --- a flood in the audit --------------------------------------------------------------------------------------------


def test_a_flood_is_summed_up_once_a_window(audit, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("gateway.audit.refusals.time", SimpleNamespace(monotonic=lambda: now[0]))
    refusals = Refusals(audit, window_s=0.3)
    for _ in range(1000):
        refusals.write(events.NODE_REFUSED, "tls-handshake-failed", "10.0.0.1")
    refusals.write(events.NODE_REFUSED, "tls-handshake-failed", "10.0.0.2")
    refusals.write(events.ASSOCIATION_REFUSED, "calling-ae-unknown", "10.0.0.1", calling_ae="X", tls=False)
    refusals.sum_up()
    assert len(audit.lines()) == LINES_OF_ONE_ADDRESS + 2
    now[0] += 0.35
    refusals.sum_up()
    refusals.sum_up()
    (line,) = [line for line in audit.lines() if "count" in line]
    assert (line["count"], line["peer_address"]) == (1000 - LINES_OF_ONE_ADDRESS, "10.0.0.1")
    assert line["seconds"] >= 0.3 and line["reason"] == "tls-handshake-failed" and line["outcome"] == "refused"
    refusals.write(events.NODE_REFUSED, "tls-handshake-failed", "10.0.0.1")
    assert "count" not in audit.lines()[-1]


def test_a_flood_from_many_addresses_is_summed_up_as_well(audit):
    refusals = Refusals(audit)
    for number in range(2000):
        refusals.write(events.NODE_REFUSED, "address-not-listed", f"10.0.{number // 250}.{number % 250}")
    refusals.sum_up(all_of_them=True)
    lines = audit.lines()
    assert sum(line.get("count", 1) for line in lines) == 2000
    assert len(lines) == LINES_OF_ALL + 1 and len(refusals._windows) == 0


def test_a_refusal_stands_although_the_audit_cannot_be_written(audit):
    audit.path.mkdir()
    with capture_logs() as lines:
        Refusals(audit).write(events.NODE_REFUSED, "address-not-listed", "10.0.0.1")
    assert any("audit line" in line["event"] and line["log_level"] == "error" for line in lines)


def test_a_refusal_is_in_the_log_with_who_from_where_and_why(audit):
    refusals = Refusals(audit)
    with capture_logs() as lines:
        refusals.write(
            events.ASSOCIATION_REFUSED,
            "calling-ae-unknown",
            "10.0.0.1",
            calling_ae="EVIL",
            called_ae="Doe\x07^Jane",
            tls=False,
        )
    assert lines == [
        {
            "event": "association-refused", "log_level": "info", "reason": "calling-ae-unknown", "calling_ae": "EVIL",
            "called_ae": "(malformed)", "peer_address": "10.0.0.1",
        }
    ]  # fmt: skip
    with capture_logs() as lines:
        for _ in range(1000):
            refusals.write(events.NODE_REFUSED, "address-not-listed", "10.0.0.1")
        refusals.sum_up(all_of_them=True)
    assert len(lines) == LINES_OF_ONE_ADDRESS + 1 and lines[-1]["count"] == 1000 - LINES_OF_ONE_ADDRESS
