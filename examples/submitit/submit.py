"""Submits one job for each learning rate, waits for them, and shows what they found: `python submit.py [options]`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import hpcresume as hr

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the jobs find train.py by where it lies


def main() -> None:
    """Submit, wait, show."""
    options = read_options()
    from train import train

    jobs = hr.submit(
        {
            "name": "sweep",
            "run": str(Path(options.out) / "sweep"),  # sweep-0, sweep-1, …: each job has a run of its own
            "function": train,
            "resources": {"ntasks_per_node": options.ranks, "time": "30min"},
            "environment": {"variables": {"PYTHONPATH": str(Path(__file__).resolve().parent)}},
        },
        options.rates,
        [options.steps] * len(options.rates),
        cluster=options.cluster,
        folder=Path(options.out) / "jobs",
    )
    for job, rate in zip(jobs, options.rates, strict=True):
        print(f"job {job.job_id}: learning rate {rate}", flush=True)
    wait(jobs)
    show([job.results() for job in jobs])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1, 1.0], help="learning rates to try")
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--ranks", type=int, default=1, help="ranks of each job")
    parser.add_argument("--cluster", choices=["slurm", "local", "debug"], help="default: Slurm where there is one")
    parser.add_argument("--out", default="runs", help="where runs, results and logs go")
    return parser.parse_args()


def wait(jobs: list) -> None:
    """Until every job has its results; a line whenever another one has."""
    waiting, began = list(jobs), time.monotonic()
    while waiting:
        done = [job for job in waiting if job.done()]
        waiting = [job for job in waiting if job not in done]
        for job in done:
            print(f"job {job.job_id} is done after {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(0.5 if waiting else 0)


def show(results: list[list[dict]]) -> None:
    """A table with a line for each rank, the best job first."""
    print(f"{'rate':>8} {'loss':>8} {'wrong':>7} {'attempts':>9} {'rank':>6}")
    for ranks in sorted(results, key=lambda ranks: ranks[0]["loss"]):
        for each in ranks:
            rank = f"{each['rank']}/{each['ranks']}"
            print(f"{each['rate']:8g} {each['loss']:8.4f} {each['wrong']:7.1%} {each['attempts']:9} {rank:>6}")


if __name__ == "__main__":
    main()
