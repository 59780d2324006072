"""What a child does: load the codecs, give up everything else, then frame after frame until the pool is gone."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gateway.dicom.encoding.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    Syntax,
    syntax_of,
)
from gateway.dicom.pixels import decoders
from gateway.dicom.pixels.children import wire
from gateway.dicom.pixels.children.confine import confine
from gateway.dicom.pixels.decoding import decode_frame
from gateway.dicom.pixels.encoders import encode_frame
from gateway.dicom.pixels.facts import FrameFacts, container_of
from gateway.errors import GatewayError

_JPEGS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70")
_LOSSLESS = (RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS)


Job = Callable[[bytes, dict[str, Any]], bytes]


def main() -> None:
    """Serve one pool; arguments: descriptor of the shared memory, bytes of address space."""
    serve(_JOBS, warm_up)


def serve(jobs: Mapping[str, Job], warm_up: Callable[[], None]) -> None:
    """As `main`, for these jobs; `warm_up` loads all that they will need."""
    shared, memory = int(sys.argv[1]), int(sys.argv[2])
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what libraries print goes nowhere
        os.dup2(nowhere, descriptor)
    warm_up()
    wire.send(answers, {"confined": confine(memory)})
    pixels: mmap.mmap | None = None
    with contextlib.suppress(wire.EndOfMessages, BrokenPipeError):
        while True:
            request = wire.receive(lambda length: os.read(requests, length))
            signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # ends the process, if the pool no longer can
            if pixels is None or len(pixels) < request["capacity"]:
                pixels = mmap.mmap(shared, request["capacity"])
            wire.send(answers, answered(request, pixels, jobs))
            signal.setitimer(signal.ITIMER_REAL, 0)


def answered(request: dict[str, Any], pixels: mmap.mmap, jobs: Mapping[str, Job]) -> dict[str, Any]:
    """The answer to a request whose data lies in `pixels`; its own data lies there afterwards."""
    try:
        result = jobs[request["job"]](pixels[: request["length"]], request)
    except GatewayError as error:
        return {"error": [error.code, error.message, error.hint]}
    except MemoryError:
        return {"error": ["codec-memory", "", ""]}
    if len(result) > len(pixels):
        return {"error": ["not-exact", "what the encoder made is longer than the frame", ""]}
    pixels[: len(result)] = result
    return {"length": len(result)}


def _decode(data: bytes, request: dict[str, Any]) -> bytes:
    facts = wire.unpacked_facts(request["facts"])
    return decode_frame(data, facts, syntax_of(request["syntax"])).tobytes()


def _encode(data: bytes, request: dict[str, Any]) -> bytes:
    facts = wire.unpacked_facts(request["facts"])
    frame = np.frombuffer(data, container_of(facts)).reshape(facts.shape)
    return encode_frame(frame, facts, syntax_of(request["syntax"]))


_JOBS: dict[str, Job] = {"decode": _decode, "encode": _encode}


def warm_up() -> None:
    """Use every codec once: libraries load parts of themselves when they are needed, and then no file can be opened."""
    colour = np.zeros((32, 32, 3), np.uint8)
    colour[8:20, 4:9] = (200, 90, 30)
    gray = np.ascontiguousarray(colour[..., 0])
    for uid in _LOSSLESS:
        syntax = syntax_of(uid)
        for frame in (colour, gray, gray.astype("<u2")):
            facts = _facts(frame, "YBR_RCT" if syntax.codec == "jpeg-2000" else "RGB")
            _try_hard(encode_frame(frame, facts, syntax), facts, syntax)
    for uid in _JPEGS:
        syntax = syntax_of(uid)
        for frame in (colour, gray):
            facts = _facts(frame, "YBR_FULL")
            _try_hard(decoders.jpeg_for_warming_up(frame, lossless=uid != _JPEGS[0]), facts, syntax)


def _try_hard(encoded: bytes, facts: FrameFacts, syntax: Syntax) -> None:
    """Decode a frame by both decoders, and some that are refused: that loads something too."""
    for data in (encoded, encoded + b"behind", encoded[:-2], encoded[:-9]):
        with contextlib.suppress(GatewayError):
            decode_frame(data, facts, syntax)


def _facts(frame: np.ndarray, colour: str) -> FrameFacts:
    bits, is_gray = 8 * frame.itemsize, frame.ndim == 2
    return FrameFacts(32, 32, 1 if is_gray else 3, "MONOCHROME2" if is_gray else colour, bits, bits, bits - 1, False)


if __name__ == "__main__":
    main()
