"""Coverage-guided fuzzing of one parser of foreign bytes: `python -m tests.fuzz TARGET --seconds 600`.

atheris (libFuzzer for Python; extra `fuzz`, wheels for Linux) mutates seeds that are made anew from pydicom's files,
and follows what the gateway's own modules branch on. A crash, a hang of more than --timeout
seconds or more than --memory MiB ends the run with an exit code other than 0, and leaves the input as a file in
--findings. Run it again with `--run FILE` to see the traceback; then turn it into a test.

Not part of the test suite: `tests/fuzz/test_targets.py` runs every target over its seeds and over what was found.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Parse the command line, then fuzz until time is up or something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("target", help="a target of tests/fuzz/targets.py, or `list`")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--timeout", type=int, default=20, help="seconds that one input may take")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that the process may have")
    parser.add_argument("--longest", type=int, default=65_536, help="bytes of the longest input")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--corpus", type=Path, help="kept between runs; default: a temporary folder")
    parser.add_argument("--run", type=Path, help="run one input, without the fuzzer")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the peer's mistakes are pynetdicom's daily news
    if asked.target == "list" or asked.run:
        from tests.fuzz.targets import TARGETS

        if asked.run:
            TARGETS[asked.target](asked.run.read_bytes())
        else:
            print("\n".join(TARGETS))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _fuzz(asked, asked.corpus or Path(folder))  # ends the process
    return 0


def _fuzz(asked: argparse.Namespace, corpus: Path) -> None:
    import atheris
    import pynetdicom  # noqa: F401 - both come first: to follow all of them takes minutes to prepare

    # Only what is imported here for the first time is followed.
    with atheris.instrument_imports(include=["gateway"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS, digest
    if asked.target not in TARGETS:
        raise SystemExit(f"no target {asked.target!r}; there are {', '.join(TARGETS)}")
    corpus.mkdir(parents=True, exist_ok=True)
    asked.findings.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[asked.target]():
        (corpus / digest(seed)).write_bytes(seed)
    options = {
        "max_total_time": asked.seconds,
        "timeout": asked.timeout,
        "rss_limit_mb": asked.memory,
        "max_len": asked.longest,
        "artifact_prefix": f"{asked.findings}/{asked.target}-",
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], TARGETS[asked.target]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
