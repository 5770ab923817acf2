"""The table of all keys of job.yaml, for docs/JOB_YAML.md."""

from __future__ import annotations

import json

import msgspec

from hpcresume.config.job_leaves import leaves

__all__ = ["reference"]


def reference() -> str:
    """One row a key, in Markdown."""
    rows = ["| key | default | |", "| --- | --- | --- |"]
    for path, leaf in leaves().items():
        default = msgspec.to_builtins(leaf.default)
        shown = (
            "" if default in (None, [], {}, ()) else f"`{default if isinstance(default, str) else json.dumps(default)}`"
        )
        rows.append(f"| `{path}` | {shown} | {leaf.description.replace('|', chr(92) + '|')} |")
    rows.append("| `stages.NAME` |  | A stage: any key above but name and run, for this stage alone (STAGES.md). |")
    rows.append("| `stages.NAME.after` |  | Stages that must be done before this one begins. |")
    return "\n".join(rows) + "\n"
