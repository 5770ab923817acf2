"""Votes: one failure is everybody's failure, with one error that names the rank.

Owns the wire format of an error (JSON; class names are looked up in `hpcresume.errors` only, nothing is
executed). Knows no backend.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from typing import Any

from hpcresume import errors
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import DamagedError, HpcresumeError, NoSpaceError, PeerFailureError

__all__ = ["agree_bytes", "vote"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HINT_OF_FULL = "free space or raise the quota, then start the job again"


def vote(ranks: Ranks, phase: str, error: BaseException | None) -> None:
    """Collective. Return when no rank brings an error; otherwise raise on every rank.

    All ranks raise the class that the first failing rank brought, rebuilt from its text, with `where`
    naming that rank; further failing ranks are counted. A full filesystem (ENOSPC, EDQUOT) becomes
    `NoSpaceError`; any other exception that is not ours becomes `PeerFailureError`. Where the error is
    local, the shared one is chained from it. Costs one allgather of empty bytes while all is well.

    Args:
        ranks: who votes.
        phase: what was done, for the message: "write", "restore" …
        error: what went wrong on this rank, or None.

    Raises:
        HpcresumeError: some rank brought an error.
        BaseException: the local error itself, if it is no `Exception` (KeyboardInterrupt, SystemExit).
    """
    ballots = ranks.allgather(_encode(phase, error))
    if error is not None and not isinstance(error, Exception):
        raise error
    failed = [rank for rank, ballot in enumerate(ballots) if ballot]
    if not failed:
        return
    if ranks.size == 1 and isinstance(error, HpcresumeError):
        raise error
    raise _shared(ballots, failed) from error


def agree_bytes(ranks: Ranks, data: bytes) -> bytes:
    """Collective. Rank 0's `data`, on every rank."""
    return ranks.broadcast(data, 0)


def _encode(phase: str, error: BaseException | None) -> bytes:
    if error is None:
        return b""
    return json.dumps(_fields(phase, error), allow_nan=False).encode()


def _fields(phase: str, error: BaseException) -> dict[str, str | int]:
    if isinstance(error, HpcresumeError):
        fields: dict[str, str | int] = {
            "class": _shared_class(type(error)).__name__,
            "what": str(error.what),
            "where": str(error.where),
            "hint": str(error.hint),
        }
        if isinstance(error, DamagedError):
            fields.update(generation=error.generation, tensor=error.tensor, offset=int(error.offset))
        return fields
    if isinstance(error, OSError) and error.errno in _FULL:
        name = "" if error.filename is None else str(error.filename)
        what = f"no space left during {phase}: {error.strerror}"
        return {"class": NoSpaceError.__name__, "what": what, "where": name, "hint": _HINT_OF_FULL}
    return {"class": "", "what": f"{phase} failed with {type(error).__name__}: {error}"}


def _shared_class(kind: type[HpcresumeError]) -> type[HpcresumeError]:
    """The nearest base that every rank knows: a subclass may be defined in one rank's code only."""
    return next(base for base in kind.__mro__ if _known(base.__name__) is base)


def _known(name: object) -> type[HpcresumeError] | None:
    found = getattr(errors, name, None) if isinstance(name, str) and name in errors.__all__ else None
    return found if isinstance(found, type) and issubclass(found, HpcresumeError) else None


def _shared(ballots: Sequence[bytes], failed: Sequence[int]) -> HpcresumeError:
    fields = json.loads(ballots[failed[0]])
    kind = _known(fields["class"]) or PeerFailureError
    what = str(fields["what"])
    if len(failed) > 1:
        what += f" [{len(failed) - 1} more of {len(ballots)} ranks failed too]"
    where = f"rank {failed[0]}"
    if fields.get("where"):
        where += f": {fields['where']}"
    return kind(what, where=where, hint=str(fields.get("hint", "")), **_damage(kind, fields))


def _damage(kind: type[HpcresumeError], fields: dict[str, Any]) -> dict[str, Any]:
    if not issubclass(kind, DamagedError):
        return {}
    return {key: fields[key] for key in ("generation", "tensor", "offset") if key in fields}
