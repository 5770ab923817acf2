"""The demo's verdict: any difference is found and named."""

import json
import shutil

import numpy as np
import pytest

from hpcresume.ops.demo.compare import Comparison, compare_finals, compare_traces, merge
from hpcresume.ops.demo.traces import final_ranks, read_trace
from tests.ops import training
from tests.ops.training import RANKS, STEPS


@pytest.fixture
def ours(tmp_path):
    return training.write_interrupted(tmp_path / "ours")


@pytest.fixture
def reference(tmp_path):
    return training.write_reference(tmp_path / "reference")


def judge(ours, reference, owner=training.owner) -> Comparison:
    traces = compare_traces(read_trace(ours), read_trace(reference), ranks=RANKS, steps=STEPS, owner=owner)
    return merge(traces, compare_finals(ours, reference, ranks=RANKS))


def edit_step(path, step, **fields):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (line,) = [line for line in lines[1:] if line["step"] == step]
    assert any(line[key] != value for key, value in fields.items()), "the edit must change something"
    line.update(fields)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_final(path, name, position):
    arrays = dict(np.load(path))
    arrays[name].view(np.uint8)[position] ^= 1
    np.savez(path, **arrays)


def test_an_interrupted_training_equal_to_the_reference_is_identical(ours, reference):
    verdict = judge(ours, reference)
    assert verdict.identical
    assert verdict.differences == ()
    assert (verdict.samples.seen, verdict.samples.duplicated, verdict.samples.missed) == (24, 0, 0)
    assert (verdict.losses, verdict.arrays) == (24, 6)


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("step", range(STEPS))
def test_one_bit_of_any_loss_is_found_and_named(ours, reference, rank, step):
    value = 3.0 - step / 7
    one_bit_off = np.nextafter(value, 9.0)
    path = ours / f"trace-{rank:04d}-{training.owner(step):04d}-77.jsonl"
    edit_step(path, step, loss=float(one_bit_off).hex())
    verdict = judge(ours, reference)
    assert not verdict.identical
    assert [(d.kind, d.where) for d in verdict.differences] == [("loss", f"step {step}, rank {rank}")]


def test_a_rank_s_own_loss_is_compared_too(ours, reference):
    edit_step(ours / "trace-0001-0001-77.jsonl", 4, local=(0.5).hex())
    (difference,) = judge(ours, reference).differences
    assert (difference.kind, difference.where) == ("rank's loss", "step 4, rank 1")


def test_lost_work_does_not_count(ours, reference):
    edit_step(ours / "trace-0000-0000-77.jsonl", 3, loss=(9.0).hex(), samples=[0, 0])
    assert judge(ours, reference).identical


def test_a_sample_trained_on_twice_is_a_duplicate_and_another_one_is_missed(ours, reference):
    edit_step(ours / "trace-0000-0001-77.jsonl", 5, samples=[50, 50])
    verdict = judge(ours, reference)
    assert (verdict.samples.duplicated, verdict.samples.missed) == (1, 1)
    assert [(d.kind, d.where) for d in verdict.differences] == [("samples", "step 5, rank 0")]


def test_the_order_of_samples_counts(ours, reference):
    edit_step(ours / "trace-0000-0001-77.jsonl", 5, samples=[51, 50])
    verdict = judge(ours, reference)
    assert (verdict.samples.duplicated, verdict.samples.missed) == (0, 0)
    assert not verdict.identical


def test_a_step_that_a_resume_left_out_is_missing_even_if_lost_work_has_it(ours, reference):
    training.write_trace(ours, 0, 1, range(3, STEPS))
    assert (0, 0, 2) in read_trace(ours).steps
    verdict = judge(ours, reference)
    assert verdict.samples.missed == 2
    assert [(d.kind, d.where) for d in verdict.differences] == [("step", "step 2, rank 0")]


def test_a_step_done_twice_by_one_start_is_found(ours, reference):
    path = ours / "trace-0001-0001-77.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    assert [d.ours for d in judge(ours, reference).differences] == ["recorded twice"]


def test_a_step_past_the_end_is_found(ours, reference):
    training.write_trace(ours, 0, 1, range(2, STEPS + 1))
    assert [d.where for d in judge(ours, reference).differences] == [f"step {STEPS}"]


@pytest.mark.parametrize("name", ["model/w", "optimizer/0/exp_avg", "rng/torch"])
@pytest.mark.parametrize("position", [0, 15])
def test_one_bit_of_any_final_array_is_found_and_named(ours, reference, name, position):
    edit_final(ours / "final-0001.npz", name, position)
    (difference,) = judge(ours, reference).differences
    assert difference.where == f"{name}, rank 1"
    assert difference.kind == ("random state" if name.startswith("rng/") else "final state")
    assert difference.ours.startswith(f"byte {position} =")


def test_every_byte_of_the_final_file_matters(ours, reference):
    """Damage to the file itself either is found or leaves every array as it was (names, dates, padding)."""
    path = ours / "final-0000.npz"
    whole = path.read_bytes()
    intact = {name: array.tobytes() for name, array in np.load(path).items()}
    found = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        verdict = compare_finals(ours, reference, ranks=RANKS)
        if verdict.identical or not verdict.differences:
            assert {name: array.tobytes() for name, array in np.load(path).items()} == intact
        else:
            found += 1
    assert found > len(whole) // 3


def test_a_missing_array_an_extra_one_and_another_type_are_found(ours, reference):
    arrays = dict(np.load(ours / "final-0000.npz"))
    del arrays["model/w"]
    arrays["model/extra"] = np.zeros(1)
    arrays["rng/torch"] = arrays["rng/torch"].astype(np.int8)
    np.savez(ours / "final-0000.npz", **arrays)
    found = {d.where: (d.ours, d.reference) for d in judge(ours, reference).differences}
    assert found == {
        "model/w, rank 0": ("missing", "there"),
        "model/extra, rank 0": ("there", "missing"),
        "rng/torch, rank 0": ("int8 (16,)", "uint8 (16,)"),
    }


def test_a_final_state_that_was_never_written_is_found(ours, reference):
    (ours / "final-0001.npz").unlink()
    assert final_ranks(ours) == [0]
    (difference,) = judge(ours, reference).differences
    assert (difference.kind, difference.where) == ("final state", "rank 1")
    assert "unreadable" in difference.ours


def test_negative_zero_is_not_zero(ours, reference):
    for folder, value in ((ours, -0.0), (reference, 0.0)):
        arrays = dict(np.load(folder / "final-0000.npz"))
        arrays["model/w"][0] = value
        np.savez(folder / "final-0000.npz", **arrays)
    assert len(judge(ours, reference).differences) == 1


def test_nothing_compared_is_not_identical(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert not judge(tmp_path / "a", tmp_path / "b").identical
    assert not Comparison().identical


def test_a_step_that_no_attempt_owns_is_missing(ours, reference):
    verdict = judge(ours, reference, owner=lambda step: None if step == 5 else training.owner(step))
    assert {d.where for d in verdict.differences} == {"step 5, rank 0", "step 5, rank 1"}


def test_a_trace_without_a_head_is_named(ours, reference):
    path = ours / "trace-0000-0001-77.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert judge(ours, reference).differences[0].where == path.name


def test_the_reference_is_not_compared_with_itself(ours, reference):
    """Guard of the tests above: they would all pass if both sides were read from one folder."""
    shutil.rmtree(ours)
    assert not judge(ours, reference).identical
