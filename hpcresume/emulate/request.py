"""What a job asks for, checked and frozen, and what an array is. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcresume.config.timetable import SignalPlan

__all__ = ["ArrayPlan", "JobRequest"]


@dataclass(frozen=True)
class ArrayPlan:
    """The tasks of a job array. `limit` is how many may run at once, 0 without limit; `text` as it was given."""

    tasks: tuple[int, ...]
    limit: int = 0
    text: str = ""


@dataclass(frozen=True)
class JobRequest:
    """One submission.

    Attributes:
        name: the job's name.
        script: the whole text of the batch script.
        command: the script's path as scontrol shows it, with its arguments; "(null)" for one from stdin or --wrap.
        arguments: of the script.
        directory: where the script runs (--chdir).
        submit_directory: where sbatch was called.
        environ: variables that the script inherits.
        nodes: least number of nodes, None when not given; `nodes_most` the highest.
        ntasks: tasks, None when not given.
        ntasks_per_node: tasks on each node, None when not given.
        cpus_per_task: processors of each task, None when not given.
        exclusive: does it want whole nodes?
        nodelist: nodes that must be among its own.
        exclude: nodes that it does not want.
        partition: its partition, "" for the default one.
        time_limit: seconds, None when not given.
        unlimited: was no limit asked for in so many words?
        signal: its --signal.
        output, error, input: file name patterns, None when not given.
        append: is a log appended to at a restart (--open-mode), None when not given?
        requeue: may it be requeued, None when not given?
        array: its tasks, None for a single job.
        dependency: as given, "" without.
        begin: not before this unix time, None at once.
        hold: is it submitted held?
        nice: added to its place in the queue; a higher one waits longer.
        overcommit: may there be more tasks than processors?
        kill_on_invalid_dependency: end it when its dependency can never be met?
        shown: further options as they were given, for those who ask (account, qos, comment, mem, gres, gpus…).
    """

    name: str
    script: str
    command: str = "(null)"
    arguments: tuple[str, ...] = ()
    directory: str = "/"
    submit_directory: str = "/"
    environ: Mapping[str, str] = field(default_factory=dict)
    nodes: int | None = None
    nodes_most: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    exclusive: bool = False
    nodelist: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    partition: str = ""
    time_limit: float | None = None
    unlimited: bool = False
    signal: SignalPlan | None = None
    output: str | None = None
    error: str | None = None
    input: str | None = None
    append: bool | None = None
    requeue: bool | None = None
    array: ArrayPlan | None = None
    dependency: str = ""
    begin: float | None = None
    hold: bool = False
    nice: int = 0
    overcommit: bool = False
    kill_on_invalid_dependency: bool = False
    shown: Mapping[str, str] = field(default_factory=dict)

    @property
    def least_nodes(self) -> int:
        """Nodes that the job cannot do without, as far as its options alone tell."""
        if self.nodes is not None:
            return self.nodes
        if self.ntasks is not None and self.ntasks_per_node:
            return -(-self.ntasks // self.ntasks_per_node)
        return max(1, len(self.nodelist))

    @property
    def cpus_of_a_task(self) -> int:
        """Processors of one task."""
        return self.cpus_per_task or 1
