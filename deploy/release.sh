# Sourced by install.sh and upgrade.sh: releases beside each other under a prefix, one of them in force, its units.
#
#   PREFIX/releases/VERSION/venv      the program and all that it needs     (with --venv: a link to one made elsewhere)
#   PREFIX/releases/VERSION/deploy    units, scripts and documents of that version
#   PREFIX/current                    a link to the release in force; PREFIX/.venv and PREFIX/README.md lead through it

. "$HERE/setup.sh"

UNITS=/etc/systemd/system
CONFIGURATION=/etc/miad-gateway
STATE=/var/lib/miad-gateway
ROLES="ingress worker restore page"

umask 022 # services run as users of their own: with root's 077 they could not read what is installed

need_root() {
    [ "$(id -u)" = 0 ] || fail "run this as root: it makes users, folders and services"
    local program
    case "$PREFIX" in
        *[!A-Za-z0-9/._-]*) fail "--prefix $PREFIX: letters, digits and . _ - / alone, as it goes into units" ;;
        /*) PREFIX=$(realpath -m "$PREFIX") ;;
        *) fail "--prefix $PREFIX: write the whole path" ;;
    esac
    case "$PREFIX/" in
        // | /home/* | /root/* | /tmp/* | /var/tmp/* | /run/*)
            fail "$PREFIX is closed to the services (ProtectHome, PrivateTmp): choose another --prefix" ;;
    esac
    [ -L "$PREFIX/.venv" ] || [ ! -e "$PREFIX/.venv" ] || fail "$PREFIX/.venv was made by hand: stop its services and move it aside"
    for program in systemctl systemd-sysusers systemd-tmpfiles; do
        command -v "$program" >/dev/null 2>&1 || fail "$program is not here: this is for systems with systemd"
    done
    mkdir -p "$PREFIX"
    exec 8>"$PREFIX/lock" && flock -n 8 || fail "another installation or upgrade under $PREFIX is under way"
}

# version_of_source: what this checkout would install; with --venv what that environment holds.
version_of_source() {
    local version
    if [ -n "$VENV" ]; then
        [ -x "$VENV/bin/miad-gateway" ] || fail "$VENV holds no bin/miad-gateway: name a virtual environment that has it"
        version=$("$VENV/bin/miad-gateway" --version | sed 's/^miad-gateway //')
    else
        version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$HERE/../pyproject.toml" | head -1)
    fi
    case "$version" in # it names a folder that is removed before it is made
        [0-9]*) [ -z "${version//[A-Za-z0-9.+_-]/}" ] && { echo "$version"; return 0; } ;;
    esac
    fail "the source does not say which version it is: '$version'"
}

# make_release VERSION: nothing that is in force changes; an interrupted one is made anew, a finished one stays.
make_release() {
    local release="$PREFIX/releases/$1" python
    [ -e "$release/complete" ] && { say "release $1 is there"; return 0; }
    rm -rf "$release"
    mkdir -p "$release"
    chmod 755 "$PREFIX" "$PREFIX/releases" "$release"
    if [ -n "$VENV" ]; then
        ln -s "$(realpath "$VENV")" "$release/venv"
    else
        python=$(find_python) || fail "Python 3.11 or newer with venv is needed (apt-get install python3-venv), or --python"
        say "release $1: making its environment with $("$python" --version)"
        "$python" -m venv "$release/venv"
        if [ -n "$WHEELHOUSE" ]; then
            [ -e "$WHEELHOUSE/requirements.txt" ] || fail "$WHEELHOUSE holds no requirements.txt: make it with deploy/wheelhouse.sh"
            "$release/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$WHEELHOUSE" \
                --require-hashes -r "$WHEELHOUSE/requirements.txt" || fail "the wheelhouse does not fit this machine: nothing was changed"
        else
            install_packages "$release/venv" "$EXTRAS" "$(realpath "$HERE/..")" || fail "packages could not be installed: nothing was changed"
        fi
    fi
    mkdir "$release/deploy"
    (cd "$HERE" && cp -a . "$release/deploy/")
    cp "$HERE/../README.md" "$HERE/../LICENSE" "$release/"
    chmod -R u=rwX,go=rX "$release/deploy" "$release/README.md" "$release/LICENSE"
    "$release/venv/bin/miad-gateway" --version >/dev/null || fail "release $1 does not run: nothing was changed"
    touch "$release/complete"
}

# switch_to VERSION: in one step.
switch_to() {
    link "releases/$1" "$PREFIX/current"
    ln -sfn current/venv "$PREFIX/.venv"
    ln -sfn current/README.md "$PREFIX/README.md"
    if [ -d /usr/local/bin ] && [ -w /usr/local/bin ] && [ ! -e /usr/local/bin/miad-gateway ]; then
        ln -s "$PREFIX/.venv/bin/miad-gateway" /usr/local/bin/miad-gateway
    fi
}

# link TARGET PATH: in one step, whatever was there.
link() {
    ln -sfn "$1" "$2.new"
    mv -T "$2.new" "$2"
}

# stop_all: and none that goes on: two releases on one database would undo each other's work.
stop_all() {
    local role unit
    for role in $ROLES; do
        unit="miad-gateway-$role.service"
        systemctl stop "$unit" 2>/dev/null || true
        case "$(systemctl show -P ActiveState "$unit" 2>/dev/null || true)" in
            active | activating | reloading | deactivating) fail "$unit does not stop: systemctl kill -s KILL $unit, then run this again" ;;
        esac
    done
}

# in_force: the version that is; empty when there is none.
in_force() { basename "$(readlink "$PREFIX/current" 2>/dev/null || true)"; }

# put_units: users, folders and units of the release in force. Drop-ins (systemctl edit) stay.
put_units() {
    local from="$PREFIX/current/deploy/systemd" role folder
    mkdir -p /etc/sysusers.d /etc/tmpfiles.d
    install -m 644 "$from/miad-gateway.sysusers.conf" /etc/sysusers.d/miad-gateway.conf
    install -m 644 "$from/miad-gateway.tmpfiles.conf" /etc/tmpfiles.d/miad-gateway.conf
    systemd-sysusers /etc/sysusers.d/miad-gateway.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/miad-gateway.conf
    for role in $ROLES; do
        [ -e "$from/miad-gateway-$role.service" ] || { rm -f "$UNITS/miad-gateway-$role.service"; continue; }
        sed "s|/opt/miad-gateway/|$PREFIX/|g" "$from/miad-gateway-$role.service" > "$UNITS/miad-gateway-$role.service"
        chmod 644 "$UNITS/miad-gateway-$role.service"
        # As the unit's StateDirectory= does at its start: the check looks for them before that.
        for folder in $(sed -n 's/^StateDirectory=//p' "$UNITS/miad-gateway-$role.service"); do
            install -d -m 700 -o "miad-$role" -g "miad-$role" "/var/lib/$folder"
        done
    done
    systemctl daemon-reload
}

# gateway COMMAND...: the release in force, as root, who may read the keys.
gateway() { CREDENTIALS_DIRECTORY="$CONFIGURATION/keys" MIAD_GATEWAY_CONFIG="$CONFIGURATION/gateway.toml" "$PREFIX/.venv/bin/miad-gateway" "$@"; }

# wanted_roles: those that the configuration has something to do for.
wanted_roles() {
    local files=("$CONFIGURATION/gateway.toml" "$CONFIGURATION"/conf.d/*.toml)
    echo worker
    grep -qs '^[[:space:]]*\[\[routes\]\]' "${files[@]}" && echo ingress
    grep -qs '^[[:space:]]*\[restore\]' "${files[@]}" && echo restore
    grep -qs '^[[:space:]]*\[page\]' "${files[@]}" && echo page
    return 0
}

# start_and_see ROLE...: started, and each has said in its log that it is ready; READY_S seconds at most.
start_and_see() {
    local role unit deadline=$((SECONDS + ${READY_S:-180}))
    for role; do systemctl reset-failed "miad-gateway-$role.service" 2>/dev/null || true; done
    for role; do systemctl start "miad-gateway-$role.service" || { why_not "$role"; return 1; }; done
    for role; do
        unit="miad-gateway-$role.service"
        until is_ready "$unit"; do
            [ "$(systemctl show -P ActiveState "$unit")" = active ] && [ "$(systemctl show -P NRestarts "$unit")" = 0 ] ||
                { why_not "$role"; return 1; }
            [ "$SECONDS" -lt "$deadline" ] ||
                { say "$unit is up, and has not said that it is ready (it does at log level info): look at its log"; break; }
            sleep 1
        done
    done
}

# is_ready UNIT: what runs now has written so.
is_ready() {
    journalctl --no-pager --output=cat "_SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID "$1")" 2>/dev/null |
        grep -w ready >/dev/null
}

why_not() {
    printf 'error: miad-gateway-%s.service does not stay up (%s); its last lines:\n' "$1" \
        "$(systemctl show -P Result -P ExecMainStatus "miad-gateway-$1.service" | tr '\n' ' ')" >&2
    journalctl --no-pager --output=cat --lines=10 --unit "miad-gateway-$1.service" >&2 || true
}
