"""`hpcresume render` as it is typed."""

from __future__ import annotations

import json
import stat

import pytest

from hpcresume.cli.main import main
from hpcresume.config.job_schema import schema_text
from hpcresume.errors import ConfigError
from hpcresume.session.options import FROM_JOB, read_options
from hpcresume.submit.script import POLICY

JOB = "name: a\ncommand: python train.py\nresources: {nodes: 2}\n"


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Call the command line in a folder with a job.yaml; (exit code, stdout, stderr)."""
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["render", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_it_prints_the_script_of_the_job_file_here(call):
    code, out, err = call()
    assert (code, err) == (0, "")
    assert out.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n" in out
    assert json.loads(call("--json")[1]) == {"script": out, "output": None}


def test_the_command_line_wins_over_the_environment_and_the_file_and_it_is_explained(call, monkeypatch):
    monkeypatch.setenv("HPCRESUME_JOB_RESOURCES_NODES", "3")
    assert "#SBATCH --nodes=3\n" in call()[1]
    assert "#SBATCH --nodes=4\n" in call("--set", "resources.nodes=4")[1]
    _, out, _ = call("--explain", "--set", "resources.nodes=4")
    (line,) = [line for line in out.splitlines() if line.startswith("resources.nodes ")]
    assert line.split(maxsplit=2)[1] == "4"
    assert line.endswith("--set resources.nodes  2 (job.yaml:3:13), 3 ($HPCRESUME_JOB_RESOURCES_NODES)")
    found = json.loads(call("--explain", "--json", "--set", "resources.nodes=4")[1])["settings"]
    (nodes,) = [each for each in found if each["key"] == "resources.nodes"]
    assert nodes["overrode"][0] == {"source": "job.yaml:3:13", "value": 2}


def test_the_output_file_is_private_and_never_replaced_by_accident(call, tmp_path):
    assert call("-o", "job.sbatch") == (0, "", "")
    path = tmp_path / "job.sbatch"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    code, _, err = call("-o", "job.sbatch", "--set", "name=b")
    assert (code, "there already" in err, path.read_text() == before) == (78, True, True)
    assert call("-o", "job.sbatch", "--set", "name=b", "--force")[0] == 0
    assert "--job-name=b\n" in path.read_text()
    assert call("-o", "other.sbatch", "--dry-run")[1] == call()[1]
    assert not (tmp_path / "other.sbatch").exists()


def test_the_schema_is_printed(call, tmp_path):
    (tmp_path / "job.yaml").unlink()
    assert call("--schema")[1] == schema_text()


def test_mistakes_are_shown_all_at_once_with_exit_code_78(call, tmp_path):
    (tmp_path / "job.yaml").write_text("nam: a\ncommand: x\nresources: {nods: 1}\n")
    code, out, err = call()
    assert (code, out) == (78, "")
    assert err.splitlines() == [
        "error: 3 problems in the job",
        "  job.yaml:1:1: nam: unknown key (try: name)",
        "  job.yaml:3:13: resources.nods: unknown key (try: nodes)",
        "  job.yaml: name: is missing (try: name: my-run)",
        "where: job.yaml",
    ]
    assert json.loads(call("--json")[1])["error"]["kind"] == "ConfigError"


def test_a_job_file_that_is_not_there_says_how_to_begin(call):
    code, _, err = call("gone.yaml")
    assert (code, "hpcresume init" in err) == (78, True)


def options(**more):
    """The options of a session as `hr.session` gives them."""
    usual = {"every": "auto", "keep": 3, "comm": "auto", "write_path": "auto", "read_back": "all", "watchdog": "30min",
             "reaction": 0.25, "save_failures": 3, "reopen": False, "signals": ("USR1",)}  # fmt: skip
    return read_options("runs/a", **{**usual, **more})


def test_the_checkpoint_section_wins_over_what_the_training_says(monkeypatch):
    assert set(FROM_JOB.values()) == set(POLICY)
    before = options(every="20min", keep=9)
    assert (before.every.seconds, before.keep, before.read_back, before.write_path) == (1200, 9, "all", "auto")
    for name, value in zip(POLICY, ("500 steps", "5", "sample", "posix"), strict=True):
        monkeypatch.setenv(name, value)
    after = options(every="20min", keep=9)
    assert (after.every.steps, after.keep, after.read_back, after.write_path) == (500, 5, "sample", "posix")
    monkeypatch.setenv("HPCRESUME_CHECKPOINT_KEEP", "many")
    with pytest.raises(ConfigError, match="'many' is no whole number"):
        options()
