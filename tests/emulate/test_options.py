"""Options, #SBATCH lines and everything else that is text: read as the real programs read them, and never executed."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcresume.config.timetable import SignalPlan, parse_signal
from hpcresume.emulate.commands.call import ScriptText
from hpcresume.emulate.dependencies import Dependency, Fate, Met, judge, parse_dependency
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress, expand
from hpcresume.emulate.nodes import Node, Partition, choose
from hpcresume.emulate.option_tables import SBATCH, SRUN
from hpcresume.emulate.request import JobRequest
from hpcresume.emulate.sbatch_request import exported, parse_array, read_submission
from hpcresume.emulate.script import directives
from hpcresume.emulate.settings import parse_partition
from hpcresume.emulate.slurm_time import limit_text, parse_begin, parse_limit, used_text
from hpcresume.errors import ConfigError
from hpcresume.slurm.filenames import file_name


@pytest.mark.parametrize(
    ("words", "pairs", "rest"),
    [
        (["-N2", "--ntasks=3", "job", "--nodes=9"], [("nodes", "2"), ("ntasks", "3")], ["job", "--nodes=9"]),
        (["-N", "2", "--job-name", "a b", "--", "-x"], [("nodes", "2"), ("job-name", "a b")], ["-x"]),
        (["-HQn4"], [("hold", None), ("quiet", None), ("ntasks", "4")], []),
        (["--exclusive", "--exclusive=user"], [("exclusive", None), ("exclusive", "user")], []),
        (["--part=low"], [("partition", "low")], []),
        (["-k", "x"], [("no-kill", None)], ["x"]),
    ],
)
def test_words_are_read_as_getopt_long_reads_them(words, pairs, rest):
    assert read_options(words, SBATCH, program="sbatch") == (pairs, rest)


def test_srun_stops_at_the_program():
    words = ["--mpi=pmix", "-K", "--output=%t.log", "python", "-n", "3", "--label"]
    pairs, rest = read_options(words, SRUN, program="srun")
    assert [name for name, _ in pairs] == ["mpi", "kill-on-bad-exit", "output"]
    assert rest == ["python", "-n", "3", "--label"]


SCRIPT = """\
#!/bin/bash
# a comment
#SBATCH -J "my job" --comment='a # b' # --nodes=9
#SBATCH --nodes=2 --mail-user=a\\ b

##SBATCH --nodes=3
 #SBATCH --nodes=4
