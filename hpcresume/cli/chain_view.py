"""How a chain of stages is shown: what is to be done or was done about each, and the preflight of those that go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hpcresume.cli.output import Column, echo_json, echo_table, printable

if TYPE_CHECKING:
    from hpcresume.ops.chains import ChainDone, Step
    from hpcresume.submit.stages import ChainPlan

__all__ = ["say_notes", "show_done", "show_plan"]

_BEFORE = {
    "done": "is done", "running": "is at work", "waiting": "waits in the queue", "held": "is held in the queue",
    "left": "is left out", "submit": "would be submitted", "release": "would be released",
    "point": "would wait for other jobs",
}  # fmt: skip
_AFTER = _BEFORE | {"submit": "submitted", "release": "released", "point": "waits for other jobs now"}


def show_plan(plan: ChainPlan, steps: Sequence[Step], *, as_json: bool) -> None:
    """What would be done, and what speaks against it."""
    going = {step.stage for step in steps if step.kind == "submit"}
    chosen = [each for each in plan.stages if each.stage.name in going]
    if as_json:
        scripts = {each.stage.name: each.plan.script for each in chosen}
        checks = {each.stage.name: [asdict(check) for check in each.plan.checks] for each in chosen}
        echo_json({"run": str(plan.run), "stages": [_json(step) for step in steps], "scripts": scripts,
                   "checks": checks})  # fmt: skip
        return
    _table(steps, _BEFORE)
    click.echo("\nhpcresume render --stage NAME shows the script of a stage\n")
    rows = []
    for each in chosen:
        for check in each.plan.checks:
            hint = f" (try: {check.hint})" if check.outcome in ("failed", "noted") else ""
            rows.append([each.stage.name, check.name, check.outcome, check.detail + hint])
    echo_table([Column("STAGE"), Column("PREFLIGHT"), Column("OUTCOME"), Column("FOUND", fold=True)], rows)


def say_notes(plan: ChainPlan, steps: Sequence[Step]) -> None:
    """What the preflight could not look at, or has to say, each once."""
    going = {step.stage for step in steps if step.kind == "submit"}
    said: dict[str, list[str]] = {}
    for each in plan.stages:
        for check in each.plan.checks if each.stage.name in going else ():
            if check.outcome == "skipped":
                said.setdefault(f"not checked: {check.name}: {check.detail}", []).append(each.stage.name)
            elif check.outcome == "noted":
                said.setdefault(f"note: {check.detail} (try: {check.hint})", []).append(each.stage.name)
    for text, names in said.items():
        click.echo(printable(f"{', '.join(names)}: {text}"), err=True)


def show_done(plan: ChainPlan, done: ChainDone, run: str, *, as_json: bool) -> None:
    """What was done."""
    if as_json:
        echo_json({"run": str(plan.run), "stages": [_json(step) for step in done.steps], "notes": list(done.notes)})
        return
    for note in done.notes:
        click.echo(f"note: {printable(note)}", err=True)
    _table(done.steps, _AFTER)
    import shlex

    click.echo(printable(f"watch it:  hpcresume watch {shlex.quote(run)}"))


def _table(steps: Sequence[Step], words: Mapping[str, str]) -> None:
    rows = [[s.stage, s.job_id or "-", ", ".join(s.after) or "-", words[s.kind]] for s in steps]
    echo_table([Column("STAGE", style="bold"), Column("JOB"), Column("WAITS FOR"), Column("STATE", fold=True)], rows)


def _json(step: Step) -> dict[str, Any]:
    return {"stage": step.stage, "kind": step.kind, "job_id": step.job_id, "after": list(step.after), "log": step.log}
