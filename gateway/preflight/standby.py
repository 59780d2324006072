"""With durability ``cluster``: whether the database's server waits for a standby, and flushes."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config import Config
from gateway.database.standby import alone, server_settings
from gateway.errors import GatewayError
from gateway.preflight.examined import Examined

_FLUSHES = ("fsync", "full_page_writes")


def examine_standby(config: Config) -> Iterator[Examined]:
    """What the server says of itself; that it answers at all, others tell."""
    if config.durability == "disk":
        return
    where = "durability"
    try:
        settings = server_settings(config.database_url)
    except GatewayError as error:
        if error.code == "not-postgresql":
            yield Examined("database", "error", where, error.message, error.hint)
        return
    names = settings["synchronous_standby_names"].strip()
    if without := alone(names):
        yield Examined(
            "database",
            "error",
            where,
            f"{without.message}, and durability is cluster: nothing is received",
            without.hint,
        )
    else:
        yield Examined("database", "ok", where, f"commits wait for a standby ({names})")
    for name in _FLUSHES:
        if settings[name] != "on":
            message = f"the database's server has {name} = {settings[name]}: a power cut may take what was acknowledged"
            yield Examined("database", "error", f"{where}: {name}", message, f"set {name} = on, on its standbys too")
