"""Stand-ins for Slurm's commands, as small programs on PATH that write down how they were called."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tests.submit.scripts import stand_in

__all__ = ["PARTITION", "FakeSlurm"]

PARTITION = (
    "PartitionName=low AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
    "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO MaxNodes=UNLIMITED "
    "MaxTime=1-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-4] PriorityJobFactor=1 PriorityTier=1 "
    "RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=8 TotalNodes=4 "
    "SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED\n"
)
"""As 22.05 prints it with --oneliner."""


class FakeSlurm:
    """A folder for PATH; each command says and does what it is told, and its calls are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.answers("sbatch", "4711")
        self.answers("squeue", "")
        self.answers("scontrol", PARTITION)
        stand_in(self.bin, "hpcresume", "#!/bin/sh\n")
        (self.bin / "python").symlink_to(sys.executable)

    def answers(self, name: str, out: str, *, err: str = "", code: int = 0, sleep: float = 0.0) -> None:
        """What a command prints and how it ends."""
        stand_in(self.bin, name, f"""#!/bin/bash
printf '%s\\0' "$@" >> {shlex.quote(str(self.folder / name))}
printf '\\n\\0' >> {shlex.quote(str(self.folder / name))}
[[ $0 == *sbatch ]] && env -0 > {shlex.quote(str(self.folder / "environment"))}
sleep {sleep}
printf '%s' {shlex.quote(out)}
printf '%s' {shlex.quote(err)} >&2
exit {code}
""")  # fmt: skip

    def removes(self, name: str) -> None:
        """The command is not there."""
        (self.bin / name).unlink()

    def calls(self, name: str) -> list[list[str]]:
        """Arguments of every call so far."""
        path = self.folder / name
        text = path.read_text() if path.exists() else ""
        return [call.split("\0")[:-1] for call in text.split("\n\0")[:-1]]

    @property
    def path(self) -> str:
        """A PATH with these commands and those of the system that are not Slurm's."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("bash", "env", "sleep", "printf"):
            if not (tools / name).exists():
                found = next(p for d in os.environ["PATH"].split(":") if (p := Path(d, name)).exists())
                (tools / name).symlink_to(found)
        return f"{self.bin}:{tools}"
