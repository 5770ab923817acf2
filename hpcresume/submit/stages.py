"""The stages of a chain as jobs that are ready to be submitted: a script each, the preflight, and what is recorded.

Knows no job numbers and nobody's state: `hpcresume.ops.chains` submits what is not done yet, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.job import Stage
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import long_option
from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.dependents import after_all
from hpcresume.submit.check import Check
from hpcresume.submit.overriding import checked_options
from hpcresume.submit.preflight import preflight
from hpcresume.submit.record import Folder
from hpcresume.submit.script import render
from hpcresume.submit.submission import Plan

__all__ = ["ChainPlan", "StagePlan", "chain_options", "plan_chain", "read_stages", "stage_script", "written_stages"]


@dataclass(frozen=True)
class StagePlan:
    """A stage that is ready to be submitted."""

    stage: Stage
    plan: Plan

    def behind(self, jobs: Mapping[str, str]) -> Plan:
        """Its submission behind the jobs of those stages before it that are not done: their names, and the jobs.

        A dependency that fails leaves the job in the queue, where it is seen and can be given another one.
        """
        waits = {name: jobs[name] for name in self.stage.after if name in jobs}
        words = (f"--dependency={after_all(list(waits.values()))}", "--kill-on-invalid-dep=no") if waits else ()
        facts = {**self.plan.facts, "after_jobs": waits}
        return replace(self.plan, options=(*self.plan.options, *words), facts=facts)


@dataclass(frozen=True)
class ChainPlan:
    """All stages, each behind those that it waits for.

    Attributes:
        run: the folder that holds their runs.
        stages: them.
        options: of sbatch, for each of them.
    """

    run: Path
    stages: tuple[StagePlan, ...]
    options: tuple[str, ...] = ()


def stage_script(stages: Sequence[Stage], stage: Stage, heading: str) -> str:
    """The batch script of one stage.

    Raises:
        ConfigError: a value cannot stand in a script.
    """
    runs = {each.name: each.spec.run_directory for each in stages}
    return render(stage.spec, heading=heading, stage=stage.name, after={name: runs[name] for name in stage.after})


def plan_chain(run: Path, stages: Sequence[Stage], options: Sequence[str] = ()) -> ChainPlan:
    """Render every script and look at everything that can be looked at; changes nothing.

    Args:
        run: the folder that holds the runs of the stages.
        stages: them, each behind those that it waits for.
        options: of sbatch, for each of them.

    Raises:
        ConfigError: a value cannot stand in a script, or a further option has no place.
        RunDirectoryError: the folder is a run itself.
    """
    run = run.absolute()
    if RunPaths(run).run_json.exists() or Folder.of_run(run).job.exists():
        what = "this is a run of its own, and the stages of a chain have runs inside"
        raise RunDirectoryError(what, where=str(run), hint="another run: in the job, or move it away")
    checked = chain_options(options)
    plans = [StagePlan(stage, _plan(stages, stage, checked)) for stage in stages]
    return ChainPlan(run, tuple(plans), checked)


def chain_options(words: Sequence[str]) -> tuple[str, ...]:
    """Options of sbatch for all stages.

    Raises:
        ConfigError: one that has no place, or that says what a stage waits for.
    """
    for word in words:
        if long_option(word).startswith(("--dependency", "--kill-on-invalid-dep")):
            what = f"{word.partition('=')[0]} cannot be given to a chain: what a stage waits for is said by its after:"
            raise ConfigError(what, where="after --", hint="after: [STAGE]")
    return checked_options(words)


def _plan(stages: Sequence[Stage], stage: Stage, options: tuple[str, ...]) -> Plan:
    script = stage_script(stages, stage, f"Made and submitted by `hpcresume submit`: the stage {stage.name}.")
    found = [_milder(each, stage) for each in preflight(stage.spec, script, options=options)]
    facts: dict[str, Any] = {"stage": stage.name, "after": list(stage.after)}
    return Plan(stage.spec, script, tuple(found), options, facts)


def _milder(check: Check, stage: Stage) -> Check:
    """What is not there yet may be what a stage before makes."""
    if stage.after and check.name == "command" and check.outcome == "failed":
        return Check(check.name, "noted", f"{check.detail}; unless {' or '.join(stage.after)} makes it", check.hint)
    return check


def written_stages(plan: ChainPlan) -> dict[str, Any]:
    """As it is recorded in RUN/submit/chain.json."""
    return {
        "stages": [
            {"name": each.stage.name, "after": list(each.stage.after), "spec": msgspec.to_builtins(each.stage.spec)}
            for each in plan.stages
        ],
        "options": list(plan.options),
    }


def read_stages(facts: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a record.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return tuple(
            Stage(str(each["name"]), msgspec.convert(each["spec"], JobSpec), tuple(map(str, each["after"])))
            for each in facts["stages"]
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
