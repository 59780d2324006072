"""What only trying tells: ports, the database, the device, and how far the kernel confines codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.config import Config, Finding
from gateway.config.duties import Role
from gateway.config.lines import KeyPath
from gateway.database import try_database
from gateway.dicom.pixels.children.launch import unprotected
from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.network.presence import is_ours, listeners, reason_not_to_listen


def try_ports(config: Config, role: Role) -> Iterator[Finding]:
    """Each port is listened on for a moment, unless a running role of the gateway holds it."""
    for path, host, port in listeners(config, role):
        if not is_ours(host, port) and (reason := reason_not_to_listen(host, port)):
            yield Finding("error", path, reason, _port_cure(reason))


def _port_cure(reason: str) -> str:
    if "no address" in reason:
        return "give an address of this machine (ip address), or 0.0.0.0 for all of them"
    if "may not" in reason:
        return "choose a port from 1024 on, or give the service AmbientCapabilities=CAP_NET_BIND_SERVICE"
    return "stop what listens there, or choose another port"


def try_the_database(config: Config, role: Role = "all") -> Iterator[Finding]:
    """It is connected to, under the page's account too where that has one; nothing is written."""
    own = config.page is not None and bool(config.page.database_url)
    if not (own and role == "page"):
        yield from _try_url(("database", "url"), lambda: config.database_url)
    if own and role in ("all", "page"):
        yield from _try_url(("page", "database_url"), lambda: config.page_database_url)


def _try_url(path: KeyPath, url: Callable[[], str]) -> Iterator[Finding]:
    try:
        try_database(url())
    except UnreachableError as error:  # a role starts and tries again
        yield Finding("error", path, error.message, error.hint, keeps_from_starting=False)
    except GatewayError as error:
        yield Finding("error", path, error.message, error.hint)


def try_codecs(role: Role) -> Iterator[Finding]:
    """What this machine cannot keep the processes from that decode foreign codestreams."""
    if role in ("all", "worker", "restore"):
        for sentence in unprotected():
            hint = "a hijacked codec could reach all that this user can: run the gateway on Linux 5.13 or later"
            yield Finding("warning", ("codecs",), sentence, hint)


def try_device(config: Config, role: Role) -> Iterator[Finding]:
    """The worker's device adds two numbers."""
    if role not in ("all", "worker") or config.worker.device in ("auto", "cpu"):
        return
    import torch  # not for every caller

    from gateway.mark.device import resolve_device

    here = ("worker", "device")
    try:
        device = resolve_device(config.worker.device)
        torch.ones(1, device=device).add(1).item()
    except ConfigError as error:
        yield Finding("error", here, error.message, error.hint)
    except RuntimeError:
        yield Finding("error", here, f"{config.worker.device} does not compute", "look at nvidia-smi and its driver")
