# Shared by the scripts: packages, ports, waiting. Sourced, not run.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

# need_packages NAME…: installs those Debian packages that are not there yet.
need_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    say "Installing ${missing[*]} with apt"
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    # Packages start no services of their own here: the scripts start what they need, and stop it.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# free_port: a port on loopback that nothing listens on.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%s\n' "$port"
}

# wait_for_port PORT NAME: until something listens there, for at most ten minutes: so that what hangs ends.
wait_for_port() {
    local end=$((SECONDS + 600))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || { printf '%s does not listen on port %s\n' "$2" "$1" >&2; return 1; }
        sleep 0.1
    done
}

# wait_for_url URL CA NAME: until it answers 200, for at most ten minutes: so that what hangs ends.
wait_for_url() {
    local end=$((SECONDS + 600))
    until curl -fsS --cacert "$2" -o /dev/null "$1" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || { printf '%s does not answer at %s\n' "$3" "$1" >&2; return 1; }
        sleep 0.1
    done
}

# find_go VERSION: a Go program of that version or later; if there is none, complains with what there is.
find_go() {
    local candidate have found=
    for candidate in go /usr/local/go/bin/go; do
        # Of "go1.26.8 X:…" or "devel go1.27-…" the number.
        have=$(GOTOOLCHAIN=local "$candidate" env GOVERSION 2>/dev/null | grep -o 'go[0-9][0-9.]*' | head -n 1) || continue
        found+="${found:+, }$have"
        if printf '%s\n' "$1" "${have#go}" | sort --version-sort --check=quiet; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    printf 'it takes Go %s or later, and this machine has %s (in PATH and /usr/local/go/bin); install it from https://go.dev/dl/\n' \
        "$1" "${found:-none}" >&2
    return 1
}

# go_build GO CACHE ARGUMENT…: builds what the module in this folder names, checked by its go.sum. A developer's settings must not
# change what is built, but those of the module proxy must reach it. The cache stays if the build is cut short, so that the next
# run goes on from there.
go_build() {
    local go=$1 cache=$2
    shift 2
    env -u GOOS -u GOARCH -u GOEXPERIMENT GOFLAGS=-mod=readonly GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=0 \
        GOCACHE="$cache" "$go" build -trimpath -buildvcs=false "$@"
}
