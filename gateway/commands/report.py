"""`miad-gateway report`: the protection report of a study, as a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.options import ConfigFile
from gateway.commands.output import say
from gateway.errors import GatewayError, NotFoundError


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID, of originals or copies.")],
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="The file to write, a Comprehensive SR.")],
    config: ConfigFile,
) -> None:
    """Write what was marked of a study, how, and what the mark does not promise; it holds the patient's data."""
    from pydicom.uid import generate_uid

    from gateway import service
    from gateway.config import load_config
    from gateway.dicom.copy.report import SOP_CLASS
    from gateway.dicom.encoding.part10 import write_part10
    from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
    from gateway.keys.keyring import SealingKeys
    from gateway.protect.reporting import Reporter

    settings = load_config(config)
    reporter = Reporter(settings.site, SealingKeys.load(settings.keys), service.database(settings))
    locators = reporter.marked_of_study(study)
    if not locators:
        message = "no image of this study was marked here"
        raise NotFoundError("no-such-study", message, "give the Study Instance UID of the originals or of their copies")
    series_uid, sop_uid = generate_uid(prefix=None), generate_uid(prefix=None)  # of this file alone
    data = reporter.build(locators, series_uid, sop_uid)
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        message = f"cannot write {out}: {error.strerror}"
        raise GatewayError("cannot-write", message, "name a new file in a folder that is there") from None
    with os.fdopen(descriptor, "wb") as file:
        write_part10(file, SOP_CLASS, sop_uid, EXPLICIT_LITTLE, [data])
    say(f"{out}: {len(locators)} marked copies")
