"""What `hr.submit` accepts and refuses before anything is submitted: folders, names, values."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.config.job_spec import JobSpec, Resources
from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.submit.submitit_jobs import prepared, private_folder, read_request
from tests.integrations import trainings

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
        slurm = executor._executor
        return slurm._make_submission_file_text(slurm._submitit_command_str, "uid")


def test_the_folder_is_made_private_and_accepted_again(tmp_path):
    os.umask(0o022)
    folder = private_folder(tmp_path / "a/b/jobs")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder(folder) == folder


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
        hr.submit({"name": "a", "function": FUNCTION}, cluster="local", folder=tmp_path / "open")
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
    with pytest.raises(ConfigError):
        batch_script(read_request(spec, cluster="slurm", folder=folder))
    if place not in ("folder", "signal"):
        with pytest.raises(ConfigError):  # a spec built in Python was never looked at before
            given = {key: spec[key] for key in ("name", "function", "run")}
            read_request(JobSpec(**given, resources=Resources(**spec["resources"])), cluster="slurm")


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
    with pytest.raises(ConfigError, match="SBATCH"):
        batch_script(read_request({"name": "a\\b", "function": FUNCTION, "run": str(tmp_path)}, cluster="slurm"))
    with pytest.raises(ConfigError, match="'%'"):
        read_request({"name": "a", "function": FUNCTION}, cluster="slurm", folder=tmp_path / "%j")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "a"}, "no function"),
        ({"name": "a", "function": "nowhere:f"}, "cannot be found"),
        ({"name": "a", "function": "tests.integrations.trainings:np"}, "no function"),
        ({"name": "a", "function": FUNCTION, "speed": 3}, "described wrongly"),
        ({"name": "a", "function": FUNCTION, "command": "b"}, "command"),
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
    spec = {"name": "a", "function": FUNCTION, "run": str(tmp_path / "run"), "requeue": {"warning_lead": "2min"},
            "resources": {"nodes": 2, "ntasks_per_node": 3, "time": "1h"}, "checkpoint": {"every": "5min"}}  # fmt: skip
    script = batch_script(read_request(spec, cluster="slurm"))
    assert "#SBATCH --signal=B:USR1@120" in script.splitlines()
    assert "#SBATCH --requeue" in script.splitlines()
    assert "#SBATCH --ntasks-per-node=3" in script.splitlines()
    last = script.strip().splitlines()[-1]
    assert last.startswith("exec ")
    assert (
        f"hpcresume launch --run {tmp_path}/run --max-crashes 3 --option=--output={tmp_path}/run/submitit/%j_%t_log.out"
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
