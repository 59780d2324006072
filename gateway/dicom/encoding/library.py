"""Process-wide settings of pydicom, set here and nowhere else, and the one place where its exceptions become ours.

pydicom warns of unusual values with the value in the text, and logs decoder exceptions: both could carry a patient's
data to a log (architecture, promise 7), and checking every value costs time. It is therefore told to read and write
what is there, without comment. Importing any module of `gateway.dicom` that parses is enough.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config

from gateway.errors import DicomError, GatewayError

config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE
# Some warnings come whatever the settings say, e.g. of an unknown Specific Character Set, with its text.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
logging.getLogger("pylibjpeg").setLevel(logging.CRITICAL + 1)


@contextmanager
def foreign_errors(code: str, message: str, hint: str = "") -> Iterator[None]:
    """Turn whatever a library raises on foreign bytes into ``DicomError(code)``.

    Only the exception's type is kept: its text, and the frames of its traceback, may hold values from the data set.
    Libraries for foreign formats raise nearly everything (ValueError, struct.error, KeyError, RecursionError,
    NotImplementedError, MemoryError ...), so nothing narrower than Exception is safe here.
    """
    try:
        yield
    except GatewayError:
        raise
    except Exception as error:
        raise DicomError(code, f"{message}: {type(error).__name__}", hint) from None
