"""submitit's local and debug executors for real: stopped, brought back, results of all ranks, errors as its own."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import hpcresume as hr
from tests.integrations import trainings
from tests.integrations.trainings import expected, train
from tests.support.launching import ledger, wait_until
from tests.support.mpi import child_environment
from tests.support.sampling import sampled

submitit = pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(Path(__file__).parents[2])


def local(folder: Path, tasks: int = 1):
    executor = submitit.AutoExecutor(folder, cluster="local")
    executor.update_parameters(tasks_per_node=tasks, timeout_min=2)
    return executor


def steps_of(out: Path, rank: int = 0) -> list[int]:
    path = out / f"rank-{rank}.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def pids_of(out: Path, name: str = "rank-0") -> list[int]:
    path = out / f"{name}.jsonl"
    return [json.loads(line)["pid"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    "number", sampled([signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM], lambda n: n == signal.SIGUSR2)
)
def test_a_warned_function_goes_on_until_it_is_done_and_its_result_is_the_last_ones(tmp_path, number):
    job = local(tmp_path / "jobs").submit(
        hr.Resumable(train), str(tmp_path / "run"), out=str(tmp_path), warn_at=(5, 20), number=number
    )
    result = job.result()
    assert (result["attempt"], result["size"]) == (3, 1), job.stderr()
    assert result["sum"] == expected(40)
    assert steps_of(tmp_path) == list(range(40))


@pytest.mark.full
def test_more_preemptions_than_the_controller_has_restarts(tmp_path):
    """The local controller starts a job six times at most, and a preemption must not cost one of them."""
    executor = local(tmp_path / "jobs")
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), steps=20, warn_at=tuple(range(1, 17, 2)))
    assert job.result()["attempt"] == 9, job.stderr()


@pytest.mark.full
def test_the_controllers_own_time_limit_restarts_it_through_the_controller(tmp_path):
    executor = local(tmp_path / "jobs")
    executor._executor.parameters.update(timeout_min=0.15, signal_delay_s=5)
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), steps=60, seconds=0.1, out=str(tmp_path))
    result = job.result()
    assert result["attempt"] >= 2, job.stderr()
    assert result["sum"] == expected(60)
    assert len(set(pids_of(tmp_path))) == result["attempt"]


def test_several_tasks_are_ranks_of_one_run_and_every_rank_has_its_result(tmp_path):
    job = local(tmp_path / "jobs", tasks=2).submit(
        hr.Resumable(train), str(tmp_path / "run"), out=str(tmp_path), warn_at=(6, 25)
    )
    results = job.results()
    assert [(r["rank"], r["size"], r["attempt"]) for r in results] == [(0, 2, 3), (1, 2, 3)], job.stderr()
    assert [r["sum"] for r in results] == [expected(40, 0), expected(40, 1)]
    assert steps_of(tmp_path, 1) == list(range(40))


def test_an_exception_is_reported_as_submitit_does_and_nothing_is_restarted(tmp_path):
    job = local(tmp_path / "jobs").submit(hr.Resumable(train), str(tmp_path / "run"), crash_at=3, out=str(tmp_path))
    with pytest.raises(submitit.core.utils.FailedJobError, match="ZeroDivisionError: at step 3"):
        job.result()
    assert steps_of(tmp_path) == [0, 1, 2, 3]


def test_an_exception_on_one_rank_is_reported_for_all(tmp_path):
    executor = local(tmp_path / "jobs", tasks=2)
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), crash_at=3, out=str(tmp_path))
    trace = str(job.task(1).exception())
    assert "ZeroDivisionError: at step 3" in trace
    with pytest.raises(submitit.core.utils.FailedJobError, match=r"task 1 has failed .*job.task\(1\).exception\(\)"):
        job.results()


def held() -> None:
    raise hr.RunHeld({})


def test_a_held_run_is_reported_and_not_started_again(tmp_path):
    job = local(tmp_path / "jobs").submit(hr.Resumable(held))
    with pytest.raises(submitit.core.utils.UncompletedJobError, match="the run is held"):
        job.result()


def test_a_run_that_was_finished_before_gives_none_and_says_so(tmp_path):
    executor = local(tmp_path / "jobs")
    assert executor.submit(hr.Resumable(train), str(tmp_path / "run"), steps=3).result()["attempt"] == 1
    again = executor.submit(hr.Resumable(train), str(tmp_path / "run"), steps=3)
    assert again.result() is None
    assert "finished before" in again.stderr()


def test_map_array_gives_each_task_a_run_of_its_own(tmp_path):
    task = hr.Resumable(train_numbered, run=tmp_path / "sweep")
    jobs = task.map_array(local(tmp_path / "jobs"), [4, 6])
    results = [job.result() for job in jobs]
    assert [r["run"] for r in results] == [str(tmp_path / "sweep-0"), str(tmp_path / "sweep-1")]
    with pytest.raises(hr.errors.ConfigError, match="a run each"):
        hr.Resumable(train).map_array(local(tmp_path / "jobs"), [1])


def train_numbered(steps: int, run: str) -> dict[str, object]:
    return train(run, steps)


def test_a_preempt_signal_of_the_users_own_is_a_warning_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "URG")
    job = local(tmp_path / "jobs").submit(
        hr.Resumable(train), str(tmp_path / "run"), out=str(tmp_path), warn_at=(5,), number=signal.SIGURG
    )
    assert job.result()["attempt"] == 2, job.stderr()


def late_session(run: str, out: str, numbers: tuple[int, ...]) -> dict[str, object]:
    """Warned before there is any session: by itself, as a slow import would be."""
    if not (Path(out) / "warned").exists():
        (Path(out) / "warned").touch()
        for number in numbers:
            os.kill(os.getpid(), number)
        time.sleep(0.3)
    return train(run, 10, 0.02)


@pytest.mark.parametrize("numbers", [(signal.SIGUSR2, signal.SIGTERM), (signal.SIGTERM,)], ids=["both", "TERM"])
def test_a_warning_before_the_session_is_kept_for_it(tmp_path, numbers):
    """USR2 is blocked until the session listens; TERM is not, and must be delivered to it a second time."""
    job = local(tmp_path / "jobs").submit(hr.Resumable(late_session), str(tmp_path / "run"), str(tmp_path), numbers)
    assert job.result()["attempt"] == 2, job.stderr()
    warned = [line["signal"] for line in ledger(tmp_path / "run", 1, "ledger.jsonl") if line["event"] == "warning"]
    assert set(warned) <= {number.name for number in numbers}
    assert warned


def test_the_debug_executor_calls_it_again_in_this_process_and_leaves_no_trace(tmp_path):
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="debug")
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), out=str(tmp_path), warn_at=(5, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # submitit never closes its two log files
        result = job.result()
        gc.collect()
    assert (result["attempt"], result["sum"]) == (3, expected(40))
    assert set(pids_of(tmp_path)) == {os.getpid()}
    assert {n: signal.getsignal(n) for n in before} == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def leave(run: str, how: str) -> None:
    """Leaves the block, and the function, in a way that submitit stores no word of."""
    with hr.session(run, reaction=0) as s:
        for _ in s.steps(5):
            if s.rank == s.size - 1:
                raise SystemExit(3) if how == "exit" else KeyboardInterrupt
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "tasks", "says"),
    sampled(
        [("exit", 1, r"sys.exit\(3\)"), ("exit", 2, r"sys.exit\(3\)"), ("key", 1, "KeyboardInterrupt")],
        lambda cell: cell[1] == 2,
    ),
)
def test_an_end_that_submitit_would_say_nothing_of_is_reported_at_once(tmp_path, how, tasks, says):
    job = local(tmp_path / "jobs", tasks).submit(hr.Resumable(leave), str(tmp_path / "run"), how)
    last = job.task(tasks - 1)
    wait_until(lambda: last.paths.result_pickle.exists(), 60)
    with pytest.raises(submitit.core.utils.FailedJobError, match=says):
        last.result()


def test_no_variable_of_ours_stays_in_a_process_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv("HPCRESUME_RUN", raising=False)
    before = dict(os.environ)
    job = submitit.AutoExecutor(tmp_path / "jobs", cluster="debug").submit(hr.Resumable(seen_run, run=tmp_path / "a"))
    assert job.exception() is None, "which submitit calls without restoring the environment"
    assert dict(os.environ) == before
    assert hr.Resumable(seen_run, run="b")() == "b"
    assert dict(os.environ) == before
    monkeypatch.setenv("HPCRESUME_RUN", "the user's")
    assert hr.Resumable(seen_run, run="b")() == "b"
    assert os.environ["HPCRESUME_RUN"] == "the user's"


def seen_run() -> str | None:
    return os.environ.get("HPCRESUME_RUN")


def test_called_by_hand_it_is_the_function_itself(tmp_path):
    assert hr.Resumable(trainings.plain)(2, 3) == 5
    with pytest.raises(hr.errors.ConfigError, match="cannot be called"):
        hr.Resumable(3)


def test_plain_submitit_beside_it_is_untouched(tmp_path):
    executor = local(tmp_path / "jobs")
    ours = executor.submit(hr.Resumable(train), str(tmp_path / "run"), warn_at=(5,))
    plain = executor.submit(trainings.plain, 2, 3)
    theirs = executor.submit(trainings.Checkpointed(), str(tmp_path), 40)
    wait_until(lambda: len(pids_of(tmp_path, "checkpointed")) > 5)
    os.kill(pids_of(tmp_path, "checkpointed")[-1], signal.SIGUSR2)
    assert (plain.result(), theirs.result(), ours.result()["attempt"]) == (5, 40, 2)
    steps = [json.loads(line)["step"] for line in (tmp_path / "checkpointed.jsonl").read_text().splitlines()]
    assert steps[-1] == 40
    assert len(set(pids_of(tmp_path, "checkpointed"))) == 2, "submitit's own requeue did not happen"


def test_importing_us_loads_no_submitit():
    program = "import sys, hpcresume as hr; hr.session; print('submitit' in sys.modules, hr.Resumable)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
