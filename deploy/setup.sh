# Sourced by quickstart.sh and test.sh: a private .venv and the Debian packages that the caller asks for.
# Safe to run again: what is there is kept, what is missing is added.

# MIAD_TORCH chooses the build of torch: "default" (the index's usual build, CUDA on Linux), "cpu" (the CPU build of the
# pinned version, where your package index has it), or the URL of an index that holds PyTorch's CPU wheels.
# Unset: "cpu" where no NVIDIA driver is found, else "default".
choose_torch() {
    if [ -n "${MIAD_TORCH:-}" ]; then echo "$MIAD_TORCH"
    elif [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null 2>&1; then echo default
    else echo cpu; fi
}

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_programs PROGRAM:PACKAGE ... - installs Debian packages for programs that are missing (as root), else says which.
need_programs() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] ||
            compgen -G "/usr/lib/postgresql/*/bin/${pair%%:*}" >/dev/null ||
            [ -e "/usr/share/orthanc/plugins/${pair%%:*}" ] || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] ||
        fail "these programs are needed: run as root 'apt-get install ${missing[*]}', then run this again"
    say "installing Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    # Debian starts Orthanc at once on the port that an archive would use; we start our own.
    if [ -x /etc/init.d/orthanc ]; then /etc/init.d/orthanc stop >/dev/null 2>&1 || true; fi
    if [ -x /etc/init.d/prometheus ]; then /etc/init.d/prometheus stop >/dev/null 2>&1 || true; fi
    if [ -x /etc/init.d/etcd ]; then /etc/init.d/etcd stop >/dev/null 2>&1 || true; fi
}

# has_memory_for_files GIB - whether /dev/shm takes so much, runs programs, and the machine has it to spare.
has_memory_for_files() {
    local kib=$(($1 << 20)) program=/dev/shm/miad-$$ runs=no
    [ -w /dev/shm ] && [ "$(df --output=avail -k /dev/shm | tail -n 1)" -ge "$kib" ] &&
        [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -ge "$kib" ] || return 1
    printf '#!/bin/sh\n' > "$program" && chmod 700 "$program" && "$program" && runs=yes
    rm -f "$program"
    [ "$runs" = yes ]
}

# find_python - a CPython of at least 3.11 that can make virtual environments.
find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            { echo "$name"; return 0; }
    done
    return 1
}

# need_python - a Python that makes virtual environments, from Debian where there is none.
need_python() { find_python >/dev/null || need_programs python3:python3 no-such-program-venv:python3-venv; }

# install_packages VENV EXTRAS SOURCE [OPTION] - the gateway from SOURCE ("-e ." for a checkout to work in) at the pinned
# versions; an OPTION of `pip install` besides.
install_packages() {
    local venv="$1" extras="$2" source="$3" option="${4:-}" torch pins="$1/constraints.txt" root="${HERE:-$PWD/deploy}"
    torch=$(choose_torch)
    say "installing Python packages (torch: $torch)"
    case "$torch" in
        default) grep -v '^torch==' "$root/constraints.txt" > "$pins" ;;
        cpu) cp "$root/constraints.txt" "$pins" ;;
        *) cp "$root/constraints.txt" "$pins"
           "$venv/bin/pip" install --quiet --disable-pip-version-check --index-url "$torch" \
               "$(grep '^torch==' "$root/constraints.txt")" || return 1 ;;
    esac
    # shellcheck disable=SC2086  # "-e ." is two words
    "$venv/bin/pip" install --quiet --disable-pip-version-check $option -c "$pins" $source"$extras"
}

# make_venv EXTRAS [OPTION] - .venv with the gateway installed from this checkout, e.g. make_venv "[test]".
make_venv() {
    local extras="$1" python stamp wanted torch
    if [ ! -x .venv/bin/python ]; then
        need_python
        python=$(find_python) || fail "Python 3.11 or newer is needed, with the venv module"
        say "creating .venv with $($python --version)"
        "$python" -m venv .venv
    fi
    torch=$(choose_torch)
    wanted=$(cat pyproject.toml deploy/constraints.txt <(echo "$extras $torch $PWD") | sha256sum | cut -c1-16)
    stamp=.venv/installed-$(echo "$extras" | tr -dc a-z)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    install_packages .venv "$extras" "-e ." "${2:-}"
    echo "$wanted" > "$stamp"
}
