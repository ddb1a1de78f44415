"""dspy's own optimizers, end to end on a search program: what they find stays, and reaches the model."""

from __future__ import annotations

import json
import re

import dspy
import pytest

import stl_programs
from optimizers import LoraSettings, SelfTaughtLookahead
from stl_programs import GreedySearch, LegalMoves, Policy, Value
from stl_programs.environments.game24.world import moves, parse_numbers, solvable
from stl_programs.testing import Simulator

FOUND = "FIRST look which pairs make 24."
TASKS = ["4 5 6 10", "1 2 3 4", "2 3 4 6", "1 3 4 6", "2 2 6 6", "3 3 8 8"]
QUICK = LoraSettings(epochs=1, learning_rate=3e-3, batch_size=16, max_length=64)


# The model: it plays Game of 24 well where it is told to, and answers whatever else an optimizer asks

def reply(messages, model, seed):
    everything = "\n".join(message["content"] for message in messages)
    outputs = output_fields(everything)
    if outputs & {"actions", "score"}:
        return played(messages, outputs)
    if "a JSON object" in everything:                               # GEPA's reflection
        return json.dumps(dict.fromkeys(outputs, FOUND))
    return "".join(f"[[ ## {name} ## ]]\n{FOUND}\n\n" for name in sorted(outputs)) + "[[ ## completed ## ]]"


def output_fields(text):
    found = re.search(r"Your output fields are:\n(.*?)\n(?!\d+\. )", text, re.DOTALL)
    return set(re.findall(r"^\d+\. `(\w+)`", found[1], re.MULTILINE)) if found else set()


def played(messages, outputs):
    state = re.findall(r"\[\[ ## state ## \]\]\n([-0-9/ ]+)", messages[-1]["content"])[-1].strip()
    told = FOUND in messages[0]["content"]
    if "actions" in outputs:
        steps = sorted(moves(parse_numbers(state)), key=lambda step: solvable(step[1]) != told)
        return f"[[ ## actions ## ]]\n{json.dumps([text for text, _ in steps[:2]])}\n\n[[ ## completed ## ]]"
    score = "sure" if solvable(parse_numbers(state)) else "impossible"
    return f"[[ ## rationale ## ]]\nlooked at {state}\n\n[[ ## score ## ]]\n{score}\n\n[[ ## completed ## ]]"


@pytest.fixture
def server():
    with Simulator(reply, ["m"]) as server:
        yield server


@pytest.fixture
def lm(server):
    lm = stl_programs.lm("hosted_vllm/m", api_base=server.url, max_tokens=2000)
    with dspy.context(lm=lm):
        yield lm


@pytest.fixture
def trainset():
    return [dspy.Example(task=task, source="book").with_inputs("task") for task in TASKS]


@pytest.fixture
def metric(env):
    def metric(example, prediction, trace=None, pred_name=None, pred_trace=None):
        return env.score(env.task(example.task), prediction.answer)

    return metric


def build(env, policy=None):
    """Its policy knows the way only where it is told (`FOUND`); listing every move, it needs no telling."""
    return GreedySearch(env, policy or Policy(env.policy_signature, count=2, rounds=1),
                        Value(env.value_signature, samples=1))


def prompts(server, program):
    """What the model is asked when the program searches a puzzle, as one text a call."""
    before = len(server.requests)
    assert program(task="1 4 5 6").trajectory
    return ["\n".join(message["content"] for message in request["messages"]) for request in server.requests[before:]]


def instructions(program):
    return {name: predictor.signature.instructions for name, predictor in program.named_predictors()}


def demos(program):
    return {name: [dict(demo) for demo in predictor.demos] for name, predictor in program.named_predictors()}


def survives(env, server, program, path, policy=None):
    """The program, saved and loaded into a fresh one: it holds and asks the same. Gives its prompts."""
    asked = prompts(server, program)
    program.save(path)
    loaded = build(env, policy)
    assert (instructions(loaded), demos(loaded)) != (instructions(program), demos(program)), "nothing was optimized"
    loaded.load(path)
    assert (instructions(loaded), demos(loaded)) == (instructions(program), demos(program))
    assert prompts(server, loaded) == asked
    return asked


# Demonstrations

def check_demos(env, server, program, path):
    asked = survives(env, server, program, path, LegalMoves())
    [found] = demos(program).values()
    assert found and all(demo["score"] in ("sure", "impossible") for demo in found)
    assert asked and all(f"looked at {demo['state']}" in text for text in asked for demo in found)


def test_bootstrap_few_shot(env, server, lm, trainset, metric, tmp_path):
    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0)
    student = build(env, LegalMoves())
    check_demos(env, server, optimizer.compile(student, trainset=trainset), tmp_path / "p.json")
    assert demos(student) == {"value.predict": []}


