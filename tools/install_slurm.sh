#!/usr/bin/env bash
# Makes sure that Slurm's programs are on this machine, for tests that start a small cluster of their own.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"
needed=(slurmctld slurmd sbatch srun scontrol squeue munged)
missing=()
for program in "${needed[@]}"; do
    command -v "$program" >/dev/null || missing+=("$program")
done
# Debian's mpi/pmix plugin opens the unversioned libpmix.so, which comes with the development package only.
if ! compgen -G '/usr/lib/*/pmix2/lib/libpmix.so' >/dev/null; then
    missing+=(libpmix.so)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

packages=(slurm-wlm slurmd slurmctld slurm-client munge libpmix-dev)
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
    printf 'hpcresume: the tests with a real Slurm need %s\n  try: as root, apt-get install --no-install-recommends %s\n' \
        "${missing[*]}" "${packages[*]}" >&2
    exit 1
fi
echo "hpcresume: installing ${packages[*]}"
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}")
# The package lists of a fresh container are empty, and those of an old one are stale.
if ! ${as_root[@]+"${as_root[@]}"} "${install[@]}" >/dev/null 2>&1; then
    ${as_root[@]+"${as_root[@]}"} apt-get update -qq
    ${as_root[@]+"${as_root[@]}"} "${install[@]}" >/dev/null
fi
