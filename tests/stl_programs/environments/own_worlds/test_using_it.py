"""What somebody does with a world of their own in the first hour."""

from __future__ import annotations

import asyncio

import dspy
import pytest

from stl_programs import (
    BasePolicy,
    BaseValue,
    BeamSearch,
    GreedySearch,
    LegalMoves,
    Uniform,
    Value,
    engine,
    run_sync,
    run_tasks,
)
from stl_programs.errors import JournalError
from stl_programs.records import ValueEstimate
from stl_programs.situations import Proposal
from stl_programs.tree import Tree
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle, reply
from tests.stl_programs.environments.own_worlds.searches import SEARCHES, program, scripted

BOARD = "123_46758"


@pytest.fixture(scope="module")
def env():
    return Puzzle()


# What is passed as a task

def test_texts_tasks_and_examples_are_one_task(env):
    search = GreedySearch(env, LegalMoves(), Uniform())
    entries = [BOARD, env.task(BOARD), dspy.Example(task=BOARD, answer="x").with_inputs("task")]
    results = run_sync(run_tasks(search, entries))
    assert len({id(result) for result in results}) == 1, "searched once"
    assert search(task=BOARD).answer == search(BOARD).answer == search(task=env.task(BOARD)).answer == results[0].answer


def test_further_inputs_of_an_example_are_part_of_the_task(env):
    class Hinted(env.policy_signature):
        hint: str = dspy.InputField()

    prompts = []

    def hinted(messages, seed):
        prompts.append(messages[-1]["content"])
        return reply(messages, seed)

    search = GreedySearch(env, program("greedy", env, scripted(hinted)).policy, Uniform())
    search.policy.predict.signature = Hinted
    example = dspy.Example(task=BOARD, hint="up first").with_inputs("task", "hint")
    [one, other] = run_sync(run_tasks(search, [example, dspy.Example(task=BOARD, hint="down").with_inputs(
        "task", "hint")]))
    assert one.task != other.task and one.error is None
    assert any("up first" in prompt for prompt in prompts) and any("down" in prompt for prompt in prompts)
    assert search(**example.inputs()).answer == one.answer
    with pytest.raises(Exception, match="8-puzzle knows no input 'hint' of the signature"):
        search(task=BOARD)


def test_one_program_answers_alike_every_time(env):
    for name in ("mcts", "beam", "best first"):
        search = program(name, env, scripted(reply))
        assert len({search(task="1_3425786").answer for _ in range(3)}) == 1


# Journals

def test_a_path_may_be_a_text_and_another_program_on_it_is_refused(env, tmp_path):
    path, tasks = str(tmp_path / "j.jsonl"), env.tasks("test")
    greedy, beam = GreedySearch(env, LegalMoves(), Uniform()), BeamSearch(env, LegalMoves(), Uniform(), width=9)
    first = run_sync(run_tasks(greedy, tasks, journal=path))
    with pytest.raises(JournalError, match=r'program\.kind is "GreedySearch", here it is "BeamSearch"'):
        run_sync(run_tasks(beam, tasks, journal=path))
    with pytest.raises(JournalError, match=r"program\.settings\.seed"):
        run_sync(run_tasks(GreedySearch(env, LegalMoves(), Uniform(), seed=1), tasks, journal=path))
    assert run_sync(run_tasks(greedy, tasks, journal=path)) == first


# Errors of one's own code

class Fragile(Puzzle):
    """Breaks at one board, in one place."""

    def __init__(self, where: str):
        self.where = where

    def breaks(self, where, board=BOARD):
        if where == self.where and board == BOARD:
            raise KeyError(f"broken in {where}")

    def reset(self, task):
        self.breaks("reset", task.text)
        return super().reset(task)

    def step(self, state, action):
        if not state.history:
            self.breaks("step", state.key)
        return super().step(state, action)

    def fields(self, situation):
        self.breaks("fields", situation.task.text)
        return super().fields(situation)

    def answer(self, task, state):
        self.breaks("answer", task.text)
        return super().answer(task, state)


@pytest.mark.parametrize("where", ["reset", "step", "fields", "answer"])
def test_an_exception_of_the_world_is_its_tasks_and_the_run_goes_on(where):
    env = Fragile(where)
    results = run_sync(run_tasks(program("beam", env, scripted(reply)), env.tasks("test")))
    failed = {result.task: result for result in results if result.error}
    assert list(failed) == [BOARD] and all(result.answer is not None for result in results if not result.error)
    assert f"broken in {where}" in failed[BOARD].error and "\n" not in failed[BOARD].error
    assert f'self.breaks("{where}"' in failed[BOARD].traceback


def test_so_is_one_of_a_policy_or_a_value(env):
    class Proposes(BasePolicy):
        async def aforward(self, situation, count=None, exclude=(), draw=0):
            return [Proposal(None, 1 / (situation.task.text != BOARD))]

    class Judges(BaseValue):
        async def estimate(self, situation):
            return ValueEstimate(1 / (situation.task.text != BOARD))

    for policy, value in ((Proposes(), Uniform()), (LegalMoves(), Judges())):
        results = run_sync(run_tasks(GreedySearch(env, policy, value), [BOARD, "1234567_8"]))
        assert results[0].error.startswith("ZeroDivisionError: division by zero (test_using_it.py:")
        assert "1 / (situation" in results[0].traceback
    assert results[1].error is None


# Work at once

def test_two_expansions_of_one_state_at_once_share_the_work(env):
    asked = []

    class Slow(LegalMoves):
        async def aforward(self, situation, count=None, exclude=(), draw=0):
            asked.append(situation.state.key)
            await asyncio.sleep(0.01)
            return await super().aforward(situation, count, exclude, draw)

    class Twice(GreedySearch):
        async def grow(self, tree):
            families = await engine.together(*(self.expand(tree, tree.root) for _ in range(5)))
            assert all(family == families[0] for family in families)

    outcome = Twice(env, Slow(), Uniform())(task=BOARD)
    keys = [node.state.key for node in outcome.tree.nodes]
    assert asked == [BOARD] and len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_can_look_ahead_from_all_that_it_judged(env, name):
    def tree(**options):
        search = program(name, env, scripted(reply), **options)
        [result] = run_sync(run_tasks(search, ["1_3425786"], keep_trees=True))
        return Tree.from_dict(result.tree), result.answer

    (few, answer), (many, same) = tree(), tree(expand="all")
    assert len(many) > len(few) and (same == answer or "parallel" in name), "more to learn from, the same answer"
    seen = {node.state.key for node in many.nodes if node.expanded}
    judged = {node.state.key for node in few.nodes if node.estimate is not None and not node.estimate.missing
              and not node.state.terminal and node.depth < env.max_depth}
    assert len(judged) > 2 and (judged <= seen or "parallel" in name)


def test_the_value_of_a_state_is_asked_for_once(env):
    model = scripted(reply)
    search = BeamSearch(env, LegalMoves(), Value(env.value_signature, model, samples=1), width=8)
    tree = search(task="283164_75").tree
    judged = {node.state.key for node in tree.nodes if node.estimate is not None}
    assert len(model.requests) == len(judged) < len(tree) - 1
