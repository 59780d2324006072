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
unset PYTHONDONTWRITEBYTECODE # the tests start many processes: what one of them compiled the others need not
# Nor need each of those below that collect the tests: the first time one does it for all, while the programs still come.
if [ $# = 0 ] && ! compgen -G 'tests/__pycache__/*-pytest-*.pyc' > /dev/null; then
    .venv/bin/python -m pytest --collect-only -q > /dev/null 2>&1 || true # what is wrong the tests tell
fi
wait "$programs"
export MIAD_PEERS="$PWD/.venv/peers"  # where the tests install dcmjs-dimse (npm), once
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin"

# The whole: the checks as well, mypy beside the tests. A part, or pytest's own arguments: those tests only.
types=''
if [ $# = 0 ]; then
    ruff check .
    ruff format --check .
    mypy &
    types=$!
fi
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
# (tests/conftest.py), each lot in the order of its names. Three on two cores: one waits for its peers, and two compute.
code=0
python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder "$@" || code=$?
[ -z "$types" ] || wait "$types" || code=1
exit "$code"
