"""`hpcresume submit` against stand-ins of Slurm's commands, run as real programs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcresume.cli.main import main
from hpcresume.config.job_spec import JobSpec, Requeue
from hpcresume.errors import SlurmError
from hpcresume.slurm.sibling_list import read_siblings
from hpcresume.slurm.submission import Partition, partition, queue_states, sbatch
from hpcresume.submit.record import AtWork
from hpcresume.submit.submission import Plan, submit_plan
from tests.submit.cluster import PARTITION, FakeSlurm

JOB = "name: a b\ncommand: python train.py\nresources: {nodes: 2, time: 1h}\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> FakeSlurm:
    """A folder with a job in it, and the stand-ins on PATH."""
    fake = FakeSlurm(tmp_path / "slurm")
    work = tmp_path / "work"
    work.mkdir()
    (work / "job.yaml").write_text(JOB)
    (work / "train.py").write_text("")
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", fake.path)
    for name in list(os.environ):
        if name.startswith(("SBATCH_", "SLURM_", "HPCRESUME_")):
            monkeypatch.delenv(name)
    return fake


@pytest.fixture
def call(capsys):
    """Call the command line; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["submit", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_job_is_submitted_and_it_is_said_how_to_watch_it(slurm, call, tmp_path):
    code, out, err = call()
    assert (code, err) == (0, "")
    assert out == (
        "job 4711  run runs/a b\nlog  slurm-4711.out\n"
        "watch it:  hpcresume watch 'runs/a b'\nwatch it:  squeue --jobs=4711\nwatch it:  tail -F slurm-4711.out\n"
    )
    script = tmp_path / "work" / "runs" / "a b" / "submit" / "script.sbatch"
    assert slurm.calls("sbatch") == [["--parsable", str(script)]]
    assert "exec hpcresume launch" in script.read_text()
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    assert stat.S_IMODE(script.parent.stat().st_mode) == 0o700
    record = json.loads((script.parent / "job.json").read_text())
    assert (record["job_id"], record["spec"]["name"]) == ("4711", "a b")


def test_the_environment_of_the_caller_goes_to_sbatch_as_it_is(slurm, call, tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    assert call()[0] == 0
    variables = (tmp_path / "slurm" / "environment").read_text().split("\0")
    assert {"LC_ALL=de_DE.UTF-8", "SQUEUE_FORMAT=%i"} <= set(variables)


def test_a_dry_run_shows_the_script_and_the_preflight_and_changes_nothing(slurm, call, tmp_path):
    code, out, _ = call("--dry-run", "--set", "resources.nodes=3")
    assert code == 0
    assert "#SBATCH --nodes=3\n" in out
    assert "partition  ok" in " ".join(out.split("\n")[-3:]).replace("    ", "  ")
    code, out, _ = call("--dry-run", "--set", "log=logs/")
    assert code == 78
    assert "log failed logs/ is a folder (try: log: logs/%x-%j.out)" in " ".join(out.split())
    assert slurm.calls("sbatch") == []
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"job.yaml", "train.py"}


def test_json(slurm, call):
    code, out, _ = call("--json", "--set", "log=logs-%x-%j.out")
    found = json.loads(out)
    assert (code, found["job_id"], found["log"]) == (0, "4711", "logs-a b-4711.out")
    assert found["watch"] == [
        "hpcresume watch 'runs/a b'",
        "squeue --jobs=4711",
        "tail -F 'logs-a b-4711.out'",
    ]
    assert {check["name"]: check["outcome"] for check in found["checks"]} == dict.fromkeys(
        ("run", "log", "command", "environment", "script", "partition"), "ok"
    )


def test_a_guard_that_is_wished_for_stands_behind_the_job_before_its_script_runs(slurm, call, tmp_path):
    code, out, err = call("--set", "requeue.guard=true", "--set", 'resources.options=["--export=ALL,A=1"]',
                          "--", "--hold", "--nice=5")  # fmt: skip
    assert code == 0, err
    assert "job 4711 stands behind it" in out + err
    run = tmp_path / "work" / "runs" / "a b"
    assert slurm.calls("sbatch")[1] == [
        "--parsable", "--nice=5", "--dependency=afternotok:4711", "--kill-on-invalid-dep=yes",
        "--export=ALL", str(run / "submit" / "script.sbatch"),
    ]  # fmt: skip
    variables = (tmp_path / "slurm" / "environment").read_text().split("\0")
    assert {"A=1", "HPCRESUME_BEHIND=guard:4711"} <= set(variables)
    assert [(each.job_id, each.why, each.of) for each in read_siblings(run).waiting] == [("4711", "guard", "4711")]
    assert call("--again", "--set", "requeue.guard=false")[0] == 0
    assert len(slurm.calls("sbatch")) == 3


@pytest.mark.parametrize(
    ("requeue", "requeues", "jobs"),
    [(Requeue(), False, 2), (Requeue(), True, 1), (Requeue(), None, 1), (Requeue(guard=False), False, 1),
     (Requeue(enabled=False), False, 1), (Requeue(guard=True), True, 2)],
)  # fmt: skip
def test_where_slurm_requeues_nothing_a_guard_is_left_without_being_asked_for(tmp_path, requeue, requeues, jobs):
    """The first script may never run: nobody would be there to leave one."""
    spec = JobSpec(name="x", command="python train.py", run=str(tmp_path / "run"), requeue=requeue)
    numbers = iter(("12", "13"))
    made: list[Sequence[str]] = []

    def submit(_script: Path, options: Sequence[str]) -> str:
        made.append(options)
        return next(numbers)

    sent = submit_plan(Plan(spec, "#!/bin/sh\n", ()), submit=submit, submit_function=str, work=lambda _: AtWork(),
                       requeues=lambda: requeues)  # fmt: skip
    assert (len(made), sent.job_id, len(sent.notes)) == (jobs, "12", jobs - 1)
    if requeue.guard is None and jobs == 2:
        assert "--dependency=afternotok:12" in made[1]
        assert "this cluster requeues no job" in sent.notes[0]


def test_the_tasks_of_an_array_leave_their_own_guards(slurm, call):
    assert call("--set", "requeue.guard=true", "--set", "resources.array=0-3")[0] == 0
    assert len(slurm.calls("sbatch")) == 1


def test_a_guard_that_slurm_refuses_is_a_note_and_no_error(slurm, tmp_path):
    spec = JobSpec(name="x", command="python train.py", requeue=Requeue(guard=True))

    def submit(script: Path, options: Sequence[str]) -> str:
        if options:
            raise SlurmError("sbatch refused: QOSMaxSubmitJobPerUserLimit")
        return "12"

    sent = submit_plan(Plan(spec, "#!/bin/sh\n", ()), submit=submit, submit_function=str, work=lambda _: AtWork())
    assert sent.job_id == "12"
    assert any("QOSMaxSubmitJobPerUserLimit" in note for note in sent.notes)


def test_further_options_go_to_sbatch_in_front_of_the_script(slurm, call):
    assert call("job.yaml", "--", "--hold", "--begin=now+1hour")[0] == 0
    assert slurm.calls("sbatch")[0][:3] == ["--parsable", "--hold", "--begin=now+1hour"]
    assert call("--again", "--", "--hold")[0] == 0
    assert slurm.calls("sbatch")[1][:2] == ["--parsable", "--hold"]
    assert call("--again", "--", "-H", "-d", "-b=now")[0] == 0
    for words in (["reboot.sh"], ["--begin", "now"], ["--hold", "-"]):
        code, _, err = call("--again", "job.yaml", "--", *words)
        assert (code, len(slurm.calls("sbatch"))) == (78, 3)
        assert "no option of sbatch" in err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--array=0-3", "--set resources.array=VALUE"),
        ("-a0-3", "--set resources.array=VALUE"),
        ("--no-requeue", "--set requeue.enabled=VALUE"),
        ("--requeue", "--set requeue.enabled=VALUE"),
        ("--signal=USR2@10", "--set requeue.warning_lead=VALUE"),
        ("--output=x", "--set log=VALUE"),
        ("-ex", "--set log=VALUE"),
        ("--time=5", "--set resources.time=VALUE"),
        ("-t5", "--set resources.time=VALUE"),
        ("--parti=x", "--set resources.partition=VALUE"),
        ("-J=x", "--set name=VALUE"),
        ("--open-mode=truncate", "all attempts write into one log"),
        ("--wrap=reboot", "the script is made from the job"),
        ("--parsable", "sbatch is asked for it anyway"),
        ("--test-only", "nothing would be submitted"),
        ("-V", "nothing would be submitted"),
        ("-Q", "sbatch would not say the job's number"),
        ("--wait", "sbatch would stay until the job is over"),
        ("-D/tmp", "relative paths begin in the folder"),
        ("--clusters=big", "SLURM_CLUSTERS"),
    ],
)
def test_an_option_that_would_undo_the_script_is_refused_with_the_place_to_say_it(slurm, call, option, says):
    for words in ([], ["--dry-run"]):
        code, _, err = call(*words, "job.yaml", "--", "--hold", option)
        assert (code, slurm.calls("sbatch")) == (78, [])
        assert f"{option.partition('=')[0]} cannot be given beside the script" in err
        assert says in err


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "REQUEUED", "COMPLETING", "REQUEUE_HOLD", "SUSPENDED"])
def test_a_run_with_a_job_in_the_queue_or_at_work_is_refused_unless_told_otherwise(slurm, call, state):
    assert call()[0] == 0
    slurm.answers("squeue", f"{state}\n")
    code, _, err = call()
    assert code == 73
    assert f"job 4711 ({state})" in err
    assert "--again" in err
    assert len(slurm.calls("sbatch")) == 1
    assert call("--again")[0] == 0
    assert len(slurm.calls("sbatch")) == 2


