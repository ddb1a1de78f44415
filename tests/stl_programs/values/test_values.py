"""Values made of other parts, steps that are not pure, and the seal on the reward."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest

from signatures import CompareStates, JudgeSiblings
from stl_programs import (
    BaseValue,
    BeamSearch,
    Budget,
    GameOf24,
    GreedySearch,
    LegalMoves,
    Oracle,
    PairwiseValue,
    PerDepth,
    Policy,
    SiblingValue,
    Uniform,
    run_sync,
    run_tasks,
)
from stl_programs.engine import read_journal
from stl_programs.environments.game24.world import parse_numbers, solvable
from stl_programs.errors import TaskError
from stl_programs.records import Action, State, Transition
from stl_programs.testing import TreeWorld
from stl_programs.testing.scripted import ScriptedModel
from tests.conftest import ScriptedValue


def field(messages, name):
    return re.search(rf"\[\[ ## {name} ## \]\]\n(.*?)\n\n", messages[-1]["content"], re.S)[1]


def siblings(messages, seed):
    states = json.loads(field(messages, "states"))
    scores = ["sure" if solvable(parse_numbers(state)) else "impossible" for state in states]
    listed = json.dumps(scores[:-1] if seed % 3 == 0 else scores)
    return f"[[ ## rationale ## ]]\nby {seed}\n\n[[ ## scores ## ]]\n{listed}\n\n[[ ## completed ## ]]"


def comparison(messages, seed):
    better = "first" if solvable(parse_numbers(field(messages, "first"))) else "second"
    return f"[[ ## rationale ## ]]\nso\n\n[[ ## better ## ]]\n{better}\n\n[[ ## completed ## ]]"


def solve(env, value, text="4 5 6 10"):
    model_calls = BeamSearch(env, LegalMoves(), value, width=3)
    [result] = run_sync(run_tasks(model_calls, [env.task(text)], keep_trees=True))
    return result


def test_one_value_per_depth(env):
    first, second = ScriptedValue({}), ScriptedValue({})
    result = solve(env, PerDepth([first, second]))
    assert result.error is None
    assert {len(text.split()) for text in first.asked} == {3} and {len(text.split()) for text in second.asked} == {2, 1}
    assert PerDepth([Uniform(), Oracle()]).information == "reward-guided"
    with pytest.raises(ValueError, match="at least one value"):
        PerDepth([])


def test_all_siblings_in_one_call(env):
    model = ScriptedModel("m/a", siblings)
    value = SiblingValue(JudgeSiblings, model, samples=6, max_tokens=4000)
    result = solve(env, value)
    assert env.score(env.task("4 5 6 10"), result.answer) == 1.0
    assert len(model.requests) == result.states_expanded  # one call a family, whatever its size
    samples = [node["value"]["samples"] for node in result.tree["nodes"] if node["value"]]
    assert {why for draws in samples for _, why in draws} == {None, "no score on the scale for every state"}


def test_a_comparator_takes_the_place_of_a_value(env):
    model = ScriptedModel("m/a", comparison)
    value = PairwiseValue(CompareStates, model, samples=1, max_tokens=100)
    program = GreedySearch(env, LegalMoves(), value)
    [result] = run_sync(run_tasks(program, [env.task("1 1 1 8")], keep_trees=True))
    root = result.tree["nodes"][0]
    children = [node for node in result.tree["nodes"] if node["parent"] == root["id"]]
    assert env.score(env.task("1 1 1 8"), result.answer) == 1.0
    assert sum(usage["calls"] for usage in result.usage.values()) >= len(children) * (len(children) - 1)
    assert max(node["value"]["score"] for node in children) > min(node["value"]["score"] for node in children)


def test_of_many_pairs_none_is_begun_that_a_budget_does_not_cover():
    class Counted(PairwiseValue):
        begun = 0

        async def ask(self, about, **known):
            self.begun += 1
            return await super().ask(about, **known)

    model = ScriptedModel("scripted/m", lambda messages, seed: "[[ ## better ## ]]\nfirst")
    env, value = TreeWorld(depth=1, branching=60, transpositions=0.0), Counted(CompareStates, model)
    [result] = run_sync(run_tasks(GreedySearch(env, LegalMoves(), value, budget=Budget(calls=10)), ["0"]))
    assert "budget of 10 calls" in result.ended and len(model.requests) == 10 and value.begun < 300 < 60 * 59


def test_they_are_saved_loaded_and_bounded(env, tmp_path):
    for value in (SiblingValue(JudgeSiblings, "openai/m", samples=2, budget=Budget(calls=3)),
                  PairwiseValue(CompareStates, "openai/m"), PerDepth([Uniform(), Oracle()])):
        saved = GreedySearch(env, LegalMoves(), value)
        saved.save(tmp_path / "program.json")
        loaded = GreedySearch(env, LegalMoves(), Uniform())
        loaded.load(tmp_path / "program.json")
        assert loaded.dump_state() == saved.dump_state()
    result = solve(env, SiblingValue(JudgeSiblings, ScriptedModel("m/a", siblings), budget=Budget(calls=1),
                                     max_tokens=4000))
    assert "the value module's budget of 1 calls is spent" in result.ended and result.answer


class Costly(GameOf24):
    """Steps that cost something: they are counted, journaled, and one of them cannot be undone."""

    pure = False

    def __init__(self):
        super().__init__()
        self.taken = []

    def action(self, state, text):
        if "* " in text:
            self.step(state, Action(text))  # refused here, as such an action is not tried
        return Action(text, irreversible="* " in text)

    async def astep(self, state, action):
        self.taken.append((state.text, action.text))
        return self.step(state, action)

    def record(self, transition):
        return super().record(transition) | {"data": [str(number) for number in transition.state.data]}

    def restore(self, history, row):
        numbers = tuple(map(Fraction, row["data"]))
        state = State(row["text"], row["key"], history, row["terminal"], numbers)
        return Transition(state, row["terminated"], row["truncated"], row["observation"])


def test_steps_that_are_not_pure_are_journaled_and_never_taken_twice(tmp_path):
    env = Costly()
    tasks, path = env.tasks("test")[:2], tmp_path / "journal.jsonl"
    program = BeamSearch(env, LegalMoves(), Uniform(), width=2)
    whole = run_sync(run_tasks(program, tasks, journal=path))
    steps = len(env.taken) + len(tasks)  # a reset each
    assert len(set(env.taken)) <= len(env.taken) and steps == len(read_journal(path).steps)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    kept = len(read_journal(path).steps)
    again = run_sync(run_tasks(program, tasks, journal=path))
    assert [r.answer for r in again] == [r.answer for r in whole] and len(env.taken) == 2 * (steps - len(tasks)) - (
        kept - len(tasks))
    env.taken.clear()
    replayed = run_sync(run_tasks(program, tasks, recorded=[path], offline=True))
    assert [r.answer for r in replayed] == [r.answer for r in whole] and env.taken == []


def test_what_cannot_be_undone_is_not_done():
    env = Costly()
    model = ScriptedModel("m/a", lambda messages, seed: '[[ ## actions ## ]]\n["4 * 5 = 20", "4 + 5 = 9", "1 + 1 = 3"]'
                                                        '\n\n[[ ## completed ## ]]')
    program = GreedySearch(env, Policy(env.policy_signature, model, count=3, max_tokens=50), Uniform())
    [result] = run_sync(run_tasks(program, [env.task("4 5 6 10")], keep_trees=True))
    assert result.error is None
    assert "4 * 5 = 20" not in [action for _, action in env.taken] and "4 + 5 = 9" in [a for _, a in env.taken]
    leaves = [node for node in result.tree["nodes"] if node.get("untaken")]
    assert leaves and all(node["action"] == "4 * 5 = 20" and node["terminal"] for node in leaves)
    with pytest.raises(TaskError):
        env.step(env.reset(env.task("4 5 6 10")), Action("1 + 1 = 3"))


class PeekingPolicy(LegalMoves):
    async def aforward(self, situation, *options):
        situation.environment.score(situation.task, "4 * 6")
        return await super().aforward(situation, *options)


class Guided(BaseValue):
    information = "reward-guided"

    async def estimate(self, situation):
        from stl_programs.records import ValueEstimate

        env, task = situation.environment, situation.task
        return ValueEstimate(env.score(task, env.answer(task, situation.state)))


def test_the_reward_is_sealed_for_policies_too_and_open_where_declared(env):
    task = env.task("4 5 6 10")
    [result] = run_sync(run_tasks(GreedySearch(env, PeekingPolicy(), Uniform()), [task]))
    assert result.error.startswith("RewardSealed")
    program = BeamSearch(env, PeekingPolicy(), Guided(), width=3)
    assert program.information == "reward-guided"
    [result] = run_sync(run_tasks(program, [task]))
    assert result.error is None
