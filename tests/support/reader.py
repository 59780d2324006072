"""A reader that knows nothing of the mark: Tesseract (English), and what counts as having read a word."""

from __future__ import annotations

import io
import os
import shutil
import subprocess

import numpy as np
from PIL import Image
from scipy import ndimage

from gateway.mark.placement.letters import least_height
from gateway.mark.placement.stamps import text_stamp

ENLARGED = 3
"""A page that is scanned has letters of some thirty pixels; those of a mark have 8 to 28."""
PROGRAM = "tesseract"


def can_read() -> bool:
    """Return whether the program is there."""
    return shutil.which(PROGRAM) is not None


def read(image: np.ndarray) -> list[str]:
    """Return the words, upper case, that the reader finds in a uint8 image (H, W[, 3]); sparse text (PSM 11)."""
    picture = Image.fromarray(image)
    size = (picture.width * ENLARGED, picture.height * ENLARGED)
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    done = subprocess.run(
        [PROGRAM, "-", "-", "-l", "eng", "--psm", "11"],
        input=file.getvalue(),
        capture_output=True,
        check=True,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )
    words = ("".join(one for one in word if one.isalnum()) for word in done.stdout.decode().split())
    return [word.upper() for word in words if word]


def reads(image: np.ndarray, text: str) -> bool:
    """Return whether one whole word of a text (of three letters at least) is read, one letter wrong at most."""
    wanted = [word.upper() for word in text.split() if len(word) >= 3]
    return any(edits(found, word) <= 1 for found in read(image) for word in wanted)


def edits(first: str, second: str) -> int:
    """Return how many letters have to be put in, left out or changed to make one word the other (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        above, row = row, [i]
        for j, other in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (one != other)))
    return row[-1]


def has_room(free: np.ndarray, word: str) -> bool:
    """Return whether a word in the least letters, its rim and some space around fit into ``free`` (H, W) bool."""
    tall, wide = text_stamp((word,), least_height(free.shape), 0, rimmed=True).ink.shape
    return bool(ndimage.binary_erosion(np.pad(free, 1), np.ones((tall, wide), bool)).any())
