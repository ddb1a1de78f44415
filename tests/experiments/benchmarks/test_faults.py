"""The benchmark of faults, in a shorter form: every figure that has to be 0 is 0."""

from __future__ import annotations

import pytest

from experiments.benchmarks import faults
from experiments.benchmarks.faults_journal import journals


def test_no_damage_to_a_journal_is_used_or_loses_what_is_whole():
    found = journals(300, seed=1)
    assert found["mutations"] == 300 and found["the same"] > 150
    assert not any(found[name] for name in ("raw exceptions", "undamaged replies not used", "changed unnamed")), found


def test_no_reply_is_read_wrongly(monkeypatch):
    monkeypatch.setattr(faults, "SHARE", 0.005)
    for row in faults.replies():
        assert row.holds, row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replies", "budgets", "kills", "soak"])
def test_more_of_them(name, monkeypatch):
    monkeypatch.setattr(faults, "SHARE", 0.05)
    for row in faults.BENCHMARKS[name]():
        assert row.holds, row
