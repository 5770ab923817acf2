"""examples/gray_scott: the same bits on any number of ranks, interrupted or not, and no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.io.paths import RunPaths
from hpcresume.observe.history import read_history
from hpcresume.ops.resources import example_path
from hpcresume.testing.damage import flip_bit
from tests.support.launching import hpcresume, ledger
from tests.support.mpi import child_environment, mpi_environment, mpiexec

pytestmark = pytest.mark.timeout(180)

ROWS, COLUMNS = 46, 37
"""Blocks of 2, 3 and 4 ranks differ in size, and rows begin anywhere in Philox's blocks of four."""
STEPS, ITERATIONS, NOISE = 150, 8, 0.05
PAUSE = 0.02
"""Seconds a step where it is to be interrupted: a warning is answered some 20 steps later."""
PROGRAM = str(example_path("gray_scott/simulate.py"))


def command(run: Path, *options: str, steps: int = STEPS) -> list[str]:
    """The small simulation of these tests."""
    return [
        sys.executable, PROGRAM, f"--run={run}", f"--steps={steps}", f"--iterations={ITERATIONS}",
        f"--grid={ROWS}x{COLUMNS}", f"--noise={NOISE}", "--every=40 steps", *options,
    ]  # fmt: skip


def slowly(run: Path, *options: str) -> list[str]:
    """The same at a pace at which it can be interrupted."""
    python, *program = command(run, *options)
    return [python, str(Path(__file__).with_name("slowly.py")), str(PAUSE), *program]


def emulate(*words: str) -> subprocess.CompletedProcess[str]:
    """`hpcresume emulate` to its end."""
    return subprocess.run(
        hpcresume("emulate", "--grace=20s", "--kill-wait=1s", "--requeue-delay=0s", *words),
        env=mpi_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
    )  # fmt: skip


def final(run: Path) -> tuple[str, str]:
    """Digests of both fields in the newest generation."""
    newest = hr.Generations(run).newest()
    assert newest is not None
    assert newest.step == STEPS
    assert (run / "DONE").exists()
    u, v = (hr.read_tensor(newest, f"objects/{field}") for field in "uv")
    return digest(u), digest(v)


def digest(field: np.ndarray) -> str:
    """Of its bytes."""
    return hashlib.sha256(field.tobytes()).hexdigest()


