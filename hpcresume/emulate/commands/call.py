"""One call of a stand-in, and its answer. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Call", "Reply"]


@dataclass(frozen=True)
class Call:
    """A command line with what surrounds it."""

    command: str
    words: Sequence[str]
    cwd: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)
    stdin: str | None = None


@dataclass(frozen=True)
class Reply:
    """What the command prints and exits with.

    Attributes:
        out, err, code: as they say.
        wants_stdin: ask again with the standard input.
        wait_for: numbers of jobs whose end decides the exit code (sbatch --wait).
    """

    out: str = ""
    err: str = ""
    code: int = 0
    wants_stdin: bool = False
    wait_for: tuple[int, ...] = ()
