#!/usr/bin/env bash
# Installs the gateway as services of systemd, a user a role, from this checkout. As root; safe to run again.
# Usage: deploy/install.sh [--prefix DIR] [--wheelhouse DIR | --venv DIR] [--extras LIST] [--python PROGRAM] [--no-start] [-- INIT...]
#   --prefix DIR      where releases lie; /opt/miad-gateway
#   --wheelhouse DIR  without internet: what deploy/wheelhouse.sh made
#   --venv DIR        a virtual environment that has the gateway already
#   --extras LIST     as "[postgresql]": what else is installed
#   --no-start        set everything up and start nothing
#   -- INIT...        options of `miad-gateway init` for a first configuration (none: it asks); one that is there stays
# Afterwards: configuration and keys in /etc/miad-gateway, state in /var/lib/miad-gateway, units miad-gateway-ROLE.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PREFIX=/opt/miad-gateway WHEELHOUSE='' VENV='' EXTRAS='[postgresql]' START=yes
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix | --wheelhouse | --venv | --extras | --python)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case "$1" in
                --prefix) PREFIX=$2 ;;
                --wheelhouse) WHEELHOUSE=$(realpath "$2") ;;
                --venv) VENV=$2 ;;
                --extras) EXTRAS=$2 ;;
                --python) export PYTHON=$2 ;;
            esac
            shift 2 ;;
        --no-start) START=no; shift ;;
        --) shift; break ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'error: %s is no option\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
done
. "$HERE/release.sh"

need_root
version=$(version_of_source)
before=$(in_force)
[ -z "$before" ] || [ "$before" = "$version" ] ||
    fail "release $before is installed: go to $version with deploy/upgrade.sh, which makes a backup first"

make_release "$version"
switch_to "$version"
put_units

if [ ! -e "$CONFIGURATION/gateway.toml" ]; then
    say "first configuration"
    "$PREFIX/.venv/bin/miad-gateway" init "$CONFIGURATION" --units "$@" || {
        code=$?
        fail "no configuration was made (exit code $code); mend what it says and run this again: what is installed stays"
    }
fi
if [ -d "$CONFIGURATION/conf.d" ]; then
    chown -R root:miad-gateway "$CONFIGURATION/conf.d"
    chmod -R u=rwX,g=rX,o= "$CONFIGURATION/conf.d"
fi
# Who reads what: the configuration all roles, keys root alone (units hand them over), a private key of TLS its role.
chown root:miad-gateway "$CONFIGURATION" "$CONFIGURATION/gateway.toml"
chmod 750 "$CONFIGURATION"
chmod 640 "$CONFIGURATION/gateway.toml"
if [ -d "$CONFIGURATION/keys" ]; then
    chown -R root:root "$CONFIGURATION/keys"
    chmod 700 "$CONFIGURATION/keys"
fi
for pair in gateway:ingress worker:worker restore:restore; do
    key="$CONFIGURATION/tls/${pair%%:*}.key"
    [ ! -e "$key" ] || { chown "miad-${pair##*:}:root" "$key"; chmod 400 "$key"; }
done
[ ! -d "$CONFIGURATION/tls" ] || chmod 755 "$CONFIGURATION/tls"

gateway config check >&2 || fail "the configuration cannot be used: mend it, then run this again"
roles=$(wanted_roles)
for role in $roles; do systemctl enable --quiet "miad-gateway-$role.service"; done
if [ "$START" = no ]; then
    say "installed $version; nothing was started: systemctl start $(for role in $roles; do printf 'miad-gateway-%s ' "$role"; done)"
    exit 0
fi
say "starting: $(echo $roles)"
start_and_see $roles || fail "not all services stay up; mend it, then run this again"
say "installed $version. Keys: back up $CONFIGURATION/keys. Commands, as root:"
printf '   CREDENTIALS_DIRECTORY=%s/keys %s/.venv/bin/miad-gateway status\n' "$CONFIGURATION" "$PREFIX" >&2
