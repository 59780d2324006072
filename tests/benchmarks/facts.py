"""What stands beside every figure: versions of the programs, a flush, the machine, its load, the commit."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.programs import program
from tests.support.postgresql import programs

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Facts:
    """What was found before the first figure was taken; printed as one line, `asdict` for JSON.

    Attributes
    ----------
    versions
        Program -> its version, of those that take part.
    flush_s, flush_bytes
        Median seconds to append so many bytes in the benchmark's own folder and flush them.
    cores, cpu, load
        Of the machine; the load is the mean of the last minute, so without the benchmark itself.
    commit
        Of this repository, ending in ``-dirty`` where a tracked file differs from it.
    """

    versions: dict[str, str]
    flush_s: float
    flush_bytes: int
    cores: int
    cpu: str
    load: float
    commit: str

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        flush = f"a flush of {self.flush_bytes / 1024:.0f} KiB {1000 * self.flush_s:.2f} ms"
        return f"{versions}; {flush}; {self.cores} cores, {self.cpu}, load {self.load:.1f} before; commit {self.commit}"


def facts(folder: Path, *peers: str, flush_bytes: int = 8192, database: str = "") -> Facts:
    """Look at them: once, before anything is measured.

    Parameters
    ----------
    folder
        Where the benchmark writes.
    peers
        Of ``DCMTK``, ``Orthanc`` and ``PostgreSQL`` those that take part; Python always does.
    flush_bytes
        What is appended before each flush.
    database
        URL of the PostgreSQL server that takes part; where it is empty, the installed one does.
    """
    return Facts(
        versions={**{one: version(one, database) for one in peers}, "Python": platform.python_version()},
        flush_s=flush_seconds(folder, flush_bytes),
        flush_bytes=flush_bytes,
        cores=os.cpu_count() or 1,
        cpu=cpu_model(),
        load=round(os.getloadavg()[0], 2),
        commit=commit(),
    )


def version(peer: str, database: str = "") -> str:
    """Version of a program; SystemExit when it is not installed."""
    if peer == "PostgreSQL" and database:
        return _number(_asked(database))
    if peer == "PostgreSQL":
        folder = programs()
        command = str(folder / "postgres") if folder else program("postgres")
    else:
        command = program({"DCMTK": "storescp"}.get(peer, peer))
    return _number(subprocess.run([command, "--version"], capture_output=True, text=True).stdout)


def _asked(database: str) -> str:
    import psycopg

    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else ""


def _number(told: str) -> str:
    found = re.search(r"\d+(\.\d+)+", told)
    return found[0] if found else "of an unknown version"


def flush_seconds(folder: Path, size: int, count: int = 40) -> float:
    """Median seconds to append `size` bytes and flush them."""
    taken, data = [], os.urandom(size)
    with open(folder / "flush", "wb", buffering=0) as file:
        for _ in range(count):
            begin = time.monotonic()
            file.write(data)
            os.fdatasync(file.fileno())
            taken.append(time.monotonic() - begin)
    (folder / "flush").unlink()
    return statistics.median(taken)


def cpu_model(told: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or its architecture where the system does not tell it (ARM)."""
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit(of: Path = REPOSITORY) -> str:
    """Short name of the commit that is checked out, with ``-dirty`` where tracked files differ from it."""
    # tags would be told in place of the commit; --exclude leaves all of them out
    command = ["git", "-C", str(of), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an archive of the sources
        return "unknown"
