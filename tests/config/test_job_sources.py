"""File, then environment, then command line: the later wins, and it is said who did."""

from __future__ import annotations

import pytest

from hpcresume.config.job import read_job
from hpcresume.config.job_leaves import leaves
from hpcresume.config.job_sources import variable_of
from tests.config.test_job_yaml import problems

FILE = (
    "name: a\ncommand: python train.py\nresources: {nodes: 2, partition: low}\nenvironment: {variables: {A: x, B: y}}\n"
)


def setting(key, **more):
    (found,) = [each for each in read_job(FILE, **more).settings if each.key == key]
    return found


def test_the_later_source_wins_and_says_what_it_won_over():
    environ = {"HPCRESUME_JOB_RESOURCES_NODES": "3", "HPCRESUME_TRACEBACK": "1", "PATH": "/bin"}
    assert setting("resources.nodes").source == "job.yaml:3:13"
    with_environ = setting("resources.nodes", environ=environ)
    assert (with_environ.value, with_environ.source) == (3, "$HPCRESUME_JOB_RESOURCES_NODES")
    with_all = setting("resources.nodes", environ=environ, sets=["resources.nodes=4", "resources.nodes=5"])
    assert (with_all.value, with_all.source) == (5, "--set resources.nodes")
    assert with_all.overrode == (("job.yaml:3:13", 2), ("$HPCRESUME_JOB_RESOURCES_NODES", 3))
    assert read_job(FILE, environ=environ, sets=["resources.nodes=5"]).spec.resources.nodes == 5
    assert setting("resources.time").source == "default"


def test_every_key_is_in_the_explanation():
    explained = {each.key.removesuffix(".A").removesuffix(".B") for each in read_job(FILE).settings}
    assert explained == set(leaves()) - {"kwargs"}


def test_every_key_has_one_variable_of_its_own():
    names = [variable_of(path) for path in leaves()]
    assert len(set(names)) == len(names)
    assert "HPCRESUME_JOB_RESOURCES_NTASKS_PER_NODE" in names


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("resources.partition=123", "resources.partition", "123"),
        ("resources.partition=no", "resources.partition", "no"),
        ("resources.partition=", "resources.partition", None),
        ("name=x=y #z", "name", "x=y #z"),
        ("resources.exclusive=true", "resources.exclusive", True),
        ("command=python b.py --x='a b'", "command", "python b.py --x='a b'"),
        ("command=[python, 'a b']", "command", ["python", "a b"]),
        ("environment.modules=[a, b]", "environment.modules", ["a", "b"]),
        ("environment.variables.A=$(x)", "environment.variables.A", "$(x)"),
        ("environment.variables.NEW=[not, a, list]", "environment.variables.NEW", "[not, a, list]"),
        ("resources.gpus_per_node=4", "resources.gpus_per_node", 4),
        ("resources.gpus_per_node=a100:4", "resources.gpus_per_node", "a100:4"),
    ],
)
def test_settings_on_the_command_line_are_text_or_yaml_as_the_key_wants(text, key, value):
    assert setting(key, sets=[text]).value == value


def test_one_entry_of_a_mapping_can_be_set_and_the_others_stay():
    spec = read_job(FILE, sets=["environment.variables.A=z"]).spec
    assert spec.environment.variables == {"A": "z", "B": "y"}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["resources.nods=4"], "--set resources.nods: resources.nods: unknown key (try: nodes)"),
        (["resources.nodes"], "--set resources.nodes: no value (try: --set resources.nodes=4)"),
        (["nodes=4"], "--set nodes: nodes: unknown key (try: resources.nodes)"),
        (["resources=4"], "--set resources: resources: unknown key"),
        (["resources.nodes=four"], "--set resources.nodes: resources.nodes: expected a whole number, got text"),
        (["resources.nodes=[1"], "--set resources.nodes: resources.nodes: no YAML: expected ',' or ']'"),
        (["name=a\nb"], "--set name: name: holds the control character U+000A"),
        (["name=\udcff"], "--set name: name: is no valid UTF-8"),
        (["environment.variables.1=4"], "--set environment.variables.1: environment.variables.1: unknown key"),
        (["args=!!python/object:x 1"], "--set args: args: the tag"),
        (["stages=[a]"], "--set stages: stages: stages stand in a job file"),
    ],
)
def test_a_wrong_setting_is_named(sets, said):
    (found,) = problems(FILE, sets=sets)
    assert found.startswith(said)


def test_a_variable_that_belongs_to_no_key_is_named_with_the_nearest_one():
    (found,) = problems(FILE, environ={"HPCRESUME_JOB_RESOURCE_NODES": "4"})
    assert found == "$HPCRESUME_JOB_RESOURCE_NODES: belongs to no key (try: HPCRESUME_JOB_RESOURCES_NODES)"
