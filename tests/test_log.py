"""Logging: no patient's data comes through, whoever writes the line."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from gateway.errors import DicomError
from gateway.log import get_logger, set_up_logging

NAME = "Doe^Jane"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where this process logs to; the handlers of the test run are put back afterwards."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield io.StringIO()
    root.handlers[:] = handlers


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_role_level_and_time(stream) -> None:
    set_up_logging("worker", "json", stream=stream)
    get_logger("gateway.flow").info("marked", instance="a1", count=3)
    get_logger("gateway.flow").debug("too quiet")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "marked", "instance": "a1", "count": 3, "level": "info", "role": "worker"}


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_way_of_logging_lets_a_name_through(stream, format: str) -> None:
    set_up_logging("worker", format, "debug", stream)
    log = get_logger("gateway.flow")
    log.warning("fields", patient_name=NAME, PatientID=NAME, nested_dataset=[NAME], accession_number=NAME)

    class Dataset:
        def __repr__(self) -> str:
            return NAME

    log.warning("objects", value=Dataset(), inside={"x": [Dataset()]})
    try:
        raise ValueError(NAME)
    except ValueError as error:
        log.exception("exc_info")
        log.error("as a value", problem=error)
        logging.getLogger("pynetdicom.acse").exception(error)
        logging.getLogger("gateway.flow").exception("ours by the standard library")
    logging.getLogger("pydicom").warning("Invalid value %s", NAME)
    logging.getLogger("somebody.else").error(NAME)
    warnings.warn(f"Invalid value for VR PN: {NAME}", stacklevel=1)
    assert len(stream.getvalue().splitlines()) == 9
    assert NAME not in stream.getvalue()
    assert "Doe" not in stream.getvalue()


def test_an_error_of_ours_keeps_code_and_message_and_every_error_its_place(stream) -> None:
    set_up_logging("", "json", stream=stream)
    try:
        try:
            raise ValueError(NAME)
        except ValueError as inner:
            raise DicomError("truncated", "the data set ends early") from inner
    except DicomError:
        get_logger("gateway.dicom").exception("refused")
    (line,) = lines(stream)
    assert line["error"]["code"] == "truncated"
    assert line["error"]["message"] == "the data set ends early"
    assert line["error"]["at"][-1].startswith("tests/test_log.py:")
    assert line["error"]["cause"]["type"] == "ValueError"
    assert "role" not in line


def test_a_library_is_named_with_the_line_of_its_code(stream) -> None:
    set_up_logging("", "json", stream=stream)
    logging.getLogger("pynetdicom.acse").error(NAME)
    (line,) = lines(stream)
    assert line["library"] == "pynetdicom.acse"
    assert line["at"].startswith("tests/test_log.py:")
    assert line["level"] == "error"


def test_complaints_of_libraries_about_values_are_for_debugging_only(stream) -> None:
    set_up_logging("", "json", "info", stream)
    logging.getLogger("pydicom").warning(NAME)
    warnings.warn(NAME, stacklevel=1)
    assert stream.getvalue() == ""
    logging.getLogger("pydicom").error(NAME)
    assert [line["library"] for line in lines(stream)] == ["pydicom"]


def test_auto_is_json_where_there_is_no_terminal() -> None:
    code = "from gateway.log import *; set_up_logging(); get_logger('gateway').info('hello')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["event"] == "hello"


UNCAUGHT = """
import sys, threading
from gateway.log import set_up_logging
from gateway.errors import DicomError
set_up_logging("restore", "json")

def fails():
    raise {error}

class Finalized:
    def __del__(self):
        raise {error}

{how}
"""


@pytest.mark.parametrize(
    ("how", "event"),
    [
        ("t = threading.Thread(target=fails, name='receiver'); t.start(); t.join()", "thread ended by an error"),
        ("fails()", "ended by an error"),
        ("Finalized()", "error where none can be raised"),
    ],
)
@pytest.mark.parametrize(
    ("error", "told"),
    [("ValueError('Doe^Jane 19700101')", "ValueError"), ("DicomError('truncated', 'cut off')", "DicomError")],
)
def test_an_error_that_nobody_caught_is_a_line_without_its_text(how: str, event: str, error: str, told: str) -> None:
    code = UNCAUGHT.format(error=error, how=how)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (line["event"], line["role"], line["error"]["type"]) == (event, "restore", told)
    assert line["error"]["at"]
    assert "Doe" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if event == "ended by an error" else 0)


def test_a_thread_that_ends_itself_is_no_error() -> None:
    code = UNCAUGHT.format(error="SystemExit(3)", how="t = threading.Thread(target=fails); t.start(); t.join()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
