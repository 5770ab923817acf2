"""What Slurm does, case by case, for any cluster: the emulated one here, a real one in tests/slurm.

Each case says what happens to a job and what is then expected; docs/EMULATOR.md is made of the same cases
(`python tools/emulator_page.py`). Where a real cluster differs, the case is wrong, and the emulator with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

WITNESS = Path(__file__).with_name("witness.py")
PYTHON = f"{sys.executable} -S -I {WITNESS}"


class Bench(Protocol):
    """A cluster with two nodes `first` and `second`, partitions low (preempted, with grace) and high."""

    version: str
    """22.05 or 24.11."""
    first: str
    second: str
    limit: str
    lead: str
    """A short --time, and a warning well before it."""
    patience: float
    """Seconds within which anything that will happen has happened."""

    def command(
        self, *words: str, check: bool = True, stdin: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where sbatch is on PATH."""

    def kill_node(self, name: str) -> None:
        """Power a node off."""

    def heal(self) -> None:
        """Bring every node back."""


# ---- what signals reach whom

ACTORS = ("batch", "child", "rank0", "rank1")
"""The batch shell, a background process of it, and the tasks of an srun on the batch node and on the other node."""

SCRIPT = """\
#!/bin/bash
L={log}
if [ -n "$SLURM_RESTART_COUNT" ]; then echo "batch AGAIN" >> $L; exit 0; fi
for s in CONT USR1 USR2 TERM INT; do trap "echo batch $s >> $L" $s; done
{trap}
{python} child $L &
{start} &
echo "batch START" >> $L
{body}
"""
WAIT = 'while [ -n "$(jobs -r)" ]; do sleep 0.1; done'
"""Not bash's `wait`: of a USR1 that comes 2 ms after its CONT, while the trap of that one runs, bash may take note and
run its trap only when the next signal ends `wait` (seen with strace)."""
SRUN = f"srun -n2 --mpi=none {PYTHON} rank $L"
MPIEXEC = f"mpiexec -n 2 {PYTHON} rank $L"


class Witnesses:
    """A job whose processes write down what reaches them."""

    def __init__(self, bench: Bench, folder: Path, options: Sequence[str] = (), *, trap: str = "", body: str = WAIT,
                 start: str = SRUN) -> None:  # fmt: skip
        self.bench = bench
        self.log = folder / "signals"
        script = folder / "job.sh"
        script.write_text(SCRIPT.format(log=self.log, python=PYTHON, start=start, trap=trap, body=body))
        words = ["sbatch", "--parsable", "-N2", "--ntasks-per-node=1", f"--output={folder}/log", "--open-mode=append"]
        own = [option.format(limit=bench.limit, lead=bench.lead) for option in options]
        self.id = bench.command(*words, *own, str(script)).stdout.strip()
        self.wait(lambda: all(f"{actor} START" in self.lines() for actor in ACTORS), "the witnesses")
        time.sleep(0.3)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def heard(self, actor: str) -> list[str]:
        """Signals in the order in which they came."""
        words = [line.split()[1] for line in self.lines() if line.startswith(f"{actor} ")]
        return [word for word in words if word not in ("START", "AGAIN")]

    def state(self) -> dict[str, str]:
        return show(self.bench, self.id)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 0.0) -> None:
        told = lambda: f"{what}: {self.state()}; {self.lines()}"  # noqa: E731
        wait(condition, told, seconds or self.bench.patience)

    def leave(self) -> None:
        """Let what is left go."""
        Path(f"{self.log}.leave").touch()
        self.bench.command("scancel", self.id, check=False)
        self.wait(lambda: self.state()["JobState"] not in ("RUNNING", "PENDING", "COMPLETING"), "the end")


def wait(condition: Callable[[], object], what: Callable[[], str], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what()}"
        time.sleep(0.05)


def show(bench: Bench, job: str) -> dict[str, str]:
    text = bench.command("scontrol", "show", "job", "-o", job).stdout
    return dict(item.split("=", 1) for item in text.split() if "=" in item)