@pytest.mark.parametrize(
    "squeue", [("COMPLETED\n", "", 0), ("", "", 0), ("", "slurm_load_jobs error: Invalid job id specified", 1)]
)
def test_a_run_whose_job_is_over_can_be_submitted_again(slurm, call, squeue):
    assert call()[0] == 0
    slurm.answers("squeue", squeue[0], err=squeue[1], code=squeue[2])
    assert call()[0] == 0
    assert len(slurm.calls("sbatch")) == 2


def test_a_job_that_was_submitted_by_hand_counts_too(slurm, call, tmp_path):
    attempt = tmp_path / "work" / "runs" / "a b" / "attempts" / "0001"
    attempt.mkdir(parents=True)
    claim = {"job_id": "99", "restart": 0, "host": "n1", "boot_id": "x", "pid": 1, "pid_start": "1"}
    (attempt / "claim.json").write_text(json.dumps(claim))
    slurm.answers("squeue", "RUNNING\n")
    code, _, err = call()
    assert (code, "job 99 (RUNNING)" in err) == (73, True)


def test_a_training_that_runs_here_without_slurm_counts_too(slurm, call, tmp_path):
    from dataclasses import asdict

    from hpcresume.checkpoint.attempts import Holder

    attempt = tmp_path / "work" / "runs" / "a b" / "attempts" / "0001"
    attempt.mkdir(parents=True)
    (attempt / "claim.json").write_text(json.dumps(asdict(Holder.here(None, 0))))
    code, _, err = call()
    assert (code, f"process {os.getpid()}" in err) == (73, True)


