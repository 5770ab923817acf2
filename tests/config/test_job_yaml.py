"""job.yaml as people write it: what it means, and what is said of mistakes, with line and column, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.config.job import load_job, read_job
from hpcresume.config.job_leaves import leaves
from hpcresume.errors import ConfigError

GOOD = "name: a\ncommand: python train.py\n"


def problems(text: str, **more) -> list[str]:
    """What is said, one line a problem: `where: key: what (try: hint)`."""
    with pytest.raises(ConfigError) as caught:
        read_job(text, **more)
    error = caught.value
    if " problems in the job\n" not in error.what:
        return [f"{error.where}: {error.what}" + (f" (try: {error.hint})" if error.hint else "")]
    first, *lines = error.what.split("\n")
    assert first == f"{len(lines)} problems in the job"
    return [line.removeprefix("  ") for line in lines]


def test_a_whole_file():
    spec = read_job(
        """\
name: gpt-small
run: runs/gpt small
command: python train.py --name "a b" --lr 3e-4
log: logs/%x-%j.out
resources: &ask
  nodes: 2
  ntasks_per_node: 4
  time: 04:00:00
  gpus_per_node: a100:4
  mem: 64G
  options: [--mail-type=END, --licenses=matlab:1]
checkpoint: {every: 20min, keep: 5, verify: sample, write_path: posix}
requeue: {max_restarts: 20, warning_lead: 2min, warning_signal: USR2}
environment:
  modules: [cuda/12.4]
  venv: venv
  variables: {OMP_NUM_THREADS: 8, RATE: 1.10, NORWAY: no, YES: true, EMPTY: "", TEXT: '$(x)'}
  before_commands:
    - ulimit -n 4096
    - |
      if true; then
        echo yes
      fi
"""
    ).spec
    assert spec.words == ("python", "train.py", "--name", "a b", "--lr", "3e-4")
    assert (spec.resources.nodes, spec.resources.time, spec.resources.mem) == (2, "04:00:00", "64G")
    assert spec.resources.options == ("--mail-type=END", "--licenses=matlab:1")
    assert spec.environment.variables == {
        "OMP_NUM_THREADS": "8", "RATE": "1.10", "NORWAY": "no", "YES": "true", "EMPTY": "", "TEXT": "$(x)",
    }  # fmt: skip
    assert spec.environment.before_commands[1] == "if true; then\n  echo yes\nfi\n"
    assert (spec.requeue.max_restarts, spec.requeue.max_crashes, spec.requeue.enabled) == (20, 3, True)
    assert (spec.checkpoint.keep, spec.container) == (5, None)


def test_the_run_directory_has_the_job_s_name_by_default():
    assert read_job(GOOD).spec.run_directory == "runs/a"
    assert read_job(GOOD + "run: /data/b").spec.run_directory == "/data/b"


def test_sections_with_nothing_in_them_are_as_if_they_were_not_there():
    spec = read_job(GOOD + "resources:\nenvironment:\n  modules:\n  variables:\n").spec
    assert spec == read_job(GOOD).spec


def test_anchors_and_merge_keys_work():
    text = GOOD + "resources: &r {nodes: 3}\nenvironment:\n  variables: {A: &x one, B: *x}\n"
    spec = read_job(text).spec
    assert (spec.resources.nodes, spec.environment.variables) == (3, {"A": "one", "B": "one"})
    merged = "name: a\ncommand: [x]\nrequeue: &q {max_crashes: 7}\ncheckpoint: {every: auto}\n"
    assert read_job(merged).spec.requeue.max_crashes == 7
    with_merge = "name: a\ncommand: [x]\nenvironment:\n  variables:\n    <<: {A: '1', B: '2'}\n    B: '3'\n"
    assert read_job(with_merge).spec.environment.variables == {"A": "1", "B": "3"}


def mistakes() -> list[tuple[str, list[str]]]:
    """The blocks of mistakes.txt: `| ` lines are a file, the others what is said of it."""
    found = []
    for block in Path(__file__).with_name("mistakes.txt").read_text().strip().split("\n\n"):
        lines = block.split("\n")
        text = "".join(f"{line[2:]}\n" for line in lines if line.startswith("| "))
        found.append((text, [line for line in lines if not line.startswith("| ")]))
    assert len(found) > 40
    return found


@pytest.mark.parametrize(
    ("text", "said"), mistakes(), ids=lambda value: value[0][:70] if isinstance(value, list) else ""
)
def test_a_mistake_is_named_with_its_place_and_what_to_try(text, said):
    assert problems(text) == said


def test_a_nul_is_named_with_its_place():
    assert problems("name: a\x00b\n") == ["job.yaml:1:8: name: a character that YAML does not allow, U+0000"]


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file():
    text = (
        GOOD + "starter: sruun\nresources: {nodes: x, nods: 1}\nstages: 1\nlog: !a b\ncheckpoint: {keep: 0, keep: 1}\n"
    )
    lines = [int(re.match(r"job.yaml:(\d+):", line)[1]) for line in problems(text)]
    assert lines == [3, 4, 4, 5, 6, 7, 7]


def test_an_alias_bomb_ends_as_one_problem_at_once():
    levels = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    assert any("too much of it by aliases" in each for each in problems(GOOD + "\n".join(levels)))
    assert any("nested too deeply" in each for each in problems(GOOD + "args: &a [*a]\n"))
    assert "nested" in problems("name: " + "[" * 5000)[0]


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*hpcresume init"):
        load_job(tmp_path / "job.yaml")
    (tmp_path / "latin").write_bytes(b"name: a\nlog: \xe9\n")
    with pytest.raises(ConfigError, match=r"no UTF-8 .*latin:2"):
        load_job(tmp_path / "latin")
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_job(tmp_path / "bom").spec.name == "a"


STAGES = """\
name: gpt
resources: {time: 4h, partition: gpu}
environment: {variables: {A: top, B: top}}
stages:
  evaluate: {after: [train, prepare], command: python evaluate.py}
  train:
    after: prepare
    command: python train.py
    resources: {nodes: 4}
    environment: {variables: {B: train}}
  prepare: {command: python prepare.py, resources: {time: 10min}}
