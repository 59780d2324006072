"""A workstation: a C-GET client (PS3.4 C.4.3) that keeps the bytes it receives, with or without TLS."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import build_context, build_role

from gateway.config.models import Tls
from gateway.demo.site import LOOPBACK
from gateway.errors import GatewayError
from gateway.network import settings
from gateway.network.tls import client_context

STUDY_ROOT_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")  # Study Root Query/Retrieve Information Model - GET, PS3.4 C.6.2
TIMEOUT_S = 60.0
SUCCESS = 0x0000


@dataclass(frozen=True)
class Received:
    """One instance as it came over the network: the data set's bytes, untouched."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the data set, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Wanted:
    """What to retrieve: the unique keys of the IMAGE level; SOP and series UID may be original or derived."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


class Workstation:
    """A C-GET client under one AE title.

    Parameters
    ----------
    ae_title
        Its own.
    tls
        Its certificate, key and trust; None: a plain connection.
    kinds
        (SOP class, transfer syntax) pairs that it takes; at most 127, one presentation context each.
    """

    def __init__(self, ae_title: str, kinds: Iterable[tuple[str, str]], tls: Tls | None = None) -> None:
        settings.apply()
        self._tls = tls
        self._kinds = sorted(set(kinds))
        self._ae = AE(ae_title)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = TIMEOUT_S

    def get(self, called: str, port: int, items: Sequence[Wanted]) -> list[Received | None]:
        """Retrieve instances over one association, one C-GET for each; None for what did not come as one instance.

        Raises
        ------
        GatewayError
            Code ``demo-not-connected``: there is no association, or it ended early.
        """
        arrived: list[Received] = []
        association = self._associate(called, port, arrived)
        if not association.is_established:
            raise GatewayError("demo-not-connected", f"{called} did not accept {self._ae.ae_title}")
        answers: list[Received | None] = []
        try:
            for item in items:
                arrived.clear()
                for status, _ in association.send_c_get(_identifier(item), STUDY_ROOT_GET):
                    if not status:
                        raise GatewayError("demo-not-connected", f"{called} ended the association")
                answers.append(arrived[0] if len(arrived) == 1 else None)
        finally:
            association.release()
        return answers

    def is_refused(self, called: str, port: int) -> bool:
        """Whether the peer answers with A-ASSOCIATE-RJ (PS3.8 9.3.4); a peer that is not there refuses nobody."""
        association = self._associate(called, port, [])
        if association.is_established:
            association.release()
        return association.is_rejected

    def _associate(self, called: str, port: int, received: list[Received]) -> Association:
        contexts = [build_context(STUDY_ROOT_GET)]
        contexts += [build_context(sop_class, syntax) for sop_class, syntax in self._kinds]
        roles: list[Any] = [
            build_role(UID(sop_class), scp_role=True) for sop_class in sorted({kind[0] for kind in self._kinds})
        ]
        secure: tuple[ssl.SSLContext, str] | None = (client_context(self._tls), LOOPBACK) if self._tls else None
        return self._ae.associate(
            LOOPBACK,
            port,
            contexts=contexts,
            ae_title=called,
            ext_neg=roles,
            evt_handlers=[(evt.EVT_C_STORE, _keep, [received])],
            tls_args=secure,
        )


def _identifier(item: Wanted) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = item.study_uid
    identifier.SeriesInstanceUID = item.series_uid
    identifier.SOPInstanceUID = item.sop_instance_uid
    return identifier


def _keep(event: Event, received: list[Received]) -> int:
    """A C-STORE sub-operation: the bytes as they came, never decoded."""
    request = event.request
    assert isinstance(request, C_STORE)  # EVT_C_STORE's
    received.append(
        Received(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            data=event.encoded_dataset(include_meta=False),
        )
    )
    return SUCCESS
