"""How the roles are put together from a configuration, and how they run as processes.

    serve("all")      a supervisor that starts those below as processes of their own and starts them again
    serve("ingress")  C-STORE SCP -> spool                     spool key
    serve("worker")   spool -> vault, marked copies, delivery   spool, UID, mark and signing keys; public restore key
    serve("restore")  vault -> authorized workstations         the private restore key, and no other secret
    serve("page")     rows -> browsers and Prometheus          no key at all

Only `serve("restore")` ever reads the private restore key (architecture, promise 6).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateway.service.link import Link
from gateway.service.places import Places, database, places

if TYPE_CHECKING:
    from gateway.service.run import serve, source_of
    from gateway.service.supervisor import Supervisor
    from gateway.service.wiring import build_copy_restorer, build_reports, build_restorer, build_step_context
    from gateway.service.wishes import Wishes

__all__ = [
    "Link",
    "Places",
    "Supervisor",
    "Wishes",
    "build_copy_restorer",
    "build_reports",
    "build_restorer",
    "build_step_context",
    "database",
    "places",
    "serve",
    "source_of",
]

_MODULES = {"Supervisor": "supervisor", "Wishes": "wishes", "serve": "run", "source_of": "run"}


def __getattr__(name: str) -> Any:
    """What a command that asks where files lie need not load: the roles, and what they are made of."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'wiring')}"), name)
