"""What the given paths hold: files, folders searched in depth, the files that a DICOMDIR names, members of archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import ZipInfo

from gateway.dicom.encoding.directory import NAME, is_directory, read_directory
from gateway.errors import DicomError, GatewayError
from gateway.files.archive import Archive, is_archive


@dataclass(frozen=True)
class Input:
    """One thing to be read.

    Attributes
    ----------
    path, member
        The file; for an archive the name of its member, and for a DICOMDIR that of a file which is not there.
    relative
        Name below the output folder, as the operator named it; None when the name came out of an archive or a DICOMDIR,
        where anybody may have written it: then the output is named by its SOP Instance UID.
    open
        Opens a seekable stream; raises `GatewayError` or OSError when there is none.
    """

    path: Path
    member: str
    relative: Path | None
    open: Callable[[], BinaryIO]


class Inputs:
    """All inputs below `paths`, in a stable order. Archives stay open until `close`, or the end of a `with` block.

    What cannot be opened is an input as well, whose `open` tells why: nothing that was named goes missing.

    Parameters
    ----------
    member_limit
        Bytes that one member of an archive may have.
    """

    def __init__(self, paths: Sequence[Path], member_limit: int) -> None:
        self._limit = member_limit
        self._open = ExitStack()
        self.folders: list[Path] = []  # that hold originals
        self.files: list[Path] = []  # given one by one
        try:
            self.found = [found for path in paths for found in self._named(path)]
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        """Close the archives."""
        self._open.close()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _named(self, path: Path) -> Iterator[Input]:
        if path.is_dir():
            self.folders.append(path)
            yield from self._folder(path)
        elif _is_directory(path):
            self.folders.append(path.absolute().parent)
            yield from _listed(path, set())
        else:
            self.files.append(path)
            yield from self._file(path, Path(path.name), is_archive_if=True)

    def _folder(self, folder: Path) -> Iterator[Input]:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        for file in files:
            if file.name.upper() == NAME and _is_directory(file):
                yield from _listed(file, {known.resolve() for known in files})
            else:
                yield from self._file(file, file.relative_to(folder), is_archive_if=file.suffix.lower() == ".zip")

    def _file(self, path: Path, relative: Path, *, is_archive_if: bool) -> Iterator[Input]:
        try:
            archive = Archive(path, self._limit) if is_archive_if and is_archive(path) else None
        except (GatewayError, OSError) as error:
            yield Input(path, "", None, partial(_raise, error))
            return
        if archive is None:
            yield Input(path, "", relative, partial(_open, path))
        else:
            self._open.enter_context(archive)
            yield from _members(path, archive)


def _members(path: Path, archive: Archive) -> Iterator[Input]:
    """The members of an archive; a DICOMDIR among them adds what it names and the archive lacks."""
    members = list(archive.members())
    names = {PurePosixPath(member.filename) for member in members}
    for member in members:
        name = PurePosixPath(member.filename)
        if name.name.upper() != NAME or not _is_directory_member(archive, member):
            yield Input(path, _shown(member.filename), None, partial(archive.open, member))
            continue
        try:
            with archive.open(member) as stream:
                entries = read_directory(stream)
        except GatewayError as error:
            yield Input(path, _shown(member.filename), None, partial(_raise, error))
            continue
        for entry in entries:
            if entry.file is None:
                yield _bad_entry(path, entry.number)
            elif name.parent / entry.file not in names:
                yield _missing_entry(path, name.parent / entry.file)


def _listed(path: Path, known: set[Path]) -> Iterator[Input]:
    """The files that a DICOMDIR names, once each, but for those in `known`; and what it names in vain."""
    try:
        with open(path, "rb") as stream:
            entries = read_directory(stream)
    except (GatewayError, OSError) as error:
        yield Input(path, "", None, partial(_raise, error))
        return
    root = path.absolute().parent
    seen = set(known)
    for entry in entries:
        if entry.file is None:
            yield _bad_entry(path, entry.number)
            continue
        file = _located(root, entry.file)
        if file is None:
            yield _missing_entry(path, entry.file)
        elif not (real := file.resolve()).is_relative_to(root.resolve()):  # a symbolic link that leads out
            yield _bad_entry(path, entry.number)
        elif real not in seen:
            seen.add(real)
            yield Input(file, "", None, partial(_open, file))


def _located(root: Path, file: PurePosixPath) -> Path | None:
    """The file of that File ID; media are often mounted or copied with names in lower case."""
    for name in (file, PurePosixPath(str(file).lower())):
        if (root / name).is_file():
            return root / name
    return None


def _is_directory(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return is_directory(stream)
    except OSError:  # told when it is read
        return False


def _is_directory_member(archive: Archive, member: ZipInfo) -> bool:
    try:
        with archive.open(member) as stream:
            return is_directory(stream)
    except DicomError:
        return False


def _bad_entry(path: Path, number: int) -> Input:
    message = f"the File ID of directory record {number} does not name a file below the DICOMDIR's folder"
    return Input(path, f"record {number}", None, partial(_raise, DicomError("bad-file-id", message)))


def _missing_entry(path: Path, file: PurePosixPath) -> Input:
    error = DicomError("file-missing", "the DICOMDIR names a file that is not there", "copy the medium as a whole")
    return Input(path, _shown(str(file)), None, partial(_raise, error))


def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


def _raise(error: Exception) -> BinaryIO:
    raise error


def _shown(name: str) -> str:
    """A foreign name, fit for a terminal: no control characters, nor those that turn the direction of writing."""
    return "".join(one if one.isprintable() else "?" for one in name)
