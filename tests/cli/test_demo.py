"""`hpcresume demo` as a command: its exit code and its output follow the verdict (the runs are in tests/ops)."""

import json
from dataclasses import replace

import pytest

from hpcresume.ops.demo import scenario
from hpcresume.ops.demo.compare import Difference
from tests.ops.test_demo_verdict import REPORT

OTHER = replace(
    REPORT,
    comparison=replace(REPORT.comparison, differences=(Difference("loss", "step 7, rank 2", "a", "b"),)),
)


@pytest.fixture
def demo(cli, monkeypatch, tmp_path):
    """Call the verb with a training that ends in the report given."""

    def call(report, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(scenario, "run_demo", lambda options, view: report)
        monkeypatch.setattr("signal.signal", lambda number, handler: None)
        return cli("demo", *words)

    return call


@pytest.mark.parametrize(("report", "code"), [(REPORT, 0), (OTHER, 1)])
def test_the_exit_code_is_the_verdict(demo, report, code):
    assert demo(report)[0] == code
    found, out, _ = demo(report, "--json")
    assert found == code
    assert json.loads(out)["identical"] is (code == 0)


def test_it_ends_with_the_table_and_the_verdict(demo):
    _, out, _ = demo(REPORT)
    assert [line.split()[1] for line in out.splitlines()[2:5]] == ["preempted", "crash", "done"]
    assert out.splitlines()[-1].startswith("IDENTICAL")


def test_what_differs_is_named(demo):
    _, out, _ = demo(OTHER)
    assert "DIFFERS:  loss differs at step 7, rank 2: a instead of b" in out
    assert out.splitlines()[-1] == "NOT IDENTICAL: 1 difference(s)"


def test_every_key_of_the_object_is_in_the_help(demo, cli):
    _, out, _ = demo(REPORT, "--json")
    words = cli("demo", "--help")[1].replace("\n", " ")
    for key in json.loads(out):
        assert key in words


def test_a_bad_option_is_refused_before_anything_runs(demo):
    code, out, err = demo(REPORT, "--ranks", "3")
    assert (code, out) == (78, "")
    assert "--nodes" in err