@dataclass(frozen=True)
class SignalCase:
    """An event, who gets which signals at once and by the end, and what becomes of the job.

    Attributes:
        name: for the test.
        event: for people.
        options: of sbatch.
        act: makes it happen.
        at_once: signals by actor within a second.
        later: signals by actor that follow, when the job is being ended.
        outcome: states of the job, each with its slurm version when they differ; "again" is a second start.
        trap, body, start: changes of the script.
        slow: does a real cluster take a minute or more for it, so that "at once" means nothing?
    """

    name: str
    event: str
    options: tuple[str, ...]
    act: Callable[[Bench, Witnesses], object]
    at_once: Mapping[str, str]
    later: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""
    trap: str = ""
    body: str = WAIT
    start: str = SRUN
    slow: bool = False

    def outcome_of(self, version: str) -> str:
        """`A; 22.05: B` → the one for this version."""
        general, *others = self.outcome.split("; ")
        for other in others:
            if other.startswith(f"{version}: "):
                return other.partition(": ")[2]
        return general

    def check(self, bench: Bench, folder: Path) -> None:
        """Make it happen, and look."""
        job = Witnesses(bench, folder, self.options, trap=self.trap, body=self.body, start=self.start)
        try:
            self.act(bench, job)
            self._look(bench, job)
        finally:
            job.leave()
            bench.heal()

    def _look(self, bench: Bench, job: Witnesses) -> None:
        expected = {actor: self.at_once.get(actor, "").split() for actor in ACTORS}
        if not self.slow:
            time.sleep(1.0)
            if any(expected.values()):
                job.wait(lambda: all(len(job.heard(a)) >= len(expected[a]) for a in ACTORS), f"{expected}", 5)
            if self.later:
                same({actor: job.heard(actor) for actor in ACTORS}, expected, "at once")
        wanted = self.outcome_of(bench.version)
        job.wait(lambda: outcome_is(job, wanted), wanted)
        everything = {a: expected[a] + self.later.get(a, "").split() for a in ACTORS}
        same({actor: job.heard(actor) for actor in ACTORS}, everything, "by the end")


def same(heard: Mapping[str, list[str]], expected: Mapping[str, list[str]], when: str) -> None:
    """The same signals in the same order, but for a CONT and the signal that it goes with."""

    def shown(of: Mapping[str, list[str]]) -> str:
        return ", ".join(f"{actor}: {' '.join(of[actor]) or '-'}" for actor in ACTORS)

    wrong = [actor for actor in ACTORS if not in_order(heard[actor], expected[actor])]
    assert not wrong, f"{when}, {', '.join(wrong)}: {shown(heard)}; expected {shown(expected)}"


def in_order(heard: Sequence[str], expected: Sequence[str]) -> bool:
    """Is it the same sequence?

    Slurm sends CONT some milliseconds before the signal. A process that was not scheduled in between finds both
    pending and takes the lower number first, CONT being 18: one such pair may stand the other way round.
    """
    at = 0
    while at < len(expected) and at < len(heard):
        pair, wanted = list(heard[at : at + 2]), list(expected[at : at + 2])
        if heard[at] == expected[at]:
            at += 1
        elif "CONT" in wanted and pair == wanted[::-1]:
            at += 2
        else:
            return False
    return at == len(expected) == len(heard)


def outcome_is(job: Witnesses, wanted: str) -> bool:
    state = job.state()
    if wanted == "again":
        return "batch AGAIN" in job.lines() and state["Restarts"] == "1"
    return state["JobState"] == wanted and "batch AGAIN" not in job.lines()


def preempt(bench: Bench, job: Witnesses) -> None:
    """Let a job of the high partition want both nodes."""
    bench.command("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 0.5")
    job.wait(
        lambda: "PreemptTime=None" not in bench.command("scontrol", "show", "job", "-o", job.id).stdout, "preemption"
    )


def command(*words: str) -> Callable[[Bench, Witnesses], object]:
    """An act that is one command; JOB stands for the job."""
    return lambda bench, job: bench.command(*(word.replace("JOB", job.id) for word in words))


