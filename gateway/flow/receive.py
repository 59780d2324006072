"""From the wire to a durable row: the flow's side of the ingress SCP (`gateway.flow.ports.Receiver`).

The data set streams through SHA-256 into an encrypted spool file. `commit` checks that it is what the C-STORE command
said (PS3.7 9.1.1, PS3.4 B.2.3), syncs the file, commits the row, and only then returns: success means stored.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.config.models import Ingress, Route
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.errors import CapacityError, DicomError
from gateway.flow.ports import Incoming, ReceivedFacts
from gateway.flow.spool import Spool, SpoolWriter
from gateway.flow.store import FlowStore, Stored

PREFIX = 64 * 1024  # of the usual object this holds the whole header, so that the file need not be read again
MIB = 1024 * 1024


class SpoolReceiver:
    """Implements `gateway.flow.ports.Receiver` on a spool folder and the instance table."""

    def __init__(
        self, settings: Ingress, routes: Sequence[Route], spool: Spool, folder: Path, store: FlowStore
    ) -> None:
        self._settings = settings
        self._routes = {route.called_ae: route.name for route in routes}
        self.max_instance_mib = settings.max_instance_mib
        self.spool = spool
        self._folder = folder
        self._store = store
        self._checked_at = 0.0
        self._full: CapacityError | None = None

    def admit(self, called_ae: str, calling_ae: str, sop_class_uid: str) -> None:
        """Refuse before the first byte when disk or queue are full (looked at once a second).

        Raises
        ------
        CapacityError
            Codes ``disk-low`` and ``queue-full``; the archive may try again later.
        """
        now = time.monotonic()
        if now - self._checked_at >= 1.0:
            self._full = self._look()
            self._checked_at = now
        if self._full:
            raise self._full

    def begin(self, received: ReceivedFacts) -> Incoming:
        """Open a spool file for one object."""
        try:
            writer = self.spool.create()
        except OSError as error:
            raise CapacityError("disk-full", f"cannot create a spool file: {error.strerror}") from None
        return _SpoolIncoming(self, received, writer)

    def add(self, facts: ReceivedFacts, stored: Stored) -> str:
        """Commit the row of an object whose file is durable; returns the instance id."""
        return self._store.add_received(facts, stored, self._routes[facts.called_ae])

    def _look(self) -> CapacityError | None:
        free = shutil.disk_usage(self._folder).free // MIB
        if free < self._settings.min_free_mib:
            return CapacityError(
                "disk-low", f"{free} MiB free in the spool, {self._settings.min_free_mib} needed", "free some disk"
            )
        waiting = self._store.waiting()
        if waiting >= self._settings.max_waiting:
            return CapacityError("queue-full", f"{waiting} instances are waiting", "look at `miad-gateway queue ls`")
        return None


class _SpoolIncoming:
    """One object on its way into the spool."""

    def __init__(self, receiver: SpoolReceiver, facts: ReceivedFacts, writer: SpoolWriter) -> None:
        self._receiver = receiver
        self._facts = facts
        self._writer = writer
        self._digest = hashlib.sha256()
        self._size = 0
        self._prefix = bytearray()

    def write(self, data: bytes) -> None:
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
            self._writer.write(data)
        except OSError as error:
            raise CapacityError("disk-full", f"cannot write to the spool: {error.strerror}") from None

    def commit(self) -> str:
        """Check, sync, commit. Returns the instance id; from then on nothing acknowledged is lost.

        Raises
        ------
        DicomError
            Not the object that the command announced, or not DICOM, or one that carries our own mark already.
        CapacityError
            It could not be made durable.
        """
        header = self._header_in_prefix()
        try:
            name = self._writer.publish()
        except OSError as error:
            raise CapacityError("disk-full", f"cannot sync the spool: {error.strerror}") from None
        try:
            self._check(header or self._header_in_file(name))
            stored = Stored(spool_file=name, size=self._size, sha256=self._digest.hexdigest())
            return self._receiver.add(self._facts, stored)
        except BaseException as error:
            # Not acknowledged, so not ours to keep; but a connection that is lost at the commit may have committed the
            # row, and a row without its file could not go on: retention finds the file when there is no row.
            if getattr(error, "code", "") != "database-unreachable":
                self._receiver.spool.delete(name)
            raise

    def abort(self) -> None:
        """Forget the object: nothing was acknowledged."""
        self._writer.discard()

    def _header_in_prefix(self) -> InstanceHeader | None:
        """The header from memory; None when it is longer than the prefix."""
        whole = self._size <= PREFIX
        try:
            header = read_header(io.BytesIO(bytes(self._prefix)), self._facts.transfer_syntax_uid)
        except DicomError:
            if whole:
                raise
            return None
        # Cut off between two elements, a prefix reads well: only the pixel data shows that the header ends in it.
        return header if whole or header.has_pixel_data else None

    def _header_in_file(self, name: str) -> InstanceHeader:
        with self._receiver.spool.open(name) as file:
            return read_header(file, self._facts.transfer_syntax_uid)

    def _check(self, header: InstanceHeader) -> None:
        if header.has_our_private_block:
            raise DicomError("already-marked", "the object carries this gateway's mark; it is not marked twice")
        if header.sop_instance_uid != self._facts.sop_instance_uid:
            raise DicomError("uid-mismatch", "SOP Instance UID of data set and command differ")
        if header.sop_class_uid != self._facts.sop_class_uid:
            raise DicomError("sop-class-mismatch", "SOP Class UID of data set and command differ")
