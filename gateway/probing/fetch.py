"""Fetching the probe back from the destination, by Query/Retrieve (PS3.4 Annex C): C-FIND, C-GET, or C-MOVE to here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role

from gateway.config import Destination
from gateway.errors import TransientError
from gateway.network.tls import client_context
from gateway.probing.instance import SOP_CLASS, Probe

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))  # Study Root
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.91",
)
PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True)
class Where:
    """Where to ask for it: the destination itself, or the Query/Retrieve side that it names.

    move_port: a port of ours to which it sends by C-MOVE, where it knows our AE title with it; None: no C-MOVE.
    """

    destination: Destination
    ae_title: str
    host: str
    port: int
    move_port: int | None = None


def fetch(where: Where, probe: Probe, patience_s: float = 15.0) -> bytes:
    """The probe as a DICOM file; an archive may take a while until it knows it.

    Raises
    ------
    TransientError
        ``unreachable``: nobody answers; ``not-offered``: it offers neither C-GET nor C-MOVE to us; ``not-found``.
    """
    deadline = time.monotonic() + patience_s
    ways: list[Callable[[Where, Dataset], bytes | None]] = [_get]
    if where.move_port is not None:
        ways.append(_move)
    while True:
        keys = _found(where, probe)
        for way in ways:
            if keys is not None and (data := way(where, keys)) is not None:
                return data
        if time.monotonic() >= deadline:
            message = f"{where.destination.name} took the probe, and does not give it back by Query/Retrieve"
            raise TransientError("not-found", message, "fetch it by other means, then: probe ... --returned FILE")
        time.sleep(1.0)


def _found(where: Where, probe: Probe) -> Dataset | None:
    """The UIDs under which it is known: its own, or what its study has got; its own where C-FIND is not offered."""
    own = Dataset()
    own.QueryRetrieveLevel = "STUDY"
    own.StudyInstanceUID = probe.uid("StudyInstanceUID")
    for key, value in (("StudyInstanceUID", own.StudyInstanceUID), ("PatientID", probe.patient_id)):
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID, query.PatientID = "STUDY", "", ""
        setattr(query, key, value)
        with _associated(where, [build_context(FIND)]) as association:
            if association is None:
                return own
            for status, answer in association.send_c_find(query, FIND):
                if status and status.Status in PENDING and answer and answer.get("StudyInstanceUID"):
                    own.StudyInstanceUID = answer.StudyInstanceUID
                    return own
    return None


def _get(where: Where, keys: Dataset) -> bytes | None:
    got: list[bytes] = []
    contexts = [build_context(GET), build_context(SOP_CLASS, list(SYNTAXES))]
    with _associated(where, contexts, GET, got, build_role(SOP_CLASS, scp_role=True)) as association:
        if association is None:
            return None
        for _ in association.send_c_get(keys, GET):
            pass
    return got[0] if got else None


def _move(where: Where, keys: Dataset) -> bytes | None:
    got: list[bytes] = []
    ae = ApplicationEntity(where.destination.calling_ae)
    ae.add_supported_context(SOP_CLASS, list(SYNTAXES))
    server = ae.start_server(("", where.move_port or 0), block=False, evt_handlers=[(evt.EVT_C_STORE, _keep(got))])
    assert server is not None  # as block=False gives one
    try:
        with _associated(where, [build_context(MOVE)]) as association:
            if association is None:
                return None
            for _ in association.send_c_move(keys, where.destination.calling_ae, MOVE):
                pass
    finally:
        server.shutdown()
    return got[0] if got else None


def _keep(got: list[bytes]) -> Callable[[Any], int]:
    def store(event: Any) -> int:
        got.append(event.encoded_dataset())
        return 0x0000

    return store


@contextmanager
def _associated(
    where: Where, contexts: list[Any], needed: str = "", got: list[bytes] | None = None, role: Any = None
) -> Iterator[Association | None]:
    """An association; None where it accepts nothing of what is asked for, or not `needed`."""
    to, handlers = where.destination, [(evt.EVT_C_STORE, _keep(got))] if got is not None else []
    ae = ApplicationEntity(to.calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = to.response_timeout_s
    ae.connection_timeout = to.connect_timeout_s
    ae.requested_contexts = contexts
    association = ae.associate(
        where.host,
        where.port,
        ae_title=where.ae_title,
        ext_neg=[role] if role else None,
        evt_handlers=handlers,  # type: ignore[arg-type]
        tls_args=(client_context(to.tls), where.host) if to.tls else None,
    )
    try:
        accepted = {one.abstract_syntax for one in association.accepted_contexts}
        yield association if association.is_established and (not needed or needed in accepted) else None
    finally:
        if association.is_established:
            association.release()
