"""The local engine: batches of any prompts draw what each would draw alone, adapters come and go, errors are clear."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stl_programs import models
from stl_programs.engine import run_sync
from stl_programs.errors import AdapterError, ModelError, OutOfRange
from stl_programs.models.artifacts import weights_hash
from stl_programs.models.base import ReplyOptions, Request
from stl_programs.models.local import in_process, model_directory
from stl_programs.models.local.decoding import sample, uniforms
from stl_programs.models.local.in_process import InProcessModel
from stl_programs.models.local.prefill import levels

EMBEDDED = models.EMBEDDED / "game24"
SYSTEM = "value " + " ".join(map(str, range(1, 21)))
PROMPTS = [f"{SYSTEM} moves {task} {state}" for task in (" ".join(["7"] * 20), "8 9")
           for state in ("1", "2 3", "2 3 4", "5 6 7 8 9 10 11 12 13")] + ["value 4", "moves 1 2 3"]
"""Two groups of siblings of one beginning, one group with more in common, and two prompts of another beginning."""
LOGPROBS = ReplyOptions(logprobs=True)


def chat(text):
    return [{"role": "user", "content": text}]


def complete(model, prompt, seeds=(0,), **options):
    return run_sync(model.complete(Request(chat(prompt), tuple(seeds), **{"max_tokens": 12} | options)))


def crowd(model, prompts, seeds=(1, 2), adapters=(None,), **options):
    """All prompts at once, under the given adapters in turn."""
    async def ask():
        return await asyncio.gather(*(
            model.complete(Request(chat(prompt), tuple(seeds), adapter=adapters[i % len(adapters)],
                                   **{"max_tokens": 12} | options)) for i, prompt in enumerate(prompts)))

    return run_sync(ask())


def build(folder, kind=transformers.LlamaConfig, **options):
    """A random model of two layers of grouped heads, over the embedded model's words."""
    folder.mkdir(exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "stl_programs.json"):
        shutil.copy(EMBEDDED / file, folder)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(kind(**{
        "vocab_size": 241, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
        "pad_token_id": 0, "eos_token_id": 4, "bos_token_id": None, "initializer_range": 0.2} | options),
    ).save_pretrained(folder)
    return folder


def make_adapter(base, folder, seed=0, **options):
    torch.manual_seed(seed)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | options
    peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(
        task_type="CAUSAL_LM", init_lora_weights=False, **config)).save_pretrained(folder)
    (folder / "provenance.json").write_text(json.dumps({"base_sha256": weights_hash(base)}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Path:
    return make_adapter(folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def model(folder):
    made = InProcessModel("local/tiny", folder)
    yield made
    made.close()


def furthest(folder, prompts, replies, adapter=None):
    """The largest difference between replies' log-probabilities and those of one plain pass over each text."""
    tokenizer, worst = transformers.AutoTokenizer.from_pretrained(folder), 0.0
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        reference = peft.PeftModel.from_pretrained(reference, adapter)
    for prompt, reply in zip(prompts, replies, strict=True):
        assert sum(map(len, reply.logprobs)) == reply.completion_tokens
        start = tokenizer.apply_chat_template(chat(prompt), add_generation_prompt=True, return_dict=False)
        for draw in reply.logprobs:
            tokens = tokenizer.convert_tokens_to_ids([token for token, _ in draw])
            with torch.no_grad():
                logits = reference.eval()(torch.tensor([start + tokens])).logits
            expected = logits[0, len(start) - 1:-1].log_softmax(-1)[torch.arange(len(tokens)), tokens]
            worst = max(worst, (expected - torch.tensor([value for _, value in draw])).abs().max().item())
    return worst


def test_log_probabilities_are_those_of_plain_transformers_and_peft(model, folder, adapter):
    model.load_adapter("local/tiny@a", adapter)
    for name, path in ((None, None), ("local/tiny@a", adapter)):
        replies = crowd(model, PROMPTS, (1, 2, 3), (name,), options=LOGPROBS, temperature=0.7)
        assert furthest(folder, PROMPTS, replies, path) < 1e-3
        assert len({text for reply in replies for text in reply.texts}) > 10
    assert furthest(folder, PROMPTS, replies) > 1e-2, "the adapter changes nothing"


def test_a_window_over_the_last_tokens_does_not_count_padding(tmp_path):
    folder = build(tmp_path / "windowed", transformers.MistralConfig, sliding_window=8)
    replies = crowd(InProcessModel("local/windowed", folder), PROMPTS, options=LOGPROBS)
    assert furthest(folder, PROMPTS, replies) < 1e-3


def test_a_draw_is_the_same_alone_and_in_a_crowd_that_comes_and_goes(model, monkeypatch):
    monkeypatch.setattr(in_process, "MAX_ROWS", 7)
    crowded = crowd(model, PROMPTS * 3, range(3))
    alone = [complete(model, prompt, range(3)).texts for prompt in PROMPTS]
    assert sum(a != c.texts for a, c in zip(alone * 3, crowded, strict=True)) <= 1, "rounding may tip a draw, not more"
    assert [complete(model, PROMPTS[0], [seed]).texts[0] for seed in range(3)] == alone[0]


def test_the_embedded_models_draws_stay_what_they_are():
    model = models.load("embedded/game24")
    for prompt, seeds, temperature, texts in (
            ("value 4 5 6 10", [0, 5], 1.0,
             ["10 / 4 = 5/2 -> 5/2 5 6 . 5 / 6 = 5/6 -> 5/6 5/2 . 5/2 / 5/6 = 3 -> 3 . end | impossible",
              "5 / 4 = 5/4 -> 5/4 6 10 . 6 * 10 = 60 -> 5/4 60 . 5/4 * 60 = 75 -> 75 . end | impossible"]),
            ("moves 3 8", [0, 1], 0.7, ["8 / 3 = 8/3 ; 3 * 8 = 24 ; 8 - 3 = 5 ; 3 4 4 = 0 ; 8 / 3 = 8/3",
                                        "8 / 3 = 8/3 ; 8 - 3 = 5 ; 3 + 8 = 11 ; 3 * 8 = 24"]),
            ("value 1 5 5", [2**63 + 5, -1], 1.0,
             ["1 / 5 = 1/5 -> 1/5 5 . 1/5 * 5 = 1 -> 1 . end | impossible",
              "5 / 1 = 5 -> 5 5 . 5 - 5 = 0 -> 0 . end | impossible"]),
            ("value 2 5 7", [0], 0.0, ["5 / 2 = 5/2 -> 5/2 7 . 5/2 + 7 = 19/2 -> 19/2 . end | impossible"])):
        assert complete(model, prompt, seeds, temperature=temperature, max_tokens=40).texts == texts


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=25)),
                min_size=1, max_size=12))
