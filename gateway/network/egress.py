"""The sender of marked copies: pooled associations per destination, raw bytes, answers sorted into errors.

A destination has `connections` associations at most; of those that are open the last used one is taken first, so that
the others may go. It keeps an association while there is work and releases it after `idle_release_s`. When an instance
needs a (SOP class, transfer syntax) that was not proposed yet, the association is negotiated anew with it added, so a
study of several kinds settles on one association.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from gateway.audit import AuditLog, events
from gateway.config.models import Destination
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError, fault
from gateway.flow.ports import Outgoing
from gateway.flow.statuses import Kind, delivered, kind_of
from gateway.network import tls as tls_contexts
from gateway.network.bandwidth import Bucket, Throttled
from gateway.network.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION
from gateway.network.scu import CERTIFICATE_FAILURES, MOST_CONTEXTS, Peer, Response, ScuAssociation
from gateway.network.web_link import WebLink

_log = logging.getLogger(__name__)
_OVER_THIS_ONE = {"association-aborted", "association-ended", "connection-lost", "unexpected-answer", "odd-length"}
PRIORITIES = {"low": 0x0002, "medium": 0x0000, "high": 0x0001}  # (0000,0700), PS3.7 9.3.1.1
_CONNECTION = {
    "unreachable",
    "service-unavailable",
    "connection-lost",
    "no-answer",
    "association-aborted",
    *CERTIFICATE_FAILURES,
}


def peer_of(config: Destination) -> Peer:
    """Return whom to call for a destination, and how."""
    return Peer(
        host=config.host,
        port=config.port,
        called_ae=config.ae_title,
        calling_ae=config.calling_ae,
        tls=tls_contexts.client_context(config.tls) if config.tls else None,
        max_pdu=config.max_pdu,
        connect_timeout_s=config.connect_timeout_s,
        response_timeout_s=config.response_timeout_s,
    )


def failure(destination: str, response: Response) -> DeliveryError:
    """The error for a failure status: out of resources and processing failures may pass, the others will not."""
    code = f"status-{response.status:04x}"
    text = f"destination {destination} answered 0x{response.status:04X}"
    if kind_of(response.status) is Kind.LATER:
        return TransientError(code, text)
    return PermanentError(code, text, "see the destination's own log")


class Egress:
    """`gateway.flow.ports.Sender` over DICOM. Safe for several threads; each association sends one instance at a time.

    Parameters
    ----------
    destinations
        The ``[[destinations]]`` tables.
    audit
        Every delivered and every failed instance is written, and the beginning of an outage once.

    Raises
    ------
    ConfigError
        A destination's TLS files cannot be used.
    """

    def __init__(self, destinations: Iterable[Destination], audit: AuditLog) -> None:
        self._audit = audit
        self._pools = {destination.name: _Pool(destination) for destination in destinations}
        self._closed = threading.Event()
        self._janitor = threading.Thread(target=self._release_idle, name="egress-idle", daemon=True)
        self._janitor.start()

    def send(self, destination: str, item: Outgoing) -> int:
        """Send one instance; see `gateway.flow.ports.Sender.send`.

        Returns
        -------
        int
            0x0000, a warning (0xBxxx, 0x0001, 0x0107, 0x0116), or 0x0111: the destination has it already, as after a
            lost answer. In each case the destination has stored the instance.

        Raises
        ------
        TransientError
            Codes ``unreachable``, ``connection-lost``, ``no-answer``, ``association-aborted``, ``association-ended``,
            ``association-rejected-for-now``, ``service-unavailable`` (HTTP), ``unexpected-answer``,
            ``status-a7xx``, ``status-0110``, ``status-0213``,
            and of TLS ``certificate-not-trusted``, ``certificate-refused``, ``tls-failed``: nothing was sent then.
        PermanentError
            Codes ``context-refused``, ``no-exact-syntax``, ``odd-length``, ``association-rejected``,
            ``unusable-pdu-length``, ``unknown-destination``, ``service-refused`` (HTTP), and ``status-xxxx`` for
            other failures.
        """
        pool = self._pool(destination)
        began = time.monotonic()
        with pool.link() as link:
            try:
                response, syntax = link.send(item)
                if not delivered(response.status):
                    raise failure(destination, response)
            except DeliveryError as error:
                self._write_failure(pool, item, error)
                raise
        pool.is_down = False
        self._write(
            "success",
            status=response.status,
            transfer_syntax_uid=syntax,
            seconds=round(time.monotonic() - began, 3),
            **_item_fields(destination, item),
        )
        return response.status

    def echo(self, destination: str) -> None:
        """C-ECHO to a destination on an association of its own; returns when it answered 0x0000.

        Of kind "dicomweb": a search for a study that nobody has.

        Raises
        ------
        TransientError, PermanentError
            As `send`; a destination that refuses verification answers ``context-refused``.
        """
        pool = self._pool(destination)
        if pool.config.kind == "dicomweb":
            link = WebLink(pool.config, pool.peer, None)
            try:
                link.echo()
            finally:
                link.release()
            return
        association = ScuAssociation(pool.peer, [(VERIFICATION, EXPLICIT_LITTLE)])
        try:
            if not association.accepted:
                raise PermanentError("context-refused", f"destination {destination} does not offer verification")
            response = association.echo()
            if response.status != 0x0000:
                raise failure(destination, response)
        finally:
            association.release()

    def accepted(self, destination: str, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these (SOP class, transfer syntax) pairs, 128 at most, a destination accepts; nothing is sent.

        Of kind "dicomweb" all of them: it says so of an instance and not before.

        Raises
        ------
        TransientError, PermanentError
            As `send`.
        """
        pool = self._pool(destination)
        if pool.config.kind == "dicomweb":
            return set(pairs)
        association = ScuAssociation(pool.peer, pairs)
        try:
            return set(association.accepted)
        finally:
            association.release()

    def close(self) -> None:
        """Release every association; the egress is of no use after that."""
        self._closed.set()
        self._janitor.join()
        for pool in self._pools.values():
            pool.close()

    def _pool(self, destination: str) -> _Pool:
        try:
            return self._pools[destination]
        except KeyError:
            raise PermanentError("unknown-destination", f"there is no destination {destination!r}") from None

    def _release_idle(self) -> None:
        """The janitor's thread: releases what has been idle, and answers peers that release first."""
        pause = min([0.5, *(pool.config.idle_release_s / 4 for pool in self._pools.values())])
        while not self._closed.wait(pause):
            for pool in self._pools.values():
                try:
                    pool.release_idle()
                except Exception as error:  # the next look may go well, and the other destinations need theirs
                    _log.error("idle associations could not be looked after: %s", fault(error))

    def _write_failure(self, pool: _Pool, item: Outgoing, error: DeliveryError) -> None:
        """One line per failed instance, but one per outage while nothing gets through at all."""
        if error.code in _CONNECTION:
            if pool.is_down:
                return
            pool.is_down = True
        status = int(error.code[7:], 16) if error.code.startswith("status-") else None
        self._write("failure", reason=error.code, status=status, **_item_fields(pool.config.name, item))

    def _write(self, outcome: str, **fields: object) -> None:
        """Write an audit line about what has happened already: that it cannot be written does not undo it."""
        try:
            self._audit.write(events.DELIVERY, outcome, **fields)
        except OSError as error:
            _log.error("the audit line of a delivery could not be written: errno %s", error.errno)


