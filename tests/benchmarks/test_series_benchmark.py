"""The benchmark of key slices runs, and tells of both ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from tests.benchmarks import series
from tests.support.dicom.samples import encode
from tests.support.flow import ct


def write_series(folder: Path, slices: int) -> None:
    """Write a made series of CT, a file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in range(slices):
        ds = ct(one, ImagePositionPatient=[0, 0, float(one)])
        with (folder / f"{one}.dcm").open("wb") as out:
            write_part10(out, ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT_LITTLE, [encode(ds)])


@pytest.mark.full
def test_both_ways_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path, 3)
    shown = tmp_path / "shown.png"
    arguments = ["--folder", str(tmp_path), "--slices", "4", "--steps", "1", "--picture", str(shown)]
    monkeypatch.setattr(sys, "argv", ["series", *arguments])
    series.main()
    told = capsys.readouterr().out
    assert "3 real slices, 4 asked for" in told
    assert "key: " in told and "own: " in told and "begun" in told and "held out: judge" in told
    assert shown.stat().st_size
