"""An own world whose graph has cycles."""

from __future__ import annotations

import json

import pytest

from stl_programs import BaseValue, GreedySearch, LegalMoves, Tree, run_sync, run_tasks
from stl_programs.errors import TaskError
from stl_programs.records import ValueEstimate
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle, distance, reply
from tests.stl_programs.environments.own_worlds.searches import SEARCHES, program, scripted

TRAPS = ("23415_786", "283164_75")
"""Boards from which a greedy player that counts distances slides one tile back and forth."""
SOLVED = {"lite": 1}
"""At least so many of five. LiteSearch gives a state one child at a time: whatever the model names first."""


class Distance(BaseValue):
    """Counts the steps that the tiles are from home."""

    async def estimate(self, situation):
        return ValueEstimate(max(1.0, 10.0 - distance(situation.state.key)))


class Long(Puzzle):
    max_depth = 20


@pytest.fixture(scope="module")
def env():
    return Puzzle()


def paths(tree: Tree):
    """The keys along the way to every node."""
    return [[step.state.key for step in tree.path(node)] for node in tree.nodes]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_solves_short_puzzles_with_a_model(env, name):
    model = scripted(reply)
    tasks = env.tasks("test")
    results = run_sync(run_tasks(program(name, env, model), tasks, keep_trees=True))
    assert [result.error for result in results] == [None] * len(tasks)
    scores = [env.score(task, result.answer) for task, result in zip(tasks, results, strict=True)]
    assert sum(scores) >= SOLVED.get(name, 4)
    for result in results:
        assert all(len(set(path)) == len(path) for path in paths(Tree.from_dict(result.tree))), "a path came back"
    assert sum(result.usage["value"]["parse_failures"] for result in results) > 0, "the model fails now and then"


@pytest.mark.parametrize("board", TRAPS)
def test_greedy_does_not_oscillate(board):
    outcome = GreedySearch(Long(), LegalMoves(), Distance())(task=board)
    chosen = [node.state.key for node in outcome.tree.path(outcome.tree.nodes[outcome.tree.about["chosen"]])]
    assert len(set(chosen)) == len(chosen) > 2
    assert all(len(set(path)) == len(path) for path in paths(outcome.tree))


@pytest.mark.parametrize("board", TRAPS)
def test_without_the_world_saying_so_it_does(board):
    class Plain(Long):
        cyclic = False

    outcome = GreedySearch(Plain(), LegalMoves(), Distance())(task=board)
    keys = [node.state.key for node in outcome.tree.nodes if node.kept]
    assert len(outcome.trajectory) == 20 and len(set(keys)) <= len(keys) / 2, "what the flag is for"


def test_a_state_without_a_way_on_is_left_and_noted():
    class Corridor(Long):
        """From any board only the first slide."""

        def legal_actions(self, state):
            return super().legal_actions(state)[:1]

    outcome = GreedySearch(Corridor(), LegalMoves(), Distance())(task="123_46758")
    assert outcome.notes["states without a proposal"] == 1 and outcome.tree.root.children


def test_moves_can_be_listed_and_two_calls_agree(env):
    program_ = GreedySearch(env, LegalMoves(), Distance())
    first, second = program_(task="123_46758"), program_(task="123_46758")
    assert first.trajectory == second.trajectory and env.score(env.task("123_46758"), first.answer) == 1.0
    assert json.loads(json.dumps(first.toDict()))["answer"] == first.answer


def test_bad_boards_and_bad_moves_are_one_line(env):
    with pytest.raises(TaskError, match="'12' is no board: write each of 12345678_ once"):
        GreedySearch(env, LegalMoves(), Distance())(task="12")
    [result] = run_sync(run_tasks(program("greedy", env, scripted(lambda *_: "no")), ["123_46758"]))
    assert result.notes["nothing to choose from at the start"] == 1 and result.answer == ""
