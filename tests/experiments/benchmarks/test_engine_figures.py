"""The figures of the engine that are counts: they hold on any machine."""

from __future__ import annotations

import pytest

from experiments.benchmarks import engine, killing


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [killing.kill_and_resume, engine.failures, engine.rounds])
def test_counts_reach_their_goals(benchmark):
    rows = benchmark()
    assert any(row.goal for row in rows)
    for row in rows:
        assert row.holds is not False, row


def test_the_longest_chain_of_requests():
    assert engine.longest_chain([(0, 1), (0, 1.1), (1, 2), (1.1, 2.1), (2.05, 3)]) == 3


def test_mean_in_service():
    log = [{"arrival": 0.0, "start": 0.0, "end": 2.0}, {"arrival": 0.0, "start": 1.0, "end": 3.0}]
    assert engine.busy(log, 2.0) == 1.5 and engine.last_opening(log, 1) == 0.0
