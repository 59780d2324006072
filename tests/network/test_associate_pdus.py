"""A-ASSOCIATE PDUs as other vendors send them: what is tolerated, what is refused, on both sides."""

from __future__ import annotations

import io
import random
import struct
import time

import pytest

from gateway.audit import events
from gateway.errors import DicomError, PermanentError, TransientError
from gateway.network.associate_pdus import (
    ASSUMED_MAX_LENGTH,
    LONGEST_ASSOCIATE,
    read_answer,
    read_reject,
    read_request,
)
from gateway.network.scu import Peer, ScuAssociation
from tests.network.test_ingress import gateway_threads, until
from tests.support.network import raw
from tests.support.network.raw import associate, context_ac, context_rq, item, user_information
from tests.support.network.samples import BIG, CT, EXPLICIT, IMPLICIT, MR

TOLERATED = {
    "as the standard has it": {},
    "AE titles padded with NUL": {"pad": b"\0"},
    "AE titles padded with NUL and spaces": {"calling": b"ARCHIVE\0 \0", "called": b" GATEWAY\0"},
    "a leading space": {"calling": b"  ARCHIVE"},
    "all bits of the protocol version": {"version": 0xFFFF},
    "a second version beside the first": {"version": 0x0003},
    "an unknown item in front": {"contexts": item(0x60, b"anything") + context_rq()},
    "unknown items behind": {"more": item(0x60, b"anything") + item(0x99, b"") + item(0xFF, bytes(300))},
    "an unknown sub-item of a context": {"contexts": context_rq(more=item(0x60, b"xyz"))},
    "unknown sub-items of the user information": {"user": user_information(more=item(0x60, b"x") + item(0x99, b""))},
    "extended negotiation and user identity": {
        "user": user_information(
            more=item(0x56, struct.pack(">H", 4) + b"1.2.\x01\x01") + item(0x58, b"\x02\x01\0\x04user\0\x02pw")
        )
    },
    "a broken role selection": {"user": user_information(more=item(0x54, b"\0\xff1.2"))},
    "a version name of 17 characters": {"user": user_information(version=b"X" * 17)},
    "a version name of 300 characters": {"user": user_information(version=b"Y" * 300)},
    "a version name that is not ASCII": {"user": user_information(version="KÖLN_PACS".encode("latin-1"))},
    "a version name with NUL": {"user": user_information(version=b"PACS 1\0\0")},
    "a version name with a backslash": {"user": user_information(version=b"A\\B\x07")},
    "a blank version name": {"user": user_information(version=b"    ")},
    "no version name": {"user": user_information(version=b"")},
    "no Maximum Length": {"user": user_information(None)},
    "a Maximum Length of two bytes": {"user": user_information(None, more=item(0x51, b"\x40\0"))},
    "no limit of length": {"user": user_information(0)},
    "no implementation class": {"user": user_information(class_uid="")},
    "an implementation class that is no UID": {"user": user_information(class_uid="not a uid")},
    "no user information at all": {"user": b""},
    "one zero behind the items": {"more": b"\0"},
    "many zeros behind the items": {"more": bytes(999)},
    "zeros behind the user information's items": {"user": user_information(more=bytes(6))},
    "zeros behind a context's items": {"contexts": context_rq(more=bytes(3))},
    "UIDs padded with NUL": {"contexts": context_rq(abstract=CT + "\0", syntaxes=(EXPLICIT + "\0",))},
    "UIDs padded with a space": {"contexts": context_rq(abstract=CT + " ", syntaxes=(EXPLICIT + " ",))},
    "a transfer syntax that is no UID beside a good one": {"contexts": context_rq(syntaxes=("x" * 70, EXPLICIT))},
    "the same transfer syntax many times": {"contexts": context_rq(syntaxes=(EXPLICIT,) * 500)},
}


