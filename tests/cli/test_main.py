"""The command itself: fast help, one way to show errors, stable exit codes."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import click
import pytest

from hpcresume import errors
from hpcresume.cli import main as module
from hpcresume.cli.interrupts import Terminated
from hpcresume.cli.main import VERBS, main
from tests.support.mpi import child_environment


@pytest.mark.alone
def test_help_takes_at_most_250_ms_with_the_interpreter_s_start():
    command = [sys.executable, "-m", "hpcresume", "--help"]
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) <= 0.25


def test_help_imports_nothing_heavy():
    code = "import sys; from hpcresume.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stderr.split())
    assert "hpcresume.cli.main" in loaded
    assert not loaded & {"torch", "numpy", "h5py", "mpi4py", "rich", "matplotlib", "hpcresume.cli.ls"}


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_exists_and_says_what_it_does(verb, cli):
    name, _, attribute = VERBS[verb][0].partition(":")
    command = getattr(importlib.import_module(name), attribute)
    assert isinstance(command, click.Command)
    assert command.name == verb
    code, out, _ = cli(verb, "--help")
    assert code == 0
    assert len(out) > 200


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"launch"}))
def test_every_verb_has_json_but_launch_whose_output_is_the_job_s_own(verb):
    name, _, attribute = VERBS[verb][0].partition(":")
    command = getattr(importlib.import_module(name), attribute)
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


def test_no_words_and_help_show_the_verbs(cli):
    for words in ((), ("--help",), ("-h",)):
        code, out, _ = cli(*words)
        assert code == 0
        assert all(verb in out and text in out for verb, (_, text) in VERBS.items())


def test_version_names_the_program(cli):
    code, out, _ = cli("--version")
    assert code == 0
    assert out.startswith("hpcresume ")


@pytest.mark.parametrize(
    ("words", "says"),
    [(["nonsense"], "nonsense"), (["ls", "--nonsense", "x"], "--nonsense"), (["ls"], "RUN")],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_to_try(cli, words, says):
    code, out, err = cli(*words)
    assert code == 2
    assert out == ""
    assert says in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("try: ")


@pytest.fixture
def verb(monkeypatch):
    """A verb `fail` that raises what a test gives it."""

    def install(error):
        @click.command("fail")
        @click.option("--json", is_flag=True)
        def command(json):
            raise error

        monkeypatch.setitem(VERBS, "fail", ("tests.cli.failing:command", ""))
        monkeypatch.setattr(module.importlib, "import_module", lambda _: type("M", (), {"command": command}))

    return install


FAMILIES = [
    (errors.ConfigError, 78),
    (errors.UsageError, 64),
    (errors.ModelChangedError, 65),
    (errors.RunBusyError, 73),
    (errors.NoUsableGenerationError, 74),
    (errors.RanksMissingError, 71),
    (errors.SlurmError, 69),
    (errors.HpcresumeError, 70),
]


@pytest.mark.parametrize(("kind", "code"), FAMILIES)
def test_each_family_of_errors_has_its_exit_code_and_is_shown_without_a_traceback(cli, verb, kind, code):
    verb(kind("it broke", where="here", hint="that"))
    assert cli("fail") == (code, "", "error: it broke\nwhere: here\ntry:   that\n")


def test_an_error_is_an_object_too_when_json_was_asked_for(cli, verb):
    verb(errors.RunDirectoryError("no run", where="/x", hint="y"))
    code, out, err = cli("fail", "--json")
    error = {"kind": "RunDirectoryError", "what": "no run", "where": "/x", "try": "y"}
    assert json.loads(out) == {"error": error, "exit_code": 73}
    assert code == 73
    assert "no run" in err


def test_a_user_s_own_json_option_after_two_dashes_is_not_ours(cli):
    code, out, _ = cli("nonsense", "--", "python", "train.py", "--json")
    assert (code, out) == (2, "")


@pytest.mark.parametrize("words", [["--traceback", "fail"], ["fail", "--traceback"]])
def test_a_traceback_is_shown_when_asked_for_anywhere(cli, verb, words):
    verb(errors.HpcresumeError("it broke"))
    code, _, err = cli(*words)
    assert code == 70
    assert "Traceback" in err


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_a_traceback_is_shown_when_the_environment_asks_for_it(cli, verb, monkeypatch, value, shown):
    monkeypatch.setenv("HPCRESUME_TRACEBACK", value)
    verb(errors.HpcresumeError("it broke"))
    assert ("Traceback" in cli("fail")[2]) is shown


@pytest.mark.parametrize(
    ("error", "code", "says"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]
)
def test_what_ends_a_verb_from_outside_has_the_exit_code_that_shells_give_it(cli, verb, error, code, says):
    verb(error())
    assert cli("fail") == (code, "", f"\n{says}\n")


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_before_the_command_line_is_imported_ends_it_without_a_traceback(tmp_path, ignored):
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(3)\n")
    words = "trap '' INT; exec" if ignored else "exec"
    command = ["sh", "-c", f"{words} {sys.executable} -m hpcresume ls run"]
    env = {**child_environment(), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3 if ignored else -signal.SIGINT, "")


def test_ctrl_c_is_python_s_own_again_when_a_verb_begins(tmp_path):
    code = (
        "import signal, hpcresume.cli.main as m; from hpcresume.__main__ import main\n"
        "m.main = lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "raise SystemExit(7 if main() else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 7


def test_a_mistyped_verb_is_answered_with_the_nearest_one(cli):
    code, _, err = cli("statsu", "runs")
    assert (code, err.splitlines()[0]) == (2, "error: No such verb 'statsu'; did you mean status?")


def test_an_operating_system_error_says_which_file(cli, verb):
    verb(PermissionError(13, "Permission denied", "/some/file"))
    code, _, err = cli("fail")
    assert code == 74
    assert "Permission denied" in err
    assert "/some/file" in err


def test_a_reader_that_went_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hpcresume", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert result.stderr == ""
    assert result.returncode == 1


def test_main_takes_its_words_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hpcresume", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("hpcresume")


def shell(line, cwd, **environ):
    """What bash makes of `hpcresume LINE`: its exit code and its stderr."""
    program = f"{sys.executable} -m hpcresume {line}; exit ${{PIPESTATUS[0]}}"
    env = {**child_environment(), "PYTHONUNBUFFERED": "", **environ}
    done = subprocess.run(["bash", "-c", program], cwd=cwd, capture_output=True, text=True, env=env, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "verb", ["ls run", "inspect run", "ls --json run", "verify run", "verify --json run", "--help"]
)
def test_an_output_that_cannot_be_written_is_an_error_of_its_own(run, verb, unbuffered):
    for where, says in ((">&-", "standard output is closed"), (">/dev/full", "No space left on device")):
        code, err = shell(f"{verb} {where}", run.parent, PYTHONUNBUFFERED=unbuffered)
        assert (code, err.splitlines()[:2]) == (72, [f"error: {says}", "where: standard output"])
        assert err.splitlines()[2].startswith("try:   ")
        assert len(err.splitlines()) == 3
    assert shell(f"{verb} >&- 2>&-", run.parent)[0] == 72


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", ["inspect run", "ls --json run", "--help"])
def test_a_reader_that_has_seen_enough_hears_nothing(run, verb, unbuffered):
    code, err = shell(f"{verb} | head -1", run.parent, PYTHONUNBUFFERED=unbuffered)
    assert code in (0, 1)
    assert err == ""


def test_an_emulation_whose_output_is_closed_is_refused_before_it_starts_anything(tmp_path):
    code, err = shell("emulate -- touch ran >&-", tmp_path)
    assert (code, err.splitlines()[0]) == (72, "error: standard output is closed")
    assert not (tmp_path / "ran").exists()
    code, err = shell("emulate -- echo x >/dev/full", tmp_path)
    assert code == 72
    assert "where: standard output" in err.splitlines()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["emulate", "-n", "0"], ["emulate", "-N", "0"], ["emulate", "--time-limit", "0s"],
        ["emulate", "--max-attempts", "0"], ["emulate", "--cpus", "0"], ["emulate", "--cluster-nodes", "0"],
        ["launch", "--mpi", "direct", "--ranks", "2"], ["launch", "--ranks", "0"], ["demo", "--ranks", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_refused_with_where_and_what_to_try(cli, words):
    code, out, err = cli(*words, *(["--", "true"] if words[0] != "demo" else []))
    assert code in (2, 78)
    assert out == ""
    first, where, hint = err.splitlines()
    assert first.startswith("error: ")
    assert where.startswith("where: ")
    assert hint.startswith("try:   ")
