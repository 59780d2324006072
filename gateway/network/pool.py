"""The associations with one destination: how many there are, who uses them, and what was asked of them.

A destination has `connections` associations at most; of those that are open the last used one is taken first, so that
the others may go. It keeps an association while there is work and releases it after `idle_release_s`. When an instance
needs a (SOP class, transfer syntax) that was not proposed yet, the association is negotiated anew with it added, so a
study of several kinds settles on one association.

Where a destination grants an asynchronous operations window, an association is lent to as many threads as that has
places; to a destination that says nothing of it, to one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

from gateway.config.models import Destination
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError
from gateway.flow.ports import Outgoing
from gateway.network import tls as tls_contexts
from gateway.network.bandwidth import Bucket, Throttled
from gateway.network.contexts import IMPLICIT_LITTLE
from gateway.network.scu import MOST_CONTEXTS, Peer, Response, ScuAssociation
from gateway.network.web_link import WebLink

_log = logging.getLogger(__name__)
PRIORITIES = {"low": 0x0002, "medium": 0x0000, "high": 0x0001}  # (0000,0700), PS3.7 9.3.1.1
_ENDED = {"association-aborted", "association-ended", "connection-lost", "unexpected-answer"}


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


class Pool:
    """One destination: its associations, of which each has so many users as it has places, and what they share."""

    def __init__(self, config: Destination) -> None:
        self.config = config
        self.is_down = False
        self.peer = peer_of(config)
        bucket = Bucket(config.limit_kib_s * 1024) if config.limit_kib_s else None
        self._changed = threading.Condition()
        link = WebLink if config.kind == "dicomweb" else Link
        self._links = [link(config, self.peer, bucket) for _ in range(config.connections)]  # the last used one last
        self._users: dict[Link | WebLink, int] = dict.fromkeys(self._links, 0)
        self._alone: set[Link | WebLink] = set()  # lent to one who shares them with nobody
        self._want_alone = 0

    def send(self, item: Outgoing) -> tuple[Response, str]:
        """Send one instance, and return the answer and the transfer syntax that it went in.

        An association that ended with several instances under way may have done so over any of them: those that have
        no answer are sent again, each by itself, so that none is blamed for another.
        """
        with self._link() as link:
            try:
                return link.send(item)
            except DeliveryError as error:
                if error.code not in _ENDED or not error.about_instance or link.granted == 1:
                    raise
        _log.info("instance %s is sent again, by itself: the association ended with others", item.instance_id)
        with self._link(alone=True) as link:
            return link.send(item)

    def places(self) -> int:
        """How many may send at a time, as far as is known."""
        return sum(link.places() for link in self._links)

    @contextlib.contextmanager
    def _link(self, *, alone: bool = False) -> Iterator[Link | WebLink]:
        """Borrow a place on an association, or one that nobody else uses, waiting where there is none."""
        with self._changed:
            self._want_alone += alone
            self._changed.wait_for(lambda: self._with_a_place(alone) is not None)
            self._want_alone -= alone
            link = self._with_a_place(alone)
            assert link is not None  # just found, and nobody else was asked since
            self._users[link] += 1
            if alone:
                self._alone.add(link)
        try:
            yield link
        finally:
            with self._changed:
                self._users[link] -= 1
                self._alone.discard(link)
                self._links.remove(link)
                self._links.append(link)
                self._changed.notify_all()

    def _with_a_place(self, alone: bool) -> Link | WebLink | None:
        if self._want_alone and not alone:
            return None  # who wants one for himself would wait for ever beside those who share
        for link in reversed(self._links):
            users = self._users[link]
            if users == 0 or (not alone and link not in self._alone and users < link.places()):
                return link
        return None

    def release_idle(self) -> None:
        """Look after those that are not lent."""
        with self._changed:
            idle = [link for link in self._links if not self._users[link]]
            for link in idle:
                self._users[link] += 1
            self._alone.update(idle)
        try:
            for link in idle:
                link.release_if_idle()
        finally:  # whatever came of it: nobody could send there any more
            with self._changed:
                for link in idle:
                    self._users[link] -= 1
                self._alone.difference_update(idle)
                self._changed.notify_all()

    def close(self) -> None:
        """Release all, waiting for those that are lent."""
        with self._changed:
            self._changed.wait_for(lambda: not any(self._users.values()))
            for link in self._links:
                link.release()


class Link:
    """One association with a destination, and what it was asked for; so many threads use it as it has places.

    Attributes
    ----------
    granted
        The window of the last association, which may have ended.
    """

    def __init__(self, config: Destination, peer: Peer, bucket: Bucket | None) -> None:
        self.config = config
        self.peer = peer
        self.granted = 1
        self._bucket = bucket
        self._association: ScuAssociation | None = None
        self._wanted: dict[tuple[str, str], None] = {}  # in order of last need, oldest first
        self._changed = threading.Condition()
        self._users = 0
        self._waiting: list[set[tuple[str, str]]] = []  # contexts that some wait for, on an association that has them

    def places(self) -> int:
        """How many may use it at a time; 1 while it is not known what the peer grants."""
        association = self._association
        return association.window if association is not None and association.usable else 1

    def send(self, item: Outgoing) -> tuple[Response, str]:
        """Send one instance in the first syntax that the destination accepts and that holds the instance exactly."""
        syntaxes = self._syntaxes(item)
        pairs = {(item.sop_class_uid, syntax) for syntax in syntaxes}
        with self._open(pairs) as association:
            accepted = [syntax for syntax in syntaxes if (item.sop_class_uid, syntax) in association.accepted]
        for syntax in accepted:
            try:
                stream = self._stream(item, syntax)
            except DicomError as error:
                if error.code != "not-exact":
                    raise
                _log.warning("instance %s does not go out in %s: %s", item.instance_id, syntax, error.message)
                continue
            # Encoding takes time: the peer may have released in the meantime.
            with contextlib.closing(stream), self._open(pairs) as association:
                size = item.size if syntax == item.transfer_syntax_uid else None
                source = stream if self._bucket is None else Throttled(stream, self._bucket)
                instance = (item.sop_class_uid, item.sop_instance_uid, syntax)
                try:
                    if (item.sop_class_uid, syntax) not in association.accepted:
                        raise TransientError("association-ended", "negotiated anew, the destination takes less")
                    answer = association.store(*instance, source, size=size, priority=PRIORITIES[self.config.priority])
                except DeliveryError as error:
                    error.about_instance |= error.code in {*_ENDED, "odd-length"}
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

    @contextlib.contextmanager
    def _open(self, pairs: set[tuple[str, str]]) -> Iterator[ScuAssociation]:
        """Use an association on which all `pairs` were proposed; another one is negotiated when nobody uses this."""
        with self._changed:
            self._want(pairs)
            if not self._fits(pairs):
                self._waiting.append(pairs)
                try:
                    self._changed.wait_for(lambda: not self._users or self._fits(pairs))
                finally:
                    self._waiting.remove(pairs)
            association = self._association
            if not self._users:
                association = self._made(pairs)
            assert association is not None  # somebody uses it
            self._users += 1
        try:
            yield association
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _want(self, pairs: set[tuple[str, str]]) -> None:
        for pair in sorted(pairs):
            self._wanted.pop(pair, None)
            self._wanted[pair] = None
        for pair in list(self._wanted)[:-MOST_CONTEXTS]:
            del self._wanted[pair]

    def _fits(self, pairs: set[tuple[str, str]]) -> bool:
        """Whether what others use at this moment is of use; nobody joins them while somebody waits for another one."""
        association = self._association
        if association is None or not association.usable:
            return False
        proposed = association.proposed
        return all(wanted <= proposed for wanted in (pairs, *self._waiting))

    def _made(self, pairs: set[tuple[str, str]]) -> ScuAssociation:
        """The association as it is where that will do, else a new one; nobody uses it meanwhile."""
        if self._association is not None and not self._association.alive():
            self._association = None
        if self._association is not None and not pairs <= self._association.proposed:
            self.release()
        if self._association is None:
            self._association = ScuAssociation(self.peer, self._wanted, window=self.config.async_operations)
            self.granted = self._association.window
        return self._association
