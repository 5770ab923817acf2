#!/usr/bin/env python3
"""Submits a function through submitit; it comes back by itself until its run is finished."""

# Made by `hpcresume render`.
JOB = {
    "name": "f",
    "function": "package.module:train",
    "args": [1, 'it\'s "x"', {"a": [None, True, 2.5]}],
    "kwargs": {"lr": 0.1},
    "resources": {
        "nodes": 2,
        "cpus_per_task": 4,
        "mem": "4G",
        "time": "390s",
        "partition": "gpu",
        "qos": "q",
        "options": ["--mail-type=END"],
    },
    "checkpoint": {"every": "auto"},
    "environment": {"modules": ["cuda"], "variables": {"A": "b c"}},
}


def main() -> None:
    """Submit, and say what was submitted. Leave this as it is."""
    import hpcresume as hr

    job = hr.submit(JOB, cluster="slurm")
    print(f"job {job.job_id}; logs in {job.paths.folder}; watch it: squeue --jobs={job.job_id}")


if __name__ == "__main__":
    main()
