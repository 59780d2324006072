"""A destination that behaves as it is told: it takes, refuses, drops, has no room, or accepts and forgets."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt

from gateway.flow.ports import CommitmentReport, Reference
from gateway.network.commitment_sets import INSTANCE, PUSH_MODEL, report_bytes

EXPLICIT = "1.2.840.10008.1.2.1"
MANNERS = ("well", "refuses", "drops", "full", "forgets")
_NOT_KEPT = 0x0112  # no such object instance (PS3.4 J.3.3.1.2)
_CREATOR = b"MIAD GATEWAY 1"


@dataclass(frozen=True)
class Kept:
    """One data set that came: its UID, its digest, whether it says that it is a marked copy."""

    uid: str
    sha256: str
    marked: bool


class Outside:
    """An SCP of storage, and where it is given a port to report to, of storage commitment.

    Parameters
    ----------
    book
        A file that gets a line for each data set that it keeps; what stands there already is kept too.
    report_to
        Port of the gateway for reports; None: it knows no commitment.
    """

    def __init__(self, book: Path, report_to: int | None = None) -> None:
        self.manner = "well"
        self.did: Counter[str] = Counter()
        self.errors: list[str] = []
        self._book = book
        self._report_to = report_to
        self._lock = threading.Lock()
        lines = book.read_text("utf-8").splitlines() if book.exists() else []
        self.kept = [Kept(**json.loads(line)) for line in lines]
        self._uids = {one.uid for one in self.kept}
        self._reporting: list[threading.Thread] = []
        ae = AE("OUTSIDE")
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax or "", EXPLICIT)
        if report_to is not None:
            ae.add_supported_context(PUSH_MODEL, EXPLICIT)
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._asked),
        ]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.server_address[1]

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        for thread in self._reporting:
            thread.join(60)

    def _requested(self, event: evt.Event) -> None:
        if self.manner == "refuses":
            self.did["refused"] += 1
            event.assoc.acse.send_reject(0x02, 0x01, 0x02)
            event.assoc.kill()

    def _store(self, event: evt.Event) -> int:
        if self.manner == "drops":
            self.did["dropped"] += 1
            event.assoc.abort()
            return 0xC000
        if self.manner == "full":
            self.did["full"] += 1
            return 0xA700
        if self.manner == "forgets" and self._report_to is not None:
            self.did["forgotten"] += 1
            return 0x0000
        data = event.encoded_dataset(include_meta=False)
        uid = str(event.request.AffectedSOPInstanceUID)
        one = Kept(uid, hashlib.sha256(data).hexdigest(), _CREATOR in data)
        with self._lock:
            with self._book.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(one)) + "\n")
            self.kept.append(one)
            self._uids.add(uid)
        self.did["kept"] += 1
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, None]:
        ds = event.action_information
        wanted = [
            Reference(str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
            for one in ds.ReferencedSOPSequence
        ]
        with self._lock:
            there = tuple(one for one in wanted if one.sop_instance_uid in self._uids)
        failed = {one: _NOT_KEPT for one in wanted if one not in there}
        report = CommitmentReport(str(ds.TransactionUID), there, failed)
        self.did["committed"] += len(there)
        self.did["not committed"] += len(failed)
        thread = threading.Thread(target=self._report, args=(report,), daemon=True)
        self._reporting = [one for one in self._reporting if one.is_alive()] + [thread]
        thread.start()
        return 0x0000, None

    def _report(self, report: CommitmentReport) -> None:
        """Tell the gateway, a few times: it may be down just now; later it asks anew."""
        ae = AE("OUTSIDE")
        ae.add_requested_context(PUSH_MODEL, EXPLICIT)
        roles = [build_role(PUSH_MODEL, scp_role=True)]
        data: Dataset = dcmread(DicomBytesIO(report_bytes(report, EXPLICIT)), force=True)
        for _ in range(5):
            association = ae.associate("127.0.0.1", self._report_to or 0, ae_title="MIAD_GATEWAY", ext_neg=roles)
            if association.is_established:
                kind = 2 if report.failed else 1
                status, _ = association.send_n_event_report(data, kind, PUSH_MODEL, INSTANCE)
                association.release()
                if status and status.Status == 0:
                    return
            time.sleep(1)
        self.did["reports not taken"] += 1
