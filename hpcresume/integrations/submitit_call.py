"""What can be known of a function's call before it waits in the queue: its run, its arguments, nothing left to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcresume.config.job_nodes import quoted
from hpcresume.errors import ConfigError
from hpcresume.io.paths import RunPaths

__all__ = ["check_call", "refuse_finished", "takes_run"]


def takes_run(function: Callable[..., Any]) -> bool:
    """Is `run=` handed over: is there a parameter `run`, or `**kwargs`?"""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "run" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    run: str | None,
    where: str | None = None,
) -> None:
    """Refuse arguments with which the function cannot be called: the job would find out after its time in the queue.

    Only what is certain is refused. Of a decorated function it is the decorator that is called, and it may hand over
    other arguments than it takes; a builtin may have no signature.

    Args:
        function: what the job calls.
        args: what it is given by position.
        kwargs: and by name.
        run: the run's directory, which is handed over as `run=` where the function takes that.
        where: the place of the arguments; None: the key `args` or `kwargs`.

    Raises:
        ConfigError: they do not fit.
    """
    given = dict(kwargs)
    if run is not None and takes_run(function):
        given.setdefault("run", run)
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **given)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        what = f"{name}{_parameters(signature)} cannot be called with {_shown(args, kwargs)}: {error}"
        hint = "arguments that it takes"
        if "run" in given and "run" not in kwargs:
            hint += f", beside run=, which is handed over: {_parameters(signature, but='run')}"
        raise ConfigError(what, where=where or _key(str(error)), hint=hint) from error


def refuse_finished(runs: Sequence[str], folder: Path) -> None:
    """Refuse runs that are all finished, as `hpcresume submit` does: their jobs would end at once, with no result.

    Of many some may be finished: the others are what is wanted then.

    Args:
        runs: directories of the jobs' runs.
        folder: where submitit keeps the results of the jobs that finished them.

    Raises:
        ConfigError: there is nothing left to compute.
    """
    if not all(RunPaths(Path(run)).done.exists() for run in runs):
        return
    named = f"{runs[0]} is" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} are"
    hint = f"the result() of the job that finished it, kept in {folder}; another run: for another result; to go on, "
    hint += "reopen=True in the training, and remove DONE"
    raise ConfigError(f"{named} finished (DONE exists): the job would end at once", where="run", hint=hint)


def _key(message: str) -> str:
    """The key that is wrong, by the words of `inspect.Signature.bind`."""
    return "kwargs" if "keyword argument" in message and "missing" not in message else "args"


def _shown(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    words = [quoted(each) for each in args] + [f"{name}={quoted(value)}" for name, value in kwargs.items()]
    return f"({', '.join(words)})"


def _parameters(signature: inspect.Signature, *, but: str = "") -> str:
    """`(n, run)`: the names and defaults, without annotations."""
    kept = [each for name, each in signature.parameters.items() if name != but]
    text = str(inspect.Signature([each.replace(annotation=each.empty) for each in kept]))
    return text if len(text) <= 200 else text[:197] + "..."