def nothing(bench: Bench, job: Witnesses) -> None:
    """What happens is in the script."""


def lose_second(bench: Bench, job: Witnesses) -> None:
    """Power a node off until the job is no longer taken for running there; it needs the node to start again."""
    bench.kill_node(bench.second)
    job.wait(lambda: job.state()["JobState"] != "RUNNING", "the loss is noticed")
    bench.heal()


END = dict.fromkeys(ACTORS, "CONT TERM")
HARD = {**END, **dict.fromkeys(("rank0", "rank1"), "TERM CONT TERM")}
"""The end of a grace and the time limit: the ranks get a TERM of their own before."""


def ranks(signals: str) -> dict[str, str]:
    return {"rank0": signals, "rank1": signals}


LEAVES, LEFT = (
    "trap 'echo \"batch USR1\" >> $L; leave=yes' USR1",
    'until [ "$leave" ]; do sleep 0.1; done; sleep 0.5; exit 0',
)
"""Not `exit` in the trap: CONT may be delivered after the USR1 that it goes with, and would find nobody."""

SIGNAL_CASES = (
    SignalCase("preempt_with_b", "preempt, `--signal=B:USR1@30`, not heeded", ("--signal=B:USR1@30",), preempt,
               {"batch": "CONT USR1"}, HARD, "again"),
    SignalCase("preempt_to_the_ranks", "preempt, `--signal=USR2@30`, not heeded", ("--signal=USR2@30",), preempt,
               ranks("CONT USR2"), HARD, "again"),
    SignalCase("preempt_without_signal", "preempt, no `--signal`, not heeded", (), preempt,
               ranks("CONT TERM"), HARD, "again"),
    SignalCase("preempt_not_requeued", "preempt, `--no-requeue`", ("--no-requeue",), preempt,
               ranks("CONT TERM"), HARD, "PREEMPTED"),
    SignalCase("exit_in_grace", "preempt, the script exits 0 within its grace", ("--signal=B:USR1@30",), preempt,
               {"batch": "CONT USR1", **ranks("CONT TERM")}, {}, "again; 22.05: COMPLETED", trap=LEAVES, body=LEFT),
    SignalCase("requeue", "`scontrol requeue JOB`", (), command("scontrol", "requeue", "JOB"), END, {}, "again"),
    SignalCase("cancel", "`scancel JOB`", (), command("scancel", "JOB"), END, {}, "CANCELLED"),
    SignalCase("signal", "`scancel -s USR1 JOB`", (), command("scancel", "-s", "USR1", "JOB"), ranks("USR1"), {},
               "RUNNING"),
    SignalCase("signal_batch", "`scancel -b -s USR1 JOB`", (), command("scancel", "-b", "-s", "USR1", "JOB"),
               {"batch": "USR1"}, {}, "RUNNING"),
    SignalCase("signal_full", "`scancel --full -s USR1 JOB`", (), command("scancel", "--full", "-s", "USR1", "JOB"),
               dict.fromkeys(ACTORS, "USR1"), {}, "RUNNING"),
    SignalCase("signal_kill", "`scancel -s KILL JOB`", (), command("scancel", "-s", "KILL", "JOB"), END, {},
               "CANCELLED"),
    SignalCase("time_limit", "time limit, no `--signal`", ("--time={limit}",), nothing, HARD, {}, "TIMEOUT",
               slow=True),
    SignalCase("time_limit_warned", "time limit, `--signal=B:USR1@…`", ("--time={limit}", "--signal=B:USR1@{lead}"),
               nothing, {"batch": "CONT USR1"}, HARD, "TIMEOUT", slow=True),
    SignalCase("script_ends", "the script ends before its srun does", (), command("scancel", "-b", "-s", "USR2", "JOB"),
               ranks("CONT TERM"), {}, "COMPLETED", trap="trap 'exit 0' USR2"),
    SignalCase("node_lost", "the node of rank 1 is lost", (), lose_second,
               {"batch": "CONT TERM", "child": "CONT TERM", "rank0": "CONT TERM"}, {}, "again", slow=True),
    SignalCase("mpiexec_signal", "`scancel -s USR1 JOB`, ranks started by mpiexec from the script", (),
               command("scancel", "-s", "USR1", "JOB"), {"rank1": "USR1"}, {}, "RUNNING", start=MPIEXEC),
)  # fmt: skip


