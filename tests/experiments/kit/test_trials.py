"""Of several trials: the first, the own choice, the oracle's."""

from __future__ import annotations

import asyncio

import pytest

from experiments.hotpotqa.judging import JudgedHotpotQA
from experiments.kit.trials import FIRST, ORACLE, OWN, trials
from stl_programs import (
    MCTS,
    BeamSearch,
    BestFirstSearch,
    GreedySearch,
    HotpotQA,
    LegalMoves,
    Value,
    WebShop,
    run_tasks,
)
from stl_programs.testing import ScriptedModel, answering
from stl_programs.testing.readers import librarian, shopper

WORLDS = {"webshop": (lambda: WebShop(tags="rules", max_depth=5), shopper), "hotpotqa": (HotpotQA, librarian)}


def judge(env, reader, **settings):
    return Value(env.value_signature, ScriptedModel("scripted/reader", answering(reader)), format="chat", **settings)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("search, settings", [(GreedySearch, {}), (BeamSearch, {"width": 3}),
                                              (MCTS, {"simulations": 6}), (BestFirstSearch, {"expansions": 6})])
def test_every_search_plays_every_world(name, search, settings):
    build, reader = WORLDS[name]
    env = build()
    tasks = env.tasks("test")[:10]
    results = asyncio.run(run_tasks(search(env, LegalMoves(), judge(env, reader, samples=1), **settings), tasks))
    assert [one.error for one in results] == [None] * 10
    scores = [env.score(task, one.answer) for task, one in zip(tasks, results, strict=True)]
    assert all(0 <= score <= 1 for score in scores) and any(one.answer for one in results)
    if name == "webshop":
        assert sum(scores) > 0 and all(one.committed is None for one in results), "something was bought in a search"
        assert {one.untaken for one in results} <= {"click[buy now]", None}


def test_the_own_choice_never_looks_at_the_score(tmp_path):
    env = WebShop(tags="rules", max_depth=5)
    program = GreedySearch(env, LegalMoves(), judge(env, shopper, samples=1))
    first, own, oracle = trials(program, env.tasks("test")[:12], row="V0", split="test", folder=tmp_path)
    assert [cell.setting["trial"] for cell in (first, own, oracle)] == [FIRST, OWN, ORACLE]
    everything = trials_of(program, env, tmp_path)
    for place, outcome in enumerate(own.outcomes[0]):
        attempts = [seed[place] for seed in everything]
        assert outcome["own_value"] == max(one["own_value"] for one in attempts)
        assert outcome["states_judged"] == sum(one["states_judged"] for one in attempts)
        assert oracle.outcomes[0][place]["score"] == max(one["score"] for one in attempts)
        assert first.outcomes[0][place]["answer"] == attempts[0]["answer"]
    assert first.mean_score <= oracle.mean_score and own.mean_score <= oracle.mean_score


def trials_of(program, env, folder):
    from experiments.kit.evaluation import evaluate

    return evaluate(program, env.tasks("test")[:12], row="V0", split="test", seeds=range(3), folder=folder,
                    keep_trees=True).outcomes


def test_a_judge_is_asked_once_for_an_answer_and_an_unclear_verdict_is_no_match(tmp_path):
    world = HotpotQA()
    tasks = world.tasks("test")[:3]
    right = [world.questions[task.id].answer for task in tasks]
    said = {"something like it": "Yes.", "nothing of it": "no", "a riddle": "perhaps"}
    model = ScriptedModel("scripted/judge", answering(
        lambda inputs, seed: {"rationale": "Compared.", "verdict": said[inputs["answer"]]}))

    async def scores(env, answers):
        return [await env.ascore(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    env = JudgedHotpotQA(world, model, tmp_path / "judged.jsonl")
    assert asyncio.run(scores(env, right)) == [1, 1, 1] and not model.requests, "an exact match needs no judge"
    assert asyncio.run(scores(env, said)) == [1, 0, 0] and len(model.requests) == 3
    assert asyncio.run(scores(env, said)) == [1, 0, 0] and len(model.requests) == 3
    again = JudgedHotpotQA(world, model, tmp_path / "judged.jsonl")
    assert asyncio.run(scores(again, said)) == [1, 0, 0] and len(model.requests) == 3
    assert "3 answers were judged, 1 right, 1 unclear" in again.said()
    [bill] = again.bills()
    assert (bill.phase, bill.calls) == ("judging", 3) and bill.prompt_tokens > 0
