#!/usr/bin/env bash
# Goes to the release of this checkout: makes it beside the one in force, stops, backs up, migrates, starts. As root.
# Usage: deploy/upgrade.sh [--prefix DIR] [--wheelhouse DIR | --venv DIR] [--extras LIST] [--python PROGRAM] [--backups DIR] [--whole FILE]
#        deploy/upgrade.sh --back [--prefix DIR]
#   --backups DIR   where the copy of configuration, keys, units and database goes; /var/backups/miad-gateway
#   --whole FILE    besides, `miad-gateway vault backup`: all originals too, under the passphrase in FILE (its first line)
#   --back          the release before: with all rows where it can read them; the copy of the database where nothing has
#                   happened since; else it says so and stays
# What is acknowledged is never lost: originals and spool stay where they are in either direction.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PREFIX=/opt/miad-gateway WHEELHOUSE='' VENV='' EXTRAS='[postgresql]' BACKUPS=/var/backups/miad-gateway WHOLE='' BACK=no
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix | --wheelhouse | --venv | --extras | --python | --backups | --whole)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case "$1" in
                --prefix) PREFIX=$2 ;;
                --wheelhouse) WHEELHOUSE=$(realpath "$2") ;;
                --venv) VENV=$2 ;;
                --extras) EXTRAS=$2 ;;
                --python) export PYTHON=$2 ;;
                --backups) BACKUPS=$2 ;;
                --whole) WHOLE=$(realpath "$2") ;;
            esac
            shift 2 ;;
        --back) BACK=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'error: %s is no option\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
done
. "$HERE/release.sh"

need_root
before=$(in_force)
[ -n "$before" ] || fail "no release is installed under $PREFIX: deploy/install.sh does that"

enabled_roles() {
    local role
    for role in $ROLES; do
        ! systemctl is-enabled --quiet "miad-gateway-$role.service" 2>/dev/null || printf '%s ' "$role"
    done
}
stop_all() { for role in $ROLES; do systemctl stop "miad-gateway-$role.service" 2>/dev/null || true; done; }

# fact NAME: of `database show`, in the release in force.
fact() { gateway database show --json 2>/dev/null | sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }

# configuration_of FOLDER: what is there stays beside it, as FILE.newer, where the older release refuses it.
go_back() {
    local last="$PREFIX/last-upgrade" old revision digest now
    [ -L "$last" ] && [ -e "$last/from" ] || fail "no upgrade is known here that could be undone"
    old=$(cat "$last/from")
    [ "$(cat "$last/to")" = "$before" ] || fail "the last upgrade was to $(cat "$last/to"), and $before is in force: nothing to undo"
    [ -e "$PREFIX/releases/$old/complete" ] || fail "release $old is gone from $PREFIX/releases: install it from its own checkout"
    revision=$(cat "$last/revision") digest=$(cat "$last/digest")
    say "back from $before to $old: stopping"
    stop_all
    now=$(fact revision)
    if [ "$now" = "$revision" ]; then
        say "both have schema $revision: the database stays as it is"
    elif [ -e "$last/database" ] && [ -n "$digest" ] && [ "$(fact digest)" = "$digest" ]; then
        say "nothing was received or sent since: the database is put back as it was"
        gateway database restore "$last/database" --forget || { start_and_see $roles; fail "the database could not be put back: $before stays"; }
    elif gateway database downgrade "$revision"; then
        say "the database is brought back to schema $revision, with all rows"
    else
        start_and_see $roles || true
        fail "$old could not read what was received since the upgrade: $before stays in force"
    fi
    switch_to "$old"
    put_units
    gateway config check >/dev/null 2>&1 || {
        say "$old does not take today's configuration: that of before the upgrade is put back, today's is gateway.toml.newer"
        mv "$CONFIGURATION/gateway.toml" "$CONFIGURATION/gateway.toml.newer"
        cp -p "$last/etc/gateway.toml" "$CONFIGURATION/gateway.toml"
    }
    start_and_see $roles || fail "not all services of $old stay up"
    rm -f "$last"
    say "$old is in force again"
}

roles=$(enabled_roles)
if [ "$BACK" = yes ]; then
    go_back
    exit 0
fi

version=$(version_of_source)
[ "$version" != "$before" ] || { say "release $version is in force already"; exit 0; }
make_release "$version"
CREDENTIALS_DIRECTORY="$CONFIGURATION/keys" "$PREFIX/releases/$version/venv/bin/miad-gateway" config check \
    --config "$CONFIGURATION/gateway.toml" >&2 || fail "$version does not take this configuration: nothing was changed"

say "from $before to $version: stopping"
stop_all
trap '[ $? = 0 ] || say "the upgrade did not end well; $(in_force) is in force. systemctl start, or deploy/upgrade.sh --back"' EXIT
saved="$BACKUPS/$(date -u +%Y%m%dT%H%M%SZ)-$before-to-$version"
say "backup: $saved"
mkdir -p "$BACKUPS" && chmod 700 "$BACKUPS" && mkdir "$saved" && chmod 700 "$saved"
cp -a "$CONFIGURATION" "$saved/etc"
mkdir "$saved/units" && cp -a "$UNITS"/miad-gateway-*.service* "$saved/units/"
[ ! -d "$STATE/restore" ] || cp -a "$STATE/restore" "$saved/restore"
new() { CREDENTIALS_DIRECTORY="$CONFIGURATION/keys" "$PREFIX/releases/$version/venv/bin/miad-gateway" "$@" --config "$CONFIGURATION/gateway.toml"; }
revision=$(new database show --json | sed -n 's/.*"revision": "\([^"]*\)".*/\1/p')
[ "$revision" = - ] || new database backup --out "$saved/database"
if [ -n "$WHOLE" ]; then
    say "backup of the whole site: $saved/site.backup"
    new vault backup --out "$saved/site.backup" --passphrase-file "$WHOLE"
fi
echo "$before" > "$saved/from"; echo "$version" > "$saved/to"; echo "$revision" > "$saved/revision"; : > "$saved/digest"
ln -sfn "$saved" "$PREFIX/last-upgrade"

switch_to "$version"
put_units
gateway database upgrade || fail "the database could not be migrated: deploy/upgrade.sh --back"
fact digest > "$saved/digest"
say "starting: $roles"
start_and_see $roles || fail "not all services of $version stay up: deploy/upgrade.sh --back brings $before back"
say "$version is in force; on PostgreSQL run deploy/postgresql-grants.sql again. Back: deploy/upgrade.sh --back"