# ---- what srun exits with


@dataclass(frozen=True)
class ExitCase:
    """A command inside a job of two nodes with two tasks each, its exit code, and what its output must match."""

    command: str
    code: int
    shows: str = ""


EXIT_CASES = (
    ExitCase("srun -n4 bash -c 'exit $SLURM_PROCID'", 3, r"task 3: Exited with exit code 3"),
    ExitCase("srun -n2 bash -c 'kill -9 $$'", 137, r"task 1: Killed"),
    ExitCase("srun -n1 -N1 bash -c 'kill -TERM $$'", 143, r"task 0: Terminated"),
    ExitCase("srun -n2 bash -c '[ $SLURM_PROCID = 1 ] && exit 5; sleep 1; echo still'", 5, r"(?m)^still$"),
    ExitCase("srun -n2 -K bash -c '[ $SLURM_PROCID = 1 ] && exit 5; sleep 5; echo still'", 143,
             r"(?s)\A(?!.*^still).*task 0: Terminated"),
    ExitCase("srun -n2 -K bash -c '[ $SLURM_PROCID = 1 ] && kill -9 $$; sleep 5'", 143, r"task 1: Killed"),
    ExitCase("srun -n1 -N1 no-such-program", 2, r"execve\(\): no-such-program: No such file or directory"),
    ExitCase("srun -l -n4 echo x", 0, r"(?m)^3: x$"),
    ExitCase("srun -n1 -N1 -r1 bash -c 'echo $SLURMD_NODENAME' | grep -cx $(scontrol show hostnames | tail -n1)", 0,
             r"(?m)^1$"),
    ExitCase("seq 100000 | srun -n2 bash -c '[ $SLURM_PROCID = 0 ] || wc -l'", 0, r"(?m)^100000$"),
    ExitCase("srun -N1 -n1 bash -c 'sleep 0.2; echo a' & srun -N1 -n1 bash -c 'sleep 0.2; echo b' & wait", 0,
             r"(?s)(a\n.*b\n|b\n.*a\n)"),
    ExitCase("srun -n9 true", 1, r"More processors requested than permitted"),
    ExitCase("srun -N1 true", 1, r"More processors requested than permitted"),
    ExitCase("srun", 1, r"No command given to execute"),
    ExitCase("srun --no-such-option true", 255, r"unrecognized option '--no-such-option'"),
    ExitCase("echo abc | srun -n2 cat", 0, r"abc\nabc"),
    ExitCase("srun -n2 --output=%t.out bash -c 'echo $SLURM_PROCID'; cat 0.out 1.out", 0, r"0\n1"),
    ExitCase("srun -n2 bash -c 'echo $SLURMD_NODENAME' | sort | uniq -c | wc -l", 0, r"\A2\s*\Z"),
)  # fmt: skip


