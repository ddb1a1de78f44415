"""One request at a time by transformers' own `generate`: for models that a batch of ours would read otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from stl_programs.models.local.decoding import Ask, Batch, Draw
from stl_programs.models.local.reading import CLOSE


class _Chosen(LogitsProcessor):
    """Leaves of every row's logits the token that is drawn there."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.batch.extend(self.batch.draws, scores)
        tokens = torch.tensor([draw.tokens[-1:] for draw in self.batch.draws])
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)


class _Over(StoppingCriteria):
    """The rows whose draws have ended."""

    def __init__(self, batch: Batch, closed: Callable[[], bool]):
        self.batch, self.closed = batch, closed

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([draw.done or self.closed() for draw in self.batch.draws])


@torch.inference_mode()
def answer_alone(model: Any, ends: set[int], ask: Ask, together: bool = True,
                 closed: Callable[[], bool] = lambda: False) -> list[Ask]:
    """Draw what is asked, its draws `together` or one by one. [ask], or [] where it was `closed` before that."""
    started = time.perf_counter()
    ask.draws, ask.open = [Draw(ask, seed) for seed in ask.seeds], len(ask.seeds)
    for draws in [ask.draws] if together else [[draw] for draw in ask.draws]:
        batch = Batch(model, ends)
        batch.draws, batch.live = draws, len(draws)
        model(input_ids=torch.tensor([ask.prompt[:1]]))  # rotary frequencies that grew with a longer text shrink again
        _generate(model, [ask.prompt] * len(draws), ask.limit,
                  logits_processor=LogitsProcessorList([_Chosen(batch)]),
                  stopping_criteria=StoppingCriteriaList([_Over(batch, closed)]))
    ask.seconds += time.perf_counter() - started
    return [] if ask.open else [ask]


@torch.inference_mode()
def draws_together(model: Any) -> bool:
    """Whether `generate` reads two equal rows as it reads one. Raises what the model raises where it reads none."""
    texts = [[1, 3, 2, 3]] * 2
    one, two = (torch.stack(_generate(model, rows, 3, return_dict_in_generate=True, output_logits=True).logits)[:, :1]
                for rows in (texts[:1], texts))
    return torch.allclose(one, two, rtol=CLOSE, atol=CLOSE)


def _generate(model: Any, texts: list[list[int]], limit: int, **options: Any) -> Any:
    prompts = torch.tensor(texts)
    return model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=GenerationConfig(
        max_new_tokens=limit, do_sample=False, pad_token_id=0, **{
            name: options.pop(name) for name in ("return_dict_in_generate", "output_logits") if name in options}),
        **options)
