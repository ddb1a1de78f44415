from __future__ import annotations

import asyncio

import pytest

from signatures import EstimateValue
from stl_programs import GreedySearch, HotpotQA, Value, WebShop, run_tasks
from stl_programs.errors import StlError
from stl_programs.policies.selecting import FillingPolicy, SelectingPolicy
from stl_programs.testing import ScriptedModel, answering


class Naming:
    """A model that names these actions, and records what it was asked."""

    def __init__(self, *actions: str):
        self.actions, self.asked = list(actions), []
        self.model = ScriptedModel("scripted/naming", answering(self.answer))

    def answer(self, inputs, seed):
        self.asked.append(inputs)
        return {"rationale": "so", "actions": self.actions, "score": "5"}


def greedy(env, policy, task):
    judge = ScriptedModel("scripted/judge", answering(lambda inputs, seed: {"rationale": "so", "score": "5"}))
    program = GreedySearch(env, policy, Value(EstimateValue, judge, samples=1))
    [result] = asyncio.run(run_tasks(program, [task], keep_trees=True))
    assert result.error is None
    return result


def test_a_page_with_few_actions_is_not_asked_about():
    shop, naming = WebShop(tags="rules", max_depth=3), Naming("search[oat bar]", "click[no]")
    task = shop.tasks("test")[0]
    product = shop.catalogue.products[0]
    naming.actions = [f"search[{product.title}]", *(f"click[{one.asin}]" for one in shop.catalogue.products[:3])]
    result = greedy(shop, SelectingPolicy(shop.policy_signature, naming.model, count=40, rounds=1), task)
    assert len(naming.asked) == 1 and "search[<keywords>]" in str(naming.asked[0]["possible_actions"])
    assert len(result.trajectory) == 3


def test_a_page_with_many_actions_is_asked_about_and_shows_what_can_be_done():
    shop, naming = WebShop(tags="rules", max_depth=2), Naming("search[free]")
    task = shop.tasks("test")[0]
    greedy(shop, SelectingPolicy(shop.policy_signature, naming.model, count=2, rounds=1), task)
    assert "click[z" not in str(naming.asked[0]["possible_actions"])
    assert "click[z" in str(naming.asked[-1]["possible_actions"])
    assert "next >" not in str(naming.asked[-1]["possible_actions"])


def test_too_few_actions_are_filled_up_from_the_world():
    quiz, naming = HotpotQA(), Naming("search[nowhere at all]")
    task = next(task for task in quiz.tasks("test") if "band" in task.text)
    result = greedy(quiz, FillingPolicy(quiz.policy_signature, naming.model, count=3, rounds=1), task)
    assert result.notes["actions filled up from the world's suggestions"] >= 2
    enough = Naming(*(f"search[town {i}]" for i in range(5)))
    quiet = greedy(quiz, FillingPolicy(quiz.policy_signature, enough.model, count=3, rounds=1), task)
    assert "actions filled up from the world's suggestions" not in quiet.notes


def test_a_world_without_suggestions_says_so(env):
    policy = FillingPolicy(env.policy_signature, Naming("4 + 5 = 9").model)
    [result] = asyncio.run(run_tasks(GreedySearch(env, policy, Value(env.value_signature, Naming("x").model)),
                                     [env.task("4 5 6 10")]))
    assert "suggests no actions" in result.error


@pytest.mark.parametrize("kind", [SelectingPolicy, FillingPolicy])
def test_they_are_saved_and_loaded_as_policies_are(kind, tmp_path):
    quiz = HotpotQA()
    program = GreedySearch(quiz, kind(quiz.policy_signature, Naming("x").model, count=4),
                           Value(quiz.value_signature, Naming("x").model))
    program.save(str(tmp_path / "p.json"))
    other = GreedySearch(quiz, kind(quiz.policy_signature, Naming("x").model),
                         Value(quiz.value_signature, Naming("x").model))
    other.load(str(tmp_path / "p.json"))
    assert other.policy.count == 4
    with pytest.raises(StlError):
        other.load(str(tmp_path / "none.json"))
