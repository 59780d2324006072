#!/usr/bin/env bash
# Runs the whole suite: sets up .venv and the foreign programs that the tests talk to, then pytest and ruff.
# Usage: deploy/test.sh [PYTEST ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/setup.sh

need_programs storescu:dcmtk Orthanc:orthanc dciodvfy:dicom3tools node:nodejs npm:npm
make_venv "[test,training,postgresql,jpeg-extended]"
if [ ! -d .venv/peers/node_modules/dcmjs-dimse ]; then
    say "installing dcmjs-dimse, a foreign workstation"
    npm install --silent --no-audit --no-fund --prefix .venv/peers "dcmjs-dimse@$(cat deploy/dcmjs-dimse.version)"
fi
export MIAD_PEERS_NODE="$PWD/.venv/peers/node_modules"
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin"

ruff check .
ruff format --check .
exec python -m pytest -q "$@"
