"""The sender of marked copies: raw bytes over pooled associations (`gateway.network.pool`), answers sorted into errors.

Whoever waits for the answer is the thread that asked for the sending; so many of them may as a destination has places.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

from gateway.audit import AuditLog, events
from gateway.config.models import Destination
from gateway.errors import DeliveryError, PermanentError, TransientError, fault
from gateway.flow.ports import Outgoing
from gateway.flow.statuses import Kind, delivered, kind_of
from gateway.network.contexts import EXPLICIT_LITTLE, VERIFICATION
from gateway.network.pool import Pool
from gateway.network.scu import CERTIFICATE_FAILURES, Response, ScuAssociation
from gateway.network.web_link import WebLink

BESIDE_S = 5.0  # for the answer to an association that is asked for beside others

_log = logging.getLogger(__name__)
_CONNECTION = {
    "unreachable",
    "service-unavailable",
    "connection-lost",
    "no-answer",
    "association-aborted",
    *CERTIFICATE_FAILURES,
}


def failure(destination: str, response: Response) -> DeliveryError:
    """The error for a failure status: out of resources and processing failures may pass, the others will not."""
    code = f"status-{response.status:04x}"
    text = f"destination {destination} answered 0x{response.status:04X}"
    if kind_of(response.status) is Kind.LATER:
        return TransientError(code, text)
    return PermanentError(code, text, "see the destination's own log")


class Egress:
    """`gateway.flow.ports.Sender` over DICOM. Safe for several threads.

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
        self._pools = {destination.name: Pool(destination) for destination in destinations}
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
        try:
            response, syntax = pool.send(item)
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

    def at_a_time(self, destination: str) -> int:
        """As many instances as the associations have places: one each, or the windows that were granted."""
        pool = self._pools.get(destination)
        return pool.places() if pool else 1

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

    def granted_at_once(self, destination: str, wanted: int) -> int:
        """How many associations a destination grants beside each other, of `wanted`; they are released at once.

        One that does not answer within `BESIDE_S` waits for another to end. Of kind "dicomweb": all.
        """
        pool = self._pool(destination)
        if pool.config.kind == "dicomweb":
            return wanted
        peer = replace(pool.peer, response_timeout_s=min(pool.peer.response_timeout_s, BESIDE_S))
        with contextlib.ExitStack() as held:
            for number in range(wanted):
                try:
                    held.callback(ScuAssociation(peer, [(VERIFICATION, EXPLICIT_LITTLE)]).release)
                except DeliveryError:
                    return number
        return wanted

    def close(self) -> None:
        """Release every association; the egress is of no use after that."""
        self._closed.set()
        self._janitor.join()
        for pool in self._pools.values():
            pool.close()
        try:  # the lines of a sender that settles nothing, as a probe
            self._audit.flush()
        except OSError as error:
            _log.error("the audit lines of deliveries could not be flushed: errno %s", error.errno)

    def _pool(self, destination: str) -> Pool:
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

    def _write_failure(self, pool: Pool, item: Outgoing, error: DeliveryError) -> None:
        """One line per failed instance, but one per outage while nothing gets through at all."""
        if error.code in _CONNECTION:
            if pool.is_down:
                return
            pool.is_down = True
        status = int(error.code[7:], 16) if error.code.startswith("status-") else None
        self._write("failure", reason=error.code, status=status, **_item_fields(pool.config.name, item))

    def _write(self, outcome: str, **fields: object) -> None:
        """Note what has happened already: that it cannot be written does not undo it. Flushed before it is settled."""
        try:
            self._audit.note(events.DELIVERY, outcome, **fields)
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
