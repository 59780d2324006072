"""One connection with a destination that takes instances by STOW-RS (PS3.18 10.5): as a link of the egress.

One instance a request, streamed; the answer is read for what became of that instance, and its failure reason is sorted
as the status of a C-STORE is (PS3.18 I.2 takes its values from PS3.4). Redirects are not followed: copies go where the
configuration says, and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import secrets
import select
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from gateway.config.destination import Destination
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError
from gateway.flow.ports import Outgoing
from gateway.flow.statuses import is_stored
from gateway.network.bandwidth import Bucket, Throttled
from gateway.network.connect import Peer, connect, lost
from gateway.network.patient_socket import PatientSocket
from gateway.network.scu import Response

LONGEST_ANSWER = 1 << 18  # bytes that are read of an answer, which is about one instance
MOST_BRACKETS = 400  # in it: Python's reader goes down by recursion
PIECE = 1 << 18
SYNTAX_NOT_SUPPORTED = 0xC122
_STALE_S = 2.0  # a connection that was idle for longer is not believed to be there still
_REFERENCED, _FAILED, _OTHERS = "00081199", "00081198", "0008119A"
_INSTANCE, _REASON, _WARNING = "00081155", "00081197", "00081196"
_EARLY_S = 1.0  # for an answer that should be there already
_LATER = {408, 425, 429, 500, 502, 503, 504}

_log = logging.getLogger(__name__)


class WebLink:
    """Sends one instance at a time; `release` closes its connection.

    Parameters
    ----------
    config
        A destination of kind "dicomweb".
    peer
        Its host and port, and the context of its TLS.
    bucket
        The destination's limit of bytes a second, shared by its links.
    """

    def __init__(self, config: Destination, peer: Peer, bucket: Bucket | None) -> None:
        self.config = config
        self._peer = peer
        self._bucket = bucket
        self._connection: _Connection | None = None
        self._last_used = 0.0
        self.granted = 1  # as of an association

    def send(self, item: Outgoing) -> tuple[Response, str]:
        """Store one instance in the first syntax that holds it exactly and that the service takes.

        Raises
        ------
        TransientError
            Codes ``unreachable``, ``connection-lost``, ``no-answer``, ``unexpected-answer``, ``service-unavailable``,
            and those of TLS.
        PermanentError
            Codes ``context-refused``, ``no-exact-syntax``, ``service-refused``.
        """
        exact = False
        for syntax in self._syntaxes(item):
            try:
                stream = item.open() if syntax == item.transfer_syntax_uid else self._recoded(item, syntax)
            except DicomError as error:
                if error.code != "not-exact":
                    raise
                _log.warning("instance %s does not go out in %s: %s", item.instance_id, syntax, error.message)
                continue
            exact = True
            with contextlib.closing(stream):
                size = item.size if syntax == item.transfer_syntax_uid else None
                status = self._store(item, syntax, stream, size)
            if status != SYNTAX_NOT_SUPPORTED:
                return Response(status), syntax
        if exact:
            what = f"SOP class {item.sop_class_uid}"
            raise PermanentError("context-refused", f"destination {self.config.name} takes {what} in no syntax of ours")
        raise PermanentError(
            "no-exact-syntax",
            f"no transfer syntax of destination {self.config.name} holds the pixels exactly",
            'add "explicit" to the transfer_syntaxes of the destination',
        )

    def places(self) -> int:
        """One request at a time."""
        return 1

    def echo(self) -> None:
        """Whether a web service answers there, and does not refuse us: a search for a study that nobody has.

        A service that only stores may know no searches: that it answers is enough.

        Raises
        ------
        TransientError, PermanentError
            As `send`.
        """
        nobodys = f"?StudyInstanceUID=2.25.{secrets.randbits(127)}&limit=1"
        answer, _ = self._request("GET", {"Accept": "application/dicom+json"}, None, nobodys)
        if answer.status in (401, 403) or answer.status in _LATER:
            raise _http_failure(self.config.name, answer.status)

    def release(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def release_if_idle(self) -> None:
        """Close it after `idle_release_s` without work."""
        if self._connection is not None and time.monotonic() - self._last_used > self.config.idle_release_s:
            self.release()

    def _syntaxes(self, item: Outgoing) -> list[str]:
        """As of an association; but Implicit VR Little Endian has no place on the web (PS3.18 8.7.3.5)."""
        if not item.marked:
            return [item.transfer_syntax_uid]
        return [LOSSLESS_NAMES[name] for name in self.config.transfer_syntaxes if name != "implicit"]

    @staticmethod
    def _recoded(item: Outgoing, syntax: str) -> BinaryIO:
        if item.in_syntax is None:
            raise DicomError("not-exact", "it is to be had in its own transfer syntax alone")
        return item.in_syntax(syntax)

    def _store(self, item: Outgoing, syntax: str, stream: BinaryIO, size: int | None) -> int:
        boundary = secrets.token_hex(24)  # nobody can foresee it
        head = io.BytesIO()
        # A transfer-syntax parameter would be allowed; Orthanc 1.10 passes over parts that have one, and answers 200.
        head.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        write_part10(head, item.sop_class_uid, item.sop_instance_uid, syntax, ())
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if size is not None:
            headers["Content-Length"] = str(len(head.getvalue()) + size + len(tail))
        source = stream if self._bucket is None else Throttled(stream, self._bucket)
        answer, body = self._request("POST", headers, _pieces(head.getvalue(), source, tail))
        return self._status(item, answer.status, body)

    def _request(
        self, method: str, headers: dict[str, str], body: Iterator[bytes] | None, query: str = ""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request and its answer, on a connection that is kept where both sides want it."""
        connection = self._connected()
        try:
            chunked = body is not None and "Content-Length" not in headers
            if chunked:
                headers = {**headers, "Transfer-Encoding": "chunked"}
            try:
                connection.request(method, self.config.web_path + query, body, headers, encode_chunked=chunked)
            except (BrokenPipeError, ConnectionResetError, TimeoutError) as error:
                answer = _early_answer(connection)
                if answer is None:
                    raise error from None
            else:
                connection.patient.begin(self._peer.response_timeout_s)
                answer = connection.getresponse()
            data = answer.read(LONGEST_ANSWER + 1)
        except TimeoutError:
            self.release()
            message = f"destination {self.config.name} did not answer in {self.config.response_timeout_s:g} s"
            raise self._about(TransientError("no-answer", message)) from None
        except http.client.HTTPException:
            self.release()
            message = f"destination {self.config.name} does not speak HTTP, or broke off"
            raise self._about(TransientError("unexpected-answer", message)) from None
        except OSError as error:
            self.release()
            raise self._about(lost(error)) from None
        except BaseException:  # the instance could not be read to its end: what was sent must not look whole
            self.release()
            raise
        if answer.will_close or not answer.isclosed():
            self.release()
        self._last_used = time.monotonic()
        return answer, data

    @staticmethod
    def _about(error: TransientError) -> TransientError:
        error.about_instance = error.code in ("connection-lost", "unexpected-answer")
        return error

    def _connected(self) -> _Connection:
        if self._connection is not None and (time.monotonic() - self._last_used > _STALE_S or self._has_ended()):
            self.release()
        if self._connection is None:
            secured = connect(self._peer)
            secured.settimeout(self._peer.response_timeout_s)
            made = _Connection(self._peer, PatientSocket(secured))
            if self._peer.port == (443 if self._peer.tls else 80):
                made.default_port = self._peer.port  # so that the Host header leaves it out
            self._connection = made
        return self._connection

    def _has_ended(self) -> bool:
        """Whether the service has closed the kept connection: between two requests there is nothing else to read."""
        assert self._connection is not None
        poll = select.poll()
        poll.register(self._connection.sock, select.POLLIN)
        return bool(poll.poll(0))

    def _status(self, item: Outgoing, http_status: int, body: bytes) -> int:
        """What became of the instance, as a C-STORE status.

        Raises
        ------
        DeliveryError
            The answer does not tell, or the service as a whole refuses.
        """
        told = _told_of(item.sop_instance_uid, body) if http_status in (200, 202, 409) else None
        if told is not None and not (http_status == 409 and is_stored(told)):  # 409: none is stored
            return told
        if http_status == 200 and not body:
            return 0x0000  # "all instances are stored" (PS3.18 table 10.5.3-1)
        if http_status in (200, 202, 409):
            message = f"destination {self.config.name} answered {http_status}, and does not say what became of it"
            error: DeliveryError = TransientError("unexpected-answer", message)
            error.about_instance = True
            raise error
        raise _http_failure(self.config.name, http_status)


