"""Drawing replies: many draws in step, each from its own stream of randomness; those that end leave the batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.generation.logits_process import LogitsProcessorList

from stl_programs.models.local.prefill import Rows, prefill

DEAD = 0.25
"""Part of the rows that may have ended before they are dropped: dropping copies the rest."""
SLICE = 2**22
"""Most probabilities computed at once, in float64: a batch of a large vocabulary is sampled in slices."""


@dataclass(eq=False)
class Ask:
    """A prompt, and the draws that are wanted of it.

    `limit`: most tokens of a draw. `ended`: asked after every token whether a draw of these tokens is complete.
    `rules`: what changes the logits before a token is taken.
    """

    prompt: list[int]
    seeds: Sequence[int]
    temperature: float
    limit: int
    logprobs: bool = False
    ended: Callable[[list[int]], bool] | None = None
    rules: LogitsProcessorList | None = None
    draws: list[Draw] = field(default_factory=list)
    open: int = 0
    """Draws that have not ended."""
    seconds: float = 0.0
    """The share of the work that was done for it."""


@dataclass(eq=False)
class Draw:
    """One draw: its tokens, the end token included, and their natural log-probabilities at temperature 1."""

    ask: Ask
    seed: int
    started: float = 0.0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False
    finish_reason: str = "length"
    """Of one that is done: "stop" where it ended by itself or by a stop text."""


class Batch:
    """Draws of one model, one token each a step."""

    def __init__(self, model: Any, ends: set[int]):
        self.model, self.ends = model, ends
        self.rows = Rows.empty(0)
        self.draws: list[Draw] = []
        self.live = 0
        self._work = 0.0  # seconds of all steps so far, each divided by the draws that took part

    def __len__(self) -> int:
        return self.live

    @torch.inference_mode()
    def admit(self, asks: Sequence[Ask]) -> list[Ask]:
        """Read the prompts of `asks`, each distinct one once, and draw their first tokens. Returns those that ended."""
        started = time.perf_counter()
        prompts: dict[tuple[int, ...], list[Ask]] = {}
        for ask in asks:
            ask.draws, ask.open = [Draw(ask, seed) for seed in ask.seeds], len(ask.seeds)
            prompts.setdefault(tuple(ask.prompt), []).append(ask)
        asked = list(prompts.values())
        pieces, fresh = prefill(self.model, [list(prompt) for prompt in prompts]), list[Draw]()
        stack, logits = [(self.rows, [i for i, draw in enumerate(self.draws) if not draw.done])], []
        for piece in pieces:
            drawn = [[draw for ask in asked[number] for draw in ask.draws] for number in piece.numbers]
            index = [row for row, draws in enumerate(drawn) for _ in draws]
            fresh += [draw for draws in drawn for draw in draws]
            stack.append((piece.rows, index))
            logits.append(piece.logits[index])
        self.rows = Rows.stacked(stack)
        self.draws = [draw for draw in self.draws if not draw.done]
        self.live += len(fresh)
        for draw in fresh:
            draw.started = self._work
        share = (time.perf_counter() - started) / len(asks)
        for ask in asks:
            ask.seconds += share
        ended = self.extend(fresh, torch.cat(logits))
        self.draws += fresh
        return ended

    @torch.inference_mode()
    def step(self) -> list[Ask]:
        """One more token for every draw. Returns the asks of which all draws have ended."""
        started = time.perf_counter()
        alive = [i for i, draw in enumerate(self.draws) if not draw.done]
        if len(alive) < (1 - DEAD) * len(self.draws):
            self.rows = Rows.stacked([(self.rows, alive)])
            self.draws = [self.draws[i] for i in alive]
        tokens = torch.tensor([draw.tokens[-1:] for draw in self.draws])
        logits = self.rows.read(self.model, tokens, torch.tensor([[not draw.done] for draw in self.draws]))
        self._work += (time.perf_counter() - started) / len(alive)
        return self.extend(self.draws, logits)

    def extend(self, draws: Sequence[Draw], logits: torch.Tensor) -> list[Ask]:
        """Append a token to every draw that has not ended; the asks that this completes."""
        chosen = sample(_ruled(draws, logits), np.array([draw.seed for draw in draws], dtype=np.uint64),
                        np.array([len(draw.tokens) + 1 for draw in draws], dtype=np.uint64),
                        torch.tensor([draw.ask.temperature for draw in draws], dtype=torch.float64))
        if any(draw.ask.logprobs for draw in draws):
            logprobs = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(1)).tolist()
        complete = []
        for i, (draw, token) in enumerate(zip(draws, chosen.tolist(), strict=True)):
            if draw.done:
                continue
            ask = draw.ask
            draw.tokens.append(token)
            if ask.logprobs:
                draw.logprobs.append(logprobs[i])
            stopped = token in self.ends or (ask.ended is not None and ask.ended(draw.tokens))
            if stopped or len(draw.tokens) >= ask.limit:
                draw.done, draw.finish_reason = True, "stop" if stopped else "length"
                ask.open -= 1
                self.live -= 1
                ask.seconds += self._work - draw.started
                if not ask.open:
                    complete.append(ask)
        return complete


def _ruled(draws: Sequence[Draw], logits: torch.Tensor) -> torch.Tensor:
    """The logits as the rules of each draw leave them."""
    ruled = [i for i, draw in enumerate(draws) if draw.ask.rules and not draw.done]
    if not ruled:
        return logits
    logits = logits.clone()
    for i in ruled:
        ask = draws[i].ask
        assert ask.rules is not None
        logits[i] = ask.rules(torch.tensor([ask.prompt + draws[i].tokens]), logits[i:i + 1].clone())[0]
    return logits


def sample(logits: torch.Tensor, seeds: np.ndarray, steps: np.ndarray, temperatures: torch.Tensor) -> torch.Tensor:
    """Exact sampling by inverse distribution: one token a row, [B].

    A row's draw depends on its own seed and step (counted from 1), not on what shares its batch. Temperature 0 takes
    the likeliest token. logits [B, V] float32; seeds, steps [B] uint64; temperatures [B] float64.
    """
    greedy = temperatures == 0
    if greedy.all():
        return logits.argmax(1)
    uniform = torch.from_numpy(uniforms(seeds, steps))[:, None]
    heat = temperatures.masked_fill(greedy, 1.0)[:, None]
    chosen = []
    for some, place, hot in zip(*(tensor.split(max(SLICE // logits.shape[1], 1)) for tensor in (logits, uniform, heat)),
                                strict=True):
        cumulative = torch.softmax(some.double() / hot, -1).cumsum(-1)
        chosen.append(torch.searchsorted(cumulative, place * cumulative[:, -1:], right=True))
    drawn = torch.cat(chosen)[:, 0].clamp(max=logits.shape[1] - 1)
    return torch.where(greedy, logits.argmax(1), drawn) if greedy.any() else drawn


def uniforms(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """splitmix64 of (seed, step) as uniforms in [0, 1). seeds, steps: [B] uint64; [B] float64."""
    with np.errstate(over="ignore"):
        z = seeds + np.uint64(0x9E3779B97F4A7C15) * steps
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