def test_two_submissions_at_once_do_not_both_happen(slurm, call, tmp_path):
    assert call()[0] == 0
    with (tmp_path / "work" / "runs" / "a b" / "submit" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = call()
    assert (code, "under way" in err, len(slurm.calls("sbatch"))) == (73, True, 1)


def test_a_job_whose_number_cannot_be_written_down_is_said_all_the_same(slurm, call, tmp_path):
    """The job is in the queue by then: to lose its number would be worse than any error."""
    submit = tmp_path / "work" / "runs" / "a b" / "submit"
    (submit / "job.json").mkdir(parents=True)  # no file can be renamed over a folder
    code, out, err = call()
    assert (code, out.splitlines()[0]) == (0, "job 4711  run runs/a b")
    assert err.startswith(f"note: {submit}/job.json cannot be written (")
    assert "will not see job 4711" in err
    slurm.answers("sbatch", "4712")
    code, out, err = call("--json")
    assert (code, json.loads(out)["job_id"], "4712" in json.loads(out)["notes"][0]) == (0, "4712", True)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EIO])
def test_a_filesystem_without_locks_is_said_and_used(slurm, call, monkeypatch, number):
    def flock(fd, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    code, out, err = call()
    if number == errno.EIO:
        assert (code, "the run directory cannot be locked" in err, slurm.calls("sbatch")) == (73, True, [])
    else:
        assert (code, out.startswith("job 4711"), "no locks there" in err) == (0, True, True)


def test_that_slurm_did_not_say_whether_a_job_is_there_is_said(slurm, call, monkeypatch):
    monkeypatch.setattr("hpcresume.slurm.commands.PAUSES", ())
    assert call()[0] == 0
    slurm.answers("squeue", "", err="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    code, _, err = call()
    assert (code, err) == (0, "note: job 4711 of this run may be at work: Slurm does not say\n")


def test_a_script_that_cannot_be_kept_is_not_submitted(slurm, call, tmp_path):
    (tmp_path / "work" / "runs" / "a b" / "submit" / "script.sbatch").mkdir(parents=True)
    code, _, err = call()
    assert (code, slurm.calls("sbatch")) == (73, [])
    assert "the script cannot be kept" in err


def test_slurm_errors_are_typed_and_say_what_slurm_said(slurm, call):
    slurm.answers("sbatch", "", err="sbatch: error: invalid partition specified: x\n\x1b[31m", code=1)
    code, _, err = call()
    assert code == 69
    assert "sbatch refused: sbatch: error: invalid partition specified: x ?[31m" in err
    slurm.answers("sbatch", "Submitted batch job 12\n")
    assert "no job number: Submitted batch job 12" in call()[2]
    slurm.answers("sbatch", "")
    assert "no job number: nothing" in call()[2]
    slurm.removes("sbatch")
    code, _, err = call()
    assert (code, "there is no sbatch here" in err, "emulate" in err) == (69, True, True)


def test_a_number_with_the_cluster_s_name_is_a_number(slurm, tmp_path):
    slurm.answers("sbatch", "some notice\n4712;big\n")
    assert sbatch(tmp_path / "x") == "4712"


def test_an_sbatch_that_hangs_is_given_up_and_it_is_said_that_the_job_may_exist(slurm, tmp_path):
    slurm.answers("sbatch", "1", sleep=5)
    begin = time.monotonic()
    with pytest.raises(SlurmError, match=r"no answer within 0.3 s; the job may be in the queue.*squeue --me"):
        sbatch(tmp_path / "x", timeout=0.3)
    assert time.monotonic() - begin < 4


def failed(out: str) -> list[str]:
    """What the preflight found against it: `name: detail`."""
    checks = json.loads(out)["checks"]
    return [f"{c['name']}: {c['detail']}" for c in checks if c["outcome"] == "failed"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["command=nowhere x"], "command: nowhere is not found"),
        (["command=python nowhere.py"], "command: there is no file nowhere.py here"),
        (["starter=torchrun", "command=gone.py"], "command: there is no file gone.py here"),
        (["run=job.yaml/x"], "run: {work}/job.yaml is no folder"),
        (["log=logs/%j.out"], "log: {work}/logs is no folder that can be written to"),
        (["log=logs/"], "log: logs/ is a folder"),
        (["run=~/runs"], "run: ~/runs is taken letter for letter"),
        (["run=$SCRATCH/runs"], "run: $SCRATCH/runs is taken letter for letter"),
        (["environment.venv=v"], "environment: v/bin/activate is missing"),
        (["container.image=i.sif"], "container: there is no image i.sif"),
        (["resources.nodes=5"], "partition: low has only 4 nodes, and the job wants 5"),
        (["resources.time=25h"], "partition: low allows 1-00:00:00, and the job wants 25h"),
        ([f"run={'x' * 300}/y"], "run: {work}/xxx"),
        ([f"name={'ü' * 200}", "run="], "run: {work}/runs/ü"),
        ([f"command=python {'x' * 300}.py"], "command: xxx"),
        ([f"container.image={'x' * 300}"], "container: xxx"),
        ([f"environment.venv={'x' * 300}"], "environment: xxx"),
        ([f"log={'x' * 300}/%j"], "log: xxx"),
        (
            ["container.image=train.py", "environment.variables.APPTAINER_CONTAINALL=1"],
            "container: APPTAINER_CONTAINALL hides Slurm",
        ),
        (["command=", "function=json:loads", "environment.venv=v"], "environment: the function runs under {python},"),
        (["resources.time=UNLIMITED"], "partition: low allows 1-00:00:00, and the job wants UNLIMITED"),
        (["environment.before_commands=['if true']"], "script: bash does not understand it: bash: line"),
        (["command=", "function=nowhere.at_all:f"], "function: there is no module nowhere"),
    ],
)
def test_preflight_finds(slurm, call, tmp_path, sets, said):
    words = [word for each in sets for word in ("--set", each)]
    code, out, _ = call("--dry-run", "--json", *words)
    assert code == 78
    (found,) = failed(out)
    assert found.startswith(said.format(work=tmp_path / "work", python=sys.executable))
    code, _, err = call(*words)
    assert (code, slurm.calls("sbatch")) == (78, [])
    assert "preflight" in err


