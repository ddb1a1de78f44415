"""Who answers behind the simulator: a Python function, whose tokens are words, or a real model of this process."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.base import Completions, Model
from stl_programs.models.doors.litellm_providers import MAX_TOKENS, choices, read_options
from stl_programs.testing.scripted import before_stop

WRONG = "I do not know"
"""A reply of no form: what an error puts in place of a reply, and what a model says that has no tokens for a prompt."""
Reply = Callable[[list[dict[str, Any]], str, int], str]
"""(messages, model, seed) -> text. A function of its arguments alone, so that replies repeat."""


@dataclass(frozen=True)
class Played:
    """The draws of one request as the choices of a chat completion, and their tokens."""

    choices: list[dict[str, Any]]
    prompt_tokens: int
    completion_tokens: int
    longest: int
    """Tokens of the longest draw."""


class Player(Protocol):
    """What the simulator asks. `body` is a chat completion request; a ModelError refuses it, in its words."""

    async def draw(self, body: Mapping[str, Any], n: int, seed: int, limit: int | None) -> Played: ...

    def load_adapter(self, name: str, path: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def root(self) -> str | None:
        """The directory of the base weights, as a server lists it."""


class Script:
    """A function. It keeps no schema by itself, and has no log-probabilities."""

    def __init__(self, reply: Reply):
        self.reply = reply

    async def draw(self, body: Mapping[str, Any], n: int, seed: int, limit: int | None) -> Played:
        options = read_options(body)
        if options.logprobs:
            raise ModelError("a scripted reply has no logprobs; let the simulator play a model")
        draws = [truncated(before_stop(self.reply(body["messages"], body["model"], seed + i), options.stop), limit)
                 for i in range(n)]
        words = sum(len(message["content"].split()) for message in body["messages"])
        return Played([{"index": i, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
                       for i, (text, _, reason) in enumerate(draws)],
                      words, sum(count for _, count, _ in draws), max(count for _, count, _ in draws))

    def load_adapter(self, name: str, path: Path) -> None:
        """Any directory will do: the function sees the name."""

    def unload_adapter(self, name: str) -> None:
        """Nothing is held."""

    def root(self) -> str | None:
        return None


class ModelPlayer:
    """A model of this process, under names of the server's own; its adapters are apart from the process's own."""

    def __init__(self, model: Model):
        self.model = model
        self._adapters: dict[str, str] = {}
        self._count = itertools.count()

    async def draw(self, body: Mapping[str, Any], n: int, seed: int, limit: int | None) -> Played:
        temperature = body.get("temperature")
        most = limit or MAX_TOKENS
        try:
            reply = await self.model.complete(
                body["messages"], [seed + i for i in range(n)], temperature=1.0 if temperature is None else temperature,
                max_tokens=most, adapter=self._adapters.get(body["model"]), options=read_options(body))
        except OutOfRange:  # a server reads an unknown token for what it cannot spell, and answers at random
            words = sum(len(message["content"].split()) for message in body["messages"])
            reply = Completions([WRONG] * n, words, n * len(WRONG.split()))
        return Played(choices(reply, most), reply.prompt_tokens, reply.completion_tokens, _longest(reply))

    def load_adapter(self, name: str, path: Path) -> None:
        own = f"{self.model.name}@{id(self):x}-{next(self._count)}-{name}"
        self.model.load_adapter(own, path)
        self._adapters[name] = own

    def unload_adapter(self, name: str) -> None:
        self.model.unload_adapter(self._adapters[name])  # which stays known: never answered by the base instead

    def root(self) -> str | None:
        directory = self.model.weights()
        return str(directory.resolve()) if directory else None


def _longest(reply: Completions) -> int:
    """Of draws whose lengths are not known one by one, what they have on average."""
    return max(map(len, reply.logprobs)) if reply.logprobs else -(-reply.completion_tokens // len(reply.texts))


def truncated(text: str, limit: int | None) -> tuple[str, int, str]:
    """The text up to its `limit`-th word, how many words that is, and the finish reason."""
    count = len(text.split())
    if limit is None or count <= limit:
        return text, count, "stop"
    match = re.match(rf"(?:\s*\S+){{{limit}}}", text)
    return match.group() if match else "", limit, "length"
