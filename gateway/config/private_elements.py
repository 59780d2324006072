"""Which private elements of others ride along in a route's copies; the whole rule: `gateway.dicom.copy.bulk`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from gateway.config.base import Model, Problem, checked

PRIVATE_STATEMENT = "private elements leave as they are and may show the unmarked picture"

Creator = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]  # PS3.5 7.8.1


class PrivateElements(Model):
    """Keys of a route: which private values ride along in its copies."""

    private_bulk: Literal["drop", "hold", "keep"] = "drop"  # what becomes of those that are larger than this:
    private_value_bytes: Annotated[int, Field(ge=0, le=16 << 10)] = 1 << 10  # one value
    private_block_bytes: Annotated[int, Field(ge=0, le=1 << 20)] = 64 << 10  # all values of one private block
    private_keep: tuple[Creator, ...] = ()  # private creators whose values stay whatever their size
    private_statement: str = ""  # must read exactly as PRIVATE_STATEMENT when private_bulk is "keep"

    @model_validator(mode="after")
    def _private_agrees(self) -> PrivateElements:
        return checked(self, self._private_disagreements())

    def _private_disagreements(self) -> Iterator[Problem]:
        if self.private_bulk == "keep" and self.private_statement != PRIVATE_STATEMENT:
            yield ("private_statement",), f'to keep all private elements, it must read "{PRIVATE_STATEMENT}"'
        elif self.private_statement not in ("", PRIVATE_STATEMENT):
            yield ("private_statement",), f'when it is given, it must read "{PRIVATE_STATEMENT}"'
