"""The lossless transfer syntaxes that a destination may be sent marked copies in, by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

SyntaxName = Literal["htj2k", "jpeg-ls", "jpeg-2000", "rle", "explicit", "implicit"]


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands in it more than once")
    return names


TransferSyntaxes = Annotated[tuple[SyntaxName, ...], Field(min_length=1), AfterValidator(_each_once)]
"""In order of preference, each once. What a name stands for: `gateway.dicom.encoding.syntaxes.LOSSLESS_NAMES`."""

UNCOMPRESSED: TransferSyntaxes = ("explicit", "implicit")
"""The default: what every node takes (PS3.5 10.1)."""
