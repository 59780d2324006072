#!/usr/bin/env bash
# Runs the whole suite: sets up .venv and the foreign programs that the tests talk to, then pytest and ruff.
# Usage: deploy/test.sh [PYTEST ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/setup.sh

need_programs dcmdump:dcmtk Orthanc:orthanc dciodvfy:dicom3tools node:nodejs npm:npm initdb:postgresql
make_venv "[test,bench,training,postgresql]"
# Their metadata ask for torchvision, which must match the build of torch; what is used of them here does without it.
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -c deploy/constraints.txt \
    monai onnx2torch torchattacks torchxrayvision
export MIAD_PEERS="$PWD/.venv/peers"  # where the tests install dcmjs-dimse (npm), once
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin"

ruff check .
ruff format --check .
# Two files of tests at a time, a file's tests by one process, for they share peers; in the order of their names, since
# the longest (the mark's benchmark) is among the first.
exec python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