def test_a_container_is_not_started_where_a_folders_name_would_be_two_binds(slurm, call, tmp_path, monkeypatch):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "work" / "train.py").rename(tmp_path / "a,b" / "i.sif")
    (tmp_path / "work" / "job.yaml").rename(tmp_path / "a,b" / "job.yaml")
    monkeypatch.chdir(tmp_path / "a,b")
    code, out, _ = call("--dry-run", "--json", "--set", "container.image=i.sif")
    assert (code, failed(out)) == (78, [f"container: apptainer takes : and , in {tmp_path}/a,b as separators"])


def test_preflight_finds_a_finished_run_and_variables_that_win_over_the_script(slurm, call, tmp_path, monkeypatch):
    (tmp_path / "work" / "runs" / "a b").mkdir(parents=True)
    (tmp_path / "work" / "runs" / "a b" / "DONE").touch()
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    found = failed(call("--dry-run", "--json")[1])
    assert [line.partition(":")[0] for line in found] == ["run", "variables"]
    assert "2 things speak against it" in call()[2]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SBATCH_ARRAY_INX", "0-3", "unset SBATCH_ARRAY_INX, or resources.array in the job"),
        ("SBATCH_OUTPUT", "x", "unset SBATCH_OUTPUT, or log in the job"),
        ("SBATCH_ERROR", "x", "unset SBATCH_ERROR, or log in the job"),
        ("SBATCH_NO_REQUEUE", "1", "unset SBATCH_NO_REQUEUE"),
        ("SBATCH_SIGNAL", "USR2@10", "unset SBATCH_SIGNAL"),
        ("SBATCH_OPEN_MODE", "truncate", "unset SBATCH_OPEN_MODE"),
        ("SBATCH_TIMELIMIT", "5", "unset SBATCH_TIMELIMIT"),
        ("SBATCH_JOB_NAME", "other", "unset SBATCH_JOB_NAME"),
        ("SBATCH_WAIT", "", "unset SBATCH_WAIT"),
        ("SBATCH_CLUSTERS", "big", "unset SBATCH_CLUSTERS"),
        # The same as the script, or nobody's default but the user's.
        ("SBATCH_REQUEUE", "1", None),
        ("SBATCH_NO_REQUEUE", "0", None),
        ("SBATCH_OPEN_MODE", "append", None),
        ("SBATCH_SIGNAL", "B:USR1@300", None),
        ("SBATCH_TIMELIMIT", "01:00:00", None),
        ("SBATCH_PARTITION", "low", None),
        ("SBATCH_ACCOUNT", "mine", None),
        ("SBATCH_EXPORT", "NONE", None),
        ("SBATCH_MEM_BIND", "local", None),
        ("SLURM_CLUSTERS", "big", None),
        # Nothing to sbatch, though there are options that are called so.
        ("SBATCH_TIME", "5", None),
        ("SBATCH_NODES", "5", None),
    ],
)
def test_variables_that_contradict_the_job_are_refused_and_defaults_are_not(
    slurm, call, monkeypatch, name, value, said
):
    monkeypatch.setenv(name, value)
    code, out, _ = call("--dry-run", "--json")
    hints = [check["hint"] for check in json.loads(out)["checks"] if check["name"] == "variables"]
    assert hints == ([said] if said and "requeue" not in said.lower() else hints if said else [])
    assert (code, any(hint.startswith(said or "-") for hint in hints)) == ((78, True) if said else (0, False))


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [("resources.partition=low", "SBATCH_PARTITION", "high"), ("resources.mem=4G", "SBATCH_MEM_PER_NODE", "8G"),
     ("resources.exclusive=true", "SBATCH_EXCLUSIVE", "user"), ("requeue.enabled=false", "SBATCH_REQUEUE", "yes"),
     ("resources.options=[--distribution=block]", "SBATCH_DISTRIBUTION", "cyclic")],
)  # fmt: skip
def test_a_variable_does_not_win_over_what_the_job_says(slurm, call, monkeypatch, given, name, value):
    monkeypatch.setenv(name, value)
    code, out, _ = call("--dry-run", "--json", "--set", given)
    assert (code, [each.partition(" would win")[0] for each in failed(out)]) == (78, [f"variables: {name}"])
    monkeypatch.delenv(name)
    assert call("--dry-run", "--set", given)[0] == 0


