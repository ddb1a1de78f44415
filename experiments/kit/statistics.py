"""Intervals over tasks and seeds: a paired bootstrap that resamples both, exactly and fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, prod

import numpy as np

DRAWS = 1_000_000
"""Bootstrap draws (the paper's b)."""
PICKS = 2000
"""Ways to resample the seeds that are gone through one by one; where there are more, each draw picks its own."""
AT_ONCE = 2_000_000
"""Numbers that are held at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % percentile interval; `p` tests a difference against 0."""

    mean: float
    low: float
    high: float
    p: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)


def mean_interval(outcomes: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of the mean of `outcomes` [seeds, tasks]; both axes are resampled."""
    outcomes = _checked(outcomes)
    means = _bootstrap(outcomes, draws, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(outcomes.mean()), float(low), float(high))


def paired_difference(ours: np.ndarray, theirs: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of mean(ours) - mean(theirs) over the same tasks: one resampled index serves both sides.

    Both are [seeds, tasks], of equal shape. `p` is two-sided.
    """
    ours, theirs = _checked(ours), _checked(theirs)
    if ours.shape != theirs.shape:
        raise ValueError(f"outcomes of shapes {ours.shape} and {theirs.shape} cannot be paired")
    difference = ours - theirs
    means = _bootstrap(difference, draws, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    p = min(1.0, 2 * min(float((means <= 0).mean()), float((means >= 0).mean())))
    return Interval(float(difference.mean()), float(low), float(high), max(p, 1 / draws))


def _checked(outcomes: np.ndarray) -> np.ndarray:
    outcomes = np.atleast_2d(np.asarray(outcomes, dtype=float))
    if outcomes.size == 0 or not np.isfinite(outcomes).all():
        raise ValueError("outcomes must be finite and not empty; count a failed task as 0 and say so")
    return outcomes


def _bootstrap(outcomes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """`draws` means of resampled seeds (rows) and tasks (columns).

    All draws that pick the same seeds share one mean per task, which takes few distinct values: how often each
    occurs among resampled tasks is multinomial.
    """
    rng = np.random.default_rng(seed)
    seeds, tasks = outcomes.shape
    if comb(2 * seeds - 1, seeds) > PICKS:
        return _drawn(outcomes, draws, rng)
    picks = list(combinations_with_replacement(range(seeds), seeds))
    ways = np.array([factorial(seeds) / prod(map(factorial, Counter(pick).values())) for pick in picks])
    means = []
    for pick, count in zip(picks, rng.multinomial(draws, ways / ways.sum()), strict=True):
        if count:
            values, times = np.unique(outcomes[list(pick)].mean(0).round(12), return_counts=True)
            means.append(rng.multinomial(tasks, times / tasks, size=count) @ values / tasks)
    return np.concatenate(means)


def _drawn(outcomes: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The same for many seeds: draw by draw, a bounded number of them at a time."""
    seeds, tasks = outcomes.shape
    means, step = np.empty(draws), max(AT_ONCE // max(seeds, tasks), 1)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        picked = rng.integers(tasks, size=(size, tasks), dtype=np.int32)
        means[start:start + size] = np.take_along_axis(weights @ outcomes, picked, axis=1).mean(1)
    return means
