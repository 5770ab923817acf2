"""torchrun for real: one agent a node, warnings that reach the workers, one save, the same training afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpcresume.io.ports import free_port
from hpcresume.launch.torchrun import AGENT
from tests.support.launching import ledger, left_behind, running, wait_until
from tests.support.mpi import child_environment
from tests.support.sampling import sampled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRAINING = str(Path(__file__).with_name("ddp_training.py"))
STEPS = "40"
STAND_IN = Path(__file__).with_name("srun_stand_in.py")


def recorded(out: Path, rank: int) -> list[dict]:
    path = out / f"rank-{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(out: Path, rank: int) -> dict[int, str]:
    return {line["step"]: line["loss"] for line in recorded(out, rank) if "step" in line}


def finals(out: Path, ranks: int) -> list[str]:
    return [line["final"] for rank in range(ranks) for line in recorded(out, rank) if "final" in line]


def torchrun(ranks: int, run: Path, out: Path, steps: str, seconds: str, *words: str) -> subprocess.Popen[str]:
    """As typed by hand: no launch anywhere."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), TRAINING]
    return subprocess.Popen(
        [*command, str(run), str(out), steps, seconds, *words], env=child_environment({"OMP_NUM_THREADS": "1"}),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def uninterrupted(folder: Path, ranks: int) -> Path:
    process = torchrun(ranks, folder / "run", folder / "out", STEPS, "0")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    return folder / "out"


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return uninterrupted(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory):
    return uninterrupted(tmp_path_factory.mktemp("four"), 4)


@pytest.fixture
def nodes(tmp_path):
    """What a job of two nodes finds: srun and scontrol on the PATH, and Slurm's variables."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    stand_ins = {
        "srun": f'exec "{sys.executable}" "{STAND_IN}" "$@"',
        # Should this machine's own name lead nowhere. It knows no job.
        "scontrol": 'case "$*" in *"show node"*) echo NodeName=n0 NodeAddr=127.0.0.1 ;; *) exit 1 ;; esac',
    }
    for name, does in stand_ins.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin_folder / name).chmod(0o755)
    return {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURMD_NODENAME": "n0",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "2",
        "SRUN_TRACKS": "cgroup",
    }


def started(out: Path, ranks: int, at_least: int = 3):
    """Every rank has done some steps of the start that runs now."""
    return all(len(losses(out, rank)) >= at_least for rank in range(ranks))


def pids(out: Path, rank: int) -> list[int]:
    return [line["began"] for line in recorded(out, rank) if "began" in line]


def agents(process: subprocess.Popen[str]) -> list[int]:
    below = psutil.Process(process.pid).children(recursive=True)
    return sorted(p.pid for p in below if any(word.endswith("torchrun_agent.py") for word in words_of(p)[:3]))


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none when it has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def launch(tmp_path: Path, workers: int, seconds: str = "0.05", *words: str, env=None):
    (tmp_path / "out").mkdir(exist_ok=True)
    options = ("--run", str(tmp_path / "run"), "--mpi", "torchrun", "--workers-per-node", str(workers))
    return running("launch", *options, "--", TRAINING, str(tmp_path / "run"), str(tmp_path / "out"), STEPS, seconds,
                   *words, env=env)  # fmt: skip


def same_training(out: Path, reference: Path, ranks: int) -> None:
    for rank in range(ranks):
        assert losses(out, rank) == losses(reference, rank)
    assert len(finals(out, ranks)) == ranks
    assert finals(out, ranks) == finals(reference, ranks)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def event(run: Path, name: str, attempt: int = 1) -> dict:
    return next(line for line in ledger(run, attempt) if line["event"] == name)


@pytest.mark.parametrize("tracks", sampled(["cgroup", "linuxproc"], lambda tracks: tracks == "cgroup"))
def test_a_warning_on_two_nodes_is_one_save_and_the_training_goes_on_bit_for_bit(tmp_path, nodes, four_ranks, tracks):
    run, out = tmp_path / "run", tmp_path / "out"
    with launch(tmp_path, 2, env={**nodes, "SRUN_TRACKS": tracks}) as process:
        wait_until(lambda: started(out, 4), 120)
        process.send_signal(signal.SIGUSR1)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 75, said
    saved = [line for line in ledger(run, 1, "ledger.jsonl") if line["event"] == "saved"]
    assert len(saved) == 1
    assert event(run, "ended")["cause"] == "preempted"
    assert [line["code"] for line in ledger(run, 1) if line["event"] == "child-exit"] == [0], said
    firsts = [recorded(out, rank)[0] for rank in range(4)]
    assert [(line["size"], line["backend"], line["local"]) for line in firsts] == [
        (4, "torch", "0"), (4, "torch", "1"), (4, "torch", "0"), (4, "torch", "1"),
    ]  # fmt: skip
    with launch(tmp_path, 2, "0", "lent", env={**nodes, "SLURM_RESTART_COUNT": "1"}) as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    same_training(out, four_ranks, 4)
    steps = [line["step"] for line in recorded(out, 0) if "step" in line]
    assert steps == list(range(int(STEPS))), "a step was lost or done twice"


def test_a_killed_worker_ends_all_in_bounded_time_and_is_named(tmp_path, two_ranks):
    run, out = tmp_path / "run", tmp_path / "out"
    with launch(tmp_path, 2) as process:
        wait_until(lambda: started(out, 2), 60)
        os.kill(pids(out, 1)[-1], signal.SIGKILL)
        killed = time.monotonic()
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 20
    assert process.returncode == 75, said
    assert event(run, "ended")["cause"] == "crash"
    assert event(run, "child-exit")["code"] == 128 + signal.SIGKILL, said
    assert "SIGKILL" in str(event(run, "cause")["evidence"])
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid())) == []
    with launch(tmp_path, 2, "0") as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    same_training(out, two_ranks, 2)


def test_a_killed_agent_takes_its_workers_along_and_the_step_ends(tmp_path, nodes, four_ranks):
    run, out = tmp_path / "run", tmp_path / "out"
    with launch(tmp_path, 2, env=nodes) as process:
        wait_until(lambda: started(out, 4), 60)
        found = agents(process)
        assert len(found) == 2
        below = [child.pid for child in psutil.Process(found[-1]).children()]
        os.kill(found[-1], signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: not any(alive(pid) for pid in below))
        said, _ = process.communicate(timeout=60)
    assert len(below) == 2
    assert time.monotonic() - killed < 20
    assert process.returncode == 75, said
    assert event(run, "ended")["cause"] == "crash"
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid())) == []
    with launch(tmp_path, 2, "0", env={**nodes, "SLURM_RESTART_COUNT": "1"}) as process:
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    same_training(out, four_ranks, 4)


def test_workers_do_not_outlive_an_agent_that_is_killed_where_no_supervisor_is(tmp_path):
    """On every node but the first nobody else would end them; these would stay for minutes."""
    worker = tmp_path / "worker.sh"
    worker.write_text(
        'cd "$(dirname "$0")"\necho $$ > new.$LOCAL_RANK\nmv new.$LOCAL_RANK pid.$LOCAL_RANK\nexec sleep 300\n'
    )
    port = free_port(20000 + os.getpid() % 20000, where="a test")
    options = ["--nodes=1", "--workers=2", "--address=127.0.0.1", f"--port={port}", "--id=1"]
    agent = subprocess.Popen([sys.executable, str(AGENT), *options, "--", "sh", str(worker)],
                             env=child_environment({"HPCRESUME_TEST_MARK": str(tmp_path)}))  # fmt: skip
    workers: list[int] = []
    try:
        wait_until(lambda: len(list(tmp_path.glob("pid.*"))) == 2, 60)
        workers = [int(path.read_text()) for path in tmp_path.glob("pid.*")]
        assert all(alive(pid) for pid in workers)
        agent.kill()
        agent.wait()
        wait_until(lambda: not any(alive(pid) for pid in workers), 5)
    finally:
        agent.kill()
        agent.wait()
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)
    assert left_behind("HPCRESUME_TEST_MARK", str(tmp_path)) == []


def test_torchrun_by_hand_on_a_laptop_saves_when_its_workers_are_told_and_resumes(tmp_path, two_ranks):
    run, out = tmp_path / "run", tmp_path / "out"
    process = torchrun(2, run, out, STEPS, "0.05", "named")
    wait_until(lambda: started(out, 2), 60)
    os.kill(pids(out, 0)[-1], signal.SIGUSR1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, "torchrun turns 75 into 1"
    decision = json.loads((run / "attempts/0001/decision.json").read_text())
    assert decision["decision"] == "come-back"
    process = torchrun(2, run, out, STEPS, "0", "lent")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    same_training(out, two_ranks, 2)


MOVES = "DistributedDataParallel on 4 ranks lays its buckets out anew"


def test_ddp_whose_sums_may_change_at_a_resume_is_named_once(tmp_path):
    process = torchrun(4, tmp_path / "run", tmp_path / "out", "2", "0", "rebuilt")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert said.count(MOVES) == 1
    assert "find_unused_parameters=True" in said


@pytest.mark.full
@pytest.mark.parametrize("word", ["rebuilt", "settled", "steady"])
def test_what_is_said_of_ddp_is_what_the_bits_show(tmp_path, word):
    """A resume in the middle, on four ranks: who is warned may differ, and who is not does not."""
    whole = torchrun(4, tmp_path / "whole", tmp_path / "whole-out", STEPS, "0", word)
    told, _ = whole.communicate(timeout=90)
    assert whole.returncode == 0, told
    run, out = tmp_path / "run", tmp_path / "out"
    first = torchrun(4, run, out, STEPS, "0.05", word)
    wait_until(lambda: started(out, 4, 10), 90)
    os.kill(pids(out, 0)[-1], signal.SIGUSR1)
    first.communicate(timeout=60)
    second = torchrun(4, run, out, STEPS, "0", word)
    said, _ = second.communicate(timeout=90)
    assert second.returncode == 0, said
    same = [finals(out, 4) == finals(tmp_path / "whole-out", 4), losses(out, 0) == losses(tmp_path / "whole-out", 0)]
    assert (said.count(MOVES), told.count(MOVES)) == ((1, 1) if word == "rebuilt" else (0, 0))
    if word != "rebuilt":
        assert same == [True, True]
    else:
        assert False in same, "torch lays out buckets steadily by now: nobody needs to be told"


@pytest.mark.parametrize("delay", sampled([0.0, 1.0, 2.5], lambda delay: delay == 1.0))
def test_a_warning_while_workers_start_is_kept(tmp_path, delay):
    with launch(tmp_path, 2) as process:
        wait_until(lambda: agents(process), 30)
        time.sleep(delay)
        for pid in agents(process):  # as Slurm does it without B: straight to the step, past the supervisor
            os.kill(pid, signal.SIGUSR2)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert json.loads((tmp_path / "run/attempts/0001/decision.json").read_text())["reason"] == "warned by SIGUSR2"
    assert len(losses(tmp_path / "out", 0)) < int(STEPS)


@pytest.mark.full
def test_a_term_from_the_scheduler_reaches_the_workers_and_is_no_30_second_ultimatum(tmp_path, nodes):
    out = tmp_path / "out"
    with launch(tmp_path, 1, "0.05", env=nodes) as process:
        wait_until(lambda: started(out, 2), 60)
        for pid in agents(process):
            os.kill(pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert event(tmp_path / "run", "child-exit")["code"] == 0


@pytest.mark.full
def test_when_the_supervisor_is_killed_the_workers_save_and_leave(tmp_path):
    with launch(tmp_path, 2) as process:
        wait_until(lambda: started(tmp_path / "out", 2), 60)
        process.kill()
        process.communicate()
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid()), seconds=20) == []
    assert json.loads((tmp_path / "run/attempts/0001/decision.json").read_text())["decision"] == "come-back"


@pytest.mark.parametrize(("code", "exits"), sampled([(77, 77), (3, 3)], lambda codes: codes[0] == 77))
def test_a_workers_own_code_is_not_lost(code, exits):
    program = f"import os, sys; sys.exit({code} if os.environ['RANK'] == '1' else 0)"
    words = ("--mpi", "torchrun", "--workers-per-node", "2", "--", sys.executable, "-c", program)
    with running("launch", *words) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == exits, said
    assert f"rank 1 (local rank 1): exit code {code}" in said


@pytest.mark.full
def test_a_program_without_a_session_runs_to_its_end(tmp_path):
    program = "import os; print('hello', os.environ['RANK'], os.environ['WORLD_SIZE'], flush=True)"
    words = ("--mpi", "torchrun", "--workers-per-node", "2", "--", sys.executable, "-c", program)
    with running("launch", *words) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert {"hello 0 2", "hello 1 2"} <= set(said.splitlines())
