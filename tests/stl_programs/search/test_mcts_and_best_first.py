"""MCTS, best-first and LiteSearch: golden trees, and what holds under any interleaving."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import (
    MCTS,
    BestFirstSearch,
    Budget,
    GreedySearch,
    LegalMoves,
    LiteSearch,
    Oracle,
    Policy,
    Uniform,
    Value,
    run_sync,
)
from stl_programs.search.parts import mean, uct
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.scripted import ScriptedModel
from tests.conftest import ScriptedValue


def search(program, text="1 4 5 6"):
    return run_sync(program.search(program.environment.task(text)))


SCRIPT = {"1 5 24": 1.0, "4 5 6": 2.0, "1 4 30": 3.0, "4 30": 4.0, "5 24": 5.0, "19": 5.0, "26": 6.0}


def test_the_golden_tree_of_mcts(env):
    found = search(MCTS(env, LegalMoves(), ScriptedValue(SCRIPT), simulations=6, exploration=0.1))
    visited = [(n.state.text, n.visits, round(n.value_sum, 3)) for n in found.tree.nodes if n.visits]
    assert visited == GOLDEN
    assert found.answer == "(5 * 6) - (1 * 4)" and found.tree.about["chosen"] == found.leaf.id


GOLDEN = [("1 4 5 6", 6, 1.15), ("4 5 6", 2, 0.5), ("1 4 30", 4, 0.65), ("4 30", 3, 0.5), ("34", 1, 0.0),
          ("26", 1, 0.3), ("5 24", 2, 0.5), ("19", 1, 0.25)]


@pytest.mark.parametrize("parallel", [1, 5])
def test_the_descent_in_one_pass_goes_where_the_rules_say(env, parallel):
    def grown(**rules):
        program = MCTS(env, LegalMoves(), Sleepy(3), simulations=150, parallel=parallel, **rules)
        return [(n.state.key, n.parent, n.visits, n.value_sum) for n in search(program, "2 3 5 12").tree.nodes]

    assert grown() == grown(selection=uct, backup=mean)


def test_a_back_up_of_ones_own_is_what_the_descent_goes_by(env):
    class Last(MCTS):
        def back_up(self, tree, path, value):
            for node in path:
                node.in_flight -= 1
                node.visits, node.value_sum = node.visits + 1, value * (node.visits + 1)

    class Rules(Last):
        def select(self, tree):
            path = self._descend(tree.nodes, tree.root)
            for node in path or ():
                node.in_flight += 1
            return path

    trees = [search(kind(env, LegalMoves(), ScriptedValue(SCRIPT), simulations=20)).tree for kind in (Last, Rules)]
    assert [n.visits for n in trees[0].nodes] == [n.visits for n in trees[1].nodes]


def test_the_golden_order_of_best_first(env):
    value = ScriptedValue(SCRIPT)
    found = search(BestFirstSearch(env, LegalMoves(), value, expansions=5, enough=6.0))
    assert [n.state.text for n in found.tree.expanded()] == ["1 4 5 6", "1 4 30", "4 30"]
    assert found.leaf.state.text == "26"


def test_a_priority_is_a_plug_in(env):
    shallow = search(BestFirstSearch(env, LegalMoves(), Uniform(), expansions=9, enough=99,
                                     priority=lambda node, tree: -node.depth)).tree
    deep = search(BestFirstSearch(env, LegalMoves(), Uniform(), expansions=9, enough=99,
                                  priority=lambda node, tree: node.depth)).tree
    assert max(n.depth for n in shallow.expanded()) == 1 and max(n.depth for n in deep.expanded()) == 2


@pytest.mark.parametrize("program", [
    lambda env: MCTS(env, LegalMoves(), Oracle(), simulations=30),
    lambda env: MCTS(env, LegalMoves(), Oracle(), simulations=30, backup="max", rollout=True),
    lambda env: MCTS(env, LegalMoves(), Oracle(), simulations=30, backup="hybrid", parallel=8),
    lambda env: BestFirstSearch(env, LegalMoves(), Oracle(), expansions=10),
    lambda env: BestFirstSearch(env, LegalMoves(), Oracle(), expansions=10, parallel=4)])
def test_every_search_finds_what_an_exact_value_shows(env, program):
    for task in env.tasks("hard")[:4]:
        assert env.score(task, search(program(env), task.text).answer) == 1.0


def test_mcts_stops_when_the_whole_tree_is_known(env):
    found = search(MCTS(env, LegalMoves(), Uniform(), simulations=10**6), "1 1 1 8")
    assert found.tree.root.closed and all(n.closed for n in found.tree.nodes)
    assert found.tree.root.visits < 10**5


def test_the_collector_walks_no_ids_of_children(env):
    nodes = search(MCTS(env, LegalMoves(), Uniform(), simulations=20)).tree.nodes
    gc.collect()
    assert any(node.children for node in nodes) and not any(gc.is_tracked(node.children) for node in nodes)


def test_rollouts_reach_the_end_of_the_task(env):
    found = search(MCTS(env, LegalMoves(), Oracle(), simulations=1, rollout=True))
    assert found.leaf.state.terminal and found.tree.root.visits == 1
    assert not search(MCTS(env, LegalMoves(), Oracle(), simulations=1)).leaf.state.terminal


def test_lite_search_gives_a_state_as_many_children_as_its_value_is_unsure(env):
    program = LiteSearch(env, LegalMoves(), Uniform(), confidence=0.9, most=5)
    tree = search(program).tree
    widths = []
    for prior in (0.0, 0.2, 0.5, 0.7, 0.95, 1.0):
        tree.root.estimate, tree.root.worth = ScriptedValue, prior
        widths.append(program.width(tree.root))
    assert widths == [5, 5, 4, 2, 1, 1]
    found = search(LiteSearch(env, LegalMoves(), Uniform(), most=3, expansions=30, enough=99))
    assert max(len(n.children) for n in found.tree.nodes) == 3
    assert len(found.tree) == 31


def test_the_golden_order_of_lite_search(env):
    found = search(LiteSearch(env, LegalMoves(), ScriptedValue(SCRIPT, default=8.0), expansions=12, most=3, enough=6.0))
    grown = [(node.state.text, len(node.children)) for node in found.tree.expanded()]
    assert grown == [("1 4 5 6", 1), ("5 5 6", 1), ("6 10", 1)] and found.answer == "6 + (5 + (1 + 4))"


class Sleepy(ScriptedValue):
    """Answers after a random time; what it says depends on the state alone."""

    def __init__(self, seed):
        super().__init__({})
        self.rng = random.Random(seed)

    async def estimate(self, situation):
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        self.scores[situation.state.text] = random.Random(situation.state.text).random() * 20
        return await super().estimate(situation)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), parallel=st.integers(1, 32), simulations=st.integers(1, 30),
       backup=st.sampled_from(["mean", "max", "hybrid"]), rollout=st.booleans())
def test_statistics_hold_under_any_interleaving(env, seed, parallel, simulations, backup, rollout):
    backed_up = []

    class Watched(MCTS):
        def back_up(self, tree, path, value):
            backed_up.append(([node.id for node in path], value))
            super().back_up(tree, path, value)

    program = Watched(env, LegalMoves(), Sleepy(seed), simulations=simulations, parallel=parallel, backup=backup,
                      rollout=rollout)
    tree = search(program, "2 3 5 12").tree
    assert tree.root.visits == len(backed_up) <= simulations
    assert all(node.in_flight == 0 for node in tree.nodes)
    for node in tree.nodes:  # a sequential recomputation
        values = [value for path, value in backed_up if node.id in path]
        assert node.visits == len(values) and node.value_max == max(values, default=0.0)
        assert node.value_sum == pytest.approx(sum(values))
        ended_here = sum(path[-1] == node.id for path, _ in backed_up)
        assert node.visits == ended_here + sum(child.visits for child in tree.children(node))
        assert len({child.action for child in tree.children(node)}) == len(node.children)  # never expanded twice
    assert all(node.closed == (node.state.terminal or (node.expanded and all(c.closed for c in tree.children(node))))
               for node in tree.nodes if node.visits)


def test_parallel_simulations_are_in_flight_together(env):
    model = ScriptedModel("m/a", lambda messages, seed: game24_script(messages, "m", seed),
                          latency=lambda seed: 0.003)
    policy = Policy(env.policy_signature, model, count=6, max_tokens=100)
    one = MCTS(env, policy, Uniform(), simulations=60)
    many = MCTS(env, policy, Uniform(), simulations=60, parallel=6)
    search(one)
    assert model.most_in_flight == 1
    search(many)
    assert 3 <= model.most_in_flight <= 6


@pytest.mark.parametrize("program", [
    lambda env, value: MCTS(env, LegalMoves(), value, simulations=7, exploration=0.5, backup="hybrid", rollout=True,
                            parallel=3, budget=Budget(calls=9)),
    lambda env, value: BestFirstSearch(env, LegalMoves(), value, expansions=7, enough=5.0, parallel=2),
    lambda env, value: LiteSearch(env, LegalMoves(), value, expansions=9, confidence=0.8, most=3, progress=1.0),
    lambda env, value: GreedySearch(env, Policy(env.policy_signature, "openai/m", budget=Budget(dollars=1.0)), value)])
def test_programs_are_saved_and_loaded(env, tmp_path, program):
    saved = program(env, Value(env.value_signature, "embedded/game24", samples=4, budget=Budget(tokens=99)))
    saved.save(tmp_path / "program.json")
    loaded = type(saved)(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert loaded.dump_state() == saved.dump_state() and loaded.budget == saved.budget
    assert loaded.value.budget == Budget(tokens=99)


def test_bad_settings_say_what_is_wrong(env):
    with pytest.raises(ValueError, match="simulations=0"):
        MCTS(env, LegalMoves(), Uniform(), simulations=0)
    with pytest.raises(ValueError, match="choose 'mean', 'max', 'hybrid', or pass a function"):
        MCTS(env, LegalMoves(), Uniform(), backup="median")
    with pytest.raises(ValueError, match="expansions=0"):
        BestFirstSearch(env, LegalMoves(), Uniform(), expansions=0)
    with pytest.raises(ValueError, match="confidence=1"):
        LiteSearch(env, LegalMoves(), Uniform(), confidence=1)
