"""Bases of all kinds are tuned in every linear layer and served as they were tuned, or refused before a row is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from optimizers import LoraSettings, SelfTaughtLookahead
from optimizers.trainers.sft import SupervisedTrainer, train_adapter
from optimizers.trainers.targets import lora_targets
from stl_programs import BeamSearch, GameOf24, LegalMoves, Value, models
from stl_programs.engine import run_sync
from stl_programs.errors import AdapterError, ModelError, StlError
from stl_programs.models.base import Request
from stl_programs.models.local.in_process import InProcessModel
from stl_programs.models.local.weights import check_weights
from stl_programs.testing.scripted import ScriptedModel
from tests.optimizers.trainers.test_sft import dataset, row
from tests.stl_programs.models.local.directories import CHATML, END, TEXT_END, make
from tests.stl_programs.models.local.test_directories import QWEN3, change, damaged

pytestmark = pytest.mark.slow
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
KINDS = {
    "llama": ({}, ALL), "phi3": ({"sliding_window": None}, ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
    "gpt2": (GPT2, ["c_attn", "c_fc", "c_proj"]),
    "mixtral": ({"num_local_experts": 4}, ["k_proj", "o_proj", "q_proj", "v_proj"]),
    "gpt_neox": ({}, ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"])}


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_but_the_head_is_tuned_and_served(tmp_path, kind):
    options, targets = KINDS[kind]
    base, out, said = make(tmp_path / kind, kind, std=0.1, **options), tmp_path / "adapter", "7 of 10"
    record = train_adapter(dataset([row("q", said)]), base, out, LoraSettings(
        learning_rate=2e-2, warmup_steps=1, epochs=60))
    assert record["target_modules"] == json.loads((out / "provenance.json").read_text())["target_modules"] == targets
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        assert {name.split(".")[-3] for name in file.keys()} == set(targets)  # noqa: SIM118
    assert served(base, out, "q") == said


def served(base: Path, adapter: Path, question: str) -> str:
    """What the base says with the adapter."""
    model = InProcessModel("local/base", base)
    model.load_adapter("local/base@1", adapter)
    reply = run_sync(model.complete(Request([{"role": "user", "content": question}], (0,), temperature=0.0,
                                            max_tokens=40, adapter="local/base@1")))
    model.close()
    assert reply.finish_reasons == ["stop"]
    return reply.texts[0]


@pytest.mark.parametrize(("template", "eos"), [
    (QWEN3, END), (CHATML, TEXT_END), (CHATML.replace("<|im_start|>assistant\n{%", "<|im_start|>assistant: {%"), END),
    (CHATML.replace(END, " " + END), END)], ids=["thoughts", "another end", "a space to merge", "a space behind"])
def test_what_was_learned_is_said_to_the_letter(tmp_path, template, eos):
    base, out = make(tmp_path / "base", template=template, eos=eos, std=0.1), tmp_path / "adapter"
    train_adapter(dataset([row("q", "7 of 10")]), base, out, LoraSettings(
        learning_rate=2e-2, warmup_steps=1, epochs=60))
    assert served(base, out, "q") == "7 of 10"


def test_named_layers_alone_are_tuned(tmp_path):
    base, out = make(tmp_path / "base", std=0.1), tmp_path / "adapter"
    settings, rows = LoraSettings(epochs=1, target_modules=["v_proj", "q_proj"]), dataset([row("q", "a")])
    assert train_adapter(rows, base, out, settings)["target_modules"] == ["q_proj", "v_proj"]
    assert train_adapter(rows, base, out, settings)["target_modules"] == ["q_proj", "v_proj"]
    with pytest.raises(AdapterError, match=r"tunes q_proj, v_proj; the settings say target_modules=\['q_proj'\]"):
        train_adapter(rows, base, tmp_path / "more", LoraSettings(target_modules=["q_proj"]), continue_from=out)


def test_layers_that_only_their_whole_names_tell_from_the_head(tmp_path):
    model = check_weights(make(tmp_path / "base"))
    model.model.layers[0].mlp.lm_head = model.model.layers[0].mlp.up_proj
    del model.model.layers[0].mlp.up_proj
    found = lora_targets(model, tmp_path / "base")
    assert "model.layers.0.mlp.lm_head" in found and "lm_head" not in found


def program(paid: list[str]):
    env = GameOf24()

    def reply(*_: object) -> str:
        paid.append("asked")
        return "7"

    return BeamSearch(env, LegalMoves(), Value(env.value_signature, ScriptedModel("scripted/judge", reply), samples=1))


@pytest.mark.parametrize(("spoil", "lora", "why"), [
    (lambda base: None, {"target_modules": ["wqkv"]}, r"target_modules=\['wqkv'\].* no layer 'wqkv'; .*down_proj"),
    (lambda base: None, {"target_modules": ["norm"]}, r"a LoRA cannot tune norm of"),
    (lambda base: damaged(base, "missing"), {}, "no tensor for 1 of"),
    (lambda base: damaged(base, "renamed"), {}, "no tensor for 21 of"),
    (lambda base: (base / "chat_template.jinja").unlink(), {}, "no chat template"),
    (lambda base: change(base, quantization_config={"quant_method": "fp8"}), {}, "is quantised"),
    (lambda base: (base / "model.safetensors").unlink(), {}, "no safetensors file")])
def test_what_cannot_be_tuned_is_refused_before_anything_is_paid(tmp_path, spoil, lora, why):
    base, paid = make(tmp_path / "base"), []
    spoil(base)
    optimizer = SelfTaughtLookahead(weights=base, run_dir=tmp_path / "run", lora=LoraSettings(**lora))
    with pytest.raises(ModelError, match=why):
        optimizer.compile(program(paid), trainset=["4 5 6 10"])
    assert not paid and not (tmp_path / "run").exists()
    with pytest.raises(ModelError, match=why):
        SupervisedTrainer(LoraSettings(**lora)).check(base)


def test_a_model_without_linear_layers_is_refused(tmp_path):
    import torch

    model = check_weights(make(tmp_path / "base"))
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ModelError, match="no linear layer that a LoRA can tune"):
        lora_targets(model, tmp_path / "base")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("scale", "rate", "what"), [
    (1e30, 1e-4, r"step 1 of 5: (the loss is (nan|inf)|a gradient is not finite), at learning rate"),
    (1.0, 1e30, r"step \d of 5: (the loss is (nan|inf)|a gradient is not finite), at learning rate")])
def test_a_training_that_diverges_leaves_no_adapter(tmp_path, scale, rate, what):
    from safetensors.torch import load_file, save_file

    base = make(tmp_path / "base", std=0.1)
    tensors = {name: tensor * scale if "up_proj" in name or "down_proj" in name else tensor
               for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(StlError, match=what):
        train_adapter(dataset([row("q", "a")]), base, tmp_path / "adapter", LoraSettings(
            epochs=5, learning_rate=rate, warmup_steps=1))
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_of_numbers_that_are_not_finite_is_not_kept(tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    fit = SupervisedTrainer.fit

    def spoiled(self, rows, base, folder, **options):
        found, file = fit(self, rows, base, folder, **options), folder / "adapter_model.safetensors"
        save_file({name: tensor / 0 for name, tensor in load_file(file).items()}, file)
        return found

    monkeypatch.setattr(SupervisedTrainer, "fit", spoiled)
    with pytest.raises(StlError, match=r"the training diverged: .* not finite"):
        train_adapter(dataset([row("q", "a")]), make(tmp_path / "base"), tmp_path / "adapter", LoraSettings(epochs=1))
    assert not (tmp_path / "adapter").exists()


def test_the_embedded_models_layers_are_those_that_it_was_always_tuned_in():
    base = models.EMBEDDED / "game24"
    assert lora_targets(check_weights(base), base) == ALL
