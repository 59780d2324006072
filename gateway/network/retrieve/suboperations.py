"""Sub-operations of a retrieval: what is to be sent, the way out, and the counting (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from gateway.flow.statuses import is_warning

MAX_SUBOPERATIONS = 65_535  # the counts of a response are US (PS3.7 9.3.3.2, 9.3.4.2)


class Original(Protocol):
    """An original as `gateway.restore` hands it out; it holds a file open until the end of its `with` block."""

    @property
    def locator(self) -> str: ...

    @property
    def sop_class_uid(self) -> str: ...

    @property
    def sop_instance_uid(self) -> str: ...

    @property
    def transfer_syntax_uid(self) -> str: ...

    @property
    def series_uid(self) -> str: ...

    @property
    def study_uid(self) -> str: ...

    @property
    def size(self) -> int: ...

    def verify(self) -> None: ...

    def stream(self) -> Iterator[bytes]: ...

    def __enter__(self) -> Original: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True)
class Planned:
    """One sub-operation to do."""

    locator: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    series_uid: str = ""
    study_uid: str = ""

    @classmethod
    def of(cls, original: Original) -> Planned:
        """The sub-operation that sends this original."""
        return cls(
            original.locator,
            original.sop_class_uid,
            original.sop_instance_uid,
            original.transfer_syntax_uid,
            original.series_uid,
            original.study_uid,
        )


@dataclass(frozen=True)
class Intent:
    """Which originals the audit has on disk as about to leave: nothing else leaves (architecture, promise 5).

    Made by `Access.intend` alone.
    """

    operation: str  # C-GET, C-MOVE, C-STORE, WADO-RS
    locators: frozenset[str]

    def covers(self, planned: Planned) -> bool:
        """Whether a durable line names this original."""
        return planned.locator in self.locators


@dataclass(frozen=True)
class Originator:
    """Who asked for a C-MOVE: goes into every sub-operation's request (PS3.7 9.3.1.1)."""

    ae_title: str
    message_id: int


class Outlet(Protocol):
    """A way for originals to leave: what asked, or an association to the workstation's own address."""

    @property
    def sends_files(self) -> bool:
        """A file may have any length; what a network of DICOM carries has an even one."""

    @property
    def bit_exact(self) -> bool:
        """The bytes leave as they are; else what was made of them."""

    def accepts(self, planned: Planned) -> bool:
        """Whether exactly this SOP class in exactly this transfer syntax can be sent: nothing is ever converted."""

    def send(self, planned: Planned, chunks: Iterable[bytes]) -> int:
        """Send one C-STORE request with these data set bytes and return the status of its answer.

        Raises
        ------
        TransientError
            The association was lost. Whatever `chunks` raises goes through; the association was aborted then.
        """


@dataclass
class Tally:
    """Counts of one retrieval (PS3.4 C.4.2.1.7, C.4.3.1.4)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, sop_instance_uid: str, status: int) -> None:
        """Enter one finished sub-operation with its C-STORE status."""
        self.remaining -= 1
        if status == 0x0000:
            self.completed += 1
        elif is_warning(status):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_instance_uid)

    def final_status(self) -> int:
        """0x0000, 0xB000 (some failed or warned), or 0xA702 (nothing arrived)."""
        if self.failed and not self.completed and not self.warning:
            return 0xA702
        return 0xB000 if self.failed or self.warning else 0x0000
