"""The folder that files are written to: whole or not at all, never over another file, never among the originals."""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from gateway.dicom.encoding.part10 import write_part10
from gateway.errors import ConfigError
from gateway.files.inputs import Inputs


class OutputFolder:
    """Where marked copies or originals go.

    Names: a file keeps the name that it has below the given folder. What came out of an archive, or by way of a
    DICOMDIR, is named by the SOP Instance UID of what is written, since names in there may be a patient's. A name that
    other bytes have already gets a number (`ct-2.dcm`); the same bytes are not written twice.

    Raises
    ------
    ConfigError
        "output-among-originals".
    """

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self._folder = folder
        _refuse_among_originals(folder, inputs)

    def write(
        self,
        relative: Path | None,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        data: Iterable[bytes],
    ) -> Path:
        """Write one DICOM file (PS3.10 7.1) and return its path; OSError when that cannot be done."""
        path = self._folder / (relative or f"{sop_instance_uid}.dcm")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            partial = Path(file.name)
            try:
                write_part10(file.file, sop_class_uid, sop_instance_uid, transfer_syntax_uid, data)
                file.flush()
                return _put(partial, path)
            finally:
                partial.unlink(missing_ok=True)


def _put(partial: Path, path: Path) -> Path:
    """Give a finished file the first free name, or find that it is there already."""
    for number in count(1):
        target = path if number == 1 else _numbered(path, number)
        try:
            open(target, "xb").close()  # takes the name, whatever else writes here
        except FileExistsError:
            if target.is_file() and filecmp.cmp(partial, target, shallow=False):
                return target
            continue
        try:
            return partial.replace(target)
        except BaseException:
            target.unlink()
            raise
    raise AssertionError("unreachable")


def _numbered(path: Path, number: int) -> Path:
    """`ct.dcm` as `ct-2.dcm`; what looks like a UID has no suffix."""
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{0,9}", path.suffix) else ""
    return path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")


def _refuse_among_originals(folder: Path, inputs: Inputs) -> None:
    out = folder.resolve()
    for given in (path.resolve() for path in inputs.folders):
        if out.is_relative_to(given) or given.is_relative_to(out):
            raise _among(folder)
    if any(out == path.resolve().parent for path in inputs.files):
        raise _among(folder)


def _among(folder: Path) -> ConfigError:
    message = f"the output folder {folder} lies within the input, or the input within it: originals are never touched"
    return ConfigError("output-among-originals", message, "name a folder of its own with --out")
