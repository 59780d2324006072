#!/usr/bin/env bash
# Makes a folder from which deploy/install.sh --wheelhouse installs where there is no internet, and a bill of materials.
# Run it on a machine with internet, the same Debian release, processor and Python as the gateway's.
# Usage: deploy/wheelhouse.sh --out DIR [--torch cpu|default|INDEX-URL] [--python PROGRAM]
#   --torch   as MIAD_TORCH (deploy/setup.sh): the CPU build, the usual one (CUDA), or an index that holds CPU wheels
# What is fetched must have the hashes in deploy/requirements.lock; torch is pinned in deploy/constraints.txt.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/setup.sh"
OUT=''
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
    case "$1" in
        --out | --torch | --python)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case "$1" in
                --out) OUT=$2 ;;
                --torch) MIAD_TORCH=$2 ;;
                --python) export PYTHON=$2 ;;
            esac
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'error: %s is no option\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
done
[ -n "$OUT" ] || { usage >&2; exit 2; }
[ ! -e "$OUT" ] || [ -z "$(ls -A "$OUT")" ] || fail "$OUT is not empty: choose another --out"
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
python=$(find_python) || fail "Python 3.11 or newer with venv is needed"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
pip() { "$work/venv/bin/pip" --disable-pip-version-check "$@"; }

torch=$(choose_torch)
pin=$(grep '^torch==' "$HERE/constraints.txt")
say "packages, by the hashes of requirements.lock"
pip wheel --quiet --require-hashes --no-deps -r "$HERE/requirements.lock" --wheel-dir "$OUT"
say "torch: $torch"
case "$torch" in
    default) pip wheel --quiet --wheel-dir "$OUT" --find-links "$OUT" "${pin%%+*}" ;;
    cpu) pip wheel --quiet --no-deps --wheel-dir "$OUT" "${pin%%+*}+cpu" || pip wheel --quiet --no-deps --wheel-dir "$OUT" "$pin" ;;
    *) pip wheel --quiet --no-deps --wheel-dir "$OUT" --index-url "$torch" "$pin" ;;
esac
say "the gateway itself"
mkdir "$work/source"
(cd "$HERE/.." && cp -a gateway plugins pyproject.toml README.md LICENSE "$work/source/")
pip wheel --quiet --no-deps --wheel-dir "$OUT" "$work/source"

# One line a wheel, with its hash: the order of the file is that of the names.
"$work/venv/bin/python" - "$OUT" > "$OUT/requirements.txt" <<'PYTHON'
import hashlib, pathlib, sys
for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    print(f"{name.replace('_', '-')}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
PYTHON
(cd "$OUT" && sha256sum -- *.whl requirements.txt > SHA256SUMS)
say "bill of materials (CycloneDX)"
"$python" -m venv "$work/bom"
if "$work/bom/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'; then
    "$work/bom/bin/cyclonedx-py" requirements "$OUT/requirements.txt" --output-format JSON --output-file "$OUT/sbom.json"
else
    say "without one: cyclonedx-bom could not be installed"
fi
say "$(ls "$OUT"/*.whl | wc -l) wheels in $OUT. There: deploy/install.sh --wheelhouse DIR"