def check_exit(case: ExitCase, bench: Bench, folder: Path) -> None:
    """Run the command in a job and look at what it printed and exited with."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\ncd {folder}\n{{ {case.command}; }} > out 2>&1\necho $? > code\n")
    bench.command("sbatch", "--wait", "-N2", "--ntasks-per-node=2", "-o", str(folder / "log"), str(script))
    shown = (folder / "out").read_text()
    assert int((folder / "code").read_text()) == case.code, shown
    assert re.search(case.shows, shown), shown


# ---- what sbatch and its kind answer


@dataclass(frozen=True)
class AnswerCase:
    """A command in an empty cluster, its exit code, and what it prints (on either stream); "" is nothing at all."""

    words: tuple[str, ...]
    code: int
    shows: str
    stdin: str = ""


SIMPLE = "#!/bin/bash\nexit 0\n"
ANSWER_CASES = (
    AnswerCase(("sbatch", "no-such-file"), 1, "sbatch: error: Unable to open file no-such-file"),
    AnswerCase(("sbatch", "plain"), 1, "sbatch: error: This does not look like a batch script."),
    AnswerCase(("sbatch", "empty"), 1, "sbatch: error: Batch script is empty!"),
    AnswerCase(("sbatch", "--bogus", "job.sh"), 255, "sbatch: unrecognized option '--bogus'"),
    AnswerCase(("sbatch", "-Z", "job.sh"), 255, "sbatch: invalid option -- 'Z'"),
    AnswerCase(("sbatch", "--nod=1", "job.sh"), 255, "option '--nod=1' is ambiguous; possibilities: '--nodefile' "
               "'--nodelist' '--nodes'"),
    AnswerCase(("sbatch", "--nodes"), 255, "option '--nodes' requires an argument"),
    AnswerCase(("sbatch", "--hold=3", "job.sh"), 255, "option '--hold' doesn't allow an argument"),
    AnswerCase(("sbatch", "-p", "nope", "job.sh"), 1, "Batch job submission failed: Invalid partition name specified"),
    AnswerCase(("sbatch", "--time=x", "job.sh"), 255, "sbatch: error: Invalid --time specification"),
    AnswerCase(("sbatch", "--signal=FOO", "job.sh"), 255, "sbatch: error: Invalid --signal specification"),
    AnswerCase(("sbatch", "--begin=never", "job.sh"), 255, "sbatch: error: Invalid --begin specification"),
    AnswerCase(("sbatch", "--mem=x", "job.sh"), 255, "sbatch: error: Invalid --mem specification"),
    AnswerCase(("sbatch", "--array=x", "job.sh"), 1, "Batch job submission failed: Invalid job array specification"),
    AnswerCase(("sbatch", "-n", "0", "job.sh"), 1, 'sbatch: error: Invalid numeric value "0" for --ntasks.'),
    AnswerCase(("sbatch", "--dependency=foo:1", "job.sh"), 1, "Batch job submission failed: Job dependency problem"),
    AnswerCase(("sbatch", "--wrap", "true", "job.sh"), 1, "Script arguments not permitted with --wrap option"),
    AnswerCase(("sbatch", "directive"), 255, "sbatch: error: Invalid directive found in batch script: x"),
    AnswerCase(("sbatch", "words"), 255, "sbatch: error: Invalid directive found in batch script: nodes=2"),
    AnswerCase(("sbatch", "dos"), 1, "sbatch: error: Batch script contains DOS line breaks (\\r\\n)"),
    AnswerCase(("sbatch", "blank"), 1, "sbatch: error: Batch script contains only whitespace!"),
    AnswerCase(("sbatch", "zero"), 1, "sbatch: error: contain a NULL character '\\0'."),
    AnswerCase(("sbatch", "."), 1, "sbatch: error: Batch script is empty!"),
    AnswerCase(("sbatch",), 1, "sbatch: error: Batch script is empty!"),
    AnswerCase(("sbatch", "-o", "/dev/null"), 0, "Submitted batch job", stdin=SIMPLE),
    AnswerCase(("sbatch", "-o", "/dev/null", "/dev/stdin"), 0, "Submitted batch job", stdin=SIMPLE),
    AnswerCase(("bash", "-c", "sbatch -o /dev/null <(cat job.sh)"), 0, "Submitted batch job"),
    AnswerCase(("bash", "-c", "mkfifo f; cat job.sh > f & sbatch -o /dev/null f"), 0, "Submitted batch job"),
    AnswerCase(("bash", "-c", "mkdir d; mv job.sh d/only; PATH=$PWD/d:$PATH sbatch -o /dev/null only"), 0,
               "Submitted batch job"),
    AnswerCase(("sbatch", "-w", "n[1", "job.sh"), 1, "Batch job submission failed: Invalid node name specified"),
    AnswerCase(("squeue", "-h", "-A", "nobodys"), 0, ""),
    AnswerCase(("squeue", "-h", "--qos=none"), 0, ""),
    AnswerCase(("squeue", "-h", "-p", "nope"), 0, ""),
    AnswerCase(("squeue", "-h", "-u", "no-such-user"), 0, "squeue: error: Invalid user: no-such-user"),
    AnswerCase(("squeue", "-w", "no-such-node"), 1, "squeue: error: Invalid node name no-such-node"),
    AnswerCase(("squeue", "-h", "-O", "jobid,foo"), 0, "squeue: error: Invalid job format specification: foo"),
    AnswerCase(("squeue", "--start"), 0, "ST          START_TIME  NODES SCHEDNODES           NODELIST(REASON)"),
    AnswerCase(("squeue", "--steps"), 0, "         STEPID     NAME PARTITION     USER      TIME NODELIST"),
    AnswerCase(("sacct", "-u", "no-such-user"), 1, "sacct: error: Invalid user id: no-such-user"),
    AnswerCase(("sacct", "-S", "foo"), 1, "Invalid time specification (pos=0): foo"),
    AnswerCase(("sacct", "-S", "now", "-E", "now-1hour"), 1, "requested is after end time"),
    AnswerCase(("sinfo", "-h", "-p", "nope"), 0, ""),
    AnswerCase(("sinfo", "-h", "-R"), 0, ""),
    AnswerCase(("sinfo", "-h", "-p", "high", "-O", "partitionname:6,nodes:.3"), 0, "high    2"),
    AnswerCase(("sinfo", "-h", "-O", "partition,foo"), 0, "sinfo: error: Invalid job format specification: foo"),
    AnswerCase(("scancel", "-u", "no-such-user"), 1, "scancel: error: Invalid user name: no-such-user"),
    AnswerCase(("scancel", "--name=nobodys"), 0, ""),
    AnswerCase(("squeue", "-j", "99999999"), 1, "slurm_load_jobs error: Invalid job id specified"),
    AnswerCase(("squeue", "-j", "abc"), 1, "squeue: error: Invalid job id: abc"),
    AnswerCase(("squeue", "-t", "bogus"), 1, "squeue: error: Invalid job state specified: bogus"),
    AnswerCase(("scontrol", "show", "job", "99999999"), 1, "slurm_load_jobs error: Invalid job id specified"),
    AnswerCase(("scontrol", "requeue", "99999999"), 1, "Invalid job id specified for job 99999999"),
    AnswerCase(("scontrol", "frob"), 1, "invalid keyword: frob"),
    AnswerCase(("scontrol", "show", "hostnames", "n[1-3,7],x2"), 0, "n1\nn2\nn3\nn7\nx2"),
    AnswerCase(("scontrol", "show", "hostlist", "n1,n2,n3"), 0, "n[1-3]"),
    AnswerCase(("scancel", "abc"), 1, "scancel: error: Invalid job id abc"),
    AnswerCase(("scancel", "99999999"), 0, ""),
    AnswerCase(("srun", "--mpi=list"), 0, "pmix"),
)  # fmt: skip
FILES = {
    "job.sh": SIMPLE,
    "plain": "echo hi\n",
    "empty": "",
    "directive": "#!/bin/bash\n#SBATCHx --bogus\n",
    "words": "#!/bin/bash\n#SBATCH nodes=2\n",
    "dos": "#!/bin/bash\r\nexit 0\r\n",
    "blank": "  \n\n",
    "zero": "#!/bin/bash\n\0\n",
}


def check_answer(case: AnswerCase, bench: Bench, folder: Path) -> None:
    """Run the command beside the files that it may name."""
    for name, text in FILES.items():
        (folder / name).write_bytes(text.encode())
    words = [str(folder / word) if word in (*FILES, "no-such-file") else word for word in case.words]
    done = bench.command(*words, check=False, stdin=case.stdin, cwd=folder)
    shown = (done.stdout + done.stderr).replace(f"{folder}/", "")
    right = case.shows in shown if case.shows else not shown
    assert (done.returncode, right) == (case.code, True), shown
