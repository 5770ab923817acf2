"""The JSON schema is the one of the types, and says of a file's shape what hpcresume says."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from hpcresume.config.job import read_job
from hpcresume.config.job_leaves import leaves
from hpcresume.config.job_schema import SCHEMA_FILE, job_schema, schema_text
from hpcresume.errors import ConfigError
from tests.config.test_job_yaml import mistakes

ONLY_OURS = (
    "given twice", "the tag", "no YAML", "neither a", "and a function", "no shell runs it", "cannot be split",
    "is empty", "is not for here", "exclude each other", "is not shorter", "bash lets nobody", "is for torchrun",
    "torchrun's agent", "torchrun starts", "hides Slurm", "is for commands", "has no unit", "no duration",
    "neither a time", "is no rhythm", "makes do with less", "is longer than resources.time",
    "not the absence of a limit", "is a folder's name", "is no bind", "another bind", ">- instead of >",
    "environment.variables.", "all tasks of the array",
    "there is no stage", "wait for itself", "a circle", "is too like", "a run has a folder",
    "an array cannot be a stage",
)  # fmt: skip
"""What holds between values, grammars, and YAML itself: no schema can say it."""

GOOD = [
    "name: a\ncommand: x\n",
    "name: a\ncommand: [x, y]\nresources:\nenvironment: {modules: , variables: {A: 1, B: true, C: x, D: 1.5}}\n",
    "name: a\nfunction: a.b:c\nargs: [1, {x: [2]}]\nkwargs: {lr: 0.1}\n",
    "name: a b\ncommand: x\nresources: {gpus_per_node: 4, gpus_per_task: 'a100:1', mem: '0', array: 0-9:2%3}\n",
    "name: a\nresources: {nodes: 2}\nstages:\n  b: {command: x}\n  c: {after: b, command: y, resources:}\n",
    "name: ünï\ncommand: x\ncontainer: {image: a.sif, binds: [/a], options: [--nv]}\nrequeue: {enabled: false}\n",
]


def accepts(text: str) -> bool:
    """Does the schema take this file?"""
    validator = jsonschema.Draft202012Validator(job_schema())
    return validator.is_valid(yaml.safe_load(text))


def test_the_shipped_schema_is_up_to_date():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run: python tools/write_generated.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("text", GOOD)
def test_both_take_what_is_right(text):
    read_job(text)
    assert accepts(text)


@pytest.mark.parametrize(
    ("text", "said"), mistakes(), ids=lambda value: value[0][:60] if isinstance(value, list) else ""
)
def test_both_refuse_a_wrong_shape(text, said):
    with pytest.raises(ConfigError):
        read_job(text)
    if not all(any(words in line for words in ONLY_OURS) for line in said):
        assert not accepts(text)


def test_every_key_has_a_description_for_editors():
    assert [path for path, leaf in leaves().items() if not leaf.description] == []
