#!/bin/sh
# Install sets of pinned packages and the checkout itself into .venv.
#
#   setup/install.sh SET...      a SET is the name of a file in requirements/
#   PYTHON=python3.12 ...        choose the Python; otherwise the newest supported one on PATH
#
# Run again with nothing changed, it does nothing and touches no network.
set -eu
cd "$(dirname "$0")/.."
. setup/env.sh
. setup/debian.sh

fail() {
    echo "setup: $1" >&2
    exit 1
}

# supported PYTHON: does it run, and is it a version that every pinned package has wheels for?
supported() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null
}

choose_python() {
    for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
        if supported "$python"; then
            return
        fi
    done
    fail "no Python from 3.11 to 3.14 among ${PYTHON:-the python3 on PATH}; install python3"
}

# Debian keeps ensurepip in python3-venv; its pip is a wheel in python3-pip-whl, which runs as it is.
install_pip_of_debian() {
    for folder in /usr .tools/debian/usr; do
        for wheel in "$folder"/share/python-wheels/pip-*.whl; do
            if [ -e "$wheel" ]; then
                .venv/bin/python "$wheel/pip" -q install --no-index --no-deps "$wheel"
                return
            fi
        done
    done
    return 1
}

create_venv() {
    choose_python
    echo "setup: creating .venv with $("$python" -V)"
    rm -rf .venv .tools/libpython.so
    if "$python" -c 'from ensurepip import version' 2> /dev/null; then
        "$python" -m venv .venv
    else
        "$python" -m venv --without-pip .venv
        install_pip_of_debian || { unpack python3-pip-whl && install_pip_of_debian; } \
            || fail "this Python has no pip; install python3-venv"
    fi
    pip_install -r requirements/build.txt
    pwd > .venv/place
}

# Is there a whole .venv, and was it made here? Its scripts name the place where they were installed.
usable_venv() {
    [ -e .venv/place ] && [ "$(pwd)" = "$(cat .venv/place)" ] && .venv/bin/python -c 'import pip'
}

# The pins name every package, so none is looked up; wheels only, so none is built here.
pip_install() {
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
        --no-deps --require-hashes --only-binary :all: "$@"
}

# key SET: changes with the pins of the set and with the package's own data.
key() {
    cat "requirements/$1.txt" requirements/build.txt pyproject.toml | sha256sum
}

for set in "$@"; do
    [ -e "requirements/$set.txt" ] || fail "no set $set in requirements/"
done
usable_venv 2> /dev/null || create_venv
for set in "$@"; do
    stamp=.venv/installed-$set
    if [ -e "$stamp" ] && [ "$(key "$set")" = "$(cat "$stamp")" ]; then
        continue
    fi
    echo "setup: installing requirements/$set.txt (the first time takes a minute or more)"
    pip_install -r requirements/build.txt -r "requirements/$set.txt"
    .venv/bin/python -m pip install -qq --disable-pip-version-check \
        --no-deps --no-build-isolation --no-index --editable .
    key "$set" > "$stamp"
done
