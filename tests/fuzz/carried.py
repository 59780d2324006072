"""The two targets around what a marked copy carries: its sealed elements, and the body that is sealed in them."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.dicom.copy.carried_body import pack, rebuild
from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE
from gateway.dicom.pixels.residual import original_of, residual
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.restore import CopyRestorer
from tests.support.copies import Gateway
from tests.support.dicom.samples import encode, facts, image, slightly_changed

GATEWAY = Gateway(
    X25519PrivateKey.from_private_bytes(bytes(range(32))), Ed25519PrivateKey.from_private_bytes(bytes(32))
)
_BODY_HEAD = 2 + 32 + 8 + 12 + 4  # version, method, digest and shape of a residual body (deploy/formats.md)


@cache
def original(number: int) -> tuple[bytes, str, np.ndarray]:
    """One of two originals: 16 bits little endian, 8 bits big endian; encoded, its syntax, its marked stored values."""
    frames = np.arange(48).reshape(1, 6, 8).astype((np.uint16, np.uint8)[number % 2])
    syntax = (EXPLICIT_LITTLE, EXPLICIT_BIG)[number % 2]
    data = encode(image(frames), syntax)
    pixels = decode_pixels(data, syntax)
    return data, syntax, slightly_changed(pixels.frames, pixels.limits)


@cache
def marked_copy(number: int) -> bytes:
    """The marked copy of `original(number)`, with nothing carried."""
    data, syntax, marked = original(number)
    return derive(data, syntax, marked, facts())


def body(number: int) -> bytes:
    """What `original(number)` and its marked copy give."""
    data, syntax, marked = original(number)
    return pack(data, syntax, decode_pixels(data, syntax), marked)


def residual_body(data: bytes) -> None:
    """A body of a carried payload: as it comes, and one whose compressed content is foreign; and the codec alone."""
    number, is_content, data = data[0] & 1 if data else 0, bool(data[:1] and data[0] & 2), data[1:]
    encoded, _, marked = original(number)
    if is_content:
        content = (data + bytes(len(encoded)))[: len(encoded)]
        data = body(number)[:_BODY_HEAD] + zstandard.compress(content, 1)
    flat = marked.reshape(-1)
    planes = (data + bytes(flat.nbytes))[: flat.nbytes]
    assert residual(original_of(planes, flat), flat) == planes, "two residuals give the same pixels"
    assert len(rebuild(data, len(encoded), marked_copy(number), EXPLICIT_LITTLE)) == len(encoded)


def sealed_parts(data: bytes) -> None:
    """Key and payload in a marked copy: nothing comes out but what the gateway signed."""
    encoded, syntax, marked = original(0)
    length = data[0] if data else 0
    parts = {"sealed_key": data[1 : 1 + length] or b"\0", "payload": data[1 + length :] or b"\0"}
    copy = derive(encoded, syntax, marked, facts(**parts))
    with CopyRestorer(GATEWAY.opening).by_copy(io.BytesIO(copy), EXPLICIT_LITTLE) as back:
        back.verify()
        assert b"".join(back.stream()) == encoded
