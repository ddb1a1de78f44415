"""The yardsticks of the benchmarks measure what they say."""

from __future__ import annotations

from experiments.benchmarks import growing, tree
from experiments.benchmarks.bare_uct import BareUct


def test_the_bare_loop_is_the_same_search():
    found, _, levels = tree.simulate(2_000, 3)
    env = tree.Bare()
    bare = BareUct(env, env.task("3"), tree.Hashed.of)
    assert all(bare.simulate() for _ in range(2_000)) and levels > 3
    assert bare.visits == [node.visits for node in found.tree.nodes]
    assert bare.sum == [node.value_sum for node in found.tree.nodes]
    assert [state.key for state in bare.state] == [node.state.key for node in found.tree.nodes]


def test_the_bare_loop_ends_where_a_small_world_is_known(monkeypatch):
    monkeypatch.setattr(tree.Bare, "max_depth", 3)
    found, _, _ = tree.simulate(10_000, 3)
    env = tree.Bare()
    bare = BareUct(env, env.task("3"), tree.Hashed.of)
    while bare.simulate():
        pass
    assert bare.visits[0] == found.tree.root.visits < 10_000 and bare.closed[0] and found.tree.root.closed


def test_waiting_calls_of_the_benchmark_do_wait_and_are_served_in_order(monkeypatch):
    calls = 60
    _, order = growing.wait_for_budget(calls)
    assert order == list(range(calls))


def test_what_a_run_holds_is_weighed():
    beside, results = growing.held(20)
    assert results > 20 * 500 and beside < results
