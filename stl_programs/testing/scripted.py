"""A fake: a model whose replies come from a Python function, without a server. For tests and for trying programs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from stl_programs.errors import AdapterError, ModelError
from stl_programs.models.base import Messages, Prices, Reply, Request
from stl_programs.models.formats import LookaheadFormat


@dataclass(frozen=True)
class Said:
    """What a script says beside a text: what it thought beforehand, and why it ended where that is not its length.

    Its thoughts count against the bound on tokens, before its text; a text is None where it refuses.
    """

    text: str | None
    thoughts: str | None = None
    finish_reason: str | None = None


Says = Callable[[Messages, int], str | Said]
"""(messages, seed of the draw) -> what is said. It may raise TransientError or ModelError, as a model would."""


class ScriptedModel:
    """Answers by `reply`, after `latency(seed)` seconds; counts what it served. Tokens are words.

    Args:
        takes_n: draws that it answers in one request; the engine asks again for the rest.
        prices: of its tokens; None for a model of unknown price.

    Example:
        >>> Value(env.value_signature, ScriptedModel("scripted/fair", lambda messages, seed: "..."))
    """

    def __init__(self, name: str, reply: Says, *, latency: Callable[[int], float] | None = None,
                 prices: Prices | None = None, takes_n: int = 1000, prompt_format: dspy.Adapter | None = None):
        self.name, self.reply, self.latency, self.takes_n = name, reply, latency, takes_n
        self.endpoint: str | None = name
        self.prompt_format = prompt_format or LookaheadFormat()
        self._prices = prices
        self.requests: list[tuple[str, tuple[int, ...]]] = []
        self.prompt_tokens = self.completion_tokens = self.in_flight = self.most_in_flight = 0

    async def complete(self, request: Request) -> Reply:
        options = request.options
        if options.logprobs or options.schema is not None:
            raise ModelError(f"{self.name} is a script; it has no log-probabilities and keeps to no schema")
        seeds = request.seeds[:self.takes_n]
        self.requests.append((str(request.messages), seeds))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency:
                await asyncio.sleep(self.latency(seeds[0]))
            draws = [within(self.reply(request.messages, seed), request.max_tokens, options.stop) for seed in seeds]
        finally:
            self.in_flight -= 1
        prompt = sum(len(str(message["content"]).split()) for message in request.messages)
        completion = sum(count for _, count in draws)
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        thoughts = [said.thoughts for said, _ in draws]
        return Reply([said.text for said, _ in draws], prompt, completion,
                     finish_reasons=[said.finish_reason for said, _ in draws],
                     thoughts=thoughts if any(thoughts) else None)

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


def within(said: str | Said, limit: int | None, stop: Sequence[str]) -> tuple[Said, int]:
    """What is said up to the first of the `stop` texts and the `limit`-th word, with why it ended; and its words."""
    said = said if isinstance(said, Said) else Said(said)
    thoughts, thought, ended = truncated(said.thoughts or "", limit)
    if ended == "length" or (thoughts and thought == limit):
        return Said(None, thoughts, "length"), thought
    if said.text is None:
        return Said(None, said.thoughts, said.finish_reason or "refusal"), thought
    text, count, ended = truncated(before_stop(said.text, stop), None if limit is None else limit - thought)
    return Said(text, said.thoughts, said.finish_reason or ended), thought + count


def before_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of the `stop` texts in it."""
    return text[:min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]


def truncated(text: str, limit: int | None) -> tuple[str, int, str]:
    """The text up to its `limit`-th word, how many words that is, and the finish reason."""
    count = len(text.split())
    if limit is None or count <= limit:
        return text, count, "stop"
    match = re.match(rf"(?:\s*\S+){{{limit}}}", text)
    return match.group() if match else "", limit, "length"