def test_passes_read_every_prompt_once_and_shared_beginnings_once_for_all(parts):
    prompts = [list(p) for p in dict.fromkeys(
        tuple([a] * (12 * a) + [9] * (20 * b) + rest) for a, b, rest in parts)]
    made, read = levels(prompts), [[]]
    for level in made:
        read = [read[parent] + tokens for parent, tokens in level]
    assert read == prompts and all(tokens for _, tokens in made[-1])
    assert sum(len(tokens) for level in made for _, tokens in level) <= sum(map(len, prompts))


def test_siblings_share_what_they_begin_with():
    system, tasks = list(range(100, 200)), [[task] * 40 for task in range(20)]
    prompts = [system + task + [1000 + i] for task in tasks for i in range(5)]
    assert [(len(level), sum(len(tokens) for _, tokens in level)) for level in levels(prompts)] == [
        (1, 100), (20, 800), (100, 100)]


def test_an_adapter_leaves_while_its_requests_are_answered(model, folder, adapter, tmp_path):
    other = make_adapter(folder, tmp_path / "other", seed=1)
    model.load_adapter("local/tiny@a", shutil.copytree(adapter, tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")

    async def leave():
        asked = [asyncio.ensure_future(model.complete(
            Request(chat(prompt), (1,), max_tokens=12, adapter="local/tiny@a"))) for prompt in PROMPTS]
        await asyncio.sleep(0)
        model.unload_adapter("local/tiny@a")
        with pytest.raises(AdapterError, match="local/tiny@a is not loaded"):
            await model.complete(Request(chat("value 4"), (1,), max_tokens=12, adapter="local/tiny@a"))
        model.load_adapter("local/tiny@a", other)
        return [reply.texts for reply in await asyncio.gather(*asked)]

    first = run_sync(leave())
    second = [reply.texts for reply in crowd(model, PROMPTS, [1], ("local/tiny@a",))]
    assert first != second
    model.unload_adapter("local/tiny@a")
    model.load_adapter("local/tiny@b", adapter)
    assert [reply.texts for reply in crowd(model, PROMPTS, [1], ("local/tiny@b",))] == first
    with pytest.raises(AdapterError, match=r"local/tiny@a is not loaded; local/tiny has local/tiny@b"):
        model.unload_adapter("local/tiny@a")
    with pytest.raises(AdapterError, match="loaded already"):
        model.load_adapter("local/tiny@b", adapter)


def test_merged_copies_share_what_the_adapter_leaves_alone_and_are_few(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(model_directory, "MERGED", 2)
    before = complete(model, PROMPTS[0], [1]).texts
    names = [f"local/tiny@{i}" for i in range(3)]
    for i, name in enumerate(names):
        model.load_adapter(name, make_adapter(folder, tmp_path / name.replace("/", "-"), seed=i))
    answers = [reply.texts for reply in crowd(model, PROMPTS[:1] * 6, [1], names)]
    assert answers[:3] == answers[3:] and len({tuple(texts) for texts in [*answers, before]}) == 4
    assert complete(model, PROMPTS[0], [1]).texts == before, "merging wrote into the base"
    assert len(model._files._merged) == 2
    base, tuned = (model._files.model(adapter).state_dict() for adapter in (None, model._adapters[names[2]]))
    own = {name for name in base if base[name].data_ptr() != tuned[name].data_ptr()}
    assert own == {name for name in base if any(part in name for part in ("q_proj", "v_proj", "down_proj"))}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_a_tied_head_leaves_the_embedding_alone(tmp_path):
    folder = build(tmp_path / "tied", tie_word_embeddings=True)
    path = make_adapter(folder, tmp_path / "adapter", target_modules=["lm_head"])
    model = InProcessModel("local/tied", folder)
    model.load_adapter("local/tied@a", path)
    replies = crowd(model, PROMPTS, adapters=("local/tied@a",), options=LOGPROBS)
    assert furthest(folder, PROMPTS, replies, path) < 1e-3


def broken(adapter, folder, **changes):
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_adapters_that_do_not_fit_are_refused_when_they_are_loaded(model, adapter, tmp_path):
    wide = build(tmp_path / "wide", hidden_size=64)
    foreign = make_adapter(wide, tmp_path / "foreign")
    (foreign / "provenance.json").write_text((adapter / "provenance.json").read_text())
    cut = broken(adapter, tmp_path / "cut")
    save_file({key: tensor for key, tensor in load_file(cut / "adapter_model.safetensors").items() if
               "layers.1" not in key}, cut / "adapter_model.safetensors")
    empty = broken(adapter, tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    garbage = broken(adapter, tmp_path / "garbage")
    (garbage / "adapter_model.safetensors").write_bytes(b"no tensors")
    silent = broken(adapter, tmp_path / "silent")
    (silent / "provenance.json").write_text("{}")
    for path, why in (
            (foreign, r"is \(64, 4\), by its configuration and the base it would be \(32, 4\)"),
            (cut, "is missing, by its"), (empty, r"adapter_model\.safetensors is missing"),
            (garbage, "is no safetensors file"),
            (silent, "base_sha256 is missing"),
            (broken(adapter, tmp_path / "rank", r=8), r"is \(4, 64\), by its configuration and .* be \(8, 64\)"),
            (broken(adapter, tmp_path / "target", target_modules=["wqkv"]), "wqkv"),
            (broken(adapter, tmp_path / "kind", peft_type="IA3"), "peft_type is 'IA3'")):
        with pytest.raises(AdapterError, match=why) as error:
            model.load_adapter("local/tiny@broken", path)
        assert "\n" not in str(error.value) and "local/tiny@broken" not in model._adapters


def test_the_event_loop_keeps_turning_while_a_big_batch_runs(folder):
    model = InProcessModel("local/tiny", folder)

    async def tick():
        gaps, last = [], time.perf_counter()
        work = asyncio.gather(*(model.complete(Request(chat(f"{prompt} {i % 9 + 1}"), (0, 1, 2, 3), max_tokens=60))
                                for prompt in PROMPTS for i in range(9)))
        while not work.done():
            await asyncio.sleep(0.002)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()
        return gaps, await work

    gaps, replies = run_sync(tick())
    assert len(replies) == 90 and len(gaps) > 5 and sorted(gaps)[len(gaps) // 2] < 0.25


def test_a_reply_ends_before_the_first_stop_text(model):
    whole = complete(model, PROMPTS[1], range(8), max_tokens=40)
    word = sorted({w for text in whole.texts for w in text.split()[3:]})[0]
    stopped = complete(model, PROMPTS[1], range(8), max_tokens=40,
                       options=ReplyOptions(stop=(f" {word} ", "", "not a text of it"), logprobs=True))
    assert stopped.texts == [text.split(f" {word} ")[0] for text in whole.texts]
    cut = [f" {word} " in text for text in whole.texts]
    assert any(cut) and not all(cut) and "length" in whole.finish_reasons
    assert stopped.finish_reasons == [
        "stop" if stops else reason for stops, reason in zip(cut, whole.finish_reasons, strict=True)]
    assert stopped.completion_tokens < whole.completion_tokens
    assert sum(map(len, stopped.logprobs)) == stopped.completion_tokens and whole.logprobs is None


def test_the_end_token_counts_and_has_its_log_probability():
    reply = complete(models.load("embedded/game24"), "value 24", range(5), options=LOGPROBS)
    assert reply.texts == ["end | sure"] * 5 and reply.completion_tokens == 20
    for draw in reply.logprobs:
        assert [token for token, _ in draw] == ["end", "|", "sure", "<|end|>"]
        assert all(value <= 0 for _, value in draw)


def test_requests_that_cannot_be_met_are_refused_in_a_line(model):
    schema = ReplyOptions(schema={"type": "object"})
    for options, why in (({"options": schema}, "cannot be held to a schema.*hosted_vllm"),
                         ({"adapter": "x@1"}, "x@1 is not loaded")):
        with pytest.raises((ModelError, AdapterError), match=why):
            complete(model, "value 4", **options)
    with pytest.raises(OutOfRange, match="no token"):
        complete(model, "value 9999")
    with pytest.raises(ModelError, match="a prompt of 203 tokens; the context of local/tiny holds 128"):
        complete(model, "value" + " 1" * 200)
    short = complete(model, "value" + " 1" * 110, max_tokens=60, seeds=range(20), options=LOGPROBS)
    assert max(map(len, short.logprobs)) == 128 - short.prompt_tokens


def test_one_bad_prompt_spoils_no_other(model):
    async def ask():
        return await asyncio.gather(*(model.complete(Request(chat(prompt), (1,), max_tokens=5))
                                      for prompt in ("value 4", "value 9999", "value 5")), return_exceptions=True)

    good, bad, also = run_sync(ask())
    assert isinstance(bad, OutOfRange) and good.texts and also.texts


def test_directories_that_hold_no_such_model_are_named(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    mute = shutil.copytree(folder, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    blind = shutil.copytree(folder, tmp_path / "blind")
    (blind / "tokenizer.json").unlink()
    (shutil.copytree(folder, tmp_path / "odd") / "stl_programs.json").write_text('{"prompt_format": "odd"}')
    with pytest.raises(ModelError, match="names the format 'odd'; write one of"):
        InProcessModel("local/odd", tmp_path / "odd")
    for path, why in ((bare, "no safetensors file"), (broken, "no model that can be read"), (mute, "no chat template"),
                      (blind, "no tokenizer")):
        for use in (lambda m: m.check(), lambda m: complete(m, "value 4")):
            with pytest.raises(ModelError, match=why) as error:
                use(InProcessModel(f"local/{path.name}", path))
            assert "\n" not in str(error.value)


def test_a_closed_model_fails_what_it_was_asked(folder):
    model = InProcessModel("local/tiny", folder)

    async def close():
        asked = [asyncio.ensure_future(model.complete(Request(chat(prompt), tuple(range(50)), max_tokens=100)))
                 for prompt in PROMPTS * 5]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(model.close)
        return await asyncio.gather(*asked, return_exceptions=True)

    assert any("was closed before" in str(reply) for reply in run_sync(close()))
    with pytest.raises(ModelError, match="is closed"):
        complete(model, "value 4")


def test_shares_of_the_work_add_up_to_no_more_than_the_time(model):
    complete(model, "value 4")
    started = time.perf_counter()
    replies = crowd(model, PROMPTS)
    assert 0 < sum(reply.seconds for reply in replies) <= time.perf_counter() - started
    assert all(reply.seconds > 0 for reply in replies)


def test_uniforms_are_uniform():
    values = np.concatenate([uniforms(np.arange(10_000, dtype=np.uint64), np.full(10_000, step, dtype=np.uint64))
                             for step in (1, 2, 3)])
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.std() - 0.2887) < 0.01
    assert values.min() >= 0 and values.max() < 1


def test_sampling_follows_the_temperature_of_each_row(monkeypatch):
    monkeypatch.setattr("stl_programs.models.local.decoding.SLICE", 1000)
    logits, n = torch.tensor([[0.0, 1.0, 2.0]]).expand(6000, 3), 2000
    temperatures = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64).repeat_interleave(n)
    drawn = sample(logits, np.arange(3 * n, dtype=np.uint64), np.full(3 * n, 1, dtype=np.uint64), temperatures)
    assert (drawn[:n] == 2).all()
    for part, temperature in ((drawn[n:2 * n], 1.0), (drawn[2 * n:], 0.5)):
        share = torch.bincount(part, minlength=3) / n
        assert share.tolist() == pytest.approx((logits[0] / temperature).softmax(0).tolist(), abs=0.04)
