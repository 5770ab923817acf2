#!/usr/bin/env bash
# Makes sure that the programs are on this machine with which tests mount filesystems of their own: a GlusterFS that they
# start themselves, and an ext4 in a file.
set -euo pipefail

here=$(dirname "$0")
PATH="$PATH:/usr/sbin:/sbin"

missing=()
for pair in glusterd:glusterfs-server gluster:glusterfs-client glusterfs:glusterfs-client mkfs.ext4:e2fsprogs losetup:mount; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "hpcresume: the tests of filesystems need ${missing[*]}" >&2
    "$here/install_debian.sh" "${missing[@]}" || true # then they are skipped, and say so
fi
