"""Marked files in, their exact originals out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.config import Config
from gateway.dicom.encoded import read_header
from gateway.dicom.part10 import split_part10
from gateway.dicom.private import read_block
from gateway.errors import GatewayError
from gateway.files.inputs import Input, Inputs
from gateway.files.output import OutputFolder
from gateway.files.results import FileResult, refusal
from gateway.service import build_restorer


def restore_files(config: Config, inputs: Inputs, out: Path) -> Iterator[FileResult]:
    """Write the originals of marked files into `out`; yields one result an input.

    Raises
    ------
    ConfigError
        "output-among-originals", or a private key that cannot be used.
    """
    folder = OutputFolder(out, inputs)
    restorer = build_restorer(config)
    for found in inputs.found:
        try:
            yield _restore(found, restorer, folder)
        except (GatewayError, OSError) as error:
            yield refusal(found, error)


def _restore(found: Input, restorer, folder: OutputFolder) -> FileResult:
    with found.open() as source:
        meta, offset = split_part10(source)
        source.seek(offset)
        header = read_header(source, meta.transfer_syntax_uid)
    block = read_block(header.dataset)
    if block is not None:
        original = restorer.by_token(block.token, header.sop_instance_uid)
    else:
        original = restorer.by_derived_uid(header.sop_instance_uid)  # an archive on the way dropped private tags
    with original:
        original.verify()
        path = folder.write(
            found.relative,
            original.sop_class_uid,
            original.sop_instance_uid,
            original.transfer_syntax_uid,
            original.stream(),
        )
    return FileResult(found.path, "restored", path, original.sop_instance_uid, member=found.member)
