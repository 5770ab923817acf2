# shellcheck shell=sh
# Sourced: puts .venv first on the PATH, keeps numeric libraries to one thread, and lets Open MPI run as root
# when the user is root (it refuses otherwise).
here=$(pwd)
PATH="$here/.venv/bin:$PATH"
export PATH
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
