#!/usr/bin/env bash
# Goes to the release of this checkout: makes it beside the one in force, stops, backs up, migrates, starts. As root.
# Usage: deploy/upgrade.sh [--prefix DIR] [--wheelhouse DIR | --venv DIR] [--extras LIST] [--python PROGRAM] [--backups DIR] [--whole FILE]
#        deploy/upgrade.sh --back [--prefix DIR]
#   --backups DIR   where the copy of configuration, keys, units and database goes; /var/backups/miad-gateway
#   --whole FILE    besides, `miad-gateway vault backup`: all originals too, under the passphrase in FILE (its first line)
#   --back          the release before: with all rows where it can read them; the copy of the database where nothing has
#                   happened since; else it says so and stays
# What is acknowledged is never lost: originals and spool stay where they are in either direction. What ends half way starts
# the old release again, or, once the new one is in force, is ended by running the same command again.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PREFIX=/opt/miad-gateway WHEELHOUSE='' VENV='' EXTRAS='[postgresql]' BACKUPS=/var/backups/miad-gateway WHOLE='' BACK=no
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
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
                --backups) BACKUPS=$(realpath -m "$2") ;;
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

# fact NAME: of `database show`, in the release in force; nothing where it cannot be told.
fact() { gateway database show --json 2>/dev/null | sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" || true; }

last="$PREFIX/last-upgrade"

# note NAME VALUE: of the upgrade at hand; whole, or not there.
note() { printf '%s\n' "$2" > "$saved/.$1" && mv "$saved/.$1" "$saved/$1"; }
noted() { cat "$last/$1" 2>/dev/null || true; }

# configuration_of_then: where the older release refuses today's; that stays beside it as NAME.newer.
configuration_of_then() {
    local name
    ! gateway config check >/dev/null 2>&1 || return 0
    say "$(in_force) does not take today's configuration: that of before the upgrade is put back, today's is beside it as .newer"
    for name in gateway.toml conf.d; do
        [ ! -e "$CONFIGURATION/$name" ] || [ -e "$CONFIGURATION/$name.newer" ] || cp -a "$CONFIGURATION/$name" "$CONFIGURATION/$name.newer"
    done
    rm -rf "$CONFIGURATION/conf.d" # its parts go with gateway.toml
    [ ! -d "$last/etc/conf.d" ] || cp -a "$last/etc/conf.d" "$CONFIGURATION/conf.d"
    cp -p "$last/etc/gateway.toml" "$CONFIGURATION/.gateway.toml"
    mv -T "$CONFIGURATION/.gateway.toml" "$CONFIGURATION/gateway.toml"
    gateway config check >&2 || say "$(in_force) does not take that either: mend it"
}

go_back() {
    local old revision digest now
    [ -L "$last" ] && [ -n "$(noted from)" ] || fail "no upgrade is known here that could be undone"
    old=$(noted from)
    if [ "$old" != "$before" ] || [ ! -e "$last/going-back" ]; then # else it was interrupted, and the database is done
        [ "$(noted to)" = "$before" ] || fail "the last upgrade was to $(noted to), and $before is in force: nothing to undo"
        [ -e "$PREFIX/releases/$old/complete" ] || fail "release $old is gone from $PREFIX/releases: install it from its own checkout"
        revision=$(noted revision) digest=$(noted digest)
        say "back from $before to $old: stopping"
        trap ended EXIT
        stop_all
        now=$(fact revision)
        if [ -n "$now" ] && [ "$now" = "$revision" ]; then
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
        touch "$last/going-back"
        switch_to "$old"
    else
        say "back to $old, which is in force: stopping"
        stop_all
    fi
    put_units
    configuration_of_then
    start_and_see $roles || fail "not all services of $old stay up"
    rm -f "$last"
    say "$old is in force again"
}

# finish: the new release is in force; its units, its schema, its services.
finish() {
    put_units
    gateway database upgrade || fail "the database could not be migrated: deploy/upgrade.sh --back"
    [ "$1" = resumed ] || note digest "$(fact digest)" # resumed: services may have run in between
    say "starting: $roles"
    start_and_see $roles || fail "not all services of $version stay up: deploy/upgrade.sh --back brings $before back"
    touch "$last/done"
    say "$version is in force; on PostgreSQL run deploy/postgresql-grants.sql again. Back: deploy/upgrade.sh --back"
}

saved='' from=$before
# ended: however it ended, nothing stays stopped that could run, and no half of a backup, with keys in it, stays.
ended() {
    local code=$?
    trap - EXIT
    [ "$code" != 0 ] || exit 0
    if [ "$(in_force)" = "$from" ] && [ "$BACK" = no ]; then
        say "the upgrade ended before anything was changed: starting $from again"
        start_and_see $roles || true
        [ -z "$saved" ] || [ "$(readlink "$last")" = "$saved" ] || rm -rf "$saved"
    else
        say "it did not end well; $(in_force) is in force. Run this again, or systemctl start, or deploy/upgrade.sh --back"
    fi
    exit "$code"
}

# has_room: for the copies that are made once everything has stopped, with a tenth to spare.
has_room() {
    local needed there
    needed=$({ du -sk "$CONFIGURATION" "$STATE/restore" "$STATE/database" 2>/dev/null || true; } | awk '{ sum += $1 } END { print int(sum * 1.1) + 1024 }')
    there=$(df -Pk "$BACKUPS" | awk 'NR == 2 { print $4 }')
    [ "$there" -ge "$needed" ] || fail "$BACKUPS has $((there / 1024)) MiB free, and the backup takes $((needed / 1024)): nothing was changed"
}

roles=$(enabled_roles)
if [ "$BACK" = yes ]; then
    go_back
    exit 0
fi

version=$(version_of_source)
if [ "$version" = "$before" ]; then
    [ -e "$last/to" ] && [ "$(noted to)" = "$version" ] && [ ! -e "$last/done" ] || { say "release $version is in force already"; exit 0; }
    say "the upgrade to $version was interrupted: going on with it"
    before=$(noted from)
    stop_all
    finish resumed
    exit 0
fi
make_release "$version"
CREDENTIALS_DIRECTORY="$CONFIGURATION/keys" "$PREFIX/releases/$version/venv/bin/miad-gateway" config check \
    --config "$CONFIGURATION/gateway.toml" >&2 || fail "$version does not take this configuration: nothing was changed"
[ -d "$BACKUPS" ] || { mkdir -p "$BACKUPS" && chmod 700 "$BACKUPS"; } # one that is there may have other users
has_room

say "from $before to $version: stopping"
trap ended EXIT
stop_all
saved=$(mktemp -d "$BACKUPS/$(date -u +%Y%m%dT%H%M%SZ)-$before-to-$version.XXXX") # closed, and none that is there
say "backup: $saved"
cp -a "$CONFIGURATION" "$saved/etc"
mkdir "$saved/units" && cp -a "$UNITS"/miad-gateway-*.service* "$saved/units/"
[ ! -d "$STATE/restore" ] || cp -a "$STATE/restore" "$saved/restore"
new() { CREDENTIALS_DIRECTORY="$CONFIGURATION/keys" "$PREFIX/releases/$version/venv/bin/miad-gateway" "$@" --config "$CONFIGURATION/gateway.toml"; }
revision=$(new database show --json | sed -n 's/.*"revision": "\([^"]*\)".*/\1/p')
[ -n "$revision" ] || fail "the database does not say which schema it has"
[ "$revision" = - ] || new database backup --out "$saved/database"
if [ -n "$WHOLE" ]; then
    say "backup of the whole site: $saved/site.backup"
    new vault backup --out "$saved/site.backup" --passphrase-file "$WHOLE"
fi
note from "$before"
note revision "$revision"
note to "$version"
sync -f "$saved"
link "$saved" "$last"

switch_to "$version"
finish first
