"""Model directories of all kinds answer as transformers' `generate` does, or are refused before they answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.local.chat import encode, open_tokenizer, prompt_text, reply_tokens
from stl_programs.models.local.in_process import InProcessModel
from stl_programs.models.local.model_directory import ModelDirectory
from stl_programs.models.local.weights import check_weights
from tests.stl_programs.models.local.directories import CHATML, END, TEXT_END, make, make_tokenizer, ours, theirs

PROMPTS = ["hi", "value 4 5 6", "value 4 5 6 10 and more", "x" * 50]
LONG = "long " * 30


def change(folder: Path, file: str = "config.json", **values) -> Path:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))
    return folder


def said_alike(folder: Path, prompts: list[str] = PROMPTS, **options) -> None:
    assert ours(folder, prompts, **options) == [[text, text] for text in theirs(folder, prompts)]


@pytest.mark.parametrize(("kind", "options"), [
    ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 8,
                 "num_hidden_layers": ..., "num_attention_heads": ...}),
    ("mamba", {"state_size": 8}), ("rwkv", {"attention_hidden_size": 32, "context_length": 512}),
    ("bloom", {"n_layer": 2, "n_head": 4, "num_hidden_layers": ..., "num_attention_heads": ...})])
def test_models_of_other_memories_are_read_as_generate_reads_them(tmp_path, kind, options):
    said_alike(make(tmp_path / kind, kind, **options))


@pytest.mark.parametrize("rope", [
    {"rope_type": "longrope", "long_factor": [4.0] * 4, "short_factor": [1.0] * 4, "rope_theta": 10000.0},
    {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}], ids=["longrope", "dynamic"])
def test_a_prompt_is_read_the_same_beside_a_longer_one(tmp_path, rope):
    options = {"max_position_embeddings": 64} if rope["rope_type"] == "dynamic" else {
        "original_max_position_embeddings": 64}
    kind = "llama" if rope["rope_type"] == "dynamic" else "phi3"
    folder = make(tmp_path / "rope", kind, rope_parameters=rope, sliding_window=None, **options)
    crossing = "y" * 20  # short as a prompt, long with its reply
    prompts = ["hi", LONG[:120], "value 4", crossing, LONG[:90]]
    said_alike(folder, prompts)
    assert ModelDirectory("local/rope", folder).reads(63) == "together"


@pytest.mark.parametrize(("dtype", "shard"), [(torch.bfloat16, "1GB"), (torch.float16, "1GB"), (torch.float32, "20KB")])
def test_halves_and_shards_are_read(tmp_path, dtype, shard):
    folder = make(tmp_path / "folder", dtype=dtype, shard=shard)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard == "20KB")
    check_weights(folder)
    said_alike(folder)


@pytest.mark.parametrize("settings", [
    {"repetition_penalty": 1.8}, {"no_repeat_ngram_size": 2, "bad_words_ids": [[7], [8, 9]]},
    {"suppress_tokens": list(range(100)), "begin_suppress_tokens": list(range(100, 200))},
    {"min_new_tokens": 6, "eos_token_id": list(range(0, 262, 2))}, {"forced_eos_token_id": 5, "min_length": 40},
    {"sequence_bias": [[[5], 30.0]], "exponential_decay_length_penalty": (2, 1.5)}], ids=lambda found: "+".join(found))
def test_generation_settings_of_a_directory_hold(tmp_path, settings):
    folder = make(tmp_path / "plain")
    plain = theirs(folder, PROMPTS)
    change(folder, "generation_config.json", **settings)
    assert theirs(folder, PROMPTS) != plain
    said_alike(folder)


def test_truncated_sampling_of_a_directory_holds(tmp_path):
    folder = change(make(tmp_path / "folder"), "generation_config.json", top_k=1)
    assert ours(folder, ["hi"], tuple(range(20)), temperature=1.5) == [theirs(folder, ["hi"]) * 20]
    change(folder, "generation_config.json", top_k=50, top_p=1e-6)
    assert ours(folder, ["hi"], tuple(range(20)), temperature=1.5) == [theirs(folder, ["hi"]) * 20]


@pytest.mark.parametrize(("settings", "why"), [
    ({"num_beams": 4}, "num_beams=4"), ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
    ({"stop_strings": ["x"]}, "stop_strings"), ({"cache_implementation": "quantized"}, "cache_implementation")])
def test_generation_settings_that_are_not_done_are_named(tmp_path, settings, why):
    folder = change(make(tmp_path / "folder"), "generation_config.json", **settings)
    with pytest.raises(ModelError, match=f"generation_config.json.*{why}"):
        InProcessModel("local/folder", folder).check()


def damaged(folder: Path, how: str) -> None:
    """Spoil a directory of several shards, or of one file."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    shards = sorted(folder.glob("model-*.safetensors"))
    if how == "lost":
        shards[1].unlink()
    elif how == "cut":
        shards[1].write_bytes(shards[1].read_bytes()[:-10])
    elif how == "outside":
        shutil.move(shards[1], folder.parent / "x.safetensors")
        index.write_text(index.read_text().replace(shards[1].name, "../x.safetensors"))
    elif how == "index":
        index.write_text('{"weight_map": [1]}')
    elif how == "elsewhere":
        index.write_text(index.read_text().replace(shards[1].name, shards[0].name))
    else:
        tensors = load_file(single)
        name = "model.layers.1.mlp.up_proj.weight"
        if how == "renamed":
            tensors = {f"backbone.{key}": tensor for key, tensor in tensors.items()}
        elif how == "missing":
            del tensors[name]
        elif how == "shape":
            tensors[name] = tensors[name][:5].contiguous()
        elif how == "nan":
            tensors[name][3, 3] = float("nan")
        save_file(tensors, single, metadata={"format": "pt"})


