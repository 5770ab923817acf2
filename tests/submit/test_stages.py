"""`hpcresume submit` and `render` of a file with stages, against stand-ins of Slurm's commands run as real programs."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from pathlib import Path

import pytest

from hpcresume.cli.main import main
from hpcresume.config.job import read_job
from hpcresume.submit.stages import stage_script
from tests.submit.cluster import FakeSlurm
from tests.submit.scripts import stand_in

JOB = """\
name: gpt
resources: {time: 1h}
stages:
  evaluate: {after: [prepare, train], command: python evaluate.py}
  train: {after: prepare, command: python train.py, resources: {nodes: 2}}
  prepare: {command: python prepare.py}
"""


class Queue(FakeSlurm):
    """sbatch gives the numbers 1, 2, …; squeue shows the jobs that `show` was told of."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answers("sbatch", "", code=0)
        call = shlex.quote(str(folder / "sbatch"))
        stand_in(self.bin, "sbatch", f"""#!/bin/bash
printf '%s\\0' "$@" >> {call}; printf '\\n\\0' >> {call}
if test -e {folder}/refuse && [[ $* == *$(< {folder}/refuse)* ]]; then echo "sbatch: error: no" >&2; exit 1; fi
number=$(( $(cat {folder}/number 2> /dev/null || echo 0) + 1 ))
echo $number > {folder}/number
echo $number
""")  # fmt: skip
        self.show({})

    def show(self, jobs: dict[str, tuple[str, str]]) -> None:
        """Job → state and reason."""
        lines = "".join(f"{job} {state} {reason}\n" for job, (state, reason) in jobs.items())
        (self.folder / "queue").write_text(lines)
        stand_in(self.bin, "squeue", f"""#!/bin/bash
for word in "$@"; do case $word in --format=*) form=${{word#--format=}};; esac; done
while read -r job state reason; do
    line=${{form//%i/$job}}; line=${{line//%T/$state}}; line=${{line//%r/$reason}}
    for field in S e N P E k; do line=${{line//%$field/}}; done
    printf '%s\\n' "$line"
done < {shlex.quote(str(self.folder / "queue"))}
""")  # fmt: skip


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Queue:
    """A folder with a job of three stages in it, and the stand-ins on PATH."""
    fake = Queue(tmp_path / "slurm")
    work = tmp_path / "work"
    work.mkdir()
    (work / "job.yaml").write_text(JOB)
    for name in ("prepare", "train", "evaluate"):
        (work / f"{name}.py").write_text("")
    monkeypatch.chdir(work)
    tools = fake.path.rpartition(":")[2]
    (Path(tools) / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", fake.path)
    for name in list(os.environ):
        if name.startswith(("SBATCH_", "SLURM_", "HPCRESUME_")):
            monkeypatch.delenv(name)
    return fake


@pytest.fixture
def call(capsys):
    """Call the command line; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def steps(out: str) -> dict[str, tuple[str, str | None]]:
    return {each["stage"]: (each["kind"], each["job_id"]) for each in json.loads(out)["stages"]}


def options(slurm: Queue) -> list[list[str]]:
    """Of each call of sbatch those that say what the job waits for, and its stage."""
    return [[*(word for word in words if "dep" in word.partition("=")[0]), Path(words[-1]).parents[1].name]
            for words in slurm.calls("sbatch")]  # fmt: skip


def test_all_stages_are_submitted_at_once_each_behind_those_that_it_waits_for(slurm, call, tmp_path):
    code, out, err = call("submit")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["STAGE", "JOB", "WAITS", "FOR", "STATE"],
        ["prepare", "1", "-", "submitted"],
        ["train", "2", "prepare", "submitted"],
        ["evaluate", "3", "prepare,", "train", "submitted"],
        ["watch", "it:", "hpcresume", "watch", "runs/gpt"],
    ]
    never = "--kill-on-invalid-dep=no"
    assert options(slurm) == [
        ["prepare"], ["--dependency=afterok:1", never, "train"], ["--dependency=afterok:1:2", never, "evaluate"]
    ]  # fmt: skip
    record = json.loads((tmp_path / "work/runs/gpt/evaluate/submit/job.json").read_text())
    assert (record["stage"], record["after_jobs"]) == ("evaluate", {"prepare": "1", "train": "2"})
    chain = tmp_path / "work/runs/gpt/submit/chain.json"
    assert stat.S_IMODE(chain.stat().st_mode) == 0o600
    assert [each["name"] for each in json.loads(chain.read_text())["stages"]] == ["prepare", "train", "evaluate"]


def test_a_dry_run_shows_all_stages_with_their_preflight_and_changes_nothing(slurm, call):
    (Path("train.py")).unlink()
    code, out, _ = call("submit", "--dry-run", "--set", "stages.train.log=logs/")
    assert code == 78
    assert "evaluate  -    prepare, train  would be submitted" in out
    assert re.search(r"train +log +failed +logs/ is a folder", out)
    assert re.search(r"train +command +noted +there is no file train.py here; unless prepare makes it", out)
    assert (slurm.calls("sbatch"), Path("runs").exists()) == ([], False)


def test_what_is_wrong_with_one_stage_keeps_all_of_them_back(slurm, call):
    (Path("prepare.py")).unlink()
    code, _, err = call("submit")
    assert code == 78
    assert "preflight: stage prepare: command" in err
    assert slurm.calls("sbatch") == []


def test_a_refusal_in_the_middle_says_what_is_in_the_queue_and_the_next_submission_does_the_rest(slurm, call):
    (slurm.folder / "refuse").write_text("runs/gpt/train")
    code, _, err = call("submit")
    assert code == 69
    assert "stage train: sbatch refused: sbatch: error: no; submitted before: prepare (job 1)" in err
    (slurm.folder / "refuse").unlink()
    slurm.show({"1": ("RUNNING", "None")})
    code, out, _ = call("submit", "--json")
    assert (code, steps(out)) == (
        0,
        {"prepare": ("running", "1"), "train": ("submit", "2"), "evaluate": ("submit", "3")},
    )
    assert options(slurm)[-1][0] == "--dependency=afterok:1:2"


def test_submitted_again_after_a_failure_what_is_done_stays_and_who_waits_in_vain_waits_for_the_new_job(slurm, call):
    assert call("submit")[0] == 0
    Path("runs/gpt/prepare/DONE").write_text("{}")
    slurm.show({"2": ("FAILED", "NonZeroExitCode"), "3": ("PENDING", "DependencyNeverSatisfied")})
    code, out, _ = call("status", "runs/gpt", "--json")
    rows = {Path(row["run"]).name: row for row in json.loads(out)["runs"]}
    assert [rows[name]["state"] for name in ("prepare", "train", "evaluate")] == ["done", "ended", "held"]
    assert rows["evaluate"]["doing"] == "job 3 never starts: train failed (DependencyNeverSatisfied)"
    assert (rows["evaluate"]["next"], rows["evaluate"]["waits_for"]) == ("hpcresume requeue runs/gpt", ["train"])
    code, out, _ = call("submit", "--json")
    assert (code, steps(out)) == (0, {"prepare": ("done", "1"), "train": ("submit", "4"), "evaluate": ("point", "3")})
    assert options(slurm)[3:] == [["train"]]
    assert ["update", "JobId=3", "Dependency=afterok:4"] in slurm.calls("scontrol")


def test_requeue_releases_what_is_held_and_submits_the_rest_in_the_folder_where_it_was_submitted(
    slurm, call, tmp_path, monkeypatch
):
    assert call("submit", "--", "--nice=5")[0] == 0
    slurm.show({"1": ("PENDING", "job_requeued_in_held_state"), "3": ("PENDING", "Dependency")})
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("requeue", "work/runs/gpt", "--dry-run", "--json")
    assert (code, steps(out)["train"], len(slurm.calls("sbatch"))) == (0, ("submit", None), 3)
    code, out, _ = call("requeue", "work/runs/gpt", "--json")
    assert (code, steps(out)) == (
        0,
        {"prepare": ("release", "1"), "train": ("submit", "4"), "evaluate": ("point", "3")},
    )
    assert ["release", "1"] in slurm.calls("scontrol")
    assert ["update", "JobId=3", "Dependency=afterok:1:4"] in slurm.calls("scontrol")
    (last,) = slurm.calls("sbatch")[3:]
    assert last[1:4] == ["--nice=5", "--dependency=afterok:1", "--kill-on-invalid-dep=no"]
    assert Path.cwd() == tmp_path


def test_one_stage_can_be_requeued_and_cancelled_by_its_run(slurm, call):
    assert call("submit")[0] == 0
    Path("runs/gpt/prepare/DONE").write_text("{}")
    slurm.show({"2": ("CANCELLED", "None"), "3": ("CANCELLED", "None")})
    code, out, _ = call("requeue", "runs/gpt/train", "--json")
    assert (code, steps(out)) == (0, {"prepare": ("done", "1"), "train": ("submit", "4"), "evaluate": ("left", None)})
    slurm.show({"4": ("PENDING", "Priority")})
    stand_in(slurm.bin, "scancel", f'#!/bin/sh\necho "$@" >> {slurm.folder}/cancelled; : > {slurm.folder}/queue\n')
    assert call("cancel", "runs/gpt/train", "--yes")[0] == 0
    assert (slurm.folder / "cancelled").read_text() == "4\n"


def test_all_stages_are_cancelled_from_the_last_to_the_first(slurm, call):
    assert call("submit")[0] == 0
    slurm.show({"1": ("RUNNING", "None"), "2": ("PENDING", "Dependency"), "3": ("PENDING", "Dependency")})
    stand_in(slurm.bin, "scancel", f"""#!/bin/sh
echo "$@" >> {slurm.folder}/cancelled
exec 3<> {slurm.folder}/left; while read -r line; do case $line in "$1 "*) ;; *) echo "$line" >&3;; esac; done \\
    < {slurm.folder}/queue; exec 3>&-; read_all=$(cat {slurm.folder}/left); echo "$read_all" > {slurm.folder}/queue
