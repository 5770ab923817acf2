"""srun, the controller's side: reads its options and lays the step out; `srun_program` then runs it.

Texts and rules are those watched on 22.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcresume.emulate.commands.call import Call
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress, expand
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.option_tables import SRUN
from hpcresume.emulate.sbatch_request import exported, whole
from hpcresume.emulate.slurm_time import parse_limit
from hpcresume.emulate.variables import short_counts

__all__ = ["StepPlan", "plan_step", "task_variables"]

TYPES = ("none", "pmi2", "pmix")


@dataclass(frozen=True)
class StepPlan:
    """A step, ready to be run.

    Attributes:
        job: its job.
        nodes, tasks: where its tasks go.
        mpi: none, pmi2 or pmix.
        command: the program and its arguments.
        name: the step's name.
        options: what `srun_program` needs besides.
        warnings: what srun says before it starts.
        limit: seconds that the step may take (--time), None without.
    """

    job: Job
    nodes: tuple[str, ...]
    tasks: tuple[int, ...]
    mpi: str
    command: tuple[str, ...]
    name: str
    options: Mapping[str, Any]
    warnings: str = ""
    limit: float | None = None


def plan_step(call: Call, controller: Controller) -> StepPlan | str:
    """Lay a step out; a text when srun only prints something.

    Raises:
        OptionError: as srun refuses it.
    """
    pairs, command = read_options(call.words, SRUN, program="srun")
    options = {name: value or "" for name, value in pairs}
    if "version" in options:
        return f"slurm {controller.settings.slurm}\n"
    mpi = options.get("mpi") or call.environ.get("SLURM_MPI_TYPE") or controller.settings.mpi
    if mpi == "list":
        return "MPI plugin types are...\n" + "".join(f"\t{name}\n" for name in TYPES)
    mpi = "pmix" if mpi.startswith("pmix") else mpi
    if mpi not in TYPES:
        raise _error(f"Couldn't find the specified plugin name for mpi/{mpi} looking at all files", "fatal")
    for name in ("multi-prog", "het-group"):
        if name in options:
            raise _error(f"--{name} is not known to the emulated cluster")
    if ":" in command:
        raise _error("heterogeneous steps (: between commands) are not known to the emulated cluster")
    if not command:
        raise OptionError("srun: fatal: No command given to execute.\n", 1)
    job = _job(options, call, controller)
    ntasks, warning = _ntasks(options, call.environ, job)
    nodes, more = _nodes(options, job, ntasks)
    tasks = _spread(job, nodes, ntasks, _number(options, "ntasks-per-node") if not warning else None, options)
    return StepPlan(
        job, nodes, tasks, mpi, tuple(command), options.get("job-name") or command[0].rpartition("/")[2],
        _settings(options, call, job, controller), warning + more, _step_limit(options),
    )  # fmt: skip


def _error(text: str, kind: str = "error") -> OptionError:
    return OptionError(f"srun: {kind}: {text}\n", 1)


def _number(options: Mapping[str, str], name: str) -> int | None:
    if name not in options:
        return None
    number = whole(options[name].partition("-")[0])
    if not number:
        raise _error(f'Invalid numeric value "{options[name]}" for --{name}.')
    return number


def _relative(text: str) -> int:
    number = whole(text)
    if number is None:
        raise _error(f'Invalid numeric value "{text}" for --relative.')
    return number


def _step_limit(options: Mapping[str, str]) -> float | None:
    try:
        return parse_limit(options["time"]) if "time" in options else None
    except ValueError:
        raise _error("Invalid --time specification") from None


def _job(options: Mapping[str, str], call: Call, controller: Controller) -> Job:
    text = options.get("jobid") or call.environ.get("SLURM_JOB_ID", "")
    jobs = controller.find(text)
    if not text:
        raise _error(
            "the emulated cluster runs srun inside jobs only; submit a script with sbatch (or sbatch --wrap 'srun …')"
        )
    if not jobs:
        raise _error(f"Unable to confirm allocation for job {text}: Invalid job id specified")
    if not jobs[0].running:
        raise _error(f"Job {text} is not running")
    return jobs[0]


def _ntasks(options: Mapping[str, str], environ: Mapping[str, str], job: Job) -> tuple[int, str]:
    """How many tasks, and a warning where --ntasks-per-node does not count: SLURM_NTASKS goes before it."""
    own, per_node = _number(options, "ntasks"), _number(options, "ntasks-per-node")
    inherited = whole(environ.get("SLURM_NTASKS", "") or environ.get("SLURM_NPROCS", ""))
    nodes = _number(options, "nodes") or len(job.nodes)
    if own is None and inherited is None:
        return (nodes * per_node if per_node else max(nodes, 1) if "nodes" in options else job.ntasks), ""
    ntasks = own or inherited or 1
    wanted = per_node or whole(environ.get("SLURM_NTASKS_PER_NODE", ""))
    nodes = min(nodes, ntasks)
    if wanted and wanted * nodes != ntasks and (own is None or per_node or "nodes" in options or wanted < ntasks):
        return ntasks, (
            f"srun: Warning: can't honor --ntasks-per-node set to {wanted} which doesn't match the requested tasks "
            f"{ntasks} with the number of requested nodes {nodes}. Ignoring --ntasks-per-node.\n"
        )
    return ntasks, ""


def _nodes(options: Mapping[str, str], job: Job, ntasks: int) -> tuple[tuple[str, ...], str]:
    """The step's nodes, out of the job's."""
    wanted = _number(options, "nodes")
    names = tuple(job.nodes)
    if "exclude" in options:
        names = tuple(name for name in names if name not in expand(options["exclude"]))
    if "nodelist" in options:
        asked = expand(options["nodelist"])
        if not set(asked) <= set(job.nodes):
            raise _error(f"Unable to create step for job {job.number}: Requested node configuration is not available")
        rest = tuple(name for name in names if name not in asked)
        names = asked if wanted is None else (*asked, *rest)
    if "relative" in options:
        names = names[_relative(options["relative"]) :]
    if not names or (wanted is not None and wanted > len(names)):
        raise _error(f"Unable to create step for job {job.number}: More nodes requested than permitted")
    warning = ""
    count = min(wanted or len(names), len(names))
    if ntasks < count:
        if wanted is not None or ("nodelist" not in options and len(job.nodes) > ntasks):
            warning = f"srun: Warning: can't run {ntasks} processes on {count} nodes, setting nnodes to {ntasks}\n"
        count = ntasks
    return names[:count], warning


def _spread(
    job: Job, nodes: Sequence[str], ntasks: int, per_node: int | None, options: Mapping[str, str]
) -> tuple[int, ...]:
    """Tasks of each node, even, no more than it has processors."""
    assert job.allocation is not None
    cpus = dict(zip(job.allocation.nodes, job.allocation.cpus, strict=True))
    of_one = _number(options, "cpus-per-task") or job.request.cpus_per_task or 1
    room = [10**6 if "overcommit" in options or job.request.overcommit else cpus[n] // of_one for n in nodes]
    if per_node:
        room = [min(each, per_node) for each in room]
    if sum(room) < ntasks:
        raise _error(f"Unable to create step for job {job.number}: More processors requested than permitted")
    tasks = [0] * len(nodes)
    while sum(tasks) < ntasks:
        for i in range(len(nodes)):
            if sum(tasks) < ntasks and tasks[i] < room[i]:
                tasks[i] += 1
    return tuple(tasks)


def _settings(options: Mapping[str, str], call: Call, job: Job, controller: Controller) -> dict[str, Any]:
    """What `srun_program` must know."""
    environ = call.environ
    kill = options.get("kill-on-bad-exit", environ.get("SLURM_KILL_BAD_EXIT"))
    mode = options.get("open-mode") or environ.get("SLURM_OPEN_MODE", "")
    return {
        "kill_on_bad_exit": kill is not None and kill != "0",
        "kill_wait": controller.settings.kill_wait,
        "label": "label" in options or environ.get("SLURM_LABELIO", "0") not in ("", "0"),
        "output": options.get("output", environ.get("SLURM_STDOUTMODE")),
        "error": options.get("error", environ.get("SLURM_STDERRMODE")),
        "input": options.get("input", environ.get("SLURM_STDINMODE")),
        "append": mode.startswith("a"),
        "directory": options.get("chdir") or call.cwd,
        "environ": _environ(options, environ),
        "letters": job.letters(),
        "quiet": "quiet" in options,
    }


def _environ(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str] | None:
    """The tasks' environment where --export changes it, None for srun's own."""
    wish = options.get("export", environ.get("SLURM_EXPORT_ENV"))
    if wish is None or wish == "ALL":
        return None
    kept = exported(wish, environ)
    ours = {k: v for k, v in environ.items() if k.startswith(("HPCRESUME_", "OMPI_MCA_", "PRTE_MCA_"))}
    return {**ours, **kept, "PATH": kept.get("PATH", environ.get("PATH", ""))}


def task_variables(plan: StepPlan, number: int) -> dict[str, str]:
    """Variables that all tasks of a step share (srun(1), OUTPUT ENVIRONMENT VARIABLES)."""
    names, total = compress(plan.nodes), str(sum(plan.tasks))
    return {
        "SLURM_STEP_ID": str(number),
        "SLURM_STEPID": str(number),
        "SLURM_STEP_NODELIST": names,
        "SLURM_STEP_NUM_NODES": str(len(plan.nodes)),
        "SLURM_STEP_NUM_TASKS": total,
        "SLURM_STEP_TASKS_PER_NODE": short_counts(plan.tasks),
        "SLURM_NNODES": str(len(plan.nodes)),
        "SLURM_NTASKS": total,
        "SLURM_NPROCS": total,
        "SLURM_TASKS_PER_NODE": short_counts(plan.tasks),
        "SLURM_DISTRIBUTION": "block",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        "SLURM_SRUN_COMM_HOST": "127.0.0.1",
        "SLURM_MPI_TYPE": plan.mpi,
    }
