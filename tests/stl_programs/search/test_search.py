"""Golden trees from a scripted value, and what every search promises."""

from __future__ import annotations

import asyncio
import json

import dspy
import pytest

from stl_programs import BeamSearch, GreedySearch, LegalMoves, Oracle, Tree, Uniform, Value, run_tasks
from stl_programs.engine import run_sync
from stl_programs.errors import StlError, TaskError
from tests.conftest import ExactValue, ScriptedValue


def search(program, text="1 4 5 6"):
    task = program.environment.task(text)
    return run_sync(program.search(task))


def test_greedy_takes_the_best_successor_each_time(env):
    value = ScriptedValue({"1 5 24": 1.0, "5 24": 1.0, "4 24": 20.0, "1 24": 0.5, "24": 20.0})
    found = search(GreedySearch(env, LegalMoves(), value))
    assert [node.state.text for node in found.tree.path(found.leaf)][:2] == ["1 4 5 6", "1 5 24"]
    assert sum(1 for _ in found.tree.expanded()) == 3


def test_the_golden_tree_of_a_beam(env):
    value = ScriptedValue({"1 5 24": 1.0, "4 5 6": 2.0, "1 4 30": 3.0, "4 30": 4.0, "5 24": 5.0, "19": 5.0, "26": 6.0})
    found = search(BeamSearch(env, LegalMoves(), value, width=2))
    assert found.tree.render() == GOLDEN
    assert found.answer == "(5 * 6) - (1 * 4)" and found.leaf.state.text == "26"


GOLDEN = """\
* 1 4 5 6
  * 5 * 6 = 30  ->  1 4 30 3
  * 1 * 4 = 4  ->  4 5 6 2
    * 4 * 6 = 24  ->  5 24 5
      * 24 - 5 = 19  ->  19 5
    * 5 * 6 = 30  ->  4 30 4
      * 30 - 4 = 26  ->  26 6"""


def test_a_beam_of_one_is_greedy(env):
    for text in ("1 4 5 6", "3 3 8 8", "4 5 6 10"):
        greedy = search(GreedySearch(env, LegalMoves(), ExactValue()), text)
        beam = search(BeamSearch(env, LegalMoves(), ExactValue(), width=1), text)
        assert greedy.answer == beam.answer and len(greedy.tree) == len(beam.tree)


@pytest.mark.parametrize("width", [1, 5])
def test_an_exact_value_solves_every_puzzle(env, width):
    tasks = env.tasks("hard")[:20]
    results = run_sync(run_tasks(BeamSearch(env, LegalMoves(), Oracle(), width=width), tasks))
    assert all(env.score(task, result.answer) == 1.0 for task, result in zip(tasks, results, strict=True))


def test_missing_values_rank_last_and_are_not_zero(env):
    value = ScriptedValue({"1 5 24": 0.0005}, default=None)
    found = search(GreedySearch(env, LegalMoves(), value))
    assert found.tree.path(found.leaf)[1].state.text == "1 5 24"


def test_a_beam_keeps_distinct_states(env):
    found = search(BeamSearch(env, LegalMoves(), Uniform(), width=50), "4 4 4 6")
    for depth in (1, 2, 3):
        kept = [n.state.key for n in found.tree.nodes if n.kept and n.depth == depth]
        assert len(kept) == len(set(kept))


def test_expanding_all_grows_more_and_searches_the_same(env):
    value = ScriptedValue({}, default=0.5)
    few = search(BeamSearch(env, LegalMoves(), value, width=2))
    many = search(BeamSearch(env, LegalMoves(), value, width=2, expand="all"))
    assert len(many.tree) > 3 * len(few.tree)
    assert sum(n.kept for n in many.tree.nodes) == sum(n.kept for n in few.tree.nodes)


def test_a_program_is_a_dspy_module(env):
    program = BeamSearch(env, LegalMoves(), Oracle(), width=5)
    prediction = program(task="4 5 6 10")
    assert isinstance(prediction, dspy.Prediction)
    assert env.score(env.task("4 5 6 10"), prediction.answer) == 1.0
    assert len(prediction.trajectory) == 3 and isinstance(prediction.tree, Tree) and prediction.cost == 0
    again = asyncio.run(program.acall(task="4 5 6 10"))
    assert again.answer == prediction.answer


def test_forward_works_inside_a_running_loop(env):
    async def notebook():
        return GreedySearch(env, LegalMoves(), Oracle())(task="4 5 6 10").answer

    assert asyncio.run(notebook())


def test_a_tree_survives_json(env):
    tree = search(BeamSearch(env, LegalMoves(), ExactValue(), width=2)).tree
    copy = Tree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert copy.to_dict() == tree.to_dict() and copy.render(only_kept=False) == tree.render(only_kept=False)


def test_bad_settings_and_bad_tasks(env):
    with pytest.raises(ValueError, match="width=0"):
        BeamSearch(env, LegalMoves(), Uniform(), width=0)
    with pytest.raises(ValueError, match="it should be 'kept' or 'all'"):
        BeamSearch(env, LegalMoves(), Uniform(), expand="some")
    with pytest.raises(TaskError, match="1 1 1 1"):
        GreedySearch(env, LegalMoves(), Uniform())(task="1 1 1 1")


def test_oracle_and_reward_free_are_told_apart(env):
    assert GreedySearch(env, LegalMoves(), Oracle()).information == "reward-guided"
    assert GreedySearch(env, LegalMoves(), Uniform()).information == "reward-free"


class Peeking(ScriptedValue):
    async def estimate(self, situation):
        situation.environment.score(situation.task, "4 * 6")
        return await super().estimate(situation)


def test_a_value_that_reads_the_reward_fails_its_task(env):
    program = GreedySearch(env, LegalMoves(), Peeking({}))
    [result] = run_sync(run_tasks(program, [env.task("4 5 6 10")]))
    assert result.error.startswith("RewardSealed") and result.answer is None
    with pytest.raises(StlError, match="reward-free"):
        program(task="4 5 6 10")


def test_saving_and_loading(env, tmp_path):
    value = Value(env.value_signature, "embedded/game24", samples=5, aggregate="mean")
    BeamSearch(env, LegalMoves(), value, width=7).save(tmp_path / "program.json")
    loaded = BeamSearch(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert (loaded.width, loaded.value.samples, loaded.value.aggregate, loaded.value.lm) == (
        7, 5, "mean", "embedded/game24")
    with pytest.raises(StlError, match="the saved part is a BeamSearch, this is a GreedySearch"):
        GreedySearch(env, LegalMoves(), Uniform()).load(tmp_path / "program.json")
