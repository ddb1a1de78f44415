"""A search program wherever dspy takes a module."""

from __future__ import annotations

import asyncio
import copy
import json

import dspy
import pytest
from dspy.utils import DummyLM

import stl_programs
from stl_programs import BeamSearch, GreedySearch, LegalMoves, Policy, Uniform, Value
from stl_programs.errors import StlError
from stl_programs.testing import ScriptedModel, Simulator
from stl_programs.testing.game24_script import game24_script

TASKS = ["4 5 6 10", "1 2 3 4", "2 3 4 6", "1 3 4 6"]


def reply(messages, seed):
    return game24_script(messages, "m", seed)


@pytest.fixture
def lm():
    with Simulator(lambda messages, model, seed: reply(messages, seed), ["m"]) as server:
        yield stl_programs.lm("hosted_vllm/m", api_base=server.url, max_tokens=300)


@pytest.fixture
def program(env, lm):
    """Its parts have no model of their own: they ask the one that dspy is configured with."""
    with dspy.context(lm=lm):
        yield BeamSearch(env, Policy(env.policy_signature, count=3, rounds=1), Value(env.value_signature, samples=2),
                         width=2)


@pytest.fixture
def examples():
    return [dspy.Example(task=task, source="book", answer="24").with_inputs("task") for task in TASKS]


@pytest.fixture
def metric(env):
    return lambda example, prediction, trace=None: env.score(env.task(example.task), prediction.answer)


# Many at once

def test_batch_parallel_and_evaluate_give_what_single_calls_give(program, examples, metric):
    alone = [program(task=task).answer for task in TASKS]
    assert [one.answer for one in program.batch(examples, num_threads=3)] == alone
    pairs = [(program, example) for example in examples]
    assert [one.answer for one in dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)] == alone
    found = dspy.Evaluate(devset=examples, metric=metric, num_threads=3, display_progress=False)(program)
    assert [prediction.answer for _, prediction, _ in found.results] == alone
    assert [score for _, _, score in found.results] == [
        metric(*pair) for pair in zip(examples, [dspy.Prediction(answer=a) for a in alone], strict=True)]


def test_evaluate_displays_a_table(program, examples, metric, capsys):
    pytest.importorskip("pandas")
    dspy.Evaluate(devset=examples[:2], metric=metric, num_threads=2, display_progress=False, display_table=2)(program)
    assert TASKS[0] in capsys.readouterr().out


def test_a_task_that_is_none_is_one_failure_of_an_evaluation(program, examples, metric):
    wrong = dspy.Example(task="no puzzle").with_inputs("task")
    found = dspy.Evaluate(devset=[wrong, *examples[:2]], metric=metric, num_threads=2, display_progress=False,
                          max_errors=5, failure_score=-1.0)(program)
    assert found.results[0][2] == -1.0 and len(found.results) == 3


# Other ways to call

def test_asynchronous_calls(program):
    expected = program(task=TASKS[0]).answer

    async def main():
        several = await asyncio.gather(program.acall(task=TASKS[0]), dspy.asyncify(program)(task=TASKS[0]))
        streamed = [part async for part in dspy.streamify(program)(task=TASKS[0])]
        return [*several, streamed[-1]]

    assert [one.answer for one in asyncio.run(main())] == [expected] * 3


def test_a_task_by_position_and_an_example_with_further_inputs(env, lm):
    class Hinted(type(env)):
        policy_signature = env.policy_signature.append("hint", dspy.InputField(), type_=str)

    hinted = Hinted()
    program = GreedySearch(hinted, Policy(hinted.policy_signature, lm, count=2, rounds=1), Uniform())
    example = dspy.Example(task=TASKS[0], hint="try 6 first", answer="x", book=3).with_inputs("task", "hint")
    assert program(**example.inputs()).answer
    assert all("try 6 first" in entry["messages"][-1]["content"] for entry in lm.history) and lm.history
    lm.history.clear()
    assert program(TASKS[0], hint="try 5 first").answer
    assert "try 5 first" in lm.history[0]["messages"][-1]["content"]
    with pytest.raises(StlError, match="knows no input 'hint'"):
        program(task=TASKS[0])


def test_best_of_n_refine_and_majority(program):
    assert dspy.majority([program(task=TASKS[0]) for _ in range(2)]).answer == program(task=TASKS[0]).answer
    best = dspy.BestOfN(module=program, N=2, reward_fn=lambda args, prediction: float(bool(prediction.answer)),
                        threshold=1.0)
    assert best(task=TASKS[0]).answer == program(task=TASKS[0]).answer
    refine = dspy.Refine(module=program, N=2, reward_fn=lambda args, prediction: 2.0, threshold=1.0)
    assert refine(task=TASKS[0]).answer