: > {slurm.folder}/left
""")  # fmt: skip
    code, out, _ = call("cancel", "runs/gpt", "--dry-run")
    assert (code, [line.partition(":")[0] for line in out.splitlines()]) == (0, ["evaluate", "train", "prepare"])
    assert not (slurm.folder / "cancelled").exists()
    assert call("cancel", "runs/gpt")[0] == 2, "nobody can be asked"
    code, out, _ = call("cancel", "runs/gpt", "--yes", "--json")
    assert (code, [each["done"] for each in json.loads(out)["stages"]]) == (0, [True] * 3)
    assert (slurm.folder / "cancelled").read_text().split() == ["3", "2", "1"]


@pytest.mark.parametrize("word", ["--dependency=singleton", "-dsingleton", "--kill-on-invalid-dep=yes"])
def test_what_a_stage_waits_for_is_said_in_the_file_alone(slurm, call, word):
    code, _, err = call("submit", "--", word)
    assert (code, "after: [STAGE]" in err) == (78, True)
    assert slurm.calls("sbatch") == []


def test_a_folder_that_is_a_run_of_its_own_is_refused(slurm, call):
    Path("runs/gpt").mkdir(parents=True)
    Path("runs/gpt/run.json").write_text("{}")
    code, _, err = call("submit")
    assert (code, "this is a run of its own" in err) == (73, True)
    assert call("submit", "--again")[0] == 2


def test_a_stage_that_is_no_longer_in_the_file_is_named_with_what_ends_its_job(slurm, call):
    assert call("submit")[0] == 0
    Path("job.yaml").write_text(JOB.replace("train]", "fit]").replace("  train:", "  fit:"))
    slurm.show({"1": ("RUNNING", "None"), "2": ("PENDING", "Dependency"), "3": ("PENDING", "Dependency")})
    code, out, err = call("submit")
    assert code == 0
    assert f"the stage train is no longer in the file; should its job still wait: hpcresume cancel {Path.cwd()}" in err
    assert "fit       4    prepare" in out
    assert call("submit")[2] == "", "said once"


@pytest.mark.parametrize("verb", ["ls", "verify", "inspect"])
def test_what_needs_one_run_names_the_stages(slurm, call, verb):
    assert call("submit")[0] == 0
    code, _, err = call(verb, "runs/gpt")
    assert (code, "a chain of stages: prepare, train, evaluate" in err) == (73, True)
    assert call("logs", "runs/gpt")[0] == 73, "none has begun"
    assert call("watch", "runs/gpt/train/nothing")[0] == 73


def test_a_slurm_that_cannot_be_asked_lets_nothing_be_submitted_twice(slurm, call):
    assert call("submit")[0] == 0
    slurm.answers("squeue", "", err="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert call("submit")[0] == 69
    assert len(slurm.calls("sbatch")) == 3


def test_a_damaged_record_is_named_and_submitting_writes_it_anew(slurm, call):
    assert call("submit")[0] == 0
    chain = Path("runs/gpt/submit/chain.json")
    chain.write_text('{"stages": [{"name": "train"}]}')
    code, _, err = call("why", "runs/gpt")
    assert (code, "the record of the stages is damaged" in err) == (73, True)
    slurm.show({"1": ("RUNNING", "None"), "2": ("PENDING", "Dependency"), "3": ("PENDING", "Dependency")})
    assert call("submit")[0] == 0
    assert len(slurm.calls("sbatch")) == 3
    assert len(json.loads(chain.read_text())["stages"]) == 3


def test_the_script_of_a_stage_names_the_runs_before_it_and_its_supervisor_looks_at_them(slurm, call):
    code, out, _ = call("render", "--stage", "evaluate")
    assert code == 0
    assert "#SBATCH --job-name=gpt-evaluate\n" in out
    assert "export HPCRESUME_RUN=runs/gpt/evaluate\n" in out
    assert (
        "export HPCRESUME_STAGE_PREPARE_RUN=runs/gpt/prepare\nexport HPCRESUME_STAGE_TRAIN_RUN=runs/gpt/train\n" in out
    )
    assert out.endswith(
        'exec hpcresume launch --stage=evaluate --after="$HPCRESUME_STAGE_PREPARE_RUN" '
        '--after="$HPCRESUME_STAGE_TRAIN_RUN" --run="$HPCRESUME_RUN" -- python evaluate.py\n'
    )
    code, _, err = call("render")
    assert (code, "name one, --stage prepare" in err) == (2, True)
    code, _, err = call("render", "--stage", "trian")
    assert (code, "try: train" in err) == (2, True)


@pytest.mark.parametrize("run", ["runs/$(touch HIT)", "runs/a b'c", 'runs/";touch HIT;"', "runs/`touch HIT`"])
def test_a_hostile_run_directory_stays_one_word_in_the_stages_behind_it(slurm, run):
    text = JOB.replace("name: gpt\n", f"name: gpt\nrun: {json.dumps(run)}\n").replace("python train.py", "env")
    job = read_job(text)
    script = stage_script(job.stages, next(each for each in job.stages if each.name == "train"), "x")
    told = script.replace("exec hpcresume launch", "printf '%s\\n'")
    Path("script").write_text(told)
    import subprocess

    out = subprocess.run(["/bin/bash", "script"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert f"--after={run}/prepare" in out.splitlines()
    assert not Path("HIT").exists()


def test_a_function_of_submitit_cannot_come_from_a_file_with_stages(slurm):
    submitit = pytest.importorskip("hpcresume.submit.submitit_jobs")
    from hpcresume.errors import ConfigError

    with pytest.raises(ConfigError, match=r"stages go through sbatch.*hpcresume submit job\.yaml"):
        submitit.read_request("job.yaml")
