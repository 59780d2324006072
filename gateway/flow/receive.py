"""From the wire to a flushed record: the flow's side of the ingress SCP (`gateway.flow.ports.Receiver`).

The data set streams through SHA-256 and the cipher into memory, or, when it is large, into a file of its own. `commit`
checks that it is what the C-STORE command said (PS3.7 9.1.1, PS3.4 B.2.3), has it appended to the segment that all
associations share, and returns when that is durable: success means stored (`gateway.flow.durability` says where).
"""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway import tracing
from gateway.config.models import Ingress, Route
from gateway.dicom.encoding.encoded import Arrival, read_arrival
from gateway.errors import CapacityError, DicomError
from gateway.flow.downstream import Downstream
from gateway.flow.durability import durability_of
from gateway.flow.faults import not_spooled
from gateway.flow.ports import Incoming, ReceivedFacts
from gateway.flow.segments.body import Body, Memory
from gateway.flow.segments.format import record
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.store import FlowStore

PREFIX = 64 * 1024  # of the usual object this holds the whole header, so that the file need not be read again
MIB = 1024 * 1024
LONGEST_WAIT_S = 60.0  # for rows, where somebody waits for them; twice what a busy database may take
IN_MEMORY = 128 * MIB  # encrypted bytes in memory of all that is being received; what comes above goes to files


