"""The order of samples is a documented formula, and a shuffle."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.samples import SampleOrder, epoch_order, sample_seed


@given(st.integers(1, 200), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_the_order_is_the_documented_formula_and_holds_every_item_once(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    formula = np.argsort(np.random.Philox(key=[np.uint64(seed), np.uint64(epoch)]).random_raw(n), kind="stable")
    assert order.tolist() == formula.tolist()
    assert sorted(order.tolist()) == list(range(n))


def test_the_order_never_changes_between_versions():
    """These numbers are part of the format: a run resumed with a newer version goes on in the same order."""
    assert epoch_order(10, 3, 7).tolist() == [5, 0, 6, 9, 8, 7, 4, 2, 3, 1]
    assert sample_seed(3, 7) == int.from_bytes(hashlib.blake2b(b"3:7", digest_size=8).digest(), "little")


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_stream_runs_through_the_epochs_whatever_is_asked_first(shuffle):
    order = SampleOrder(7, 1, shuffle=shuffle)
    expected = []
    for epoch in range(4):
        expected += epoch_order(7, 1, epoch).tolist() if shuffle else list(range(7))
    assert [item for _, item in order.items(0, 28)] == expected
    assert [order.item(k) for k in reversed(range(28))] == expected[::-1]
    assert [number for number, _ in order.items(5, 4)] == [5, 6, 7, 8]


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400
