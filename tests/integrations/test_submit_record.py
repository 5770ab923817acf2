"""What `hr.submit` leaves in a run: enough for the verbs that look after runs, and no promise that cannot be kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcresume.integrations.submitit_record import record_submission
from hpcresume.ops.submitted import read_submission
from hpcresume.submit.submitit_jobs import importable_name, read_request
from tests.integrations import trainings


def recorded(tmp_path: Path, function: object, **more: object):
    """What is read back of a job 12 that was made from this."""
    spec = {"name": "a", "run": str(tmp_path / "run"), "function": function, **more}
    record_submission(read_request(spec, cluster="slurm"), str(tmp_path / "run"), "12")
    found = read_submission(tmp_path / "run")
    assert found is not None
    assert found.job_id == "12"
    return found


def test_what_another_process_can_build_again_may_be_submitted_again(tmp_path):
    found = recorded(tmp_path, trainings.plain, args=[2, 3])
    assert found.spec["function"] == "tests.integrations.trainings:plain"
    assert found.spec["args"] == [2, 3]
    assert found.directory == Path(os.getcwd())
    assert recorded(tmp_path, "tests.integrations.trainings:plain", kwargs={"a": 1}).spec["kwargs"] == {"a": 1}


@pytest.mark.parametrize(
    ("function", "arguments"), [(lambda: None, []), (trainings.plain, [object()]), (trainings.plain, [(1, 2)])]
)
def test_what_it_cannot_is_known_by_its_number_alone(tmp_path, function, arguments):
    """A closure, an object, a tuple that would come back as a list."""
    found = recorded(tmp_path, function, args=arguments)
    assert found.directory is None


def test_each_task_of_an_array_is_known_in_its_own_run(tmp_path):
    request = read_request({"name": "a", "run": str(tmp_path / "run"), "function": trainings.plain}, cluster="slurm")
    for task in (0, 1):
        record_submission(request, f"{request.run}-{task}", f"12_{task}", task=task)
    found = [read_submission(tmp_path / f"run-{task}") for task in (0, 1)]
    assert [(each.job_id, each.task, each.directory) for each in found if each] == [
        ("12_0", 0, None),
        ("12_1", 1, None),
    ]


def test_a_run_that_cannot_be_written_is_said_and_the_job_stays(tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    request = read_request({"name": "a", "run": str(tmp_path / "run"), "function": trainings.plain}, cluster="slurm")
    record_submission(request, request.run, "12")
    assert "hpcresume status will not know of job 12" in capsys.readouterr().err


def test_only_the_very_object_that_a_name_leads_to_has_that_name():
    def inner() -> None: ...

    assert importable_name(trainings.train) == "tests.integrations.trainings:train"
    assert importable_name(inner) is None
    assert importable_name(trainings.Checkpointed()) is None
    inner.__qualname__ = "train"
    inner.__module__ = trainings.__name__
    assert importable_name(inner) is None