class SpoolReceiver:
    """Implements `gateway.flow.ports.Receiver` on segments in a folder and the instance table.

    Parameters
    ----------
    failed
        Called when a flush has failed: nothing more is taken, and the process has to be started anew.
    """

    def __init__(
        self,
        settings: Ingress,
        routes: Sequence[Route],
        spool: ReceivedSpool,
        store: FlowStore,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._routes = {route.called_ae: route for route in routes}
        self.max_instance_mib = settings.max_instance_mib
        self.spool = spool
        self._store = store
        durability = durability_of(spool, store)
        self._folders = durability.folders
        self._checked_at = 0.0
        self._full: CapacityError | None = None
        self.memory = Memory(IN_MEMORY)
        self._downstream = Downstream(store)
        self._rows = durability.rows()
        self._log = durability.log(self._rows, settings.segment_mib * MIB, failed)

    def admit(self, called_ae: str, calling_ae: str, sop_class_uid: str) -> None:
        """Refuse before the first byte when disks or queues are full (looked at once a second).

        Raises
        ------
        CapacityError
            Codes ``disk-low``, ``device-behind``, ``queue-full``, ``flush-failed``, and those of `RowWriter.check`; the
            archive may try again later.
        """
        self._log.check()
        self._rows.check()
        now = time.monotonic()
        if now - self._checked_at >= 1.0:
            self._full = self._look()
            self._checked_at = now
        if self._full:
            raise self._full

    def begin(self, received: ReceivedFacts) -> Incoming:
        """Make a place for one object: in memory, or, when that is taken, in a file.

        Raises
        ------
        CapacityError
            No file can be made.
        """
        try:
            return _SpoolIncoming(self, received)
        except OSError as error:
            raise not_spooled(error) from None

    def add(self, facts: ReceivedFacts, body: Body, sha256: str, size: int) -> str:
        """Make an object durable and return its instance id. From then on nothing acknowledged is lost."""
        known: dict[str, Any] = {
            "id": secrets.token_hex(16),
            "route": self._routes[facts.called_ae].name,
            "received_at": time.time(),
            "size": size,
            "sha256": sha256,
            "file": body.publish(),
            **vars(facts),
        }
        sealed = self.spool.seal_facts(known, body.name)
        self._log.append(record(body.name, sealed, body.pieces()), known)
        return known["id"]

    def acknowledge(self, facts: ReceivedFacts, body: Body, sha256: str, size: int) -> str:
        """As `add`; on a route that says so, return only when the instance is delivered (`Downstream.commit`)."""
        route = self._routes[facts.called_ae]
        if route.ack == "spool":
            return self.add(facts, body, sha256, size)
        return self._downstream.commit(
            route, facts.sop_instance_uid, sha256, lambda: self.add(facts, body, sha256, size)
        )

    def hurry(self) -> None:
        """Let no association wait for a delivery any more: the process ends."""
        self._downstream.end()

    @property
    def failed(self) -> bool:
        """A flush has failed."""
        return self._log.failed

    def settle(self) -> None:
        """Wait until all that was received has its row."""
        self._rows.settle()

    def roll(self) -> None:
        """Close the segment that is written now, and wait until all that was received has its row.

        Raises
        ------
        CapacityError
            As `RowWriter.check`: the database has not taken the rows for a minute.
        """
        self._log.roll()
        if not self._rows.settle(LONGEST_WAIT_S):
            self._rows.check()
            raise CapacityError("rows-behind", "received instances wait for their rows in the database")

    def close(self) -> None:
        """Take nothing more; flush what waits and write its rows."""
        self._downstream.end()
        self._log.stop()
        self._rows.stop()

    def _look(self) -> CapacityError | None:
        for folder in self._folders:
            try:
                free = shutil.disk_usage(folder).free // MIB
            except OSError:  # it is not there yet, or another user's alone
                continue
            if free < self._settings.min_free_mib:
                text = f"{free} MiB free for the {folder.name}, {self._settings.min_free_mib} needed"
                return CapacityError("disk-low", text, "free some disk")
        waiting, unmarked = self._store.waiting()
        if unmarked >= self._settings.max_unmarked:
            return CapacityError(
                "device-behind", f"{unmarked} instances wait for their mark", "add a device or a worker"
            )
        if waiting >= self._settings.max_waiting:
            return CapacityError("queue-full", f"{waiting} instances are waiting", "look at `miad-gateway queue ls`")
        return None


class _SpoolIncoming:
    """One object on its way into the spool."""

    def __init__(self, receiver: SpoolReceiver, facts: ReceivedFacts) -> None:
        self._receiver = receiver
        self._facts = facts
        self._body = receiver.spool.new_body(receiver.memory)
        self._digest = hashlib.sha256()
        self._size = 0
        self._prefix = bytearray()
        self._begun = tracing.now()

    def write(self, data: bytes | memoryview) -> None:
        """Append a fragment.

        Raises
        ------
        CapacityError
            The disk is full, or the object is larger than the site allows.
        """
        self._size += len(data)
        if self._size > self._receiver.max_instance_mib * MIB:
            raise CapacityError("instance-too-large", f"more than {self._receiver.max_instance_mib} MiB")
        self._digest.update(data)
        if len(self._prefix) < PREFIX:
            self._prefix += data[: PREFIX - len(self._prefix)]
        try:
            self._body.write(data)
        except OSError as error:
            raise not_spooled(error) from None

    def commit(self) -> str:
        """Check, and make it durable. Returns the instance id; from then on nothing acknowledged is lost.

        Raises
        ------
        DicomError
            Not the object that the command announced, or not DICOM, or one that carries our own mark already.
        CapacityError
            It could not be made durable; or it was, and is not delivered as its route wants (`Downstream.commit`).
        """
        try:
            self._body.complete()
            self._check(self._header_in_prefix() or self._whole_header())
            one = self._receiver.acknowledge(self._facts, self._body, self._digest.hexdigest(), self._size)
            told: dict[str, tracing.Value] = {"association_id": self._facts.association_id, "bytes": self._size}
            tracing.add(tracing.FIRST, one, self._begun, told)
            return one
        except OSError as error:
            raise not_spooled(error) from None
        finally:
            self._body.release()

    def abort(self) -> None:
        """Forget the object: nothing was acknowledged."""
        self._body.release()

    def _header_in_prefix(self) -> Arrival | None:
        """The header from the first bytes; None when it is longer than they are."""
        whole = self._size <= PREFIX
        try:
            header = read_arrival(io.BytesIO(bytes(self._prefix)), self._facts.transfer_syntax_uid)
        except DicomError:
            if whole:
                raise
            return None
        # Cut off between two elements, a prefix reads well: only the pixel data shows that the header ends in it.
        return header if whole or header.has_pixel_data else None

    def _whole_header(self) -> Arrival:
        with self._body.open() as file:
            return read_arrival(file, self._facts.transfer_syntax_uid)

    def _check(self, header: Arrival) -> None:
        if header.has_our_private_block:
            raise DicomError("already-marked", "the object carries this gateway's mark; it is not marked twice")
        if header.sop_instance_uid != self._facts.sop_instance_uid:
            raise DicomError("uid-mismatch", "SOP Instance UID of data set and command differ")
        if header.sop_class_uid != self._facts.sop_class_uid:
            raise DicomError("sop-class-mismatch", "SOP Class UID of data set and command differ")
