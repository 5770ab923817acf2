"""What a job is: the typed, frozen form of job.yaml, with the limits and the meaning of every key.

The descriptions here are the ones in the JSON schema and in docs/JOB_YAML.md. Reads no file and knows no Slurm command.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

__all__ = ["Checkpoint", "Container", "Environment", "Fallback", "JobSpec", "Requeue", "Resources"]

HIDDEN = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Characters that end a line or reorder what is shown (control, line separators, bidi): refused in every value."""
_SHOWN = Meta(pattern=rf"^(?![\s\S]*[{HIDDEN}])[\s\S]", max_length=4096)

Text = Annotated[str, _SHOWN]
Shell = Annotated[str, Meta(pattern=r"^(?![\s\S]*[\x00-\x08\x0b-\x1f\x7f])[\s\S]", max_length=65536)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Memory = Annotated[str, Meta(pattern=r"^(0|[0-9]{1,9}[KMGT])(?![\s\S])")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?![\s\S])", max_length=256)]
Variable = Annotated[str, Meta(pattern=rf"^(?![\s\S]*[{HIDDEN}])", max_length=65536)]
# In a union with numbers or lists `str` stands without limits: msgspec 0.22 frees memory twice when a limited
# text and a list are alternatives. Hidden characters are refused for every key anyway (job_leaves.py).
Array = Annotated[str, Meta(pattern=r"^[0-9]+(-[0-9]+(:[0-9]+)?)?(,[0-9]+(-[0-9]+(:[0-9]+)?)?)*(%[0-9]+)?(?![\s\S])")]
Function = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?![\s\S])")]
Title = Annotated[str, Meta(pattern=rf"^(?![\s\S]*[/{HIDDEN}])[\s\S]", max_length=255)]
Option = Annotated[str, Meta(pattern=rf"^(?![\s\S]*[{HIDDEN}])--[a-z][a-z0-9-]*(=|(?![\s\S]))", max_length=4096)]


class Resources(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the job asks Slurm for."""

    nodes: Annotated[Count, Meta(description="Nodes.")] = 1
    ntasks_per_node: Annotated[Count, Meta(description="Ranks on each node; 1 with torchrun.")] = 1
    cpus_per_task: Annotated[Count | None, Meta(description="Cores for each rank.")] = None
    gpus_per_node: Annotated[Count | str | None, Meta(description="GPUs on each node: 4 or a100:4.")] = None
    gpus_per_task: Annotated[Count | str | None, Meta(description="GPUs for each rank: 1 or a100:1.")] = None
    gres: Annotated[Text | None, Meta(description="Other generic resources, as sbatch takes them.")] = None
    mem: Annotated[Memory | None, Meta(description='Memory of each node with its unit: "64G"; "0" is all.')] = None
    mem_per_cpu: Annotated[Memory | None, Meta(description='Memory for each core with its unit: "4G".')] = None
    time: Annotated[Text | None, Meta(description="Limit of each attempt: 4h, 1h30m, 04:00:00, 1-12:00:00.")] = None
    time_min: Annotated[
        Text | None,
        Meta(description="Start with so short a limit when all of `time` does not fit, before a maintenance."),
    ] = None
    partition: Annotated[Text | None, Meta(description="Partition, or several with commas.")] = None
    account: Annotated[Text | None, Meta(description="Account to charge.")] = None
    qos: Annotated[Text | None, Meta(description="Quality of service.")] = None
    constraint: Annotated[Text | None, Meta(description="Features that the nodes must have.")] = None
    nodelist: Annotated[Text | None, Meta(description="Nodes that must be among the job's.")] = None
    exclude: Annotated[Text | None, Meta(description="Nodes that must not.")] = None
    reservation: Annotated[Text | None, Meta(description="Reservation to use.")] = None
    exclusive: Annotated[bool, Meta(description="Share the nodes with no other job.")] = False
    array: Annotated[Array | None, Meta(description="Task numbers: 0-9%2. Each task has a run of its own.")] = None
    options: Annotated[
        tuple[Option, ...], Meta(description="Further sbatch options in their long form: --mail-type=END.")
    ] = ()


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What wins over the arguments of `hr.session` in the training. Absent: the training's own."""

    every: Annotated[
        Text | None, Meta(description="How often to save: 20min, 500 steps, auto; or auto, at most 20min.")
    ] = None
    keep: Annotated[Count | None, Meta(description="How many generations to keep.")] = None
    verify: Annotated[Literal["all", "sample"] | None, Meta(description="How much is read back before the commit.")] = (
        None
    )
    write_path: Annotated[
        Literal["auto", "mpiio", "posix"] | None, Meta(description="How the ranks write: auto asks the filesystem.")
    ] = None


class Fallback(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to ask for when the run gets nowhere, and when that is."""

    partition: Annotated[Text | None, Meta(description="Partition to go to.")] = None
    nodes: Annotated[Count | None, Meta(description="With how few nodes to make do.")] = None
    after_failures: Annotated[Count | None, Meta(description="After so many failures in a row without progress.")] = (
        None
    )
    after_preemptions: Annotated[Count | None, Meta(description="After so many preemptions.")] = None
    after_waiting: Annotated[Text | None, Meta(description="After so long in the queue, from the second start on.")] = (
        None
    )


class Requeue(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When and how the job comes back."""

    enabled: Annotated[bool, Meta(description="Put the job back in the queue after a commit.")] = True
    max_restarts: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Hold after so many ends that were no preemption."),
    ] = None
    max_crashes: Annotated[Count, Meta(description="Hold after so many crashes in a row without progress.")] = 3
    when_held: Annotated[
        Literal["stay", "end"], Meta(description="A held job stays in the queue, held, or ends with exit code 77.")
    ] = "stay"
    pause: Annotated[Text, Meta(description="Before the first restart after a crash; doubles, at most 1h; or off.")] = (
        "1min"
    )
    exclude_for: Annotated[Text, Meta(description="How long to keep off a node that was lost; or off.")] = "12h"
    exclude_most: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)], Meta(description="Keep off so many nodes at once at the most.")
    ] = 4
    max_micro_batches: Annotated[
        Count, Meta(description="Into how many pieces to cut batches after want of memory, at the most.")
    ] = 1
    guard: Annotated[
        bool | None,
        Meta(description="Leave a second job behind this one, should Slurm lose it; null: where it never requeues."),
    ] = None
    fallback: Annotated[Fallback, Meta(description="Other resources when the run gets nowhere.")] = Fallback()
    warning_lead: Annotated[
        Text, Meta(description="How long before the end the warning comes: 5min, or auto: as measured.")
    ] = "5min"
    warning_signal: Annotated[Literal["USR1", "USR2"], Meta(description="Which signal warns.")] = "USR1"


