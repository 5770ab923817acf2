#!/usr/bin/env bash
# Makes sure that Slurm's programs are on this machine, for tests that start a small cluster of their own.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"
missing=()
for program in slurmctld slurmd sbatch srun scontrol squeue munged; do
    command -v "$program" >/dev/null || missing+=("$program")
done
# Debian's mpi/pmix plugin opens the unversioned libpmix.so, which comes with the development package only.
compgen -G '/usr/lib/*/pmix2/lib/libpmix.so' >/dev/null || missing+=(libpmix.so)
[ ${#missing[@]} -eq 0 ] && exit 0

echo "hpcresume: the tests with a real Slurm need ${missing[*]}" >&2
exec "$(dirname "$0")/install_debian.sh" slurm-wlm slurmd slurmctld slurm-client munge libpmix-dev
