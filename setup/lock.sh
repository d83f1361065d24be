#!/bin/sh
# Resolve the bounds of pyproject.toml anew into requirements/, hashed and without an address.
# A tool of the maintainers: it needs uv on PATH.
set -eu
cd "$(dirname "$0")/.."
. setup/env.sh

# lock SET OPTION...: write requirements/SET.txt.
lock() {
    output=requirements/$1.txt
    shift
    uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
        --custom-compile-command 'make lock' --output-file "$output" "$@"
}

lock test pyproject.toml --all-extras
# The same versions in every set, so that they share one .venv.
lock run pyproject.toml --extra rtl --extra plot --extra model --constraint requirements/test.txt
lock build --group pyproject.toml:build
lock sample --group pyproject.toml:sample --no-deps
lock cells --group pyproject.toml:cells --no-deps
