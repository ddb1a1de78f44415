"""Partial expansion: successors are paid for one at a time, and no state twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import Budget, LegalMoves, PartialExpansionSearch, Uniform, Value, run_sync
from stl_programs.testing.tree_world import Calls, TreeWorld, WorldPolicy, WorldValue
from tests.conftest import ScriptedValue


def search(program, text="1 4 5 6"):
    return run_sync(program.search(program.environment.task(text)))


class Counting(WorldValue):
    """A value without a memory: what is asked of it is what is paid."""

    def __init__(self):
        super().__init__()
        self.judged = Counter()

    async def estimate(self, situation):
        self.judged[situation.state.key] += 1
        return await self._judge(situation)


def test_the_golden_order(env):
    """The fourth successor is as good as its parent, so it is followed before its siblings are judged."""
    moves = [transition.state.text for _, transition in env.successors(env.reset(env.task("1 4 5 6")))]
    below = [transition.state.text for _, transition in env.successors(
        env.successors(env.reset(env.task("1 4 5 6")))[3][1].state)]
    script = {moves[3]: 20.0, below[1]: 20.0}
    found = search(PartialExpansionSearch(env, LegalMoves(), ScriptedValue(script, default=1.0), judgements=8))
    assert [node.state.text for node in found.tree.nodes[:7]] == ["1 4 5 6", *moves[:4], *below[:2]]
    assert [node.depth for node in found.tree.nodes[7:]] == [3, 3]


@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 10**6), judgements=st.integers(1, 60), parallel=st.integers(1, 8),
       decay=st.sampled_from([0.0, 0.04, 0.5]))
def test_no_state_is_judged_twice(world, judgements, parallel, decay):
    env, value = TreeWorld(depth=4, branching=4, transpositions=0.5), Counting()
    tree = search(PartialExpansionSearch(env, LegalMoves(), value, judgements=judgements, parallel=parallel,
                                         decay=decay, enough=2.0), str(world)).tree
    assert sum(value.judged.values()) <= judgements
    assert parallel > 1 or max(value.judged.values()) == 1
    estimates = {}
    for node in tree.nodes[1:]:  # a state that is known is worth the same wherever it is met
        assert estimates.setdefault(node.state.key, node.estimate) == node.estimate
    for node in tree.nodes:
        assert len({child.state.key for child in tree.children(node)}) == len(node.children)


def test_known_successors_cost_nothing():
    env = TreeWorld(depth=3, branching=4, transpositions=0.5)
    value = Counting()
    tree = search(PartialExpansionSearch(env, LegalMoves(), value, judgements=10**4, enough=2.0), "3").tree
    assert sum(value.judged.values()) == len(value.judged) < len(tree) - 1  # all states, and more ways to them


def test_it_reaches_a_leaf_with_few_calls():
    """Depth 6 at 1 + 5 calls a state: following the first good successor leaves calls to look elsewhere."""
    env, calls = TreeWorld(transpositions=0.5), Calls(40)
    program = PartialExpansionSearch(env, WorldPolicy(calls), WorldValue(0.0, calls=calls), judgements=10**4)
    found = search(program, "5")
    assert found.leaf.state.terminal and calls.made["5"] == 40
    assert env.regret(env.task("5"), found.answer) < 0.05


def test_it_stops_at_what_is_good_enough(env):
    found = search(PartialExpansionSearch(env, LegalMoves(), ScriptedValue({"24": 20.0}, default=1.0),
                                          judgements=10**5))
    assert found.leaf.state.text == "24"
    assert [node.state.text for node in found.tree.nodes if node.state.terminal][-1] == "24"


def test_it_is_saved_and_loaded(env, tmp_path):
    value = Value(env.value_signature, "embedded/game24", samples=4, budget=Budget(tokens=99))
    saved = PartialExpansionSearch(env, LegalMoves(), value, judgements=9, progress=0.1, decay=0.3, parallel=2)
    saved.save(tmp_path / "program.json")
    loaded = PartialExpansionSearch(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert loaded.dump_state() == saved.dump_state()


@pytest.mark.parametrize(("setting", "why"), [({"judgements": 0}, "judgements=0"), ({"decay": -1}, "decay=-1")])
def test_bad_settings_say_what_is_wrong(env, setting, why):
    with pytest.raises(ValueError, match=why):
        PartialExpansionSearch(env, LegalMoves(), Uniform(), **setting)
