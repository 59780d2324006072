"""Break a site and run the row's command on it, as a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.broken.site import Row, Site
from tests.support.warm import REPOSITORY, Warm


def run_row(row: Row, folder: Path, template: Path, warm: Warm) -> tuple[int, str]:
    """Exit code, and what was said on standard output and error; a configuration without a fault says what it is.

    Raises
    ------
    TimeoutError
        It did not end: a role that starts anew for ever, say.
    """
    site = Site(folder, template)
    (folder / "home").mkdir()
    row.breaks(site)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIAD_", "XDG_"))}
    environment = {**kept, "HOME": str(folder / "home"), "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    words = row.command.split()
    if "MIAD_GATEWAY_CONFIG" not in row.variables:
        words += ["--config", str(site.file)]
    with site.held:
        code, out, err = warm.run(words, folder, {**environment, **row.variables}, 120, rights=row.rights)
    return code, out + err
