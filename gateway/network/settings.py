"""The one place where the module-global settings of pynetdicom and pydicom are set for the network floor.

By default pynetdicom logs the identifiers of queries and pydicom warns with the offending values: both would carry
patient data into the logs (architecture, promise 7). `apply` is called by whatever opens a port or a connection;
calling it again changes nothing.
"""

from __future__ import annotations

import logging

from pydicom import config as pydicom_config
from pynetdicom import _config

from gateway.dicom.encoding.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = ["IMPLEMENTATION_CLASS_UID", "IMPLEMENTATION_VERSION_NAME", "apply"]  # PS3.7 D.3.3.2; one pair for files too


def apply() -> None:
    """Set every global setting that the gateway relies on."""
    _config.LOG_HANDLER_LEVEL = "none"  # no handler per PDU and message: they log UIDs and cost time
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_RECV_CHUNKED_DATASET = False  # it writes plain originals to the system's temporary folder
    _config.UNRESTRICTED_STORAGE_SERVICE = False  # unknown SOP classes are refused, not taken
    _config.ENFORCE_UID_CONFORMANCE = False  # real archives hold UIDs with leading zeros; length is still checked
    _config.CODECS = ("ascii",)
    # pynetdicom logs exceptions with their arguments and values of peers. What matters is in our own log and audit.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    # A value that does not fit its VR is no reason to print it.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