def test_that_the_job_gets_another_path_than_this_is_said(slurm, call, monkeypatch):
    assert "not checked" not in call("--", "--export=ALL,A=b")[2]
    assert "not checked: environment: the job does not get this PATH" in call("--again", "--", "--export=NONE")[2]
    assert "does not get this PATH" in call("--again", "--set", "resources.options=[--export=A]")[2]
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    assert "does not get this PATH" in call("--again")[2]
    assert "not checked" not in call("--again", "--", "--export=ALL")[2]


def test_the_limit_of_a_job_that_names_none_is_the_environments_or_the_partitions(slurm, call, monkeypatch):
    none = ("--dry-run", "--json", "--set", "resources.time=")
    assert failed(call(*none)[1]) == []
    slurm.answers("scontrol", PARTITION.replace("DefaultTime=NONE", "DefaultTime=00:05:00"))
    assert failed(call(*none)[1]) == [
        "partition: low gives 00:05:00 to a job that names no time, and the warning comes 300 s before the end"
    ]
    monkeypatch.setenv("SBATCH_TIMELIMIT", "60")
    assert failed(call(*none)[1]) == []
    monkeypatch.setenv("SBATCH_TIMELIMIT", "4")
    assert failed(call(*none)[1])[0].startswith("partition: $SBATCH_TIMELIMIT gives 4 to a job that names no time")


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        ((PARTITION.replace("State=UP", "State=DOWN"), "", 0), "failed", "low is not up"),
        ((PARTITION.replace("Default=YES", "Default=NO"), "", 0), "failed", "no default partition"),
        (("", "Partition low not found\n", 1), "failed", "no default partition"),
        (("", "Unable to contact slurm controller (connect failure)", 1), "skipped", "does not answer"),
        (("garbage\n", "", 0), "failed", "no default partition"),
        ((PARTITION, "", 0), "ok", "low; a preemption there leaves 20 s, not the 300 s of the warning"),
    ],
)
def test_what_slurm_says_of_the_partition(slurm, call, monkeypatch, answer, outcome, said):
    monkeypatch.setattr("hpcresume.slurm.commands.PAUSES", ())
    slurm.answers("scontrol", answer[0], err=answer[1], code=answer[2])
    (check,) = [c for c in json.loads(call("--dry-run", "--json")[1])["checks"] if c["name"] == "partition"]
    assert (check["outcome"], said in check["detail"]) == (outcome, True), check


