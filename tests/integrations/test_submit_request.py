"""What `hr.submit` accepts and refuses before anything is submitted: folders, names, values."""

from __future__ import annotations

import functools
import gc
import os
import stat
import time
import warnings
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.config.job_spec import JobSpec, Resources
from hpcresume.errors import ConfigError, RunDirectoryError, SlurmError
from hpcresume.integrations.submitit_call import check_call
from hpcresume.submit.private_folder import private_folder
from hpcresume.submit.submitit_jobs import prepared, read_request
from tests.integrations import trainings
from tests.support.launching import wait_until
from tests.support.mpi import child_environment

pytest.importorskip("submitit")
FUNCTION = "tests.integrations.trainings:plain"


@pytest.fixture(autouse=True)
def srun(tmp_path, monkeypatch):
    """Enough of Slurm for submitit to make its executor: it only looks whether srun is there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


def batch_script(request) -> str:
    """The text that submitit would give to sbatch."""
    with prepared(request) as executor:
        return executor._make_submission_file_text(executor._submitit_command_str, "uid")


def test_the_folder_is_made_private_and_accepted_again(tmp_path):
    os.umask(0o022)
    folder = private_folder(tmp_path / "a/b/jobs")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder(folder) == folder


def test_folders_above_that_are_missing_are_made_private_too(tmp_path):
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a/b/jobs")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("a", "a/b")] == [0o700, 0o700]


def test_a_folder_in_which_everybody_may_rename_is_no_place_for_it(tmp_path):
    """The job folder itself is private; yet anybody could put another one in its place."""
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    shared.chmod(0o777)
    with pytest.raises(RunDirectoryError, match=f"lies in {shared}, where everybody"):
        private_folder(shared / "mine/jobs")
    (tmp_path / "link").symlink_to(shared / "mine")
    with pytest.raises(RunDirectoryError, match="everybody"):
        private_folder(tmp_path / "link/jobs")
    shared.chmod(0o1777)  # as /tmp
    assert private_folder(shared / "mine/jobs").is_dir()
    shared.chmod(0o2770)  # as the folder of a project
    assert private_folder(shared / "mine/jobs").is_dir()


def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "file").touch()
    for name, says in [("open", "open to others"), ("link", "is a link"), ("file", "no directory")]:
        with pytest.raises(RunDirectoryError, match=says):
            private_folder(tmp_path / name)
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        private_folder(tmp_path / "file/jobs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(RunDirectoryError, match="user 12345"):
        private_folder(tmp_path / "theirs")


def test_nothing_is_submitted_from_a_folder_that_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RunDirectoryError):
        hr.submit({"name": "a", "function": FUNCTION, "args": [2, 3]}, cluster="local", folder=tmp_path / "open")
    assert list((tmp_path / "open").iterdir()) == []


def test_a_job_yaml_a_dict_and_a_spec_are_the_same(tmp_path):
    (tmp_path / "job.yaml").write_text(f"name: a\nfunction: {FUNCTION}\nargs: [2, 3]\nrun: {tmp_path}/run\n")
    described = {"name": "a", "function": FUNCTION, "args": [2, 3], "run": f"{tmp_path}/run"}
    for spec in (tmp_path / "job.yaml", str(tmp_path / "job.yaml"), described, JobSpec(**described)):
        request = read_request(spec, cluster="debug")
        assert (request.function, request.args, request.run) == (trainings.plain, (2, 3), f"{tmp_path}/run")
        assert request.folder == tmp_path / "run/submitit"
    assert hr.submit(described, cluster="debug", folder=tmp_path / "jobs").job_id.startswith("DEBUG")


HOSTILE = ["a\nscontrol shutdown", "a\r#SBATCH --uid=0", "a\0b", "a\u2028b", "a\x1b[2J", "a\x7f"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "place",
    ["name", "run", "resources.partition", "resources.account", "resources.qos", "resources.constraint",
     "resources.gres", "resources.exclude", "resources.nodelist", "resources.reservation", "folder", "signal"],
)  # fmt: skip
def test_a_control_character_is_refused_wherever_it_stands(tmp_path, place, text):
    spec: dict = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run"), "resources": {}, "requeue": {}}
    folder = None
    if place == "folder":
        folder = f"{tmp_path}/{text}"
    elif place == "signal":
        spec["requeue"]["warning_signal"] = text
    elif "." in place:
        spec["resources"][place.partition(".")[2]] = text
    else:
        spec[place] = text
    with pytest.raises(ConfigError) as caught:
        batch_script(read_request(spec, cluster="slurm", folder=folder))
    assert named(caught.value) == ("requeue.warning_signal" if place == "signal" else place)
    if place not in ("folder", "signal"):
        with pytest.raises(ConfigError) as caught:  # a spec built in Python was never looked at before
            given = {key: spec[key] for key in ("name", "function", "run")}
            read_request(JobSpec(**given, resources=Resources(**spec["resources"])), cluster="slurm")
        assert named(caught.value) == place


def named(error: ConfigError) -> str:
    """The field that an error is about: its place, or what its words begin with when the place is the whole job."""
    return error.what.partition(":")[0] if error.where == "hr.submit" else error.where


@pytest.mark.parametrize(
    "text", ["$(touch {})", "`touch {}`", "'; touch {}; '", '"; touch {}; "', "a && touch {}", "%j"]
)
def test_what_a_shell_would_run_stays_one_word(tmp_path, text):
    from subprocess import run

    hostile = text.format(tmp_path / "hacked")
    spec = {
        "name": hostile.replace("/", "_"),
        "function": FUNCTION,
        "run": f"{tmp_path}/run {hostile}".replace("%", "p"),
    }
    spec["resources"] = {"partition": hostile, "account": hostile}
    script = batch_script(read_request(spec, cluster="slurm", folder=tmp_path / "jobs"))
    lines = [line for line in script.splitlines() if line.strip()]
    command = lines[-1].removeprefix("exec ")
    shown = run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    assert spec["run"] in shown.splitlines()
    run(["bash", "-n"], input=script, text=True, check=True)
    assert not (tmp_path / "hacked").exists()
    assert sum(not line.startswith("#") for line in lines) == 2, lines


def test_a_backslash_and_a_percent_sign_are_refused_where_sbatch_would_change_them(tmp_path):
    for field, more in [("name", {"name": "a\\b"}), ("resources.nodelist", {"resources": {"nodelist": "a\\b"}})]:
        with pytest.raises(ConfigError, match="SBATCH") as caught:
            given = {"name": "a", "function": FUNCTION, "run": str(tmp_path), **more}
            batch_script(read_request(given, cluster="slurm"))
        assert caught.value.where == field
    with pytest.raises(ConfigError, match="'%'"):
        read_request({"name": "a", "function": FUNCTION}, cluster="slurm", folder=tmp_path / "%j")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "a"}, "no function"),
        (3, "3 describes no job"),
        ({"name": "a", "function": FUNCTION, "args": 3}, r"expected a list, not 3 \(args\)"),
        ({"name": "a", "function": FUNCTION, "kwargs": [3]}, r"expected a mapping, not \[3\] \(kwargs\)"),
        ({"name": "a", "function": "nowhere:f"}, "cannot be found"),
        ({"name": "a", "function": "tests.integrations.trainings:np"}, "no function"),
        ({"name": "a", "function": FUNCTION, "speed": 3}, r"^speed: unknown key"),
        ({"name": "a", "function": FUNCTION, "resources": {"nods": 3}}, r"resources.nods: unknown key .*; try: nodes"),
        (
            {"name": "a", "function": FUNCTION, "resources": {"nodes": "3"}},
            r"^resources.nodes: .*; try: without quotes: 3",
        ),
        ({"name": "a", "function": FUNCTION, "resources": {3: 4}}, r"^resources: a key must be text, not 3"),
        ({"name": "a", "function": FUNCTION, "command": "b"}, "^command: a command and a function"),
        ({"name": "a", "function": FUNCTION, "log": "x.out"}, "^log: is for commands; submitit keeps the logs"),
        ({"name": "..", "function": FUNCTION}, r"^name: '\.\.' is a folder's name"),
        ({"name": "a", "function": FUNCTION, "environment": {"modules": ["-x", "y\n"]}}, r"environment.modules\[1\]"),
        ({"name": "a", "function": FUNCTION, "requeue": {"warning_lead": "soon"}}, "warning_lead"),
    ],
)
def test_what_cannot_be_is_named(spec, says):
    with pytest.raises(ConfigError, match=says):
        read_request(spec, cluster="local")


def test_an_unknown_cluster_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="slurm, local, debug"):
        read_request({"name": "a", "function": FUNCTION}, cluster="pbs")


def test_the_batch_step_is_the_supervisor_and_the_warning_goes_to_it(tmp_path):
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run"),
            "requeue": {"warning_lead": "2min", "max_crashes": 5},
            "resources": {"nodes": 2, "ntasks_per_node": 3, "time": "1h"}, "checkpoint": {"every": "5min"}}  # fmt: skip
    script = batch_script(read_request(spec, cluster="slurm"))
    assert "#SBATCH --signal=B:USR1@120" in script.splitlines()
    assert "#SBATCH --requeue" in script.splitlines()
    assert "#SBATCH --ntasks-per-node=3" in script.splitlines()
    last = script.strip().splitlines()[-1]
    assert last.startswith("exec ")
    assert (
        f"hpcresume launch --run {tmp_path}/run --max-crashes=5 --option=--output={tmp_path}/run/submitit/%j_%t_log.out"
        in last
    )
    assert last.endswith(f"-u -m submitit.core._submit {tmp_path}/run/submitit")
    assert "HPCRESUME_CHECKPOINT_EVERY" in script, "the checkpoint policy travels in the script"


def test_neither_the_package_nor_a_refusal_needs_submitit(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "submitit", None)
    with (
        pytest.raises(ConfigError, match="needs submitit"),
        prepared(
            read_request(
                {"name": "a", "function": FUNCTION, "run": str(tmp_path)}, cluster="local", folder=Path(tmp_path / "j")
            )
        ),
    ):
        pass


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({}, None),
        ({"time": "UNLIMITED"}, "#SBATCH --time=UNLIMITED"),
        ({"time": "390s"}, "#SBATCH --time=00:06:30"),
        ({"time": "2-00:00:00"}, "#SBATCH --time=2-00:00:00"),
    ],
)
@pytest.mark.parametrize("tasks", [None, 3])
def test_the_time_limit_is_what_was_said_or_the_partitions_and_never_submitits_five_minutes(
    tmp_path, resources, line, tasks
):
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run"), "resources": resources}
    spec["kwargs"] = {"b": 3} if tasks else {"a": 2, "b": 3}
    (tmp_path / "bin/sbatch").write_text('#!/bin/sh\ncp "$1" "$SEEN"\necho Submitted batch job 7\n')
    (tmp_path / "bin/sbatch").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEN", str(tmp_path / "seen"))
        hr.submit(spec, *([range(tasks)] if tasks else []), cluster="slurm")
    lines = (tmp_path / "seen").read_text().splitlines()
    assert [each for each in lines if each.startswith(("#SBATCH --time", "#SBATCH -t"))] == ([line] if line else [])
    assert ("#SBATCH --array=0-2%3" in lines) == (tasks == 3)


def test_on_this_machine_a_job_without_a_limit_has_none(tmp_path):
    for resources, minutes in [({}, 52_704_000), ({"time": "UNLIMITED"}, 52_704_000), ({"time": "390s"}, 7)]:
        spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run"), "resources": resources}
        with prepared(read_request(spec, cluster="local")) as executor:
            assert executor._executor.parameters["timeout_min"] == minutes


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [({}, None), ({"gpus_per_node": 2}, 2), ({"gpus_per_node": "a100:4,v100:2"}, 6), ({"gpus_per_task": "a100:1"}, 3)],
)
def test_on_this_machine_a_job_sees_the_gpus_that_it_asked_for(tmp_path, resources, gpus):
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run")}
    spec["resources"] = {"ntasks_per_node": 3, **resources}
    with prepared(read_request(spec, cluster="local")) as executor:
        assert executor._executor.parameters.get("gpus_per_node") == gpus


def test_one_set_of_arguments_is_a_job_of_its_own_with_the_run_of_task_0(tmp_path):
    """submitit makes an array of two and more only: there is no SLURM_ARRAY_TASK_ID to name the run."""
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run")}
    request = read_request(spec, cluster="slurm")
    for tasks, run, logs in [(None, "run", "%j"), (1, "run-0", "%j"), (2, 'run-"$SLURM_ARRAY_TASK_ID"', "%A_%a")]:
        with prepared(request, tasks=tasks) as executor:
            text = executor._submitit_command_str
        assert f"launch --run {tmp_path}/{run} --option=" in text
        assert f"--output={tmp_path}/run/submitit/{logs}_%t_log.out" in text


@pytest.mark.parametrize(("lists", "says"), [([[1, 2], [3]], "not of one length"), ([[]], "no arguments")])
@pytest.mark.parametrize("cluster", ["slurm", "debug"])
def test_lists_that_do_not_fit_are_named_before_anything_is_submitted(tmp_path, lists, says, cluster):
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match=says):
        hr.submit(spec, *lists, cluster=cluster)
    assert not (tmp_path / "run").exists()


def test_what_sbatch_says_is_a_slurm_error(tmp_path):
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    (tmp_path / "bin/sbatch").chmod(0o755)
    spec = {"name": "a", "function": FUNCTION, "args": [2, 3], "run": str(tmp_path / "run")}
    with pytest.raises(SlurmError, match=r"sbatch refused: .*invalid partition"):
        hr.submit(spec, cluster="slurm")
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho garbage\n")
    with pytest.raises(SlurmError, match="garbage"):
        hr.submit(spec, cluster="slurm")


def test_a_line_of_raw_shell_stays_one_line(tmp_path):
    """Python knows more ends of a line than bash does."""
    line = "printf 'a\u2028b\x85c'"
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path), "environment": {"before_commands": [line]}}
    assert f"\n{line}\n" in batch_script(read_request(spec, cluster="slurm"))


def test_the_debug_executor_leaves_the_environment_as_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("HPCRESUME_RUN", raising=False)
    before = dict(os.environ)
    described = {"name": "a", "function": FUNCTION, "args": [2, 3], "run": f"{tmp_path}/run", "checkpoint": {"keep": 2},
                 "environment": {"variables": {"HPCRESUME_TEST_VARIABLE": "x"}}}  # fmt: skip
    job = hr.submit(described, cluster="debug")
    assert dict(os.environ) == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # submitit never closes its two log files
        assert job.result() == 5
        gc.collect()
    assert dict(os.environ) == before
    other = hr.submit(described, cluster="debug")
    assert other.exception() is None
    assert dict(os.environ) == before


def results(jobs) -> list:
    """What the debug executor's jobs return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # submitit never closes its two log files
        found = [job.result() for job in (jobs if isinstance(jobs, list) else [jobs])]
        gc.collect()
    return found


