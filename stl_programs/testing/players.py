"""Who answers behind the simulator: a Python function, whose tokens are words, or a real model of this process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stl_programs.errors import ModelError, OutOfRange
from stl_programs.models.base import Messages, Model, Reply, Request
from stl_programs.models.doors.litellm_providers import MAX_TOKENS, choices, read_options
from stl_programs.testing.scripted import Said, within

WRONG = "I do not know"
"""A reply of no form: what an error puts in place of a reply, and what a model says that has no tokens for a prompt."""
Answers = Callable[[Messages, str, int], str | Said]
"""(messages, model, seed) -> what is said. A function of its arguments alone, so that replies repeat."""


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

    def __init__(self, reply: Answers):
        self.reply = reply

    async def draw(self, body: Mapping[str, Any], n: int, seed: int, limit: int | None) -> Played:
        options = read_options(body)
        if options.logprobs:
            raise ModelError("a scripted reply has no logprobs; let the simulator play a model")
        draws = [within(self.reply(body["messages"], body["model"], seed + i), limit, options.stop) for i in range(n)]
        words = sum(len(message["content"].split()) for message in body["messages"])
        counts = [count for _, count in draws]
        return Played([_choice(i, said) for i, (said, _) in enumerate(draws)], words, sum(counts), max(counts))

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
        try:
            reply = await self.model.complete(Request(
                body["messages"], tuple(seed + i for i in range(n)), max_tokens=limit or MAX_TOKENS,
                temperature=1.0 if temperature is None else temperature,
                adapter=self._adapters.get(body["model"]), options=read_options(body)))
        except OutOfRange:  # a server reads an unknown token for what it cannot spell, and answers at random
            words = sum(len(message["content"].split()) for message in body["messages"])
            reply = Reply([WRONG] * n, words, n * len(WRONG.split()))
        return Played(choices(reply), reply.prompt_tokens, reply.completion_tokens, _longest(reply))

    def load_adapter(self, name: str, path: Path) -> None:
        own = f"{self.model.name}@{id(self):x}-{next(self._count)}-{name}"
        self.model.load_adapter(own, path)
        self._adapters[name] = own

    def unload_adapter(self, name: str) -> None:
        self.model.unload_adapter(self._adapters[name])  # which stays known: never answered by the base instead

    def root(self) -> str | None:
        directory = self.model.weights()
        return str(directory.resolve()) if directory else None


def _choice(i: int, said: Said) -> dict[str, Any]:
    thoughts = {"reasoning_content": said.thoughts} if said.thoughts else {}
    return {"index": i, "finish_reason": said.finish_reason,
            "message": {"role": "assistant", "content": said.text, **thoughts}}


def _longest(reply: Reply) -> int:
    """Of draws whose lengths are not known one by one, what they have on average."""
    return max(map(len, reply.logprobs)) if reply.logprobs else -(-reply.completion_tokens // len(reply.texts))
