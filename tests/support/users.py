"""Being somebody who may not do everything."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["PLAIN_USER", "as_plain_user", "unprivileged"]

PLAIN_USER = 65534
"""Nobody."""

_BECOME = """\
set -eu
blocked=$1 prefix=$2 user=$3
shift 3
if [ -n "$blocked" ]; then
    mount --rbind "$prefix" /mnt
    mount -t tmpfs -o mode=755 tmpfs "$blocked"
    mkdir -p "$prefix"
    mount --rbind /mnt "$prefix"
fi
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"""


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As nobody, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(PLAIN_USER)
    try:
        yield
    finally:
        os.seteuid(0)


def as_plain_user(words: Sequence[str]) -> list[str]:
    """The command that runs `words` as nobody, if we are root.

    This Python may lie in a folder that only root may enter; for the command, and for it alone, it lies open.
    """
    if os.geteuid() != 0:
        return list(words)
    prefix = Path(sys.base_prefix)
    closed = [folder for folder in reversed(prefix.parents) if not folder.stat().st_mode & 0o001]
    begin = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BECOME, "sh"]
    return [*begin, str(closed[0]) if closed else "", str(prefix), str(PLAIN_USER), *words]