def power(base: int, exponent: int = 1, run: str = "") -> tuple[int, str]:
    """A function that takes its run."""
    return base**exponent, Path(run).name


def alone(run: str) -> str:
    """A function that takes nothing but its run."""
    return Path(run).name


def test_what_all_tasks_share_comes_from_the_description(tmp_path):
    spec = {"name": "a", "function": power, "kwargs": {"exponent": 3}, "run": str(tmp_path / "run")}
    assert results(hr.submit(spec, [1, 2], cluster="debug")) == [(1, "run-0"), (8, "run-1")]
    assert results(hr.submit(spec | {"kwargs": {}}, [2, 3], [4, 2], cluster="debug")) == [(16, "run-0"), (9, "run-1")]
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho Submitted batch job 7\n")
    (tmp_path / "bin/sbatch").chmod(0o755)
    jobs = hr.submit(spec, [1, 2], cluster="slurm")
    assert [(job.submission().args, job.submission().kwargs) for job in jobs] == [
        ((1,), spec["kwargs"]),
        ((2,), spec["kwargs"]),
    ]


def test_positional_arguments_in_two_places_are_refused(tmp_path):
    spec = {"name": "a", "function": power, "args": [3], "run": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match="in the description and in the lists") as caught:
        hr.submit(spec, [1, 2], cluster="debug")
    assert (caught.value.where, (tmp_path / "run").exists()) == ("args", False)


