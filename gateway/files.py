"""Files in, files out: `protect` and `restore` on the command line, by the same steps as the network path.

Protecting keeps a flow of its own in a private folder below the state folder, so that a running worker does not take
the work over; sealed originals and records go to the site's vault. Input files are never changed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.config.models import Route
from gateway.database import InstanceRow, open_database, reading, sqlite_url
from gateway.dicom.encoded import read_header
from gateway.dicom.part10 import FileMeta, split_part10, write_part10
from gateway.dicom.private import read_block
from gateway.errors import DicomError, GatewayError, NotFoundError, PermanentError
from gateway.flow.ports import Outgoing, ReceivedFacts
from gateway.flow.receive import SpoolReceiver
from gateway.flow.steps import Steps
from gateway.flow.store import HELD, RECEIVED, SEALED, FlowStore, lease_owner
from gateway.keys.keyring import SealingKeys
from gateway.service import build_restorer, build_rooms, database, places

BATCH = 8
FILES_AE = "FILES"


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    outcome: ``marked``, ``remapped`` (its references name marked copies now), ``restored``, ``held`` (does not leave;
    nothing was written), ``refused`` (not ours to mark or restore) or ``failed``.
    """

    path: Path
    outcome: Literal["marked", "remapped", "restored", "held", "refused", "failed"]
    output: Path | None = None
    sop_instance_uid: str = ""
    reason_code: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """An input file and its name below the output folder."""

    path: Path
    relative: Path


def find_files(paths: Sequence[Path]) -> list[Found]:
    """All files named by `paths`, folders searched in depth, in a stable order."""
    found: list[Found] = []
    for path in paths:
        if path.is_dir():
            found += [Found(file, file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file()]
        else:
            found.append(Found(path, Path(path.name)))
    return found


def protect_files(config: Config, paths: Sequence[Path], out: Path, route: Route | None = None) -> Iterator[FileResult]:
    """Mark files into `out` and seal their originals in the site's vault; yields one result a file, in batches.

    Parameters
    ----------
    route
        The route whose policy holds; default: the first route that marks.
    """
    route = route or next((r for r in config.routes if r.action == "mark"), None)
    if route is None:
        raise GatewayError("no-route", "the configuration has no route that marks", "add a [[routes]] table")
    folder = Path(tempfile.mkdtemp(prefix="files-", dir=places(config).state))  # mode 0700
    try:
        engine = open_database(sqlite_url(folder / "flow.sqlite"))
        store = FlowStore(engine, lease_owner())
        writer = _FolderSender(out)
        local = route.model_copy(update={"called_ae": FILES_AE, "destinations": (writer.name,)})
        config = config.model_copy(update={"routes": (local,)})
        keys = SealingKeys.load(config.keys)
        rooms = build_rooms(config, keys, store, database(config), AuditLog(places(config).audit("files")), folder)
        receiver = SpoolReceiver(config.ingress, config.routes, rooms.spool, folder, store)
        steps = Steps(rooms)
        files = find_files(paths)
        for start in range(0, len(files), BATCH):
            yield from _protect_batch(files[start : start + BATCH], receiver, store, steps, writer, engine)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _protect_batch(files, receiver, store, steps, sender, engine) -> Iterator[FileResult]:
    waiting: dict[str, Found] = {}
    for file in files:
        try:
            waiting[_receive(file.path, receiver)] = file
        except (GatewayError, OSError) as error:
            yield _refusal(file.path, error)
    for row in store.claim(RECEIVED, BATCH, 3600):
        steps.seal(row)
    steps.mark(store.claim(SEALED, BATCH, 3600))
    sender.relative = {instance: file.relative for instance, file in waiting.items()}
    for delivery, row in store.claim_deliveries(sender.name, BATCH, 3600):
        steps.deliver(delivery, row, sender, lambda attempt: 0.0)
    with reading(engine) as session:
        for instance, file in waiting.items():
            row = session.get(InstanceRow, instance)
            if row.state == HELD:
                yield FileResult(file.path, "held", None, row.sop_instance_uid, row.reason_code, row.reason)
            elif instance in sender.written:
                uid, output = sender.written[instance]
                yield FileResult(file.path, "remapped" if row.action == "remap" else "marked", output, uid)
            else:
                yield FileResult(file.path, "failed", None, row.sop_instance_uid, row.reason_code, row.reason)


def _receive(path: Path, receiver: SpoolReceiver) -> str:
    with open(path, "rb") as file:
        meta, offset = split_part10(file)
        if not (meta.sop_class_uid and meta.sop_instance_uid):  # a bare data set, or one with half a File Meta
            header = read_header(file, meta.transfer_syntax_uid)
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
            return incoming.commit()
        except BaseException:
            incoming.abort()
            raise


class _FolderSender:
    """Delivers into a folder: `gateway.flow.ports.Sender` for files."""

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.relative: dict[str, Path] = {}
        self.written: dict[str, tuple[str, Path]] = {}

    def send(self, destination: str, item: Outgoing) -> int:
        """Write one Part 10 file (PS3.10 7.1); an existing file is replaced whole or not at all."""
        path = self._folder / self.relative[item.instance_id]
        try:
            with item.open() as data:
                _write_file(path, item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid, data)
        except OSError as error:
            raise PermanentError("cannot-write", f"cannot write the output: {error.strerror}") from None
        self.written[item.instance_id] = (item.sop_instance_uid, path)
        return 0x0000


def restore_files(config: Config, paths: Sequence[Path], out: Path) -> Iterator[FileResult]:
    """Write the originals of marked files into `out`; yields one result a file."""
    restorer = build_restorer(config)
    for file in find_files(paths):
        try:
            yield _restore(file, restorer, out)
        except (GatewayError, OSError) as error:
            yield _refusal(file.path, error)


def _restore(file: Found, restorer, out: Path) -> FileResult:
    with open(file.path, "rb") as source:
        meta, offset = split_part10(source)
        source.seek(offset)
        header = read_header(source, meta.transfer_syntax_uid)
    block = read_block(header.dataset)
    if block is not None:
        original = restorer.by_token(block.token, header.sop_instance_uid)
    else:
        original = restorer.by_derived_uid(header.sop_instance_uid)  # an archive on the way dropped private tags
    path = out / file.relative
    with original:
        original.verify()
        _write_file(
            path, original.sop_class_uid, original.sop_instance_uid, original.transfer_syntax_uid, original.stream()
        )
    return FileResult(file.path, "restored", path, original.sop_instance_uid)


def _write_file(path: Path, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, chunks) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        partial = Path(file.name)
        try:
            write_part10(file, sop_class_uid, sop_instance_uid, transfer_syntax_uid, chunks)
            file.flush()
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _refusal(path: Path, error: GatewayError | OSError) -> FileResult:
    if isinstance(error, OSError):
        return FileResult(path, "failed", None, "", "cannot-read-or-write", error.strerror or type(error).__name__)
    outcome = "refused" if isinstance(error, DicomError | NotFoundError) else "failed"
    return FileResult(path, outcome, None, "", error.code, str(error))
