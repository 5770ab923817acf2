"""The directory of one emulated job: stand-ins for scontrol, squeue, sinfo and srun, and the files between them and us.

The supervisor finds the stand-ins first on its PATH, so it runs the very code that it runs on a cluster.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcresume.config.timetable import EmulatedJob
from hpcresume.emulate import srun_program
from hpcresume.io.mpiexec import find_mpiexec

__all__ = ["JobRecord", "Stage"]

_SCONTROL = """\
#!/bin/sh
# Stands in for scontrol, for one emulated job: show job, requeue.
D={directory}
verb= job=
for word in "$@"; do
  case "$word" in
    -*) ;;
    show|requeue|job) verb="$verb $word" ;;
    *) job=$word ;;
  esac
done
if [ "$job" != {job_id} ]; then
  echo "slurm_load_jobs error: Invalid job id specified" >&2
  exit 1
fi
case "$verb" in
  " show job") cat "$D/job.txt" ;;
  " requeue")
    if [ ! -e "$D/requeue-allowed" ]; then
      echo "Requested operation is presently disabled for job {job_id}" >&2
      exit 1
    fi
    : > "$D/requests/requeue" ;;
  *)
    echo "this scontrol stands in for Slurm's and knows 'show job' and 'requeue' only" >&2
    exit 1 ;;
esac
"""

_SQUEUE = """\
#!/bin/sh
# Stands in for squeue, for one emulated job: prints its state.
D={directory}
for word in "$@"; do
  case "$word" in
    --jobs={job_id}|{job_id}) cat "$D/state.txt"; exit 0 ;;
  esac
done
echo "slurm_load_jobs error: Invalid job id specified" >&2
exit 1
"""

_SINFO = """\
#!/bin/sh
# Stands in for sinfo: the emulated nodes and their states.
cat {directory}/nodes.txt
"""

_SRUN = """\
#!/bin/sh
# Stands in for srun, see {program}
exec {python} -S -I {program} {layout} "$@"
"""


_QUICK_START = {} if "OMPI_MCA_btl" in os.environ else {"OMPI_MCA_btl": "^ofi"}
"""All ranks share this machine: looking for libfabric's networks only costs a second in every MPI_Init."""


@dataclass(frozen=True)
class JobRecord:
    """What `scontrol show job` says now. Times are unix seconds, None is Slurm's None or Unknown."""

    state: str
    reason: str = "None"
    restarts: int = 0
    start: float | None = None
    end: float | None = None
    preempted_at: float | None = None


