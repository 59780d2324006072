"""Storage commitment: what destinations are asked for, where they report, and which archives may ask us."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.base import Address, AETitle, Host, Model, Port
from gateway.config.tls import Tls

COMMIT_STATEMENT = "archives may delete what only marked copies carry or whose retention ends"
DELIVERED_STATEMENT = "archives may delete what destinations have received and not committed to keep"


class Commitment(Model):
    """Where destinations report what they have committed to keep; the worker listens there."""

    host: str = "127.0.0.1"
    port: Port = 11114
    tls: Tls | None = None  # of this port, and of reports that go to archives over TLS
    request_within_s: Annotated[float, Field(gt=0)] = 86_400  # then an archive is answered as it stands
    max_waiting: Annotated[int, Field(ge=1)] = 1000  # requests of one archive that wait for their answer


class Reports(Model):
    """Where a peer of the ingress, which then may ask for storage commitment, gets the report."""

    host: Host
    port: Port
    calling_ae: AETitle = "MIAD_GATEWAY"  # our own, as the peer knows who reports
    tls: bool = False  # with the certificate of [commitment.tls]


class AskedCommitment(Model):
    """That a destination is asked to commit to keep what was sent to it."""

    addresses: tuple[Address, ...] = ()  # from which it reports; empty: its host, where that is an address
    after_s: Annotated[float, Field(ge=0)] = 30  # from delivery to the request, so that one request names many
    most: Annotated[int, Field(ge=1, le=10_000)] = 500  # instances of a request
    wait_s: Annotated[float, Field(ge=0)] = 5  # for a report on the association of the request
    report_within_s: Annotated[float, Field(ge=1)] = 3600  # then it is asked again, under a new transaction UID
    retry_first_s: Annotated[float, Field(gt=0)] = 60
    retry_longest_s: Annotated[float, Field(gt=0)] = 3600
    deliver_again: Annotated[int, Field(ge=0)] = 3  # times that what it does not commit is sent again; then it is held
