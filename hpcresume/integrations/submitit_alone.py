"""One job a run: `hr.submit` refuses a run that has a job in the queue or at work, as `hpcresume submit` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcresume.console import tell
from hpcresume.errors import RunBusyError
from hpcresume.submit.record import Folder, at_work, jobs_of, states_at_once
from hpcresume.submit.submitit_jobs import Request

__all__ = ["alone"]


@contextlib.contextmanager
def alone(request: Request, runs: Sequence[str], *, again: bool) -> Iterator[None]:
    """For the time of a submission to Slurm; squeue is asked once, however many runs there are.

    The other executors begin at once, and it is the claim that refuses a second attempt there.

    Args:
        request: what is wished.
        runs: directories of the runs that would get a job.
        again: the user wants another job beside the one that is there.

    Raises:
        RunBusyError: a run has a job, which is named, or is being submitted at this moment.
        RunDirectoryError: the run directory cannot be made or written to.
    """
    if request.cluster != "slurm" or again:
        yield
        return
    with contextlib.ExitStack() as stack:
        if len(runs) == 1 and not stack.enter_context(Folder.of_run(Path(runs[0])).locked()):
            tell(f"hpcresume: {runs[0]}: no locks there; two submissions at one moment would not see each other")
        _refuse_busy(runs)
        yield


def _refuse_busy(runs: Sequence[str]) -> None:
    places = [Path(run) for run in runs]
    states = states_at_once([job_id for place in places for job_id in jobs_of(place)])
    found = {place: at_work(place, states=states) for place in places}
    busy = {place: each.who for place, each in found.items() if each.who is not None}
    if busy:
        place, who = next(iter(busy.items()))
        more = f", and {len(busy) - 1} more of the {len(runs)} runs have one" if len(busy) > 1 else ""
        hint = f"wait for it, hpcresume cancel {place}, or hr.submit(…, again=True) to queue another one behind it"
        raise RunBusyError(f"this run has a job already: {who}{more}", where=str(place), hint=hint)
    unknown = [job_id for each in found.values() for job_id in each.unknown]
    if unknown:
        named = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        tell(f"hpcresume: job {named} of this run may be at work: Slurm does not say")
