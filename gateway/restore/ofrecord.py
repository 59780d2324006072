"""The facts of an original's signed record, wherever its bytes come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from gateway.vault import VaultRecord


class OfRecord(ABC):
    """One original by its record. Close it, or use it in a `with` block."""

    def __init__(self, record: VaultRecord) -> None:
        self._record = record

    @property
    def locator(self) -> str:
        """Where the record lies; safe for logs."""
        return self._record.locator

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID of the original."""
        return self._record.sop_class_uid

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the original, not of the marked copy."""
        return self._record.original_sop_uid

    @property
    def series_uid(self) -> str:
        """Series Instance UID of the original."""
        return self._record.original_series_uid

    @property
    def study_uid(self) -> str:
        """Study Instance UID, to be held against the caller's scope."""
        return self._record.study_uid

    @property
    def derived_sop_uid(self) -> str:
        """SOP Instance UID of the marked copy."""
        return self._record.derived_sop_uid

    @property
    def transfer_syntax_uid(self) -> str:
        """The transfer syntax that the bytes are in."""
        return self._record.transfer_syntax_uid

    @property
    def size(self) -> int:
        """Bytes of the data set."""
        return self._record.original_size

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the data set's bytes as received."""
        return self._record.original_sha256

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
