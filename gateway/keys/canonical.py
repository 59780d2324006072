"""Canonical JSON: one byte string for one document, for what is signed or bound by a key derivation.

Sorted keys, no white space, UTF-8 without escapes, no floats that are not finite. Documents hold only text, integers,
floats, booleans, null, lists and objects with text keys, so that any language can write the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


def canonical(document: Mapping[str, object]) -> bytes:
    """Encode `document` as canonical JSON (deploy/formats.md, "canonical JSON")."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")
