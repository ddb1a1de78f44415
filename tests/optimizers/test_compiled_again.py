"""A compiled program is a program: it is compiled again, and other optimizers take it along."""

from __future__ import annotations

import dspy
import pytest

import stl_programs
from optimizers import LoraSettings, SelfTaughtLookahead
from signatures import Lookahead
from stl_programs import MCTS, GreedySearch, LegalMoves, Policy, Value
from stl_programs.testing.simulator import Simulator
from tests.stl_programs.environments.own_worlds.puzzle import Puzzle, reply

SMALL = LoraSettings(epochs=1, learning_rate=1e-3, warmup_steps=1, batch_size=8, max_length=2048)


@pytest.fixture(scope="module")
def env():
    return Puzzle()


@pytest.fixture(scope="module")
def served():
    with Simulator(lambda messages, model, seed: reply(messages, seed), ["player"]) as server:
        yield stl_programs.lm("hosted_vllm/player", api_base=server.url, cache=False)


def optimizer(folder, weights, **options):
    return SelfTaughtLookahead(tasks_per_iteration=2, run_dir=folder, weights=weights, lora=SMALL, **options)


def test_a_compiled_program_is_compiled_again(env, served, tiny_chat_model, tmp_path):
    student = MCTS(env, LegalMoves(), Value(env.value_signature, served, samples=2, format="chat"), simulations=4)
    once = optimizer(tmp_path / "one", tiny_chat_model, expand="all").compile(student, trainset=env.tasks("train"))
    twice = optimizer(tmp_path / "two", tiny_chat_model).compile(once, trainset=env.tasks("train"))
    assert student.value.predict.adapter is None
    names = [program.value.lm for program in (once, twice)]
    assert all(name.startswith("hosted_vllm/player@value-v1-") for name in names) and names[0] != names[1]
    assert list(twice.value.predict.signature.output_fields) == list(Lookahead.output_fields)
    outcome = twice(task="123_46758")
    assert outcome.tree.root.children and twice.value.model.name == names[1]


def test_better_together_keeps_the_adapter_of_its_weight_step(env, served, tiny_chat_model, tmp_path):
    student = GreedySearch(env, Policy(env.policy_signature, count=2, rounds=1, format="chat"),
                           Value(env.value_signature, samples=1, format="chat"))
    student.set_lm(served)
    calls = []

    def metric(example, prediction, trace=None):
        calls.append(example.task)
        return float(len(calls) > 2)  # whatever comes after the student is better

    devset = [dspy.Example(task=task.text).with_inputs("task") for task in env.tasks("train")]
    with dspy.context(experimental=True, lm=served):
        both = dspy.BetterTogether(metric=metric, w=optimizer(tmp_path / "w", tiny_chat_model))
        best = both.compile(student, trainset=devset, valset=devset[:2], strategy="w")
    tried = {one["strategy"]: one["program"].value for one in best.candidate_programs}
    assert len(tried) == 2, "the student, and what came of the weight step"
    assert best.value.lm.startswith("hosted_vllm/player@value-v1-") and best.value.model.name == best.value.lm
    assert list(best.value.predict.signature.output_fields) == list(Lookahead.output_fields)
    best.save(tmp_path / "program.json")
    loaded = GreedySearch(env, Policy(env.policy_signature, served), Value(env.value_signature, served))
    loaded.load(tmp_path / "program.json")
    assert loaded.value.lm == best.value.lm and loaded(task="1234567_8").tree.root.children
