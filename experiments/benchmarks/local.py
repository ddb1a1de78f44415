"""The local engine: against one hand-written batched `generate`, and what our modules add to it.

The model is a random Llama of about 9 million parameters with a byte-pair tokenizer of its own, made on the fly. It
ends a reply with a probability of about 1/16 at every token, so that lengths are about geometric, cut at 48. Prompts
are Game-of-24 judgements in the stock chat format: all begin alike, and siblings come one after the other. Both sides
compute in float32 on one thread; tokens are generated ones, per second of CPU time of the whole process, so that
another load on the machine weighs on neither side.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

import dspy
import torch
import transformers
from dspy.utils.exceptions import AdapterParseError
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models

from experiments.benchmarks.face import Row, at_least, at_most, main, median_and_spread
from signatures.game24 import EstimateNumbers
from stl_programs import GameOf24, Value, run_sync
from stl_programs.engine import Context, Run, enter
from stl_programs.models import PROVENANCE, load
from stl_programs.models.artifacts import weights_hash
from stl_programs.models.base import Messages, Request
from stl_programs.models.doors.dspy_lm import lm
from stl_programs.models.formats import CompactFormat, LookaheadFormat
from stl_programs.models.local.in_process import InProcessModel

REPEATS = 10
REQUESTS = 512
SLICE = 64
"""Requests of one repetition of the hand-written side: its speed does not depend on how many batches it runs."""
SIZES = (32, 64, 128, 256, 512)
LONGEST = 48
MEAN = 16
TEMPLATE = ("{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def prompts(count: int) -> list[Messages]:
    """Judgements of the first eight successors of one puzzle after the other."""
    env, form, made = GameOf24(), LookaheadFormat(), list[Messages]()
    for task in env.tasks("train"):
        root = env.reset(task)
        for action in env.legal_actions(root)[:8]:
            made.append(form.format(EstimateNumbers, [], {"state": env.step(root, action).state.text}))
            if len(made) == count:
                return made
    raise ValueError(f"{count} prompts: there are {len(made)}")


@contextmanager
def made_model(adapters: int = 0) -> Iterator[tuple[InProcessModel, list[str]]]:
    """The random model, served, with random adapters that change every linear map but those that write the ending."""
    with tempfile.TemporaryDirectory() as root:
        base, names = Path(root, "base"), [f"local/random@{i}" for i in range(adapters)]
        _tokenizer().save_pretrained(base)
        _random_llama().save_pretrained(base)
        model = InProcessModel("local/random", base)
        for i, name in enumerate(names):
            _random_adapter(base, Path(root, str(i)), i)
            model.load_adapter(name, Path(root, str(i)))
        yield model, names
        model.close()


def _tokenizer() -> Any:
    rng = random.Random(0)
    words = [" " + "".join(rng.choice("bcdfghklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 4)))
             for _ in range(60_000)]
    backend = Tokenizer(token_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [*words, *(message["content"] for prompt in prompts(400) for message in prompt)],
        trainers.BpeTrainer(vocab_size=8192, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                            special_tokens=["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<|end|>",
                                                chat_template=TEMPLATE)


def _random_llama() -> Any:
    """One coordinate of the hidden state is the same at every token, and only the end token's logit reads it."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1,
        bos_token_id=None))
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.5
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        constant = model.model(torch.arange(5, 105)[None]).last_hidden_state[0, :, 0].mean()
        model.lm_head.weight[:, 0] = 0
        model.lm_head.weight[1] = 0
        model.lm_head.weight[1, 0] = math.log(8192 / (MEAN - 1)) / constant
    return model


def _random_adapter(base: Path, folder: Path, seed: int, rank: int = 16) -> None:
    torch.manual_seed(seed)
    folder.mkdir()
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
    model, tensors = transformers.AutoModelForCausalLM.from_pretrained(base), {}
    for name, module in model.named_modules():
        if name.endswith(tuple(names)):
            rows, columns = module.weight.shape
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, columns) * 0.02
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(rows, rank) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
        "target_modules": [name.partition(".")[2] for name in names]}))
    (folder / PROVENANCE).write_text(json.dumps({"base_sha256": weights_hash(base)}))


