"""How the roles are put together from a configuration, and how they run as processes.

    serve("all")      a supervisor that starts the three below as processes of their own and starts them again
    serve("ingress")  C-STORE SCP -> spool                     spool key
    serve("worker")   spool -> vault, marked copies, delivery   spool, UID, mark and signing keys; public restore key
    serve("restore")  vault -> authorized workstations         the private restore key, and no other secret

Only `serve("restore")` ever reads the private restore key (architecture, promise 6).
"""

from __future__ import annotations

from gateway.service.places import Places, database, places
from gateway.service.run import ignore_hangup, serve
from gateway.service.supervisor import Supervisor
from gateway.service.wiring import build_copy_restorer, build_reports, build_restorer, build_step_context

__all__ = [
    "Places",
    "Supervisor",
    "build_copy_restorer",
    "build_reports",
    "build_restorer",
    "build_step_context",
    "database",
    "ignore_hangup",
    "places",
    "serve",
]
