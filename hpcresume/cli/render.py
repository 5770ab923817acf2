"""`hpcresume render`: the script of a job, its explanation, or the schema. The work is in `hpcresume.submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.job_options import explain, job_options, load
from hpcresume.cli.output import echo_json, json_option

if TYPE_CHECKING:
    from hpcresume.config.job import LoadedJob

__all__ = ["command"]

EPILOG = """\b
Where a value comes from, the later wins
  the file        resources: {nodes: 2}
  a variable      HPCRESUME_JOB_RESOURCES_NODES=3
  an option       --set resources.nodes=4

docs/JOB_YAML.md lists every key.
"""


@click.command("render", epilog=EPILOG)
@job_options
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the script here (0600).")
@click.option("--force", is_flag=True, help="Replace the output file if it is there.")
@click.option("--explain", "explained", is_flag=True, help="Show every value, who said so, and what that won over.")
@click.option("--stage", metavar="NAME", help="Of a file with stages: the script of this one.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of job.yaml, for editors.")
@click.option("--dry-run", is_flag=True, help="Print the script, also with --output.")
@json_option
def command(
    path: Path,
    sets: tuple[str, ...],
    output: Path | None,
    force: bool,
    explained: bool,
    stage: str | None,
    schema: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the batch script of JOB_YAML (default: job.yaml), ready for sbatch.

    A function becomes a Python script that submits it through submitit. Every value is checked and quoted:
    only environment.before_commands is shell.
    """
    if schema:
        from hpcresume.config.job_schema import schema_text

        click.echo(schema_text(), nl=False)
        return
    job = load(path, sets)
    if explained:
        explain(job, as_json=as_json)
        return
    script = _script(job, stage)
    written = output is not None and not dry_run
    if output is not None and written:
        _write(output, script, force)
    if as_json:
        echo_json({"script": script, "output": str(output) if written else None})
    elif not written:
        click.echo(script, nl=False)


def _script(job: LoadedJob, stage: str | None) -> str:
    from hpcresume.config.job_leaves import nearest
    from hpcresume.submit.script import render
    from hpcresume.submit.stages import stage_script

    heading = "Made by `hpcresume render`; change the job file, not this."
    names = [each.name for each in job.stages]
    if not names and stage is None:
        return render(job.spec, heading=heading)
    if stage is None:
        raise click.UsageError(f"the file has stages: name one, --stage {names[0]}; there are {', '.join(names)}")
    if stage not in names:
        said = f"there is no stage {stage}; try: {nearest(stage, names) or ', '.join(names)}"
        raise click.UsageError(said if names else "the file has no stages: leave --stage out")
    return stage_script(job.stages, next(each for each in job.stages if each.name == stage), heading)


def _write(path: Path, script: str, force: bool) -> None:
    from hpcresume.errors import ConfigError
    from hpcresume.io.durable import create_durably, write_durably

    try:
        (write_durably if force else create_durably)(path, script.encode())
    except FileExistsError as error:
        raise ConfigError("the output file is there already", where=str(path), hint="--force replaces it") from error
