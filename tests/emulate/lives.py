"""The life of jobs that only wait, end, or log: stories for any cluster, as the cases of `conformance` are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.emulate.conformance import Bench, show, wait


def final(bench: Bench, job: str, *states: str) -> dict[str, str]:
    wait(lambda: show(bench, job)["JobState"] in states, lambda: f"{states}, but {show(bench, job)}", bench.patience)
    return show(bench, job)


def submit(bench: Bench, folder: Path, *options: str, text: str = "exit 0") -> str:
    script = folder / f"s{len(list(folder.iterdir()))}.sh"
    script.write_text(f"#!/bin/bash\n{text}\n")
    words = ("sbatch", "--parsable", "-o", str(folder / "out.%j"), *options, str(script))
    return bench.command(*words).stdout.strip()


def dependencies(bench: Bench, folder: Path) -> None:
    """afterok of a failed job never starts, afternotok and afterany do, afterok of a good one does."""
    bad = submit(bench, folder, text="sleep 1; exit 3")
    jobs = {kind: submit(bench, folder, f"--dependency={kind}:{bad}") for kind in ("afterok", "afterany", "afternotok")}
    chained = submit(bench, folder, f"--dependency=afterok:{jobs['afterany']}")
    for job in (jobs["afterany"], jobs["afternotok"], chained):
        final(bench, job, "COMPLETED")
    wait(
        lambda: show(bench, jobs["afterok"])["Reason"] == "DependencyNeverSatisfied",
        lambda: "the reason",
        bench.patience,
    )
    assert show(bench, jobs["afterok"])["JobState"] == "PENDING"
    bench.command("scancel", jobs["afterok"])
    assert final(bench, bad, "FAILED")["ExitCode"] == "3:0"


def arrays(bench: Bench, folder: Path) -> None:
    """Tasks have their own number and variables; %1 runs one at a time; scancel takes one task."""
    text = f"echo $SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT > {folder}/t$SLURM_ARRAY_TASK_ID; sleep 0.3"
    job = submit(bench, folder, "--array=1-4%1", text=text)
    bench.command("scancel", f"{job}_4")
    for task in ("1", "2", "3"):
        final(bench, f"{job}_{task}", "COMPLETED")
    assert sorted(path.read_text() for path in folder.glob("t*")) == ["1 4\n", "2 4\n", "3 4\n"]


def throttle(bench: Bench, folder: Path) -> None:
    """A requeued task of an array gives its place under %1 to the next one; it does not count while it waits."""
    job = submit(bench, folder, "--array=1-2%1", text='[ "$SLURM_RESTART_COUNT" ] || sleep 60')
    final(bench, f"{job}_1", "RUNNING")
    bench.command("scontrol", "requeue", f"{job}_1")
    final(bench, f"{job}_2", "RUNNING")
    waiting = show(bench, f"{job}_1")
    assert (waiting["JobState"], waiting["Restarts"], waiting["ArrayTaskThrottle"]) == ("PENDING", "1", "1")
    bench.command("scancel", job)


def singleton(bench: Bench, folder: Path) -> None:
    """--dependency=singleton waits for the jobs of the same name."""
    first = submit(bench, folder, "-J", "only", text="sleep 1")
    second = submit(bench, folder, "-J", "only", "-d", "singleton", text=f"squeue -h -o %T -j {first}")
    final(bench, second, "COMPLETED")
    assert (folder / f"out.{second}").read_text() == ""


def partition_limit(bench: Bench, folder: Path) -> None:
    """A job that asks for more time than its partition has waits with PartitionTimeLimit until it asks for less."""
    long = submit(bench, folder, "-p", "short", "-t", "10")
    wait(lambda: show(bench, long)["Reason"] == "PartitionTimeLimit", lambda: str(show(bench, long)), bench.patience)
    brief = submit(bench, folder, "-p", "short")
    final(bench, brief, "COMPLETED")
    bench.command("scontrol", "update", f"JobId={long}", "TimeLimit=1")
    final(bench, long, "COMPLETED")


WILD = """\
#!/bin/bash -l
#SBATCH --job-name="my job"   # a comment
#SBATCH -N2
#SBATCH --time 1-0
#SBATCH --mem=100M
#SBATCH --mail-user=me@example.org
#SBATCH --output=wild.%j
##SBATCH --bogus
# SBATCH --bogus

module load nothing 2> /dev/null
source /etc/profile
scontrol show hostnames $SLURM_JOB_NODELIST | wc -l
srun -n2 -o task-%t echo hi; cat task-0 task-1
echo "$SLURM_JOB_NAME" $SLURM_MEM_PER_NODE
sbatch --parsable -o chained --wrap 'echo chained' > number
"""


def wild(bench: Bench, folder: Path) -> None:
    """Quotes and comments in #SBATCH lines, login shells, /etc/profile and sbatch inside a job: all as usual."""
    (folder / "wild.sh").write_text(WILD)
    # A home without login files: those of whoever runs the tests may wait for anything.
    job = bench.command("sbatch", "--parsable", f"--export=ALL,HOME={folder}", "wild.sh", cwd=folder).stdout.strip()
    state = final(bench, job, "COMPLETED", "FAILED")
    log = (folder / f"wild.{job}").read_text()
    assert (state["JobState"], state["TimeLimit"], state["NumNodes"]) == ("COMPLETED", "1-00:00:00", "2"), log
    assert log == "2\nhi\nhi\nmy job 100\n"
    final(bench, (folder / "number").read_text().strip(), "COMPLETED")
    assert (folder / "chained").read_text() == "chained\n"


