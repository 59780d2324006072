"""Sealed originals, their signed records, and the index that C-FIND answers from."""

from gateway.vault.carried import Carried, open_carried, seal_carried
from gateway.vault.copies import CopyNames
from gateway.vault.figures import FigureStore, MarkFigures
from gateway.vault.index import Index, Scope
from gateway.vault.payloads import Payloads, PayloadStore
from gateway.vault.places import open_payloads
from gateway.vault.record import RecordFacts, VaultRecord
from gateway.vault.records import RecordStore
from gateway.vault.sealed import PayloadOpener, PayloadReader, open_payload, seal_payload

__all__ = [
    "Carried",
    "CopyNames",
    "FigureStore",
    "Index",
    "MarkFigures",
    "PayloadOpener",
    "PayloadReader",
    "PayloadStore",
    "Payloads",
    "RecordFacts",
    "RecordStore",
    "Scope",
    "VaultRecord",
    "open_carried",
    "open_payload",
    "open_payloads",
    "seal_carried",
    "seal_payload",
]
