#!/bin/sh
# Installs what CALOS needs beside a Rust toolchain, or says in one line what to install: a C compiler with the headers of
# the C library, which some libraries are built with and every program is linked with, and PostgreSQL's server programs,
# which are not needed where DATABASE_URL names another PostgreSQL. Does nothing on a machine that has them. `setup.sh tests`
# adds what the tests need: PostgreSQL's programs whatever DATABASE_URL says, for they never use another, and hledger, which
# reads the exported journal as somebody outside would.
set -eu

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 3
}

# The oldest major version the program takes.
minimum_version=14

# Whether a folder holds the two programs, recent enough: `postgres (PostgreSQL) 15.18 (Debian ...)` says which.
serves() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null | sed -n 's/^[^)]*) \([0-9][0-9]*\).*/\1/p')
    [ "${version:-0}" -ge "$minimum_version" ]
}

# The same places the program looks in.
have_postgres() {
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
        program=$(readlink -f "$folder/postgres" 2>/dev/null || true)
        if [ -n "$program" ] && serves "${program%/*}"; then
            IFS=$old_ifs
            return 0
        fi
    done
    IFS=$old_ifs
    for program in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
        /opt/homebrew/opt/postgresql@*/bin/postgres /usr/local/opt/postgresql@*/bin/postgres; do
        serves "${program%/*}" && return 0
    done
    folder=$(pg_config --bindir 2>/dev/null) || return 1
    serves "$folder"
}

# Whether the programs would use a PostgreSQL that somebody else runs. They read the environment first, where empty is as
# good as absent, and then the nearest .env; of those, only the one in this folder is looked at here.
has_database() {
    if [ -n "${DATABASE_URL+set}" ]; then
        [ -n "$DATABASE_URL" ]
        return
    fi
    [ -r .env ] || return 1
    url=$(sed -n "s/^[[:space:]]*\(export[[:space:]][[:space:]]*\)\{0,1\}DATABASE_URL[[:space:]]*=[[:space:]]*//p" .env |
        tail -n 1 | sed "s/[[:space:]]*\(#.*\)\{0,1\}$//; s/^[\"']//; s/[\"']$//")
    [ -n "$url" ]
}

# Whether a program in C can be compiled and linked: a compiler alone cannot, without the C library's own files.
have_c() {
    command -v cc >/dev/null 2>&1 || return 1
    folder=$(mktemp -d) || fail 'no temporary folder can be made'
    printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' >"$folder/try.c"
    works=0
    cc -o "$folder/try" "$folder/try.c" >/dev/null 2>&1 || works=1
    rm -rf "$folder"
    return "$works"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "this user may not install $missing: as root, run: $*"
    fi
}

install_c() {
    missing='a C compiler and the headers of the C library'
    say 'no C compiler that links a program found, which building needs; installing one'
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -q
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc libc6-dev
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y gcc glibc-devel
    elif command -v xcode-select >/dev/null 2>&1; then
        fail 'a C compiler is missing: run xcode-select --install'
    else
        fail "a C compiler is missing: install cc and the C library's headers (gcc and libc6-dev, or what they are called here)"
    fi
    have_c || fail 'a C compiler was installed, but cc does not compile and link a program'
}

install_postgres() {
    missing='PostgreSQL, which is missing or too old'
    say "no server programs of PostgreSQL $minimum_version or later found; installing them"
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -q
        # The package would make and start a cluster of its own, which CALOS has no use for.
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            as_root sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
                echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/calos.conf'
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y postgresql-server
    elif command -v brew >/dev/null 2>&1; then
        brew install postgresql@17
    else
        fail "PostgreSQL $minimum_version or later is missing: install its server programs (postgres, initdb), or set DATABASE_URL"
    fi
    have_postgres || fail "PostgreSQL was installed, but no postgres and initdb of version $minimum_version or later are where CALOS looks"
}

# Old ones do not know the layout the tests ask for.
have_hledger() {
    command -v hledger >/dev/null 2>&1 && hledger bal --layout=bare -f /dev/null >/dev/null 2>&1
}

install_hledger() {
    missing='hledger, which is missing or too old'
    say 'no hledger 1.25 or later found, which the tests hold the exported journal against; installing it'
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -q
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends hledger
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y hledger
    elif command -v brew >/dev/null 2>&1; then
        brew install hledger
    else
        fail 'hledger is missing, which the tests need: install it from https://hledger.org/install'
    fi
    have_hledger || fail 'no hledger 1.25 or later is on the PATH after installing it: take one from https://hledger.org/install'
}

command -v cargo >/dev/null 2>&1 || fail 'a Rust toolchain is missing: install it from https://rustup.rs'
for component in rustfmt clippy; do
    case $component in
        rustfmt) tool=fmt ;;
        clippy) tool=clippy ;;
    esac
    if ! cargo "$tool" --version >/dev/null 2>&1; then
        command -v rustup >/dev/null 2>&1 || fail "cargo $tool is missing: install the Rust component $component"
        rustup component add "$component"
    fi
done
have_c || install_c
if [ "${1:-}" = tests ] || ! has_database; then
    have_postgres || install_postgres
fi
if [ "${1:-}" = tests ]; then
    have_hledger || install_hledger
fi