@pytest.mark.parametrize(("how", "shard", "why"), [
    ("lost", "20KB", "lacks model-00002-of"), ("cut", "20KB", "model-00002-of.* is damaged or cut short"),
    ("outside", "20KB", "names '../x.safetensors', which is not in the directory"), ("index", "20KB", "is no index"),
    ("elsewhere", "20KB", r"lacks \d+ tensors that .* says it holds"), ("renamed", "1GB", "no tensor for 21 of the"),
    ("missing", "1GB", "no tensor for 1 of the .*model.layers.1.mlp.up_proj.weight"),
    ("shape", "1GB", "no model that can be read"), ("nan", "1GB", "up_proj.weight holds numbers that are not finite")])
def test_weights_that_are_not_all_there_are_refused(tmp_path, how, shard, why):
    folder = make(tmp_path / "folder", shard=shard)
    damaged(folder, how)
    with pytest.raises(ModelError, match=why) as error:
        InProcessModel("local/folder", folder).check()
    assert "\n" not in str(error.value)
    if how != "nan":
        with pytest.raises(ModelError, match=why):
            check_weights(folder)


def test_tied_heads_and_tensors_that_nobody_asks_for_are_no_loss(tmp_path):
    folder = make(tmp_path / "folder", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in tensors
    save_file(tensors | {"model.layers.9.extra": torch.ones(3)}, folder / "model.safetensors", {"format": "pt"})
    check_weights(folder)
    said_alike(folder)


@pytest.mark.parametrize(("file", "values", "why"), [
    ("config.json", {"model_type": "unheard_of"}, "no model that can be read"),
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "own.Model"}, "model_type": "own"}, "no model that can be"),
    ("config.json", {"num_attention_heads": 5}, "that can be read: .*hidden size"),
    ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "no model that can be read"),
    ("config.json", {"quantization_config": {"quant_method": "nobody's"}}, "quantised by .*nobody's"),
    ("tokenizer_config.json", {"chat_template": "{% for"}, "the chat template of .* cannot be used|refuses"),
    ("tokenizer_config.json", {"chat_template": "{{ raise_exception('no') }}"}, "refuses the messages: no"),
    ("tokenizer_config.json", {"chat_template": "{{ messages[0]['content'][0]['text'] }}"}, "leaves out|cannot"),
    ("adapter_config.json", {}, "holds an adapter beside its model")])
