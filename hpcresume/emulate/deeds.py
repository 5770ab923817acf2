"""What no scheduler's command does and a test needs: preempt a job, lose a node, kill a rank."""

from __future__ import annotations

from collections.abc import Sequence

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.jobs import Job

__all__ = ["deed"]


def deed(call: Call, controller: Controller) -> Reply:
    """Do `preempt JOB`, `kill-node NODE`, or `kill-rank JOB RANK`."""
    verb, *words = call.words or [""]
    if verb == "kill-node":
        return _kill_node(words, controller)
    jobs = controller.find(words[0]) if words else []
    running = [job for job in jobs if job.running]
    if not running:
        return _failed(f"no job {words[0] if words else ''!r} runs" if jobs else "there is no such job")
    if verb == "preempt":
        done = [controller.runner.preempt(job) for job in running]
        return Reply() if any(done) else _failed(f"job {running[0].id} is being preempted or ended already")
    if verb == "kill-rank":
        return _kill_rank(running[0], words[1:], controller)
    return _failed(f"unknown deed {verb!r}")


def _kill_node(words: Sequence[str], controller: Controller) -> Reply:
    if not words or words[0] not in controller.nodes:
        return _failed("there is no such node")
    controller.lose_node(words[0])
    return Reply()


def _kill_rank(job: Job, words: Sequence[str], controller: Controller) -> Reply:
    if not words or not words[0].isdecimal():
        return _failed("a rank is needed")
    if not controller.runner.kill_rank(job, int(words[0])):
        return _failed(f"job {job.id} has no rank {words[0]} now")
    return Reply()


def _failed(text: str) -> Reply:
    return Reply(err=text + "\n", code=1)