def _item_fields(destination: str, item: Outgoing) -> dict[str, object]:
    return {
        "destination": destination,
        "instance_id": item.instance_id or None,
        "sop_class_uid": item.sop_class_uid,
        "sop_instance_uid": item.sop_instance_uid,
        "bytes": item.size,
    }


class _Pool:
    """One destination: its associations, of which each is lent to one thread at a time, and what they share."""

    def __init__(self, config: Destination) -> None:
        self.config = config
        self.is_down = False
        self.peer = peer_of(config)
        bucket = Bucket(config.limit_kib_s * 1024) if config.limit_kib_s else None
        self._changed = threading.Condition()
        link = WebLink if config.kind == "dicomweb" else _Link
        self._free: list[_Link | WebLink] = [  # the last used one last
            link(config, self.peer, bucket) for _ in range(config.connections)
        ]

    @contextlib.contextmanager
    def link(self) -> Iterator[_Link | WebLink]:
        """Borrow an association, waiting for one where all are lent."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            link = self._free.pop()
        try:
            yield link
        finally:
            with self._changed:
                self._free.append(link)
                self._changed.notify()

    def release_idle(self) -> None:
        """Look after those that are not lent."""
        with self._changed:
            idle, self._free = self._free, []
        try:
            for link in idle:
                link.release_if_idle()
        finally:  # whatever came of it: nobody could send there any more
            with self._changed:
                self._free = [*idle, *self._free]
                self._changed.notify_all()

    def close(self) -> None:
        """Release all, waiting for those that are lent."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) == self.config.connections)
            for link in self._free:
                link.release()


