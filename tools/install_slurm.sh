#!/usr/bin/env bash
# Makes sure that Slurm's programs are on this machine, for tests that start a small cluster of their own.
set -euo pipefail

here=$(dirname "$0")
PATH="$PATH:/usr/sbin:/sbin"

missing_of() {
    for program in "$@"; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

missing=$(missing_of slurmctld slurmd sbatch srun scontrol squeue munged)
# Debian's mpi/pmix plugin opens the unversioned libpmix.so, which comes with the development package only.
compgen -G '/usr/lib/*/pmix2/lib/libpmix.so' >/dev/null || missing="$missing libpmix.so"
if [ -n "$missing" ]; then
    echo "hpcresume: the tests with a real Slurm need ${missing//$'\n'/ }" >&2
    "$here/install_debian.sh" slurm-wlm slurmd slurmctld slurm-client munge libpmix-dev
fi

# Without these two the tests of accounting, and those of a second version, are skipped and say so; in CI they fail.
if [ -n "$(missing_of slurmdbd mariadbd mariadb-install-db my_print_defaults)" ]; then
    "$here/install_debian.sh" slurmdbd mariadb-server-core mariadb-client-core || true
fi
"$here/install_slurm_2411.sh" >/dev/null || true
