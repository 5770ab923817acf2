"""The demo for real: four ranks, three attempts, the reference, and a comparison that finds what is wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import hpcresume as hr
from hpcresume.errors import PeerFailureError
from hpcresume.ops.demo.options import DemoOptions, timetable
from hpcresume.ops.demo.reference import run_reference
from hpcresume.ops.demo.scenario import judge

STEPS = 48
RANKS = 4
SAMPLES = RANKS * 2 * 4
"""Samples a step: two micro-batches of four on each rank (examples/gpt)."""


def start(*words, cwd, env=None) -> subprocess.Popen:
    command = [sys.executable, "-m", "hpcresume", "demo", "--steps", str(STEPS), *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One demo: its exit code, its JSON object, its progress lines, and the folder that it kept."""
    folder = tmp_path_factory.mktemp("demo")
    process = start("--json", "--keep", folder / "kept", cwd=folder)
    try:
        out, err = process.communicate(timeout=500)
    finally:
        process.kill()
    found = json.loads(out)
    assert "error" not in found, err
    return process.returncode, found, err, folder / "kept"


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(600)
class TestDemo:
    def test_it_is_identical_and_says_so(self, demo):
        code, found, err, _ = demo
        assert found["differences"] == [], err
        assert (code, found["identical"]) == (0, True)

    def test_each_interruption_happened(self, demo):
        _, found, err, _ = demo
        plan = timetable(DemoOptions(steps=STEPS))
        attempts = found["attempts"]
        assert [a["cause"] for a in attempts] == ["preempted", "crash", "done"]
        assert plan.warned <= attempts[0]["end_step"] <= plan.warned + 3
        assert attempts[0]["lost_steps"] == 0
        assert attempts[1]["end_step"] >= plan.killed
        assert attempts[1]["lost_steps"] >= plan.killed - plan.every * 5
        assert attempts[2]["start_step"] + attempts[1]["lost_steps"] == attempts[1]["end_step"]
        assert attempts[2]["end_step"] == STEPS
        assert "kill -9 of rank 3" in err
        assert "one bit flipped on disk" in err

    def test_the_damaged_generation_was_skipped_for_the_bit_that_was_flipped(self, demo):
        _, found, _, _ = demo
        (skipped,) = found["skipped"]
        damage = found["damage"]
        assert (skipped["generation"], skipped["tensor"]) == (damage["generation"], damage["tensor"])
        assert skipped["offset"] <= damage["offset"]
        assert found["attempts"][2]["restored_from"] != damage["generation"]

    def test_no_sample_was_missed_or_seen_twice(self, demo):
        _, found, _, _ = demo
        assert found["samples"] == {"seen": STEPS * SAMPLES, "duplicated": 0, "missed": 0}

    def test_its_times_are_told(self, demo):
        _, found, _, _ = demo
        assert found["seconds"] > 1
        assert all(a["seconds"]["save"] > 0 for a in found["attempts"])
        assert all(a["seconds"]["verify"] > 0 and a["seconds"]["restore"] > 0 for a in found["attempts"][1:])

    def test_everything_is_kept_and_the_plot_is_there(self, demo):
        _, found, _, kept = demo
        assert Path(found["kept"]) == kept
        assert Path(found["plot"]) == kept / "hpcresume-demo.png"
        assert (kept / "hpcresume-demo.png").read_bytes().startswith(b"\x89PNG\r\n")
        assert sorted(path.name for path in (kept / "logs").iterdir()) == [f"attempt-{n:04d}.log" for n in (1, 2, 3)]
        assert {g.name for g in hr.Generations(kept / "run").list()} == set(found["generations"])

    def test_the_losses_are_those_of_the_reference_read_without_our_own_code(self, demo):
        """The last start that has a step owns it: what the traces say, with nobody's bookkeeping."""
        _, _, _, kept = demo
        for rank in range(RANKS):
            ours, reference = {}, {}
            for path in sorted((kept / "trace").glob(f"trace-{rank:04d}-*.jsonl")):
                ours.update({s["step"]: (s["loss"], s["local"], s["samples"]) for s in lines(path)})
            for path in (kept / "reference").glob(f"trace-{rank:04d}-*.jsonl"):
                reference.update({s["step"]: (s["loss"], s["local"], s["samples"]) for s in lines(path)})
            assert len(reference) == STEPS
            assert ours == reference

    @pytest.mark.parametrize("what", ["loss", "local", "samples"])
    def test_one_changed_value_in_the_real_traces_is_found(self, demo, what):
        _, found, _, kept = demo
        step = found["attempts"][2]["start_step"] + 1  # also done by attempt 2, in vain
        path = next((kept / "trace").glob("trace-0002-0002-*.jsonl"))
        with edited(path, lambda text: tampered(text, step, what)):
            comparison = judge(DemoOptions(steps=STEPS), kept)
        assert not comparison.identical
        assert [d.where for d in comparison.differences] == [f"step {step}, rank 2"]
        assert judge(DemoOptions(steps=STEPS), kept).identical

    @pytest.mark.parametrize("name", ["model/head.weight", "optimizer/3/exp_avg_sq", "rng/torch", "rng/python"])
    def test_one_changed_byte_in_the_real_final_state_is_found(self, demo, name):
        _, _, _, kept = demo
        path = kept / "trace" / "final-0003.npz"
        whole = path.read_bytes()
        with np.load(path) as archive:
            arrays = dict(archive)
        data = bytearray(arrays[name].tobytes())
        data[-1] ^= 1
        arrays[name] = np.frombuffer(bytes(data), arrays[name].dtype).reshape(arrays[name].shape)
        np.savez(path, **arrays)
        try:
            comparison = judge(DemoOptions(steps=STEPS), kept)
        finally:
            path.write_bytes(whole)
        assert [d.where for d in comparison.differences] == [f"{name}, rank 3"]

    def test_a_changed_line_of_the_logged_curve_is_found(self, demo):
        _, _, _, kept = demo
        path = kept / "run" / "attempts" / "0003" / "metrics.jsonl"
        with edited(path, lambda text: text.replace('"loss":', '"loss":1', 1)):
            comparison = judge(DemoOptions(steps=STEPS), kept)
        assert [d.kind for d in comparison.differences] == ["logged loss"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


@contextlib.contextmanager
def edited(path, change):
    whole = path.read_text()
    assert change(whole) != whole, "the edit must change something"
    path.write_text(change(whole))
    try:
        yield
    finally:
        path.write_text(whole)


def tampered(text, step, what):
    out = []
    for line in text.splitlines():
        fields = json.loads(line)
        if fields.get("step") == step:
            fields[what] = fields[what][::-1] if what == "samples" else (float.fromhex(fields[what]) * 2).hex()
        out.append(json.dumps(fields) + "\n")
    return "".join(out)


def descendants(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_folder(tmp_path, number):
    temporary = Path(tempfile.mkdtemp(prefix="d", dir="/tmp"))  # short: MPI makes sockets in it, sun_path has 108 bytes
    process = start(cwd=tmp_path, env={**os.environ, "TMPDIR": str(temporary)})
    ranks = []
    try:
        until = time.monotonic() + 120
        while len(ranks) < RANKS and time.monotonic() < until:
            time.sleep(0.1)
            ranks = [p for p in descendants(process) if "train.py" in " ".join(cmdline(p)) and named_python(p)]
        assert len(ranks) >= RANKS, "the ranks must have started"
        met = descendants(process)
        assert any(temporary.iterdir()), "the demo's folder must lie here"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    gone, alive = psutil.wait_procs(met, timeout=20)
    assert alive == []
    assert len(gone) >= RANKS
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


def cmdline(process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def named_python(process) -> bool:
    words = cmdline(process)
    return bool(words) and os.path.basename(words[0]).startswith("python") and words[1].endswith("train.py")


@pytest.mark.mpi
def test_a_reference_that_fails_is_an_error_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise ValueError('no such thing as luck')"]
    with pytest.raises(PeerFailureError, match="no such thing as luck") as caught:
        run_reference(command, ranks=2, folder=tmp_path / "reference", show=lambda step, loss: None)
    assert caught.value.where == str(tmp_path / "reference" / "log")


@pytest.mark.mpi
def test_the_reference_sees_no_variable_of_an_outer_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    monkeypatch.setenv("HPCRESUME_LAUNCH_DIR", "/nowhere")
    code = f"import os; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').write(' '.join(os.environ))"
    run_reference([sys.executable, "-c", code], ranks=1, folder=tmp_path / "reference", show=lambda step, loss: None)
    (written,) = [path.read_text() for path in tmp_path.iterdir() if path.is_file()]
    assert "PATH" in written
    assert "SLURM_RESTART_COUNT" not in written
    assert "HPCRESUME_LAUNCH_DIR" not in written
