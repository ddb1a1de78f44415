from __future__ import annotations

import pytest

from stl_programs import Budget, LegalMoves, Policy, Value
from tests.stl_programs.environments.own_worlds import puzzle, word_problems
from tests.stl_programs.environments.own_worlds.searches import scripted
from tests.stl_programs.search.proofs.depth_first import DepthFirst
from tests.stl_programs.search.proofs.letters import Letters, Table, expanded

WORTH = {"a": 0.9, "b": 0.7, "c": 0.4, "aa": 0.3, "ab": 0.2, "ac": 0.6, "ba": 0.8,
         "aca": 0.1, "acb": 0.2, "acc": 0.3, "baa": 0.2, "bab": 0.6, "bac": 0.7}


def searched(**options):
    value = Table(WORTH)
    return DepthFirst(Letters(max_depth=3), LegalMoves(), value, **options)(task="abc"), value


def test_it_goes_deep_first_and_comes_back_where_nothing_is_worth_it():
    outcome, value = searched(threshold=0.5)
    assert expanded(outcome.tree) == ["", "a", "ac", "b", "ba"], "ac had no end of 0.5, so back to b; c is below it"
    assert outcome.answer == "bac" and "ca" not in value.asked and "bc" in value.asked


@pytest.mark.parametrize(("threshold", "order", "answer"), [
    (0.0, ["", "a", "ac"], "acc"), (0.65, ["", "a", "b", "ba"], "bac"), (0.95, [""], "a")])
def test_the_threshold_says_how_stubborn_it_is(threshold, order, answer):
    outcome, _ = searched(threshold=threshold)
    assert expanded(outcome.tree) == order and outcome.answer == answer


def test_expansions_and_budgets_bound_it():
    assert expanded(searched(expansions=2)[0].tree) == ["", "a"]
    outcome, _ = searched(budget=Budget(states=3))
    assert "budget of 3 states" in outcome.ended and len(expanded(outcome.tree)) == 3


@pytest.mark.parametrize("world", [puzzle, word_problems])
def test_it_searches_the_own_worlds(world, tmp_path):
    env = world.Puzzle() if world is puzzle else world.WordProblems()
    model = scripted(world.reply)
    search = DepthFirst(env, Policy(env.policy_signature, model, count=3), Value(env.value_signature, model),
                        threshold=0.1)
    solved = 0.0
    for task in env.tasks("test")[:3]:
        outcome = search(task=task)
        solved += env.score(task, outcome.answer)
        children = [(node.parent, node.state.key) for node in outcome.tree.nodes]
        assert len(children) == len(set(children)), "no state stands twice under one parent"
    assert solved >= 2
    search.save(tmp_path / "search.json")
    loaded = DepthFirst(env, Policy(env.policy_signature, model), Value(env.value_signature, model), threshold=0.9)
    loaded.load(tmp_path / "search.json")
    assert loaded.threshold == 0.1
