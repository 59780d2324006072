"""Files in, marked files out, originals sealed.

Protecting keeps a flow of its own in a private folder below the state folder, so that a running worker does not take
the work over; sealed originals and records go to the site's vault.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.config.models import Route
from gateway.database import InstanceRow, open_database, reading, sqlite_url
from gateway.dicom.encoding import notes
from gateway.dicom.encoding.encoded import differs_from_meta, read_header
from gateway.dicom.encoding.part10 import FileMeta, split_part10
from gateway.errors import GatewayError, PermanentError
from gateway.files.inputs import Input, Inputs
from gateway.files.output import OutputFolder
from gateway.files.results import FileResult, Outcome, refusal
from gateway.flow.ports import Outgoing, ReceivedFacts
from gateway.flow.receive import SpoolReceiver
from gateway.flow.segments.reclaim import Reclaimer
from gateway.flow.steps import Steps
from gateway.flow.store import HELD, RECEIVED, FlowStore, lease_owner
from gateway.keys.keyring import SealingKeys
from gateway.service import build_step_context, database, places

BATCH = 8
FILES_AE = "FILES"


def protect_files(config: Config, inputs: Inputs, out: Path, route: Route | None = None) -> Iterator[FileResult]:
    """Mark files into `out` and seal their originals in the site's vault; yields one result an input, in batches.

    Parameters
    ----------
    route
        The route whose policy holds; default: the first route that marks.

    Raises
    ------
    ConfigError
        "output-among-originals", or keys that cannot be used.
    """
    route = route or next((r for r in config.routes if r.action == "mark"), None)
    if route is None:
        raise GatewayError("no-route", "the configuration has no route that marks", "add a [[routes]] table")
    output = OutputFolder(out, inputs)
    folder = Path(tempfile.mkdtemp(prefix="files-", dir=places(config).state))  # mode 0700
    receiver = None
    try:
        engine = open_database(sqlite_url(folder / "flow.sqlite"))
        store = FlowStore(engine, lease_owner())
        writer = _FolderSender(output)
        local = route.model_copy(update={"called_ae": FILES_AE, "destinations": (writer.name,)})
        config = config.model_copy(update={"routes": (local,)})
        keys = SealingKeys.load(config.keys)
        context = build_step_context(
            config, keys, store, database(config), AuditLog(places(config).audit("files")), folder
        )
        receiver = SpoolReceiver(config.ingress, config.routes, context.spool, store)
        steps = Steps(context)
        for start in range(0, len(inputs.found), BATCH):
            yield from _protect_batch(inputs.found[start : start + BATCH], receiver, context, steps, writer, engine)
    finally:
        if receiver is not None:
            receiver.close()
        shutil.rmtree(folder, ignore_errors=True)


def _protect_batch(files, receiver, context, steps, sender, engine) -> Iterator[FileResult]:
    waiting: dict[str, Input] = {}
    noted: dict[str, tuple[str, ...]] = {}
    for file in files:
        try:
            instance, noted_of = _receive(file, receiver)
            waiting[instance], noted[instance] = file, noted_of
        except (GatewayError, OSError) as error:
            yield refusal(file, error)
    receiver.roll()
    steps.seal(context.store.claim(RECEIVED, BATCH, 3600))
    while rows := context.store.claim_batch(BATCH, 3600):
        steps.mark(rows)
    sender.relative = {instance: file.relative for instance, file in waiting.items()}
    steps.deliver(context.store.claim_deliveries(sender.name, BATCH, 3600), sender, lambda kind, attempt: 0.0)
    with reading(engine) as session:
        rows = {instance: session.get_one(InstanceRow, instance) for instance in waiting}
    _forget(context, rows)
    for instance, file in waiting.items():
        if rows[instance].state == HELD:
            yield _not_marked(file, "held", rows[instance], noted[instance])
        elif instance in sender.written:
            uid, output = sender.written.pop(instance)
            outcome: Outcome = "remapped" if rows[instance].action == "remap" else "marked"
            yield FileResult(file.path, outcome, output, uid, member=file.member, notes=noted[instance])
        else:
            yield _not_marked(file, "failed", rows[instance], noted[instance])


def _forget(context, rows: Mapping[str, InstanceRow]) -> None:
    """Delete what the flow still holds of a batch, so that a large archive needs the disk of a batch only."""
    for row in rows.values():
        for spool, name in ((context.spool, row.spool_file), (context.derived, row.derived_file)):
            if name:
                spool.delete(name)
    context.store.forget_spool_file(list(rows))
    Reclaimer(context.spool, context.store).once()


def _not_marked(
    file: Input, outcome: Literal["held", "failed"], row: InstanceRow, noted: tuple[str, ...]
) -> FileResult:
    uid = row.sop_instance_uid
    return FileResult(file.path, outcome, None, uid, row.reason_code or "", row.reason or "", file.member, noted)


def _receive(found: Input, receiver: SpoolReceiver) -> tuple[str, tuple[str, ...]]:
    """Take a file in under the UIDs of its data set; returns the instance id and what is to be noted of the file."""
    with found.open() as file:
        meta, offset = split_part10(file)
        header = read_header(file, meta.transfer_syntax_uid)
        noted = (*header.notes, *((notes.FILE_META,) if differs_from_meta(header, meta) else ()))
        meta = FileMeta(meta.transfer_syntax_uid, header.sop_class_uid, header.sop_instance_uid)
        receiver.admit(FILES_AE, FILES_AE, meta.sop_class_uid)
        incoming = receiver.begin(
            ReceivedFacts(
                calling_ae=FILES_AE,
                called_ae=FILES_AE,
                peer_address="",
                association_id="",
                sop_class_uid=meta.sop_class_uid,
                sop_instance_uid=meta.sop_instance_uid,
                transfer_syntax_uid=meta.transfer_syntax_uid,
            )
        )
        try:
            file.seek(offset)
            while data := file.read(1 << 20):
                incoming.write(data)
            return incoming.commit(), noted
        except BaseException:
            incoming.abort()
            raise


class _FolderSender:
    """Delivers into a folder: `gateway.flow.ports.Sender` for files."""

    name = "folder"

    def __init__(self, output: OutputFolder) -> None:
        self._output = output
        self.relative: dict[str, Path | None] = {}
        self.written: dict[str, tuple[str, Path]] = {}

    def at_a_time(self, destination: str) -> int:
        """One file."""
        return 1

    def send(self, destination: str, item: Outgoing) -> int:
        """Write one file."""
        try:
            with item.open() as data:
                path = self._output.write(
                    self.relative[item.instance_id],
                    item.sop_class_uid,
                    item.sop_instance_uid,
                    item.transfer_syntax_uid,
                    data,
                )
        except OSError as error:
            raise PermanentError("cannot-write", f"cannot write the output: {error.strerror}") from None
        self.written[item.instance_id] = (item.sop_instance_uid, path)
        return 0x0000
