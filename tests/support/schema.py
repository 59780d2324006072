"""New SQLite databases of a test process begin as a copy of one that the migrations made.

A suite opens a thousand of them, and the migrations take longer than most tests of what stands in the tables. Whether a
copy has the newest schema is asked of Alembic as ever: it would bring an older one up to date.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from gateway.database import engine as database

_lock = threading.Lock()


def copy_new_databases(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have the migrations make one database in `folder`, and every other new one of this process be its copy."""
    made = folder / "made.sqlite"
    database.open_database(database.sqlite_url(made)).dispose()
    migrate = database.migrate

    def copy_and_migrate(engine: Engine, *more: Any) -> None:
        path = Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
        with _lock:
            if path and path.is_file() and not path.stat().st_size:
                shutil.copyfile(made, path)
        migrate(engine, *more)

    patch.setattr(database, "migrate", copy_and_migrate)