class Environment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is set up in the batch step before the ranks start, in this order."""

    modules: Annotated[tuple[Text, ...], Meta(description="Loaded by `module load`.")] = ()
    conda: Annotated[Text | None, Meta(description="Name or folder of a conda environment.")] = None
    venv: Annotated[Text | None, Meta(description="Folder of a virtual environment.")] = None
    variables: Annotated[dict[Name, Variable], Meta(description="Environment variables.")] = {}
    before_commands: Annotated[
        tuple[Shell, ...], Meta(description="Raw shell, copied into the script as it is: the only place for it.")
    ] = ()


class Container(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ranks run inside, the supervisor outside."""

    image: Annotated[Text, Meta(description="Image file or address.")]
    runtime: Annotated[Literal["apptainer", "singularity"], Meta(description="Program that runs it.")] = "apptainer"
    binds: Annotated[tuple[Text, ...], Meta(description="Folders seen inside: /data or /data:/mnt:ro.")] = ()
    options: Annotated[tuple[Text, ...], Meta(description="Further options for `apptainer exec`: --nv.")] = ()


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job. Made by `hpcresume.config.job.load_job`, which checks what types cannot say."""

    name: Annotated[Title, Meta(description="The job's name in the queue.")]
    run: Annotated[Text | None, Meta(description="Run directory on a shared filesystem. Default: runs/NAME.")] = None
    command: Annotated[
        tuple[Text, ...] | str | None,
        Meta(description="What every rank runs: a list, or text split as a shell would (no shell runs it)."),
    ] = None
    function: Annotated[Function | None, Meta(description="Instead: package.module:function, by submitit.")] = None
    args: Annotated[list[Any], Meta(description="Positional arguments of the function.")] = []
    kwargs: Annotated[dict[Name, Any], Meta(description="Keyword arguments of the function.")] = {}
    starter: Annotated[Literal["srun", "torchrun", "mpiexec"], Meta(description="What starts the ranks.")] = "srun"
    workers_per_node: Annotated[Count | None, Meta(description="Workers of each node's torchrun agent.")] = None
    log: Annotated[
        Text | None, Meta(description="Log file of a command, with sbatch's %-patterns. Default: slurm-JOB.out.")
    ] = None
    resources: Annotated[Resources, Meta(description="What the job asks Slurm for.")] = Resources()
    checkpoint: Annotated[Checkpoint, Meta(description="How often, how many, how proved.")] = Checkpoint()
    requeue: Annotated[Requeue, Meta(description="When and how the job comes back.")] = Requeue()
    environment: Annotated[Environment, Meta(description="Set-up before the ranks start.")] = Environment()
    container: Annotated[Container | None, Meta(description="Image in which the ranks run.")] = None

    @property
    def run_directory(self) -> str:
        """The run directory; for an array the stem to which `-TASK` is added."""
        return self.run if self.run is not None else f"runs/{self.name}"

    @property
    def words(self) -> tuple[str, ...]:
        """The command as an argument list; empty for a function.

        Raises:
            ValueError: a quotation in the text is never closed.
        """
        if self.command is None:
            return ()
        return tuple(shlex.split(self.command)) if isinstance(self.command, str) else self.command
