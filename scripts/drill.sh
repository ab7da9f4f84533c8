#!/bin/sh
# Runs the runbook's drills: `drill.sh` names them, `drill.sh NAME` runs one at length, `drill.sh all` one after the other.
# They are the tests of `make test`, which go on for as many times as long here as CALOS_DRILL_FACTOR says, 20 when it says
# nothing. CALOS_DRILL_DISK=limit fills no file system of its own but limits PostgreSQL's files, as containers need it.
set -eu

cd "$(dirname "$0")/.."

drills() { sed -n 's/^mod \([a-z_]*\);$/\1/p' tests/drills/main.rs | grep -v -x -e binaries -e server -e extent -e wire; }

case ${1:-} in
'')
    echo 'usage: scripts/drill.sh NAME | all' >&2
    drills >&2
    exit 2
    ;;
all) filter= ;;
*)
    drills | grep -q -x -- "$1" || {
        echo "drill.sh: there is no drill $1; these are: $(drills | tr '\n' ' ')" >&2
        exit 2
    }
    filter=$1::
    ;;
esac

export CALOS_DRILL_FACTOR="${CALOS_DRILL_FACTOR:-20}"
cargo build --locked --workspace --bins
exec cargo test --locked --package calos-tests --test drills -- --test-threads=1 --nocapture $filter
