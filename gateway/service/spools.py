"""Where received and derived files lie, as the configuration's durability says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.service.places import Places, places

if TYPE_CHECKING:
    from gateway.flow.segments.spool import ReceivedSpool
    from gateway.flow.spool import Files, Spool
    from gateway.keys.spoolfile import SpoolCipher


def received_spool(config: Config, cipher: SpoolCipher, folder: Path | None = None) -> ReceivedSpool:
    """Received bytes.

    Parameters
    ----------
    folder
        They lie below it, on this disk, whatever the durability: for what one process takes in and works off by itself.

    Raises
    ------
    ConfigError
        ``not-drained``: durability is ``cluster``, and this disk still holds what was received under ``disk``.
    """
    from gateway.flow.segments.spool import ReceivedSpool
    from gateway.flow.spool import PARTIAL

    here = (Places(folder) if folder else places(config)).spool
    spool = ReceivedSpool(_files(config, "received", here, folder), cipher)
    if config.durability == "cluster" and folder is None:
        left = sum(entry.is_file() and not entry.name.endswith(PARTIAL) for entry in here.iterdir())
        if left:
            message = f"durability is cluster, and {left} files of durability disk lie in {here}"
            hint = 'set durability = "disk" again, let all be delivered, then change it (operations.md, "Durability")'
            raise ConfigError("not-drained", message, hint)
    return spool


def derived_spool(config: Config, cipher: SpoolCipher, folder: Path | None = None) -> Spool:
    """Derived bytes; `folder` as `received_spool`."""
    from gateway.flow.spool import Spool

    here = (Places(folder) if folder else places(config)).derived
    return Spool(_files(config, "derived", here, folder), cipher)


def _files(config: Config, under: str, here: Path, folder: Path | None) -> Files | Path:
    if folder is not None or config.durability == "disk":
        return here
    from gateway.bucket import Bucket
    from gateway.flow.shared import StoreFiles

    assert config.store is not None  # the configuration was checked
    return StoreFiles(Bucket(config.store), under, here)
