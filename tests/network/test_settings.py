"""The global settings, and that what peers send does not get into the logs."""

from __future__ import annotations

import io
import logging
import socket

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pynetdicom import _config

from gateway.network import settings
from gateway.network.scu import ScuAssociation
from tests.network.test_ingress import called, gateway_threads, until
from tests.support.network.samples import CT, EXPLICIT


def test_apply_sets_every_flag_and_may_be_called_again(monkeypatch):
    monkeypatch.setattr(_config, "LOG_REQUEST_IDENTIFIERS", True)
    monkeypatch.setattr(_config, "LOG_RESPONSE_IDENTIFIERS", True)
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", "standard")
    monkeypatch.setattr(_config, "STORE_RECV_CHUNKED_DATASET", True)
    monkeypatch.setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", True)
    for _ in range(2):
        settings.apply()
        assert not _config.LOG_REQUEST_IDENTIFIERS and not _config.LOG_RESPONSE_IDENTIFIERS
        assert _config.LOG_HANDLER_LEVEL == "none"
        assert not _config.STORE_RECV_CHUNKED_DATASET and not _config.UNRESTRICTED_STORAGE_SERVICE
        assert not logging.getLogger("pynetdicom.association").isEnabledFor(logging.CRITICAL)


def test_a_value_that_does_not_fit_its_vr_is_not_printed(recwarn):
    settings.apply()
    assert pydicom_config.settings.reading_validation_mode == pydicom_config.IGNORE
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset

    raw = b"\x10\x00\x30\x00DA\x08\x00DOE^JANE"  # Patient's Birth Date
    dataset = read_dataset(DicomBytesIO(raw), is_implicit_VR=False, is_little_endian=True)
    assert isinstance(dataset, Dataset) and dataset.PatientBirthDate == "DOE^JANE"
    assert not [one for one in recwarn if not issubclass(one.category, ResourceWarning)]  # of what was before


def test_what_a_peer_sends_does_not_get_into_the_logs(start_ingress, caplog, capfd):
    ingress = start_ingress()
    with caplog.at_level(logging.DEBUG):
        association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
        association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"DOE^JANE"))
        association._wire.send(b"\x04\x00\x00\x00\x00\x10DOE^JANEDOE^JANE")
        association.release()
        with socket.create_connection(("127.0.0.1", ingress.port)) as client:
            client.sendall(b"\x01\x00\x00\x00\x00\x10DOE^JANEDOE^JANE")
        assert until(lambda: not gateway_threads())
    output = capfd.readouterr()
    assert "DOE" not in caplog.text + output.out + output.err
    assert "Traceback" not in output.err
