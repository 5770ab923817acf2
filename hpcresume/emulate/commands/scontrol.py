"""scontrol: shows and changes jobs, nodes and partitions (scontrol(1))."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.commands.changes import change_job
from hpcresume.emulate.commands.show import config_text, job_text, node_text, partition_text, step_text
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress, expand
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.option_tables import SCONTROL

__all__ = ["scontrol"]

_VERBS = ("hold", "uhold", "ping", "release", "requeue", "requeuehold", "show", "update", "version", "wait_job",
          "write", "suspend", "resume", "top")  # fmt: skip


def scontrol(call: Call, controller: Controller) -> Reply:
    """Do what its first word says."""
    try:
        pairs, words = read_options(call.words, SCONTROL, program="scontrol", permute=True)
    except OptionError as error:
        return Reply(err=error.text, code=1)
    if any(name == "version" for name, _ in pairs) or words[:1] == ["version"]:
        return Reply(out=f"slurm {controller.settings.slurm}\n")
    oneline = any(name == "oneliner" for name, _ in pairs)
    verb = next((v for v in _VERBS if words and v.startswith(words[0].lower()) and len(words[0]) > 2), "")
    if words and words[0].lower() in _VERBS:
        verb = words[0].lower()
    if verb == "ping":
        return Reply(out=f"Slurmctld(primary) at {os.uname().nodename} is UP\n")
    if verb == "show":
        return _show(words[1:], controller, oneline, call)
    if verb == "update":
        return _update(words[1:], controller)
    if verb in ("hold", "uhold", "release", "requeue", "requeuehold"):
        return _each(verb, words[1:], controller)
    if verb == "write" and words[1:2] == ["batch_script"]:
        jobs = controller.find(words[2]) if len(words) > 2 else []
        return Reply(out=jobs[0].request.script) if jobs else _invalid(words[2] if len(words) > 2 else "")
    return Reply(err=f"invalid keyword: {words[0] if words else ''}\n", code=1)


def _invalid(text: str) -> Reply:
    return Reply(err=f"Invalid job id specified for job {text}\n", code=1)


# ---- show


def _show(words: Sequence[str], controller: Controller, oneline: bool, call: Call) -> Reply:
    entity = words[0].lower() if words else ""
    name = words[1] if len(words) > 1 else ""
    if "=" in entity:
        entity, _, name = entity.partition("=")
    if entity in ("hostnames", "hostname", "hostlist", "hostlistsorted"):
        return _hosts(entity, name or call.environ.get("SLURM_JOB_NODELIST", ""))
    if entity in ("job", "jobs", "jobid"):
        return _show_jobs(name, controller, oneline)
    if entity in ("step", "steps", "stepid"):
        return _show_step(name, controller, oneline)
    if entity in ("node", "nodes", "nodename"):
        return _show_nodes(name, controller, oneline)
    if entity in ("partition", "partitions", "partitionname"):
        found = [p for p in controller.settings.partitions if name in ("", p.name)]
        if not found:
            return Reply(err=f"Partition {name} not found\n", code=1)
        return Reply(out="".join(partition_text(p, controller, oneline) for p in found))
    if entity == "config":
        return Reply(out=config_text(controller))
    return Reply(err=f"invalid entity:{entity} for keyword:show \n", code=1)


def _hosts(entity: str, text: str) -> Reply:
    try:
        names = expand(text)
    except ValueError:
        return Reply(err=f"Invalid hostlist: {text}\n", code=1)
    if entity.startswith("hostname"):
        return Reply(out="".join(f"{name}\n" for name in names))
    return Reply(out=compress(names) + "\n")


def _show_jobs(name: str, controller: Controller, oneline: bool) -> Reply:
    jobs = controller.find(name) if name else list(controller.jobs.values())
    if name and not jobs:
        return Reply(err="slurm_load_jobs error: Invalid job id specified\n", code=1)
    if not jobs:
        return Reply(out="No jobs in the system\n")
    return Reply(out="".join(job_text(job, oneline) for job in jobs))


def _show_step(name: str, controller: Controller, oneline: bool) -> Reply:
    number, _, step = name.partition(".")
    for job in controller.find(number):
        found = [each for each in job.steps if step in ("", str(each.number)) and each.end is None]
        if found:
            return Reply(out="".join(step_text(job, each, oneline) for each in found))
    return Reply(err=f"Job step {name} not found\n", code=1)


def _show_nodes(name: str, controller: Controller, oneline: bool) -> Reply:
    try:
        names = expand(name) if name else tuple(controller.nodes)
    except ValueError:
        names = (name,)
    texts = []
    for each in names:
        if each not in controller.nodes:
            return Reply(err=f"Node {each} not found\n", code=1)
        texts.append(node_text(controller.nodes[each], controller, oneline))
    return Reply(out="".join(texts))


# ---- change


def _each(verb: str, words: Sequence[str], controller: Controller) -> Reply:
    """hold, release, requeue or requeuehold of each job named."""
    errors, code = "", 0
    if not words:
        return Reply(err=f"too few arguments for keyword:{verb}\n", code=1)
    for text in [part for word in words for part in _split(word.partition("=")[2] or word)]:
        jobs = controller.find(text)
        if not jobs:
            errors += f"Invalid job id specified for job {text}\n"
            code = 1
        for job in jobs:
            refusal = _one(verb, job, controller)
            if refusal:
                errors += f"{refusal} for job {job.id}\n"
                code = 1
    return Reply(err=errors, code=code)


def _split(text: str) -> list[str]:
    """Job ids between commas that are not inside brackets."""
    return [part for part in text.split(",") if part] if "[" not in text else [text]


def _one(verb: str, job: Job, controller: Controller) -> str:
    if verb in ("requeue", "requeuehold"):
        return controller.requeue(job, hold=verb == "requeuehold")
    if job.over:
        return "Job has already finished"
    if verb in ("hold", "uhold"):
        controller.hold([job])
    else:
        controller.release([job])
    return ""


def _update(words: Sequence[str], controller: Controller) -> Reply:
    values = {key.lower(): value for key, _, value in (word.partition("=") for word in words)}
    if "nodename" in values:
        return _update_nodes(values, controller)
    text = values.pop("jobid", values.pop("job", ""))
    jobs = controller.find(text)
    if not jobs:
        return _invalid(text)
    for job in jobs:
        if job.over:
            return Reply(err=f"Job has already finished for job {job.id}\n", code=1)
        refusal = change_job(job, values, controller)
        if refusal:
            return Reply(err=refusal, code=1)
    controller.changed = True
    return Reply()


def _update_nodes(values: dict[str, str], controller: Controller) -> Reply:
    try:
        names = expand(values["nodename"])
    except ValueError:
        names = ()
    state = values.get("state", "").lower()
    for name in names or ("",):
        node = controller.nodes.get(name)
        if node is None:
            return Reply(err=f"slurm_update error: Invalid node name specified {shlex.quote(name)}\n", code=1)
        if state in ("down", "fail"):
            controller.set_down(node, values.get("reason", ""))
        elif state == "drain":
            node.state, node.reason, node.since = "drain", values.get("reason", ""), time.time()
        elif state in ("resume", "idle", "undrain"):
            node.state, node.reason, node.down_until = "", "", 0.0
        else:
            return Reply(err=f"Invalid input: State={state}\nRequest aborted\n", code=1)
    controller.changed = True
    return Reply()