def test_bootstrap_few_shot_with_random_search(env, server, lm, trainset, metric, tmp_path):
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=lambda example, prediction, trace=None: metric(example, prediction) * (
            trace is not None or any("looked at" in request["messages"][2]["content"]
                                     for request in server.requests[-1:] if len(request["messages"]) > 2)),
        max_bootstrapped_demos=1, max_labeled_demos=0, num_candidate_programs=2, num_threads=1)
    compiled = optimizer.compile(build(env, LegalMoves()), trainset=trainset[:4])
    check_demos(env, server, compiled, tmp_path / "p.json")


# Instructions

def check_instructions(env, server, program, path):
    asked = survives(env, server, program, path)
    assert FOUND in instructions(program)["policy.predict"]
    assert any(FOUND in text and "## actions ##" in text for text in asked)


def test_copro(env, server, lm, trainset, metric, tmp_path):
    optimizer = dspy.COPRO(metric=metric, breadth=2, depth=1, prompt_model=lm)
    compiled = optimizer.compile(build(env), trainset=trainset[:3],
                                 eval_kwargs={"num_threads": 2, "display_progress": False})
    check_instructions(env, server, compiled, tmp_path / "p.json")


def test_mipro_v2(env, server, lm, trainset, metric, tmp_path):
    optimizer = dspy.MIPROv2(metric=metric, auto=None, num_candidates=3, max_bootstrapped_demos=1, max_labeled_demos=0,
                             num_threads=2, seed=1)
    compiled = optimizer.compile(build(env), trainset=trainset[:3], valset=trainset[3:], num_trials=8,
                                 minibatch=False)
    check_instructions(env, server, compiled, tmp_path / "p.json")


def test_gepa(env, server, lm, trainset, metric, tmp_path):
    def told(gold, pred, trace=None, pred_name=None, pred_trace=None):
        return dspy.Prediction(score=metric(gold, pred), feedback=f"{pred_name} may look at pairs first")

    optimizer = dspy.GEPA(metric=told, max_metric_calls=60, reflection_lm=lm, num_threads=2,
                          reflection_minibatch_size=2, seed=0)
    compiled = optimizer.compile(build(env), trainset=trainset, valset=trainset[:3])
    check_instructions(env, server, compiled, tmp_path / "p.json")


# Weights beside prompts

def together(env, metric, tmp_path, **optimizers):
    lookahead = SelfTaughtLookahead(iterations=1, tasks_per_iteration=3, run_dir=tmp_path / "run", lora=QUICK)
    return dspy.BetterTogether(metric=metric, w=lookahead, **optimizers)


def later_is_better():
    """A metric by which every program is better than those before it, so that the last step's is chosen."""
    calls = []

    def metric(example, prediction, trace=None):
        calls.append(example)
        return float(len(calls))

    return metric


def asks_its_adapter(program):
    [step] = [name for name, predictor in program.named_predictors() if predictor.adapter]
    assert step == "value.predict" and program.value.lm.startswith("embedded/game24@value-v1-")
    prediction = program(task="1 4 5 6")
    assert "best_action" in program.value.predict.signature.output_fields
    assert program.value.predict.history[-1]["model"] == program.value.lm == program.value.model.name
    return prediction.answer


def test_better_together_with_lookahead_as_its_only_step(env, trainset, tmp_path):
    lm = stl_programs.lm("embedded/game24")
    with dspy.context(lm=lm, experimental=True):
        student = build(env, LegalMoves())
        student.set_lm(lm)
        compiled = together(env, later_is_better(), tmp_path).compile(student, trainset=trainset, strategy="w",
                                                                      valset=trainset[:2])
        assert [one["strategy"] for one in compiled.candidate_programs] == ["w", ""]
        answer = asks_its_adapter(compiled)
        compiled.save(tmp_path / "p.json")
        loaded = build(env, LegalMoves())
        loaded.load(tmp_path / "p.json")
        assert asks_its_adapter(loaded) == answer and student.value.predict.adapter is None


@pytest.mark.slow
def test_better_together_prompts_then_weights(env, server, lm, trainset, metric, tmp_path):
    with dspy.context(experimental=True):
        student = build(env)
        student.policy.lm, student.value.lm = lm, "embedded/game24"
        copro = dspy.COPRO(metric=metric, breadth=2, depth=1, prompt_model=lm)
        compiled = together(env, later_is_better(), tmp_path, p=copro).compile(
            student, trainset=trainset, strategy="p -> w", valset=trainset[:2],
            optimizer_compile_args={"p": {"eval_kwargs": {"num_threads": 1, "display_progress": False}}})
        assert not compiled.flag_compilation_error_occurred
        assert compiled.candidate_programs[0]["strategy"] == "p -> w"
        assert FOUND in instructions(compiled)["policy.predict"]
        answer = asks_its_adapter(compiled)
        compiled.save(tmp_path / "p.json")
        loaded = build(env)
        loaded.policy.lm = lm
        loaded.load(tmp_path / "p.json")
        assert instructions(loaded) == instructions(compiled) and asks_its_adapter(loaded) == answer
        assert any(FOUND in text for text in prompts(server, loaded))
