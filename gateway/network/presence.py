"""Which running role holds a port: told to `config check` without a file that could outlive the role.

A role binds, beside each of its ports, a socket in Linux's abstract name space under a name made of the port (unix(7)):
the kernel frees it with the process, and it belongs to the same network name space as the port. Nobody connects to it.
Of the processes that share a port each takes the first name that is free. Whoever else takes a name gains only that a
check calls a taken port right.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from gateway.config import Config
from gateway.config.lines import KeyPath
from gateway.config.models import MOST_PROCESSES


class Presence:
    """The names that one running role holds; `close` gives them back."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], socket.socket] = {}

    def hold(self, config: Config, role: str) -> None:
        """Hold a name of each port that `role` has by this configuration, and no others."""
        wanted = {(host, port) for _, host, port in listeners(config, role)}
        for where in wanted - self._held.keys():
            for name in _names(*where):
                each = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                try:
                    each.bind(name)
                except OSError:
                    each.close()
                else:
                    self._held[where] = each
                    break
        for where in self._held.keys() - wanted:
            self._held.pop(where).close()

    def close(self) -> None:
        """Give the names back (the kernel does so at the end of the process, too)."""
        for each in self._held.values():
            each.close()
        self._held.clear()


def listeners(config: Config, role: str = "all") -> Iterator[tuple[KeyPath, str, int]]:
    """The configuration's path, host and port of everything that `role` listens on."""
    if role in ("all", "ingress"):
        yield ("ingress", "port"), config.ingress.host, config.ingress.port
        if config.ingress.dicomweb_port is not None:
            yield ("ingress", "dicomweb_port"), config.ingress.host, config.ingress.dicomweb_port
    if role in ("all", "worker") and config.commitment is not None:
        yield ("commitment", "port"), config.commitment.host, config.commitment.port
    if role in ("all", "restore") and config.restore is not None:
        for name in ("tls_port", "plain_port", "dicomweb_port"):
            if (port := getattr(config.restore, name)) is not None:
                yield ("restore", name), config.restore.host, port
    if role in ("all", "page") and config.page is not None:
        yield ("page", "port"), config.page.host, config.page.port


def announce(config: Config, role: str) -> Presence:
    """Say that this process holds the ports of `role`."""
    presence = Presence()
    presence.hold(config, role)
    return presence


def is_ours(host: str, port: int) -> bool:
    """Whether a running role of the gateway says that it holds this port."""
    for name in _names(host, port):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.bind(name)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False


def reason_not_to_listen(host: str, port: int) -> str:
    """Why nobody could listen there now; empty when one could. Nothing is accepted meanwhile."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        return f"{host} is no address of this machine"
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener itself does
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken by another program"
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{host} is no address of this machine"
            if error.errno == errno.EACCES:
                return f"this user may not listen on port {port}"
            return f"cannot listen on {host} port {port}: {error.strerror}"
    return ""


def _names(host: str, port: int) -> list[bytes]:
    name = f"\0miad-gateway/{host}:{port}"
    return [(name if number == 1 else f"{name}/{number}").encode() for number in range(1, MOST_PROCESSES + 1)]