"""


def test_stages_are_jobs_of_their_own_below_what_the_file_says_for_all():
    job = read_job(STAGES)
    assert [(each.name, each.after) for each in job.stages] == [
        ("prepare", ()), ("train", ("prepare",)), ("evaluate", ("train", "prepare"))
    ]  # fmt: skip
    prepare, train, evaluate = (each.spec for each in job.stages)
    assert [s.name for s in (prepare, train, evaluate)] == ["gpt-prepare", "gpt-train", "gpt-evaluate"]
    assert [s.run_directory for s in (prepare, train)] == ["runs/gpt/prepare", "runs/gpt/train"]
    assert [s.resources.time for s in (prepare, train, evaluate)] == ["10min", "4h", "4h"]
    assert [s.resources.nodes for s in (prepare, train, evaluate)] == [1, 4, 1]
    assert train.environment.variables == {"A": "top", "B": "train"}
    assert evaluate.resources.partition == "gpu"


def test_variables_and_options_win_over_all_stages_and_an_option_for_one_stage_over_them():
    job = read_job(STAGES, environ={"HPCRESUME_JOB_RESOURCES_NODES": "2"}, sets=["stages.train.resources.nodes=8"])
    assert [each.spec.resources.nodes for each in job.stages] == [2, 8, 2]
    said = {each.key: each for each in job.settings}
    found = said["stages.train.resources.nodes"]
    assert (found.source, [value for _, value in found.overrode]) == ("--set stages.train.resources.nodes", [4, 2])


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("stages.trian.log=x", "--set stages.trian.log: stages.trian: there is no stage 'trian' (try: train)"),
        ("stages.train.resources.nods=2",
         "--set stages.train.resources.nods: stages.train.resources.nods: unknown key (try: nodes)"),
        ("stages.train.starter=sruun",
         "--set stages.train.starter: stages.train.starter: 'sruun' is none of srun, torchrun, mpiexec (try: srun)"),
    ],
)  # fmt: skip
def test_a_wrong_option_for_one_stage_is_named(assignment, said):
    assert problems(STAGES, sets=[assignment]) == [said]


@pytest.mark.parametrize("sizes", [(3, 1), (2, 2, 2), (1, 5, 1)])
def test_a_graph_comes_in_an_order_in_which_each_stage_stands_behind_those_that_it_waits_for(sizes):
    layers = [[f"s{i}x{j}" for j in range(size)] for i, size in enumerate(sizes)]
    lines = [f"  {name}: {{command: x, after: [{', '.join(layers[i - 1]) if i else ''}]}}"
             for i, layer in enumerate(layers) for name in layer]  # fmt: skip
    for order in (lines, lines[::-1]):
        stages = read_job("name: a\nstages:\n" + "\n".join(order)).stages
        places = {each.name: index for index, each in enumerate(stages)}
        assert len(places) == sum(sizes)
        assert all(places[other] < places[each.name] for each in stages for other in each.after)


KEYS = st.sampled_from([path.rpartition(".")[2] for path in leaves()])
SCALARS = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.floats(), st.just("&a *a"))
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.dictionaries(KEYS, TREES).map(repr))
def test_no_text_ends_in_anything_but_a_job_or_a_config_error(text):
    try:
        read_job(text)
    except ConfigError as error:
        assert error.what