def test_what_may_come_with_the_environment_is_skipped_and_said(slurm, call):
    slurm.removes("hpcresume")
    code, _, err = call("--set", "command=solver x", "--set", "environment.modules=[solver]")
    assert code == 0
    assert "not checked: command: solver is not here; it may come with modules" in err
    assert "not checked: environment: hpcresume is not here; it may come with modules" in err


def test_a_dollar_sign_in_a_variable_is_said_and_left_alone(slurm, call, tmp_path):
    """It may be meant, as in a template; nobody who means it reads on."""
    code, _, err = call("--set", "environment.variables.DATA=$HOME/data", "--set", "environment.variables.TEXT=5$")
    assert (code, len(slurm.calls("sbatch"))) == (0, 1)
    assert err == (
        "note: environment.variables.DATA is '$HOME/data', letter for letter: $HOME is not expanded"
        ' (try: environment.before_commands: - export DATA="$HOME/data")\n'
    )
    code, out, _ = call("--dry-run", "--json", "--set", "environment.variables.DATA=~/data")
    (check,) = [each for each in json.loads(out)["checks"] if each["name"] == "variables"]
    assert (code, check["outcome"], "letter for letter: ~" in check["detail"]) == (0, "noted", True)


@pytest.mark.parametrize(("name", "value"), [("PATH", "/opt/bin:$PATH"), ("SLURM_JOB_ID", "4242")])
def test_a_variable_that_would_break_the_job_is_never_submitted(slurm, call, name, value):
    code, _, err = call("--set", f"environment.variables.{name}={value}")
    assert (code, slurm.calls("sbatch")) == (78, [])
    assert f"environment.variables.{name}: " in err


