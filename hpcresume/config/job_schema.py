"""The JSON schema of job.yaml, made from the types, for editors; `hpcresume render --schema` prints it.

It knows the shape of every value; what must hold between values is checked by hpcresume alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.job_spec import JobSpec

__all__ = ["SCHEMA_FILE", "job_schema", "schema_text"]

SCHEMA_FILE = Path(__file__).with_name("job.schema.json")
"""As it is shipped; a test holds it against the types."""


def job_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12)."""
    _, definitions = msgspec.json.schema_components([JobSpec], ref_template="#/$defs/{name}")
    # Numbers and truth values are taken as they are written; a key with nothing behind it counts as absent.
    definitions["Environment"]["properties"]["variables"]["additionalProperties"] = {
        "anyOf": [definitions["Environment"]["properties"]["variables"]["additionalProperties"],
                  {"type": ["number", "boolean"]}]
    }  # fmt: skip
    for part in definitions.values():
        part["properties"] = {name: _or_nothing(each) for name, each in part["properties"].items()}
    root = definitions.pop("JobSpec")
    definitions["Stage"] = _stage(root)
    root["properties"]["stages"] = {
        "description": "Several jobs, each with keys of its own, that wait for each other (docs/STAGES.md).",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}$"},
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/Stage"}, {"type": "null"}]},
        "minProperties": 1,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "hpcresume job.yaml",
        "description": "One job for `hpcresume render` and `hpcresume submit`.",
        "$defs": definitions,
    }


def _stage(root: dict[str, Any]) -> dict[str, Any]:
    """A stage: what a job has, but what all stages share, and what it waits for."""
    own = {
        key: part
        for key, part in root["properties"].items()
        if key not in ("name", "run", "function", "args", "kwargs")
    }
    name = {"type": "string"}
    own["after"] = {
        "description": "Stages that must be done before this one begins.",
        "anyOf": [name, {"type": "array", "items": name, "uniqueItems": True}, {"type": "null"}],
    }
    return {
        "title": "Stage",
        "description": "A stage: any key of the job that is otherwise for it, and what it waits for.",
        "type": "object",
        "properties": own,
        "required": [],
        "additionalProperties": False,
    }


def _or_nothing(part: dict[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    if any(each.get("type") == "null" for each in part.get("anyOf", ())):
        return part
    outer: dict[str, Any] = {key: part.pop(key) for key in ("description", "default") if key in part}
    return {**outer, "anyOf": [part, {"type": "null"}]}


def schema_text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(job_schema(), indent=1, ensure_ascii=True) + "\n"
