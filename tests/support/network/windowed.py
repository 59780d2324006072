"""A sender with an asynchronous operations window (PS3.7 D.3.3.3), which no program that the tests install asks for."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator

from gateway.network import command as dimse
from tests.support.network import raw

PATIENCE_S = 20  # for one PDU


def window_item(invoked: int, performed: int = 1) -> bytes:
    """The sub-item of an A-ASSOCIATE-RQ that asks for a window."""
    return raw.item(0x53, struct.pack(">HH", invoked, performed))


@contextlib.contextmanager
def association(
    port: int, asked: int | None, called: bytes = b"GATEWAY", calling: bytes = b"ARCHIVE"
) -> Iterator[tuple[raw.Wire, tuple[int, int] | None]]:
    """An association for CT that asks for a window (0: as many as you like), and what was granted."""
    with raw.connected(port) as wire:
        wire.sock.settimeout(PATIENCE_S)
        more = b"" if asked is None else window_item(asked)
        wire.send(raw.associate(called=called, calling=calling, user=raw.user_information(more=more)))
        kind, answered = wire.read()
        assert kind == 0x02, f"PDU type {kind}"
        at = answered.find(b"\x53\x00\x00\x04")
        yield wire, None if at < 0 else struct.unpack_from(">HH", answered, at + 4)


def store(number: int, sop_instance: str, data: bytes, longest: int = 131_000) -> bytes:
    """A C-STORE request as PDUs."""
    command: dimse.Command = {
        dimse.AFFECTED_SOP_CLASS_UID: raw.CT,
        dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
        dimse.MESSAGE_ID: number,
        dimse.PRIORITY: 0,
        dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
        dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance,
    }
    pieces = [data[at : at + longest] for at in range(0, len(data), longest)]
    controls = [0] * (len(pieces) - 1) + [2]
    pdus = [raw.data(1, control, piece) for control, piece in zip(controls, pieces, strict=True)]
    return raw.data(1, 3, dimse.encode_command(command)) + b"".join(pdus)


def answer(wire: raw.Wire) -> tuple[int, int]:
    """Message id and status of the next response."""
    kind, body = wire.read()
    assert kind == 0x04, f"PDU type {kind}"
    command = dimse.decode_command(bytes(body[6:]))
    return int(command[dimse.MESSAGE_ID_RESPONDED_TO]), int(command[dimse.STATUS])


def send_all(wire: raw.Wire, images: Iterable[tuple[str, bytes]], window: int) -> list[int]:
    """Send images (SOP Instance UID, data set) with at most `window` unanswered, release, and return the statuses."""
    statuses, waiting = [], 0
    for number, image in enumerate(images):
        if waiting == window:
            statuses.append(answer(wire)[1])
            waiting -= 1
        wire.send(store(number % 65536, *image))
        waiting += 1
    statuses += [answer(wire)[1] for _ in range(waiting)]
    wire.send(raw.RELEASE_RQ)
    assert wire.read()[0] == 0x06
    return statuses
