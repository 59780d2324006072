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
    seldom: bool = False  # not once an instance: killed there at the first time


_SPOOL, _STORE, _VAULT = "gateway.flow.spool", "gateway.flow.store", "gateway.vault"
_SEGMENTS, _STEPS = "gateway.flow.segments", "gateway.flow.steps"

POINTS = (
    Point("received: flushed, success not said", "ingress", f"{_SEGMENTS}.log:SegmentLog.append", "after"),
    Point("marked: digest fixed, row not", "worker", f"{_VAULT}.records:RecordStore.fix_derived", "after"),
    Point("delivered: destination answered, row not", "worker", "gateway.network.egress:Egress.send", "after"),
    Point("sealed: record made, payload not", "worker", f"{_VAULT}.records:RecordStore.create", "after"),
    Point("marked: file published, digest not", "worker", f"{_SPOOL}:SpoolWriter.publish", "after"),
    Point("received: success said, row not written", "ingress", f"{_STORE}:FlowStore.add_received", "before"),
    Point("received: written, not flushed", "ingress", f"{_SEGMENTS}.file:SegmentFile._flush", "before"),
    Point("sealed: payload put, row not", "worker", f"{_VAULT}.payloads:PayloadStore.put", "after"),
    Point("received: in memory in part", "ingress", f"{_SEGMENTS}.body:Body.write", "after"),
    Point("marked: row committed", "worker", f"{_STEPS}:Steps.mark", "after"),
    Point("marked: all but the rows of a batch", "worker", f"{_STORE}:FlowStore.settle", "before"),
    Point("delivered: row committed, spool not purged", "worker", f"{_STORE}:FlowStore.settle_deliveries", "after"),
    Point("received: flushed, not marked", "ingress", f"{_SEGMENTS}.file:SegmentFile._flush", "after"),
    Point("received: row committed", "ingress", f"{_STORE}:FlowStore.add_received", "after"),
    Point("sealed: payload renamed, folder not synced", "worker", f"{_VAULT}.payloads:PayloadStore._sync", "before"),
    Point("sealed: row committed", "worker", f"{_STEPS}:Steps.seal", "after"),
    Point("marked: file renamed, folder not synced", "worker", f"{_SPOOL}:sync_folder", "before"),
    Point("delivered: spool to be purged, row says not", "worker", f"{_STORE}:FlowStore.forget_spool_file", "before"),
    Point(
        "received: segment made, folder not synced", "ingress", f"{_SEGMENTS}.file:sync_folder", "before", seldom=True
    ),
    Point(
        "reclaimed: segment deleted, its row not", "worker", f"{_STORE}:FlowStore.forget_segment", "before", seldom=True
    ),
    Point("sealed: payload half written", "worker", f"{_VAULT}.sealed:ChunkedWriter.close", "before"),
    Point("marked: file complete, not published", "worker", f"{_SPOOL}:SpoolWriter.publish", "before"),
    Point("sealed: claimed", "worker", f"{_STORE}:FlowStore.claim", "after"),
    Point("delivered: claimed", "worker", f"{_STORE}:FlowStore.claim_deliveries", "after"),
    Point("delivered: about to send", "worker", "gateway.network.egress:Egress.send", "before"),
    Point(
        "commitment: noted, not asked", "worker", "gateway.network.commitment:CommitmentScu.ask", "before", seldom=True
    ),
    Point(
        "commitment: refused, row not",
        "worker",
        "gateway.flow.commitments:Commitments._not_taken",
        "before",
        seldom=True,
    ),
    Point("delivered: all done", "worker", f"{_STORE}:FlowStore.forget_spool_file", "after"),
)