class _Link:
    """One association with a destination, and what it was asked for; one thread at a time uses it."""

    def __init__(self, config: Destination, peer: Peer, bucket: Bucket | None) -> None:
        self.config = config
        self.peer = peer
        self._bucket = bucket
        self._association: ScuAssociation | None = None
        self._wanted: dict[tuple[str, str], None] = {}  # in order of last need, oldest first

    def send(self, item: Outgoing) -> tuple[Response, str]:
        """Send one instance in the first syntax that the destination accepts and that holds the instance exactly."""
        syntaxes = self._syntaxes(item)
        pairs = {(item.sop_class_uid, syntax) for syntax in syntaxes}
        accepted = [syntax for syntax in syntaxes if (item.sop_class_uid, syntax) in self._open(pairs).accepted]
        for syntax in accepted:
            try:
                stream = self._stream(item, syntax)
            except DicomError as error:
                if error.code != "not-exact":
                    raise
                _log.warning("instance %s does not go out in %s: %s", item.instance_id, syntax, error.message)
                continue
            with contextlib.closing(stream):
                association = self._open(pairs)  # encoding takes time: the peer may have released in the meantime
                size = item.size if syntax == item.transfer_syntax_uid else None
                source = stream if self._bucket is None else Throttled(stream, self._bucket)
                instance = (item.sop_class_uid, item.sop_instance_uid, syntax)
                try:
                    answer = association.store(*instance, source, size=size, priority=PRIORITIES[self.config.priority])
                except DeliveryError as error:
                    error.about_instance = error.code in _OVER_THIS_ONE
                    raise
                return answer, syntax
        what = f"SOP class {item.sop_class_uid} in {' or '.join(syntaxes)}"
        if accepted:
            raise PermanentError(
                "no-exact-syntax",
                f"no transfer syntax that destination {self.config.name} takes holds the pixels exactly: {what}",
                'add "explicit" and "implicit" to the transfer_syntaxes of the destination',
            )
        raise PermanentError("context-refused", f"destination {self.config.name} does not take {what}")

    @staticmethod
    def _stream(item: Outgoing, syntax: str) -> BinaryIO:
        if syntax == item.transfer_syntax_uid or item.in_syntax is None:
            return item.open()
        return item.in_syntax(syntax)

    def _syntaxes(self, item: Outgoing) -> list[str]:
        """In order of preference: of a marked copy as configured, else its own and the one it can be turned into."""
        if item.marked:
            return [LOSSLESS_NAMES[name] for name in self.config.transfer_syntaxes]
        if item.in_syntax is None or item.transfer_syntax_uid == IMPLICIT_LITTLE:
            return [item.transfer_syntax_uid]
        return [item.transfer_syntax_uid, IMPLICIT_LITTLE]  # the default syntax, which every node takes (PS3.5 10.1)

    def release(self) -> None:
        if self._association is not None:
            self._association.release()
            self._association = None

    def release_if_idle(self) -> None:
        association = self._association
        if association is None:
            return
        if not association.alive():
            self._association = None
        elif time.monotonic() - association.last_used > self.config.idle_release_s:
            self.release()

    def _open(self, pairs: set[tuple[str, str]]) -> ScuAssociation:
        """An association on which all `pairs` were proposed."""
        for pair in sorted(pairs):
            self._wanted.pop(pair, None)
            self._wanted[pair] = None
        for pair in list(self._wanted)[:-MOST_CONTEXTS]:
            del self._wanted[pair]
        if self._association is not None and not self._association.alive():
            self._association = None
        if self._association is not None and not pairs <= self._association.proposed:
            self.release()
        if self._association is None:
            self._association = ScuAssociation(self.peer, self._wanted)
        return self._association
