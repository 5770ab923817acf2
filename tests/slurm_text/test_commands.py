from __future__ import annotations

import json
import os
import sys
import time

import pytest

from hpcresume.errors import SlurmError
from hpcresume.slurm import commands
from hpcresume.slurm.commands import Answer, Requeue, down_nodes, execute, job_alive, node_address, requeue, show_job
from tests.slurm_text.records import record

BUSY = Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
UNKNOWN = Answer(1, "", "slurm_load_jobs error: Invalid job id specified")


class Script:
    """Gives prepared answers and remembers what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def __call__(self, arguments, timeout):
        self.asked.append(list(arguments))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(commands, "PAUSES", (0.0, 0.0))


def test_show_job_asks_for_one_line_and_reads_it():
    script = Script(Answer(0, record(state="COMPLETING"), ""))
    assert show_job("12", execute=script).state == "COMPLETING"
    assert script.asked == [["scontrol", "--oneliner", "show", "job", "12"]]


def test_the_answers_time_is_ours():
    before = time.time()
    assert before <= show_job("12", execute=Script(Answer(0, record(), ""))).asked_at <= time.time()


@pytest.mark.parametrize(
    ("words", "given", "variables"),
    [
        (
            ["--export=ALL,A=1,HPCRESUME_BEHIND=guard:7,HOME"],
            ["--export=ALL"],
            {"A": "1", "HPCRESUME_BEHIND": "guard:7"},
        ),
        (["--export=A=1"], ["--export=A=1"], {}),
        (["--export=ALL"], ["--export=ALL"], {}),
        (["--export=ALL,A='b,c'"], ["--export=ALL,A='b,c'"], {}),
    ],
)
def test_what_a_job_is_told_beside_all_starts_no_login_shell_on_its_node(
    monkeypatch, tmp_path, words, given, variables
):
    """For a list sbatch implies --get-user-env: the login shell of a busy home has cost a job its start (seen)."""
    program = tmp_path / "sbatch"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k in ('A', 'HPCRESUME_BEHIND')}]))\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HPCRESUME_BEHIND", "guard:1")
    assert json.loads(execute(["sbatch", *words, "job.sh"], 20).out) == [[*given, "job.sh"], variables]


def test_a_busy_controller_is_asked_again():
    script = Script(BUSY, Answer(0, record(), ""))
    assert show_job("12", execute=script).state == "RUNNING"
    assert len(script.asked) == 2


def test_a_refusal_is_not_asked_again():
    script = Script(UNKNOWN)
    with pytest.raises(SlurmError, match="Invalid job id"):
        show_job("12", execute=script)
    assert len(script.asked) == 1


@pytest.mark.parametrize("job_id", ["", "12;reboot", "--help", "12 13", "1_", "٣", "../12", "9" * 30])
def test_what_is_no_job_id_reaches_no_command(job_id):
    script = Script(Answer(0, "", ""))
    with pytest.raises(SlurmError):
        show_job(job_id, execute=script)
    assert requeue(job_id, execute=script).result is Requeue.REFUSED
    assert job_alive(job_id, execute=script) is None
    assert script.asked == []


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(0, "", ""), Requeue.ACCEPTED),
        (Answer(1, "", "Job is pending execution for job 12"), Requeue.ACCEPTED),
        (Answer(1, "", "Requested operation is presently disabled for job 12"), Requeue.REFUSED),
        (UNKNOWN, Requeue.REFUSED),
        (Answer(None, "", "no answer within 10 s"), Requeue.UNAVAILABLE),
        (Answer(None, "", "FileNotFoundError: scontrol"), Requeue.UNAVAILABLE),
    ],
)
def test_a_requeue_is_accepted_refused_or_unavailable_and_never_raises(answer, result):
    assert requeue("120_3", execute=Script(answer)).result is result


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        (Answer(0, "RUNNING\n", ""), True),
        (Answer(0, "COMPLETING\n", ""), True),
        (Answer(0, "PENDING\n", ""), False),
        (Answer(0, "COMPLETED\n", ""), False),
        (Answer(0, "", ""), False),
        (UNKNOWN, False),
        (BUSY, None),
        (Answer(None, "", "FileNotFoundError: squeue"), None),
    ],
)
def test_a_job_lives_while_it_holds_nodes(answer, alive):
    assert job_alive("12", execute=Script(answer)) is alive


@pytest.mark.parametrize(
    ("answer", "down"),
    [
        (Answer(0, "n1 completing\nn1 completing\nn2 down*\nn2 down*\nn3 DOWN\n", ""), ("n2", "n3")),
        (Answer(0, "n1 mixed*\nn2 idle\n\nx\n", ""), ("n1",)),
        (Answer(0, "n1 mixed\nn2 allocated+\n", ""), ()),
        (Answer(1, "n2 down*", "sinfo: error"), ()),
        (Answer(None, "", "FileNotFoundError"), ()),
    ],
)
def test_down_nodes_are_those_that_are_down_or_do_not_answer(answer, down):
    assert down_nodes("n[1-3]", execute=Script(answer)) == down


@pytest.mark.parametrize("node_list", ["", "n1;reboot", "--help me", "n1\nn2", "$(x)"])
def test_what_is_no_node_list_reaches_no_command(node_list):
    script = Script(Answer(0, "n1 down", ""))
    assert down_nodes(node_list, execute=script) == ()
    assert script.asked == []


@pytest.mark.parametrize(
    ("answer", "address"),
    [
        (Answer(0, "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=n1 Version=22.05.8\n", ""), "10.0.0.7"),
        (Answer(0, "NodeName=n1 NodeAddr=fe80::1 NodeHostName=n1", ""), "fe80::1"),
        (Answer(0, "NodeName=n1 NodeAddr=n1-ib.cluster\n", ""), "n1-ib.cluster"),
        (Answer(0, "NodeName=n1 NodeAddr=$(reboot) x", ""), None),
        (Answer(1, "NodeAddr=10.0.0.7", "Invalid node name"), None),
        (Answer(None, "", "FileNotFoundError: scontrol"), None),
    ],
)
def test_a_nodes_address_is_slurms_own_or_none(answer, address):
    script = Script(answer)
    assert node_address("n1", execute=script) == address
    assert script.asked == [["scontrol", "--oneliner", "show", "node", "n1"]]
    assert node_address("n1; reboot", execute=Script()) is None


def test_a_missing_command_and_a_hanging_one_are_answers_not_exceptions():
    assert execute(["/nonexistent/scontrol"], 5.0).code is None
    began = time.monotonic()
    answer = execute([sys.executable, "-c", "import time; time.sleep(30)"], 0.3)
    assert (answer.code, "no answer" in answer.err) == (None, True)
    assert time.monotonic() - began < 10.0


def test_output_that_is_no_text_is_survived():
    answer = execute([sys.executable, "-c", "import os; os.write(1, bytes(range(256)))"], 20.0)
    assert answer.code == 0
    assert "�" in answer.out


def test_slurms_words_cannot_steer_the_terminal():
    with pytest.raises(SlurmError) as caught:
        show_job("12", execute=Script(Answer(1, "", "\x1b[2Jboo\nsecond line")))
    assert str(caught.value).isprintable()


def test_a_users_own_output_format_does_not_reach_the_commands(monkeypatch):
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SQUEUE_FORMAT", "%all")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    code = "import os; print(sorted(k for k in os.environ if k.startswith(('SLURM', 'SQUEUE'))))"
    kept = sorted(k for k in os.environ if k.startswith(("SLURM", "SQUEUE")) and "FORMAT" not in k)
    assert execute([sys.executable, "-c", code], 20.0).out.strip() == str(kept)
