"""Prices of one's own, over LiteLLM's table: a small JSON file that the environment variable STL_PRICES names.

    {"hosted_vllm/llama-8b": {"prompt": 0.05, "completion": 0.08, "cached_prompt": 0.01, "open": true},
     "training_per_hour": 2.5}

Dollars per million tokens, and per hour of training. A name stands with its provider, or without, to hold for every
provider; an adapter costs what its base does. `open` overrides what the name says (see `is_open`). STL_PRICES=paper
takes the prices of the paper's Table 7, which ship with the package.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from stl_programs.errors import ModelError
from stl_programs.models.base import Prices
from stl_programs.models.versions import VERSION, base_name
from stl_programs.outside import Strict, parsed, read_json

PRICE_BYTES = 2**22
"""Most bytes of a price file."""
Price = Annotated[float, Field(ge=0, le=1e12)]
EXAMPLE = ('{"provider/model": {"prompt": 2.5, "completion": 10}}, dollars per million tokens, and '
           '"training_per_hour": 2.5 where training costs something')
PAPER = Path(__file__).parent / "paper_prices.json"
SERVING_YOUR_WEIGHTS = frozenset({
    "embedded", "local", "hosted_vllm", "vllm", "ollama", "ollama_chat", "huggingface", "llamafile", "lm_studio",
    "xinference", "docker_model_runner"})
"""Providers that serve weights which you have to bring."""
PUBLISHED = ("llama", "codellama", "gemma", "gpt-oss", "mixtral", "olmo")
"""Families of which every model's weights are published, whoever serves them."""


@dataclass(frozen=True)
class _File:
    """A price file: by name, what tokens cost and whether the weights are open; dollars per hour of training."""

    prices: dict[str, Prices]
    open: dict[str, bool]
    training_per_hour: float | None


def own_price(name: str) -> Prices | None:
    """The price of a model by its string in the user's file; None where it names none. Raises ModelError."""
    return _find(_chosen().prices, name)


def is_open(name: str) -> bool:
    """Whether anybody can run the model of this string: its weights are open.

    What the price file says; else true for providers that serve weights which you bring (`embedded/`, `local/`,
    `hosted_vllm/`, `ollama/`, ...) and for names of families whose weights are all published (`llama...`, `gemma...`,
    `gpt-oss...`, `mixtral...`, `olmo...`). Every other model counts as closed, `openai/`, `anthropic/` and `gemini/`
    among them: a host's name does not say what it serves.
    """
    if (said := _find(_chosen().open, name)) is not None:
        return said
    provider, _, rest = name.lower().partition("/")
    model = rest.partition("@")[0].rpartition("/")[2]
    words = [model, *model.split(".")]  # bedrock/meta.llama3-8b-instruct-v1:0
    return provider in SERVING_YOUR_WEIGHTS or any(
        word.removeprefix("meta-").startswith(PUBLISHED) for word in words)


def training_price() -> float | None:
    """Dollars for an hour of training, from the user's file; None where it does not say. Raises ModelError."""
    return _chosen().training_per_hour


def _chosen() -> _File:
    chosen = os.environ.get("STL_PRICES")
    return _read(PAPER if chosen == "paper" else Path(chosen)) if chosen else _NONE


_NONE = _File({}, {}, None)


def _find(table: dict[str, Any], name: str) -> Any:
    """By the whole name, by its last part for every provider; an adapter's by its base's.

    What a server of weights that you bring calls NAME@VERSION is an adapter of NAME, known to this process or not.
    """
    base, _, version = name.rpartition("@")
    served = bool(base and VERSION.fullmatch(version)) and name.partition("/")[0].lower() in SERVING_YOUR_WEIGHTS
    for one in dict.fromkeys((name, base if served else base_name(name))):
        for known in (one, one.rpartition("/")[2].lower()):
            if known in table:
                return table[known]
    return None


@lru_cache
def _read(path: Path) -> _File:
    error = _error(path)
    rows = parsed(_Prices, read_json(path, PRICE_BYTES, "a price file", error), "not a price file", error)
    priced = {name: row for name, row in rows.models.items() if row.prompt is not None}
    return _File({name: row.prices() for name, row in priced.items()},
                 {name: row.open for name, row in rows.models.items() if row.open is not None}, rows.training_per_hour)


def _error(path: Path) -> Callable[[str], ModelError]:
    return lambda line: ModelError(f"STL_PRICES={path} is not a price file: {line.removeprefix('not a price file: ')}; "
                                   f"write {EXAMPLE}")


class _Row(Strict):
    """A model's line."""

    prompt: Price | None = None
    completion: Price | None = None
    cached_prompt: Price | None = None
    open: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion belong together")
        if self.prompt is None and (self.open is None or self.cached_prompt is not None):
            raise ValueError("it names no price of prompt and completion")
        return self

    def prices(self) -> Prices:
        prompt, completion = self.prompt or 0.0, self.completion or 0.0
        cached = prompt if self.cached_prompt is None else self.cached_prompt
        return Prices(prompt / 1e6, cached / 1e6, completion / 1e6)


class _Prices(Strict):
    """A price file: rows by a model's name, beside the one key that is none."""

    training_per_hour: Price | None = None
    models: dict[str, _Row]

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        return {"models": {name: row for name, row in found.items() if name != "training_per_hour"},
                "training_per_hour": found.get("training_per_hour")}
