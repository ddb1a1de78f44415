"""The embedded model and the remote ones answer the same signatures; what cannot work fails before any work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil

import pytest
import torch
from dspy.utils.exceptions import AdapterParseError
from transformers import AutoModelForCausalLM, AutoTokenizer

from signatures.game24 import EstimateNumbers, ProposeMoves
from stl_programs import BeamSearch, LegalMoves, Policy, Value, models
from stl_programs.engine import run_sync
from stl_programs.environments.game24.world import calculator_check
from stl_programs.errors import AdapterError, ModelError, OutOfRange
from stl_programs.models.base import Request
from stl_programs.models.local.in_process import InProcessModel
from stl_programs.models.served.transports import open_remote
from stl_programs.situations import Situation
from stl_programs.testing.game24_script import game24_script
from stl_programs.testing.simulator import Simulator
from tests.contract import random_adapter

EMBEDDED = models.EMBEDDED / "game24"


def complete(model, prompt, seeds, **options):
    return run_sync(model.complete(Request([{"role": "user", "content": prompt}], tuple(seeds),
                                           **{"max_tokens": 60} | options)))


def test_the_embedded_model_is_what_its_card_says():
    files = sum(path.stat().st_size for path in EMBEDDED.iterdir())
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED)
    assert files <= 2_000_000 and model.num_parameters() <= 500_000
    assert model.config.model_type == "llama" and model.config.head_dim >= 32
    record = json.loads((EMBEDDED / "training.json").read_text())
    card = (EMBEDDED / "README.md").read_text()
    assert record["parameters"] == model.num_parameters()
    assert f"{record['parameters']:,}" in card and f"{record['states_kept_out']:,}" in card


def test_most_base_judgements_are_right_arithmetic():
    model = models.load("embedded/game24")
    right = total = 0
    for state in ("4 6", "3 8", "2 5 7", "1 4 6", "4 5 6 10", "3 3 8 8"):
        for text in complete(model, f"value {state}", range(20)).texts:
            total += 1
            with contextlib.suppress(AdapterParseError):
                fields = model.prompt_format.parse(EstimateNumbers, text)
                right += calculator_check(state, fields["rationale"], fields["score"]) is None
    assert right / total > 0.8


def test_draws_depend_on_their_seed_and_not_on_their_batch():
    model = models.load("embedded/game24")

    async def crowd():
        prompts = [f"value {a} {b} 6" for a in range(1, 9) for b in range(1, 9)]
        return await asyncio.gather(*(model.complete(Request([{"role": "user", "content": p}], (1, 2), max_tokens=60))
                                      for p in prompts))

    crowded = run_sync(crowd())
    alone = [complete(model, f"value 1 {b} 6", [1, 2]).texts for b in range(1, 9)]
    same = sum(a == c.texts for a, c in zip(alone, crowded, strict=False))
    assert same >= 7, "rounding may tip a draw, not more"
    assert len({tuple(complete(model, "value 2 3 7", [s]).texts) for s in range(8)}) > 1


def test_sampling_follows_the_models_distribution():
    model = models.load("embedded/game24")
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    reply = complete(model, "value 24", range(2000))
    sure = sum(text.endswith("sure") for text in reply.texts) / 2000
    text = tokenizer.apply_chat_template([{"role": "user", "content": "value 24"}], tokenize=False,
                                         add_generation_prompt=True) + " end |"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)(ids).logits[0, -1]
    assert sure == pytest.approx(torch.softmax(logits, -1)[tokenizer.convert_tokens_to_ids("sure")].item(), abs=0.03)
    assert reply.prompt_tokens == 4 and reply.completion_tokens == 2000 * 4


def test_numbers_outside_the_range_are_missing_not_guessed(env):
    model = models.load("embedded/game24")
    with pytest.raises(OutOfRange, match="no token"):
        complete(model, "value 4 9999", [0])
    value = Value(EstimateNumbers, "embedded/game24")
    task = env.task("4 5 6 10")
    state = env.step(env.reset(task), env.legal_actions(env.reset(task))[1]).state
    assert state.text == "-1 6 10"
    estimate = run_sync(value.estimate(Situation(env, task, state)))
    assert estimate.missing and "no token" in estimate.samples[0].missing


def test_the_embedded_model_is_a_policy_too(env):
    program = BeamSearch(env, Policy(ProposeMoves, "embedded/game24", count=8, samples=3),
                         Value(EstimateNumbers, "embedded/game24"), width=2)
    prediction = program(task="1 2 3 4")
    assert prediction.trajectory and prediction.cost == 0 and prediction.usage["policy"]["samples"] >= 3


@pytest.mark.parametrize(("name", "why"), [
    ("gpt-4o", "names no provider"), ("embedded/chess", "there is embedded/game24"),
    ("nonsense/model", "knows no provider"), ("openai/gpt-4o", "OPENAI_API_KEY"),
    ("hosted_vllm/m", "HOSTED_VLLM_API_BASE"), ("embedded/game24@v9", "not registered")])
def test_models_that_cannot_work_fail_before_any_work(name, why, monkeypatch):
    for variable in ("OPENAI_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    models.registry._bases.pop(name, None)
    with pytest.raises((ModelError, AdapterError), match=why):
        models.load(name).check()


def test_an_unreachable_server_and_a_missing_model_are_named():
    with pytest.raises(ModelError, match=r"no answer from http://127.0.0.1:9/v1"):
        open_remote("hosted_vllm/m", api_base="http://user:secret@127.0.0.1:9/v1").check()
    with Simulator(game24_script, ["other"]) as server, pytest.warns(UserWarning, match="lists other, not 'm'"):
        open_remote("hosted_vllm/m", api_base=server.url).check()


def test_keys_do_not_show_in_errors():
    with Simulator(game24_script, ["m"]) as server:
        model = open_remote("hosted_vllm/absent", api_base=server.url, api_key="sk-very-secret")
        with pytest.raises(ModelError) as error:
            complete(model, "hello", [0])
    assert "sk-very-secret" not in str(error.value) and "absent" in str(error.value)


def test_an_adapter_for_another_base_is_refused(tmp_path):
    random_adapter(models.EMBEDDED / "game24", tmp_path / "other", 1)
    (tmp_path / "other" / "provenance.json").write_text(json.dumps({"base_sha256": "0" * 64}))
    with pytest.raises(AdapterError, match="was trained on base 000000000000"):
        models.register_adapter("embedded/game24@other", tmp_path / "other")
    with pytest.raises(AdapterError, match=r"is no adapter: adapter_config\.json is missing"):
        models.register_adapter("embedded/game24@none", tmp_path / "none")
    with pytest.raises(AdapterError, match="has no version"):
        models.register_adapter("embedded/game24", tmp_path)


def test_an_at_sign_belongs_to_a_name_that_is_not_registered(tmp_path):
    folder = shutil.copytree(EMBEDDED, tmp_path / "me@work")
    for name in ("vertex_ai/claude-3-5-sonnet@20240620", "openai/@cf/meta/llama-3-8b-instruct",
                 "openai/qwen2.5-7b-instruct@q4_k_m", f"local/{folder}"):
        assert models.load(name).name == name == models.base_name(name) and not models.is_adapter(name)
    tuned = f"local/{folder}@v1"
    for name in (tuned, "embedded/game24@nope"):
        with pytest.raises(AdapterError, match="is not registered in this process; load the program that carries it"):
            models.load(name)
    models.register_adapter(tuned, random_adapter(folder, tmp_path / "adapter", 1))
    assert models.load(tuned).base is models.load(f"local/{folder}") and models.base_name(tuned) == f"local/{folder}"
    assert tuned in models.registered_adapters()
    models.unregister_adapter(tuned)
    assert models.base_name(tuned) == tuned and not models.is_adapter(tuned)


def test_a_directory_without_a_chat_template_is_refused(tmp_path):
    shutil.copytree(EMBEDDED, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        InProcessModel("local/m", tmp_path / "m").check()


def test_legal_moves_call_no_model(env):
    prediction = BeamSearch(env, LegalMoves(), Value(EstimateNumbers, "embedded/game24"), width=1)(task="4 5 6 10")
    assert set(prediction.usage) == {"value"}


def test_a_model_directory_is_a_string_away(tiny_chat_model):
    model = models.load(f"local/{tiny_chat_model}")
    reply = complete(model, "hello", [1, 2, 3], max_tokens=5)
    assert len(reply.texts) == 3 and reply.completion_tokens <= 15 and model.prices().cost(9, 0, 9) == 0
    with pytest.raises(ModelError, match=r"no model directory: it has no config\.json"):
        models.load("local/nowhere")


def test_prices_of_ones_own_go_before_litellms(tmp_path, monkeypatch):
    model = open_remote("hosted_vllm/llama-8b@value-v1", api_base="http://127.0.0.1:1/v1")
    assert model.prices() is None and open_remote("openai/gpt-4o").prices().completion > 0
    monkeypatch.setenv("STL_PRICES", str(tmp_path / "prices.json"))
    with pytest.raises(ModelError, match="not a price file"):
        model.prices()
    (tmp_path / "own.json").write_text('{"hosted_vllm/llama-8b": {"prompt": 1, "completion": 4, "cached_prompt": 0.5}}')
    monkeypatch.setenv("STL_PRICES", str(tmp_path / "own.json"))
    assert model.prices().cost(1_000_000, 400_000, 500_000) == pytest.approx(0.6 + 0.2 + 2.0)
    monkeypatch.setenv("STL_PRICES", "paper")
    assert model.prices() is None
    assert open_remote("groq/llama-3.1-8b-instruct").prices().cost(1000, 0, 1000) == pytest.approx(0.00013)
