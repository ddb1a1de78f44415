"""Self-Taught Lookahead on Game of 24 against a real vLLM server: policy and value are served, adapters hot-loaded."""

from __future__ import annotations

import pytest

from optimizers import LoraSettings, SelfTaughtLookahead
from stl_programs import BeamSearch, Policy, Uniform, Value, engine, models
from stl_programs.records import Task
from stl_programs.situations import Situation
from tests.vllm.conftest import serving

pytestmark = pytest.mark.vllm
MODEL = "hosted_vllm/game24"
WEIGHTS = models.EMBEDDED / "game24"
TOKENS = 48
"""Of a reply; with the prompt they have to fit into the model's 64."""


@pytest.fixture(scope="module")
def game24():
    """The model that ships with the package, on a server."""
    with serving(WEIGHTS) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTED_VLLM_API_BASE", server.url)
        yield server


def program(env, samples: int = 3) -> BeamSearch:
    policy = Policy(env.policy_signature, MODEL, count=8, samples=3, max_tokens=TOKENS, format="compact")
    value = Value(env.value_signature, MODEL, samples=samples, aggregate="mean", max_tokens=TOKENS, format="compact")
    return BeamSearch(env, policy, value, width=2)


class Watch:
    """After every iteration, what the server answers to."""

    def __init__(self, server):
        self.server, self.seen = server, []

    def on_start(self, optimizer, program):
        pass

    def on_progress(self, k, stage, done, total, detail=""):
        pass

    def on_iteration(self, iteration, program):
        self.seen.append((iteration.tuned[0].lm, set(self.server.adapters())))

    def on_end(self, program):
        pass


@pytest.fixture(scope="module")
def compiled(env, game24, tmp_path_factory):
    watch = Watch(game24)
    before = game24.metrics()
    stl = SelfTaughtLookahead(
        iterations=2, tasks_per_iteration=10, run_dir=tmp_path_factory.mktemp("stl"), rollout_aggregate="max",
        expand="all", others_per_top=1.5, weights=WEIGHTS, callback=watch,
        lora=LoraSettings(epochs=6, learning_rate=6e-3, batch_size=16, max_length=64))
    return stl.compile(program(env), trainset=env.tasks("train")[:20]), watch, before


def test_every_iteration_is_served_without_a_restart(game24, compiled):
    tuned, watch, before = compiled
    names = [lm.removeprefix("hosted_vllm/") for lm, _ in watch.seen]
    assert [name.split("-")[1] for name in names] == ["v1", "v2"] and tuned.value.lm == f"hosted_vllm/{names[1]}"
    assert [served for _, served in watch.seen] == [{names[0]}, set(names)]
    after = game24.metrics()
    assert after["started"] == before["started"] and after["generation_tokens"] > before["generation_tokens"]


def test_the_tuned_value_reads_and_judges(env, compiled):
    result = engine.run_sync(engine.run_tasks(compiled[0], env.tasks("validation")[:5], seed=1))
    assert not [found.error for found in result if found.error]
    for found in result:
        usage = found.usage["value"]
        assert usage["calls"] > 0 and usage["completion_tokens"] > usage["samples"]
        assert usage["parse_failures"] < usage["samples"] / 2


def test_the_tuned_value_knows_better_what_can_be_made_into_24(env, compiled):
    solvable, others = ["4 6", "3 8", "12 12", "10 14", "2 12", "4 20"], ["1 2", "5 5", "3 4", "7 9", "1 1", "8 9"]

    def gap(value: Value) -> float:
        situations = [Situation(env, Task(text, text), env.reset(Task(text, text))) for text in solvable + others]
        value = value.deepcopy()
        value.samples = 8
        scores = [found.score for found in engine.run_sync(value.aforward(situations))]
        return sum(scores[:len(solvable)]) / len(solvable) - sum(scores[len(solvable):]) / len(others)

    assert gap(compiled[0].value) > gap(program(env).value) + 2


def test_a_saved_program_is_served_again(env, compiled, tmp_path):
    tuned = compiled[0]
    tuned.save(tmp_path / "served.json")
    loaded = program(env)
    loaded.value = Uniform()
    loaded.load(tmp_path / "served.json")
    assert loaded.value.lm == tuned.value.lm and loaded.value.format == tuned.value.format
    assert loaded(task="4 5 6 10").answer == tuned(task="4 5 6 10").answer
