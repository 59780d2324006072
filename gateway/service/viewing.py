"""Between page and worker: a socket on which an operator's session asks for pictures, and the worker makes them.

The page holds no key and sees no file; the worker looks at the rows, the audit and the person anew. One message a
connection, one connection at a time:

    {"do": "login", "user", "password", "session_id"}                        -> {"ok": true, "proof"}
    {"do": "login", "token", "session_id"}                                   -> the same, by an identity provider
    {"do": "view", "proof", "instance", "view", "frame", "window", "side"}  -> {"ok": true, "length", ...}, PNG
    what went wrong                                                          -> {"ok": false, "code", "message", "hint"}

JSON lines; the PNG follows its line. The proof is the worker's own session: it gives one only for a password, or a
token of the site's identity provider, that it has checked itself, so a page that was taken over can show nobody's
pictures but those of people who log in through it meanwhile. The folder is the worker's; the group of the page may
connect (mode 0660).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.errors import CapacityError, GatewayError, NotFoundError, UnreachableError
from gateway.service.places import places

LONGEST = 16_384  # bytes of a message
LARGEST = 64 << 20  # bytes of a picture
ASKING_S = 5.0  # in which a message has come whole
ANSWER_S = 60.0  # so long the page waits
SUFFIX = ".view"
_SEE = "start role worker, or see its log; one that was started before viewer = true stood in [page] has to be reloaded"


class NotUnderstoodError(GatewayError):
    """A message that is none of the protocol's."""


class ViewClient:
    """The page's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log_in(self, user: str, password: str, session_id: str) -> str:
        """Prove a password to the worker; returns what to ask by. UnreachableError, GatewayError as the worker says."""
        head, _ = self._ask({"do": "login", "user": user, "password": password, "session_id": session_id})
        return str(head.get("proof", ""))

    def log_in_by_token(self, token: str, session_id: str) -> str:
        """The same by the token of the site's identity provider, which the worker checks itself."""
        head, _ = self._ask({"do": "login", "token": token, "session_id": session_id})
        return str(head.get("proof", ""))

    def picture(self, proof: str, wish: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Facts and PNG; `wish`: instance, view, frame, window, side.

        Raises
        ------
        UnreachableError
            ``worker-unreachable``.
        GatewayError
            What the worker says.
        """
        return self._ask({"do": "view", "proof": proof, **wish})

    def _ask(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                try:
                    connection.settimeout(ASKING_S)
                    with short_name(path) as name:
                        connection.connect(name)
                except OSError:  # of a worker that is gone
                    continue
                try:
                    connection.sendall(json.dumps(message).encode() + b"\n")
                    return self._read(connection)
                except (OSError, NotUnderstoodError):
                    raise UnreachableError("worker-unreachable", "the worker did not answer in time", _SEE) from None
        raise UnreachableError("worker-unreachable", "no worker of this machine shows pictures", _SEE)

    def _read(self, connection: socket.socket) -> tuple[dict[str, Any], bytes]:
        line, rest = line_of(connection, ANSWER_S, LONGEST + 65536, keep=True)
        head = message_of(line)
        if head.get("ok") is not True:
            words = [str(head.get(name, ""))[:500] for name in ("code", "message", "hint")]
            kind = {"no-such-instance": NotFoundError, "too-many-views": CapacityError}.get(words[0], GatewayError)
            raise kind(*words)
        length = head.get("length", 0)
        if not isinstance(length, int) or not 0 <= length <= LARGEST:
            raise NotUnderstoodError("not-understood", "no length")
        data = bytearray(rest)
        while len(data) < length:
            piece = connection.recv(1 << 20)
            if not piece:
                raise NotUnderstoodError("not-understood", "it broke off")
            data += piece
        return head, bytes(data[:length])


def view_folder(config: Config) -> Path:
    """Where the sockets lie; made where nobody made it for this user (mode 0700)."""
    folder = places(config).viewer
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def message_of(line: bytes) -> dict[str, Any]:
    """A message out of its line; NotUnderstoodError for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotUnderstoodError("not-understood", "that is no message")
    return found


def line_of(connection: socket.socket, seconds: float, longest: int, *, keep: bool = False) -> Any:
    """The first line, in that time and of that length; with what came behind it, where `keep`."""
    deadline, data = time.monotonic() + seconds, bytearray()
    while (end := data.find(b"\n")) < 0:
        if len(data) > longest:
            raise NotUnderstoodError("not-understood", "the message is too long")
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(65536)
        if not piece:
            raise NotUnderstoodError("not-understood", "the message broke off")
        data += piece
    return (bytes(data[:end]), bytes(data[end + 1 :])) if keep else bytes(data[:end])


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name that fits into an address, however long the folder's is (`gateway.service.control`)."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