# SBATCH --nodes=5
#SBATCH
set -e
#SBATCH --nodes=6
"""


def test_directives_end_at_the_first_command_and_know_quotes_and_comments():
    assert directives(SCRIPT) == ["-J", "my job", "--comment=a # b", "--nodes=2", "--mail-user=a b"]


def submission(tmp_path: Path, text: str, *words: str, environ=None, name: str = "job.sh"):
    (tmp_path / name).write_text(text)
    return read_submission([*words, str(tmp_path / name), "x y"], environ or {}, cwd=str(tmp_path), now=0.0)


def test_the_command_line_wins_over_the_environment_and_that_over_the_script(tmp_path):
    text = "#!/bin/sh\n#SBATCH --nodes=2 --time=1 --job-name=script --requeue\n"
    environ = {"SBATCH_TIMELIMIT": "2", "SBATCH_JOB_NAME": "environment", "SBATCH_NO_REQUEUE": ""}
    request = submission(tmp_path, text, "--job-name=line", environ=environ).request
    assert (request.nodes, request.time_limit, request.name, request.requeue) == (2, 120.0, "line", False)
    assert (request.arguments, request.command) == (("x y",), f"{tmp_path}/job.sh x y")


def test_what_a_job_asks_for(tmp_path):
    text = SCRIPT + "exit\n"
    words = ("-n", "8", "--ntasks-per-node=4", "-c2", "--signal=B:USR1@120", "-x", "n[1-2],n7",
             "--open-mode=append", "-t", "1-2:03:04", "-o", "%j.log",
             "--array=1-5:2%2", "-d", "afterok:12", "--exclusive", "--gres=gpu:1")  # fmt: skip
    request = submission(tmp_path, text, *words).request
    assert (request.ntasks, request.ntasks_per_node, request.cpus_per_task) == (8, 4, 2)
    assert request.signal == SignalPlan(10, to_batch=True, lead=120)
    assert request.exclude == ("n1", "n2", "n7")
    assert (request.append, request.time_limit, request.exclusive) == (True, 93784.0, True)
    assert request.array is not None
    assert (request.array.tasks, request.array.limit) == ((1, 3, 5), 2)
    assert request.shown["gres"] == "gpu:1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 600), ("10:30", 630), ("1:00:00", 3600), ("2-12", 216000), ("2-12:30", 217800), ("1-0:0:1", 86401),
     ("0", None), ("UNLIMITED", None), ("infinite", None)],
)  # fmt: skip
def test_time_limits(text, seconds):
    assert parse_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-5", "1-", "1.5", "١٢"])
def test_no_time_limits(text):
    with pytest.raises(ValueError, match="not a time"):
        parse_limit(text)


def test_times_are_printed_as_scontrol_and_squeue_do():
    assert [limit_text(s) for s in (None, 600, 93784)] == ["UNLIMITED", "00:10:00", "1-02:03:04"]
    assert [used_text(s) for s in (6, 600, 3723, 93784)] == ["0:06", "10:00", "1:02:03", "1-02:03:04"]
    assert parse_begin("now+10minutes", 100.0) == 700.0
    assert parse_begin("now+3", 100.0) == 103.0


@pytest.mark.parametrize("text", ["B:USR1@60", "RB:USR1@60", "R:B:USR1@60"])
def test_signals_with_their_letters(text):
    if text.count(":") == 2:
        with pytest.raises(ConfigError):
            parse_signal(text)
    else:
        assert parse_signal(text) == SignalPlan(10, to_batch=True, lead=60)


@given(st.lists(st.tuples(st.sampled_from(["n", "gpu-", "a1b"]), st.integers(0, 99)), max_size=30))
def test_host_lists_come_back(items):
    names = sorted({f"{prefix}{number}" for prefix, number in items})
    assert sorted(expand(compress(names))) == names


def test_host_lists():
    assert compress(["n0", "n1", "n2", "n7", "login"]) == "n[0-2,7],login"
    assert expand("n[01-03],r[1-2]x") == ("n01", "n02", "n03", "r1x", "r2x")
    for wrong in ("n[1", "n1]", "n[[1]]", "n[x]", "n[1-99999999]"):
        with pytest.raises(ValueError):
            expand(wrong)


def test_dependencies():
    assert parse_dependency("afterok:1:2_3,after:4+5") == (
        (Dependency("afterok", 1), Dependency("afterok", 2, 3), Dependency("after", 4, None, 300.0)), False
    )  # fmt: skip
    for wrong in ("afterok", "x:1", "singleton:3", "afterok:x", "afterok:1?afterany:2,afterany:3"):
        with pytest.raises(OptionError, match="dependency problem"):
            parse_dependency(wrong)


RUNS, GOOD, BAD = Fate(1.0, False, False), Fate(1.0, True, True), Fate(1.0, True, False)


@pytest.mark.parametrize(
    ("kind", "fates", "met"),
    [
        ("afterok", [GOOD, GOOD], Met.YES), ("afterok", [GOOD, RUNS], Met.WAITING), ("afterok", [GOOD, BAD], Met.NEVER),
        ("afterany", [GOOD, BAD], Met.YES), ("afterany", [RUNS], Met.WAITING),
        ("afternotok", [BAD], Met.YES), ("afternotok", [GOOD], Met.NEVER),
        ("after", [RUNS], Met.YES), ("after", [Fate(None, False, False)], Met.WAITING),
        ("singleton", [RUNS], Met.WAITING), ("singleton", [], Met.YES), ("afterok", [], Met.YES),
    ],
)  # fmt: skip
def test_where_a_dependency_stands(kind, fates, met):
    assert judge((Dependency(kind, 1),), False, lambda _: fates, 10.0) is met


def test_file_names():
    values = {"j": "42", "x": "my job", "A": "40", "a": "3", "u": "me"}
    assert file_name("logs/%x-%5j_%A.%a-%%-%q", values) == "logs/my job-00042_40.3-%-%q"
    assert file_name("a\\%j", values) == "a%j"


def test_arrays():
    assert parse_array("1,3,5-9:2%4").tasks == (1, 3, 5, 7, 9)
    for wrong in ("", "x", "3-1", "1-2000", "1%0", "1%x", "-1"):
        with pytest.raises(OptionError, match="Invalid job array"):
            parse_array(wrong)


def test_what_export_lets_through():
    environ = {"A": "1", "B": "2", "SLURM_X": "s"}
    assert exported(None, environ) == environ
    assert exported("NONE", environ) == {"SLURM_X": "s"}
    assert exported("A,C='x,y'", environ) == {"A": "1", "C": "x,y", "SLURM_X": "s"}
    assert exported("ALL,C=3", environ) == {**environ, "C": "3"}


def test_where_jobs_go():
    nodes = [Node(f"n{i}", 4) for i in range(3)]
    free = {"n0": 1, "n1": 4, "n2": 4}
    part = Partition("low")

    def places(**wishes):
        found = choose(JobRequest("x", "#!", **wishes), nodes, part, free)
        return None if found is None else (found.nodes, found.tasks)

    assert places(nodes=2, exclusive=True) == (("n1", "n2"), (1, 1))
    assert places(nodes=3, exclusive=True) is None
    assert places(ntasks=9) == (("n0", "n1", "n2"), (1, 4, 4))
    assert places(ntasks=10) is None
    assert places(nodes=2, ntasks=3, ntasks_per_node=2) == (("n0", "n1"), (1, 2))
    assert places(nodes=1, nodelist=("n2",)) == (("n2",), (1,))
    assert places(nodes=2, exclude=("n1",), ntasks_per_node=1) == (("n0", "n2"), (1, 1))


def test_partitions():
    assert parse_partition("gpu,tier=5,grace=30s,preempt=cancel") == Partition("gpu", 5, "cancel", 30.0)
    for wrong in ("", "a b", "x,tier", "x,tier=y", "x,preempt=no", "x,colour=red"):
        with pytest.raises(ConfigError):
            parse_partition(wrong)


# ---- anything at all

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
ALPHABET = st.text(string.printable, max_size=60)


@given(st.lists(st.one_of(TEXT, st.sampled_from(["-N", "--array", "-x", "--time=", "--", "-J", "--wrap"])), max_size=6))
@example(["--wrap", "$(touch /tmp/x)"])
def test_any_words_are_a_submission_or_one_refusal(words):
    try:
        read_submission(
            words, {}, cwd="/nonexistent", now=0.0, read=lambda wanted: ScriptText("#!/bin/sh\n", wanted.name)
        )
    except OptionError as error:
        assert error.text.endswith("\n")
        assert error.code in (1, 255)


@given(st.lists(ALPHABET, max_size=8))
def test_any_script_is_read_or_refused(lines):
    text = "#!/bin/sh\n" + "\n".join(f"#SBATCH {line}" for line in lines)
    try:
        read_submission([], {}, cwd="/", now=0.0, read=lambda wanted: ScriptText(text, wanted.name))
    except OptionError as error:
        assert error.text.startswith("sbatch: ")


@given(st.lists(TEXT.filter(lambda t: "\n" not in t and "\0" not in t and "\r" not in t), max_size=5))
def test_quoted_words_arrive_verbatim(words):
    quoted = " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)
    assert directives(f"#!/bin/sh\n#SBATCH {quoted}\n") == words


HOSTILE = ["$(touch {m})", "`touch {m}`", "'; touch {m}; '", '"; touch {m}; "', "a\ntouch {m}\n", "x;touch {m}",
           "%j$(touch {m})", "-J --wrap=touch {m}", "\u202e\u0000"[:1] + "touch {m}"]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_names_never_execute(tmp_path, payload):
    from hpcresume.emulate.cluster import EmulatedCluster

    mark = tmp_path / "mark"
    text = payload.format(m=mark)
    script = tmp_path / text.replace("/", "_")
    script.write_text('#!/bin/sh\necho "$SLURM_JOB_NAME" "$1"\n')
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        job = cluster.submit("-J", text, "-o", str(tmp_path / "out"), "--comment", text, str(script), text)
        assert cluster.wait(job, timeout=20).state == "COMPLETED"
        assert (tmp_path / "out").read_text() == f"{text} {text}\n"
        shown = cluster.run("scontrol", "show", "job", job).stdout
        assert text in shown
        cluster.run("squeue", "-t", "all", "-o", "%j|%Z")
        cluster.run("sacct", "-P", "-o", "JobName")
    assert not mark.exists()
    assert not os.path.exists(tmp_path / "touch")
