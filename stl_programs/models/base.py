"""One request to a model, its reply, and what every model offers; prices are kept apart from tokens."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dspy

from stl_programs.errors import AskOtherwise, ModelError

Messages = list[dict[str, Any]]
"""A chat: dicts with "role" and "content"."""
TEMPLATE_TOKENS = 16
"""Of what a chat template adds, what JSON does not make up for."""
compact = json.JSONEncoder(separators=(",", ":")).encode
"""JSON in ASCII without spaces."""


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


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model, as it travels from the predictor to the journal: what is asked, and on whose account.

    messages: the chat, not to be changed afterwards. seeds: one draw per seed. max_tokens: of a draw. adapter: the
    loaded adapter that answers; None for what the model's own name stands for. role: whose call it is, in bills
    ("policy", "value"). about: the key of the state that it is about. module, budget: the module that calls, and its
    `Budget` over the run.

    Raises ModelError for no seed, for max_tokens below 1, and for a temperature that is negative or no number.

    Example:
        >>> Request([{"role": "user", "content": "Hi"}], seeds=(0, 1), temperature=0.7, max_tokens=9)
    """

    messages: Messages
    seeds: tuple[int, ...]
    temperature: float = 1.0
    max_tokens: int = 512
    options: ReplyOptions = PLAIN
    adapter: str | None = None
    role: str = ""
    about: str | None = None
    module: object = field(default=None, compare=False, repr=False)
    budget: Any = field(default=None, compare=False, repr=False)
    _prompt: str | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.seeds or self.max_tokens < 1 or not 0 <= self.temperature < math.inf:
            raise ModelError(f"{len(self.seeds)} seeds, max_tokens={self.max_tokens}, temperature={self.temperature}: "
                             "ask for 1 draw or more of 1 token or more, at a temperature of 0 or more")

    @property
    def prompt(self) -> str:
        """The messages as JSON, in ASCII without spaces; written once, however often it is asked for."""
        prompt = self._prompt
        if prompt is None:
            prompt = compact(self.messages)
            object.__setattr__(self, "_prompt", prompt)
        return prompt

    @property
    def prompt_tokens_bound(self) -> int:
        """At least as many tokens as a tokenizer makes of the chat.

        A token holds a byte or more, and a chat template adds fewer than JSON does. Characters outside ASCII count as
        their bytes, not as their escapes.
        """
        if "\\u" not in self.prompt:
            return len(self.prompt) + TEMPLATE_TOKENS
        return len(json.dumps(self.messages, ensure_ascii=False).encode(errors="surrogatepass")) + TEMPLATE_TOKENS

    def replace(self, **changes: Any) -> Request:
        """The same request but for `changes`; equal messages are not written again."""
        changed = dataclasses.replace(self, **changes)
        if changed.messages is self.messages:
            object.__setattr__(changed, "_prompt", self._prompt)
        return changed


@dataclass(frozen=True)
class Reply:
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
    """Per draw why it ended, in the server's words: "stop", "length", "content_filter", "tool_calls", ...; "refusal"
    where it refused in place of a text. None where it does not say."""
    thoughts: list[str | None] | None = None
    """Per draw what a reasoning model thought beforehand, where the server shows it; None where it shows none."""
    bounds: bool = False
    """The tokens are upper bounds: the server did not count them, or counted what cannot be."""


_PER_DRAW = ("texts", "logprobs", "finish_reasons", "thoughts")


def joined(parts: Sequence[Reply], draws: int) -> Reply:
    """Replies to parts of one request as one of at most `draws` draws: in order, and what they cost adds up."""
    if len(parts) == 1 and len(parts[0].texts) == draws:
        return parts[0]
    found = {name: [entry for part in parts for entry in getattr(part, name) or [None] * len(part.texts)][:draws]
             for name in _PER_DRAW if any(getattr(part, name) is not None for part in parts)}
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Reply(prompt_tokens=sum(part.prompt_tokens for part in parts), bounds=any(part.bounds for part in parts),
                 completion_tokens=sum(part.completion_tokens for part in parts),
                 cached_tokens=sum(part.cached_tokens for part in parts),
                 seconds=sum(seconds) if len(seconds) == len(parts) else None, **found)


def repeated(reply: Reply, draws: int) -> Reply:
    """A reply of one draw as `draws` draws that are all alike; it cost one."""
    return dataclasses.replace(reply, **{
        name: found * draws for name in _PER_DRAW if (found := getattr(reply, name)) is not None})


class Model(Protocol):
    """One named model: where completions come from, and the prompt format it was made for."""

    name: str
    prompt_format: dspy.Adapter
    endpoint: str | None
    """Models of one endpoint share its bound on requests in flight. None for a model in this process: it batches."""

    async def complete(self, request: Request) -> Reply:
        """One draw per seed, by the base or by the adapter that the request names. Never retries by itself.

        Raises OutOfRange for a prompt it cannot read, TransientError for what may pass when sent again, ModelError
        for what will not, and for options that it cannot give.
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


WAYS = 4
"""How often one request is asked otherwise, at most."""


async def asked_otherwise(model: Model, request: Request) -> Reply:
    """`model.complete(request)`; where its server refuses how it was asked, again in the ways that it then knows."""
    for _ in range(WAYS):
        try:
            return await model.complete(request)
        except AskOtherwise:
            pass
    return await model.complete(request)
