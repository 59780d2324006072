"""Logging without patient data: structlog, as lines for a person or as JSON for a machine.

What keeps PHI out (architecture, promise 7):

- The gateway's own events are fixed words with named fields; fields that could name a patient are cut out.
- Errors are logged as type, code and place. Only the text of a `GatewayError` is kept: the tree promises that it holds
  no patient's data. The text of any other exception may quote a value of the data set, so it never appears.
- Libraries (pydicom, pynetdicom, the `warnings` module) quote values in their messages: of those only the logger, the
  level and the line of code are logged.
- An error that nobody caught, in any thread, is such a line too; the interpreter would print its text.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from gateway.errors import GatewayError

OURS = ("gateway", "plugins")  # loggers whose words are our own
LIBRARIES = ("pydicom", "py.warnings", "pynetdicom", "sqlalchemy", "alembic", "matplotlib", "PIL")
FORBIDDEN_FIELDS = ("patient", "accession", "birth", "physician", "study_date", "description", "dataset", "identifier")
_FRAMES = 6  # the innermost frames of a traceback that are worth a line


def set_up_logging(
    role: str = "",
    format: Literal["auto", "console", "json"] = "auto",
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Set up logging of this process; call once at its start, again in each child process.

    Parameters
    ----------
    role
        Repeated on every line of this process, whichever thread writes it; left out when empty.
    format
        ``json`` writes one JSON object a line, ``console`` coloured text, ``auto`` console on a terminal else JSON.
    level
        ``debug``, ``info``, ``warning`` or ``error``.
    stream
        Where to; standard error when None.
    """
    stream = stream or sys.stderr
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([_role_adder(role)] if role else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        cut_out_patient_fields,
        plain_values,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=lambda *_: None)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[withhold_foreign_text, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Complaints about odd values come by the thousand, and without their text they only say that there are some.
    quiet = {"pydicom": logging.ERROR, "py.warnings": logging.ERROR} if root.level > logging.DEBUG else {}
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(max(quiet.get(library, logging.WARNING), root.level))
        logging.getLogger(library).handlers[:] = []
    logging.captureWarnings(True)
    _catch_uncaught()


def get_logger(name: str, **fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger for the module `name` (give ``__name__``); `fields` are repeated on each of its lines."""
    return structlog.get_logger(name, **fields)


def _catch_uncaught() -> None:
    """What nobody caught becomes one line of the log, in whichever thread: the interpreter's own hooks print its text.

    A hook that somebody else has set (a test runner) stays.
    """
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_ended
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _program_ended
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _not_raisable


def _thread_ended(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None and caught.exc_type is not SystemExit:
        thread = caught.thread.name if caught.thread else ""
        get_logger(__name__).error("thread ended by an error", thread=thread, error=describe_error(caught.exc_value))


def _program_ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        get_logger(__name__).critical("ended by an error", error=describe_error(error.with_traceback(trace)))


def _not_raisable(caught: sys.UnraisableHookArgs) -> None:
    """An error in a finalizer or a callback of the interpreter."""
    if caught.exc_value is not None:
        get_logger(__name__).error("error where none can be raised", error=describe_error(caught.exc_value))


def _role_adder(role: str) -> structlog.typing.Processor:
    def add_role(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("role", role)
        return event

    return add_role


def describe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: `exc_info` becomes the error's type, place and, for our own errors, code and message."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = describe_error(error)
    return event


def describe_error(error: BaseException) -> Mapping[str, Any]:
    """An exception without the text that might quote a data set: ``type``, ``at`` and for our own also ``code``."""
    described: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, GatewayError):
        described |= {"code": error.code, "message": error.message}
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    described["at"] = [f"{_module_file(frame.filename)}:{frame.lineno}" for frame in frames]
    if error.__cause__ is not None:
        described["cause"] = describe_error(error.__cause__)
    return described


def cut_out_patient_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: fields whose name says that they hold a patient's data are cut out, values unseen."""
    for name in event:
        if any(word in name.lower() for word in FORBIDDEN_FIELDS):
            event[name] = "(cut out)"
    return event


def plain_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: an object that is no plain value becomes its type, since its text might hold anything."""
    for name, value in event.items():
        if not name.startswith("_"):
            event[name] = _plain(value)
    return event


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return f"<{type(value).__name__}>"


def withhold_foreign_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor for records of libraries: the place in the code instead of the words."""
    record = event.get("_record")
    if record is None or record.name.split(".")[0] in OURS:
        return event
    event["event"] = "message of a library, withheld"
    event["library"] = record.name
    event["at"] = f"{_module_file(record.pathname)}:{record.lineno}"
    return event


def _module_file(path: str) -> str:
    """The last two parts of a source file's path: no folder of this machine in the log."""
    return "/".join(PurePath(path).parts[-2:])
