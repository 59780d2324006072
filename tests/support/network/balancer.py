"""HAProxy before ports of ours: on 127.0.0.1 for clients, from 127.0.0.9 to us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.network import peers

ADDRESS = "127.0.0.9"  # of the balancer, as our ports see it
HEADERS = ("send-proxy", "send-proxy-v2")


@contextlib.contextmanager
def balancer(folder: Path, ports: list[int], header: str = "send-proxy-v2") -> Iterator[int]:
    """HAProxy in TCP mode that takes the ports in turn; `header` as its keyword, "" for none. Yields its port.

    It looks every half second whether each of the ports answers, with the header of that ("LOCAL", "UNKNOWN").
    """
    port = peers.free_port()
    check = "check inter 500ms fall 1 rise 1" + (" check-send-proxy" if header else "")
    servers = [
        f"    server replica{number} 127.0.0.1:{one} source {ADDRESS} {header} {check}"
        for number, one in enumerate(ports)
    ]
    configuration = [
        "defaults",
        "    mode tcp",
        "    timeout connect 5s",
        "    timeout client 60s",
        "    timeout server 60s",
        "    retries 3",
        "    option redispatch",
        "listen gateway",
        f"    bind 127.0.0.1:{port}",
        "    balance roundrobin",
        *servers,
    ]
    file = folder / f"haproxy-{port}.cfg"
    file.write_text("\n".join(configuration) + "\n")
    with peers.running("haproxy", "-q", "-db", "-f", file, port=port):
        yield port
