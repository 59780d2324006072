"""Marked files in, their exact originals out; the audit has it on disk before the first byte of an original does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.audit import AuditLog, audited, events
from gateway.config import Config, default_state_folder
from gateway.dicom.encoding.part10 import split_part10
from gateway.errors import GatewayError
from gateway.files.inputs import Input, Inputs
from gateway.files.output import OutputFolder
from gateway.files.results import FileResult, refusal
from gateway.restore import CopyRestorer, Restorer
from gateway.service import Places, build_copy_restorer, build_restorer, places

OPERATOR = "operator"  # whose audit tells of what is done at the command line


def restore_files(config: Config, inputs: Inputs, out: Path) -> Iterator[FileResult]:
    """Write the originals of marked files into `out`; yields one result an input.

    Raises
    ------
    ConfigError
        "output-among-originals", or a private key that cannot be used.
    CapacityError
        "audit-full": the audit trail, `<state>/audit/operator.jsonl`, cannot be written; nothing was restored.
    """
    audit = AuditLog(places(config).audit(OPERATOR))

    def make_restorer() -> Restorer:
        restorer = build_restorer(config)
        if restorer.begins_list():  # the restore role will not miss what is begun here
            audited(audit, events.RECORD_CHANGED, "failure", reason="list-begun")
        return restorer

    yield from _restore_all(make_restorer, audit, inputs, out)


def restore_copies(private_key: Path, signers: Sequence[Path], inputs: Inputs, out: Path) -> Iterator[FileResult]:
    """As `restore_files`, from nothing but the files and these keys: for copies that carry their originals.

    There is no site whose audit could tell of it: this user's own, in the local state folder, does.

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
    audit = AuditLog(Places(default_state_folder()).audit(OPERATOR))
    yield from _restore_all(lambda: build_copy_restorer(private_key, signers), audit, inputs, out)


def _restore_all(
    make_restorer: Callable[[], Restorer | CopyRestorer], audit: AuditLog, inputs: Inputs, out: Path
) -> Iterator[FileResult]:
    folder = OutputFolder(out, inputs)
    restorer = make_restorer()
    audited(audit, events.KEY_USED, "success", operation="restore", count=len(inputs.found))
    for found in inputs.found:
        try:
            yield _restore(found, restorer, folder, audit)
        except (GatewayError, OSError) as error:
            yield refusal(found, error)


def _restore(found: Input, restorer: Restorer | CopyRestorer, folder: OutputFolder, audit: AuditLog) -> FileResult:
    with found.open() as source:
        meta, offset = split_part10(source)
        source.seek(offset)
        original = restorer.by_copy(source, meta.transfer_syntax_uid)
    with original:
        original.verify()
        what = {"operation": "restore", "locator": original.locator, "sop_instance_uid": original.sop_instance_uid}
        audited(audit, events.RESTORE_INTENDED, "success", **what)
        try:
            path = folder.write(
                found.relative,
                original.sop_class_uid,
                original.sop_instance_uid,
                original.transfer_syntax_uid,
                original.stream(),
            )
        except (GatewayError, OSError):
            audited(audit, events.ORIGINAL_RESTORED, "failure", **what)
            raise
        audited(audit, events.ORIGINAL_RESTORED, "success", bit_exact=True, **what)
    return FileResult(found.path, "restored", path, original.sop_instance_uid, member=found.member)
