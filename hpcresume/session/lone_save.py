"""`hr.save`: one generation without a session, in an attempt that the calling process has for itself.

Owns which attempt that is. A session's own saves go through `saver`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpcresume.checkpoint import attempts
from hpcresume.checkpoint.api import ranks_for_one_call
from hpcresume.checkpoint.attempts import Holder
from hpcresume.checkpoint.history import lineage_names
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.places import run_path
from hpcresume.checkpoint.run import open_run, read_run
from hpcresume.checkpoint.save import SaveOptions, agree_on_step, find_equal, save_generation
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import RunDirectoryError, UsageError
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Generation
from hpcresume.session.aliveness import Aliveness
from hpcresume.session.session import session_of_run
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["save"]

_saved_to: set[str] = set()
"""Ids of the runs in which this process has had an attempt of its own."""
os.register_at_fork(after_in_child=_saved_to.clear)


def save(run: Path | str, state: Any, *, step: int, comm: Any = None) -> Generation:
    """Collective. Write `state` as one generation of the run at `run`, prove it, commit it.

    `state` is a nested dict, list or tuple of torch tensors, numpy arrays, None and plain values; wrap what
    belongs to one rank in `RankLocal` and blocks of a global array in `GlobalSlice`. Every rank calls with
    its own state.

    The first save of a process claims the run's next attempt, which goes on from the newest generation, and later ones
    stay in it. So the run must not be in use: a session that lives holds it, and so does another Slurm job that saves
    to it. A process that only saves holds it against other jobs; in its own job, or outside any, the next process may
    take over, and from then on this one is refused while that one lives.

    Saving the same step and content again returns the existing generation, also from another process.

    Raises:
        ConfigError: `run` is no path, or `step` no step (NonFiniteError: it is NaN or infinite).
        StateError: the state holds something that cannot be saved; its path is named.
        UsageError: a session of this process has the run.
        RunBusyError: another live process or job has the run.
        RunError: the run directory cannot be used.
        SaveError: nothing was committed; older generations are untouched.
    """
    with ranks_for_one_call(comm) as ranks:
        agree_on_step(step, ranks)
        with together(ranks, "check the arguments"):
            path = run_path(run)
        paths = open_run(path, create=True, ranks=ranks)
        attempt, parent, alike = _look(paths, step, ranks)
        if not attempt:
            if alike:
                found = find_equal(paths, state, step=step, attempt=alike, ranks=ranks)
                if found is not None:
                    return found
            attempt, parent = _begin(paths, ranks)
        return save_generation(
            paths, state, step=step, attempt=attempt, parent=parent, ranks=ranks, options=SaveOptions()
        )


def _look(run: RunPaths, step: int, ranks: Ranks) -> tuple[int, str | None, int]:
    """Collective. This process's own attempt (0: none), the newest generation, and the attempt that has saved `step`.

    Raises:
        UsageError, RunBusyError: somebody else has the run; nothing was written.
    """
    facts = b""
    with together(ranks, "find the newest attempt", RunDirectoryError):
        if ranks.rank == 0:
            _refuse_in_session(run)
            own = _own_attempt(run)
            if not own:
                attempts.refuse_if_held(run, holder=_here(), alive=_alive(run))
            chain = lineage_names(run)
            saved = (parse_generation_name(name) or (-1, 0) for name in chain)
            alike = next((attempt for at, attempt in saved if at == step), 0)
            facts = f"{own} {alike} {next(iter(chain), '')}".encode()
    own_text, alike_text, parent = agree_bytes(ranks, facts).decode().split(" ")
    return int(own_text), parent or None, int(alike_text)


def _refuse_in_session(run: RunPaths) -> None:
    if session_of_run(run.root):
        raise UsageError(
            "a session of this process has this run",
            where=str(run.root),
            hint="leave its with block first, or save to another run directory",
        )


def _own_attempt(run: RunPaths) -> int:
    """The newest attempt, if this process claimed it by a save; else 0."""
    newest = attempts.newest_attempt(run)
    holder = attempts.read_holder(run, newest)
    ours = holder is not None and not holder.holds and holder.same_process(_here())
    return newest if ours else 0


def _begin(run: RunPaths, ranks: Ranks) -> tuple[int, str | None]:
    """Collective. Claim an attempt that goes on from the newest generation, and record that."""
    attempt = attempts.claim(run, holder=_here(), ranks=ranks, alive=_alive(run))
    parent = b""
    with together(ranks, "record the start of the attempt", RunDirectoryError):
        if ranks.rank == 0:
            parent = next(iter(lineage_names(run)), "").encode()
            attempts.record_start(run, attempt, parent.decode() or None, ())
            _saved_to.add(read_run(run)["run_id"])
    return attempt, agree_bytes(ranks, parent).decode() or None


def _alive(run: RunPaths) -> Any:
    """A process that saved here before and was overtaken does not take the run back from one that lives."""
    told = Aliveness(run, _here().job_id)
    return told.lives if read_run(run)["run_id"] in _saved_to else told


def _here() -> Holder:
    slurm = SlurmEnvironment.from_environ(os.environ)
    return Holder.here(slurm.job_id, slurm.restart_count, holds=False)
