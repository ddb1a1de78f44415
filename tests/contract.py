"""What every engine promises, as checks of one model: the same functions for models in this process and for servers.

A check takes a Subject. It gives the adapters that it loads names of its own, and unloads them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import string
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from stl_programs import models
from stl_programs.errors import AdapterError, ModelError, TransientError
from stl_programs.models import Model, Reply, ReplyOptions, Request
from stl_programs.models.artifacts import weights_hash

CLOSE = 1e-3
"""Natural log-probabilities may differ from the reference by this much."""
SCORED = ReplyOptions(logprobs=True)


@dataclass
class Subject:
    """A model under test.

    base: its directory. adapters: three LoRA adapters of it, with other weights each. prompts: at least two, long ones
    where the model reads long ones. max_rank: above it an adapter is refused; None where there is no bound.
    """

    model: Model
    base: Path
    adapters: Sequence[Path]
    prompts: Sequence[str]
    max_rank: int | None = None

    def ask(self, prompt: str, seeds: Sequence[int] = (0,), *, adapter: str | None = None, temperature: float = 1.0,
            max_tokens: int = 8, options: ReplyOptions = SCORED) -> Coroutine[Any, Any, Reply]:
        return self.model.complete(Request([{"role": "user", "content": prompt}], tuple(seeds), temperature, max_tokens,
                                           options, adapter))

    def load(self, label: str, path: Path) -> str:
        name = f"{self.model.name}@{label}"
        self.model.load_adapter(name, path)
        return name


# The reference: transformers and peft, fp32

@lru_cache
def tokenizer_of(base: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(base)


@lru_cache
def reference(base: Path, adapter: Path | None) -> Any:
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return (peft.PeftModel.from_pretrained(model, adapter) if adapter else model).eval()


def prompt_ids(base: Path, prompt: str) -> list[int]:
    text = tokenizer_of(base).apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                                  add_generation_prompt=True)
    return list(tokenizer_of(base)(text, add_special_tokens=False)["input_ids"])


def distance(base: Path, adapter: Path | None, prompt: str, reply: Reply) -> float:
    """The largest difference of a token's log-probability from the reference, which is given the same tokens."""
    import torch

    asked = prompt_ids(base, prompt)
    assert reply.logprobs
    worst = 0.0
    for draw in reply.logprobs:
        assert draw
        said = tokenizer_of(base).convert_tokens_to_ids([token for token, _ in draw])
        with torch.inference_mode():
            logits = reference(base, adapter)(torch.tensor([[*asked, *said]])).logits[0, len(asked) - 1:-1]
        expected = logits.log_softmax(-1)[range(len(said)), said]
        worst = max(worst, float((expected - torch.tensor([logprob for _, logprob in draw])).abs().max()))
    return worst


# What a model answers

async def log_probabilities_are_the_references(subject: Subject) -> None:
    for prompt in subject.prompts:
        for temperature, seeds in ((1.0, [1, 2]), (0.5, [1, 2]), (0.0, [1])):
            reply = await subject.ask(prompt, seeds, temperature=temperature)
            assert distance(subject.base, None, prompt, reply) < CLOSE


async def base_and_adapters_answer_side_by_side(subject: Subject) -> None:
    names = [None, *(subject.load(f"like-peft-{i}", path) for i, path in enumerate(subject.adapters))]
    cases = [(name, path, prompt) for name, path in zip(names, [None, *subject.adapters], strict=True)
             for prompt in subject.prompts]
    replies = await asyncio.gather(*(subject.ask(prompt, [1, 2], adapter=name) for name, _, prompt in cases))
    for (name, path, prompt), reply in zip(cases, replies, strict=True):
        assert distance(subject.base, path, prompt, reply) < CLOSE
        assert name is None or distance(subject.base, None, prompt, reply) > 10 * CLOSE
    _unload(subject, names)


async def greedy_draws_are_all_the_same(subject: Subject) -> None:
    reply = await subject.ask(subject.prompts[0], [1, 2, 3], temperature=0.0)
    assert len(reply.texts) == 3 and len(set(reply.texts)) == 1


async def draws_are_as_many_as_seeds_and_counted(subject: Subject) -> None:
    prompt = subject.prompts[0]
    reply = await subject.ask(prompt, [7, 8, 9, 10, 11])
    assert len(reply.texts) == 5 and len(set(reply.texts)) > 1 and all(reply.texts)
    assert reply.prompt_tokens == len(prompt_ids(subject.base, prompt))
    assert reply.logprobs and reply.completion_tokens == sum(len(draw) for draw in reply.logprobs)
    assert (await subject.ask(prompt, [7], options=ReplyOptions())).logprobs is None


