"""What must hold after any number of kills, looked at from outside: in the sink's files, and through the restorer."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from sqlalchemy import select

from gateway.database import DeliveryRow, reading
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.private import read_block
from gateway.errors import GatewayError
from gateway.flow.retention import ORPHAN_AGE_S, Retainer
from gateway.flow.states import UNCOMMITTED
from gateway.flow.store import FlowStore, lease_owner
from gateway.keys.keyring import SealingKeys
from gateway.service import build_restorer, build_step_context, database
from tests.crash.archive import received_files
from tests.crash.objects import Instance
from tests.crash.site import KillSite

_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){4,}")


@dataclass(frozen=True)
class Delivered:
    """One file of the sink: UID, SHA-256 of the data set behind the File Meta, of the pixels, whether it has our
    private block, and every UID that stands anywhere in it.
    """

    path: Path
    sop_instance_uid: str
    sha256: str
    pixels_sha256: str
    marked: bool
    uids: frozenset[str]


def data_set_of(path: Path) -> bytes:
    """The bytes behind the File Meta."""
    with path.open("rb") as file:
        _, offset = split_part10(file)
        file.seek(offset)
        return file.read()


def truth(folder: Path) -> dict[str, str]:
    """SOP Instance UID -> SHA-256 of what storescu sends, from the files of a plain bit-preserving `storescp`."""
    found = {}
    for path in received_files(folder):
        with path.open("rb") as file:
            meta, _ = split_part10(file)
        found[meta.sop_instance_uid] = hashlib.sha256(data_set_of(path)).hexdigest()
    return found


def delivered(folder: Path) -> list[Delivered]:
    """Everything that the sink has stored, each copy of it."""
    found = []
    for path in received_files(folder):
        ds = pydicom.dcmread(path)
        found.append(
            Delivered(
                path=path,
                sop_instance_uid=str(ds.SOPInstanceUID),
                sha256=hashlib.sha256(data_set_of(path)).hexdigest(),
                pixels_sha256=hashlib.sha256(ds.PixelData).hexdigest(),
                marked=read_block(ds) is not None,
                uids=frozenset(uid.decode() for uid in _UID.findall(path.read_bytes())),
            )
        )
    return found


def problems_of_sink(sink: Sequence[Delivered], instances: Sequence[Instance]) -> list[str]:
    """Nothing unmarked has left, and no UID names two byte strings."""
    problems = []
    originals = {instance.sop_instance_uid for instance in instances}
    pixels = {instance.pixels_sha256 for instance in instances}
    byte_strings: dict[str, set[str]] = defaultdict(set)
    for item in sink:
        byte_strings[item.sop_instance_uid].add(item.sha256)
        if not item.marked:
            problems.append(f"unmarked: {item.path.name} has no private block")
        if item.pixels_sha256 in pixels:
            problems.append(f"unmarked: {item.path.name} has the pixels of an original")
        if named := item.uids & originals:
            problems.append(f"unmarked: {item.path.name} names original instances {sorted(named)}")
    for uid, digests in byte_strings.items():
        if len(digests) > 1:
            problems.append(f"two byte strings: {uid} has {sorted(digests)}")
    return problems


def problems_of_originals(
    site: KillSite, acknowledged: Sequence[Instance], sink: Sequence[Delivered], sent: dict[str, str]
) -> list[str]:
    """Every acknowledged instance lies marked at the sink, and its original comes back as it was sent."""
    problems = []
    at_sink = {item.sop_instance_uid: item for item in sink}
    restorer = build_restorer(site.config)
    for instance in acknowledged:
        uid = instance.sop_instance_uid
        try:
            with restorer.by_uid(uid) as original:
                original.verify()
                digest = hashlib.sha256(b"".join(original.stream())).hexdigest()
                derived_uid = original.derived_sop_uid
        except GatewayError as error:
            problems.append(f"lost: {uid} does not restore: {error.code}")
            continue
        if digest != sent[uid]:
            problems.append(f"lost: {uid} restores other bytes than were sent")
        if derived_uid not in at_sink:
            problems.append(f"lost: {uid} is not at the sink as {derived_uid}")
        elif at_sink[derived_uid].pixels_sha256 == instance.pixels_sha256:
            problems.append(f"unmarked: {uid} was delivered with its own pixels")
    return problems


def problems_of_site(site: KillSite, sink: Sequence[Delivered]) -> list[str]:
    """Every row delivered, every UID at the sink known, and no file left over once the retention has gone over them."""
    problems = []
    states = site.counts()
    if set(states) != {"delivered"}:
        problems.append(f"not all instances are delivered: {states}")
    config = site.config
    engine = database(config)
    with reading(engine) as session:  # the sink knows no storage commitment: it is asked for ever
        asked_for = {row.commit_state for row in session.scalars(select(DeliveryRow))}
    if not asked_for <= set(UNCOMMITTED):
        problems.append(f"commitments forgotten: {asked_for}")
    keys = SealingKeys.load(config.keys)
    store = FlowStore(engine, lease_owner())
    rooms = build_step_context(config, keys, store, engine, audit=None)
    _age_files(site.state)
    believed = lambda now: True  # noqa: E731
    Retainer(config.retention, store, rooms.spool, rooms.derived, rooms.protector, believed, rooms.audit).once()
    if left := os.listdir(site.state / "spool"):
        problems.append(f"left in the spool: {sorted(left)}")
    for name in ("derived", "vault"):
        if partial := [n for n in os.listdir(site.state / name) if n.endswith(".part") or n.startswith(".")]:
            problems.append(f"left half written in {name}: {sorted(partial)}")
    for item in sink:
        try:
            build_restorer(config).by_derived_uid(item.sop_instance_uid).close()
        except GatewayError as error:
            problems.append(f"unknown: {item.path.name}: {error.code}")
    return problems


def _age_files(state: Path) -> None:
    """Make every file old enough for the sweep of orphans, which spares what may still be under way."""
    then = time.time() - 2 * ORPHAN_AGE_S
    for name in ("spool", "derived", "vault"):
        for entry in os.scandir(state / name):
            os.utime(entry, (then, then))
