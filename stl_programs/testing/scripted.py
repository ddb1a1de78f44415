"""A fake: a model whose replies come from a Python function, without a server. For tests and for trying programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy

from stl_programs.errors import AdapterError, ModelError
from stl_programs.models.base import PLAIN, Completions, Messages, Prices, ReplyOptions
from stl_programs.models.formats import LookaheadFormat

Reply = Callable[[Messages, int], str]
"""(messages, seed of the draw) -> text. It may raise TransientError or ModelError, as a model would."""


class ScriptedModel:
    """Answers by `reply`, after `latency(seed)` seconds; counts what it served. Tokens are words.

    Args:
        takes_n: draws that it answers in one request; the engine asks again for the rest.
        prices: of its tokens; None for a model of unknown price.

    Example:
        >>> Value(env.value_signature, ScriptedModel("scripted/fair", lambda messages, seed: "..."))
    """

    def __init__(self, name: str, reply: Reply, *, latency: Callable[[int], float] | None = None,
                 prices: Prices | None = None, takes_n: int = 1000, prompt_format: dspy.Adapter | None = None):
        self.name, self.reply, self.latency, self.takes_n = name, reply, latency, takes_n
        self.endpoint: str | None = name
        self.prompt_format = prompt_format or LookaheadFormat()
        self._prices = prices
        self.requests: list[tuple[str, tuple[int, ...]]] = []
        self.prompt_tokens = self.completion_tokens = self.in_flight = self.most_in_flight = 0

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None, options: ReplyOptions = PLAIN) -> Completions:
        if options.logprobs or options.schema is not None:
            raise ModelError(f"{self.name} is a script; it has no log-probabilities and keeps to no schema")
        seeds = list(seeds)[:self.takes_n]
        self.requests.append((str(messages), tuple(seeds)))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency:
                await asyncio.sleep(self.latency(seeds[0]))
            texts: list[str | None] = [before_stop(" ".join(self.reply(messages, seed).split(" ")[:max_tokens]),
                                                   options.stop) for seed in seeds]
        finally:
            self.in_flight -= 1
        prompt = sum(len(str(message["content"]).split()) for message in messages)
        completion = sum(len((text or "").split()) for text in texts)
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        return Completions(texts, prompt, completion)

    def prices(self) -> Prices | None:
        return self._prices

    def check(self, max_tokens: int = 0) -> None:
        """Always there."""

    def weights(self) -> Path | None:
        return None

    def load_adapter(self, name: str, path: Path) -> None:
        raise AdapterError(f"{self.name} is a script; it takes no adapters")

    def unload_adapter(self, name: str) -> None:
        raise AdapterError(f"{self.name} is a script; it serves no adapter {name}")

    def __deepcopy__(self, memo: dict[int, Any]) -> ScriptedModel:
        return self


def before_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of the `stop` texts in it."""
    return text[:min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]
