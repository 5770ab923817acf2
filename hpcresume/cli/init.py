"""`hpcresume init`: options and lines; the files are made by `hpcresume.submit.skeleton`."""

from __future__ import annotations

from pathlib import Path

import click

from hpcresume.cli.output import echo_json, json_option

__all__ = ["command"]


@click.command("init")
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="The job's name. Default: that of the folder.")
@click.option("--training", type=click.Choice(["auto", "torch", "numpy"]), default="auto", show_default=True,
              help="What train.py trains with. auto: torch where it is installed.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--dry-run", is_flag=True, help="Say which files would be made, and make none.")
@json_option
def command(directory: Path, name: str | None, training: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Begin: a job.yaml explained line by line, a small train.py, and the job.sbatch made from them.

    They run at once: `hpcresume emulate -- job.sbatch` on this machine, `hpcresume submit` on a cluster.
    """
    import shlex

    from hpcresume.submit.skeleton import make_skeleton, write_skeleton

    files = make_skeleton(directory, name=name, training=training)
    if not dry_run:
        write_skeleton(directory, files, force=force)
    if as_json:
        echo_json({"directory": str(directory), "files": sorted(files), "written": not dry_run})
        return
    for file in files:
        click.echo(("would write  " if dry_run else "wrote  ") + str(directory / file))
    if not dry_run:
        go = f"cd {shlex.quote(str(directory))} && " if directory != Path() else ""
        click.echo(f"try it here:        {go}hpcresume emulate --preempt step:100 -- job.sbatch")
        click.echo(f"on a cluster:       {go}hpcresume submit")
        click.echo(f"after a change:     {go}hpcresume render --force -o job.sbatch")
