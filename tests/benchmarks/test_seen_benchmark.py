"""The benchmark of what is seen: it leaves letters out, sees what is plain, and shows where that is."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.seen import CUT, Seen, row, seen_of


def seen(levels: int) -> tuple[Seen, np.ndarray]:
    """Return what is seen of a change by so many levels below a letter, and of its picture the enlarged copy."""
    image = np.full((128, 128), 128, np.uint8)
    strokes = np.zeros(image.shape, bool)
    strokes[4:12, 4:60] = True
    copy = np.where(strokes, 250, image).astype(np.uint8)
    copy[60:72, 60:72] += np.uint8(levels)
    found = seen_of(image, copy, strokes, None)
    return found, found.picture[-3 * CUT :, -3 * CUT :]


def test_letters_do_not_count_and_what_is_plain_does() -> None:
    nothing, _ = seen(0)
    assert nothing.levels == nothing.plain == nothing.enlarged == 0.0 and nothing.psnr == 100.0
    plain, enlarged = seen(6)
    assert round(plain.levels) == 6 and 0.0 < plain.plain < 0.2 and 0.0 < plain.enlarged < 0.2
    assert (enlarged == 134).any()
    assert "| 2 |" in row("chest_ct", [nothing, plain]) and "6 |" in row("chest_ct", [nothing, plain])
