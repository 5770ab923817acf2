"""What to try when the operating system refuses: one line for each errno that a user can do something about."""

from __future__ import annotations

import errno

__all__ = ["hint_for", "is_away"]

_AWAY = frozenset(
    {
        errno.ECOMM, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.ENODEV, errno.ENOLINK, errno.ENOTCONN,
        errno.EREMOTEIO, errno.ESHUTDOWN, errno.ETIMEDOUT,
    }
)  # fmt: skip
"""What a filesystem over a network, or FUSE, says when it does not reach its servers or its own process."""

_HINTS = {
    errno.ENOSPC: "free some space, or use another filesystem",
    errno.EDQUOT: "look at your quota",
    errno.EACCES: "check who owns the path and its mode",
    errno.EPERM: "check who owns the path and its mode",
    errno.EROFS: "the filesystem is mounted read-only: use another one",
    errno.ENOENT: "check the path: something in it is gone",
    errno.ENOTDIR: "a file is in the place of a directory: move it away",
    errno.EEXIST: "something else is in the place: move it away",
    errno.EIO: "the storage failed: look at its health, or use another filesystem",
    errno.ESTALE: "the filesystem was mounted anew: try again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "use a shorter path",
}


def hint_for(number: int | None, *, otherwise: str = "") -> str:
    """What to try after an OSError with this errno."""
    if is_away(number):
        return "the filesystem does not reach its servers: look at its health and at this node's mount"
    return _HINTS.get(number or 0, otherwise)


def is_away(number: int | None) -> bool:
    """Does this errno say that the storage cannot be reached, and nothing about the file itself?"""
    return number in _AWAY
