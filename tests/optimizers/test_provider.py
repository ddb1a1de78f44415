"""dspy's fine-tuning contract, by real trainings of the embedded model: jobs, engines, servers, BootstrapFinetune."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import dspy
import pytest
from dspy import lm15
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus

from optimizers import LoraSettings
from optimizers.provider import LoraProvider, chat_dataset
from stl_programs import BeamSearch, LegalMoves, Uniform, Value, models
from stl_programs.environments.game24.world import parse_numbers, solvable
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.doors import dspy_lm as door
from stl_programs.models.formats import CompactFormat
from stl_programs.testing.simulator import Simulator

WEIGHTS = models.EMBEDDED / "game24"
REPLY = "4 * 6 = 24 -> 24 . end | sure"
ROWS = [{"messages": [{"role": "user", "content": "value 4 6"}, {"role": "assistant", "content": REPLY}]}]
BY_HEART = LoraSettings(epochs=40, batch_size=1, learning_rate=3e-3, warmup_steps=1, max_length=64)
CHAT = TrainDataFormat.CHAT


def greedy_lm(name: str, provider: LoraProvider, **options) -> dspy.LM:
    lm = door.lm(name, temperature=0.0, max_tokens=40, cache=False, **options)
    lm.provider = provider
    return lm


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def tuned(run_dir) -> dspy.LM:
    lm = greedy_lm("embedded/game24", LoraProvider(run_dir, settings=BY_HEART))
    job = lm.finetune(train_data=ROWS, train_data_format=CHAT, train_kwargs={"seed": 1})
    result = job.result()
    assert (job.status(), job.steps) == (TrainingStatus.succeeded, (40, 40)) and not job.cancel()
    assert lm("value 4 6") != [REPLY]
    return result


def test_the_result_is_an_lm_that_answers_with_the_adapter(tuned):
    assert re.fullmatch(r"embedded/game24@tuned-[0-9a-f]{10}", tuned.model)
    assert tuned("value 4 6") == [REPLY]
    assert asyncio.run(tuned.acall("value 4 6")) == [REPLY]


def test_the_program_runs_on_it(env, tuned, tmp_path):
    program = BeamSearch(env, LegalMoves(), Value(env.value_signature, tuned, samples=1, max_tokens=40), width=1)
    assert models.load(tuned).name == tuned.model
    answer = program(task="4 5 6 10").answer
    program.save(tmp_path / "program.json")
    loaded = BeamSearch(env, LegalMoves(), Uniform())
    loaded.load(tmp_path / "program.json")
    assert loaded(task="4 5 6 10").answer == answer


def test_nothing_is_trained_twice(tuned, run_dir):
    [file] = run_dir.rglob("adapter_model.safetensors")
    before = file.stat().st_mtime_ns
    lm = greedy_lm("embedded/game24", LoraProvider(run_dir, settings=BY_HEART, seed=1))
    assert lm.finetune(ROWS, "chat", None).result().model == tuned.model
    assert file.stat().st_mtime_ns == before


def test_a_tuned_model_is_trained_on_from_its_adapter(tuned, run_dir):
    again = tuned.finetune(ROWS, CHAT, {"epochs": 3}).result()
    assert again.model != tuned.model and again("value 4 6") == [REPLY]


def test_an_engine_that_answers_by_name_follows(tuned, run_dir):
    class Named:
        def complete(self, request):
            model = models.load(request.model)
            reply = asyncio.run(model.complete(models.Request(
                [{"role": "user", "content": request.messages[0].text}], (0,), temperature=0.0, max_tokens=40)))
            return lm15.Response(id=None, model=request.model, message=lm15.Message.assistant(reply.texts[0]),
                                 finish_reason="stop", usage=lm15.Usage())

    lm = dspy.LM("embedded/game24", engine=Named(), cache=False,
                 provider=LoraProvider(run_dir, settings=BY_HEART, seed=1))
    result = lm.finetune(ROWS, CHAT).result()
    assert result.model == tuned.model
    assert (result("value 4 6"), lm("value 4 6") == [REPLY]) == ([REPLY], False)


def test_a_local_directory(tmp_path):
    shutil.copytree(WEIGHTS, tmp_path / "model")
    lm = greedy_lm(f"local/{tmp_path / 'model'}", LoraProvider(tmp_path / "runs", settings=BY_HEART))
    assert lm.finetune(ROWS, CHAT).result()("value 4 6") == [REPLY]


def test_a_served_model_loads_the_adapter(tuned, run_dir):
    with Simulator(model="embedded/game24") as server:
        lm = door.lm("hosted_vllm/game24", api_base=server.url, temperature=0.0, max_tokens=40, cache=False)
        lm.provider = LoraProvider(run_dir, settings=BY_HEART, weights=WEIGHTS, lm=lm, name="served")
        result = lm.finetune(ROWS, CHAT).result()
        assert result.model.startswith("hosted_vllm/game24@served-")
        assert result("value 4 6") == [REPLY] and lm("value 4 6") != [REPLY]
        assert [request["model"] for request in server.requests] == [result.model.partition("/")[2], "game24"]
        models.unregister_adapter(result.model)


def test_a_model_without_weights_is_refused(run_dir):
    provider = LoraProvider(run_dir)
    with pytest.raises(ModelError, match=r"cannot be tuned from here; pass LoraProvider\(weights=DIRECTORY\)"):
        provider.finetune(None, "openai/gpt-4o", ROWS, CHAT)
    with pytest.raises(AdapterError, match="is not registered"):
        provider.finetune(None, "embedded/game24@nobody", ROWS, CHAT)


@pytest.mark.parametrize(("rows", "format_", "why"), [
    (ROWS, TrainDataFormat.COMPLETION, "train_data_format='completion': LoRAs are trained on 'chat' rows"),
    (ROWS, TrainDataFormat.GRPO_CHAT, "train_data_format='grpo_chat'"),
    ([], CHAT, "train_data is empty"),
    ([*ROWS, {"prompt": "4 6", "completion": "24"}], CHAT, "row 1 of train_data is no chat that ends with the assist"),
    ([{"messages": ROWS[0]["messages"][:1]}], CHAT, "row 0 of train_data is no chat that ends with the assistant"),
    ([{"messages": [{"role": "user", "content": [{"type": "image"}]}, ROWS[0]["messages"][1]]}], CHAT, "only text"),
])
def test_rows_that_cannot_be_trained_on_are_named(rows, format_, why):
    with pytest.raises(StlError, match=re.escape(why)):
        chat_dataset(rows, format_)


def test_errors_are_the_result_as_dspy_has_it(run_dir):
    lm = greedy_lm("embedded/game24", LoraProvider(run_dir))
    job = lm.finetune(ROWS, CHAT, {"lr": 1e-3})
    assert isinstance(job.result(), StlError) and "train_kwargs has lr; there is seed, rank," in str(job.result())
    assert job.status() == TrainingStatus.failed
    assert "rows are longer than max_length=5" in str(lm.finetune(ROWS, CHAT, {"max_length": 5}).result())


def test_a_cancelled_job_stops_and_keeps_nothing(run_dir):
    lm = greedy_lm("embedded/game24", LoraProvider(run_dir / "cancelled", settings=BY_HEART))
    job = lm.finetune(ROWS, CHAT, {"epochs": 100_000})
    assert job.cancel()
    assert "was cancelled after step 1 of 100000" in str(job.result())
    assert job.status() == TrainingStatus.cancelled
    assert not list((run_dir / "cancelled").rglob("*.safetensors"))


# dspy.BootstrapFinetune on a search

TASKS = ["4 5 6 10", "1 2 4 6", "2 2 6 6"]


class Rows(LoraProvider):
    """Keeps the rows that it was given."""

    rows: list[dict]

    def finetune(self, job, model, train_data, train_data_format, train_kwargs=None):
        self.rows = train_data
        return super().finetune(job, model, train_data, train_data_format, train_kwargs)

    def judged(self) -> list[tuple[str, str]]:
        """(state, score word) of every row."""
        texts = [[message["content"] for message in row["messages"]] for row in self.rows]
        return [(prompt.removeprefix("value "), reply.rpartition(" | ")[2]) for prompt, reply in texts]


def student(env, provider) -> BeamSearch:
    program = BeamSearch(env, LegalMoves(), Value(env.value_signature, samples=1, max_tokens=40), width=1)
    program.value.predict.lm = door.lm("embedded/game24", cache=False)
    program.value.predict.lm.provider = provider
    return program


def bootstrap(env, run_dir, **options):
    provider = Rows(run_dir, settings=LoraSettings(epochs=1, learning_rate=3e-3))
    program = student(env, provider)
    trainset = [dspy.Example(task=text).with_inputs("task") for text in TASKS]
    tuned = dspy.BootstrapFinetune(adapter=CompactFormat(), num_threads=2, **options).compile(program, trainset)
    return program, tuned, provider


def calls(env, run_dir, task: str) -> list[tuple[str, str]]:
    with dspy.context(trace=[]):
        student(env, LoraProvider(run_dir))(task=task)
        return [(inputs["state"], reply.score) for _, inputs, reply in dspy.settings.trace]


def test_bootstrap_finetune_trains_every_value_call_and_changes_its_student(env, run_dir):
    program, tuned, provider = bootstrap(env, run_dir)
    assert tuned is program and tuned.value.predict.lm.model.startswith("embedded/game24@tuned-")
    assert sorted(provider.judged()) == sorted(call for task in TASKS for call in calls(env, run_dir, task))
    assert tuned(task="4 5 6 10").answer
    assert "best_action" not in tuned.value.predict.signature.output_fields


def test_without_multitask_it_keeps_one_call_of_a_search(env, run_dir):
    _, _, provider = bootstrap(env, run_dir, multitask=False)
    kept, all_ = provider.judged(), [calls(env, run_dir, task) for task in TASKS]
    assert len(kept) == len(TASKS) and sum(map(len, all_)) > 80
    assert set(kept) <= {call for found in all_ for call in found}


def test_its_metric_is_a_reward_over_the_whole_search(env, run_dir):
    judged = {task: calls(env, run_dir, task) for task in TASKS}
    won = TASKS[1]

    def metric(example, prediction, trace=None):
        return example.task == won

    _, tuned, provider = bootstrap(env, run_dir, metric=metric)
    assert sorted(provider.judged()) == sorted(judged[won])
    assert [state for state, word in provider.judged() if word == "impossible" and solvable(parse_numbers(state))]
    assert tuned.information == "reward-free"
