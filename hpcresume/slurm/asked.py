"""What a job asked for, as Slurm itself has it: also what was said on sbatch's command line and stands in no script.

Everything is asked of squeue, between marks that are drawn anew for each question, so that no text of a user can pose
as another field.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcresume.slurm.commands import Execute, Sleep, check_job_id, execute, patiently

__all__ = ["Asked", "asked_for"]

TIMEOUT = 20.0
"""Seconds for one squeue."""
_FIELDS = {
    "constraint": "%f", "exclude": "%x", "nodelist": "%n", "licenses": "%W", "tmp": "%d", "nice": "%y", "wckey": "%w",
    "gres": "%b", "reservation": "%v", "oversubscribe": "%h", "time": "%l", "comment": "%k",
}  # fmt: skip
"""Our name → squeue's (squeue(1), --format), the same in 22.05 and 24.11."""
_NONE = frozenset({"", "(null)", "N/A", "none", "NOT_SET", "INVALID"})
_GRES = re.compile(r"(?:^|,)gres[:/]")
_SHARED = {"NO": "--exclusive", "USER": "--exclusive=user", "MCS": "--exclusive=mcs", "YES": "--oversubscribe"}


@dataclass(frozen=True)
class Asked:
    """What was asked for; "" for what was not, or is not known.

    Attributes:
        known: sbatch's long option → its value.
        plain: further options, as they are.
        time: the time limit, as squeue and sbatch write it.
        comment: the job's comment.
    """

    known: Mapping[str, str] = field(default_factory=dict)
    plain: tuple[str, ...] = ()
    time: str = ""
    comment: str = ""


def asked_for(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep) -> Asked:
    """What Slurm says that a job asked for; nothing when it cannot be asked. Never raises for Slurm's words.

    Raises:
        SlurmError: `job_id` is none.
    """
    check_job_id(job_id)
    mark = f"~{secrets.token_hex(8)}~"
    form = mark + mark.join(_FIELDS.values()) + mark
    words = ["squeue", "--noheader", "--states=all", f"--format={form}", f"--jobs={job_id}"]
    answer = patiently(words, timeout, execute, sleep)
    parts = answer.out.split(mark) if answer.code == 0 else []
    if len(parts) != len(_FIELDS) + 2:
        return Asked()
    values = dict(zip(_FIELDS, (part.strip() for part in parts[1:-1]), strict=True))
    values = {name: text for name, text in values.items() if text not in _NONE and text.isprintable()}
    return _asked(values)


def _asked(values: dict[str, str]) -> Asked:
    limit, comment = values.pop("time", ""), values.pop("comment", "")
    shared = _SHARED.get(values.pop("oversubscribe", ""))
    if "gres" in values:  # gres:gpu:2 on 22.05, gres/gpu:2 on 24.11
        values["gres"] = _GRES.sub(lambda match: "," if match[0].startswith(",") else "", values["gres"])
    if not values.get("nice", "").isdecimal() or values["nice"] == "0":
        values.pop("nice", None)  # a negative one is not the user's
    if values.get("tmp", "0").startswith("0"):
        values.pop("tmp", None)
    if values.get("wckey", "").startswith("*"):  # the user's default
        values.pop("wckey")
    return Asked(values, (shared,) if shared else (), limit, comment)
