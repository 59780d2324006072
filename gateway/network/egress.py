"""The sender of marked copies: one pooled association per destination, raw bytes, answers sorted into errors.

A destination keeps its association while there is work and releases it after `idle_release_s`. When an instance needs a
(SOP class, transfer syntax) that was not proposed yet, the association is negotiated anew with it added, so a study of
several kinds settles on one association.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import BinaryIO

from gateway.audit import AuditLog, events
from gateway.config.models import Destination
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError
from gateway.flow.ports import Outgoing
from gateway.network import tls as tls_contexts
from gateway.network.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION
from gateway.network.scu import CERTIFICATE_FAILURES, MOST_CONTEXTS, Peer, Response, ScuAssociation
from gateway.network.statuses import Kind, delivered, kind_of

_log = logging.getLogger(__name__)
_OVER_THIS_ONE = {"association-aborted", "association-ended", "connection-lost", "unexpected-answer", "odd-length"}
_CONNECTION = {"unreachable", "connection-lost", "no-answer", "association-aborted", *CERTIFICATE_FAILURES}


def failure(destination: str, response: Response) -> DeliveryError:
    """The error for a failure status: out of resources and processing failures may pass, the others will not."""
    code = f"status-{response.status:04x}"
    text = f"destination {destination} answered 0x{response.status:04X}"
    if kind_of(response.status) is Kind.LATER:
        return TransientError(code, text)
    return PermanentError(code, text, "see the destination's own log")


class Egress:
    """`gateway.flow.ports.Sender` over DICOM. Safe for several threads; one destination sends one instance at a time.

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
        self._links = {destination.name: _DestinationLink(destination) for destination in destinations}
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
            ``association-rejected-for-now``, ``unexpected-answer``, ``status-a7xx``, ``status-0110``, ``status-0213``,
            and of TLS ``certificate-not-trusted``, ``certificate-refused``, ``tls-failed``: nothing was sent then.
        PermanentError
            Codes ``context-refused``, ``no-exact-syntax``, ``odd-length``, ``association-rejected``,
            ``unusable-pdu-length``, ``unknown-destination``, and ``status-xxxx`` for other failures.
        """
        link = self._link(destination)
        began = time.monotonic()
        with link.lock:
            try:
                response, syntax = link.send(item)
                if not delivered(response.status):
                    raise failure(destination, response)
            except DeliveryError as error:
                self._write_failure(link, item, error)
                raise
            link.down = False
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

        Raises
        ------
        TransientError, PermanentError
            As `send`; a destination that refuses verification answers ``context-refused``.
        """
        link = self._link(destination)
        association = ScuAssociation(link.peer, [(VERIFICATION, EXPLICIT_LITTLE)])
        try:
            if not association.accepted:
                raise PermanentError("context-refused", f"destination {destination} does not offer verification")
            response = association.echo()
            if response.status != 0x0000:
                raise failure(destination, response)
        finally:
            association.release()

    def close(self) -> None:
        """Release every association; the egress is of no use after that."""
        self._closed.set()
        self._janitor.join()
        for link in self._links.values():
            with link.lock:
                link.release()

    def _link(self, destination: str) -> _DestinationLink:
        try:
            return self._links[destination]
        except KeyError:
            raise PermanentError("unknown-destination", f"there is no destination {destination!r}") from None

    def _release_idle(self) -> None:
        """The janitor's thread: releases what has been idle, and answers peers that release first."""
        pause = min([0.5, *(link.config.idle_release_s / 4 for link in self._links.values())])
        while not self._closed.wait(pause):
            for link in self._links.values():
                if link.lock.acquire(blocking=False):
                    try:
                        link.release_if_idle()
                    finally:
                        link.lock.release()

    def _write_failure(self, link: _DestinationLink, item: Outgoing, error: DeliveryError) -> None:
        """One line per failed instance, but one per outage while nothing gets through at all."""
        if error.code in _CONNECTION:
            if link.down:
                return
            link.down = True
        status = int(error.code[7:], 16) if error.code.startswith("status-") else None
        self._write("failure", reason=error.code, status=status, **_item_fields(link.config.name, item))

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


class _DestinationLink:
    """One destination: its association, what it was asked for, and the lock that its users hold."""

    def __init__(self, config: Destination) -> None:
        self.config = config
        self.lock = threading.Lock()
        self.down = False
        self.peer = Peer(
            host=config.host,
            port=config.port,
            called_ae=config.ae_title,
            calling_ae=config.calling_ae,
            tls=tls_contexts.client_context(config.tls) if config.tls else None,
            max_pdu=config.max_pdu,
            connect_timeout_s=config.connect_timeout_s,
            response_timeout_s=config.response_timeout_s,
        )
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
                try:
                    answer = association.store(item.sop_class_uid, item.sop_instance_uid, syntax, stream, size=size)
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