class Stage:
    """The directory (0700) and its files. `close` removes it."""

    def __init__(self, job: EmulatedJob) -> None:
        """Set the stage.

        Raises:
            ConfigError: there is no mpiexec to stand behind srun.
        """
        self._job = job
        self.directory = Path(tempfile.mkdtemp(prefix="hpcresume-emulate-"))
        self.programs = self.directory / "bin"
        self._shared_memory = _shared_memory_directory()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in ("bin", "requests", "launch", "tmp", "logs"):
            (self.directory / name).mkdir(mode=0o700)
        if self._job.requeue:
            (self.directory / "requeue-allowed").touch(mode=0o600)
        layout = self.directory / "layout.json"
        layout.write_text(json.dumps(self._layout(), indent=1), encoding="utf-8")
        quoted = {
            "directory": shlex.quote(str(self.directory)),
            "layout": shlex.quote(str(layout)),
            "program": shlex.quote(str(srun_program.__file__)),
            "python": shlex.quote(sys.executable),
            "job_id": str(self._job.job_id),
        }
        for name, text in (("scontrol", _SCONTROL), ("squeue", _SQUEUE), ("sinfo", _SINFO), ("srun", _SRUN)):
            program = self.programs / name
            program.write_text(text.format_map(quoted), encoding="utf-8")
            program.chmod(0o700)

    def _layout(self) -> Mapping[str, object]:
        mpiexec = find_mpiexec()
        memory = {} if self._shared_memory is None else {
            "OMPI_MCA_btl_sm_backing_directory": str(self._shared_memory),
            "OMPI_MCA_btl_vader_backing_directory": str(self._shared_memory),
        }  # fmt: skip
        return {
            "mpiexec": [mpiexec.program, *mpiexec.options],
            # What a kill -9 leaves of mpiexec's own files then goes with this directory.
            "mpiexec_environ": {**mpiexec.environ, **memory, **_QUICK_START, "TMPDIR": str(self.directory / "tmp")},
            "nodes": self._job.nodes,
            "tasks_per_node": self._job.tasks_per_node,
        }

    def launch_parent(self, attempt: int) -> Path:
        """Where the supervisor of an attempt makes its private directory."""
        parent = self.directory / "launch" / str(attempt)
        parent.mkdir(mode=0o700, exist_ok=True)
        return parent

    def log(self, attempt: int) -> Path:
        """The output file of an attempt."""
        parent = self._job.keep_logs if self._job.keep_logs is not None else self.directory / "logs"
        parent.mkdir(parents=True, exist_ok=True)
        return parent / f"attempt-{attempt:04d}.log"

    def publish(self, record: JobRecord) -> None:
        """Let scontrol and squeue say this from now on."""
        self._replace("job.txt", _job_text(self._job, record))
        self._replace("state.txt", record.state + "\n")

    def publish_nodes(self, down: int = -1) -> None:
        """Let sinfo call one node down, or none."""
        states = ("down*" if node == down else "allocated" for node in range(self._job.nodes))
        self._replace("nodes.txt", "".join(f"n{node} {state}\n" for node, state in enumerate(states)))

    def take_requeue(self) -> bool:
        """Has the job asked to be requeued since the last time?"""
        try:
            (self.directory / "requests" / "requeue").unlink()
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._shared_memory is not None:
            shutil.rmtree(self._shared_memory, ignore_errors=True)

    def _replace(self, name: str, text: str) -> None:
        scratch = self.directory / f".{name}"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(self.directory / name)


def _shared_memory_directory() -> Path | None:
    """A place of our own in /dev/shm for the ranks' shared segments, which outlive a kill -9."""
    parent = Path("/dev/shm")  # noqa: S108
    if not os.access(parent, os.W_OK):
        return None
    return Path(tempfile.mkdtemp(prefix="hpcresume-", dir=parent))


def _time(unix: float | None, missing: str) -> str:
    return missing if unix is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(unix))


def _job_text(job: EmulatedJob, record: JobRecord) -> str:
    """One line in the order of Slurm 22.05's `scontrol -o show job`."""
    command = Path(job.command[0]).name
    fields = {
        "JobId": job.job_id,
        "JobName": job.job_name,
        "UserId": f"user({os.getuid()})",
        "GroupId": f"group({os.getgid()})",
        "MCS_label": "N/A",
        "Priority": 1,
        "Nice": 0,
        "Account": "(null)",
        "QOS": "(null)",
        "JobState": record.state,
        "Reason": record.reason,
        "Dependency": "(null)",
        "Requeue": int(job.requeue),
        "Restarts": record.restarts,
        "BatchFlag": 1 + min(record.restarts, 1),
        "ExitCode": "0:0",
        "StartTime": _time(record.start, "Unknown"),
        "EndTime": _time(record.end, "Unknown"),
        "Deadline": "N/A",
        "PreemptEligibleTime": _time(record.start, "None"),
        "PreemptTime": _time(record.preempted_at, "None"),
        "Partition": "emulated",
        "NodeList": job.node_list,
        "BatchHost": "n0",
        "NumNodes": job.nodes,
        "NumTasks": job.ntasks,
        "Command": command,
        "WorkDir": os.getcwd(),
    }
    return " ".join(f"{key}={value}" for key, value in fields.items()) + "\n"
