"""The requeue section of job.yaml arrives at `hpcresume launch` word for word, and what makes no sense is refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from hpcresume.cli.launch import command
from hpcresume.config.job import read_job
from hpcresume.errors import ConfigError
from hpcresume.submit.launch_words import requeue_words
from hpcresume.submit.script import render

JOB = """
name: gpt
command: python train.py
resources: {nodes: 4}
requeue:
  max_restarts: 9
  max_crashes: 2
  when_held: end
  pause: 5min
  exclude_for: off
  exclude_most: 0
  max_micro_batches: 16
  guard: true
  fallback: {partition: "big; reboot", nodes: 2, after_failures: 3, after_preemptions: 5, after_waiting: 6h}
"""


def test_every_key_becomes_an_option_that_launch_knows():
    words = [word for word, _ in requeue_words(read_job(JOB).spec.requeue)]
    assert words == [
        "--max-restarts=9", "--max-crashes=2", "--when-held=end", "--pause=5min", "--exclude-for=off",
        "--exclude-most=0", "--micro-batches=16", "--fallback-partition=big; reboot", "--fallback-nodes=2",
        "--fallback-failures=3", "--fallback-preemptions=5", "--fallback-waiting=6h", "--guard",
    ]  # fmt: skip
    done = CliRunner().invoke(command, [*words, "--mpi=direct", "--run=x", "--dry-run", "--", "true"])
    assert done.exit_code == 0, done.output


def test_the_defaults_need_no_words():
    assert requeue_words(read_job("name: x\ncommand: y").spec.requeue) == []


def test_no_value_is_more_than_a_word_of_the_script():
    assert "'--fallback-partition=big; reboot'" in render(read_job(JOB).spec)


@pytest.mark.parametrize(
    ("requeue", "key"),
    [
        ("fallback: {partition: big}", "requeue.fallback.partition"),
        ("fallback: {after_failures: 2}", "requeue.fallback.after_failures"),
        ("fallback: {nodes: 1, after_waiting: 1h}", "requeue.fallback.nodes"),
        ("fallback: {partition: big, after_waiting: soon}", "requeue.fallback.after_waiting"),
        ("pause: a while", "requeue.pause"),
        ("exclude_for: ever", "requeue.exclude_for"),
        ("when_held: maybe", "requeue.when_held"),
        ("exclude_most: -1", "requeue.exclude_most"),
        ("max_micro_batches: 0", "requeue.max_micro_batches"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(requeue: str, key: str):
    with pytest.raises(ConfigError) as error:
        read_job(f"name: x\ncommand: y\nrequeue:\n  {requeue}\n")
    assert key in str(error.value)
