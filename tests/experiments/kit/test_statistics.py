from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from experiments.kit.statistics import mean_interval, paired_difference

RNG = np.random.default_rng(1)


def naive(outcomes, draws=20_000):
    """The same bootstrap, one draw at a time."""
    seeds, puzzles = outcomes.shape
    rng = np.random.default_rng(2)
    return [outcomes[np.ix_(rng.integers(seeds, size=seeds), rng.integers(puzzles, size=puzzles))].mean()
            for _ in range(draws)]


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_agrees_with_one_draw_at_a_time(seeds):
    outcomes = (RNG.random((seeds, 60)) < 0.7).astype(float)
    low, high = np.quantile(naive(outcomes), [0.025, 0.975])
    interval = mean_interval(outcomes, draws=200_000)
    assert interval.mean == pytest.approx(outcomes.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)


def test_a_paired_difference_knows_its_pairs():
    theirs = (RNG.random((1, 200)) < 0.5).astype(float)
    ours = theirs.copy()
    ours[0, np.flatnonzero(theirs[0] == 0)[:20]] = 1
    paired = paired_difference(ours, theirs, draws=100_000)
    assert paired.mean == pytest.approx(0.1) and paired.low > 0.05 and paired.p < 0.001
    assert paired.high - paired.low < mean_interval(ours).high - mean_interval(ours).low


def test_no_difference_is_not_significant():
    same = (RNG.random((2, 50)) < 0.5).astype(float)
    assert paired_difference(same, same, draws=1000).p == 1.0
    other = same[:, ::-1]
    assert paired_difference(same, other, draws=10_000).p == pytest.approx(1.0, abs=0.2)


def test_coverage():
    """About 95 of 100 intervals hold the true rate."""
    held = sum(i.low <= 0.7 <= i.high for i in (
        mean_interval((np.random.default_rng(s).random((1, 100)) < 0.7).astype(float), draws=4000, seed=s)
        for s in range(200)))
    assert 176 <= held <= 199


def test_seeds_widen_the_interval():
    outcomes = np.vstack([np.ones((1, 50)), np.zeros((1, 50))])
    assert mean_interval(outcomes, draws=10_000).low == 0 and mean_interval(outcomes, draws=10_000).high == 1


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.zeros((1, 3)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="not empty"):
        mean_interval(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="finite"):
        mean_interval(np.array([[np.nan]]))


def test_many_seeds_take_bounded_memory_and_agree_with_the_exact_way(monkeypatch):
    outcomes = np.random.default_rng(0).integers(0, 2, (6, 40))
    exact = mean_interval(outcomes, draws=40_000)
    monkeypatch.setattr("experiments.kit.statistics.PICKS", 1)
    drawn = mean_interval(outcomes, draws=40_000)
    assert exact.mean == drawn.mean and abs(exact.low - drawn.low) < 0.02 and abs(exact.high - drawn.high) < 0.02
    tracemalloc.start()
    mean_interval(np.random.default_rng(0).integers(0, 2, (40, 100)), draws=60_000)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()