@pytest.mark.parametrize(
    ("function", "more", "lists", "where", "says"),
    [
        (
            alone,
            {"args": ["x"]},
            [],
            "args",
            r"alone\(run\) cannot be called with \('x'\): multiple values .*'run'.*: \(\)",
        ),
        (alone, {}, [[1, 2]], "args", r"alone\(run\) cannot be called with \(1\): multiple values"),
        (power, {}, [], "args", r"missing .*'base' .*handed over: \(base, exponent=1\)"),
        (power, {"args": [1, 2, "x", 4]}, [], "args", r"\(1, 2, 'x', 4\): multiple values for argument 'run'"),
        (FUNCTION, {}, [[1], [2], [3]], "args", "too many positional"),
        (power, {"args": [1], "kwargs": {"exponnt": 3}}, [], "kwargs", "unexpected keyword argument 'exponnt'"),
        (FUNCTION, {"args": [1]}, [], "args", r"plain\(a, b\) cannot be called with \(1\): missing .* 'b'"),
    ],
)
@pytest.mark.parametrize("cluster", ["slurm", "debug"])
def test_arguments_that_the_function_does_not_take_are_refused_before_the_queue(
    tmp_path, function, more, lists, where, says, cluster
):
    with pytest.raises(ConfigError, match=says) as caught:
        hr.submit({"name": "a", "function": function, "run": str(tmp_path / "run"), **more}, *lists, cluster=cluster)
    assert (caught.value.where, (tmp_path / "run").exists()) == (where, False)