def test_directories_that_cannot_be_used_are_refused_in_check(tmp_path, file, values, why):
    folder = make(tmp_path / "folder")
    if "chat_template" in values:
        (folder / "chat_template.jinja").unlink()
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    change(folder, file, **values)
    with pytest.raises(ModelError, match=why) as error:
        InProcessModel("local/folder", folder).check()
    assert "\n" not in str(error.value)


def test_only_what_a_text_says_can_be_unknown():
    template = CHATML.replace(END, TEXT_END)
    tokenizer = make_tokenizer(template, TEXT_END, unk_token=TEXT_END)
    for text in ("value 4", f"a {TEXT_END} b", "é ∀"):
        messages = [{"role": "user", "content": text}]
        assert tokenizer.decode(encode(tokenizer, prompt_text(tokenizer, messages, "m"), "m")).count(text) == 1


def test_what_is_unknown_is_named():
    tokenizer = open_tokenizer(Path("stl_programs/models/embedded/game24"))
    with pytest.raises(OutOfRange, match="m has no token for '9999'"):
        encode(tokenizer, "value 4 9999", "m")


@pytest.mark.parametrize("unknown", ["<unk>", None])
@pytest.mark.parametrize("words", [True, False])
def test_what_a_tokenizer_leaves_out_is_unknown_too(unknown, words):
    known = {"4": 0, " ": 1, "5": 2, "<unk>": 3} if unknown else {"4": 0, " ": 1, "5": 2}
    inner = Tokenizer(WordLevel(known, unk_token=unknown or "<unk>") if words else BPE(known, [], unk_token=unknown))
    inner.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert encode(tokenizer, "4 5", "m") == [0, 2]
    with pytest.raises(OutOfRange, match=r"m has no token for '6'|m cannot read '4 6'"):
        encode(tokenizer, "4 6", "m")


GEMMA = ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML)
SILENT = CHATML.replace("<|im_start|>{{ m['role'] }}\n{{ m['content'] }}",
                        "{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endif %}")


@pytest.mark.parametrize("template", [GEMMA, SILENT], ids=["refuses", "leaves out"])
def test_what_a_template_does_not_take_as_system_the_user_says(template):
    text = prompt_text(make_tokenizer(template), [{"role": "system", "content": "judge"},
                                                  {"role": "user", "content": "4 6"}], "m")
    assert text == f"<|im_start|>user\njudge\n\n4 6{END}\n<|im_start|>assistant\n"


QWEN3 = CHATML.replace("\n{{ m['content'] }}", "\n{% if m['role'] == 'assistant' and loop.last %}<think>\n\n"
                       "</think>\n\n{% endif %}{{ m['content'] }}")


@pytest.mark.parametrize(("template", "eos", "end"), [
    (CHATML, END, END), (QWEN3, END, END), (CHATML, TEXT_END, TEXT_END), (CHATML.replace(END, " " + END), END, END),
    (CHATML.replace(END, END + TEXT_END), TEXT_END, TEXT_END), ("{{ messages[-1]['content'] }}", END, END)])
def test_a_reply_is_its_text_and_the_token_that_ends_it(template, eos, end):
    tokenizer = make_tokenizer(template, eos)
    tokens = reply_tokens(tokenizer, [{"role": "user", "content": "q"}], " 7 | sure", {tokenizer.eos_token_id}, "m")
    assert tokenizer.decode(tokens) == " 7 | sure" + end
    assert tokenizer.decode(tokens, skip_special_tokens=True) == " 7 | sure"
    with pytest.raises(ModelError, match="holds the end token of m"):
        reply_tokens(tokenizer, [{"role": "user", "content": "q"}], f"7{eos}8", {tokenizer.eos_token_id}, "m")


def test_a_tokenizer_that_knows_more_than_its_model_is_named(tmp_path):
    folder = make(tmp_path / "folder")
    tokenizer = open_tokenizer(folder)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(folder)
    assert ours(folder, ["hi"])
    with pytest.raises(OutOfRange, match=r"has no embedding for '<\|new\|>'"):
        ours(folder, ["<|new|>"])