@pytest.mark.parametrize("what", TOLERATED)
def test_a_request_is_accepted_and_served(start_ingress, receiver, what):
    ingress = start_ingress()
    with raw.connected(ingress.port) as wire:
        wire.send(associate(**TOLERATED[what]))
        kind, body = wire.read()
        assert kind == 0x02
        assert read_answer(body).results[1] == (0, EXPLICIT)
        wire.send(raw.data(1, 0x03, _store_rq()) + raw.data(1, 0x02, b"12345678"))
        assert wire.read()[0] == 0x04
        wire.send(raw.RELEASE_RQ)
        assert wire.read()[0] == 0x06
    assert [kept.data for kept in receiver.kept] == [b"12345678"]
    assert receiver.kept[0].facts.calling_ae == "ARCHIVE" and receiver.kept[0].facts.called_ae == "GATEWAY"


def _store_rq() -> bytes:
    from gateway.network import command as dimse

    return dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: CT,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: 1,
            dimse.PRIORITY: 0,
            dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
        }
    )


@pytest.mark.parametrize(
    ("fields", "told", "reason"),
    [
        ({"calling": b" " * 16}, (1, 1, 3), "calling-ae-blank"),
        ({"calling": bytes(16)}, (1, 1, 3), "calling-ae-blank"),
        ({"calling": b" \0" * 8}, (1, 1, 3), "calling-ae-blank"),
        ({"calling": b"ARCHIVE\xe4"}, (1, 1, 3), "calling-ae-unknown"),
        ({"calling": b"ARCH\0IVE"}, (1, 1, 3), "calling-ae-unknown"),
        ({"calling": b"A\\B"}, (1, 1, 3), "calling-ae-unknown"),
        ({"called": b" " * 16}, (1, 1, 7), "called-ae-unknown"),
        ({"called": b"\xff" * 16}, (1, 1, 7), "called-ae-unknown"),
        ({"version": 0}, (1, 2, 2), "protocol-version-not-supported"),
        ({"version": 0xFFFE}, (1, 2, 2), "protocol-version-not-supported"),
    ],
)
def test_a_request_is_rejected_with_its_reason_and_audited(start_ingress, audit, fields, told, reason):
    ingress = start_ingress()
    with raw.connected(ingress.port) as wire:
        wire.send(associate(**fields))
        kind, body = wire.read()
    assert kind == 0x03
    reject = read_reject(body)
    assert (reject.result, reject.source, reject.diagnostic) == told
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    assert [line["reason"] for line in audit.lines(events.ASSOCIATION_REFUSED)] == [reason]


