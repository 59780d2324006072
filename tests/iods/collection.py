"""All made objects together, and what must become of each under the default policy table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from tests.iods.compressed import compressed
from tests.iods.images import images
from tests.iods.multiframe import multiframe
from tests.iods.others import blocked, referring
from tests.iods.parts import Real
from tests.iods.radiotherapy import radiotherapy
from tests.iods.reports import reports
from tests.iods.spatial import spatial
from tests.iods.states import states
from tests.support.dicom.samples import encode

ROOT = "1.2.840.10008.5.1.4.1.1."


@dataclass(frozen=True)
class Made:
    """One made object: as pydicom has it, and encoded."""

    name: str
    ds: Dataset
    data: bytes
    transfer_syntax_uid: str

    @property
    def suffix(self) -> str:
        """What of the SOP Class UID is its own (PS3.4 table B.5-1)."""
        return str(self.ds.SOPClassUID).removeprefix(ROOT)


def collection(folder: Path) -> dict[str, Made]:
    """Name -> object; the same data folder gives the same pixels, references and UIDs, but for those of highdicom."""
    real = Real(folder)
    found = images(real)
    slices = [found[f"ct{number}"] for number in range(3)]
    found |= multiframe(real, found) | compressed(folder)
    found |= spatial(slices) | reports(slices) | states(slices, found["photographic"])
    found |= referring(slices, found["whole-slide"], [found["op-8"], found["op-16"]])
    found |= radiotherapy(real, slices) | blocked(real)
    return {name: _made(name, ds) for name, ds in found.items()}


def _made(name: str, ds: Dataset) -> Made:
    meta = getattr(ds, "file_meta", None)
    syntax = str(meta.TransferSyntaxUID) if meta and "TransferSyntaxUID" in meta else EXPLICIT_LITTLE
    bare = Dataset()
    bare.update({tag: ds[tag] for tag in ds.keys() if tag.group != 2})  # noqa: SIM118 - a Dataset iterates over elements
    return Made(name, bare, encode(bare, syntax), syntax)
