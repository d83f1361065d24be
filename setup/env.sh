# The environment of every command of the Makefile: caches inside the checkout, tools under .tools/ found.
# Source it from the top of the checkout.

cache=$PWD/.cache
mkdir -p "$cache/tmp"

export HYPOTHESIS_STORAGE_DIRECTORY="$cache/hypothesis"
export MPLCONFIGDIR="$cache/matplotlib"
export NUMBA_CACHE_DIR="$cache/numba"
export PIP_CACHE_DIR="$cache/pip"
export YOWASP_CACHE_DIR="$cache/yowasp"
export XDG_CACHE_HOME="$cache/xdg/cache" XDG_CONFIG_HOME="$cache/xdg/config"
export XDG_DATA_HOME="$cache/xdg/data" XDG_STATE_HOME="$cache/xdg/state"
export TMPDIR="$cache/tmp"
unset cache

# Small products gain nothing from threads, and two of them on busy cores lose much.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"

# Another Yosys on PATH would emit other Verilog.
export AMARANTH_USE_YOSYS=builtin

# Only what is installed in .venv is imported.
export PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME

case ":$PATH:" in
    *":$PWD/.venv/bin:"*) ;;
    *) PATH="$PWD/.venv/bin:$PATH:$PWD/.tools/bin" ;;
esac
export PATH

# cocotb loads Python as a shared library; setup/simulator.sh unpacks one where the system has none.
if [ -e .tools/libpython.so ]; then
    export LIBPYTHON_LOC="$PWD/.tools/libpython.so"
fi
