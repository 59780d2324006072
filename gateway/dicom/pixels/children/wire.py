"""Messages between pool and child: JSON with its length before it, over pipes; pixels and codestreams in shared memory.

The pool believes nothing that comes back: it reads no more than `MAX_MESSAGE` bytes, and nothing but JSON.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gateway.dicom.pixels.facts import FrameFacts

MAX_MESSAGE = 4096
_LENGTH = struct.Struct(">I")


class EndOfMessages(Exception):
    """The other side is gone, or speaks no sense."""


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one message; OSError when the other side is gone."""
    data = json.dumps(message).encode()
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(descriptor, data) :]


def receive(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Read one message by `read(length)`, which gives b"" at the end.

    Raises
    ------
    EndOfMessages
        At the end, and for what is no message.
    """
    (length,) = _LENGTH.unpack(_exactly(read, _LENGTH.size))
    if length > MAX_MESSAGE:
        raise EndOfMessages
    try:
        message = json.loads(_exactly(read, length))
    except ValueError:
        raise EndOfMessages from None
    if not isinstance(message, dict):
        raise EndOfMessages
    return message


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = read(length - len(data))
        if not piece:
            raise EndOfMessages
        data += piece
    return data


def packed_facts(facts: FrameFacts) -> dict[str, Any]:
    """Facts as a message holds them."""
    return asdict(facts)


def unpacked_facts(given: dict[str, Any]) -> FrameFacts:
    """The facts that `packed_facts` was given."""
    return FrameFacts(**given)
