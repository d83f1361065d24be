#!/bin/sh
# Give cocotb what it needs: an HDL simulator, and Python as a shared library.
# What the system lacks is unpacked under .tools/; what cannot be had is named, and its tests are not run.
set -eu
cd "$(dirname "$0")/.."
. setup/env.sh
. setup/debian.sh

not_run() {
    echo "setup: $1; the cocotb tests are not run" >&2
}

# wrap TOOL OPTION: a script .tools/bin/TOOL that runs the unpacked TOOL with its own folder of plug-ins.
wrap() {
    tool=$(echo "$PWD"/.tools/debian/usr/bin/"$1")
    plugins=$(echo "$PWD"/.tools/debian/usr/lib/*/ivl)
    mkdir -p .tools/bin
    printf '#!/bin/sh\nexec "%s" %s "%s" "$@"\n' "$tool" "$2" "$plugins" > ".tools/bin/$1"
    chmod +x ".tools/bin/$1"
}

simulator_runs() {
    iverilog -V > /dev/null 2>&1 && vvp -V > /dev/null 2>&1
}

find_simulator() {
    simulator_runs && return
    unpack iverilog && wrap iverilog -B && wrap vvp -M && simulator_runs && return
    rm -f .tools/bin/iverilog .tools/bin/vvp
    not_run "no HDL simulator (install iverilog)"
}

find_libpython() {
    found=$(.venv/bin/python -c 'import find_libpython as f; print(f.find_libpython() or "")')
    [ -z "$found" ] && [ ! -e .tools/libpython.so ] || return 0
    # Debian's library serves Debian's own Python of the same version, and no other build.
    case $(.venv/bin/python -c 'import sys; print(sys.base_prefix)') in
        /usr)
            name=$(.venv/bin/python -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')
            if unpack "$name"; then
                ln -sf "$(echo "$PWD"/.tools/debian/usr/lib/*/"$name".so.1.0)" .tools/libpython.so
                return
            fi
            ;;
    esac
    not_run "this Python has no shared library (install libpython3-dev)"
}

find_simulator
find_libpython
