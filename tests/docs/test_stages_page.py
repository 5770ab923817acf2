"""docs/STAGES.md is true: its job file is one, its names are those of the code, and the example it names is one."""

from __future__ import annotations

import re

from hpcresume.cli.launch import command as launch
from hpcresume.cli.main import main
from hpcresume.config.job import load_job, read_job
from hpcresume.config.job_stages import run_variable
from hpcresume.ops.resources import example_path
from hpcresume.slurm.dependents import after_all
from tests.architecture.tree import ROOT
from tests.docs.blocks import blocks

PAGE = ROOT / "docs" / "STAGES.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_job_file_is_one():
    (job,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    stages = read_job(job).stages
    assert [(each.name, each.after) for each in stages] == [
        ("prepare", ()), ("train", ("prepare",)), ("evaluate", ("train",))
    ]  # fmt: skip
    train = stages[1].spec
    assert (train.name, train.run_directory) == ("gpt-train", "runs/gpt/train")
    assert f"the job `{train.name}` and the run `{train.run_directory}`" in TEXT
    assert [each.spec.resources.partition for each in stages] == ["cpu", "gpu", "gpu"]


def test_its_names_and_options_are_those_of_the_code():
    assert f"`{run_variable('prepare')}`" in TEXT
    assert "`--dependency=afterok:…`" in TEXT
    assert after_all(["1"]) == "afterok:1"
    assert {option.opts[0] for option in launch.params} >= {f"--{name}" for name in re.findall(r"launch --(\w+)", TEXT)}


def test_the_example_is_a_chain(capsys):
    path = example_path("stages/job.yaml")
    job = load_job(path)
    assert [each.name for each in job.stages] == ["prepare", "train", "evaluate"]
    for each in job.stages:
        assert main(["render", str(path), "--stage", each.name]) == 0
        assert f"--stage={each.name} " in capsys.readouterr().out
        assert (path.parent / each.spec.words[1]).is_file()