def ours(model: InProcessModel, asked: Sequence[Messages], seed: int, draws: int = 1,
         adapters: Sequence[str | None] = (None,)) -> float:
    """Tokens a CPU-second of all requests at once through `complete`, adapters in turn."""
    async def all_at_once() -> int:
        replies = await asyncio.gather(*(
            model.complete(Request(messages, tuple(seed * 10**6 + i * draws + k for k in range(draws)),
                                   max_tokens=LONGEST, adapter=adapters[i % len(adapters)]))
            for i, messages in enumerate(asked)))
        return sum(reply.completion_tokens for reply in replies)

    return _rate(lambda: run_sync(all_at_once()))


def by_hand(model: InProcessModel, asked: Sequence[Messages], size: int, seed: int, draws: int = 1,
            adapter: str | None = None, shared: bool = True) -> float:
    """Tokens a CPU-second of batched `generate` calls under one adapter, sorted by length, padded at the left.

    `shared`: what all prompts begin with was read before the clock starts, and is handed to `generate` as its cache.
    """
    torch.manual_seed(seed)
    tuned = model._files.model(model._adapters[adapter] if adapter else None)
    batches = list(_batches(tuned, sorted(map(model._files.encode, asked), key=len), size, shared))
    return _rate(lambda: sum(_generate(tuned, batch, draws) for batch in batches))


def _batches(model: Any, tokens: list[list[int]], size: int,
             shared: bool) -> Iterator[tuple[Any, torch.Tensor, torch.Tensor]]:
    begin = list(commonprefix(tokens)) if shared else []  # noqa: RUF071 - of lists
    with torch.inference_mode():
        read = model(torch.tensor([begin]), use_cache=True, logits_to_keep=1).past_key_values if shared else None
    for start in range(0, len(tokens), size):
        part = tokens[start:start + size]
        pads = [max(map(len, part)) - len(prompt) for prompt in part]
        inputs = torch.tensor([begin + [0] * pad + prompt[len(begin):]
                               for prompt, pad in zip(part, pads, strict=True)])
        mask = torch.tensor([[1] * len(begin) + [0] * pad + [1] * (len(prompt) - len(begin))
                             for prompt, pad in zip(part, pads, strict=True)])
        yield read, inputs, mask


def _generate(model: Any, batch: tuple[Any, torch.Tensor, torch.Tensor], draws: int) -> int:
    """One call; the number of tokens up to the end of each reply."""
    read, inputs, mask = batch
    rows = len(inputs) * draws
    cache = read and transformers.DynamicCache([
        (layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)) for layer in read.layers])
    with torch.inference_mode():
        out = model.generate(inputs, attention_mask=mask, past_key_values=cache, do_sample=True, top_k=0, top_p=1.0,
                             temperature=1.0, max_new_tokens=LONGEST, num_return_sequences=draws, pad_token_id=0,
                             eos_token_id=1)[:, inputs.shape[1]:]
    ended = out == 1
    return int(torch.where(ended.any(1), ended.int().argmax(1) + 1, out.shape[1]).sum())


def _rate(work: Callable[[], int]) -> float:
    started = time.process_time()
    count = work()
    return count / (time.process_time() - started)


@cache
def _best_size() -> int:
    """The batch size at which the hand-written side is fastest; larger ones are not tried once they gain nothing."""
    with made_model() as (model, _):
        best, fastest = SIZES[0], 0.0
        for size in SIZES:
            rate = by_hand(model, prompts(max(size, SLICE)), size, seed=1)
            if rate < 1.05 * fastest:
                return size if rate > fastest else best
            best, fastest = size, rate
        return best


def _against(model: InProcessModel, goal: float, what: str, adapters: Sequence[str | None]) -> list[Row]:
    torch.set_num_threads(1)
    asked, size, ratios, rates = prompts(REQUESTS), _best_size(), list[float](), list[float]()
    ours(model, asked[:32], 0, adapters=adapters)
    for seed in range(REPEATS):
        turn = seed % len(adapters)
        own = asked[turn::len(adapters)]
        first = SLICE * seed % len(own)
        theirs = by_hand(model, own[first:first + SLICE], size, seed, adapter=adapters[turn])
        rates.append(ours(model, asked, seed, adapters=adapters))
        ratios.append(rates[-1] / theirs)
    (ratio, spread), (rate, rates_spread) = median_and_spread(ratios), median_and_spread(rates)
    return [at_least(f"local engine / batched generate, {what}", ratio, goal, "x",
                     f"{spread}; generate in batches of {size}, handed the cache of the shared prefix"),
            Row(f"local engine, {what}", rate, "tokens/s", None, None, rates_spread)]