def test_a_trace_holds_the_predictors_of_the_program(program):
    with dspy.context(trace=[]):
        program(task=TASKS[0])
        trace = list(dspy.settings.trace)
    names = {id(one): name for name, one in program.named_predictors()}
    assert {names[id(one)] for one, _, _ in trace} == {"policy.predict", "value.predict"} == set(names.values())


# Copies, models, files

def test_copies_are_apart_and_answer_alike(program):
    expected = program(task=TASKS[0]).answer
    program.policy.predict.demos = [dspy.Example(state="4 6", not_allowed=[], count=1, actions=["4 * 6 = 24"])]
    for made in (copy.deepcopy(program), program.deepcopy()):
        assert made.policy.predict is not program.policy.predict and len(made.policy.predict.demos) == 1
        made.policy.predict.demos = []
        assert made(task=TASKS[0]).answer == expected and len(program.policy.predict.demos) == 1
    fresh = program.reset_copy()
    assert fresh.policy.predict.demos == [] and len(program.policy.predict.demos) == 1
    assert fresh(task=TASKS[0]).answer == expected


def test_set_lm_reaches_every_part_and_get_lm_gives_it_back(env, lm):
    program = GreedySearch(env, Policy(env.policy_signature, "embedded/game24"), Value(env.value_signature))
    program.set_lm(lm)
    assert program.get_lm() is lm and program.policy.lm is lm and program.value.lm is lm
    assert program(task=TASKS[0]).answer and lm.history


class Around(dspy.Module):
    def __init__(self, search):
        super().__init__()
        self.search, self.say = search, dspy.Predict("question -> answer")

    def forward(self, question):
        return dspy.Prediction(answer=self.search(task=question).answer)


def test_inside_of_another_module_it_is_called_copied_saved_and_loaded(env, program, tmp_path):
    outer = Around(program)
    assert outer(question=TASKS[0]).answer == program(task=TASKS[0]).answer
    predictor = program.value.predict
    predictor.signature = predictor.signature.with_instructions("Look for 24.")
    predictor.samples, program.width = 5, 4
    outer.save(tmp_path / "outer.json")
    again = Around(BeamSearch(env, Policy(env.policy_signature), Value(env.value_signature)))
    again.load(tmp_path / "outer.json")
    assert again.search.value.predict.signature.instructions == "Look for 24."
    assert (again.search.value.samples, again.search.width, again.search.policy.count) == (5, 4, 3)
    assert {name for name, _ in again.named_predictors()} == {"search.policy.predict", "search.value.predict", "say"}


def test_a_program_is_not_pickled(program, tmp_path):
    with pytest.raises(StlError, match="would pickle code"):
        program.save(tmp_path / "folder", save_program=True)


# Predictions and models

def test_a_prediction_is_json(program):
    prediction = program(task=TASKS[0])
    record = json.loads(json.dumps(prediction.toDict()))
    assert set(record) >= {"answer", "trajectory", "tree", "usage", "cost", "ended", "untaken", "notes"}
    assert record["answer"] == prediction.answer and record["tree"]["nodes"]
    assert stl_programs.Tree.from_dict(record["tree"]).to_dict() == record["tree"]
    assert "answer=" in repr(prediction) and "states of" in repr(prediction.tree)


def test_a_model_object_or_a_dummy_is_enough(env):
    scripted = ScriptedModel("scripted/m", reply)
    program = GreedySearch(env, Policy(env.policy_signature, count=2, rounds=1), Value(env.value_signature))
    with dspy.context(lm=scripted):
        assert program(task=TASKS[0]).answer and scripted.requests
    dummy = DummyLM([{"rationale": "r", "score": "sure"}] * 200)
    assert GreedySearch(env, LegalMoves(), Value(env.value_signature, dummy))(task=TASKS[0]).answer
    assert dummy.history


def test_an_lm_of_dspys_own_making_asks_the_same_server(env):
    with Simulator(lambda messages, model, seed: reply(messages, seed), ["m"]) as server:
        lm = dspy.LM("openai/m", api_base=server.url, api_key="x")
        program = GreedySearch(env, Policy(env.policy_signature, lm, count=2, rounds=1), Value(env.value_signature, lm))
        assert program(task=TASKS[0]).answer and len(server.requests) == len(lm.history) > 0
