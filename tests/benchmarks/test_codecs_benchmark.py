"""The benchmark of the codecs, small: it runs, and its figures are of what it says."""

from __future__ import annotations

import json

from gateway.dicom.encoding.syntaxes import LOSSLESS_NAMES
from tests.benchmarks import codecs


def test_it_runs_on_real_slices(miad_data, tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert codecs.main(["--data", str(miad_data), "--slices", "2", "--rounds", "1", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert list(figures) == list(LOSSLESS_NAMES)
    for name in ("htj2k", "jpeg-ls", "jpeg-2000", "rle"):
        # A real slice takes 0.2 to 0.5; an even one, as the stand-in for the data folder has, 0.004.
        assert all(0.001 < ratio < 0.9 for ratio in figures[name]["ratio"])
        assert all(len(figures[name][column]) == 2 for column in ("encode", "decode", "egress", "ratio"))
        assert min(figures[name]["encode"]) > 0.1  # an encoder that took no time did nothing
    assert figures["explicit"]["ratio"] == [1, 1]
    assert "2 slices" in capsys.readouterr().out
    assert codecs.main(["--data", str(miad_data), "--slices", "0"]) == 1