async def draws_say_why_they_ended(subject: Subject) -> None:
    cut = await subject.ask(subject.prompts[0], [7, 8], max_tokens=1)
    assert cut.finish_reasons == ["length"] * 2
    whole = (await subject.ask(subject.prompts[0], [5], max_tokens=12)).texts[0] or ""
    stopped = await subject.ask(subject.prompts[0], [5], max_tokens=12,
                                options=ReplyOptions(stop=(whole.strip()[2:].strip()[0],)))
    assert stopped.finish_reasons == ["stop"]


async def seeds_repeat(subject: Subject) -> None:
    first, again, other = [await subject.ask(subject.prompts[0], seeds) for seeds in ([1, 2], [1, 2], [3, 4])]
    assert first.texts == again.texts != other.texts


async def a_reply_ends_before_a_stop_text(subject: Subject) -> None:
    whole = (await subject.ask(subject.prompts[0], [5], max_tokens=12)).texts[0] or ""
    stop = whole.strip()[2:].strip()[0]
    cut = await subject.ask(subject.prompts[0], [5], max_tokens=12, options=ReplyOptions(stop=(stop,)))
    assert [(text or "").strip() for text in cut.texts] == [whole[:whole.index(stop)].strip()]


async def a_schema_is_kept_or_refused(subject: Subject) -> None:
    try:
        reply = await subject.ask(subject.prompts[0], [1, 2], max_tokens=20,
                                  options=ReplyOptions(schema={"type": "integer", "minimum": 10, "maximum": 99}))
    except TransientError:
        raise
    except ModelError:
        return
    assert all(10 <= json.loads(text or "") <= 99 for text in reply.texts)


# Adapters that come and go

async def loading_and_unloading_disturb_nobody(subject: Subject) -> None:
    steady, first, second = subject.adapters
    names = [None, subject.load("steady", steady)]
    traffic = [(name, prompt, asyncio.create_task(subject.ask(prompt, [i], adapter=name, max_tokens=24)))
               for i in range(6) for name in names for prompt in subject.prompts]
    for i, path in enumerate((first, second, first)):
        passing = await asyncio.to_thread(subject.load, f"passing-{i}", path)
        reply = await subject.ask(subject.prompts[0], [0], adapter=passing)
        assert distance(subject.base, path, subject.prompts[0], reply) < CLOSE
        await asyncio.to_thread(subject.model.unload_adapter, passing)
    for name, prompt, task in traffic:
        assert distance(subject.base, steady if name else None, prompt, await task) < CLOSE
    _unload(subject, names[1:])