def own_requeue(bench: Bench, folder: Path) -> None:
    """A script that traps its warning and calls scontrol requeue itself is started again."""
    text = """
        echo life $SLURM_RESTART_COUNT
        [ "$SLURM_RESTART_COUNT" ] && exit 0
        trap 'scontrol requeue $SLURM_JOB_ID' USR1
        srun --mpi=none sleep 100 &
        while :; do wait; done
    """
    job = submit(bench, folder, "--signal=B:USR1@60", "--open-mode=append", text=text)
    log = folder / f"out.{job}"
    wait(lambda: log.exists() and "life" in log.read_text(), lambda: "the first life", bench.patience)
    bench.command("scancel", "-b", "-s", "USR1", job)
    wait(lambda: "life 1" in log.read_text(), lambda: log.read_text(), bench.patience)
    assert final(bench, job, "COMPLETED")["Restarts"] == "1"


def holding(bench: Bench, folder: Path) -> None:
    """A held job waits for its release; one that is over cannot be held."""
    job = submit(bench, folder, "--hold")
    wait(lambda: show(bench, job)["Reason"] == "JobHeldUser", lambda: "the reason", bench.patience)
    bench.command("scontrol", "release", job)
    final(bench, job, "COMPLETED")
    refused = bench.command("scontrol", "hold", job, check=False)
    assert (refused.returncode, "Job has already finished" in refused.stderr + refused.stdout) == (1, True)


def no_requeue(bench: Bench, folder: Path) -> None:
    """`--no-requeue` refuses scontrol requeue, until the job is changed by scontrol update."""
    job = submit(bench, folder, "--no-requeue", text="sleep 30")
    final(bench, job, "RUNNING")
    refused = bench.command("scontrol", "requeue", job, check=False)
    assert refused.returncode == 1
    bench.command("scontrol", "update", f"JobId={job}", "Requeue=1")
    bench.command("scontrol", "requeuehold", job)
    wait(lambda: show(bench, job)["JobState"] == "PENDING", lambda: str(show(bench, job)), bench.patience)
    held = show(bench, job)
    assert (held["Reason"], held["Restarts"]) == ("job_requeued_in_held_state", "1")
    bench.command("scancel", job)
    final(bench, job, "CANCELLED")


def changes(bench: Bench, folder: Path) -> None:
    """scontrol update of a waiting job; a node that does not exist cannot be excluded."""
    job = submit(bench, folder, "--hold")
    refused = bench.command("scontrol", "update", f"JobId={job}", "ExcNodeList=no-such-node", check=False)
    assert (refused.returncode, refused.stderr) == (1, f"Invalid node name specified for job {job}\n")
    wishes = {"ExcNodeList": bench.second, "Comment": "mine", "AdminComment": "why", "Partition": "high", "Nice": "5"}
    bench.command("scontrol", "update", f"JobId={job}", *(f"{key}={value}" for key, value in wishes.items()))
    state = show(bench, job)
    assert {key: state[key] for key in wishes} == wishes
    fields = bench.command("squeue", "-h", "-j", job, "-O", "comment:8,admin_comment:8,reason:12").stdout
    assert fields.split() == ["mine", "why", "JobHeldUser"]
    bench.command("scontrol", "update", f"JobId={job}", "ExcNodeList=", "NumNodes=2")
    assert (show(bench, job)["ExcNodeList"], show(bench, job)["NumNodes"]) == ("(null)", "2")
    bench.command("scancel", job)


def finished_requeue(bench: Bench, folder: Path) -> None:
    """scontrol requeue starts a finished job again."""
    job = submit(bench, folder, "--open-mode=append", text="echo run $SLURM_RESTART_COUNT")
    final(bench, job, "COMPLETED")
    bench.command("scontrol", "requeue", job)
    wait(lambda: (folder / f"out.{job}").read_text() == "run\nrun 1\n", lambda: "the second run", bench.patience)
    final(bench, job, "COMPLETED")


def truncation(bench: Bench, folder: Path) -> None:
    """Without --open-mode=append a restart empties the log."""
    job = submit(bench, folder, text="echo run $SLURM_RESTART_COUNT")
    final(bench, job, "COMPLETED")
    bench.command("scontrol", "requeue", job)
    wait(lambda: (folder / f"out.{job}").read_text() == "run 1\n", lambda: "the second run", bench.patience)
    final(bench, job, "COMPLETED")


def own_copy(bench: Bench, folder: Path) -> None:
    """The script is copied at submission: what happens to the file later changes nothing."""
    script = folder / "mine.sh"
    script.write_text("#!/bin/bash\necho first\n")
    words = ("sbatch", "--parsable", "--hold", "-o", str(folder / "log"), str(script))
    job = bench.command(*words).stdout.strip()
    script.write_text("#!/bin/bash\necho second\n")
    bench.command("scontrol", "release", job)
    final(bench, job, "COMPLETED")
    assert (folder / "log").read_text() == "first\n"


def spread(bench: Bench, folder: Path) -> None:
    """-n 3 -N 2 gives the first node two tasks; the variables say so."""
    job = submit(bench, folder, "-N2", "-n3", text="echo $SLURM_TASKS_PER_NODE $SLURM_NTASKS $SLURM_JOB_NUM_NODES")
    final(bench, job, "COMPLETED")
    assert (folder / f"out.{job}").read_text() == "2,1 3 2\n"


@dataclass(frozen=True)
class LifeCase:
    """A short story; its docstring is what it shows."""

    check: Callable[[Bench, Path], None]

    @property
    def says(self) -> str:
        return (self.check.__doc__ or "").strip()


LIFE_CASES = tuple(
    map(
        LifeCase,
        (
            dependencies,
            singleton,
            arrays,
            throttle,
            holding,
            no_requeue,
            changes,
            own_requeue,
            finished_requeue,
            truncation,
            own_copy,
            spread,
            partition_limit,
            wild,
        ),
    )
)