class _Connection(http.client.HTTPConnection):
    """On a socket that is connected already; never connects by itself."""

    auto_open = 0

    def __init__(self, peer: Peer, patient: PatientSocket) -> None:
        super().__init__(peer.host, peer.port)
        self.patient = patient
        self.sock: Any = patient


def _pieces(head: bytes, stream: BinaryIO | Throttled, tail: bytes) -> Iterator[bytes]:
    yield head
    while piece := stream.read(PIECE):
        yield piece
    yield tail


def _http_failure(name: str, status: int) -> DeliveryError:
    """The error for an answer that is about the service and no instance."""
    text = f"destination {name} answered HTTP {status}"
    if status in _LATER:
        return TransientError("service-unavailable", text)
    if status in (406, 415):
        return PermanentError("context-refused", text, "it takes no application/dicom of this kind")
    return PermanentError("service-refused", text, "look at url and certificate, and at the destination's own log")


def _told_of(uid: str, body: bytes) -> int | None:
    """The status of one instance in a Store Instances Response (PS3.18 I.2, JSON); None: it is not told of.

    A failure that is told without a UID counts as this instance's: it was the only one.
    """
    if len(body) > LONGEST_ANSWER or body.count(b"{") + body.count(b"[") > MOST_BRACKETS:
        return None
    try:
        model = json.loads(body)
        for item in _items(model, _FAILED):
            if uid in _values(item, _INSTANCE):
                return _number(item, _REASON, 0x0110)
        for item in _items(model, _OTHERS):
            return _number(item, _REASON, 0x0110)
        for item in _items(model, _REFERENCED):
            if uid in _values(item, _INSTANCE):
                warning = _number(item, _WARNING, 0)
                return warning if 0xB000 <= warning <= 0xBFFF else 0x0000
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        return None  # whatever JSON it is, it is not that module
    return None


def _items(model: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return _values(model, tag)


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    values = item.get(tag, {}).get("Value") or []
    if not isinstance(values, list):  # in a string a UID would be found that another begins with
        raise TypeError
    return values


def _number(item: dict[str, Any], tag: str, otherwise: int) -> int:
    value = int((_values(item, tag) or [otherwise])[0])
    return value if 0 < value <= 0xFFFF else otherwise


def _early_answer(connection: _Connection) -> http.client.HTTPResponse | None:
    """What a service has said that closed the connection before it had read all: it refuses, and tells why."""
    connection.patient.begin(_EARLY_S)
    with contextlib.suppress(OSError, http.client.HTTPException):
        answer = connection.getresponse()
        if answer.status >= 300:
            answer.will_close = True
            return answer
    return None