async def what_is_in_flight_under_an_unloaded_adapter_is_answered(subject: Subject) -> None:
    name = subject.load("leaving", subject.adapters[0])
    tasks = [asyncio.create_task(subject.ask(subject.prompts[0], [i], adapter=name, max_tokens=24)) for i in range(4)]
    while not any(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    await asyncio.to_thread(subject.model.unload_adapter, name)
    for task in tasks:
        assert distance(subject.base, subject.adapters[0], subject.prompts[0], await task) < CLOSE
    await _fails(subject.ask(subject.prompts[0], adapter=name))


async def versions_do_not_share_a_prefix_cache(subject: Subject) -> None:
    names = [subject.load(f"version-{i}", path) for i, path in enumerate(subject.adapters)]
    for _ in range(2):
        for name, path in zip(names, subject.adapters, strict=True):
            reply = await subject.ask(subject.prompts[0], adapter=name)
            assert distance(subject.base, path, subject.prompts[0], reply) < CLOSE
    _unload(subject, names)


async def weights_changed_in_place_are_refused_or_served_right(subject: Subject, folder: Path) -> None:
    path = folder / "changing"
    shutil.copytree(subject.adapters[0], path)
    name = subject.load("changing", path)
    await subject.ask(subject.prompts[0], adapter=name)
    subject.model.unload_adapter(name)
    shutil.copytree(subject.adapters[1], path, dirs_exist_ok=True)
    for label in ("changing", "changed"):
        try:
            name = subject.load(label, path)
        except AdapterError:
            continue
        reply = await subject.ask(subject.prompts[0], adapter=name)
        assert distance(subject.base, subject.adapters[1], subject.prompts[0], reply) < CLOSE
        subject.model.unload_adapter(name)


# What cannot be done

async def an_unknown_adapter_does_not_pass_when_sent_again(subject: Subject) -> None:
    await _fails(subject.ask(subject.prompts[0], adapter=f"{subject.model.name}@never-loaded"))


async def a_prompt_that_is_too_long_does_not_pass_when_sent_again(subject: Subject) -> None:
    limit = json.loads((subject.base / "config.json").read_text())["max_position_embeddings"]
    await _fails(subject.ask(f"{subject.prompts[0]}{' 4' * limit}"))


async def an_adapter_that_is_not_there_is_refused(subject: Subject, folder: Path) -> None:
    with pytest.raises(AdapterError):
        subject.load("nowhere", folder / "nowhere")
    with pytest.raises(AdapterError):
        subject.model.unload_adapter(f"{subject.model.name}@never-loaded")


async def a_name_is_not_given_to_other_weights(subject: Subject) -> None:
    name = subject.load("taken", subject.adapters[0])
    with pytest.raises(AdapterError):
        subject.load("taken", subject.adapters[1])
    reply = await subject.ask(subject.prompts[0], adapter=name)
    assert distance(subject.base, subject.adapters[0], subject.prompts[0], reply) < CLOSE
    _unload(subject, [name])


async def an_adapter_of_another_base_is_refused(subject: Subject, folder: Path) -> None:
    shutil.copytree(subject.adapters[0], folder / "foreign")
    (folder / "foreign" / "provenance.json").write_text(json.dumps({"base_sha256": "f" * 64}))
    with pytest.raises(AdapterError, match="ffffffffffff"):
        subject.load("foreign", folder / "foreign")


async def a_rank_that_is_too_high_is_refused(subject: Subject, folder: Path) -> None:
    if subject.max_rank is None:
        return
    large = random_adapter(subject.base, folder / "large", seed=9, rank=2 * subject.max_rank)
    with pytest.raises(AdapterError):
        subject.load("large", large)
    await subject.ask(subject.prompts[0])


async def _fails(asked: Awaitable[Any]) -> None:
    with pytest.raises((ModelError, AdapterError)) as raised:
        await asked
    assert not isinstance(raised.value, TransientError), raised.value


def _unload(subject: Subject, names: Sequence[str | None]) -> None:
    for name in filter(None, names):
        subject.model.unload_adapter(name)


CHECKS: list[Callable[..., Coroutine[Any, Any, None]]] = [
    log_probabilities_are_the_references, base_and_adapters_answer_side_by_side, greedy_draws_are_all_the_same,
    draws_are_as_many_as_seeds_and_counted, seeds_repeat, a_reply_ends_before_a_stop_text, a_schema_is_kept_or_refused,
    loading_and_unloading_disturb_nobody, what_is_in_flight_under_an_unloaded_adapter_is_answered,
    versions_do_not_share_a_prefix_cache, weights_changed_in_place_are_refused_or_served_right,
    an_unknown_adapter_does_not_pass_when_sent_again, a_prompt_that_is_too_long_does_not_pass_when_sent_again,
    an_adapter_that_is_not_there_is_refused, a_name_is_not_given_to_other_weights,
    an_adapter_of_another_base_is_refused, a_rank_that_is_too_high_is_refused]


def run(check: Callable[..., Coroutine[Any, Any, None]], subject: Subject, folder: Path) -> None:
    """One check, on an event loop of its own; `folder` is for files that it may need."""
    wants_folder = "folder" in check.__annotations__

    async def whole() -> None:
        try:
            await (check(subject, folder) if wants_folder else check(subject))
        finally:
            await models.close_sessions()

    asyncio.run(whole())


# Models and adapters to check with

LONG_PROMPTS = ["The quick brown fox jumps over the lazy dog. " * 7, "Pack my box with five dozen liquor jugs! " * 5]


def tiny_llama(folder: Path, seed: int = 0) -> Path:
    """A random Llama with a token per character, whose next token depends on what it has read."""
    import torch
    import transformers
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds

    words = ["<pad>", "<eos>", *string.printable[:95]]
    backend = Tokenizer(kinds.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>",
        chat_template="{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %}"
                      "<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}",
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, initializer_range=0.15, pad_token_id=0,
        eos_token_id=1, bos_token_id=None)).save_pretrained(folder)
    return folder


def random_adapter(base: Path, folder: Path, seed: int, rank: int = 8) -> Path:
    """A LoRA adapter of `base` with random weights large enough to be noticed, and its provenance."""
    import peft
    import torch
    import transformers

    torch.manual_seed(seed)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        peft.LoraConfig(r=rank, lora_alpha=16, task_type="CAUSAL_LM", target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(folder)
    (folder / "provenance.json").write_text(json.dumps({"base_sha256": weights_hash(base)}))
    return folder


def adapters_of(base: Path, folder: Path) -> list[Path]:
    return [random_adapter(base, folder / f"adapter-{seed}", seed) for seed in range(3)]