def test_map_array_looks_at_the_arguments_of_every_task_first(tmp_path):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="debug")
    with pytest.raises(ConfigError, match=r"cannot be called with \('x'\)"):
        hr.Resumable(alone, run=tmp_path / "run").map_array(executor, ["x"])
    assert results(hr.Resumable(power, run=tmp_path / "run").map_array(executor, [2], [5])) == [(32, "run-0")]


def test_a_function_whose_arguments_only_its_decorator_knows_is_let_through(tmp_path):
    """As hydra.main's: it is called with nothing, and what it wraps with a configuration."""

    @functools.wraps(power)
    def decorated(*args: object) -> tuple[int, str]:
        return power(2, 5)

    spec = {"name": "a", "function": decorated, "run": str(tmp_path / "run")}
    read_request(spec, cluster="debug")
    for function in (
        functools.partial(power, 2, run="x"),
        max,
        type("Callable", (), {"__call__": lambda self, a: a})(),
    ):
        check_call(function, (5,), {}, run=None)
    check_call(decorated, (), {}, run=None)


def test_a_finished_run_is_refused_as_hpcresume_submit_does(tmp_path):
    """It was submitted, and its result was None."""
    spec = {"name": "a", "function": power, "args": [2], "run": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/DONE").touch()
    with pytest.raises(
        ConfigError, match=r"run is finished \(DONE exists\).*result\(\).*run/submitit.*reopen=True"
    ) as caught:
        hr.submit(spec, cluster="debug")
    assert (caught.value.where, (tmp_path / "run/submitit").exists()) == ("run", False)
    (tmp_path / "run/DONE").unlink()
    assert results(hr.submit(spec, cluster="debug")) == [(2, "run")]


def test_of_several_runs_those_that_are_not_finished_are_gone_on_with(tmp_path):
    spec = {"name": "a", "function": power, "run": str(tmp_path / "run")}
    for index in range(2):
        (tmp_path / f"run-{index}").mkdir()
    (tmp_path / "run-0/DONE").touch()
    assert results(hr.submit(spec, [2, 3], cluster="debug")) == [(2, "run-0"), (3, "run-1")]
    (tmp_path / "run-1/DONE").touch()
    with pytest.raises(ConfigError, match=r"run-0 to .*run-1 are finished"):
        hr.submit(spec, [2, 3], cluster="debug")


def stays(number: int, run: str) -> int:
    """Holds its run until it is told to leave."""
    with hr.session(run) as s:
        for _ in s.steps(1):
            while not Path(run, "leave").exists():
                time.sleep(0.02)
    return number


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_tasks_that_share_one_run_are_told_how_each_has_its_own(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    for name in [each for each in os.environ if each.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(Path(__file__).parents[2])
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    jobs = executor.map_array(hr.Resumable(stays, run=tmp_path / "run"), [1, 2])
    try:
        wait_until(lambda: any(job.paths.result_pickle.exists() for job in jobs), 60)
    finally:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run/leave").touch()
    said = "".join(str(job.exception()) for job in jobs)
    assert "RunBusyError" in said
    assert f"hr.Resumable(stays, run='{tmp_path}/run').map_array(executor, …)" in said
    assert sum(job.exception() is None for job in jobs) == 1, said
