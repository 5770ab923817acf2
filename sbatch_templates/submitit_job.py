#!/usr/bin/env python3
"""Submits a function through submitit; it comes back by itself until its run is finished."""

# Fill in these lines. A run comes back by itself until its training is finished.
# Then run it where you would run sbatch: python submitit_job.py (it needs submitit).
JOB = {
    "name": "my-run",
    "function": "train:main",
    "resources": {"nodes": 2, "ntasks_per_node": 4, "time": "04:00:00"},
}


def main() -> None:
    """Submit, and say what was submitted. Leave this as it is."""
    import hpcresume as hr

    job = hr.submit(JOB, cluster="slurm")
    print(f"job {job.job_id}; logs in {job.paths.folder}; watch it: squeue --jobs={job.job_id}")


if __name__ == "__main__":
    main()
