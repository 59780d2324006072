"""The database: schema, engine, migrations. It knows rows, not what they mean."""

from gateway.database.engine import changed, migrate, open_database, reading, sqlite_url, transaction, try_database
from gateway.database.tables import (
    Base,
    ClockRow,
    DeliveryRow,
    FiguresRow,
    InstanceRow,
    OverrideRow,
    ReportRow,
    VaultRow,
)

__all__ = [
    "Base",
    "ClockRow",
    "DeliveryRow",
    "FiguresRow",
    "InstanceRow",
    "OverrideRow",
    "ReportRow",
    "VaultRow",
    "changed",
    "migrate",
    "open_database",
    "reading",
    "sqlite_url",
    "transaction",
    "try_database",
]
