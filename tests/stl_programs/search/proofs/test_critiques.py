from __future__ import annotations

from stl_programs import Policy
from tests.stl_programs.environments.own_worlds.prompts import chat, inputs
from tests.stl_programs.environments.own_worlds.searches import scripted
from tests.stl_programs.search.proofs.critiques import ProposeAgain, Revising
from tests.stl_programs.search.proofs.letters import Letters, Table

WORTH = {"a": 0.1, "b": 0.4, "c": 0.2, "ba": 0.3, "bb": 0.2, "bc": 0.9}


def heeds(prompts):
    """A model that writes down what it reads, and names the first letter that nobody criticised."""
    def reply(messages, seed):
        prompts.append(inputs(messages)["siblings"])
        return chat(actions=[next(letter for letter in "abc" if f"{letter} ->" not in prompts[-1])])

    return scripted(reply)


def test_every_proposal_knows_the_critiques_of_those_before_it():
    env, prompts = Letters(), []
    policy = Policy(ProposeAgain, heeds(prompts), rounds=1)
    outcome = Revising(env, policy, Table(WORTH), tries=3)(task="abc")
    assert outcome.answer == "bc" and outcome.trajectory == ["b", "c"]
    assert [prompt.count(" -> ") for prompt in prompts] == [0, 1, 2, 0, 1, 2], "of this state, and not of another"
    assert "a -> a (a was looked up)" in prompts[1] and "b -> b (b was looked up)" in prompts[2]
    assert "ba (ba was looked up)" in prompts[4]


def test_what_is_known_of_the_siblings_is_part_of_the_question():
    env, prompts = Letters(), []
    policy = Policy(ProposeAgain, heeds(prompts), rounds=1)
    tree = Revising(env, policy, Table(WORTH), tries=3)(task="abc").tree
    assert [child.action for child in tree.children(tree.root)] == ["a", "b", "c"], "memory repeated no proposal"
