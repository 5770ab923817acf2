"""What is known of a submitted job without asking Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcresume.ops.submitted import Submission, log_of_job, submitted_log


@pytest.mark.parametrize(
    ("pattern", "job_id", "log"),
    [
        ("slurm-%j.out", "12", "slurm-12.out"),
        ("%x-%5j-%%.out", "12", "n-00012-%.out"),
        ("%A_%3a.out", "12_7", "12_007.out"),
        ("%j.out", "12_7", None),  # a task has a number of its own, which is not known
        ("%N-%j.out", "12", None),
        (r"lo\g-%j", "12", "log-%j"),  # as with sbatch: a backslash turns the fields off
    ],
)
def test_a_log_is_named_as_sbatch_names_it_or_not_at_all(pattern, job_id, log):
    assert log_of_job(pattern, job_id, "n") == (None if log is None else Path(log))


def test_a_log_lies_where_the_job_was_submitted_from(tmp_path):
    of = Submission(tmp_path / "run", "12", 0.0, directory=Path("/home/me"), spec={"name": "n", "log": "logs/%x.%4j"})
    assert submitted_log(of) == Path("/home/me/logs/n.0012")
    assert submitted_log(Submission(tmp_path / "run", "12_3", 0.0, 3, Path("/d"))) == Path("/d/slurm-12_3.out")
    assert submitted_log(Submission(tmp_path / "run", "12", 0.0)) is None
