"""What is wrong with the balancers of a configuration: whom a role believes when they say who a connection is from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from gateway.config.duties import Role
from gateway.config.finding import Finding
from gateway.config.models import Config


def balancer_findings(config: Config, role: Role) -> Iterator[Finding]:
    """A network that holds every machine: any client could write a header, and name any address."""
    tables = [("ingress", config.ingress.balancers)] if role in ("all", "ingress") else []
    if config.restore is not None and role in ("all", "restore"):
        tables.append(("restore", config.restore.balancers))
    for table, balancers in tables:
        for index, address in enumerate(balancers):
            if ipaddress.ip_network(address, strict=False).prefixlen == 0:
                message = f"{address} lets any machine say which address it calls from"
                yield Finding("error", (table, "balancers", index), message, "list the balancers' own addresses")
