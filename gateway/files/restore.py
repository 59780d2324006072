"""Marked files in, their exact originals out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.config import Config
from gateway.dicom.encoding.part10 import split_part10
from gateway.errors import GatewayError
from gateway.files.inputs import Input, Inputs
from gateway.files.output import OutputFolder
from gateway.files.results import FileResult, refusal
from gateway.service import build_copy_restorer, build_restorer


def restore_files(config: Config, inputs: Inputs, out: Path) -> Iterator[FileResult]:
    """Write the originals of marked files into `out`; yields one result an input.

    Raises
    ------
    ConfigError
        "output-among-originals", or a private key that cannot be used.
    """
    yield from _restore_all(lambda: build_restorer(config), inputs, out)


def restore_copies(private_key: Path, signers: Sequence[Path], inputs: Inputs, out: Path) -> Iterator[FileResult]:
    """As `restore_files`, from nothing but the files and these keys: for copies that carry their originals.

    Parameters
    ----------
    private_key
        PEM file of the restore role's private key.
    signers
        PEM files of the public keys whose signatures are believed.

    Raises
    ------
    ConfigError
        "output-among-originals", or a key that cannot be used.
    """
    yield from _restore_all(lambda: build_copy_restorer(private_key, signers), inputs, out)


def _restore_all(make_restorer: Callable, inputs: Inputs, out: Path) -> Iterator[FileResult]:
    folder = OutputFolder(out, inputs)
    restorer = make_restorer()
    for found in inputs.found:
        try:
            yield _restore(found, restorer, folder)
        except (GatewayError, OSError) as error:
            yield refusal(found, error)


def _restore(found: Input, restorer, folder: OutputFolder) -> FileResult:
    with found.open() as source:
        meta, offset = split_part10(source)
        source.seek(offset)
        original = restorer.by_copy(source, meta.transfer_syntax_uid)
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
