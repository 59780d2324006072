#!/usr/bin/env bash
# Shows the main job on real DICOM: archive -> gateway -> outside PACS marked; authorized workstation -> bit-exact original.
# Usage: deploy/quickstart.sh [--once] [--json FILE]
#   MIAD_TORCH=cpu|default|INDEX-URL chooses the build of torch; unset: cpu where there is no NVIDIA driver.
#   MIAD_DATA=FOLDER adds the two series of the data folder.
# Keys, certificates and configuration are made in ./demo when missing. Runs until Ctrl-C; --once ends after the table.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/setup.sh

need_programs Orthanc:orthanc
make_venv ""
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin"
exec miad-gateway demo "$@"
