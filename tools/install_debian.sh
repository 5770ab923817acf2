#!/usr/bin/env bash
# install_debian.sh PACKAGE ...: installs Debian or Ubuntu packages where that is allowed (root, or sudo that asks nothing);
# otherwise says what is missing and what to type, and exits with 1.
set -euo pipefail

as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
    printf 'hpcresume: missing packages: %s\n  try: as root, apt-get install --no-install-recommends %s\n' "$*" "$*" >&2
    exit 1
fi
echo "hpcresume: installing $*"
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
# The package lists of a fresh container are empty, and those of an old one are stale.
if ! ${as_root[@]+"${as_root[@]}"} "${install[@]}" >/dev/null 2>&1; then
    ${as_root[@]+"${as_root[@]}"} apt-get update -qq
    ${as_root[@]+"${as_root[@]}"} "${install[@]}" >/dev/null
fi