def one_adapter() -> list[Row]:
    """512 concurrent judgements of one model against hand-batched generate at its best batch size, tokens a second."""
    with made_model() as (model, _):
        rows = _against(model, 0.9, f"{REQUESTS} requests", [None])
        asked, size = prompts(32), _best_size()
        for name, draws, shared in ((f"{len(asked)} requests of 5 draws", 5, True),
                                    (f"{len(asked)} requests, generate reads all of every prompt", 1, False)):
            ratios = [ours(model, asked, seed, draws) / by_hand(model, asked, size // draws, seed, draws, shared=shared)
                      for seed in range(3)]
            figure, spread = median_and_spread(ratios)
            rows.append(Row(f"local engine / batched generate, {name}", figure, "x", None, None, spread))
        return rows


def four_adapters() -> list[Row]:
    """512 concurrent judgements under four adapters mixed, against generate in the best order, merged beforehand."""
    with made_model(4) as (model, names):
        return _against(model, 0.85, f"{REQUESTS} requests under 4 adapters", names)


def embedded_overhead() -> list[Row]:
    """CPU per request of the embedded model through our modules and through dspy, above its engine called directly."""
    torch.set_num_threads(1)
    env, model, count = GameOf24(), load("embedded/game24"), 400
    value = Value(env.value_signature, "embedded/game24", samples=1, max_tokens=60)
    numbers = itertools.islice(itertools.combinations_with_replacement(range(1, 13), 3), count // 2)
    states = [" ".join(map(str, three)) + last for three in numbers for last in ("", f" {three[0]}")]
    predictor, served = dspy.Predict(env.value_signature), lm("embedded/game24", cache=False)

    async def bare(seed: int, i: int) -> None:
        await model.complete(Request([{"role": "user", "content": f"value {states[i]}"}], (seed * count + i,),
                                     max_tokens=60))

    async def drawn(seed: int, i: int) -> None:
        await value.predict.draw({"state": states[i]}, [seed * count + i], about=states[i])

    async def predicted(seed: int, i: int) -> None:
        with contextlib.suppress(AdapterParseError):
            await predictor.acall(state=states[i], config={"seed": seed * count + i, "temperature": 1.0,
                                                           "max_tokens": 60})

    async def all_at_once(one: Callable[[int, int], Awaitable[None]], seed: int) -> None:
        enter(Context(Run(), seed, task="t", scope="t"))
        with dspy.context(lm=served, adapter=CompactFormat()):
            await asyncio.gather(*(one(seed, i) for i in range(count)))

    def cpu(one: Callable[[int, int], Awaitable[None]], seed: int) -> float:
        gc.collect()
        started = time.process_time()
        run_sync(all_at_once(one, seed))
        return (time.process_time() - started) / count * 1000

    spent = [[cpu(one, seed) for one in (bare, drawn, predicted)] for seed in range(REPEATS + 1)][1:]
    draws, drawn_spread = median_and_spread(ours - engine for engine, ours, _ in spent)
    predictions, predicted_spread = median_and_spread(theirs - engine for engine, _, theirs in spent)
    engine, engine_spread = median_and_spread(engine for engine, _, _ in spent)
    return [at_most("CPU per request above the embedded engine, our modules, compact adapter", draws, 0.4, "ms",
                    drawn_spread),
            Row("CPU per request above the embedded engine, dspy.Predict, compact adapter", predictions, "ms", None,
                None, predicted_spread),
            Row("CPU per request of the embedded engine itself", engine, "ms", None, None, engine_spread)]


if __name__ == "__main__":
    sys.exit(main({"one-adapter": one_adapter, "four-adapters": four_adapters, "embedded-overhead": embedded_overhead}))