def attempts(run: Path) -> list[tuple[int, int]]:
    """(world size, steps finished when it ended) of each attempt of a run."""
    history = read_history(RunPaths(run)).attempts
    claims = [ledger(run, each.attempt, "ledger.jsonl")[0] for each in history]
    return [(claim["world_size"], each.end_step) for claim, each in zip(claims, history, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A run that was never interrupted, on one rank."""
    run = tmp_path_factory.mktemp("alone") / "run"
    ended = mpiexec(1, command(run), timeout=120)
    assert ended.returncode == 0, ended.stderr
    progress = re.findall(r"^step (\d+)/150  [\d.]+% covered  [\d,]+ iterations/s  1 × 1 ranks$", ended.stdout, re.M)
    assert [int(step) for step in progress] == [*range(7, STEPS, 7), STEPS]
    return run


def undivided(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole grid in one piece, from the formulas: no blocks, no halo, no MPI, no hpcresume."""
    feed, kill = 0.0545, 0.062
    u, v = np.ones((ROWS, COLUMNS)), np.zeros((ROWS, COLUMNS))
    generator = np.random.Generator(np.random.Philox(key=np.array([0, 2**64 - 1], np.uint64)))
    y, x = np.indices((ROWS, COLUMNS))
    for place in generator.random((20, 2)):
        rows, columns = ((cells - int(part * n)) % n for cells, part, n in zip((y, x), place, v.shape, strict=True))
        inside = (np.minimum(rows, ROWS - rows) <= 2) & (np.minimum(columns, COLUMNS - columns) <= 2)
        u[inside], v[inside] = 0.5, 0.25

    def tripled(field, axis):
        return field * 4.0 + np.roll(field, 1, axis) + np.roll(field, -1, axis)

    def laplace(field):
        return (tripled(tripled(field, 1), 0) - field * 36.0) * 0.05

    for step in range(steps):
        for _ in range(ITERATIONS):
            reacted = v * v * u
            du = laplace(u) * 1.0 - reacted + (1.0 - u) * feed
            dv = laplace(v) * 0.5 + reacted - v * (feed + kill)
            u, v = u + du, v + dv
        words = np.random.Philox(key=np.array([0, step], np.uint64)).random_raw(ROWS * COLUMNS)
        v = v * (1.0 + NOISE * ((words >> 11) * 2.0**-53 - 0.5).reshape(v.shape))
    return u, v


@pytest.mark.mpi
def test_one_rank_computes_the_formulas_to_the_last_bit(alone):
    u, v = undivided(STEPS)
    assert v.std() > 0.05, "there is no pattern to compare"
    assert final(alone) == (digest(u), digest(v))


@pytest.mark.mpi
def test_four_ranks_then_two_then_three_end_with_the_bits_of_one_that_was_never_interrupted(alone, tmp_path):
    run = tmp_path / "run"
    first = emulate("-N2", "-n2", "--preempt=step:20", "--max-attempts=1", "--", *slowly(run))
    assert first.returncode == 75, first.stderr
    second = emulate("-n2", "--preempt=step:75", "--max-attempts=1", "--", *slowly(run))
    assert second.returncode == 75, second.stderr
    last = mpiexec(3, command(run), timeout=120)
    assert last.returncode == 0, last.stderr
    (four, stop), (two, next_stop), (three, end) = attempts(run)
    assert (four, two, three) == (4, 2, 3)
    assert 20 <= stop < next_stop < end == STEPS
    assert final(run) == final(alone)


@pytest.mark.mpi
def test_a_preemption_and_a_lost_node_change_nothing(alone, tmp_path):
    run = tmp_path / "run"
    timetable = ("--preempt=step:20", "--kill-node=step:75:n1")
    ended = emulate("-N2", "-n2", *timetable, "--json", "--", *slowly(run))
    assert ended.returncode == 0, ended.stderr
    causes = [attempt["state"] for attempt in json.loads(ended.stdout)["attempts"]]
    assert causes[-2:] == ["NODE_FAIL", "COMPLETED"]
    assert len(causes) == 3
    assert final(run) == final(alone)


@pytest.mark.mpi
def test_other_parameters_or_another_grid_are_refused_by_name(tmp_path):
    run = tmp_path / "run"
    stopped = emulate("-n1", "--preempt=step:20", "--max-attempts=1", "--", *slowly(run))
    assert stopped.returncode == 75, stopped.stderr
    ended = mpiexec(2, command(run, "--feed=0.03", "--seed=7"))
    assert ended.returncode != 0
    assert "the run was begun with feed=0.0545, not 0.03; seed=0, not 7" in ended.stderr
    ended = mpiexec(1, command(run, "--grid=50x37"))
    assert ended.returncode != 0
    assert f"global shape ({ROWS}, {COLUMNS})" in ended.stderr


@pytest.mark.parametrize("option", ["--grid=0x5", "--grid=5", "--seed=-1", f"--seed={2**64}", "--pattern=tartan"])
def test_a_wrong_option_ends_with_a_usage_line(option, tmp_path):
    ended = subprocess.run(
        command(tmp_path / "run", option), env=mpi_environment(), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert f"argument {option.partition('=')[0]}" in ended.stderr


@pytest.mark.mpi
def test_more_ranks_than_rows_are_refused_in_one_line(tmp_path):
    ended = mpiexec(2, command(tmp_path / "run", "--grid=1x8"))
    assert ended.returncode != 0
    assert ended.stderr.count("simulate.py: 2 × 1 ranks are too many for 1 × 8 cells") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.mpi
def test_nothing_imports_torch(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "blocked").mkdir()
    marker = tmp_path / "torch-was-imported"
    blocker = f"open({str(marker)!r}, 'w').close()\nraise ImportError('torch is blocked')\n"
    (tmp_path / "blocked" / "torch.py").write_text(blocker)
    env = child_environment()
    env = mpi_environment({"PYTHONPATH": f"{tmp_path / 'blocked'}:{env['PYTHONPATH']}"})

    picture = tmp_path / "field.png"
    ended = mpiexec(2, command(tmp_path / "run", f"--picture={picture}", steps=4), env=env)
    assert ended.returncode == 0, ended.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not marker.exists()

    control = subprocess.run([sys.executable, "-c", "import torch"], env=env, capture_output=True, timeout=60)
    assert control.returncode != 0, "torch was not blocked"
    assert marker.exists()


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    """draw.py as a module; it needs neither MPI nor its neighbours."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("gray_scott_draw", example_path("gray_scott/draw.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.mpi
def test_every_generation_can_be_drawn(alone, tmp_path):
    pytest.importorskip("matplotlib")
    generations = hr.Generations(alone).list()
    assert len(generations) == 3
    pictures = set()
    for generation in generations:
        out = tmp_path / f"{generation.step}.png"
        arguments = [str(alone), f"--step={generation.step}", f"--out={out}"]
        ended = drawing(*arguments)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{out}\n"
        pictures.add(out.read_bytes())
    assert len(pictures) == 3


@pytest.mark.mpi
def test_what_cannot_be_drawn_is_said_in_one_line(alone, tmp_path):
    pytest.importorskip("matplotlib")
    for arguments, text in (
        ([str(alone), "--step=3"], "no generation at step 3"),
        ([str(tmp_path)], "there is no run here"),
        ([str(alone), "--window=9:9,0:5", f"--out={tmp_path / 'x.png'}"], "there is no cell in the window"),
    ):
        ended = drawing(*arguments)
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"draw.py: {text}")
        assert ended.stderr.count("\n") == 1


def drawing(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python draw.py ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, str(example_path("gray_scott/draw.py")), *arguments],
        env=child_environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "pixels", "band"),
    [
        ((slice(None), slice(None)), 1024, 16 << 20),
        ((slice(None), slice(None)), 1024, 1),
        ((slice(3, 40), slice(5, None)), 10, 8 * 30 * 9),
        ((slice(90, None), slice(0, 1)), 7, 8 * 30 * 2),
        ((slice(0, 1000), slice(None)), 1, 16 << 20),
    ],
)
def test_bands_give_the_field_thinned_out(draw, tmp_path, monkeypatch, window, pixels, band):
    field = np.arange(100 * 30, dtype=np.float64).reshape(100, 30)
    generation = hr.save(tmp_path / "run", {"objects": {"v": field}}, step=1)
    monkeypatch.setattr(draw, "BAND", band)
    shown = draw.read_field(generation, "v", window, pixels)
    part = field[window]
    stride = max(1, -(-max(part.shape) // pixels))
    assert np.array_equal(shown, part[::stride, ::stride])
    assert max(shown.shape) <= pixels


def test_only_the_rows_that_are_drawn_are_read(draw, tmp_path):
    field = np.ones((2048, 512))
    generation = hr.save(tmp_path / "run", {"objects": {"v": field}}, step=1)
    (data,) = generation.path.glob("*.h5")
    assert data.stat().st_size > field.nbytes
    assert flip_bit(data, data.stat().st_size - field.nbytes // 4)
    top = draw.read_field(generation, "v", (slice(0, 100), slice(None)))
    assert np.array_equal(top, field[:100])
    with pytest.raises(hr.errors.DamagedError):
        draw.read_field(generation, "v")


def test_the_readme_names_only_options_that_there_are():
    text = example_path("gray_scott/README.md").read_text()
    known = set()
    for program in (
        [sys.executable, PROGRAM],
        [sys.executable, str(example_path("gray_scott/draw.py"))],
        hpcresume("emulate"),
    ):
        shown = subprocess.run([*program, "--help"], env=mpi_environment(), capture_output=True, text=True, timeout=60)
        assert shown.returncode == 0, shown.stderr
        known |= set(re.findall(r"--[a-z-]+", shown.stdout))
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known
    listed = set(re.findall(r"`(\w+\.py)`", text))
    assert listed == {path.name for path in example_path("gray_scott/simulate.py").parent.glob("*.py")}
