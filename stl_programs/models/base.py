"""What every model offers to the modules, and where prices are kept apart from tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dspy

Messages = list[dict[str, Any]]
"""A chat: dicts with "role" and "content"."""


@dataclass(frozen=True)
class Prices:
    """Dollars per token."""

    prompt: float
    cached_prompt: float
    completion: float

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """Dollars of one request; `cached_tokens` of the prompt tokens were read from the provider's prefix cache."""
        return ((prompt_tokens - cached_tokens) * self.prompt + cached_tokens * self.cached_prompt
                + completion_tokens * self.completion)


FREE = Prices(0.0, 0.0, 0.0)
"""Of a model in this process."""


@dataclass(frozen=True)
class ReplyOptions:
    """What a request may ask for beside text. A model that cannot give it raises ModelError before anything is sent.

    stop: end a draw before the first of these texts. logprobs: also the log-probability of every token of a draw.
    schema: a JSON Schema that every draw has to fit.
    """

    stop: tuple[str, ...] = ()
    logprobs: bool = False
    schema: dict[str, Any] | None = None


PLAIN = ReplyOptions()
"""Text, and no more."""


@dataclass(frozen=True)
class Completions:
    """The draws of one request; a text is None where the provider returned nothing for that draw.

    A provider that does not take n returns fewer texts than draws were asked for; the engine asks again for the rest.
    """

    texts: list[str | None]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider read from its prefix cache."""
    seconds: float | None = None
    """This request's share of the work, where a model batches in this process; None: as long as it was waited for."""
    logprobs: list[list[tuple[str, float]]] | None = None
    """Per draw, its tokens with their natural log-probabilities at temperature 1; where they were asked for."""
    finish_reasons: list[str | None] | None = None
    thoughts: list[str | None] | None = None


Reply = Completions


@dataclass(frozen=True)
class Request:
    messages: Messages
    seeds: tuple[int, ...]
    temperature: float = 1.0
    max_tokens: int = 512
    options: ReplyOptions = PLAIN
    adapter: str | None = None
    role: str = ""
    about: str | None = None
    module: object = None
    budget: Any = None


class Model(Protocol):
    """One named model: where completions come from, and the prompt format it was made for."""

    name: str
    prompt_format: dspy.Adapter
    endpoint: str | None
    """Models of one endpoint share its bound on requests in flight. None for a model in this process: it batches."""

    async def complete(self, messages: Messages, seeds: Sequence[int], *, temperature: float, max_tokens: int,
                       adapter: str | None = None, options: ReplyOptions = PLAIN) -> Completions:
        """One request: one draw per seed, by the base or by one of its loaded adapters. Never retries by itself.

        Raises OutOfRange for a prompt it cannot read, TransientError for what may pass when sent again, ModelError
        for what will not, and for `options` that it cannot give.
        """
        ...

    def prices(self) -> Prices | None:
        """What tokens cost; None where that is unknown, which is not free."""
        ...

    def check(self, max_tokens: int = 0) -> None:
        """Raises ModelError, before any work, for a missing key, or a server that does not answer, or that says that
        its context has no room for a reply of `max_tokens`."""
        ...

    def weights(self) -> Path | None:
        """The directory of the base weights where they are on this disk, else None: such a model cannot be tuned."""
        ...

    def load_adapter(self, name: str, path: Path) -> None:
        """Serve the LoRA adapter at `path` under the new, versioned `name`. Requests in flight are not disturbed.

        Raises AdapterError for an adapter of another base, or one that the model cannot hold.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Serve `name` no longer; requests in flight under it are answered.

        Raises AdapterError where it is not loaded.
        """
        ...


def prompt_tokens_bound(messages: Messages) -> int:
    """At least as many tokens as a tokenizer makes of a chat: a token holds a byte or more, and a template adds few."""
    return sum(len(str(message["content"]).encode()) + 16 for message in messages) + 16