BROKEN = {
    "an item longer than the PDU": (associate(more=item(0x60, b"ab", 500)), "bad-associate-request"),
    "half an item": (associate(more=b"\x60\0"), "bad-associate-request"),
    "a sub-item longer than its item": (
        associate(user=item(0x50, item(0x51, b"\0\0\0\x01", 90))),
        "bad-associate-request",
    ),
    "a context without its fixed fields": (associate(contexts=item(0x20, b"\x01")), "bad-associate-request"),
    "an even context id": (associate(contexts=context_rq(2)), "bad-associate-request"),
    "a context id twice": (associate(contexts=context_rq(1) + context_rq(1, MR)), "bad-associate-request"),
    "no fixed fields": (raw.pdu(0x01, bytes(67)), "bad-associate-request"),
    "more than 256 KiB": (struct.pack(">BBL", 1, 0, LONGEST_ASSOCIATE + 1), "pdu-too-long"),
    "P-DATA": (raw.data(1, 3, b"x" * 100), "unexpected-pdu"),
    "2 MiB of P-DATA": (struct.pack(">BBL", 4, 0, 2 << 20) + bytes(1000), "unexpected-pdu"),
    "an accept": (associate(0x02), "unexpected-pdu"),
    "a release": (raw.RELEASE_RQ, "unexpected-pdu"),
    "no DICOM": (b"GET / HTTP/1.1\r\n\r\n", "unexpected-pdu"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_ends_the_connection_with_an_audit_line(start_ingress, audit, what):
    sent, reason = BROKEN[what]
    ingress = start_ingress()
    with raw.connected(ingress.port) as wire:
        wire.send(sent)
        kind, _ = wire.read()
        assert kind in (0x07, 0)
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    (line,) = audit.lines(events.NODE_REFUSED)
    assert (line["reason"], line["peer_address"]) == (reason, "127.0.0.1")
    assert until(lambda: not gateway_threads())


def test_an_abort_instead_of_a_request_is_no_refusal(start_ingress, audit):
    ingress = start_ingress()
    with raw.connected(ingress.port) as wire:
        wire.send(raw.ABORT)
        assert wire.read()[0] == 0
    assert until(lambda: not gateway_threads())
    assert not audit.lines()


def test_128_contexts_of_18_syntaxes_are_taken(start_ingress):
    from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

    ingress = start_ingress()
    syntaxes = tuple(sorted(TRANSFER_SYNTAXES, key=len)[-18:])
    classes = sorted(STORAGE_CLASSES, key=len)[-128:]
    contexts = b"".join(context_rq(2 * number + 1, uid, syntaxes) for number, uid in enumerate(classes))
    request = associate(contexts=contexts)
    assert 64 << 10 < len(request) < LONGEST_ASSOCIATE
    with raw.connected(ingress.port) as wire:
        wire.send(request)
        kind, body = wire.read()
        assert kind == 0x02
        assert set(read_answer(body).results.values()) == {(0, syntaxes[0])}
        assert len(read_answer(body).results) == 128


def test_a_request_of_256_kib_costs_little(start_ingress):
    """Whatever it is full of: the work of the largest request is bounded, and the next one is served meanwhile."""
    ingress = start_ingress(handshake_timeout_s=5)
    room = LONGEST_ASSOCIATE - 1000
    empty = item(0x60, b"") * (room // 4)
    many = item(
        0x20,
        bytes((1, 0, 0, 0))
        + item(0x30, CT.encode())
        + b"".join(item(0x40, f"1.{number}".encode()) for number in range(6000)),
    )
    for full in (associate(more=empty), associate(contexts=many + context_rq(3)), associate(more=bytes(room))):
        began = time.process_time()
        with raw.connected(ingress.port) as wire:
            wire.send(full)
            assert wire.read()[0] == 0x02
        assert time.process_time() - began < 1


def test_no_bytes_whatever_raise_anything_but_our_own_error():
    rng = random.Random(4)
    good = bytearray(associate(contexts=context_rq() + context_rq(3, MR, (IMPLICIT, BIG)))[6:])
    for _ in range(3000):
        broken = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(1, len(broken)) :]
        for read in (read_request, read_answer):
            try:
                read(broken)
            except DicomError as error:
                assert error.code in ("bad-associate-request", "bad-associate-answer")


def test_what_is_handed_on_says_the_same_again():
    request = read_request(associate(contexts=context_rq() + context_rq(3, MR, (IMPLICIT, BIG)))[6:])
    assert read_request(request.encode()[6:]) == request
    assert request.contexts[1].transfer_syntaxes == (IMPLICIT, BIG)
    assert read_request(associate(user=user_information(None))[6:]).max_length == ASSUMED_MAX_LENGTH


# --- the other side: answers to our own requests ----------------------------------------------------------------------

ANSWERS = {
    "as the standard has it": {},
    "AE titles of zeros": {"called": bytes(16), "calling": bytes(16)},
    "AE titles of garbage": {"called": b"\xff" * 16, "calling": b"A\\B"},
    "no bit of the protocol version": {"version": 0},
    "unknown items": {"contexts": item(0x60, b"x") + context_ac() + item(0x99, b"")},
    "an unknown sub-item of a context": {"contexts": context_ac(more=item(0x60, b"xyz"))},
    "unknown sub-items of the user information": {"user": user_information(more=item(0x60, b"x"))},
    "a version name of 17 characters": {"user": user_information(version=b"X" * 17)},
    "a version name that is not ASCII": {"user": user_information(version=b"K\xd6LN\0")},
    "no Maximum Length": {"user": user_information(None)},
    "no user information": {"user": b""},
    "zeros behind the items": {"more": bytes(77)},
    "zeros behind the user information's items": {"user": user_information(more=bytes(2))},
    "a context that nobody proposed": {"contexts": context_ac() + context_ac(99)},
    "UIDs padded with NUL": {"contexts": context_ac(syntax=EXPLICIT + "\0")},
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_is_understood_and_used(what):
    serve = raw.acceptor(associate(0x02, **ANSWERS[what]), lambda rq: raw.data(1, 3, raw.store_rsp(rq)))
    with raw.scripted_scp(serve) as port:
        association = ScuAssociation(_peer(port), [(CT, EXPLICIT)])
        assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(bytes(100_000))).status == 0
        association.release()


def _peer(port: int, **more: object) -> Peer:
    return Peer("127.0.0.1", port, "OUTSIDE", "GATEWAY", connect_timeout_s=20, response_timeout_s=30, **more)


@pytest.mark.parametrize(
    "contexts",
    [
        context_ac(syntax=IMPLICIT),
        context_ac(syntax=""),
        context_ac(syntax="x" * 70),
        item(0x21, bytes((1, 0, 0, 0))),
        context_ac(result=3),
        context_ac(number=3),
        b"",
    ],
)
def test_an_accept_of_what_was_not_proposed_is_none(contexts):
    serve = raw.acceptor(associate(0x02, contexts=contexts + context_ac(5)), lambda rq: None)
    with raw.scripted_scp(serve) as port:
        association = ScuAssociation(_peer(port), [(CT, EXPLICIT), (MR, BIG), (MR, EXPLICIT)])
        assert set(association.accepted) == {(MR, EXPLICIT)}
        with pytest.raises(KeyError):
            association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"12"))
        association.release()


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (raw.pdu(0x03, b"\0\x01\x01\x03"), PermanentError, "association-rejected"),
        (raw.pdu(0x03, b"\0\x01\x02\x77"), PermanentError, "association-rejected"),
        (raw.pdu(0x03, b"\0\x02\x03\x02"), TransientError, "association-rejected-for-now"),
        (raw.pdu(0x03, b"\0\x02\x03\x02trailing"), TransientError, "association-rejected-for-now"),
        (raw.pdu(0x03, b"\0\x01"), TransientError, "unexpected-answer"),
        (raw.pdu(0x02, bytes(60)), TransientError, "unexpected-answer"),
        (associate(0x02, more=item(0x60, b"", 400)), TransientError, "unexpected-answer"),
        (struct.pack(">BBL", 2, 0, LONGEST_ASSOCIATE + 1), TransientError, "unexpected-answer"),
        (associate(0x02, user=user_information(64)), PermanentError, "unusable-pdu-length"),
        (raw.ABORT, TransientError, "association-aborted"),
    ],
)
def test_an_answer_that_is_none_has_its_error(answer, error, code):
    with raw.scripted_scp(raw.acceptor(answer, lambda rq: None)) as port, pytest.raises(error) as caught:
        ScuAssociation(_peer(port), [(CT, EXPLICIT)])
    assert caught.value.code == code


@pytest.mark.parametrize("size", [65_537, 300_000])
def test_a_response_of_more_than_64_kib_ends_the_association(size):
    """Also in many fragments, each of them small."""
    fragments = b"".join(raw.data(1, 1, bytes(16_000)) for _ in range(size // 16_000 + 1))
    with raw.scripted_scp(raw.acceptor(associate(0x02), lambda rq: fragments)) as port:
        association = ScuAssociation(_peer(port), [(CT, EXPLICIT)])
        with pytest.raises(TransientError) as caught:
            association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"12"))
    assert caught.value.code == "unexpected-answer" and "64 KiB" in caught.value.message
    assert not association.usable
