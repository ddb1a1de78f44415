"""The traffic that the simulator imitates: latency, failures and a prefix cache, as functions of requests and seeds."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

BLOCK = 16
"""Tokens in one block of the prefix cache, as in vLLM."""
KINDS = ("429", "500", "timeout", "cut", "wrong")


@dataclass(frozen=True)
class Latency:
    """How long a request takes once it has one of the server's slots.

    seconds + prefill_ms / 1000 per prompt token outside the prefix cache + decode_ms / 1000 per token of the longest
    draw. With `sigma` > 0 the first term is log-normal with median `seconds`, drawn from a hash of the prompt, the
    request's seed and `seed`.
    """

    seconds: float = 0.0
    sigma: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    seed: int = 0

    def of(self, prompt: str, seed: int, uncached: int, longest: int) -> float:
        base = self.seconds
        if self.sigma:
            base *= math.exp(self.sigma * NormalDist().inv_cdf(unit("latency", self.seed, prompt, seed)))
        return base + (self.prefill_ms * uncached + self.decode_ms * longest) / 1000


@dataclass(frozen=True)
class Errors:
    """Which requests fail, and how: a function of the request's key, its attempt number and `seed`.

    429: refused at once, with `retry_after` seconds. 500: fails after its latency. timeout: held without a slot for
    `timeout_seconds`, then closed. cut: half of the JSON body. wrong: every draw reads "I do not know".
    The server counts the tokens of a cut or wrong reply, and none for the other kinds.
    """

    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    timeout_seconds: float = 30.0
    retry_after: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate={self.rate:g}: a share of requests, from 0 to 1")
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"kinds={self.kinds!r}: one or more of {', '.join(KINDS)}")

    def of(self, key: str, attempt: int) -> str | None:
        drawn = unit("error", self.seed, key, attempt)
        return self.kinds[int(drawn / self.rate * len(self.kinds))] if drawn < self.rate else None


class PrefixCache:
    """Which blocks of prompts a server still holds: chain-hashed per model, least recently used out first.

    As in vLLM the last token of a prompt is always computed, so a prompt is never cached whole.
    """

    def __init__(self, blocks: int):
        self.blocks = blocks
        self._held: OrderedDict[int, None] = OrderedDict()

    def read(self, model: str, tokens: Sequence[str]) -> int:
        """How many leading tokens were held; holds all full blocks of this prompt from now on."""
        chain, key = [], hash(model)
        for i in range(BLOCK, len(tokens) + 1, BLOCK):
            key = hash((key, *tokens[i - BLOCK:i]))
            chain.append(key)
        usable = (len(tokens) - 1) // BLOCK
        found = next((i for i, key in enumerate(chain[:usable]) if key not in self._held), usable)
        for key in reversed(chain):
            self._held[key] = None
            self._held.move_to_end(key)
        while len(self._held) > self.blocks:
            self._held.popitem(last=False)
        return found * BLOCK

    def clear(self) -> None:
        self._held.clear()


def digest(*parts: Any) -> bytes:
    """Eight bytes that depend on nothing but the `repr` of `parts`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()


def unit(*parts: Any) -> float:
    """A number strictly between 0 and 1, from a hash of `parts`."""
    return ((int.from_bytes(digest(*parts), "big") >> 12) + 0.5) / 2**52
