"""One call of a stand-in, and its answer. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Call", "Reply", "ScriptText", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """The batch script that sbatch needs: its name as given, None for the standard input; where to look first."""

    name: str | None
    directory: str


@dataclass(frozen=True)
class ScriptText:
    """A batch script as the caller of sbatch read it: its text, None when it cannot be opened, and its path."""

    text: str | None
    path: str | None


@dataclass(frozen=True)
class Call:
    """A command line with what surrounds it."""

    command: str
    words: Sequence[str]
    cwd: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)
    script: ScriptText | None = None


@dataclass(frozen=True)
class Reply:
    """What the command prints and exits with.

    Attributes:
        out, err, code: as they say.
        wanted: ask again with this script.
        wait_for: numbers of jobs whose end decides the exit code (sbatch --wait).
    """

    out: str = ""
    err: str = ""
    code: int = 0
    wanted: Wanted | None = None
    wait_for: tuple[int, ...] = ()
