"""The configuration of `protect` and `restore` on one machine without a file: no network, one route "local"."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.config.load import make_absolute
from gateway.config.models import Config, Destination, Route, Site

LOCAL_ROUTE = "local"


def default_state_folder() -> Path:
    """Where this user's local keys and vault lie: ``$XDG_STATE_HOME/miad-gateway``, else under ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path in the variable is to be ignored.
    state = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return state / "miad-gateway"


def default_config(state_folder: Path) -> Config:
    """Settings whose keys lie in ``<state_folder>/keys`` and whose database and vault lie in `state_folder` itself.

    Nothing is made here: keys are the business of ``gateway.keys.generate``. The one destination satisfies the rule
    that a route names one; the file commands write to a folder and never open a connection to it.
    """
    config = Config(
        site=Site(name=LOCAL_ROUTE, state=Path(".")),
        routes=(Route(name=LOCAL_ROUTE, called_ae="LOCAL", destinations=("files",)),),
        destinations=(Destination(name="files", type="external", ae_title="FILES", host="localhost", port=104),),
    )
    return make_absolute(config, state_folder.absolute())
