"""An own world of free text, in which no action can be listed."""

from __future__ import annotations

import pytest

from stl_programs import BeamSearch, GreedySearch, LegalMoves, Policy, Tree, Uniform, Value, run_sync, run_tasks
from stl_programs.errors import StlError
from tests.stl_programs.environments.own_worlds.searches import SEARCHES, program, scripted
from tests.stl_programs.environments.own_worlds.word_problems import WordProblems, reply


@pytest.fixture(scope="module")
def env():
    return WordProblems()


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_reasons_to_a_right_answer(env, name):
    tasks = env.tasks("test")
    results = run_sync(run_tasks(program(name, env, scripted(reply)), tasks, keep_trees=True))
    assert [result.error for result in results] == [None] * len(tasks)
    assert sum(env.score(task, result.answer) for task, result in zip(tasks, results, strict=True)) >= 4
    for result in results:
        tree = Tree.from_dict(result.tree)
        for node in tree.nodes:
            keys = [child.state.key for child in tree.children(node)]
            assert len(set(keys)) == len(keys), "a state stands twice under one parent"


def test_a_step_of_several_lines_is_one_action_and_one_line_of_the_picture(env):
    outcome = program("beam", env, scripted(reply))(task=env.tasks("test")[0])
    assert "\n" in outcome.trajectory[0] and len(outcome.trajectory) == 2
    assert outcome.tree.nodes[1].state.history == (outcome.tree.nodes[1].action,)
    assert len(outcome.tree.render().splitlines()) == sum(node.kept for node in outcome.tree.nodes)


def test_the_state_is_the_last_line_and_the_way_there_is_apart(env):
    model = scripted(reply)
    outcome = program("greedy", env, model)(task=env.tasks("test")[0])
    leaf = outcome.tree.nodes[outcome.tree.about["chosen"]]
    assert leaf.state.text == outcome.trajectory[-1] and leaf.observation == leaf.state.text
    assert leaf.state.key != leaf.state.text, "two ways to one line are two states"
    asked = next(text for text, _ in model.requests if f"state ## ]]\\n{leaf.state.text}" in text)
    assert outcome.trajectory[0].replace("\n", "\\n") in asked, "the model reads the steps before, too"


def test_moves_that_cannot_be_listed_are_refused_before_anything_is_asked(env):
    model = scripted(reply)
    search = BeamSearch(env, LegalMoves(), Value(env.value_signature, model))
    with pytest.raises(StlError, match="word problems cannot be listed, so LegalMoves cannot propose them; use a Pol"):
        search(task=env.tasks("test")[0])
    assert not model.requests and not env.listable
    assert env.tasks("test")[0].id in search.environment.tasks("any")[0].id


def test_several_ways_of_one_question_are_distinct_unless_they_are_asked_for(env):
    def same(messages, seed):
        return reply(messages, 1)

    task = env.tasks("test")[0]
    few = GreedySearch(env, Policy(env.policy_signature, scripted(same), count=3, samples=2, rounds=1), Uniform())
    many = GreedySearch(env, Policy(env.policy_signature, scripted(same), count=3, samples=2, rounds=1,
                                    distinct=False), Uniform())
    keys = [[child.state.key for child in outcome.tree.children(outcome.tree.root)]
            for outcome in (few(task=task), many(task=task))]
    assert len(keys[0]) == len(set(keys[0])) < len(keys[1]) == 3