@pytest.mark.parametrize("log", ["x-%a.out", "x-%j.out", "x-%A_%4a.out", "/dev/null"])
def test_the_tasks_of_an_array_do_not_write_into_one_log(slurm, call, log):
    assert call("--set", "resources.array=0-3", "--set", f"log={log}")[0] == 0
    code, _, err = call("--again", "--set", "resources.array=0-3", "--set", "log=x-%A.out")
    assert (code, "all tasks of the array would write" in err, "x-%A-%a.out" in err) == (78, True, True)


def test_a_function_goes_through_submitit(slurm, call, monkeypatch):
    import types

    seen = []
    job = types.SimpleNamespace(job_id=815)

    def submit(spec, cluster, again):
        assert again, "who is at work was looked at already, under a lock that is still held"
        seen.append(spec)
        return job

    monkeypatch.setattr("hpcresume.integrations.submitit.submit", submit)
    code, out, _ = call("--set", "command=", "--set", "function=json:loads", "--json")
    assert (code, json.loads(out)["job_id"]) == (0, "815")
    assert json.loads(out)["log"] == "runs/a b/submitit/815_0_log.out"
    assert json.loads(out)["watch"][2] == (
        "tail -F 'runs/a b/submitit/815_0_log.out' 'runs/a b/submitit/815_0_log.err'"
    )
    (check,) = [check for check in json.loads(out)["checks"] if check["name"] == "environment"]
    assert (check["outcome"], check["detail"]) == ("ok", f"{sys.executable} runs it")
    assert (seen[0].function, slurm.calls("sbatch")) == ("json:loads", [])
    assert call("--set", "command=", "--set", "function=json:loads", "job.yaml", "--", "--hold")[0] == 78


def test_a_function_needs_this_python_with_submitit_and_no_command_of_ours(slurm, call, monkeypatch):
    slurm.removes("hpcresume")
    wanted = ("--dry-run", "--json", "--set", "command=", "--set", "function=json:loads")
    assert failed(call(*wanted)[1]) == []
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert failed(call(*wanted)[1]) == [f"environment: {sys.executable} has no submitit"]


def test_the_queue_is_asked_without_believing_everything(slurm):
    slurm.answers("squeue", "RUNNING\nCOMPLETED\nCANCELLED by 0\n\n")
    assert queue_states("1_2") == ("RUNNING",)
    assert queue_states("1; reboot") == ()
    slurm.answers("squeue", "", err="slurm_load_jobs error: Unable to contact", code=1)
    assert queue_states("1") is None


def test_a_partition_as_slurm_prints_it(slurm):
    slurm.answers("scontrol", PARTITION + PARTITION.replace("=low", "=high").replace("Default=YES", "Default=NO"))
    assert partition(None) == Partition("low", True, True, 4, None, "1-00:00:00", 20, preempt_mode="REQUEUE")
    assert partition("high") == Partition("high", True, False, 4, None, "1-00:00:00", 20, preempt_mode="REQUEUE")
    assert slurm.calls("scontrol")[-1] == ["--oneliner", "show", "partition", "high"]
