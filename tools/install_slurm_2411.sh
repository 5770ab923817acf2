#!/usr/bin/env bash
# Prints the folder of a Debian 13 that has Slurm 24.11 in it, for tests of what changed since 22.05, and makes it
# first where that is allowed (root, or sudo that asks nothing): about a minute, 500 MB, kept in the user's cache.
#   HPCRESUME_SLURM_ROOT  another folder
#   HPCRESUME_MIRROR      another Debian mirror than the one that apt is configured with
# Exits with 1, and says why on standard error, where it may not.
set -euo pipefail

root=${HPCRESUME_SLURM_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcresume/slurm-24.11}
packages=slurm-wlm,slurmctld,slurmd,slurm-client,slurmdbd,munge,mariadb-server-core,mariadb-client-core,python3

if [ -e "$root/.complete" ]; then
    echo "$root"
    exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
    if ! sudo -n true 2>/dev/null; then
        echo "hpcresume: no Slurm 24.11: making its root takes root's rights, or sudo without a password" >&2
        exit 1
    fi
fi
command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || "$(dirname "$0")/install_debian.sh" debootstrap >&2
PATH="$PATH:/usr/sbin:/sbin"

mirror=${HPCRESUME_MIRROR:-}
if [ -z "$mirror" ]; then
    # shellcheck disable=SC2016 # it is apt that fills REPO_URI in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m 1 '/debian/*$' || true)
fi
mirror=${mirror:-http://deb.debian.org/debian}
script=/usr/share/debootstrap/scripts/trixie
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # a debootstrap older than trixie

echo "hpcresume: making a Debian 13 with Slurm 24.11 in $root, from $mirror" >&2
new="$root.$$"
mkdir -p "$(dirname "$root")"
trap '${as_root[@]+"${as_root[@]}"} rm -rf "$new"' EXIT
if ! ${as_root[@]+"${as_root[@]}"} debootstrap --variant=minbase "--include=$packages" trixie "$new" "$mirror" "$script" \
    >"$root.log" 2>&1; then
    tail -5 "$root.log" >&2
    echo "hpcresume: debootstrap failed, see $root.log" >&2
    exit 1
fi
# Nothing is ever written in there later: places where files of the machine appear must exist, its Python among them.
places=(touch "$new/etc/hosts" "$new/etc/localtime" "$new/.complete")
for python in /usr/bin/python3.[0-9]*; do
    case "$python" in *-config | *'*'*) continue ;; esac
    ${as_root[@]+"${as_root[@]}"} mkdir -p "$new/usr/lib/${python##*/}"
    [ -e "$new$python" ] || places+=("$new$python")
done
${as_root[@]+"${as_root[@]}"} rm -rf "$new"/var/cache/apt/archives/*.deb
${as_root[@]+"${as_root[@]}"} "${places[@]}"
${as_root[@]+"${as_root[@]}"} mv -T "$new" "$root"
rm -f "$root.log"
echo "$root"
