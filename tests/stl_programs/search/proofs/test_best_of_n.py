from __future__ import annotations

from collections import Counter

import pytest

from stl_programs import Budget, Policy, Uniform, run_sync, run_tasks
from stl_programs.tree import Tree
from tests.stl_programs.environments.own_worlds.prompts import chat
from tests.stl_programs.environments.own_worlds.searches import scripted
from tests.stl_programs.environments.own_worlds.word_problems import WordProblems, reply
from tests.stl_programs.search.proofs.best_of_n import BestOfN
from tests.stl_programs.search.proofs.letters import Letters, Table


@pytest.fixture(scope="module")
def env():
    return WordProblems()


def says(words):
    """A model that says one letter of `words` a draw, as its seed has it."""
    return scripted(lambda messages, seed: chat(actions=[words[seed % len(words)]]))


def letters(words, worth, **options):
    env = Letters(max_depth=1)
    return BestOfN(env, Policy(env.policy_signature, says(words)), Table(worth), n=20, **options)(task="abc")


def test_draws_are_independent_and_no_proposal_is_repeated_from_memory(env):
    model = scripted(reply)
    search = BestOfN(env, Policy(env.policy_signature, model), Uniform(), n=8)
    tree = search(task=env.tasks("test")[0]).tree
    first = tree.children(tree.root)
    assert len(first) == 8 and len(model.requests) == 16, "two steps each, every one asked for by itself"
    assert len({node.action for node in first}) > 1, "the draws differ"
    assert len({seeds for _, seeds in model.requests}) == 16
    assert search(task=env.tasks("test")[0]).tree.to_dict() == tree.to_dict(), "and a second run draws them again"


def test_a_vote_beats_a_single_draw(env):
    tasks, solved = env.tasks("test"), Counter()
    for n in (1, 9):
        search = BestOfN(env, Policy(env.policy_signature, scripted(reply)), Uniform(), n=n, weighted=False)
        results = run_sync(run_tasks(search, tasks, seed=[0, 1, 2]))
        solved[n] = sum(env.score(env.task(result.task), result.answer) for result in results)
    assert solved[9] > solved[1] > 0


def test_a_value_outweighs_heads():
    worth = {"a": 0.1, "b": 0.9}
    heads, weighed = letters("aaab", worth, weighted=False), letters("aaab", worth)
    counts = Counter(node.state.text for node in heads.tree.nodes if node.kept and node.depth)
    assert counts["a"] > counts["b"] > 0 and 0.1 * counts["a"] < 0.9 * counts["b"], "the draws make it a case"
    assert (heads.answer, weighed.answer) == ("a", "b")


def test_equal_draws_count_as_often_as_they_were_made():
    tree = letters("a", {"a": 0.5}).tree
    assert len(tree.nodes) == 21 and {node.state.text for node in tree.nodes[1:]} == {"a"}


def test_it_is_bounded_saved_and_silent_where_the_policy_is(env, tmp_path):
    policy = Policy(env.policy_signature, scripted(reply))
    search = BestOfN(env, policy, Uniform(), n=5, weighted=False, budget=Budget(calls=6))
    outcome = search(task=env.tasks("test")[0])
    assert "budget of 6 calls" in outcome.ended and outcome.usage["policy"]["calls"] == 6
    search.save(tmp_path / "best.json")
    loaded = BestOfN(env, policy, Uniform())
    loaded.load(tmp_path / "best.json")
    assert (loaded.n, loaded.weighted, loaded.budget) == (5, False, Budget(calls=6))
    silent = BestOfN(env, Policy(env.policy_signature, scripted(lambda *_: "no")), Uniform())
    [result] = run_sync(run_tasks(silent, env.tasks("test")[:1], keep_trees=True))
    assert result.answer == "" and len(Tree.from_dict(result.tree)) == 1
