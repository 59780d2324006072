#!/usr/bin/env bash
# Sets up .venv and the foreign programs that the tests talk to, then runs ruff, mypy and the suite.
# Usage: deploy/test.sh [--full] [PATH or other argument of pytest...]
#   --full  the long tests (marked `full`) as well, as CI does
#   PATH    a part of the suite only, as tests/config or tests/keys/test_token.py::test_x, without ruff and mypy
set -euo pipefail
cd "$(dirname "$0")/.."
full=no
if [ "${1:-}" = --full ]; then full=yes; shift; fi
. deploy/setup.sh

# Debian's programs come while pip works; only a Python that is missing has to be there before.
need_python
need_programs tesseract:tesseract-ocr dcmdump:dcmtk Orthanc:orthanc dciodvfy:dicom3tools node:nodejs npm:npm initdb:postgresql \
    chromium:chromium promtool:prometheus libOrthancDicomWeb.so:orthanc-dicomweb \
    haproxy:haproxy libOrthancPython.so:orthanc-python patroni:patroni etcd:etcd-server ip:iproute2 &
programs=$!
make_venv "[test,bench,training,postgresql,s3]" --no-compile # the part of it that the tests import is compiled then
# Their metadata ask for torchvision, which must match the build of torch; what is used of them here does without it.
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -c deploy/constraints.txt \
    monai onnx2torch torchattacks torchxrayvision
export MIAD_PEERS="$PWD/.venv/peers"  # where the tests install dcmjs-dimse (npm), once
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin"
unset PYTHONDONTWRITEBYTECODE # the tests start many processes: what one of them compiled the others need not

# The whole: the checks as well, mypy beside all else. A part, or pytest's own arguments: those tests only.
types=''
if [ $# = 0 ]; then
    mypy &
    types=$!
    # While programs still come, what each of those below would compile to collect the tests is compiled, once.
    if ! compgen -G 'tests/__pycache__/*-pytest-*.pyc' > /dev/null; then
        python -m pytest --collect-only -q > /dev/null 2>&1 || true # what is wrong the tests tell
    fi
    ruff check .
    ruff format --check .
fi
wait "$programs"
# A process computes on one core: OpenMP waits by spinning, and two processes on two cores would mostly spin.
export OMP_NUM_THREADS=1
[ "$full" = yes ] || set -- -m "not full" "$@"
# The tests flush all the time. In memory, where there is plenty, that takes none; what a test leaves goes with it.
# With a TMPDIR of one's own they use that, and leave there what they made.
if [ -z "${TMPDIR:-}" ] && has_memory_for_files 6; then
    TMPDIR=$(mktemp -d /dev/shm/miad-tests.XXXXXX)
    trap 'rm -rf "$TMPDIR"' EXIT
    chmod 755 "$TMPDIR" # PostgreSQL and the roles run as users of their own
    export TMPDIR
    set -- -o tmp_path_retention_policy=failed "$@"
fi
# Files of tests side by side, a file's tests by one process, for they share peers; those with long tests first
# (tests/conftest.py), each lot in the order of its names. One more than cores, three on two: one waits for its peers, and
# two compute. With two GiB for each; no more than twelve, for each collects all tests. Which took long is told at the end.
gib=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) >> 20))
workers=$(($(env -u OMP_NUM_THREADS nproc) + 1)) # nproc, too, obeys the variable
[ "$workers" -le $(((gib - 4) / 2)) ] || workers=$(((gib - 4) / 2))
[ "$workers" -le 12 ] || workers=12
[ "$workers" -ge 3 ] || workers=3
[ "$full" = no ] || set -- --durations=40 --durations-min=10 "$@"
code=0
python -m pytest -q -n "$workers" --dist loadfile --no-loadscope-reorder "$@" || code=$?
[ -z "$types" ] || wait "$types" || code=1
exit "$code"
