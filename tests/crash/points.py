"""The named points at which a process is killed: before or after one call of one function of the product.

Order: what tells most comes first, since a short campaign takes its points from the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Point:
    """`target` is ``module:Class.method`` or ``module:function``; only a process of `role` is killed there."""

    name: str
    role: Literal["ingress", "worker"]
    target: str
    when: Literal["before", "after"]


_SPOOL, _STORE, _VAULT = "gateway.flow.spool", "gateway.flow.store", "gateway.vault"

POINTS = (
    Point("received: row committed, success not said", "ingress", f"{_STORE}:FlowStore.add_received", "after"),
    Point("marked: digest fixed, row not", "worker", f"{_VAULT}.records:RecordStore.fix_derived", "after"),
    Point("delivered: destination answered, row not", "worker", "gateway.network.egress:Egress.send", "after"),
    Point("sealed: record made, payload not", "worker", f"{_VAULT}.records:RecordStore.create", "after"),
    Point("marked: file published, digest not", "worker", f"{_SPOOL}:SpoolWriter.publish", "after"),
    Point("received: file published, row not", "ingress", f"{_SPOOL}:SpoolWriter.publish", "after"),
    Point("sealed: payload put, row not", "worker", f"{_VAULT}.payloads:PayloadStore.put", "after"),
    Point("received: file partial", "ingress", f"{_SPOOL}:SpoolWriter.write", "after"),
    Point("marked: row committed", "worker", f"{_STORE}:FlowStore.marked", "after"),
    Point("delivered: row committed, spool not purged", "worker", f"{_STORE}:FlowStore.sent", "after"),
    Point("received: file complete, not published", "ingress", f"{_SPOOL}:SpoolWriter.publish", "before"),
    Point("sealed: payload renamed, folder not synced", "worker", f"{_VAULT}.payloads:PayloadStore._sync", "before"),
    Point("sealed: row committed", "worker", f"{_STORE}:FlowStore.sealed", "after"),
    Point("marked: file renamed, folder not synced", "worker", f"{_SPOOL}:sync_folder", "before"),
    Point("delivered: spool purged, row says not", "worker", f"{_SPOOL}:Spool.delete", "after"),
    Point("received: file renamed, folder not synced", "ingress", f"{_SPOOL}:sync_folder", "before"),
    Point("sealed: payload half written", "worker", f"{_VAULT}.sealed:ChunkedWriter.close", "before"),
    Point("marked: file complete, not published", "worker", f"{_SPOOL}:SpoolWriter.publish", "before"),
    Point("sealed: claimed", "worker", f"{_STORE}:FlowStore.claim", "after"),
    Point("delivered: claimed", "worker", f"{_STORE}:FlowStore.claim_deliveries", "after"),
    Point("delivered: about to send", "worker", "gateway.network.egress:Egress.send", "before"),
    Point("delivered: all done", "worker", f"{_STORE}:FlowStore.forget_spool_file", "after"),
)
